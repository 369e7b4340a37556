"""From a frame's own scale to the model's, and back (src/segment/scale.rs), compiled by numba.

A scale is a whole number of doublings: 1 enlarges a frame to twice its width, -1 halves it.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

NATIVE = 0
LARGEST = 1
SMALLEST = -4
# Shares of a pixel are counted in these parts.
PARTS = 32


def smaller_by(scale: int, octaves: float) -> int:
    """The scale at which objects that are `octaves` doublings too large at `scale` fit best."""
    # Halves go away from zero, as Rust rounds.
    nearest = math.copysign(math.floor(abs(octaves) + 0.5), octaves)
    return int(min(max(scale - nearest, SMALLEST), LARGEST))


def at(plane: np.ndarray, scale: int) -> np.ndarray:
    """A float32 plane at `scale`; the plane itself at its own."""
    for _ in range(-scale):
        plane = _halved(plane)
    for _ in range(scale):
        plane = _doubled(plane)
    return plane


def to_frame(labels: np.ndarray, scale: int, shape: tuple[int, int]) -> np.ndarray:
    """Labels that were found at `scale`, at the frame's own rows and columns."""
    if scale == NATIVE:
        return labels
    rows, columns = (_taps(*lengths, scale) for lengths in zip(shape, labels.shape, strict=True))
    return contiguous(_largest_shares(labels, *rows, *columns))


def _taps(length: int, there: int, scale: int) -> tuple[np.ndarray, np.ndarray]:
    """For each of `length` pixels: two of the `there` pixels at `scale`, and their shares."""
    pixels = np.arange(length)
    if scale > 0:
        # The middle two of the pixels it became.
        middle = (pixels << scale) + (1 << (scale - 1))
        return np.stack([middle - 1, middle], 1), np.full((length, 2), PARTS // 2)
    # Centre in units of 1/32 of a pixel there: (pixel + ½) / 2^n − ½.
    centre = (2 * pixels + 1) * (PARTS >> -scale) // 2 - PARTS // 2
    left, right_share = centre // PARTS, centre % PARTS
    places = np.clip(np.stack([left, left + 1], 1), 0, there - 1)
    return places, np.stack([PARTS - right_share, right_share], 1)


@njit(cache=True, nogil=True)
def _halved(plane: np.ndarray) -> np.ndarray:
    """Means of 2×2 pixels; an odd edge is repeated."""
    height, width = plane.shape
    out = np.empty(((height + 1) // 2, (width + 1) // 2), np.float32)
    for y in range(out.shape[0]):
        upper, lower = plane[2 * y], plane[min(2 * y + 1, height - 1)]
        for x in range(out.shape[1]):
            first, last = 2 * x, min(2 * x + 1, width - 1)
            total = upper[first] + upper[last] + lower[first] + lower[last]
            out[y, x] = total * np.float32(0.25)
    return out


@njit(cache=True, nogil=True)
def _doubled(plane: np.ndarray) -> np.ndarray:
    """Each pixel becomes 2×2, interpolated between centres; edges are repeated."""
    height, width = plane.shape
    near_share, far_share = np.float32(0.75), np.float32(0.25)
    out = np.empty((2 * height, 2 * width), np.float32)
    mixed = np.empty(width, np.float32)
    for y in range(height):
        for below in range(2):
            other = min(y + 1, height - 1) if below else max(y - 1, 0)
            for x in range(width):
                mixed[x] = near_share * plane[y, x] + far_share * plane[other, x]
            row = out[2 * y + below]
            for x in range(width):
                own = near_share * mixed[x]
                row[2 * x] = own + far_share * mixed[max(x - 1, 0)]
                row[2 * x + 1] = own + far_share * mixed[min(x + 1, width - 1)]
    return out


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
