"""Numbers on objects, by scikit-image: the same columns that Reticle measures."""

from __future__ import annotations

import numpy as np
from skimage.measure import regionprops_table

COLUMNS = (
    "label",
    "area",
    "centroid",
    "bbox",
    "perimeter",
    "eccentricity",
    "solidity",
    "axis_major_length",
    "axis_minor_length",
    "orientation",
    "intensity_mean",
    "intensity_max",
    "intensity_min",
)


def measure(labels: np.ndarray, pixels: np.ndarray) -> dict[str, np.ndarray]:
    """A column for each property, a row for each object."""
    table = regionprops_table(labels, intensity_image=pixels, properties=COLUMNS)
    height, width = labels.shape
    table["touches_border"] = (
        (table["bbox-0"] == 0)
        | (table["bbox-1"] == 0)
        | (table["bbox-2"] == height)
        | (table["bbox-3"] == width)
    )
    return table
