"""StarDist 2D on TensorFlow, as its examples use it."""

from __future__ import annotations

from pathlib import Path

import tensorflow as tf
from csbdeep.utils import normalize
from skimage.io import imread
from stardist.models import StarDist2D

from ..objects import measure
from .base import Lap, Options, Result


class StarDist:
    """Percentiles 1 and 99.8, one pass of the whole frame, thresholds of its own training."""

    def __init__(self, model: StarDist2D) -> None:
        self.model = model

    def frame(self, path: Path, lap: Lap) -> Result:
        pixels = imread(path)
        lap("decode")
        scaled = normalize(pixels, 1, 99.8)
        lap("normalise")
        # The network, then the polygons that survive, drawn; StarDist gives no time between.
        labels, _ = self.model.predict_instances(scaled, verbose=False, show_tile_progress=False)
        lap("instances")
        measure(labels, pixels)
        lap("measure")
        return Result(labels, int(labels.max()))


def load(options: Options, threads: int) -> StarDist:
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    # Operators of one graph side by side would be threads on top.
    tf.config.threading.set_inter_op_parallelism_threads(1)
    folder = options.stardist
    return StarDist(StarDist2D(None, name=folder.name, basedir=str(folder.parent)))
