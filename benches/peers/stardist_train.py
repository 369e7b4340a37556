"""StarDist's own recipe on our training images: `python -m peers.stardist_train DATA OUT STEPS`.

No weights can be downloaded everywhere, so the peer is trained by the bench, once. 32 rays, grid
2, patches of 256², batch 4, learning rate 3e-4 halved on plateaus, flips, turns by 90°, gain 0.6
to 2 and shift of the grey values, a little noise: the published recipe but for the number of
steps (the published one takes about 40,000). The weights of the best epoch on `val` are kept, and
the thresholds are optimised on `val`.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from csbdeep.utils import normalize
from skimage.io import imread
from stardist import fill_label_holes
from stardist.models import Config2D, StarDist2D

STEPS_PER_EPOCH = 50
SEED = 42


def read(split: Path) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Normalised images and their label images; those smaller than a patch are left out."""
    images, labels = [], []
    for path in sorted((split / "images").glob("*.png")):
        pixels = imread(path)
        if min(pixels.shape) >= 256:
            images.append(normalize(pixels, 1, 99.8))
            labels.append(fill_label_holes(imread(split / "labels" / path.name)))
    return images, labels


def augment(image: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Flips, turns, gain, shift, noise."""
    turns = np.random.randint(4)
    image, labels = np.rot90(image, turns), np.rot90(labels, turns)
    if np.random.rand() < 0.5:
        image, labels = image[::-1], labels[::-1]
    image = image * np.random.uniform(0.6, 2) + np.random.uniform(-0.2, 0.2)
    noise = 0.02 * np.random.uniform(0, 1)
    return image + noise * np.random.normal(0, 1, image.shape), labels


def main() -> None:
    """Trains and writes OUT/config.json, thresholds.json and weights_best.h5."""
    data, out, steps = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    np.random.seed(SEED)
    train = read(data / "train")
    held_out = read(data / "val")
    config = Config2D(
        n_rays=32,
        grid=(2, 2),
        n_channel_in=1,
        train_patch_size=(256, 256),
        train_batch_size=4,
        train_steps_per_epoch=STEPS_PER_EPOCH,
        train_reduce_lr={"factor": 0.5, "patience": 8, "min_delta": 0},
        train_tensorboard=False,
        use_gpu=False,
    )
    model = StarDist2D(config, name=out.name, basedir=str(out.parent))
    epochs = max(steps // STEPS_PER_EPOCH, 1)
    model.train(*train, validation_data=held_out, augmenter=augment, seed=SEED, epochs=epochs)
    model.optimize_thresholds(*held_out)


if __name__ == "__main__":
    main()
