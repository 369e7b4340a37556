"""Lets a daemon capture for a long time with viewers, and says whether it stays as it began.

Usage: python3 scripts/soak.py PROGRAM MINUTES [--fps 10] [--edge 512]   (the standard library only)

The virtual microscope gives FPS frames a second of EDGE x EDGE pixels. Three viewers are connected
to the live channel: two read, one never does, and comes back each time the daemon drops it. Every
few seconds the kernel is asked for the daemon's memory, descriptors and threads. The API is polled
for what was saved. The first minute is not counted: caches fill, the viewers come.

What is measured, from outside:

- time: a second of the clock counts as served when the API names a frame captured in it as saved at
  most two seconds after it ended. The share of the served seconds is the availability.
- frames: FPS times the seconds is what the source owes. Recorded are the frames that the daemon
  took (its counters), saved those whose result the API names.
- flat: neither the line through the last 80 % of the samples nor the difference between the medians
  of the last and the second sixth of them rises by more than the bounds below.

The last lines are the verdict and a row for the table in docs/reliability.md. The exit code is 0
only when it is flat and at least 99.9 % of the seconds were served.
"""

import argparse
import base64
import json
import os
import platform
import secrets
import select
import signal
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from datetime import datetime, timezone
from pathlib import Path

WARM_UP_S = 60
SAMPLE_S = 5
POLL_S = 0.25
# A frame is in time when it is reported as saved so long after its second ended.
IN_TIME_S = 2
PROMISED = 0.999
# What may be added in the whole time: memory in MiB (the allocator's own unrest, SQLite's pages),
# descriptors and threads (a delivery under way).
BOUNDS = {"memory MiB": 16.0, "descriptors": 4.0, "threads": 2.0}


def say(*words: object) -> None:
    print(*words, file=sys.stderr, flush=True)


class Live:
    """A client of the live channel (WebSocket, RFC 6455), as much of it as is needed."""

    def __init__(self, port: int, *, small: bool = False) -> None:
        self.socket = socket.socket()
        if small:
            # Little is taken for somebody who never reads.
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self.socket.settimeout(30)
        self.socket.connect(("127.0.0.1", port))
        key = base64.b64encode(secrets.token_bytes(16)).decode()
        self.socket.sendall(
            f"GET /api/v1/live HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: Upgrade\r\n"
            f"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n".encode()
        )
        self.stream = None if small else self.socket.makefile("rb")
        if self.stream and b" 101 " not in self.stream.readline():
            raise ConnectionError("the daemon opens no live channel")
        while self.stream and self.stream.readline() not in (b"\r\n", b""):
            pass

    def receive(self) -> tuple[int, bytes]:
        """Kind and payload of the next message; the daemon sends each in one piece."""
        first, second = self.exactly(2)
        length = second & 127
        if length == 126:
            (length,) = struct.unpack(">H", self.exactly(2))
        elif length == 127:
            (length,) = struct.unpack(">Q", self.exactly(8))
        return first & 15, self.exactly(length)

    def exactly(self, count: int) -> bytes:
        taken = self.stream.read(count)
        if len(taken) < count:
            raise ConnectionError("the daemon closed the live channel")
        return taken

    def send(self, text: str) -> None:
        payload, mask = text.encode(), secrets.token_bytes(4)
        masked = bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))
        assert len(payload) < 126
        self.socket.sendall(bytes([0x81, 0x80 | len(payload)]) + mask + masked)

    def close(self) -> None:
        self.socket.close()


class Viewers:
    """Two that read and one that never does, until it is over."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.over = threading.Event()
        self.shown = [0, 0]
        self.broken = 0
        self.dropped = 0
        readers = [threading.Thread(target=self.read, args=(n,), daemon=True) for n in range(2)]
        self.threads = [*readers, threading.Thread(target=self.stare, daemon=True)]
        for thread in self.threads:
            thread.start()

    def read(self, number: int) -> None:
        while not self.over.is_set():
            try:
                live = Live(self.port)
                while not self.over.is_set():
                    kind, payload = live.receive()
                    if kind == 2:
                        (length,) = struct.unpack("<I", payload[:4])
                        header = json.loads(payload[4 : 4 + length])
                        live.send(json.dumps({"shown": header["frame"]}))
                        self.shown[number] += 1
                live.close()
            except OSError as error:
                if not self.over.is_set():
                    self.broken += 1
                    say(f"a viewer lost the daemon: {error}")
                    self.over.wait(1)

    def stare(self) -> None:
        while not self.over.is_set():
            try:
                live = Live(self.port, small=True)
                poll = select.poll()
                poll.register(live.socket, select.POLLRDHUP | select.POLLHUP)
                # The daemon drops whoever takes nothing: it comes again.
                while not self.over.is_set() and not poll.poll(500):
                    pass
                live.close()
                self.dropped += not self.over.is_set()
            except OSError:
                self.over.wait(1)

    def end(self) -> None:
        self.over.set()


class Saved:
    """What the API names as saved, and how soon."""

    def __init__(self, port: int) -> None:
        self.base = f"http://127.0.0.1:{port}"
        self.after: object = None
        # For each second of the clock: when the API first named a frame captured in it, and how
        # many it named.
        self.named: dict[int, float] = {}
        self.results: dict[int, int] = {}

    def get(self, path: str) -> dict:
        with urllib.request.urlopen(self.base + path, timeout=10) as answer:
            return json.load(answer)

    def poll(self) -> None:
        after = "" if self.after is None else f"&after={self.after}"
        answer = self.get(f"/api/v1/frames?limit=1000{after}")
        now = time.time()
        for frame in answer["frames"]:
            second = int(datetime.fromisoformat(frame["captured"][:19] + "+00:00").timestamp())
            self.named.setdefault(second, now)
            self.results[second] = self.results.get(second, 0) + 1
        self.after = self.after if answer["next"] is None else answer["next"]

    def served(self, first: int, last: int) -> int:
        """Seconds from `first` to before `last` that were served."""
        in_time = (self.named.get(second, float("inf")) <= second + 1 + IN_TIME_S for second in range(first, last))
        return sum(in_time)

    def frames(self, first: int, last: int) -> int:
        """Results of frames that were captured in these seconds."""
        return sum(self.results.get(second, 0) for second in range(first, last))


def sample(pid: int) -> dict[str, float]:
    """Memory, descriptors and threads, as the kernel counts them."""
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return {
        "memory MiB": int(status["VmRSS"].split()[0]) / 1024,
        "descriptors": float(len(os.listdir(f"/proc/{pid}/fd"))),
        "threads": float(status["Threads"]),
    }


def trend(times: list[float], values: list[float]) -> tuple[float, float, float]:
    """Median of the second and of the last sixth, and what the line through the last 80 % adds."""
    sixth = max(1, len(values) // 6)
    second, last = statistics.median(values[sixth : 2 * sixth]), statistics.median(values[-sixth:])
    begin = len(values) // 5
    times, values = times[begin:], values[begin:]
    slope = statistics.linear_regression(times, values).slope
    return second, last, slope * (times[-1] - times[0])


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start(program: str, folder: Path, port: int, fps: float, edge: int) -> subprocess.Popen:
    config = folder / "reticle.toml"
    # Frame files are evicted after the first minutes: what goes on for days goes on here, too.
    config.write_text(
        f'[box]\nsite = "soak"\nname = "box-1"\n'
        f"[source]\nwidth = {edge}\nheight = {edge}\nfps = {fps}\n"
        f'[store]\nfolder = "{folder / "data"}"\n[store.frames]\nmax_bytes = 500_000_000\nmin_free_bytes = 0\n'
    )
    command = [program, "run", "--config", str(config), "--listen", f"127.0.0.1:{port}"]
    log = (folder / "log").open("w")
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=log)


def wait_until_it_answers(daemon: subprocess.Popen, saved: Saved) -> None:
    for _ in range(600):
        try:
            saved.get("/api/v1/status")
            return
        except OSError:
            if daemon.poll() is not None:
                break
            time.sleep(0.1)
    raise SystemExit("the daemon does not answer")


def soak(arguments: argparse.Namespace, folder: Path) -> bool:
    port = free_port()
    daemon = start(arguments.program, folder, port, arguments.fps, arguments.edge)
    saved = Saved(port)
    try:
        wait_until_it_answers(daemon, saved)
        viewers = Viewers(port)
        warm = time.time() + WARM_UP_S
        while time.time() < warm:
            saved.poll()
            time.sleep(POLL_S)
        return measure(arguments, daemon, saved, viewers)
    except Exception:
        say((folder / "log").read_text()[-4000:])
        raise
    finally:
        daemon.send_signal(signal.SIGTERM)
        try:
            daemon.wait(60)
        except subprocess.TimeoutExpired:
            daemon.kill()


def measure(arguments: argparse.Namespace, daemon: subprocess.Popen, saved: Saved, viewers: Viewers) -> bool:
    # On a whole second, so that each is asked for as a whole.
    time.sleep(1 - time.time() % 1)
    first = int(time.time())
    until = first + round(arguments.minutes * 60)
    before = saved.get("/api/v1/status")["counters"]
    viewers.shown = [0, 0]
    times: list[float] = []
    samples: list[dict[str, float]] = []
    due = said = time.monotonic()
    while time.time() < until:
        if daemon.poll() is not None:
            raise RuntimeError(f"the daemon ended: {daemon.returncode}")
        try:
            saved.poll()
        except OSError as error:
            say(f"the API does not answer: {error}")
        if time.monotonic() >= due:
            times.append(time.time() - first)
            samples.append(sample(daemon.pid))
            due += SAMPLE_S
        if time.monotonic() >= said + 60:
            said += 60
            words = ", ".join(f"{value:.0f} {what}" for what, value in samples[-1].items())
            say(f"{times[-1] / 60:.0f} min: {words}; {saved.frames(first, until)} results")
        time.sleep(POLL_S)
    status = saved.get("/api/v1/status")
    # What was captured in the last second has its time as well.
    for _ in range(round(IN_TIME_S / POLL_S) + 1):
        saved.poll()
        time.sleep(POLL_S)
    viewers.end()
    return report(arguments, first, until, times, samples, saved, viewers, before, status)


def report(arguments, first, until, times, samples, saved, viewers, before, status) -> bool:
    seconds = until - first
    served = saved.served(first, until)
    owed = arguments.fps * seconds
    results = saved.frames(first, until)
    more = {what: status["counters"][what] - before[what] for what in ("captured", "unrecorded")}
    recorded = more["captured"] - more["unrecorded"]
    say(f"alarms at the end: {[alarm['kind'] for alarm in status['alarms']]}")
    say(f"the stuck viewer was dropped {viewers.dropped} times, the others lost the daemon {viewers.broken} times")
    flat = True
    cells = []
    for what, bound in BOUNDS.items():
        second, last, rise = trend(times, [one[what] for one in samples])
        fits = rise <= bound and last - second <= bound
        flat &= fits
        cells.append(f"{second:.1f} → {last:.1f} (line {rise:+.1f})")
        verdict = "flat" if fits else "RISES"
        say(f"{what}: {second:.1f} in the second sixth, {last:.1f} in the last; the line adds {rise:+.1f}; {verdict} (at most {bound:g})")
    share = served / seconds
    shown = " and ".join(f"{count / seconds:.1f}" for count in viewers.shown)
    say(f"served: {served} of {seconds} s ({share:.4%}); recorded {recorded} and saved {results} of {owed:.0f} frames")
    kept = share >= PROMISED
    print("| time | frames | viewers | seconds served | recorded, saved of owed | memory MiB | descriptors | threads | machine, date |")
    print("|---|---|---|---|---|---|---|---|---|")
    print(
        f"| {arguments.minutes:g} min | {arguments.fps:g}/s of {arguments.edge}² | 2 at {shown} frames/s, 1 stuck | "
        f"{served} of {seconds}: {share:.3%} | {recorded / owed:.2%}, {results / owed:.2%} of {owed:.0f} | "
        f"{' | '.join(cells)} | {platform.machine()}, {os.cpu_count()} cores, {datetime.now(timezone.utc):%Y-%m-%d} |"
    )
    print(f"verdict: {'flat' if flat else 'NOT FLAT'}, {share:.3%} of the time served ({'at least' if kept else 'LESS THAN'} {PROMISED:.1%})")
    return flat and kept


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("program")
    parser.add_argument("minutes", type=float)
    parser.add_argument("--fps", type=float, default=10)
    parser.add_argument("--edge", type=int, default=512)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="reticle-soak-") as folder:
        sys.exit(0 if soak(arguments, Path(folder)) else 1)


if __name__ == "__main__":
    main()
