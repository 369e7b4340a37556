"""Cellpose 3's network, for its time alone: no weights can be had here, so they are random.

The shape is that of its published models: a residual U-Net of 32 to 256 channels, run by
Cellpose's own tiling (224², a tenth of overlap, batches of 8), at its scale for nuclei, which is
that of our images, so that nothing is enlarged. Following the flows, which turns its maps into
objects, is not run: with random weights it would measure nothing.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from cellpose.core import run_net
from cellpose.resnet_torch import CPnet
from cellpose.transforms import normalize99
from skimage.io import imread

from .base import Lap, Options, Result

# Two channels in (cells and nuclei); flows in y and x, and the probability of a cell.
CHANNELS = [2, 32, 64, 128, 256]
MAPS = 3
KERNEL_PX = 3


class Cellpose:
    """From a file to the network's maps."""

    def __init__(self, network: CPnet) -> None:
        self.network = network

    def frame(self, path: Path, lap: Lap) -> Result:
        pixels = imread(path)
        lap("decode")
        scaled = normalize99(pixels.astype(np.float32))
        image = np.stack([scaled, np.zeros_like(scaled)], axis=-1)[None]
        lap("normalise")
        run_net(self.network, image)
        lap("network")
        return Result(None, 0)


def load(options: Options, threads: int) -> Cellpose:
    del options
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    return Cellpose(CPnet(CHANNELS, MAPS, KERNEL_PX).eval())
