"""Makes TIFFs of every kind that can be combined, and says what independent readers see in them.

    python tiff_matrix.py FOLDER COUNT SEED

COUNT files come from the matrix (bits x sample format x byte order x compression x predictor x
strips or tiles x planar x photometric x BigTIFF x reduced copies), drawn by SEED; the dialects of
descriptions, and what tifffile and Pillow write themselves, come always. FOLDER/expected.json has
an entry for each file: the pages that the readers saw (width, height, SHA-256 of the little-endian
grey values), or the word of the refusal that is right.

The files are written here, tag by tag. tifffile (with imagecodecs) and Pillow (libtiff) read them: who
sees the picture that was drawn, and who sees another, stands in the entry.
"""

import base64
import hashlib
import itertools
import json
import logging
import random
import struct
import sys
import warnings
import zlib

import numpy as np
import tifffile
from PIL import Image, TiffImagePlugin

warnings.simplefilter("ignore")
logging.disable(logging.CRITICAL)
TiffImagePlugin.Image.MAX_IMAGE_PIXELS = None

CODES = {"none": 1, "lzw": 5, "deflate": 8, "old-deflate": 32946, "packbits": 32773}
SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 7: 1, 16: 8}


# ---- A writer of our own --------------------------------------------------------------------------


def lzw(data):
    """TIFF's LZW: highest bit first, codes grow one early."""
    out, buffer, bits = bytearray(), 0, 0
    table, width, current = {bytes([i]): i for i in range(256)}, 9, b""
    count = 258

    def put(code):
        nonlocal buffer, bits
        buffer, bits = buffer << width | code, bits + width
        while bits >= 8:
            bits -= 8
            out.append(buffer >> bits & 255)
        buffer &= (1 << bits) - 1

    put(256)
    for value in data:
        longer = current + bytes([value])
        if longer in table:
            current = longer
            continue
        put(table[current])
        table[longer] = count
        count += 1
        if count == 4094:
            put(256)
            table, width, count = {bytes([i]): i for i in range(256)}, 9, 258
        elif count >= 1 << width:
            width += 1
        current = bytes([value])
    if current:
        put(table[current])
        # The decoder has made an entry for the code that came last, and may read longer ones now.
        if count + 1 >= 1 << width and width < 12:
            width += 1
    put(257)
    if bits:
        out.append(buffer << (8 - bits) & 255)
    return bytes(out)


def packbits(data, row):
    out = bytearray()
    for start in range(0, len(data), row):
        line = data[start : start + row]
        while line:
            run = len(list(next(itertools.groupby(line))[1]))
            if run >= 3:
                run = min(run, 128)
                out += bytes([257 - run, line[0]])
                line = line[run:]
                continue
            stop = next((i for i in range(len(line) - 2) if line[i] == line[i + 1] == line[i + 2]), len(line))
            stop = max(1, min(stop, 128))
            out += bytes([stop - 1]) + line[:stop]
            line = line[stop:]
    return bytes(out)


def pack(row, bits, order):
    """Samples of one row as bytes."""
    if bits in (8, 16, 32):
        return row.astype(row.dtype.newbyteorder(order)).tobytes()
    text = "".join(format(int(value), f"0{bits}b") for value in row)
    text += "0" * (-len(text) % 8)
    return int(text, 2).to_bytes(len(text) // 8, "big") if text else b""


def chunk(block, spec):
    """One strip or tile, rows x columns x samples, as it lies in the file."""
    rows, columns, samples = block.shape
    if spec["predictor"] == 2:
        before = np.concatenate([np.zeros((rows, 1, samples), block.dtype), block[:, :-1]], 1)
        block = block - before
    lines = [pack(row.reshape(-1), spec["bits"], spec["order"]) for row in block]
    data = b"".join(lines)
    data = {
        "none": lambda: data,
        "lzw": lambda: lzw(data),
        "deflate": lambda: zlib.compress(data),
        "old-deflate": lambda: zlib.compress(data),
        "packbits": lambda: packbits(data, len(lines[0])),
    }[spec["compression"]]()
    if spec["fill"] == 2:
        data = bytes(int(f"{byte:08b}"[::-1], 2) for byte in data)
    return data


def chunks(samples, spec):
    height, width, count = samples.shape
    planes = [samples[:, :, i : i + 1] for i in range(count)] if spec["planar"] == 2 else [samples]
    for plane in planes:
        if spec["layout"] == "tiles":
            padded = np.pad(plane, ((0, -height % 16), (0, -width % 16), (0, 0)), mode="edge")
            for y in range(0, height, 16):
                for x in range(0, width, 16):
                    yield chunk(padded[y : y + 16, x : x + 16], spec)
        else:
            rows = 5 if spec["layout"] == "strips" else height
            for y in range(0, height, rows):
                yield chunk(plane[y : y + rows], spec)


class Tiff:
    """A file of pages, in either byte order, classic or BigTIFF."""

    def __init__(self, order, big):
        self.order, self.big = order, big
        self.data = bytearray(b"II" if order == "<" else b"MM")
        self.data += struct.pack(order + ("HHHQ" if big else "HI"), *((43, 8, 0, 0) if big else (42, 0)))
        self.link = 8 if big else 4

    def page(self, samples, spec, tags):
        offsets, counts = [], []
        for part in chunks(samples, spec):
            if len(self.data) % 2:
                self.data.append(0)
            offsets.append(len(self.data))
            counts.append(len(part))
            self.data += part
        height, width, count = samples.shape
        tiled = spec["layout"] == "tiles"
        tags = dict(tags)
        tags.update({256: (4, [width]), 257: (4, [height]), 277: (3, [count])})
        tags[258] = (3, [spec["bits"]] * count)
        tags[259] = (3, [CODES[spec["compression"]]])
        tags[262] = (3, [spec["photometric"]])
        tags[324 if tiled else 273] = (4, offsets)
        if not spec.get("no_counts"):
            tags[325 if tiled else 279] = (4, counts)
        if tiled:
            tags.update({322: (3, [16]), 323: (3, [16])})
        else:
            tags[278] = (4, [5 if spec["layout"] == "strips" else height])
        if spec["planar"] == 2:
            tags[284] = (3, [2])
        if spec["predictor"] != 1:
            tags[317] = (3, [spec["predictor"]])
        if spec["fill"] == 2:
            tags[266] = (3, [2])
        if spec["format"] is not None:
            tags[339] = (3, [spec["format"]] * count)
        self.directory(tags)

    def directory(self, tags):
        entries = bytearray()
        field = 8 if self.big else 4
        for tag, (kind, values) in sorted(tags.items()):
            letter = {1: "B", 2: "B", 3: "H", 4: "I", 5: "I", 7: "B", 16: "Q"}[kind]
            body = struct.pack(f"{self.order}{len(values)}{letter}", *values)
            count = len(body) // SIZES[kind]
            if len(body) > field:
                if len(self.data) % 2:
                    self.data.append(0)
                place = len(self.data)
                self.data += body
                body = struct.pack(self.order + ("Q" if self.big else "I"), place)
            entries += struct.pack(self.order + ("HHQ" if self.big else "HHI"), tag, kind, count)
            entries += body.ljust(field, b"\0")
        if len(self.data) % 2:
            self.data.append(0)
        place = struct.pack(self.order + ("Q" if self.big else "I"), len(self.data))
        self.data[self.link : self.link + len(place)] = place
        self.data += struct.pack(self.order + ("Q" if self.big else "H"), len(tags)) + entries
        self.link = len(self.data)
        self.data += b"\0" * field


# ---- What is right ----------------------------------------------------------------------------------


def refusal(spec):
    """The word of the refusal that is right, or None where the picture is to be read."""
    bits, samples = spec["bits"], spec["samples"]
    if spec["format"] == 3:
        return "floating-point"
    if spec["format"] in (5, 6):
        return "complex numbers"
    if samples not in ("grey", "palette") and bits not in (8, 16, 32):
        return "samples of"
    if spec["format"] == 2 and spec["photometric"] == 0:
        return "white is 0"
    if spec["predictor"] == 2 and spec["compression"] in ("none", "packbits"):
        return "stores differences"
    if spec["predictor"] == 2 and bits not in (8, 16, 32):
        return "stores differences"
    if samples == "two":
        return "holds 2 channels"
    if samples == "colour":
        return "is a colour image"
    if bits == 32:
        return "32 bits a pixel"
    if spec["format"] == 2 and spec["negative"]:
        return "negative pixels"
    return None


def shown(stored, spec):
    """Grey as it is to be read: bright is large, less than 8 bits from black to white."""
    bits = spec["bits"]
    grey = stored.astype(np.uint32)
    if spec["photometric"] == 0:
        grey = (1 << bits) - 1 - grey
    if bits < 8:
        grey = grey * (255 // ((1 << bits) - 1))
    return grey.astype(np.uint8 if bits <= 8 else np.uint16)


def told(grey):
    data = grey.astype(grey.dtype.newbyteorder("<")).tobytes()
    return [int(grey.shape[1]), int(grey.shape[0]), hashlib.sha256(data).hexdigest()]


def by_tifffile(path, spec):
    with tifffile.TiffFile(path) as file:
        seen = file.pages[0].asarray()
        if spec["planar"] == 2 and seen.ndim == 3:
            seen = np.moveaxis(seen, 0, -1)
        return seen


def by_pillow(path, spec):
    with Image.open(path) as image:
        if image.mode == "RGB" and spec["bits"] > 8:
            raise ValueError("Pillow has no such mode, and keeps 8 of the bits")
        seen = np.asarray(image.convert("L") if image.mode == "1" else image)
        # Pillow turns white round where it makes a mode of its own of it.
        if spec["photometric"] == 0 and spec["bits"] <= 8:
            seen = 255 - seen
        if spec["bits"] < 8 and image.mode != "P":
            seen = seen // (255 // ((1 << spec["bits"]) - 1))
        return seen


def read_back(path, spec, stored, count):
    """Who reads the first sample of page 0 as it was stored, and who sees something else."""
    agree, differ = [], []
    for name, read in ("tifffile", by_tifffile), ("Pillow", by_pillow):
        try:
            seen = read(path, spec).reshape(*stored.shape, count)[..., 0]
        except Exception:  # a codec, or a kind, that it does not read
            continue
        seen = seen.astype(np.int64) & ((1 << spec["bits"]) - 1)
        (agree if np.array_equal(seen, stored) else differ).append(name)
    return agree, differ


# ---- The matrix -------------------------------------------------------------------------------------


def picture(random_, height, width, bits, flat):
    most = (1 << bits) - 1
    base = np.add.outer(np.arange(height) * 7, np.arange(width) * 3) + random_.randrange(50)
    rough = np.array([[random_.randrange(4) for _ in range(width)] for _ in range(height)])
    values = (base if flat else base * 37 + rough * 11) & most
    return values.astype(np.uint8 if bits <= 8 else np.uint16 if bits <= 16 else np.uint32)


def specs(count, seed):
    axes = {
        "bits": [1, 2, 4, 8, 8, 8, 10, 12, 14, 16, 16, 16, 32],
        "format": [None, 1, 2, 4, 3],
        "order": ["<", ">"],
        "compression": list(CODES),
        "predictor": [1, 2],
        "layout": ["whole", "strips", "tiles"],
        "planar": [1, 2],
        "samples": ["grey", "grey", "grey", "rgb", "colour", "rgba", "alpha", "two", "palette"],
        "photometric": [1, 1, 0],
        "big": [False, True],
        "fill": [1, 1, 2],
        "copies": [None, None, "flagged", "old", "unflagged"],
        "no_counts": [False, False, False, True],
        "negative": [False, True],
        "pages": [1, 1, 3],
    }
    random_ = random.Random(seed)
    seen = set()
    while len(seen) < count:
        spec = {name: random_.choice(values) for name, values in axes.items()}
        if spec["format"] == 3:
            spec.update(bits=32, predictor=1)
        if spec["samples"] in ("grey", "palette"):
            spec["planar"] = 1
        if spec["samples"] in ("rgb", "rgba", "colour"):
            spec["photometric"] = 2
        if spec["samples"] == "palette":
            spec.update(photometric=3, format=None, bits=random_.choice([1, 2, 4, 8]))
        if spec["compression"] != "none" or spec["layout"] == "tiles":
            # What is compressed has no length of its own but its end, which PackBits lacks.
            spec["no_counts"] = False
        if spec["format"] != 2 or spec["bits"] not in (8, 16):
            spec["negative"] = False
        key = json.dumps(spec, sort_keys=True)
        if key not in seen:
            seen.add(key)
            yield spec, random.Random(f"{seed} {key}")


def build(spec, random_):
    """The file, and the stored values of each page's first sample."""
    file = Tiff(spec["order"], spec["big"])
    bits = spec["bits"]
    pages = []
    for number in range(spec["pages"]):
        # Odd sizes, so that padding shows; copies need even ones to be halves.
        height, width = random_.choice([19, 24, 37]), random_.choice([17, 23, 32])
        if pages:
            height, width = pages[0].shape
        grey = picture(random_, height, width, bits, random_.random() < 0.5)
        if spec["format"] == 2 and bits in (8, 16, 32):
            most = (1 << (bits - 1)) - 1
            grey = grey & most
            if spec["negative"]:
                grey[0, 0] |= 1 << (bits - 1)
        tags = {}
        if spec["samples"] == "palette":
            ramp = np.linspace(0, 65535, 1 << bits).astype(int).tolist()
            tags[320] = (3, ramp * 3)
        full = (1 << bits) - 1
        layers = {
            "grey": [grey],
            "palette": [grey],
            "rgb": [grey] * 3,
            "colour": [grey, grey ^ 1, grey],
            "rgba": [grey] * 3 + [np.full_like(grey, full)],
            "alpha": [grey, np.full_like(grey, full)],
            "two": [grey, grey ^ 1],
        }[spec["samples"]]
        if spec["samples"] in ("rgba", "alpha"):
            tags[338] = (3, [2])
        if spec["samples"] == "two":
            tags[338] = (3, [0])
        samples = np.stack(layers, -1)
        if spec["format"] == 3:
            samples = samples.astype(np.float32)
        file.page(samples, spec, tags)
        pages.append(grey)
        if spec["copies"]:
            small = samples[: height // 2 * 2 : 2, : width // 2 * 2 : 2]
            mark = {"flagged": {254: (4, [1])}, "old": {255: (3, [2])}, "unflagged": {}}
            file.page(np.ascontiguousarray(small), spec, {**tags, **mark[spec["copies"]]})
    return bytes(file.data), pages


def matrix(folder, count, seed):
    for number, (spec, random_) in enumerate(specs(count, seed)):
        name = f"m{number:05}.tif"
        data, pages = build(spec, random_)
        with open(f"{folder}/{name}", "wb") as out:
            out.write(data)
        entry = {"file": name, "spec": spec}
        why = refusal(spec)
        counts = {"grey": 1, "palette": 1, "rgb": 3, "colour": 3, "rgba": 4, "alpha": 2, "two": 2}
        if why is None:
            agree, differ = read_back(f"{folder}/{name}", spec, pages[0], counts[spec["samples"]])
            entry["agree"], entry["differ"] = agree, differ
        if why is None:
            entry["pages"] = [told(shown(page, spec)) for page in pages]
        else:
            entry["refusal"] = why
        yield entry


# ---- Dialects, and what other programs write ------------------------------------------------------


def stack(*shape):
    values = np.arange(int(np.prod(shape)), dtype=np.uint32).reshape(shape)
    return ((values * 2654435761 >> 7) & 0xFFF).astype(np.uint16)


def dialects(folder):
    number = 0

    def entry(data, pages=None, refusal=None, size=None, channel=None, z=None, **kw):
        nonlocal number
        name = f"d{number:03}.{'ome.tif' if kw.get('ome') else 'tif'}"
        number += 1
        tifffile.imwrite(f"{folder}/{name}", data, photometric="minisblack", **kw)
        found = {"file": name, "agree": ["tifffile"], "dialect": True}
        if channel:
            found["channel"] = channel
        if z:
            found["z"] = z
        if size:
            found["pixel_size_um"] = size
        if refusal:
            found["refusal"] = refusal
        else:
            # What tifffile itself gives back, plane by plane.
            with tifffile.TiffFile(f"{folder}/{name}") as file:
                series = file.series[0].asarray().reshape(-1, *data.shape[-2:])
            found["pages"] = [told(series[i]) for i in pages]
        return found

    sizes = {"PhysicalSizeX": 0.65, "PhysicalSizeXUnit": "µm", "PhysicalSizeY": 0.65, "PhysicalSizeYUnit": "µm"}
    for c, z, t in itertools.product((1, 2, 3), (1, 2, 3), (1, 2)):
        for order in ("TZC", "TCZ", "ZTC", "CTZ", "CZT", "ZCT"):
            shape = tuple({"C": c, "Z": z, "T": t}[axis] for axis in order)
            names = ["Brightfield", "DAPI", "GFP 488"][:c]
            planes = list(np.ndindex(*shape))
            data = stack(*shape, 20, 24)
            meta = {"axes": order + "YX", "Channel": {"Name": names}, **sizes}
            if c > 1:
                yield entry(data, refusal=f"holds {c} channels (1 Brightfield, 2 DAPI", ome=True, metadata=meta)
            want = [i for i, at in enumerate(planes) if at[order.index("C")] == c - 1]
            pick = names[-1] if c > 1 else None
            yield entry(data, want, channel=pick, ome=True, metadata=meta, size=0.65)
            if z > 1:
                want = [i for i in want if planes[i][order.index("Z")] == 1]
                yield entry(data, want, channel=pick, z="2", ome=True, metadata=meta, bigtiff=t == 2)
        # ImageJ has one order: T, Z, C from slow to fast.
        data = stack(t, z, c, 20, 24)
        planes = list(np.ndindex(t, z, c))
        for byteorder in "<>":
            common = {"imagej": True, "byteorder": byteorder, "resolution": (1 / 0.65, 1 / 0.65)}
            meta = {"axes": "TZCYX", "unit": "um"}
            if c > 1:
                yield entry(data, refusal=f"holds {c} channels (1, 2", metadata=meta, **common)
                labels = [f"w{at[2]}" for at in planes]
                yield entry(data, refusal="(1 w0, 2 w1", metadata={**meta, "Labels": labels}, **common)
            want = [i for i, at in enumerate(planes) if at[2] == c - 1]
            yield entry(data, want, channel=str(c), metadata=meta, size=0.65, **common)
            if z > 1:
                want = [i for i in want if planes[i][1] == 0]
                yield entry(data, want, channel=str(c), z="1", metadata=meta, **common)
        # tifffile's own.
        data = stack(t, c, z, 20, 24)
        planes = list(np.ndindex(t, c, z))
        if c > 1:
            yield entry(data, refusal=f"holds {c} channels", metadata={"axes": "TCZYX"})
        want = [i for i, at in enumerate(planes) if at[1] == 0]
        yield entry(data, want, channel="1" if c > 1 else None, metadata={"axes": "TCZYX"})
        yield entry(data, range(len(planes)), metadata=None)
    # Reduced copies in SubIFDs.
    for levels in (1, 2, 3):
        for pages in (1, 3):
            name = f"p{levels}{pages}.ome.tif"
            data = stack(pages, 64, 64)
            with tifffile.TiffWriter(f"{folder}/{name}", ome=True) as out:
                out.write(data, subifds=levels, metadata={"axes": "TYX"}, photometric="minisblack")
                for level in range(1, levels + 1):
                    out.write(data[:, :: 2**level, :: 2**level], subfiletype=1, photometric="minisblack")
            yield {"file": name, "agree": ["tifffile"], "dialect": True, "pages": [told(p) for p in data]}


def pillow(folder):
    """What Pillow and libtiff write: codecs that nothing else here writes."""
    smooth = np.add.outer(np.arange(32) * 4, np.arange(48) * 2).astype(np.uint8)
    rough = (stack(33, 47) & 255).astype(np.uint8)
    number = 0
    for grey in (smooth, rough):
        colour = np.stack([grey, grey // 2, grey], -1)
        pictures = {
            "L": (Image.fromarray(grey), None),
            "I;16": (Image.fromarray(grey.astype(np.uint16) * 200), None),
            "1": (Image.fromarray(grey).convert("1", dither=Image.Dither.NONE), None),
            "LA": (Image.merge("LA", [Image.fromarray(grey), Image.fromarray(grey * 0 + 255)]), None),
            "grey RGB": (Image.fromarray(np.stack([grey] * 3, -1)), None),
            "grey RGBA": (Image.fromarray(np.stack([grey] * 3 + [grey * 0 + 255], -1)), None),
            "P": (Image.fromarray(grey).convert("P"), None),
            "RGB": (Image.fromarray(colour), "is a colour image"),
            "CMYK": (Image.fromarray(colour).convert("CMYK"), "not red, green and blue"),
            "LAB": (Image.fromarray(colour).convert("LAB"), "not red, green and blue"),
            "I": (Image.fromarray(grey.astype(np.int32)), "32 bits a pixel"),
            "F": (Image.fromarray(grey.astype(np.float32)), "floating-point"),
        }
        codecs = {
            None: None, "tiff_lzw": None, "tiff_adobe_deflate": None, "tiff_deflate": None, "packbits": None,
            "jpeg": None, "group3": "compressed by", "group4": None, "tiff_ccitt": "compressed by",
            "zstd": "compressed by ZSTD", "lzma": "compressed by LZMA", "webp": "compressed by WebP",
        }
        for (mode, (image, refused)), (codec, unread) in itertools.product(pictures.items(), codecs.items()):
            name = f"q{number:03}.tif"
            number += 1
            try:
                image.save(f"{folder}/{name}", compression=codec)
                with Image.open(f"{folder}/{name}") as again:
                    again.load()
            except Exception:  # this mode cannot be written so
                continue
            with tifffile.TiffFile(f"{folder}/{name}") as file:
                code = int(file.pages[0].compression)
            if codec and code == 1:
                continue
            # A codec is refused before what it holds is looked at.
            found = {"file": name, "agree": ["Pillow"], "spec": [mode, codec]}
            # Alpha that was blurred is not opaque.
            lossy = "holds JPEG of" if codec == "jpeg" and len(image.getbands()) in (2, 4) else None
            if unread or lossy or refused:
                found["refusal"] = unread or lossy or refused
            else:
                seen = again if mode in ("L", "I;16") else again.convert("L")
                found["pages"] = [told(np.asarray(seen))]
                if codec == "jpeg":
                    # Two decoders may differ by rounding.
                    found["near"] = base64.b64encode(np.asarray(seen).tobytes()).decode()
            yield found


def main():
    folder, count, seed = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    entries = [*matrix(folder, count, seed), *dialects(folder), *pillow(folder)]
    with open(f"{folder}/expected.json", "w") as out:
        json.dump(entries, out)


main()
