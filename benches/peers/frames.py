"""Square frames of fixed sizes out of real images: `python -m peers.frames IMAGES OUT`.

Each frame is a grid of 256² pieces of images, at their native scale, neither mirrored nor turned.
Pieces are taken in a seeded shuffle of all images, from a seeded place in each; no image comes
again before all have been taken. Images are of many exposures, and a dim one beside a bright one
would be lost to any threshold over the whole frame; so each piece is scaled to the same grey
values first (percentiles 1 and 99.8 become 16 and 200), by at most eight times, which leaves empty
pieces empty.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from skimage.io import imread, imsave

PIECE = 256
# Edge and how many: about as many pixels of each size as one process can do in seconds.
COUNTS = {256: 16, 512: 8, 1024: 4, 2048: 2}
SEED = 5
GREY = (16.0, 200.0)
MOST_GAIN = 8.0


def pieces(images: list[Path], chance: random.Random) -> Iterator[np.ndarray]:
    """Endlessly many."""
    while True:
        for path in chance.sample(images, len(images)):
            pixels = imread(path)
            height, width = pixels.shape
            if min(height, width) < PIECE:
                continue
            top = chance.randrange(height - PIECE + 1)
            left = chance.randrange(width - PIECE + 1)
            yield to_common_grey(pixels[top : top + PIECE, left : left + PIECE])


def to_common_grey(piece: np.ndarray) -> np.ndarray:
    """Percentiles 1 and 99.8 become `GREY`."""
    low, high = np.percentile(piece, (1.0, 99.8))
    gain = min((GREY[1] - GREY[0]) / max(high - low, 1.0), MOST_GAIN)
    return np.clip((piece - low) * gain + GREY[0], 0, 255).round().astype(np.uint8)


def make(images: Path, out: Path) -> None:
    """Writes OUT/<edge>/<number>.png."""
    chance = random.Random(SEED)
    source = pieces(sorted(images.glob("*.png")), chance)
    for edge, count in COUNTS.items():
        side = edge // PIECE
        folder = out / str(edge)
        folder.mkdir(parents=True, exist_ok=True)
        for number in range(count):
            rows = [np.hstack([next(source) for _ in range(side)]) for _ in range(side)]
            imsave(folder / f"{number:02}.png", np.vstack(rows), check_contrast=False)


if __name__ == "__main__":
    make(Path(sys.argv[1]), Path(sys.argv[2]))
