"""How well frames of other magnifications are segmented: test images enlarged and reduced, with the
object size estimated by the program.

Usage: python3 benches/magnification.py RETICLE [--split test] [--model nuclei]
       python3 benches/magnification.py --into DIR --split val
Wants Pillow and NumPy (`scripts/setup test` has them) and RETICLE_DATA. Prints a Markdown table, or
with --into writes the images themselves, where `make model` chooses the post-processing of nuclei.
Images are enlarged with a cubic filter and reduced with an area filter; labels by nearest neighbour.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

FACTORS = (1.0, 1.5, 2.0, 3.0, 0.7)

# Those at which post-processing is chosen; twice takes no part, to see that it suits others too.
CHOOSING = (1.0, 1.5, 3.0, 0.7)


def resized(image: Image.Image, factor: float, label: bool) -> Image.Image:
    size = (round(image.width * factor), round(image.height * factor))
    if label:
        return image.resize(size, Image.Resampling.NEAREST)
    kernel = Image.Resampling.BICUBIC if factor > 1 else Image.Resampling.BOX
    return image.resize(size, kernel)


def contiguous(labels: Image.Image) -> Image.Image:
    """Numbered 1..n again: what is reduced may lose an object."""
    values = np.asarray(labels)
    present = np.unique(values[values > 0])
    numbers = np.zeros(int(values.max()) + 1, np.uint16)
    numbers[present] = np.arange(1, len(present) + 1)
    return Image.fromarray(numbers[values])


def scaled(source: Path, folder: Path, factor: float) -> None:
    for kind in ("images", "labels"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
        for path in sorted((source / kind).glob("*.png")):
            image = Image.open(path)
            if factor != 1:
                image = resized(image, factor, kind == "labels")
                if kind == "labels":
                    image = contiguous(image)
            image.save(folder / kind / f"x{factor}-{path.name}")


def run(*command: str | Path) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))}: {done.stderr}")
    return done.stdout


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("reticle", type=Path, nargs="?")
    parser.add_argument("--into", type=Path)
    parser.add_argument("--split", default="test")
    parser.add_argument("--model", default="nuclei")
    args = parser.parse_args()
    source = Path(os.environ.get("RETICLE_DATA", "../shared/data")) / args.split
    if not source.is_dir():
        sys.exit(f"RETICLE_DATA: there is no {source}")
    if args.into:
        for factor in CHOOSING:
            scaled(source, args.into, factor)
        return
    if not args.reticle:
        parser.error("which program? give the path of reticle")
    print("| edges times | AP 0.5 | AP 0.7 | AP 0.9 |")
    print("|---|---|---|---|")
    for factor in FACTORS:
        with tempfile.TemporaryDirectory() as work:
            folder = Path(work)
            scaled(source, folder, factor)
            out = folder / "out"
            run(args.reticle, "segment", folder / "images", "--out", out, "--model", args.model)
            table = run(args.reticle, "eval", "--truth", folder / "labels", "--pred", out)
            rows = [line.split() for line in table.splitlines()]
            at = {row[0]: row[1] for row in rows if row and row[0] in ("0.50", "0.70", "0.90")}
            print(f"| {factor} | {at['0.50']} | {at['0.70']} | {at['0.90']} |", flush=True)


if __name__ == "__main__":
    main()
