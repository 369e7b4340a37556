"""Who takes part, and how each is run."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import processes
from .processes import Ended, Failed

# Image files go in, measured objects come out.
WHOLE = "whole"
# Only the network is run, because there are no weights that would make objects of its maps.
NETWORK = "network"
# Only the network is run, because its time is all that is asked: it bounds what inference can cost.
# Label images are made of its maps once, outside of what is timed, to see that they are Reticle's.
BOUND = "bound"


@dataclass(frozen=True)
class Peer:
    """An engine that runs in Python."""

    name: str
    title: str
    module: str
    # What has to be installed for it, by name; what those need is found by itself.
    distributions: tuple[str, ...]
    part: str = WHOLE
    tiles: bool = False
    # Frames of a set that it is given; none for all.
    most_frames: int | None = None
    # Not run unless asked for with --with.
    optional: bool = False
    # Environment that it is installed in.
    venv: str = "venv"


PEERS = (
    Peer("stardist", "StarDist (TensorFlow)", "stardist", ("stardist", "tensorflow-cpu")),
    Peer("classical", "scikit-image (Otsu, watershed)", "classical", ("scikit-image",)),
    Peer(
        "onnxruntime",
        "our network by ONNX Runtime",
        "onnxruntime",
        ("onnxruntime", "scikit-image", "numba"),
    ),
    Peer(
        "openvino",
        "our network by OpenVINO",
        "openvino",
        ("openvino", "scikit-image", "numba"),
    ),
    Peer(
        "onnxruntime-tiles",
        "ONNX Runtime, our tiles",
        "onnxruntime",
        ("onnxruntime", "scikit-image", "numba"),
        part=BOUND,
        tiles=True,
    ),
    Peer(
        "openvino-tiles",
        "OpenVINO, our tiles",
        "openvino",
        ("openvino", "scikit-image", "numba"),
        part=BOUND,
        tiles=True,
    ),
    Peer(
        "cellpose",
        "Cellpose 3's network alone (random weights)",
        "cellpose",
        ("cellpose", "torch"),
        part=NETWORK,
        # Half a minute each at 1024².
        most_frames=1,
        optional=True,
        venv="venv-cellpose",
    ),
)
RETICLE = "reticle"
# Modules that run our network with Reticle's own processing around it.
OUR_NETWORK = ("onnxruntime", "openvino")
TITLES = {RETICLE: "Reticle"} | {peer.name: peer.title for peer in PEERS}


@dataclass(frozen=True)
class Bench:
    """What all engines have in common in this run."""

    reticle: Path
    model: Path
    stardist: Path
    venvs: Path
    work: Path
    threads: int


def time_reticle(bench: Bench, files: list[Path]) -> tuple[dict[str, Any], Ended]:
    """`reticle bench --images`, in the words of `worker.py`."""
    command = [str(bench.reticle), "bench", "--json", "--frames", "1"]
    command += ["--threads", str(bench.threads), "--model", str(bench.model)]
    command += ["--images", *map(str, files)]
    ended = processes.run(command, processes.environment(bench.threads), bench.work)
    rows = [
        {
            "image": row["image"],
            "wall_ms": row["wall_ms"],
            "cpu_ms": row["cpu_ms"],
            "stages_cpu_ms": {
                stage: row[f"{stage}_cpu_ms"]
                for stage in ("decode", "normalise", "network", "instances", "measure")
            },
            "objects": row["objects"],
        }
        for row in json.loads(ended.stdout)["rows"]
    ]
    # It does not say when its first result was there; but all that follows is known.
    after_first_s = sum(row["wall_ms"] for row in rows) / 1e3
    return {"first_s": ended.wall_s - after_first_s, "frames": rows}, ended


def time_peer(
    bench: Bench, peer: Peer, files: list[Path], labels: Path | None
) -> tuple[dict[str, Any], Ended]:
    """A worker process of the peer's own Python."""
    job = {
        "module": peer.module,
        "model": str(bench.model),
        "stardist": str(bench.stardist),
        "tiles": peer.tiles,
        "network_only": peer.part == NETWORK or (peer.part == BOUND and labels is None),
        "threads": bench.threads,
        "files": list(map(str, files[: peer.most_frames])),
        "labels": str(labels) if labels else None,
    }
    python = bench.venvs / peer.venv / "bin" / "python"
    return processes.run_worker(python, job, ours(bench), bench.work)


def ours(bench: Bench) -> dict[str, str]:
    """The environment of a process that runs a module of this folder."""
    extra = {
        "PYTHONPATH": str(Path(__file__).resolve().parent.parent),
        "NUMBA_CACHE_DIR": str(bench.work / "numba"),
        # Nothing is written beside the sources.
        "PYTHONPYCACHEPREFIX": str(bench.work / "pycache"),
    }
    return processes.environment(bench.threads, extra)


def reticle_labels(bench: Bench, images: Path, out: Path) -> None:
    """Label images of all images in a folder, as a user makes them."""
    command = [str(bench.reticle), "segment", str(images), "--out", str(out), "--jobs", "1"]
    command += ["--model", str(bench.model)]
    processes.run(command, processes.environment(bench.threads), bench.work)


def same_labels(bench: Bench, one: Path, other: Path) -> dict[str, int]:
    """How many label images of two folders are the same pixel for pixel, of how many."""
    python = bench.venvs / "venv" / "bin" / "python"
    command = [str(python), "-m", "peers.same", str(one), str(other)]
    return json.loads(processes.run(command, ours(bench), bench.work).stdout)


def average_precision(bench: Bench, truth: Path, labels: Path) -> dict[str, float]:
    """Pooled AP by IoU; `reticle eval` judges all engines alike."""
    command = [str(bench.reticle), "eval", "--truth", str(truth), "--pred", str(labels), "--json"]
    ended = processes.run(command, processes.environment(bench.threads), bench.work)
    pooled = json.loads(ended.stdout)["pooled"]
    by_percent = {round(at["iou"] * 100): at["ap"] for at in pooled["at"]}
    return {f"{percent / 100:.1f}": by_percent[percent] for percent in (50, 70, 90)}


def installed(bench: Bench, peer: Peer) -> dict[str, Any]:
    """Versions and bytes of what the peer needs."""
    python = bench.venvs / peer.venv / "bin" / "python"
    command = [str(python), "-m", "peers.installed", *peer.distributions]
    found = json.loads(processes.run(command, ours(bench), bench.work).stdout)
    weights = {"stardist": bench.stardist, "onnxruntime": bench.model, "openvino": bench.model}
    folder = weights.get(peer.module)
    if folder:
        files = [file for file in folder.iterdir() if file.suffix in (".h5", ".onnx")]
        found["bytes"] += sum(file.stat().st_size for file in files)
    return found


def installed_reticle(bench: Bench) -> dict[str, Any]:
    """The binary, with the model in it, without the symbols that a release does not have."""
    stripped = bench.work / "reticle-stripped"
    try:
        processes.run(
            ["strip", "-o", str(stripped), str(bench.reticle)],
            processes.environment(bench.threads),
            bench.work,
        )
        size = stripped.stat().st_size
        stripped.unlink()
    except (Failed, FileNotFoundError):
        size = bench.reticle.stat().st_size
    version = processes.run(
        [str(bench.reticle), "--version"], processes.environment(bench.threads), bench.work
    )
    return {"versions": {RETICLE: version.stdout.split()[-1]}, "bytes": size}
