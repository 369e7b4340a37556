"""Lets two builds of the program work in turns on what the other wrote, and compares.

Usage: python3 scripts/way-back.py THIS NEWER FRAMES   (the standard library only, and PostgreSQL)

The turns: THIS makes the data folder and the central schema; NEWER takes over (it adds a migration and
gets a drop-in with a setting that THIS does not know, as an update writes it); THIS is put back; NEWER
comes again; THIS is put back a second time. In each turn the daemon saves FRAMES results or more. The
turns that another build follows end by SIGTERM and by kill -9 in turns. After each turn:

- every result that was there before is there, with the same label hash, and so is every one that the
  daemon called saved;
- the fsck of both builds finds no broken invariant;
- the outbox is drained; the central database has as many frames, results and objects as the box, and
  what `reticle sync verify` compares does not differ (archive and database).

The exit code is 0 only when all of it holds.
"""

import glob
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
import urllib.request

PATIENCE_S = 300
PASSWORD = "open sesame"


def say(text):
    print(text, file=sys.stderr, flush=True)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(what, ask):
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        answer = ask()
        if answer is not None:
            return answer
        time.sleep(0.05)
    sys.exit(f"waited {PATIENCE_S} s in vain for {what}")


class Postgres:
    """A server of its own, on loopback; not as root, which PostgreSQL refuses."""

    def __init__(self, folder):
        versions = glob.glob("/usr/lib/postgresql/*/bin")
        self.bin = max(versions, key=lambda path: int(path.split("/")[4])) if versions else ""
        self.user = {"user": "postgres", "group": "postgres"} if os.geteuid() == 0 else {}
        self.data = os.path.join(folder, "postgres")
        self.port = free_port()
        os.mkdir(self.data)
        password = os.path.join(folder, "password")
        with open(password, "w", encoding="utf-8") as file:
            file.write(PASSWORD)
        if self.user:
            for path in (self.data, password):
                subprocess.run(["chown", "postgres", path], check=True)
        made = [self.tool("initdb"), "-D", self.data, "-U", "postgres", "-A", "scram-sha-256"]
        made += ["-E", "UTF8", "--locale=C.UTF-8", "--no-sync", "--pwfile", password]
        subprocess.run(made, check=True, stdout=subprocess.DEVNULL, cwd="/", **self.user)
        server = [self.tool("postgres"), "-D", self.data, "-p", str(self.port)]
        for setting in ("listen_addresses=127.0.0.1", "unix_socket_directories=", "fsync=off"):
            server += ["-c", setting]
        # pylint: disable=consider-using-with
        self.server = subprocess.Popen(
            server, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/", **self.user
        )
        wait_for("PostgreSQL", lambda: True if self.ask("SELECT 1", check=False) == "1" else None)
        self.ask(f"CREATE ROLE box LOGIN PASSWORD '{PASSWORD}'")
        self.ask("GRANT CREATE ON DATABASE postgres TO box")

    def tool(self, name):
        return os.path.join(self.bin, name)

    def ask(self, sql, check=True):
        command = [self.tool("psql"), "-h", "127.0.0.1", "-p", str(self.port), "-U", "postgres"]
        command += ["-d", "postgres", "-XAtqc", sql]
        said = subprocess.run(
            command, env={**os.environ, "PGPASSWORD": PASSWORD}, check=check, capture_output=True, text=True
        )
        return said.stdout.strip()

    def url(self):
        return f"postgresql://box@127.0.0.1:{self.port}/postgres"

    def stop(self):
        self.server.send_signal(signal.SIGQUIT)
        self.server.wait()


class Box:
    """A configuration, a data folder, and the programs that take turns on it."""

    def __init__(self, folder, postgres):
        self.folder, self.postgres = folder, postgres
        self.data = os.path.join(folder, "data")
        self.config = os.path.join(folder, "reticle.toml")
        self.log = os.path.join(folder, "log")
        with open(self.config, "w", encoding="utf-8") as file:
            file.write(
                '[box]\nsite = "test"\nname = "box-1"\n'
                "[source]\nwidth = 128\nheight = 128\nfps = 50.0\n"
                "[store.frames]\nmin_free_bytes = 0\nmax_bytes = 20000000\n"
                f'[sync.central]\nurl = "{postgres.url()}"\n'
            )

    def update(self):
        """What the update to NEWER writes beside the configuration."""
        os.makedirs(self.config + ".d", exist_ok=True)
        with open(os.path.join(self.config + ".d", "50-update.toml"), "w", encoding="utf-8") as file:
            file.write('# written by reticle 99.0.0\n[store]\nnext_note = "of the update"\n')

    def run(self, program, *arguments, code=0):
        command = [program, *arguments]
        said = subprocess.run(command, env=self.environment(), capture_output=True, text=True, check=False)
        if said.returncode != code:
            sys.exit(f"{' '.join(command)}: exit code {said.returncode}\n{said.stdout}{said.stderr}")
        return said.stdout

    def environment(self):
        clean = {key: value for key, value in os.environ.items() if not key.startswith("RETICLE_")}
        return {**clean, "RETICLE_CENTRAL_PASSWORD": PASSWORD, "NO_COLOR": "1"}

    def where(self):
        return ["--config", self.config, "--data", self.data]

    def take(self, program, results, ending):
        """Lets a daemon save so many results more; gives the ids that it called saved."""
        port = free_port()
        before = len(self.results())
        with open(self.log, "w", encoding="utf-8") as log:
            command = [program, "run", *self.where(), "--listen", f"127.0.0.1:{port}"]
            # pylint: disable=consider-using-with
            daemon = subprocess.Popen(command, env=self.environment(), stderr=log, stdout=log)

        def saved():
            if daemon.poll() is not None:
                sys.exit(f"{program} has ended:\n{self.logged()}")
            try:
                totals = self.get(port, "/api/v1/totals")
            except OSError:
                return None
            return True if totals["segmentations"] >= before + results else None

        wait_for(f"{results} results of {program}", saved)
        named = {frame["id"] for frame in self.get(port, "/api/v1/frames?limit=1000")["frames"]}
        daemon.send_signal(ending)
        daemon.wait()
        return named

    def get(self, port, path):
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
            return json.load(answer)

    def logged(self):
        with open(self.log, encoding="utf-8") as file:
            return file.read()

    def results(self):
        """Label hash of each result, by frame and model."""
        database = os.path.join(self.data, "reticle.db")
        if not os.path.exists(database):
            return {}
        with sqlite3.connect(database) as db:
            rows = db.execute(
                "SELECT lower(hex(frame.id)), segmentation.model, labels_sha256 FROM segmentation"
                " JOIN frame ON frame.pk = segmentation.frame"
            )
            found = {(frame, model): labels for frame, model, labels in rows}
        db.close()
        return found

    def counts(self):
        with sqlite3.connect(os.path.join(self.data, "reticle.db")) as db:
            found = [db.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in TABLES]
        db.close()
        return found


TABLES = ("frame", "segmentation", "object")


def main():
    this, newer, frames = sys.argv[1], sys.argv[2], int(sys.argv[3])
    # PostgreSQL's own user must get to its folder.
    with tempfile.TemporaryDirectory(prefix="reticle-way-back-") as folder:
        os.chmod(folder, 0o755)
        postgres = Postgres(folder)
        try:
            turns(Box(folder, postgres), this, newer, frames)
        finally:
            postgres.stop()


def turns(box, this, newer, frames):
    turns_of = [
        ("this", this, signal.SIGTERM),
        ("newer", newer, signal.SIGKILL),
        ("this", this, signal.SIGTERM),
        ("newer", newer, signal.SIGTERM),
        ("this", this, signal.SIGKILL),
    ]
    for turn, (name, program, ending) in enumerate(turns_of, start=1):
        if turn == 2:
            box.update()
        before = box.results()
        named = box.take(program, frames, ending)
        passed_over = "is passed over" in box.logged()
        if passed_over != (name == "this" and turn > 1):
            sys.exit(f"turn {turn}: the drop-in of the update was {'' if passed_over else 'not '}passed over")
        box.run(program, "sync", "drain", *box.where())
        after = box.results()
        lost = [key for key, labels in before.items() if after.get(key) != labels]
        ids = {frame for frame, _ in after}
        lost += [frame for frame in named if frame.replace("-", "") not in ids]
        if lost:
            sys.exit(f"turn {turn}: {len(lost)} results are lost or others: {lost[:5]}")
        for checker in (this, newer):
            report = json.loads(box.run(checker, "fsck", "--json", "--data", box.data))
            if report["broken"]:
                sys.exit(f"turn {turn}: {checker} finds broken: {report['broken'][:5]}")
        counts = box.counts()
        central = [int(box.postgres.ask(f"SELECT count(*) FROM reticle.{table}")) for table in TABLES]
        if central != counts:
            sys.exit(f"turn {turn}: the box has {counts}, the central database {central}")
        verified = json.loads(box.run(program, "sync", "verify", "--json", *box.where()))
        if verified["differences"]:
            sys.exit(f"turn {turn}: {verified['differences'][:5]}")
        with sqlite3.connect(os.path.join(box.data, "reticle.db")) as db:
            schema = db.execute("SELECT max(version) FROM refinery_schema_history").fetchone()[0]
        db.close()
        there = box.postgres.ask("SELECT max(version) FROM reticle.schema_history")
        say(
            f"turn {turn}, {name}, ended by {ending.name}: {len(after) - len(before)} results more,"
            f" {len(after)} in all, none lost; schema {schema} here, {there} in the central database;"
            f" both fsck clean; {verified['objects']} objects and {verified['rows']} rows verified"
        )
    if (schema, there) != (2, "2"):
        sys.exit("the newer build brought no schema 2: it was built without next-migration")
    noted = box.postgres.ask("SELECT count(*) FROM reticle.segmentation WHERE next_note IS NOT NULL")
    say(f"{noted} rows of the central database hold what the newer schema added")


if __name__ == "__main__":
    main()
