"""Makes regions.json: objects of many shapes as scikit-image's regionprops measures them.

python3 -m venv v && v/bin/pip install scikit-image==0.26.0 && v/bin/python make.py
"""
import json
import numpy as np
from skimage.draw import disk, ellipse, polygon
from skimage.measure import regionprops_table

rng = np.random.default_rng(11)
labels = np.zeros((72, 80), np.int32)


def paint(label, points):
    rows, columns = points
    inside = (rows >= 0) & (rows < labels.shape[0]) & (columns >= 0) & (columns < labels.shape[1])
    labels[rows[inside], columns[inside]] = label


paint(1, disk((12, 12), 8.3))
paint(2, ellipse(14, 45, 6, 14, rotation=0.6))
paint(3, polygon([30, 30, 50, 50, 44, 44], [5, 30, 30, 24, 24, 5]))  # an L
paint(4, disk((40, 52), 7))
paint(4, disk((46, 60), 6))  # a peanut
paint(5, disk((70, 76), 9))  # cut by the corner
labels[60, 10] = 6  # a single pixel
labels[62, 20:31] = 7  # a line
for i in range(9):  # a diagonal staircase
    labels[56 + i, 40 + i] = 8
    labels[56 + i, 41 + i] = 8
labels[22:24, 70:72] = 9  # a square of 2
noise = rng.integers(0, 2, (9, 9)).astype(bool)
block = labels[33:42, 66:75]
block[noise & (block == 0)] = 10  # holes, spurs and loose pixels
intensity = rng.integers(100, 4000, labels.shape).astype(np.uint16)

names = [
    "label", "area", "centroid", "bbox", "perimeter", "eccentricity", "solidity",
    "axis_major_length", "axis_minor_length", "orientation",
    "intensity_mean", "intensity_max", "intensity_min",
]
table = regionprops_table(labels, intensity, properties=names)
objects = [
    {key: float(values[i]) for key, values in table.items()} for i in range(len(table["label"]))
]
with open("regions.json", "w") as out:
    json.dump(
        {
            "width": labels.shape[1],
            "height": labels.shape[0],
            "labels": labels.ravel().tolist(),
            "intensity": intensity.ravel().tolist(),
            "objects": objects,
        },
        out,
        separators=(",", ":"),
    )
