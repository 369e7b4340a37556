"""The peer bench: `scripts/bench-peers`, or `python -m peers.bench` in its environment.

One session, round robin: in each round every engine runs every set of files, each in a process of
its own, in an order that turns from round to round, on the same cores with as many threads. What
is reported is the median over the rounds.

This process imports the standard library alone (`processes.py` says why).
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from . import lineup, processes, readme, report
from .lineup import BOUND, NETWORK, PEERS, RETICLE, WHOLE, Bench, Peer
from .processes import Failed

ROOT = Path(__file__).resolve().parents[2]
SIZES = (256, 512, 1024, 2048)
# StarDist's steps when the bench trains it: the stated budget, an hour or two of two cores.
STARDIST_STEPS = 4000


def arguments() -> argparse.Namespace:
    """The command line."""
    data = Path(os.environ.get("RETICLE_DATA", ROOT.parent / "shared" / "data"))
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "reticle" / "peers"
    parser = argparse.ArgumentParser(prog="scripts/bench-peers", description=__doc__.split("\n")[0])
    parser.add_argument("--reticle", type=Path, required=True, help="release binary to measure")
    parser.add_argument("--model", type=Path, default=ROOT / "models" / "nuclei")
    parser.add_argument("--data", type=Path, default=data, help="folder of train, val and test")
    parser.add_argument("--out", type=Path, default=ROOT / "out" / "peers")
    parser.add_argument("--cache", type=Path, default=cache, help="environments, frames, weights")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cores", default="", help="such as 0,1 (the first two that are allowed)")
    parser.add_argument("--sizes", default=",".join(map(str, SIZES)))
    parser.add_argument("--engines", default="", help="names with commas between (all installed)")
    parser.add_argument("--with", dest="extra", action="append", default=[], metavar="ENGINE")
    parser.add_argument("--stardist-weights", type=Path, help="folder of a trained StarDist")
    parser.add_argument("--stardist-steps", type=int, default=STARDIST_STEPS)
    parser.add_argument(
        "--write-readme",
        type=Path,
        nargs="?",
        const=ROOT / "README.md",
        metavar="FILE",
        help="put the table between the marks of README.md, too",
    )
    return parser.parse_args()


def main() -> None:
    """Measures, and writes OUT/peers.json and OUT/peers.md."""
    args = arguments()
    cores = pin(args.cores)
    if not (args.data / "test" / "images").is_dir():
        sys.exit(f"bench-peers: no images in {args.data}/test/images; set RETICLE_DATA")
    if args.write_readme:
        try:
            readme.check(args.write_readme)
        except (OSError, readme.Unmarked) as error:
            sys.exit(f"bench-peers: {error}")
    work = args.cache / "work"
    work.mkdir(parents=True, exist_ok=True)
    bench = Bench(
        reticle=args.reticle.resolve(),
        model=args.model.resolve(),
        stardist=args.cache,
        venvs=args.cache,
        work=work,
        threads=len(cores),
    )
    peers = chosen(args, bench)
    if any(peer.module == "stardist" for peer in peers):
        bench = with_stardist(bench, args)
    sets = sets_of_files(args, bench)
    document: dict[str, Any] = {
        "made": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": sys.argv[1:],
        "machine": machine(cores),
        "threads": bench.threads,
        "rounds": args.rounds,
        "model": hashlib.sha256((bench.model / "model.onnx").read_bytes()).hexdigest(),
        "stardist": str(bench.stardist),
        "files": {name: len(files) for name, files in sets.items()},
        "engines": {},
    }
    engines = document["engines"]
    engines[RETICLE] = {"part": WHOLE, "runs": {}} | lineup.installed_reticle(bench)
    for peer in peers:
        engines[peer.name] = {"part": peer.part, "runs": {}} | lineup.installed(bench, peer)
    measure(document, bench, peers, sets, args)
    judge(document, bench, args)
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "peers.json").write_text(json.dumps(document, indent=1))
    text = report.markdown(document)
    (args.out / "peers.md").write_text(text)
    print(text)
    if args.write_readme:
        readme.fill(args.write_readme, report.compact(document))
        say(f"the table is in {args.write_readme}")
    say(f"written to {args.out}/peers.md and peers.json")


def say(what: str) -> None:
    """To the person who waits."""
    print(what, file=sys.stderr, flush=True)


def pin(wanted: str) -> list[int]:
    """Binds this process, and so all that it starts, to the cores of the bench."""
    allowed = sorted(os.sched_getaffinity(0))
    cores = [int(core) for core in wanted.split(",")] if wanted else allowed[:2]
    os.sched_setaffinity(0, cores)
    return cores


def chosen(args: argparse.Namespace, bench: Bench) -> list[Peer]:
    """The peers that were asked for and whose environment is there."""
    names = args.engines.split(",") if args.engines else None
    known = {peer.name for peer in PEERS} | {RETICLE}
    for name in [*(names or []), *args.extra]:
        if name not in known:
            names = ", ".join(sorted(known))
            sys.exit(f'bench-peers: no engine is named "{name}"; there are {names}')
    peers = []
    for peer in PEERS:
        asked = peer.name in args.extra or (names is None and not peer.optional)
        if not (asked or (names and peer.name in names)):
            continue
        if (bench.venvs / peer.venv / "bin" / "python").exists():
            peers.append(peer)
        else:
            say(f"{peer.name} is left out: it is not installed in {bench.venvs / peer.venv}")
    return peers


def with_stardist(bench: Bench, args: argparse.Namespace) -> Bench:
    """Weights as given, else those that come with the data, else trained here, once."""
    beside = args.data / "peers" / "stardist"
    trained = args.cache / f"stardist-{args.stardist_steps}" / "stardist"
    if args.stardist_weights:
        folder = args.stardist_weights.resolve()
    elif (beside / "weights_best.h5").exists():
        folder = beside
    else:
        folder = trained
        if not (trained / "thresholds.json").exists():
            say(f"training StarDist, once: {args.stardist_steps} steps, an hour or more")
            python = bench.venvs / "venv" / "bin" / "python"
            command = [str(python), "-m", "peers.stardist_train"]
            command += [str(args.data), str(trained), str(args.stardist_steps)]
            subprocess.run(command, env=lineup.ours(bench), check=True)
    if not (folder / "weights_best.h5").exists():
        sys.exit(f"bench-peers: no weights_best.h5 in {folder}")
    return Bench(**{**vars(bench), "stardist": folder})


def sets_of_files(args: argparse.Namespace, bench: Bench) -> dict[str, list[Path]]:
    """What is run: one small frame (for the start), the test images, frames of each size."""
    images = args.data / "test" / "images"
    recipe = (Path(__file__).parent / "frames.py").read_bytes()
    names = "\n".join(sorted(path.name for path in images.glob("*.png"))).encode()
    key = hashlib.sha256(recipe + names).hexdigest()[:12]
    frames = args.cache / f"frames-{key}"
    if not frames.exists():
        say(f"making frames in {frames}")
        making = args.cache / "frames-unfinished"
        shutil.rmtree(making, ignore_errors=True)
        python = bench.venvs / "venv" / "bin" / "python"
        command = [str(python), "-m", "peers.frames", str(images), str(making)]
        subprocess.run(command, env=lineup.ours(bench), check=True)
        making.rename(frames)
    sizes = [size for size in args.sizes.split(",") if size]
    sets = {"start": [frames / "256" / "00.png"], "test": sorted(images.glob("*.png"))}
    return sets | {size: sorted((frames / size).glob("*.png")) for size in sizes}


def measure(
    document: dict[str, Any],
    bench: Bench,
    peers: list[Peer],
    sets: dict[str, list[Path]],
    args: argparse.Namespace,
) -> None:
    """All rounds; an engine that fails is named, and takes no further part."""
    engines = document["engines"]
    by_name: dict[str, Peer | None] = {RETICLE: None} | {peer.name: peer for peer in peers}
    order = list(by_name)
    for round_ in range(args.rounds):
        for name, files in sets.items():
            for engine in order[round_ % len(order) :] + order[: round_ % len(order)]:
                entry, peer = engines[engine], by_name[engine]
                if "failed" in entry or (name == "test" and not takes_test(entry, round_)):
                    continue
                labels = None
                if name == "test" and round_ == 0:
                    labels = bench.work / "labels" / engine
                    shutil.rmtree(labels, ignore_errors=True)
                    labels.mkdir(parents=True)
                say(f"round {round_ + 1} of {args.rounds}, {name}: {engine}")
                try:
                    if peer is None:
                        result, ended = lineup.time_reticle(bench, files)
                        if labels:
                            lineup.reticle_labels(bench, files[0].parent, labels)
                    else:
                        result, ended = lineup.time_peer(bench, peer, files, labels)
                except Failed as failed:
                    entry["failed"] = str(failed)
                    say(f"{engine} failed and is left out: {failed}")
                    continue
                if name != "test" or entry["part"] == WHOLE:
                    entry["runs"].setdefault(name, []).append(run_of(result, ended))


def takes_test(entry: dict[str, Any], round_: int) -> bool:
    """Whether an engine runs the test images: those that bound make label images of them once."""
    return entry["part"] == WHOLE or (entry["part"] == BOUND and round_ == 0)


def run_of(result: dict[str, Any], ended: processes.Ended) -> dict[str, Any]:
    """One process in the JSON document."""
    outside = {key: value for key, value in vars(ended).items() if key != "stdout"}
    return result | {"process": outside}


def judge(document: dict[str, Any], bench: Bench, args: argparse.Namespace) -> None:
    """Pooled AP of every engine that finds objects; of those with our network, whose are ours."""
    with_our_network = {peer.name for peer in PEERS if peer.module in lineup.OUR_NETWORK}
    for name, entry in document["engines"].items():
        if entry["part"] == NETWORK or "failed" in entry:
            continue
        labels = bench.work / "labels" / name
        if entry["part"] == WHOLE:
            entry["ap"] = lineup.average_precision(bench, args.data / "test" / "labels", labels)
        if name in with_our_network and "failed" not in document["engines"][RETICLE]:
            reticle = bench.work / "labels" / RETICLE / "labels"
            entry["labels_as_reticle"] = lineup.same_labels(bench, reticle, labels)


def machine(cores: list[int]) -> dict[str, Any]:
    """What the figures were made on."""
    info = Path("/proc/cpuinfo").read_text().splitlines()
    processor = [line.split(":", 1)[1].strip() for line in info if line.startswith("model name")]
    memory = Path("/proc/meminfo").read_text().split()[1]
    return {
        "processor": processor[0] if processor else platform.machine(),
        "cores_of_the_machine": os.cpu_count(),
        "cores_used": cores,
        "memory_gb": round(int(memory) * 1024 / 1e9, 1),
        "kernel": platform.release(),
        "python": platform.python_version(),
    }


if __name__ == "__main__":
    main()
