"""Starting what is measured, and what is measured of it from outside.

Imports nothing but the standard library: Linux lets a child's peak memory (`ru_maxrss`) begin at
that of the process that started it, so this one stays small (about 20 MB).
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any


class Failed(Exception):
    """An engine's process ended badly; the message has the end of what it said."""


@dataclass(frozen=True)
class Ended:
    """A process, seen from outside."""

    stdout: str
    wall_s: float
    cpu_s: float
    peak_bytes: int
    load_average: float


def environment(threads: int, extra: dict[str, str] | None = None) -> dict[str, str]:
    """The same number of threads for every library that takes it from the environment."""
    each = {
        "OMP_NUM_THREADS": threads,
        "OPENBLAS_NUM_THREADS": threads,
        "MKL_NUM_THREADS": threads,
        "NUMBA_NUM_THREADS": threads,
        "RAYON_NUM_THREADS": threads,
        "TF_NUM_INTRAOP_THREADS": threads,
        "TF_NUM_INTEROP_THREADS": 1,
        # Threads that wait by spinning would be counted as work.
        "OMP_WAIT_POLICY": "PASSIVE",
        "TF_CPP_MIN_LOG_LEVEL": "2",
        "CUDA_VISIBLE_DEVICES": "",
    }
    return os.environ | {key: str(value) for key, value in each.items()} | (extra or {})


def run(command: list[str], env: dict[str, str], work: Path) -> Ended:
    """Runs to the end; cores are inherited from this process."""
    load_average = os.getloadavg()[0]
    errors = work / "stderr.txt"
    start = time.monotonic()
    with errors.open("wb") as stderr, (work / "stdout.txt").open("w+b") as stdout:
        child = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr, env=env
        )
        # wait4 gives what this one child used, where getrusage would give that of all.
        _, status, used = os.wait4(child.pid, 0)
        wall_s = time.monotonic() - start
        child.returncode = os.waitstatus_to_exitcode(status)
        stdout.seek(0)
        text = stdout.read().decode(errors="replace")
    if child.returncode != 0:
        last = errors.read_text(errors="replace").strip().splitlines()[-8:]
        raise Failed(f"exit code {child.returncode}: {' '.join(command)}\n" + "\n".join(last))
    return Ended(
        stdout=text,
        wall_s=wall_s,
        cpu_s=used.ru_utime + used.ru_stime,
        peak_bytes=used.ru_maxrss * 1024,
        load_average=load_average,
    )


def run_worker(
    python: Path, job: dict[str, Any], env: dict[str, str], work: Path
) -> tuple[dict[str, Any], Ended]:
    """Runs `worker.py` with a job; gives its result and how it looked from outside."""
    job_file, result = work / "job.json", work / "result.json"
    result.unlink(missing_ok=True)
    job_file.write_text(json.dumps(job | {"result": str(result), "spawned": time.monotonic()}))
    ended = run([str(python), "-m", "peers.worker", str(job_file)], env, work)
    return json.loads(result.read_text()), ended
