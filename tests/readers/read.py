"""Reads what `reticle export` wrote, with the programs that people read it with, and says what
it found as one JSON document on stdout. tests/exchange.rs compares it with the store.

    read.py FOLDER    where FOLDER/<format> is the output of `reticle export --format <format>`

A label image is told by the SHA-256 of its labels as little-endian uint32, row by row; pixels by
that of their little-endian values. What is not valid ends it with an exception.
"""

import contextlib
import csv
import hashlib
import json
import pathlib
import sys

import duckdb
import numpy as np
import ome_types
import pyarrow.dataset
import pyarrow.parquet
import tifffile
import zarr
from ome_zarr.io import parse_url
from ome_zarr.reader import Reader
from ome_zarr_models.v05.image import Image
from ome_zarr_models.v05.image_label import ImageLabel
from ome_zarr_models.v05.labels import Labels
from pycocotools.coco import COCO


def digest(values, dtype):
    return hashlib.sha256(np.ascontiguousarray(values, dtype=dtype).tobytes()).hexdigest()


def labels_digest(labels):
    return digest(labels, "<u4")


def pixels_digest(pixels):
    return digest(pixels, pixels.dtype.newbyteorder("<"))


def ome_zarr(folder):
    """By series: pixels of each position, and labels of each position by model."""
    found = {}
    for path in sorted(folder.glob("*.ome.zarr")):
        group = zarr.open_group(path, mode="r")
        image = Image.from_zarr(group).ome_attributes.multiscales[0]
        Labels.from_zarr(group["labels"])
        models = {}
        for key in group["labels"].attrs["ome"]["labels"]:
            ImageLabel.from_zarr(group["labels"][key])
            array = group["labels"][key]["0"]
            assert array.dtype == np.uint32, array.dtype
            models[key] = [labels_digest(array[t]) for t in range(array.shape[0])]
        # ome-zarr is what napari's plug-in reads with.
        node = next(iter(Reader(parse_url(str(path)))()))
        array = np.asarray(node.data[0])
        found[path.name] = {
            "name": image.name,
            "axes": [axis.name for axis in image.axes],
            "scale": list(image.datasets[0].coordinateTransformations[0].scale),
            "dtype": str(array.dtype),
            "shape": list(array.shape),
            "pixels": [pixels_digest(frame) for frame in array],
            "labels": models,
        }
    return found


def ome_tiff(folder):
    """By file: what tifffile and ome-types say of it."""
    found = {}
    for path in sorted(folder.glob("*.tif")):
        with tifffile.TiffFile(path) as file:
            assert file.is_ome, path
            values = file.asarray()
        pixels = ome_types.from_tiff(path).images[0].pixels
        is_labels = path.name.endswith("_labels.ome.tif")
        found[path.name] = {
            "digest": labels_digest(values) if is_labels else pixels_digest(values),
            "dtype": str(values.dtype),
            "declared": pixels.type.value,
            "pixel_size_um": pixels.physical_size_x,
            "unit": pixels.physical_size_x_unit.value,
        }
    return found


def label_tiff(folder):
    return {path.name: labels_digest(tifffile.imread(path)) for path in sorted(folder.glob("*.tif"))}


def coco(folder):
    """By file name: the labels drawn by pycocotools, and whether its boxes and areas agree."""
    document = COCO(str(folder / "coco.json"))
    found = {}
    for image in document.dataset["images"]:
        labels = np.zeros((image["height"], image["width"]), np.uint32)
        for annotation in document.loadAnns(document.getAnnIds(imgIds=image["id"])):
            mask = document.annToMask(annotation).astype(bool)
            rows, columns = np.nonzero(mask)
            box = [columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1]
            assert annotation["bbox"] == box, annotation
            assert annotation["area"] == mask.sum(), annotation
            labels[mask] = annotation["label"]
        found[image["file_name"]] = labels_digest(labels)
    return found


def inside(rings, width, height):
    """Which pixel centres are inside, by the even-odd rule."""
    x, y = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    result = np.zeros((height, width), bool)
    for ring in rings:
        assert ring[0] == ring[-1], "a ring is closed"
        for (x1, y1), (x2, y2) in zip(ring, ring[1:]):
            if y1 != y2:
                crosses = (y1 <= y) != (y2 <= y)
                result ^= crosses & (x < x1 + (y - y1) / (y2 - y1) * (x2 - x1))
    return result


def geojson(folder):
    found = {}
    for path in sorted(folder.glob("*.geojson")):
        collection = json.loads(path.read_text())
        labels = np.zeros((collection["height"], collection["width"]), np.uint32)
        for feature in collection["features"]:
            assert feature["properties"]["objectType"] == "detection"
            geometry = feature["geometry"]
            polygons = geometry["coordinates"]
            if geometry["type"] == "Polygon":
                polygons = [polygons]
            for rings in polygons:
                mask = inside(rings, labels.shape[1], labels.shape[0])
                labels[mask] = feature["properties"]["label"]
            area = np.count_nonzero(labels == feature["properties"]["label"])
            assert feature["properties"]["measurements"]["area"] == area
        found[path.name] = labels_digest(labels)
    return found


def tables(parquet, comma):
    """The tables by pyarrow, by DuckDB, and as CSV."""
    frames = pyarrow.parquet.read_table(parquet / "frames.parquet")
    objects = pyarrow.dataset.dataset(parquet / "objects.parquet").to_table()
    looks = pyarrow.parquet.read_table(
        parquet / "results.parquet",
        columns=["model_name", "scale_from", "scale", "size_ratio", "unlike"],
    )
    joined = duckdb.sql(
        f"""SELECT frame.frame, count(object.label), coalesce(sum(object.area), 0)
            FROM '{parquet}/frames.parquet' frame
            LEFT JOIN '{parquet}/objects.parquet' object USING (frame)
            GROUP BY frame.frame, frame.series, frame.position
            ORDER BY frame.series, frame.position"""
    ).fetchall()
    captured = frames.column("captured_at")
    return {
        "frames": frames.column_names,
        "captured_type": str(captured.type),
        "captured_ns": captured.cast("int64").to_pylist(),
        "sha256": frames.column("sha256").to_pylist(),
        "objects": objects.column_names,
        "models": sorted(set(objects.column("model").to_pylist())),
        "looks": [list(look.values()) for look in looks.to_pylist()],
        "joined": [[frame, count, int(area)] for frame, count, area in joined],
        "csv_rows": {
            name: sum(1 for _ in csv.DictReader(open(comma / f"{name}.csv", newline="")))
            for name in ("frames", "objects", "results")
        },
    }


def main():
    folder = pathlib.Path(sys.argv[1])
    # pycocotools talks on stdout, which is for the document.
    with contextlib.redirect_stdout(sys.stderr):
        found = {
            "ome_zarr": ome_zarr(folder / "ome-zarr"),
            "ome_tiff": ome_tiff(folder / "ome-tiff"),
            "label_tiff": label_tiff(folder / "label-tiff"),
            "coco": coco(folder / "coco"),
            "geojson": geojson(folder / "geojson"),
            "tables": tables(folder / "parquet", folder / "csv"),
        }
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
