"""One engine, one set of files, one process: `python -m peers.worker JOB.json`.

The job is a JSON document that `processes.py` writes; so is the result. Of each frame size the
first file is run once more before all others, and not counted: it pays for compiling, for plans
and for filling caches, in every engine alike. So is a file for which an engine had to prepare what
no file before it needed. Label images are written outside of what is timed.
"""

from __future__ import annotations

import importlib
import json
import struct
import sys
import time
from pathlib import Path
from typing import Any

from .engines.base import Engine, Options, Result


class Laps:
    """Wall and CPU time (all threads of the process) of the stages of one frame."""

    def __init__(self) -> None:
        self.stages_cpu_ms: dict[str, float] = {}
        self.start_wall = time.perf_counter()
        self.start_cpu = self.last_cpu = time.process_time()

    def lap(self, stage: str) -> None:
        now = time.process_time()
        self.stages_cpu_ms[stage] = (now - self.last_cpu) * 1e3
        self.last_cpu = now

    def row(self, path: Path, result: Result) -> dict[str, Any]:
        """Taken at once: what follows is not the frame's."""
        wall = time.perf_counter() - self.start_wall
        cpu = time.process_time() - self.start_cpu
        return {
            "image": path.name,
            "wall_ms": wall * 1e3,
            "cpu_ms": cpu * 1e3,
            "stages_cpu_ms": self.stages_cpu_ms,
            "objects": result.objects,
        }


def png_size(path: Path) -> tuple[int, int]:
    """Width and height, from the header alone."""
    with path.open("rb") as file:
        return struct.unpack(">II", file.read(24)[16:])


def run(job: dict[str, Any]) -> dict[str, Any]:
    """Loads the engine and times it on the job's files."""
    options = Options(
        model=Path(job["model"]),
        stardist=Path(job["stardist"]),
        tiles=job["tiles"],
        network_only=job["network_only"],
    )
    module = importlib.import_module(f".engines.{job['module']}", __package__)
    engine: Engine = module.load(options, job["threads"])
    ready = time.monotonic()
    first: float | None = None
    met: set[tuple[int, int]] = set()
    rows = []
    for path in map(Path, job["files"]):
        size = png_size(path)
        if size not in met:
            met.add(size)
            engine.frame(path, lambda stage: None)
            first = first or time.monotonic()
        laps = Laps()
        result = engine.frame(path, laps.lap)
        if result.prepared:
            laps = Laps()
            result = engine.frame(path, laps.lap)
        rows.append(laps.row(path, result))
        if job["labels"] and result.labels is not None:
            write_labels(Path(job["labels"]) / path.name, result.labels)
    # The monotonic clock is one for all processes of a machine.
    since = job["spawned"]
    return {"ready_s": ready - since, "first_s": (first or ready) - since, "frames": rows}


def write_labels(path: Path, labels: Any) -> None:
    """A 16-bit label image, as `reticle eval` reads it."""
    from skimage.io import imsave

    imsave(path, labels.astype("uint16"), check_contrast=False)


def main() -> None:
    """Reads the job that is named on the command line, and writes its result."""
    job = json.loads(Path(sys.argv[1]).read_text())
    result = run(job)
    Path(job["result"]).write_text(json.dumps(result))


if __name__ == "__main__":
    main()
