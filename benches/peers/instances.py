"""Reticle's way from maps to a label image (crates/segment/src/instances.rs), compiled by numba.

Pixel for pixel the same algorithm as in crates/segment/src/instances/reference.rs, so that an engine that
runs our network differs from Reticle in nothing but how it runs it. Where the bench finds other
labels for it than for Reticle on the same tiles, this file, scale.py or estimate.py is behind the
Rust one.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from .package import Postprocessing
from .scale import contiguous

HEIGHT_LEVELS = 4096
NONE = -1


def from_maps(maps: np.ndarray, parameters: Postprocessing) -> np.ndarray:
    """`maps` begins with foreground, distance and contact; the result is int32."""
    foreground, distance, contact = maps[:3]
    heights = _heights(distance, contact, np.float32(parameters.contact_weight))
    for _ in range(parameters.smoothing_passes):
        heights = _smooth(heights)
    threshold = np.float32(parameters.foreground_threshold)
    levels, order = _highest_first(heights, foreground, threshold)
    labels = _flood(
        levels,
        order,
        foreground,
        np.float32(parameters.merge_height) * np.float32(HEIGHT_LEVELS),
        int(np.float32(parameters.seed_threshold) * np.float32(HEIGHT_LEVELS)),
        np.float32(parameters.sure_threshold),
        parameters.min_area,
    )
    _fill_holes(labels)
    return contiguous(labels)


@njit(cache=True)
def _heights(distance: np.ndarray, contact: np.ndarray, weight: float) -> np.ndarray:
    out = np.empty_like(distance)
    for y in range(distance.shape[0]):
        for x in range(distance.shape[1]):
            out[y, x] = max(distance[y, x] - weight * contact[y, x], np.float32(0))
    return out


@njit(cache=True)
def _highest_first(
    heights: np.ndarray, foreground: np.ndarray, threshold: float
) -> tuple[np.ndarray, np.ndarray]:
    """Whole levels; the foreground from the highest to the lowest, equal ones in reading order."""
    rows, columns = heights.shape
    levels = np.empty((rows, columns), np.int32)
    starts = np.zeros(HEIGHT_LEVELS + 1, np.int64)
    for y in range(rows):
        for x in range(columns):
            height = min(heights[y, x], np.float32(1)) * np.float32(HEIGHT_LEVELS - 1)
            levels[y, x] = np.int32(height)
            if foreground[y, x] > threshold:
                starts[HEIGHT_LEVELS - levels[y, x]] += 1
    starts = np.cumsum(starts)
    order = np.empty(starts[HEIGHT_LEVELS], np.int64)
    for y in range(rows):
        for x in range(columns):
            if foreground[y, x] > threshold:
                rank = HEIGHT_LEVELS - 1 - levels[y, x]
                order[starts[rank]] = y * columns + x
                starts[rank] += 1
    return levels, order


@njit(cache=True)
def _smooth(values: np.ndarray) -> np.ndarray:
    """One pass of [1 2 1]/4 along both axes; edges are repeated."""
    rows, columns = values.shape
    across = np.empty_like(values)
    quarter, two = np.float32(0.25), np.float32(2)
    for y in range(rows):
        for x in range(columns):
            left, right = values[y, max(x - 1, 0)], values[y, min(x + 1, columns - 1)]
            across[y, x] = (left + two * values[y, x] + right) * quarter
    out = np.empty_like(values)
    for y in range(rows):
        above, below = max(y - 1, 0), min(y + 1, rows - 1)
        for x in range(columns):
            out[y, x] = (across[above, x] + two * across[y, x] + across[below, x]) * quarter
    return out


@njit(cache=True)
def _root(parent: np.ndarray, item: int) -> int:
    while parent[item] != item:
        parent[item] = parent[parent[item]]
        item = parent[item]
    return item


@njit(cache=True)
def _flood(
    levels: np.ndarray,
    order: np.ndarray,
    foreground: np.ndarray,
    merge: float,
    seed_level: int,
    sure_threshold: float,
    min_area: int,
) -> np.ndarray:
    rows, columns = levels.shape
    height = levels.ravel()
    joined = np.full(height.size, NONE, np.int32)
    parent = np.empty(order.size, np.int32)
    peak = np.empty(order.size, np.int32)
    count = 0
    roots = np.empty(4, np.int32)
    for at in order:
        y, x = at // columns, at % columns
        roots[:] = NONE
        best, own = NONE, NONE
        for side in range(4):
            # Above, left, right, below.
            if side == 0 and y > 0:
                near = at - columns
            elif side == 1 and x > 0:
                near = at - 1
            elif side == 2 and x + 1 < columns:
                near = at + 1
            elif side == 3 and y + 1 < rows:
                near = at + columns
            else:
                continue
            if joined[near] != NONE:
                roots[side] = _root(parent, joined[near])
                if height[near] > best:
                    best, own = height[near], roots[side]
        if own == NONE:
            joined[at], parent[count], peak[count] = count, count, height[at]
            count += 1
            continue
        for side in range(4):
            if roots[side] == NONE:
                continue
            other = _root(parent, roots[side])
            if other == own:
                continue
            # Equal peaks: the one that was met first stands.
            own_stands = peak[own] > peak[other] or (peak[own] == peak[other] and own < other)
            higher, lower = (own, other) if own_stands else (other, own)
            if peak[lower] - height[at] < merge:
                parent[lower] = higher
                own = higher
        joined[at] = own
    areas = np.zeros(count, np.int64)
    # Whether the network is sure of one of its pixels: smoothing takes most from the smallest.
    sure = np.zeros(count, np.bool_)
    for at in order:
        joined[at] = _root(parent, joined[at])
        areas[joined[at]] += 1
        sure[joined[at]] |= foreground[at // columns, at % columns] > sure_threshold
    labels = np.zeros(height.size, np.int32)
    for at in order:
        item = joined[at]
        if (peak[item] >= seed_level or sure[item]) and areas[item] >= min_area:
            labels[at] = item + 1
    return labels.reshape(rows, columns)


@njit(cache=True)
def _fill_holes(labels: np.ndarray) -> None:
    """Background that one single object encloses becomes part of it."""
    rows, columns = labels.shape
    seen = np.zeros(labels.shape, np.bool_)
    region = np.empty(labels.size, np.int64)
    for start_y in range(rows):
        for start_x in range(1, columns):
            owner = labels[start_y, start_x - 1]
            if labels[start_y, start_x] != 0 or seen[start_y, start_x] or owner == 0:
                continue
            enclosed = True
            region[0], size, done = start_y * columns + start_x, 1, 0
            seen[start_y, start_x] = True
            while done < size:
                y, x = region[done] // columns, region[done] % columns
                done += 1
                if y == 0 or x == 0 or y + 1 == rows or x + 1 == columns:
                    enclosed = False
                for step_y, step_x in ((-1, 0), (0, -1), (0, 1), (1, 0)):
                    near_y, near_x = y + step_y, x + step_x
                    if not (0 <= near_y < rows and 0 <= near_x < columns):
                        continue
                    label = labels[near_y, near_x]
                    if label != 0:
                        enclosed = enclosed and label == owner
                    elif not seen[near_y, near_x]:
                        seen[near_y, near_x] = True
                        region[size] = near_y * columns + near_x
                        size += 1
            if enclosed:
                for index in range(size):
                    labels[region[index] // columns, region[index] % columns] = owner
