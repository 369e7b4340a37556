"""Our network by another runtime, with Reticle's pre- and post-processing around it.

A bound on inference: what is left between these rows and Reticle's own network stage is what a
better convolution could win.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from skimage.io import imread

from .. import package, tiles
from ..instances import from_maps
from ..objects import measure
from .base import Lap, Options, Result

# The network takes multiples of this.
STEP = 16

Network = Callable[[np.ndarray], np.ndarray]
"""[1,1,H,W] → [1,12,H/2,W/2]; may be called from several threads at once."""


class Ours:
    """Whole frames with all threads, or Reticle's tiles with one thread each."""

    def __init__(self, options: Options, network: Network, threads: int) -> None:
        self.options = options
        self.package = package.read(options.model)
        self.network = network
        self.pool = ThreadPoolExecutor(threads)

    def frame(self, path: Path, lap: Lap) -> Result:
        pixels = imread(path)
        lap("decode")
        scaled = self.package.normalisation.apply(pixels)
        lap("normalise")
        maps = self._tiled(scaled) if self.options.tiles else self._whole(scaled)
        lap("network")
        if self.options.network_only:
            return Result(None, 0)
        labels = from_maps(maps, self.package.postprocessing)
        lap("instances")
        measure(labels, pixels)
        lap("measure")
        return Result(labels, int(labels.max()))

    def _whole(self, scaled: np.ndarray) -> np.ndarray:
        height, width = scaled.shape
        padded = np.pad(scaled, ((0, -height % STEP), (0, -width % STEP)), mode="edge")
        return sub_pixels(self.network(padded[None, None]))[:, :height, :width]

    def _tiled(self, scaled: np.ndarray) -> np.ndarray:
        height, width = scaled.shape
        edge, rows, columns = tiles.grid(width, height)
        missing = ((0, max(edge - height, 0)), (0, max(edge - width, 0)))
        padded = np.pad(scaled, missing, mode="edge")
        maps = np.empty((3, height, width), np.float32)

        def run(place: tuple[tiles.Span, tiles.Span]) -> None:
            row, column = place
            tile = padded[row.start : row.start + edge, column.start : column.start + edge]
            out = sub_pixels(self.network(np.ascontiguousarray(tile)[None, None]))
            maps[:, row.first : row.end, column.first : column.end] = out[
                :,
                row.first - row.start : row.end - row.start,
                column.first - column.start : column.end - column.start,
            ]

        list(self.pool.map(run, [(row, column) for row in rows for column in columns]))
        return maps


def sub_pixels(output: np.ndarray) -> np.ndarray:
    """[1,12,h,w] → [3,2h,2w]: each map comes as 2×2 sub-pixels."""
    _, _, height, width = output.shape
    planes = output.reshape(3, 2, 2, height, width).transpose(0, 3, 1, 4, 2)
    return planes.reshape(3, 2 * height, 2 * width)
