"""Draws the golden frame of models/phase: cells as phase contrast shows them, none of them real.

Usage: python scripts/golden_phase.py OUT.png   (wants numpy, scipy, imageio)
A flat cell is a bent spindle or triangle: slightly darker than the ground, grained, dark along its
edge, with a bright halo. A round one is a bright ring.
"""

import sys

import imageio.v3 as iio
import numpy as np
from scipy import ndimage

EDGE = 512
CELLS = 22
GROUND, WHITE = 31_600.0, 65_535.0


def outline(chance: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Radius by angle: two to four arms of different lengths."""
    angles = np.linspace(0, 2 * np.pi, 256, endpoint=False)
    radius = np.full(angles.size, chance.uniform(13, 18))
    start = chance.uniform(0, 2 * np.pi)
    arms = chance.integers(2, 5)
    for arm in range(arms):
        towards = start + 2 * np.pi * (arm + chance.uniform(-0.15, 0.15)) / arms
        off = np.angle(np.exp(1j * (angles - towards)))
        radius += chance.uniform(14, 30) * np.exp(-((off / chance.uniform(0.25, 0.4)) ** 2))
    return angles, radius


def draw(chance: np.random.Generator) -> np.ndarray:
    rows, columns = np.mgrid[:EDGE, :EDGE].astype(float)
    taken = np.zeros((EDGE, EDGE), bool)
    grey = np.full((EDGE, EDGE), GROUND)
    placed = 0
    while placed < CELLS:
        y, x = chance.uniform(20, EDGE - 20, 2)
        flat = chance.random() < 0.85
        if flat:
            angles, radius = outline(chance)
            around = np.mod(np.arctan2(rows - y, columns - x), 2 * np.pi)
            reach = np.interp(around, angles, radius, period=2 * np.pi)
        else:
            reach = np.full((EDGE, EDGE), chance.uniform(12, 16))
        inside = np.hypot(rows - y, columns - x) < reach
        if (ndimage.binary_dilation(inside, iterations=3) & taken).any():
            continue
        taken |= inside
        placed += 1
        depth = ndimage.distance_transform_edt(inside)
        beyond = ndimage.distance_transform_edt(~inside)
        if flat:
            coarse = ndimage.gaussian_filter(chance.normal(size=inside.shape), 4) * 4 * 2.5
            fine = ndimage.gaussian_filter(chance.normal(size=inside.shape), 1) * 3
            body = 1_500 * coarse + 4_500 * fine - 9_000 * np.exp(-(((depth - 2) / 2) ** 2))
            # Vacuoles and nucleoli.
            body -= 14_000 * (ndimage.gaussian_filter(chance.normal(size=inside.shape), 2) > 0.2)
            grey += np.where(inside, body, 17_000 * np.exp(-(((beyond - 1.5) / 2.5) ** 2)))
        else:
            ring = np.exp(-(((depth - 3) / 3) ** 2))
            grey += np.where(inside, 34_000 * ring - 25_000 * (depth > 8), 15_000 * np.exp(-beyond / 3))
    grey += chance.normal(scale=350, size=grey.shape)
    return ndimage.gaussian_filter(np.clip(grey, 0, WHITE), 0.7).astype(np.uint16)


if __name__ == "__main__":
    iio.imwrite(sys.argv[1], draw(np.random.default_rng(5)))
