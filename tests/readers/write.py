"""Writes one label image stack as zarr-python users do, in forms that `reticle` does not write
itself, for `reticle import` to read.

    write.py SOURCE FOLDER    SOURCE is a Zarr array of labels [t, y, x]
"""

import pathlib
import sys

import numcodecs
import numpy as np
import zarr


def main():
    labels = np.asarray(zarr.open_array(sys.argv[1], mode="r")[:])
    folder = pathlib.Path(sys.argv[2])
    frames, height, width = labels.shape

    # A bare array without any metadata of OME, chunks that cut through frames, no compression.
    array = zarr.create_array(
        folder / "bare.zarr",
        shape=labels.shape,
        dtype="uint16",
        chunks=(2, height // 2 + 1, width // 2 + 1),
        compressors=None,
    )
    array[:] = labels

    # OME-Zarr 0.5 with all five axes, gzip.
    group = zarr.create_group(folder / "five.zarr")
    array = group.create_array(
        "0",
        shape=(frames, 1, 1, height, width),
        dtype="int32",
        chunks=(1, 1, 1, height, width),
        compressors=zarr.codecs.GzipCodec(),
    )
    array[:] = labels[:, None, None]
    axes = [{"name": "t", "type": "time"}, {"name": "c", "type": "channel"}]
    axes += [{"name": name, "type": "space"} for name in "zyx"]
    multiscales = [{"axes": axes, "datasets": [{"path": "0"}]}]
    group.attrs["ome"] = {"version": "0.5", "multiscales": multiscales, "image-label": {}}

    # OME-Zarr 0.4, which is Zarr 2, with the labels beside an image.
    group = zarr.create_group(folder / "older.zarr", zarr_format=2)
    listed = group.create_group("labels")
    listed.attrs["labels"] = ["cells"]
    cells = listed.create_group("cells")
    array = cells.create_array(
        "0",
        shape=labels.shape,
        dtype="uint32",
        chunks=(1, height, width),
        compressors=numcodecs.GZip(),
    )
    array[:] = labels
    axes = [{"name": "t", "type": "time"}, {"name": "y"}, {"name": "x"}]
    cells.attrs["multiscales"] = [{"version": "0.4", "axes": axes, "datasets": [{"path": "0"}]}]
    cells.attrs["image-label"] = {"version": "0.4"}

    # Shards with several inner chunks a frame, and checksums.
    array = zarr.create_array(
        folder / "sharded.zarr",
        shape=labels.shape,
        dtype="uint32",
        chunks=(1, height // 2, width // 2),
        shards=(2, height, width),
        compressors=zarr.codecs.ZstdCodec(checksum=True),
    )
    array[:] = labels


if __name__ == "__main__":
    main()
