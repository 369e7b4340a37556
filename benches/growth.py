"""How time and memory of `reticle bench` grow with the size of frames and the objects in them.

Run by `benches/growth`, which has matplotlib. Peak memory is that of a process, so that each point
is a process of its own; the points are run in turn, as often as there are rounds, and medians are
taken over the rounds. Sizes: frames of the virtual microscope, as dense at every size. Objects:
frames of one size with ever more nuclei, spread evenly.

Growth is told by the exponent of a power law, the slope of the logarithm of time over that of
pixels or objects: 1 is linear. Beside the slope over all points stands that of the last step,
which small frames and their fixed costs do not flatten.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

SIZES = (256, 512, 1024, 2048, 4096, 8192)
OBJECTS = (10, 30, 100, 300, 1000, 3000, 10_000, 20_000)
# Edge of the frames of OBJECTS.
EDGE = 4096
STAGES = ("normalise", "network", "instances", "measure")
# Okabe-Ito, told apart by people who see few colours.
COLOURS = {
    "all": "#000000",
    "normalise": "#E69F00",
    "network": "#0072B2",
    "instances": "#D55E00",
    "measure": "#009E73",
}

Row = dict[str, Any]
Figure = Callable[[Row], float]


def points(only: str | None) -> list[tuple[str, int]]:
    sizes = [("sizes", edge) for edge in SIZES if only != "objects"]
    return sizes + [("objects", count) for count in OBJECTS if only != "sizes"]


def measure(reticle: Path, kind: str, value: int, frames: int, threads: int) -> Row:
    """One process of `reticle bench`."""
    command = [str(reticle), "bench", "--json", "--frames", str(frames), "--threads", str(threads)]
    if kind == "sizes":
        command += ["--sizes", str(value)]
    else:
        command += ["--sizes", str(EDGE), "--objects", str(value)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)}: {done.stderr.strip()}")
    document = json.loads(done.stdout)
    return {**document["rows"][0], "processor": document["processor"]}


def run(args: argparse.Namespace) -> dict[str, Any]:
    """All points, round by round."""
    runs: dict[tuple[str, int], list[Row]] = {}
    todo = points(args.only)
    for number in range(args.rounds):
        for kind, value in todo:
            print(f"round {number + 1} of {args.rounds}, {kind} {value}", file=sys.stderr)
            row = measure(args.reticle, kind, value, args.frames, args.threads)
            runs.setdefault((kind, value), []).append(row)
    results: dict[str, Any] = {
        name: getattr(args, name) for name in ("threads", "rounds", "frames")
    }
    results["processor"] = next(iter(runs.values()))[0]["processor"]
    for kind in ("sizes", "objects"):
        results[kind] = [median(rows) for (of, _), rows in runs.items() if of == kind]
    return results


def median(rows: list[Row]) -> Row:
    """The median of every number over the rounds."""
    numbers = [key for key, value in rows[0].items() if isinstance(value, int | float)]
    return {key: statistics.median(row[key] for row in rows) for key in numbers}


def slope(xs: list[float], ys: list[float]) -> float:
    """Exponent of the power law that fits best (least squares of logarithms)."""
    xs, ys = [math.log(x) for x in xs], [math.log(max(y, 1e-3)) for y in ys]
    return statistics.linear_regression(xs, ys).slope


def ms(row: Row, stage: str) -> float:
    """CPU time of a stage, or of all."""
    return row["cpu_ms" if stage == "all" else f"{stage}_cpu_ms"]


def pixels(row: Row) -> float:
    return row["width"] * row["height"]


def megapixels(row: Row) -> float:
    return pixels(row) / 1e6


def drawn(row: Row) -> float:
    return row["drawn_objects"]


def peak_mb(row: Row) -> float:
    return row["peak_memory_mb"]


def exponent(rows: list[Row], x: Figure, y: Figure) -> str:
    return f"{slope([x(row) for row in rows], [y(row) for row in rows]):.2f}"


def exponents(rows: list[Row], x: Figure) -> list[list[str]]:
    """Two rows of the table: over all points, and of the last step."""
    lines = []
    for name, chosen in (("exponent, all", rows), ("exponent, last step", rows[-2:])):
        figures = [*(partial(ms, stage=stage) for stage in (*STAGES, "all")), peak_mb]
        lines.append([name, *(exponent(chosen, x, figure) for figure in figures)])
    return lines


def table(head: list[str], lines: list[list[str]]) -> str:
    ruler = "|" + "---|" + "--:|" * (len(head) - 1)
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (head, *lines)).replace(
        "\n", f"\n{ruler}\n", 1
    )


def number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


FIGURES = ("found", *STAGES, "CPU ms", "peak MB", "wall ms")


def figures(row: Row) -> list[str]:
    """What stands under FIGURES."""
    times = [ms(row, stage) for stage in (*STAGES, "all")]
    numbers = [*times, peak_mb(row), row["wall_ms"]]
    return [f"{row['objects']:,.0f}", *map(number, numbers)]


def sizes_table(rows: list[Row]) -> str:
    head = ["frame", *FIGURES, "ns a pixel", "bytes a pixel"]
    lines = []
    for row in rows:
        each = [row["cpu_ms"] * 1e6 / pixels(row), peak_mb(row) * 1e6 / pixels(row)]
        lines.append([f"{row['width']:.0f}²", *figures(row), *map(number, each)])
    lines += [[cells[0], "", *cells[1:], "", "", ""] for cells in exponents(rows, pixels)]
    return table(head, lines)


def objects_table(rows: list[Row]) -> str:
    fewest = rows[0]
    head = ["drawn", *FIGURES, "µs for each more"]
    lines = []
    for row in rows:
        more = drawn(row) - drawn(fewest)
        each = number((row["cpu_ms"] - fewest["cpu_ms"]) * 1e3 / more) if more else ""
        lines.append([f"{drawn(row):,.0f}", *figures(row), each])
    lines += [[cells[0], "", *cells[1:], "", ""] for cells in exponents(rows, drawn)]
    return table(head, lines)


def markdown(results: dict[str, Any]) -> str:
    threads = "1 thread" if results["threads"] == 1 else f"{results['threads']} threads"
    parts = [
        f"{results['processor']}, {threads}; medians of {results['rounds']} processes of "
        f"{results['frames']} frames for each point; times of stages are CPU ms."
    ]
    if results["sizes"]:
        parts.append(sizes_table(results["sizes"]))
    if results["objects"]:
        parts += [f"{EDGE}² with ever more objects:", objects_table(results["objects"])]
    return "\n\n".join(parts)


def plot(results: dict[str, Any], path: Path) -> None:
    import matplotlib

    matplotlib.use("svg")
    # The same figures give the same file, so that a change of it is a change of figures.
    matplotlib.rcParams.update({"svg.hashsalt": "growth", "svg.fonttype": "none", "font.size": 9})
    from matplotlib import pyplot

    sizes = (results["sizes"], megapixels, "megapixels, objects at the same density")
    objects = (results["objects"], drawn, f"objects in a frame of {EDGE}²")
    columns = [column for column in (sizes, objects) if column[0]]
    figure, axes = pyplot.subplots(
        2, len(columns), figsize=(4.6 * len(columns), 6), sharex="col", sharey="row", squeeze=False
    )
    for (upper, lower), (rows, x, title) in zip(axes.T, columns, strict=True):
        xs = [x(row) for row in rows]
        for stage, colour in COLOURS.items():
            width = 2 if stage == "all" else 1.2
            ys = [ms(row, stage) for row in rows]
            upper.plot(xs, ys, color=colour, marker="o", markersize=3, linewidth=width, label=stage)
        lower.plot(xs, [peak_mb(row) for row in rows], color="#000000", marker="o", markersize=3)
        linear(upper, xs, ms(rows[-1], "all"))
        linear(lower, xs, peak_mb(rows[-1]))
        for axis in (upper, lower):
            axis.set_xscale("log")
            axis.set_yscale("log")
            axis.grid(True, which="major", linewidth=0.4, alpha=0.6)
        lower.set_xlabel(title)
    axes[0][0].set_ylabel("CPU ms a frame")
    axes[1][0].set_ylabel("peak memory, MB")
    axes[0][0].legend(frameon=False)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="svg", metadata={"Date": None})
    # The writer leaves blanks at the ends of lines.
    lines = path.read_text(encoding="utf-8").splitlines()
    path.write_text("\n".join(line.rstrip() for line in lines) + "\n", encoding="utf-8")


def linear(axis: Any, xs: list[float], last: float) -> None:
    """A dashed line of exponent 1 through the last point."""
    low, _ = axis.get_ylim()
    first = max(xs[0], xs[-1] * max(low, 1e-3) / last)
    style = {"linestyle": "--", "color": "#888888", "linewidth": 1, "label": "linear"}
    axis.plot([first, xs[-1]], [last * first / xs[-1], last], **style)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--reticle", type=Path, required=True, help="the program that is measured")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--rounds", type=int, default=3, help="processes for each point")
    parser.add_argument("--frames", type=int, default=5, help="frames of each process")
    parser.add_argument("--only", choices=("sizes", "objects"), help="half of it")
    parser.add_argument("--results", type=Path, required=True, help="figures of the run, as JSON")
    parser.add_argument("--again", action="store_true", help="draw what --results has; run nothing")
    parser.add_argument("--plot", type=Path, default=Path("docs/images/growth.svg"))
    args = parser.parse_args()
    if args.again:
        results = json.loads(args.results.read_text(encoding="utf-8"))
    else:
        if not os.access(args.reticle, os.X_OK):
            sys.exit(f"nothing is built at {args.reticle} yet: `make run` or `make bench` first")
        results = run(args)
        args.results.parent.mkdir(parents=True, exist_ok=True)
        args.results.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    plot(results, args.plot)
    print(markdown(results))


if __name__ == "__main__":
    main()
