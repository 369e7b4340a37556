"""StarDist 2D on TensorFlow, as its examples use it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

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
        # predict_instances goes on to this from the network's maps: where one stage ends.
        self.polygons = model._instances_from_prediction

    def frame(self, path: Path, lap: Lap) -> Result:
        pixels = imread(path)
        lap("decode")
        scaled = normalize(pixels, 1, 99.8)
        lap("normalise")

        def polygons(*args: Any, **keywords: Any) -> Any:
            lap("network")
            return self.polygons(*args, **keywords)

        self.model._instances_from_prediction = polygons
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
