"""Our network by another runtime, with Reticle's pre- and post-processing around it.

A bound on inference: what is left between these rows and Reticle's own network stage is what a
better convolution could win. The stage `network` has the same in it as Reticle's: scaling grey
values, finding the scale of the objects (which runs the network on a window, some times over), and
the network on the frame at that scale.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numba import njit
from skimage.io import imread

from .. import estimate, package, scale, tiles
from ..instances import from_maps
from ..objects import measure
from .base import Lap, Options, Result

# The network takes multiples of this.
STEP = 16
# Sub-pixels along the edge of one output pixel, and maps, by channels (crates/segment/src/network.rs).
# The fourth map is that of sizes; packages made before there was one give three.
CHANNELS = {12: (2, 3), 16: (2, 4), 48: (4, 3), 64: (4, 4)}

Network = Callable[[np.ndarray], np.ndarray]
"""[1,1,H,W] → [1,C,H/n,W/n]; may be called from several threads at once."""


class Ours:
    """Whole planes with all threads, or Reticle's tiles with one thread each."""

    def __init__(self, options: Options, network: Network, channels: int, threads: int) -> None:
        self.options = options
        self.package = package.read(options.model)
        self.network = network
        self.fine, self.maps = CHANNELS[channels]
        self.pool = ThreadPoolExecutor(threads)
        # Sizes that were run for one frame, its own first; runtimes prepare themselves for each.
        self.met: set[tuple[tuple[int, int], ...]] = set()

    def frame(self, path: Path, lap: Lap) -> Result:
        pixels = imread(path)
        lap("decode")
        low, high = self.package.normalisation.span(pixels)
        lap("normalise")
        native = package.scaled(pixels, low, high)
        # Image files of the bench say no pixel size: Reticle estimates the scale of each, too.
        sizes = [native.shape]

        def run(plane: np.ndarray) -> np.ndarray:
            sizes.append(plane.shape)
            return self._tiled(plane) if self.options.tiles else self._whole(plane)

        found_at, maps = estimate.run(run, native, gives_sizes=self.maps > estimate.SIZE)
        lap("network")
        prepared = tuple(sizes) not in self.met
        self.met.add(tuple(sizes))
        if self.options.network_only:
            return Result(None, 0, prepared)
        found = from_maps(maps, self.package.postprocessing)
        labels = scale.to_frame(found, found_at, pixels.shape)
        lap("instances")
        measure(labels, pixels)
        lap("measure")
        return Result(labels, int(labels.max()), prepared)

    def _whole(self, plane: np.ndarray) -> np.ndarray:
        height, width = plane.shape
        padded = np.pad(plane, ((0, -height % STEP), (0, -width % STEP)), mode="edge")
        maps = np.empty((self.maps, height, width), np.float32)
        put(self.network(padded[None, None])[0], self.fine, maps, 0, 0, height, width, 0, 0)
        return maps

    def _tiled(self, plane: np.ndarray) -> np.ndarray:
        height, width = plane.shape
        edge, rows, columns = tiles.grid(width, height)
        missing = ((0, max(edge - height, 0)), (0, max(edge - width, 0)))
        padded = np.pad(plane, missing, mode="edge")
        maps = np.empty((self.maps, height, width), np.float32)

        def run(place: tuple[tiles.Span, tiles.Span]) -> None:
            row, column = place
            tile = padded[row.start : row.start + edge, column.start : column.start + edge]
            out = self.network(np.ascontiguousarray(tile)[None, None])[0]
            first, end = (row.first, column.first), (row.end, column.end)
            put(out, self.fine, maps, *first, *end, row.start, column.start)

        list(self.pool.map(run, [(row, column) for row in rows for column in columns]))
        return maps


@njit(cache=True, nogil=True)
def put(
    output: np.ndarray,
    fine: int,
    maps: np.ndarray,
    top: int,
    left: int,
    bottom: int,
    right: int,
    start_y: int,
    start_x: int,
) -> None:
    """Writes rows `top..bottom` and columns `left..right` of `maps`, sub-pixels to their places.

    `output` is channel × rows × columns for a tile that begins at `start_y`, `start_x`; channel
    `n² · map + n · dy + dx` has the sub-pixels at `dy`, `dx` of each `n × n`, where n is `fine`.
    """
    for map_ in range(maps.shape[0]):
        for y in range(top, bottom):
            for dx in range(fine):
                row, dy = (y - start_y) // fine, (y - start_y) % fine
                values = output[(map_ * fine + dy) * fine + dx, row]
                # The first column of this part of the tile that has this `dx`.
                first = left + (dx - (left - start_x)) % fine
                for x in range(first, right, fine):
                    maps[map_, y, x] = values[(x - start_x) // fine]
