"""Makes the image files in this folder, as other people's programs write them.

    pip install numpy==2.* tifffile==2026.3.3 imagecodecs pillow==13.0.0
    python make.py

Every image is the same small picture: pixel (row r, column c) of page p is
`(r * 37 + c * 11 + p * 101) % 251` in 8 bits and `that * 16 + 5` in 16 bits, so a reader can be
checked without a second reader. Odd sizes, so that padding shows.
"""

import os
import warnings

import numpy as np
import tifffile
from PIL import Image

os.chdir(os.path.dirname(os.path.abspath(__file__)))
warnings.simplefilter("ignore")
H, W = 19, 23


def u8(page=0):
    r, c = np.mgrid[:H, :W]
    return ((r * 37 + c * 11 + page * 101) % 251).astype(np.uint8)


def u16(page=0):
    return u8(page).astype(np.uint16) * 16 + 5


stack16 = np.stack([u16(p) for p in range(3)])
micro = dict(metadata={"unit": "um"}, resolution=(4.0, 4.0))

# OME-TIFF by tifffile: a stack, pixel size in nm, 12 used bits, thumbnails as SubIFDs.
tifffile.imwrite(
    "ome_stack.ome.tif", stack16, photometric="minisblack",
    metadata={"axes": "ZYX", "PhysicalSizeX": 325.0, "PhysicalSizeXUnit": "nm",
              "PhysicalSizeY": 325.0, "PhysicalSizeYUnit": "nm", "SignificantBits": 12},
)
# ImageJ hyperstack: big endian, unit=um, resolution in pixels a unit.
tifffile.imwrite("imagej_stack.tif", stack16, imagej=True, resolution=(4.0, 4.0),
                 metadata={"unit": "um", "axes": "TYX"})
# Plain TIFFs.
tifffile.imwrite("lzw16.tif", u16(), compression="lzw", predictor=True, rowsperstrip=5,
                 resolution=(20000, 20000), resolutionunit="CENTIMETER")
tifffile.imwrite("deflate8.tif", u8(), compression="zlib", resolution=(300, 300),
                 resolutionunit="INCH")
tifffile.imwrite("packbits8.tif", u8(), compression="packbits")
tifffile.imwrite("bigendian16.tif", u16(), byteorder=">")
tifffile.imwrite("bigtiff16.tif", u16(), bigtiff=True)
tifffile.imwrite("tiled16.tif", u16(), tile=(16, 16), compression="zlib")
tifffile.imwrite("miniswhite8.tif", 255 - u8(), photometric="miniswhite")
tifffile.imwrite("rgb_grey8.tif", np.stack([u8()] * 3, -1), photometric="rgb")
tifffile.imwrite("rgb_planar_grey8.tif", np.stack([u8()] * 3, 0), photometric="rgb",
                 planarconfig="separate")
# A full page and its thumbnail in the same chain (NewSubfileType 1).
with tifffile.TiffWriter("with_thumbnail.tif") as out:
    out.write(u8(), photometric="minisblack", metadata=None)
    out.write(u8()[::4, ::4], photometric="minisblack", subfiletype=1, metadata=None)
    out.write(u8(2), photometric="minisblack", metadata=None)
# To be refused.
tifffile.imwrite("float32.tif", u16().astype(np.float32), photometric="minisblack")
tifffile.imwrite("uint32.tif", u16().astype(np.uint32), photometric="minisblack")
tifffile.imwrite("zstd16.tif", u16(), compression="zstd")
tifffile.imwrite("lut8.tif", u8(), photometric="palette",
                 colormap=np.linspace(0, 65535, 768).astype(np.uint16).reshape(3, 256))
colour = np.stack([u8(), u8(1), u8(2)], -1)
tifffile.imwrite("rgb_colour8.tif", colour, photometric="rgb")
# Labels: 32 bits unsigned, signed, and larger than the image has pixels.
labels = (u8().astype(np.uint32) // 50)
tifffile.imwrite("labels_u32.tif", labels, photometric="minisblack")
tifffile.imwrite("labels_i32.tif", labels.astype(np.int32), photometric="minisblack")
tifffile.imwrite("labels_sparse.tif", labels * 1_000_000, photometric="minisblack")

# PNG by Pillow.
Image.fromarray(u8()).save("grey8.png")
Image.fromarray(u16()).save("grey16.png")
Image.fromarray(np.stack([u8()] * 3 + [np.full_like(u8(), 255)], -1)).save("rgba_grey.png")
Image.fromarray((u8() > 100).astype(np.uint8) * 255).convert("1").save("grey1.png")
palette = Image.fromarray(u8()).convert("P")
palette.save("palette_grey.png")
Image.fromarray(colour).save("colour.png")
# JPEG by Pillow; a smooth picture so that the loss is small.
smooth = (np.add.outer(np.arange(H) * 5, np.arange(W) * 6)).astype(np.uint8)
Image.fromarray(smooth).save("grey.jpg", quality=95)
Image.fromarray(np.stack([smooth] * 3, -1)).save("rgb_grey_progressive.jpg", quality=95,
                                                 progressive=True)
Image.fromarray(np.tile(np.array([[[200, 30, 30]]], np.uint8), (H, W, 1))).save("colour.jpg")
