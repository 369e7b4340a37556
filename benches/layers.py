"""The network layer by layer: our engine and ONNX Runtime on the same file, one thread, in turn.

Usage: benches/layers [--model models/nuclei] [--edges 256] [--pairs 9] [--runs 30]
Prints Markdown: for each class of layer the CPU time, its share, the operations of its definition
a second, what is done of them by what the processor does at most (`reticle bench --layers`
measures both), and the ratio to ONNX Runtime. ONNX Runtime's layers are from its own profile, in
elapsed time; the whole is compared by CPU time, without profiling. Medians over pairs of turns.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
import tomllib
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

REORDERING = "reordering"
# That are summed over the layers of a class.
KEYS = ("cpu_ms", "multiply_adds", "multiply_adds_done")


def ours(reticle: Path, model: str, edge: int, runs: int) -> dict[str, Any]:
    """What `reticle bench --layers` says of one size of tile, with the processor's peak."""
    command = [reticle, "bench", "--json", "--model", model, "--frames", str(runs)]
    command += ["--layers", str(edge)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(done.stderr)
    said = json.loads(done.stdout)
    return said["tiles"][0] | {key: said[key] for key in ("processor", "peak_gflops")}


def class_of(size: int, inputs: int, height: int, last: bool, edge: int) -> str:
    """A layer's class by its convolution; `height` is that of the map it computes."""
    if inputs == 1:
        return "stem"
    if last:
        return "head and sigmoid"
    return f"{size}×{size} at 1/{round(edge / height)}"


def our_classes(tile: dict[str, Any]) -> dict[str, Counter[str]]:
    """Sums over the layers of each class."""
    sums: dict[str, Counter[str]] = defaultdict(Counter)
    name = ""
    convolutions = [at for at, layer in enumerate(tile["layers"]) if layer["multiply_adds"]]
    for at, layer in enumerate(tile["layers"]):
        if at in convolutions:
            last = at == convolutions[-1]
            name = class_of(layer["size"], layer["inputs"], layer["height"], last, tile["edge"])
        # What no convolution took along belongs to the one before.
        sums[name].update({key: layer[key] for key in KEYS})
    return dict(sums)


class Theirs:
    """ONNX Runtime with one thread, once with its profiler and once without."""

    def __init__(self, onnx: Path, edge: int, folder: str) -> None:
        self.edge = edge
        # Noise, as our engine has it: the time does not depend on what is seen.
        image = np.arange(edge * edge) * 7919 % 1000 / 1000
        image = image.reshape(1, 1, edge, edge).astype(np.float32)
        self.plain = ort.InferenceSession(onnx, options(), providers=["CPUExecutionProvider"])
        profiled = options()
        profiled.enable_profiling = True
        profiled.profile_file_prefix = f"{folder}/layers-{edge}"
        self.profiled = ort.InferenceSession(onnx, profiled, providers=["CPUExecutionProvider"])
        self.feed = {self.plain.get_inputs()[0].name: image}

    def cpu_ms(self, runs: int) -> float:
        """CPU time of a run, the median of so many."""
        times = []
        for _ in range(runs):
            start = time.process_time()
            self.plain.run(None, self.feed)
            times.append((time.process_time() - start) * 1e3)
        return statistics.median(times)

    def profile(self, runs: int) -> None:
        for _ in range(runs):
            self.profiled.run(None, self.feed)

    def classes(self, turns: int, runs: int) -> list[dict[str, float]]:
        """Milliseconds of each class in every turn: of each node the median over its runs."""
        events = json.loads(Path(self.profiled.end_profiling()).read_text())
        kernels = [event for event in events if event["name"].endswith("_kernel_time")]
        kernels.sort(key=lambda event: event["ts"])
        nodes = len(kernels) // (turns * runs)
        names = node_classes(kernels[:nodes], self.edge)
        microseconds = np.array([event["dur"] for event in kernels]).reshape(turns, runs, nodes)
        found = []
        for turn in np.median(microseconds, axis=1):
            sums: dict[str, float] = defaultdict(float)
            for name, dur in zip(names, turn, strict=True):
                sums[name] += dur / 1e3
            found.append(dict(sums))
        return found


def options() -> ort.SessionOptions:
    settings = ort.SessionOptions()
    settings.intra_op_num_threads = settings.inter_op_num_threads = 1
    return settings


def node_classes(kernels: list[dict[str, Any]], edge: int) -> list[str]:
    """The class of each node of a run, in order; what convolves nothing is the one before's."""
    convolutions = [at for at, event in enumerate(kernels) if "Conv" in event["args"]["op_name"]]
    names = []
    name = "stem"
    for at, event in enumerate(kernels):
        if at in convolutions:
            shapes = event["args"]["input_type_shape"]
            _, inputs, size, _ = next(iter(shapes[1].values()))
            height = next(iter(event["args"]["output_type_shape"][0].values()))[2]
            name = class_of(size, inputs, height, at == convolutions[-1], edge)
        reorders = event["args"]["op_name"].startswith("Reorder")
        names.append(REORDERING if reorders else name)
    return names


def table(tiles: list[dict[str, Any]], theirs: list[dict[str, float]], whole: list[float]) -> str:
    """Medians over the turns of both."""
    per_class = [our_classes(tile) for tile in tiles]
    lines = [
        "| class | this engine, ms | share | GFLOP/s | of peak | ONNX Runtime, ms | ratio |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    total = statistics.median(tile["cpu_ms"] for tile in tiles)
    peak = statistics.median(tile["peak_gflops"] for tile in tiles)

    def line(name: str, mine: list[float], counts: Counter[str], other: list[float]) -> None:
        ms = statistics.median(mine)
        gflops, done = (2 * counts[key] / ms / 1e6 for key in KEYS[1:])
        paired = statistics.median(a / b for a, b in zip(mine, other, strict=True))
        lines.append(
            f"| {name} | {ms:.3f} | {ms / total:.0%} | {gflops:.0f} | {done / peak:.2f} "
            f"| {statistics.median(other):.3f} | {paired:.2f} |"
        )

    unknown = (theirs[0].keys() ^ per_class[0].keys()) - {REORDERING}
    if unknown:
        sys.exit(f"the two have different classes of layers: {', '.join(sorted(unknown))}")
    for name, counts in per_class[0].items():
        mine = [classes[name]["cpu_ms"] for classes in per_class]
        line(name, mine, counts, [classes[name] for classes in theirs])
    if REORDERING in theirs[0]:
        ms = statistics.median(classes[REORDERING] for classes in theirs)
        lines.append(f"| {REORDERING} | – | – | – | – | {ms:.3f} | – |")
    counts = sum(per_class[0].values(), Counter())
    line("all, CPU time", [tile["cpu_ms"] for tile in tiles], counts, whole)
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--reticle", type=Path, required=True)
    parser.add_argument("--model", default="models/nuclei", help="a package folder")
    parser.add_argument("--edges", default="256", help="of tiles, by commas")
    parser.add_argument("--pairs", type=int, default=9, help="turns of each")
    parser.add_argument("--runs", type=int, default=30, help="of a turn")
    args = parser.parse_args()
    package = tomllib.loads((Path(args.model) / "model.toml").read_text())
    onnx = Path(args.model) / package["network"]["file"]
    for edge in map(int, args.edges.split(",")):
        with tempfile.TemporaryDirectory() as folder:
            other = Theirs(onnx, edge, folder)
            other.cpu_ms(3)
            tiles, whole = [], []
            for _ in range(args.pairs):
                tiles.append(ours(args.reticle, args.model, edge, args.runs))
                whole.append(other.cpu_ms(args.runs))
                other.profile(args.runs)
            theirs = other.classes(args.pairs, args.runs)
        peak = statistics.median(tile["peak_gflops"] for tile in tiles)
        print(
            f"{tiles[0]['processor']}, one thread, tile {edge}², {args.pairs} pairs of turns of "
            f"{args.runs} runs; the processor does {peak:.0f} GFLOP/s at most; "
            f"ONNX Runtime {ort.__version__}\n"
        )
        print(table(tiles, theirs, whole) + "\n")


if __name__ == "__main__":
    main()
