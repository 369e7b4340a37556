"""From a frame's own scale to the model's, and back (crates/segment/src/scale.rs), compiled by numba.

A scale is a pair: so many pixels along an edge (the second number) become so many (the first).
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

Scale = tuple[int, int]

NATIVE: Scale = (1, 1)
STEPS: list[Scale] = [(2, 1), NATIVE, (2, 3), *((1, over) for over in (2, 3, 4, 6, 8, 12, 16))]
# Shares of the pixels 3/4, 1/4, 5/4 and 7/4 of a pixel away.
CUBIC = np.array([0.2265625, 0.8671875, -0.0703125, -0.0234375], np.float32)


def factor(scale: Scale) -> float:
    """How many times as long an edge gets."""
    return scale[0] / scale[1]


def smaller_by(scale: Scale, octaves: float) -> Scale:
    """The scale at which objects that are `octaves` doublings too large at `scale` fit best."""
    wanted = math.log2(factor(scale)) - octaves
    return min(STEPS, key=lambda step: abs(math.log2(factor(step)) - wanted))


def at(plane: np.ndarray, scale: Scale) -> np.ndarray:
    """A float32 plane at `scale`; the plane itself at its own."""
    if scale == (2, 1):
        return _doubled(plane)
    if scale == (2, 3):
        return _by_two_thirds(plane)
    over = scale[1]
    for by in (3, 2):
        while over % by == 0:
            plane = _reduced(plane, by)
            over //= by
    return plane


def to_frame(labels: np.ndarray, scale: Scale, shape: tuple[int, int]) -> np.ndarray:
    """Labels that were found at `scale`, at the frame's own rows and columns."""
    if scale == NATIVE:
        return labels
    rows, columns = (_taps(*lengths, scale) for lengths in zip(shape, labels.shape, strict=True))
    return contiguous(_largest_shares(labels, *rows, *columns))


def _taps(length: int, there: int, scale: Scale) -> tuple[np.ndarray, np.ndarray]:
    """For each of `length` pixels: two of the `there` pixels at `scale`, and their shares."""
    times, over = scale
    # Centre there: (pixel + ½) · times / over − ½, in parts of 1 / (2 · over).
    centre = (2 * np.arange(length) + 1) * times - over
    left, right_share = centre // (2 * over), centre % (2 * over)
    places = np.clip(np.stack([left, left + 1], 1), 0, there - 1)
    return places, np.stack([2 * over - right_share, right_share], 1)


@njit(cache=True, nogil=True)
def _reduced(plane: np.ndarray, by: int) -> np.ndarray:
    """Means of by×by pixels; of what is there at an edge that is no multiple."""
    height, width = plane.shape
    out = np.zeros((-(-height // by), -(-width // by)), np.float32)
    for y in range(out.shape[0]):
        rows = min(by, height - by * y)
        for x in range(out.shape[1]):
            columns = min(by, width - by * x)
            total = np.float32(0)
            for row in range(by * y, by * y + rows):
                line = np.float32(0)
                for column in range(by * x, by * x + columns):
                    line += plane[row, column]
                total += line
            out[y, x] = total / np.float32(rows * columns)
    return out


@njit(cache=True, nogil=True)
def _by_two_thirds(plane: np.ndarray) -> np.ndarray:
    """Of each 3×3 pixels 2×2, which have the middle row and column between them."""
    height, width = plane.shape
    out = np.empty((-(-2 * height // 3), -(-2 * width // 3)), np.float32)
    mixed = np.empty(width, np.float32)
    two, three = np.float32(2), np.float32(3)
    for y in range(out.shape[0]):
        own = min(y // 2 * 3 + y % 2 * 2, height - 1)
        between = min(y // 2 * 3 + 1, height - 1)
        for x in range(width):
            mixed[x] = (two * plane[own, x] + plane[between, x]) / three
        for x in range(out.shape[1]):
            own = min(x // 2 * 3 + x % 2 * 2, width - 1)
            between = min(x // 2 * 3 + 1, width - 1)
            out[y, x] = (two * mixed[own] + mixed[between]) / three
    return out


@njit(cache=True, nogil=True)
def _doubled(plane: np.ndarray) -> np.ndarray:
    """Each pixel becomes 2×2, interpolated between centres by CUBIC; edges are repeated."""
    height, width = plane.shape
    out = np.empty((2 * height, 2 * width), np.float32)
    mixed = np.empty(width, np.float32)
    for y in range(2 * height):
        rows = _side(y, height)
        for x in range(width):
            total = np.float32(0)
            for tap in range(4):
                total += plane[rows[tap], x] * CUBIC[tap]
            mixed[x] = total
        for x in range(2 * width):
            columns = _side(x, width)
            total = np.float32(0)
            for tap in range(4):
                total += mixed[columns[tap]] * CUBIC[tap]
            out[y, x] = total
    return out


@njit(cache=True, nogil=True)
def _side(place: int, length: int) -> tuple[int, int, int, int]:
    """The pixels that make a place of twice as many, in the order of CUBIC."""
    pixel, way = place // 2, 1 if place % 2 else -1
    last = length - 1
    return (
        min(max(pixel + way, 0), last),
        pixel,
        min(max(pixel - way, 0), last),
        min(max(pixel + 2 * way, 0), last),
    )


@njit(cache=True)
def _largest_shares(
    labels: np.ndarray,
    rows: np.ndarray,
    row_shares: np.ndarray,
    columns: np.ndarray,
    column_shares: np.ndarray,
) -> np.ndarray:
    """The label with the largest share of what lies under each pixel.

    A tie goes to an object rather than to background, and else to the smaller label.
    """
    out = np.zeros((len(rows), len(columns)), np.int32)
    for y in range(len(rows)):
        upper, lower = labels[rows[y, 0]], labels[rows[y, 1]]
        for x in range(len(columns)):
            left, right = columns[x, 0], columns[x, 1]
            found = (upper[left], upper[right], lower[left], lower[right])
            if found[0] == found[1] == found[2] == found[3]:
                out[y, x] = found[0]
                continue
            shares = (
                row_shares[y, 0] * column_shares[x, 0],
                row_shares[y, 0] * column_shares[x, 1],
                row_shares[y, 1] * column_shares[x, 0],
                row_shares[y, 1] * column_shares[x, 1],
            )
            best, most = found[0], -1
            for label in found:
                share = 0
                for other in range(4):
                    if found[other] == label:
                        share += shares[other]
                smaller = label != 0 and (best == 0 or label < best)
                if share > most or (share == most and smaller):
                    best, most = label, share
            out[y, x] = best
    return out


@njit(cache=True)
def contiguous(labels: np.ndarray) -> np.ndarray:
    """Labels from 1 without gaps, in reading order."""
    new = np.zeros(labels.max() + 1, np.int32)
    out = np.zeros_like(labels)
    count = 0
    for y in range(labels.shape[0]):
        for x in range(labels.shape[1]):
            label = labels[y, x]
            if label != 0:
                if new[label] == 0:
                    count += 1
                    new[label] = count
                out[y, x] = new[label]
    return out
