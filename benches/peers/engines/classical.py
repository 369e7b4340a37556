"""What many labs do with scikit-image: Otsu, distance transform, watershed, regionprops."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scipy import ndimage
from skimage.feature import peak_local_max
from skimage.filters import gaussian, threshold_otsu
from skimage.io import imread
from skimage.morphology import remove_small_objects
from skimage.segmentation import watershed

from ..objects import measure
from .base import Lap, Options, Result

# One setting for all images: the best of twelve on `val` by the mean of AP at 0.5, 0.7 and 0.9
# (README.md, "Settings").
SMOOTHING_PX = 0.5
PEAKS_APART_PX = 6
LEAST_AREA_PX = 30


def segment(pixels: np.ndarray) -> np.ndarray:
    """Label image of bright objects on a dark ground."""
    smooth = gaussian(pixels, sigma=SMOOTHING_PX, preserve_range=True)
    if smooth.min() == smooth.max():
        return np.zeros(pixels.shape, np.int32)
    foreground = smooth > threshold_otsu(smooth)
    foreground = remove_small_objects(foreground, max_size=LEAST_AREA_PX - 1)
    distance = ndimage.distance_transform_edt(foreground)
    distance = gaussian(distance, sigma=SMOOTHING_PX, preserve_range=True)
    peaks = peak_local_max(
        distance, min_distance=PEAKS_APART_PX, labels=ndimage.label(foreground)[0]
    )
    markers = np.zeros(pixels.shape, np.int32)
    markers[tuple(peaks.T)] = np.arange(1, len(peaks) + 1)
    return watershed(-distance, markers, mask=foreground)


class Classical:
    """scikit-image has no state and, in these functions, one thread."""

    def frame(self, path: Path, lap: Lap) -> Result:
        pixels = imread(path)
        lap("decode")
        labels = segment(pixels)
        lap("instances")
        measure(labels, pixels)
        lap("measure")
        return Result(labels, int(labels.max()))


def load(options: Options, threads: int) -> Classical:
    del options, threads
    return Classical()
