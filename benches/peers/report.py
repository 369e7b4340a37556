"""The JSON document of a run → tables in Markdown.

`python -m peers.report PEERS.json [README.md]` makes them again; with the second file it puts the
first table in there.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

from . import readme
from .lineup import BOUND, NETWORK, RETICLE, TITLES, WHOLE

NONE = "–"
STAGES = ("decode", "normalise", "network", "instances", "measure")
Run = dict[str, Any]
Entry = dict[str, Any]


def mean(run: Run, of: Callable[[dict[str, Any]], float]) -> float:
    """Over the frames of one process."""
    return statistics.fmean(of(frame) for frame in run["frames"])


def median(entry: Entry, name: str, of: Callable[[Run], float]) -> float | None:
    """Over the rounds; none where the engine has not run this set."""
    runs = entry["runs"].get(name)
    return statistics.median(map(of, runs)) if runs else None


def a_second(run: Run) -> float:
    """Frames a second."""
    return 1e3 / wall_ms(run)


def cpu_ms(run: Run) -> float:
    """Processor time a frame, of all threads."""
    return mean(run, lambda frame: frame["cpu_ms"])


def wall_ms(run: Run) -> float:
    """Elapsed time a frame."""
    return mean(run, lambda frame: frame["wall_ms"])


def stage_ms(run: Run, stage: str) -> float:
    """Processor time of one stage a frame."""
    return mean(run, lambda frame: frame["stages_cpu_ms"].get(stage, 0.0))


def network_ms(run: Run) -> float:
    """Processor time of the network a frame."""
    return stage_ms(run, "network")


def start_s(run: Run) -> float:
    """From the start of the process to its first result, less a frame that was not the first."""
    return run["first_s"] - wall_ms(run) / 1e3


def peak_mb(run: Run) -> float:
    """The most memory that the process had, as the system counts it."""
    return run["process"]["peak_bytes"] / 1e6


def number(value: float | None, digits: int | None = None) -> str:
    """Three digits that count, or so many after the point."""
    if value is None:
        return NONE
    if digits is None:
        digits = 0 if value >= 100 else 1 if value >= 10 else 2
    return f"{value:,.{digits}f}"


def times(more: float | None, less: float | None) -> str:
    """How many times as much."""
    return f"{number(more / less)}×" if more and less else NONE


def table(head: list[str], rows: Iterable[list[str]]) -> list[str]:
    """Lines of a Markdown table; all columns but the first are numbers."""
    lines = ["| " + " | ".join(head) + " |", "|---|" + "---:|" * (len(head) - 1)]
    return lines + ["| " + " | ".join(row) + " |" for row in rows]


def markdown(document: dict[str, Any]) -> str:
    """Everything that a reader needs, the bars of the project last."""
    engines = document["engines"]
    sizes, size = sizes_of(document)
    alone = {
        name: entry
        for name, entry in engines.items()
        if name == RETICLE or any(map(has_network, entry["runs"].values()))
    }
    parts = [
        heading(document),
        "\n".join(summary(shown(engines), sizes, size)),
        "CPU ms a frame, from an image file to its measured objects (times that of Reticle):\n\n"
        + "\n".join(by_size(shown(engines), sizes)),
        f"Where the CPU time goes at {size}², ms a frame:\n\n"
        + "\n".join(by_stage(shown(engines), size)),
        "The network alone, CPU ms a frame (times that of Reticle):\n\n"
        + "\n".join(inference(alone, sizes)),
        "Peak resident memory by frame size, MB:\n\n" + "\n".join(memory(shown(engines), sizes)),
        "\n".join(bars(engines, size)),
        "\n\n".join(notes(document)),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def compact(document: dict[str, Any]) -> str:
    """For README.md: where and when, one row for each engine, inference alone."""
    engines = document["engines"]
    sizes, size = sizes_of(document)
    network = against_onnxruntime(engines, size)
    parts = [heading(document, versions=False), "\n".join(summary(shown(engines), sizes, size))]
    if network:
        parts.append(
            f"The network alone at {size}², with as many threads: Reticle takes {network} the CPU "
            "time of ONNX Runtime with the same file."
        )
    return "\n\n".join(parts)


def sizes_of(document: dict[str, Any]) -> tuple[list[str], str]:
    """Frame sizes of the run, and the one that is looked at closely."""
    sizes = [name for name in document["files"] if name.isdecimal()]
    return sizes, "1024" if "1024" in sizes else sizes[-1]


def shown(engines: dict[str, Entry]) -> dict[str, Entry]:
    """Those that somebody may choose, and not what only bounds the network's time."""
    return {name: entry for name, entry in engines.items() if entry["part"] != BOUND}


def has_network(runs: list[Run]) -> bool:
    return "network" in runs[0]["frames"][0]["stages_cpu_ms"]


def heading(document: dict[str, Any], versions: bool = True) -> str:
    """Machine, versions, and how it was measured."""
    machine = document["machine"]
    cores = ", ".join(map(str, machine["cores_used"]))
    rounds = document["rounds"]
    medians = f"medians of {rounds} interleaved rounds" if rounds > 1 else "one round"
    text = (
        f"{document['made'][:10]}, {machine['processor']}, cores {cores} of "
        f"{machine['cores_of_the_machine']}, {document['threads']} threads each, {medians}, "
        f"{document['files']['test']} test images."
    )
    if versions:
        every = {
            pair for entry in document["engines"].values() for pair in entry["versions"].items()
        }
        text += " " + ", ".join(f"{package} {version}" for package, version in sorted(every)) + "."
    return text


def summary(engines: dict[str, Entry], sizes: list[str], size: str) -> list[str]:
    """What somebody who chooses an engine looks at first."""
    head = ["engine", "AP 0.5", "AP 0.7", "AP 0.9", "test images/s"]
    head += [f"{each}² frames/s" for each in sizes]
    head += [f"CPU ms at {size}²", "× Reticle", f"peak MB at {size}²", "start-up s", "installed MB"]
    own = median(engines[RETICLE], size, cpu_ms)
    rows = []
    for name, entry in engines.items():
        ap = entry.get("ap", {})
        cpu = median(entry, size, cpu_ms)
        rows.append(
            [
                TITLES[name],
                *(number(ap.get(iou), 3) for iou in ("0.5", "0.7", "0.9")),
                number(median(entry, "test", a_second)),
                *(number(median(entry, each, a_second)) for each in sizes),
                number(cpu),
                number(cpu / own) if cpu and own else NONE,
                number(median(entry, size, peak_mb), 0),
                number(median(entry, "start", start_s)),
                number(entry["bytes"] / 1e6, 0),
            ]
        )
    return table(head, rows)


def by_size(engines: dict[str, Entry], sizes: list[str]) -> list[str]:
    return against_reticle(engines, sizes, cpu_ms, TITLES)


def against_reticle(
    engines: dict[str, Entry],
    sizes: list[str],
    of: Callable[[Run], float],
    titles: dict[str, str],
) -> list[str]:
    """A figure by frame size, beside it how many times that of Reticle it is."""
    own = {size: median(engines[RETICLE], size, of) for size in sizes}
    rows = []
    for name, entry in engines.items():
        cells = []
        for size in sizes:
            here = median(entry, size, of)
            ratio = "" if name == RETICLE or here is None else f" ({times(here, own[size])})"
            cells.append(number(here) + ratio)
        rows.append([titles[name], *cells])
    return table(["engine", *(f"{size}²" for size in sizes)], rows)


def by_stage(engines: dict[str, Entry], size: str) -> list[str]:
    rows = []
    for name, entry in engines.items():
        if size not in entry["runs"]:
            continue
        met = entry["runs"][size][0]["frames"][0]["stages_cpu_ms"]
        cells = [
            number(median(entry, size, partial(stage_ms, stage=stage))) if stage in met else NONE
            for stage in STAGES
        ]
        objects = median(entry, size, lambda run: mean(run, lambda frame: frame["objects"]))
        counted = NONE if entry["part"] == NETWORK else number(objects, 0)
        rows.append([TITLES[name], *cells, counted])
    return table(["engine", *STAGES, "objects"], rows)


def inference(engines: dict[str, Entry], sizes: list[str]) -> list[str]:
    whole = {
        name: title + (", whole frames" if engines[name]["part"] == WHOLE else "")
        for name, title in TITLES.items()
        if name in engines and name != RETICLE
    }
    lines = against_reticle(engines, sizes, network_ms, TITLES | whole)
    ratios = [against_onnxruntime(engines, size) or NONE for size in sizes]
    return [*lines, "| Reticle by the better of ONNX Runtime's | " + " | ".join(ratios) + " |"]


def against_onnxruntime(engines: dict[str, Entry], size: str) -> str | None:
    """How many times as long Reticle's network takes as ONNX Runtime's, whichever cut is better."""
    runtimes = [entry for name, entry in engines.items() if name.startswith("onnxruntime")]
    found = [median(entry, size, network_ms) for entry in runtimes]
    ratio = times(
        median(engines[RETICLE], size, network_ms),
        min((value for value in found if value), default=None),
    )
    return None if ratio == NONE else ratio


def memory(engines: dict[str, Entry], sizes: list[str]) -> list[str]:
    rows = [
        [TITLES[name], *(number(median(entry, size, peak_mb), 0) for size in sizes)]
        for name, entry in engines.items()
    ]
    return table(["engine", *(f"{size}²" for size in sizes)], rows)


def bars(engines: dict[str, Entry], size: str) -> list[str]:
    """Reticle against the others, as what it set out to reach is worded."""
    own = engines[RETICLE]
    lines = []

    def versus(name: str, what: str, of: Callable[[Run], float]) -> None:
        other = engines.get(name, {"runs": {}})
        ratio = times(median(other, size, of), median(own, size, of))
        if ratio != NONE:
            lines.append(f"- {what} of {TITLES[name]} at {size}²: {ratio} that of Reticle")

    def before_measuring(run: Run) -> float:
        return cpu_ms(run) - stage_ms(run, "measure")

    for name in ("stardist", "classical"):
        versus(name, "CPU time a frame", cpu_ms)
        versus(name, "CPU time a frame before measuring", before_measuring)
        versus(name, "Peak memory", peak_mb)
    ratio = against_onnxruntime(engines, size)
    if ratio:
        lines.append(
            f"- Reticle's network stage at {size}²: {ratio} the CPU time of ONNX Runtime at its "
            "better of whole frames and tiles, with as many threads"
        )
    return lines


def notes(document: dict[str, Any]) -> list[str]:
    """What a reader must know to trust the figures."""
    engines = document["engines"]
    runs = [run for entry in engines.values() for many in entry["runs"].values() for run in many]
    busiest = max((run["process"]["load_average"] for run in runs), default=0.0)
    load = (
        f"Median load of the machine before a process {number(median_load(runs))}, at most "
        f"{number(busiest)}: with all else quiet it is at most about {document['threads']}."
    )
    if document["rounds"] > 1:
        load += (
            f" CPU times differed between rounds by {number(100 * spread(engines), 0)}% "
            "(the median over engines and sizes of largest over smallest)."
        )
    lines = [load]
    for name, entry in engines.items():
        if "labels_as_reticle" in entry:
            found = entry["labels_as_reticle"]
            lines.append(
                f"{TITLES[name]}: {found['same']} of {found['of']} test images have Reticle's "
                "labels, pixel for pixel."
            )
            if entry["part"] == BOUND and found["same"] < 0.9 * found["of"]:
                lines.append(
                    "That is too few: estimate.py, scale.py, instances.py or package.py is behind "
                    "crates/segment/src, so take the times of our network elsewhere as a rough guide."
                )
    for name, entry in engines.items():
        if "failed" in entry:
            reason = entry["failed"].strip().splitlines()[-1]
            lines.append(f"{TITLES[name]} failed and was left out: {reason}")
    return lines


def median_load(runs: list[Run]) -> float:
    return statistics.median(run["process"]["load_average"] for run in runs) if runs else 0.0


def spread(engines: dict[str, Entry]) -> float:
    """How much the rounds differ: the median of largest over smallest CPU time, less one."""
    each = []
    for entry in engines.values():
        for many in entry["runs"].values():
            values = [cpu_ms(run) for run in many]
            each.append(max(values) / min(values) - 1)
    return statistics.median(each) if each else 0.0


def main() -> None:
    """Prints the tables of a run, or puts the first one into README.md."""
    document = json.loads(Path(sys.argv[1]).read_text())
    if len(sys.argv) > 2:
        readme.fill(Path(sys.argv[2]), compact(document))
    else:
        print(markdown(document), end="")


if __name__ == "__main__":
    main()
