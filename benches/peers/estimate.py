"""How large the objects of an unknown frame are (crates/segment/src/estimate.rs, size.rs).

`run` follows the Rust function of that name line by line, so that a change there is a change here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numba import njit

from . import scale as scales

WINDOW = 256
LOOKS = 5
LOOKS_SMALL = -0.25
UNSURE = 0.7
FURTHEST_UNSEEN = 0.25
NOT_SMALLER = 0.3
CELLS = 8
SIGNAL = np.float32(0.3)
FEWEST_PIXELS = 25
SURE = np.float32(0.9)
BINS = 96
OCTAVES = 6.0
# Place of the maps in what the network gives.
FOREGROUND, SIZE = 0, 3

Run = Callable[[np.ndarray], np.ndarray]
"""A plane of normalised grey values → its maps, map × rows × columns."""


def run(network: Run, native: np.ndarray, gives_sizes: bool) -> tuple[scales.Scale, np.ndarray]:
    """The scale at which objects have about the model's own size, and the frame's maps there."""
    last: tuple[scales.Scale, np.ndarray] | None = None

    def look(scale: scales.Scale, than: Objects | None = None) -> Objects | None:
        """The objects at `scale`; None where there are none.

        With `than`, None as well where they are not clearer and larger, or not much smaller than
        unclear ones; the look before stays last.
        """
        nonlocal last
        plane = scales.at(native, scale)
        part = window(plane)
        maps = network(part)
        seen = objects(maps)
        if than is not None:
            slack = NOT_SMALLER if than.sure < UNSURE else 0.0
            if (
                seen is None
                or seen.octaves <= than.octaves - slack
                or seen.sure <= than.sure
            ):
                return None
        last = (scale, maps) if part is plane else None
        return seen

    scale = scales.NATIVE
    if gives_sizes:
        # What was tried, and how many octaves from the model's size objects were there.
        tried: list[tuple[scales.Scale, float]] = []
        for _ in range(LOOKS):
            seen = look(scale)
            if seen is None:
                # From too near an object may be too dull to be seen.
                if not tried and scales.factor(scale) > FURTHEST_UNSEEN:
                    scale = scales.smaller_by(scale, 1.0)
                    continue
                break
            # Spots in objects much too large look like small or unclear objects. From further away
            # small objects look smaller still, or flow together; spots do not, and the objects
            # appear.
            while seen.octaves < LOOKS_SMALL or seen.sure < UNSURE:
                away = scales.smaller_by(scale, 1.0)
                if away == scale:
                    break
                there = look(away, than=seen)
                if there is None:
                    break
                scale, seen = away, there
            tried.append((scale, seen.octaves))
            scale = scales.smaller_by(scale, seen.octaves)
            if any(before == scale for before, _ in tried):
                break
        # Where two scales point at each other, the one that is less off.
        nearest = min(tried, key=lambda one: abs(one[1]), default=(scales.NATIVE, 0.0))
        scale = scales.smaller_by(*nearest)
    if last is None or last[0] != scale:
        last = scale, network(scales.at(native, scale))
    return last


class Objects(NamedTuple):
    """What a look shows."""

    octaves: float
    """Doublings from the model's own diameter to that of the median object."""
    sure: float
    """Share of their pixels of which the network is sure."""


def objects(maps: np.ndarray) -> Objects | None:
    """None where there are too few pixels of objects."""
    octaves = _typical_octaves(maps[FOREGROUND], maps[SIZE])
    if np.isnan(octaves):
        return None
    inside = np.float32((maps[FOREGROUND] > 0.5).sum())
    return Objects(octaves, np.float32((maps[FOREGROUND] > SURE).sum()) / inside)


def window(plane: np.ndarray) -> np.ndarray:
    """The part of at most `WINDOW × WINDOW` with the most signal; `plane` itself if it is small."""
    height, width = plane.shape
    if max(height, width) <= WINDOW:
        return plane
    cell = WINDOW // CELLS
    signal = _signal(plane, cell)
    high, wide = (min(CELLS, cells) for cells in signal.shape)
    sums = np.lib.stride_tricks.sliding_window_view(signal, (high, wide)).sum((2, 3))
    # The first in reading order where several have the most.
    row, column = np.unravel_index(sums.argmax(), sums.shape)
    top = min(row * cell, max(height - WINDOW, 0))
    left = min(column * cell, max(width - WINDOW, 0))
    return np.ascontiguousarray(plane[top : top + WINDOW, left : left + WINDOW])


@njit(cache=True)
def _signal(plane: np.ndarray, cell: int) -> np.ndarray:
    """Pixels of signal in each cell."""
    height, width = plane.shape
    counts = np.zeros((-(-height // cell), -(-width // cell)), np.int64)
    for y in range(height):
        for x in range(width):
            counts[y // cell, x // cell] += plane[y, x] > SIGNAL
    return counts


@njit(cache=True)
def _ratio_of(value: float) -> float:
    """Times the model's own diameter (crates/segment/src/size.rs)."""
    return np.exp2((value - np.float32(0.5)) * np.float32(OCTAVES))


@njit(cache=True)
def _typical_octaves(foreground: np.ndarray, size: np.ndarray) -> float:
    histogram = np.zeros(BINS, np.float32)
    pixels = 0
    for y in range(foreground.shape[0]):
        for x in range(foreground.shape[1]):
            if foreground[y, x] > np.float32(0.5):
                value = size[y, x]
                bin_ = min(max(int(value * np.float32(BINS)), 0), BINS - 1)
                ratio = _ratio_of(value)
                # An object of twice the diameter has four times as many pixels and is one object.
                histogram[bin_] += np.float32(1) / (ratio * ratio)
                pixels += 1
    if pixels < FEWEST_PIXELS:
        return np.nan
    total = np.float32(0)
    for weight in histogram:
        total += weight
    below = np.float32(0)
    for median in range(BINS):
        below += histogram[median]
        if below >= total / np.float32(2):
            return ((median + 0.5) / BINS - 0.5) * OCTAVES
    return np.nan
