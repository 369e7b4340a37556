"""Brings images into a watched folder with the tools that people use, and says what has to come of it.

    python tools.py DROP OUTSIDE PACE COUNT EDGE TOOL,TOOL... KIND,KIND...

DROP is watched; OUTSIDE is a folder for sources, on another file system where there is one. PACE is
`fast`, or `slow`: then each tool is stopped in the middle (SIGSTOP) for longer than a file has to
stand still. KIND is new, appended, replaced, renamed or preallocated. After each kind a line of JSON
has the SHA-256 of the pixels of every page that has to have been taken once by then; the next begins
when a line comes in. A tool that is not installed is named on stderr and left out.
"""

import concurrent.futures
import ftplib
import hashlib
import json
import os
import pathlib
import random
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time

STALL_S = 2.5
lock = threading.Lock()
taken = {}


def page(rng, edge):
    """Pixels without a zero, so that what was not written yet is seen."""
    return bytes(1 + byte % 60 for byte in rng.randbytes(edge * edge))


def tiff(pages, edge):
    out = bytearray(b"II*\0" + struct.pack("<I", 8))
    for number, pixels in enumerate(pages):
        at = len(out)
        data = at + 2 + 9 * 12 + 4
        after = data + len(pixels) + (len(pixels) & 1)
        tags = [(256, 4, edge), (257, 4, edge), (258, 3, 8), (259, 3, 1), (262, 3, 1), (273, 4, data),
                (277, 3, 1), (278, 4, edge), (279, 4, len(pixels))]
        out += struct.pack("<H", len(tags))
        for tag, kind, value in tags:
            out += struct.pack("<HHII", tag, kind, 1, value)
        out += struct.pack("<I", after if number + 1 < len(pages) else 0)
        out += pixels + b"\1" * (len(pixels) & 1)
    return bytes(out)


class Job:
    """One tool with its files: what each holds in the source, and what has to be taken."""

    def __init__(self, tool, settings, at):
        self.tool, self.settings = tool, settings
        self.rng = random.Random(f"{tool}{at}")
        self.source = settings.outside / f"{tool}-source"
        self.source.mkdir(parents=True, exist_ok=True)
        self.pages = {f"{tool}_{number}.tif": [] for number in range(settings.count)}

    def write(self, name, pages):
        self.pages[name] = pages
        (self.source / name).write_bytes(tiff(pages, self.settings.edge))
        with lock:
            for pixels in pages:
                taken[hashlib.sha256(pixels).hexdigest()] = name

    def fresh(self):
        return page(self.rng, self.settings.edge)

    def do(self, kind):
        drop = self.settings.drop
        if kind == "renamed":
            for name in list(self.pages):
                there = self.pages.pop(name)
                moved = name.replace(self.tool, f"{self.tool}_r", 1)
                if (drop / name).exists():
                    os.rename(drop / name, drop / moved)
                os.rename(self.source / name, self.source / moved)
                self.pages[moved] = there
            return
        for name, pages in self.pages.items():
            # A stack that is written anew under another image's name is another file until it is renamed.
            if kind == "appended" and self.tool != "hard_link_image":
                self.write(name, pages + [self.fresh()])
            else:
                self.write(name, [self.fresh()])
        if kind == "preallocated":
            # As a share does it: the last size at once, and nothing in it.
            for name in self.pages:
                size = (self.source / name).stat().st_size
                subprocess.run(["fallocate", "-l", str(size), drop / name], check=True)
                os.chmod(drop / name, 0o666)
                if self.tool == "ftp":
                    # MDTM is for the owner.
                    shutil.chown(drop / name, "ftp")
        TOOLS[self.tool](self)

    def names(self):
        return [str(self.source / name) for name in self.pages]

    def run(self, *command, cwd=None):
        process = subprocess.Popen([str(word) for word in command], cwd=cwd, start_new_session=True,
                                   stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        if self.settings.pace == "slow":
            for _ in range(1 if self.settings.count == 1 else 3):
                time.sleep(random.random() * 0.02)
                if process.poll() is not None:
                    break
                os.killpg(process.pid, signal.SIGSTOP)
                time.sleep(STALL_S)
                os.killpg(process.pid, signal.SIGCONT)
        _, said = process.communicate()
        if process.returncode != 0:
            raise RuntimeError(f"{command}: {said.decode(errors='replace')}")

    def python(self, text):
        """Each file by a program: SOURCE, DROP, NAME and the functions of shutil and os are at hand."""
        head = ("import os, shutil, sys, tarfile, time\n"
                f"SLOW = {self.settings.pace == 'slow'}; STALL_S = {STALL_S}\n"
                f"DROP = {str(self.settings.drop)!r}\n"
                "def put(target, data, mode='wb'):\n"
                "    with open(target, mode) as file:\n"
                "        half = len(data) // 2\n"
                "        file.write(data[:half]); file.flush()\n"
                "        if SLOW and SOURCE == sys.argv[1]: time.sleep(STALL_S)\n"
                "        file.write(data[half:])\n"
                "for SOURCE in sys.argv[1:]:\n"
                "    NAME = os.path.basename(SOURCE); TARGET = os.path.join(DROP, NAME)\n")
        body = "".join(f"    {line}\n" for line in text.strip().splitlines())
        self.run(sys.executable, "-c", head + body, *self.names())


# ---- The tools --------------------------------------------------------------------------------------


def staged(job, folder):
    """A copy of the source, for tools that move."""
    stage = pathlib.Path(tempfile.mkdtemp(dir=folder))
    for name in job.names():
        shutil.copy2(name, stage)
    return [str(path) for path in sorted(stage.iterdir())]


def cp(job):
    job.run("cp", *job.names(), job.settings.drop)


def cp_times(job):
    job.run("cp", "-p", *job.names(), job.settings.drop)


def mv_same(job):
    job.run("mv", *staged(job, job.settings.drop.parent), job.settings.drop)


def mv_other(job):
    job.run("mv", *staged(job, job.settings.outside), job.settings.drop)


# Without -I rsync leaves a file alone that has the size and, to the second, the time of its source.
def rsync(job):
    job.run("rsync", "-aI", *job.names(), f"{job.settings.drop}/")


def rsync_inplace(job):
    job.run("rsync", "-aI", "--inplace", *job.names(), f"{job.settings.drop}/")


def rsync_delta(job):
    job.run("rsync", "-aI", "--inplace", "--no-whole-file", *job.names(), f"{job.settings.drop}/")


def rsync_preallocate(job):
    job.run("rsync", "-rtI", "--preallocate", *job.names(), f"{job.settings.drop}/")


def tar(job):
    job.run("bash", "-c", 'cd "$1" && shift && drop=$1 && shift && tar -c "$@" | tar -C "$drop" -x', "tar",
            job.source, job.settings.drop, *job.pages)


def tar_python(job):
    archive = job.settings.outside / f"{job.tool}.tar"
    subprocess.run(["tar", "-C", job.source, "-cf", archive, *job.pages], check=True)
    job.run(sys.executable, "-c", "import sys, tarfile\n"
            "tarfile.open(sys.argv[1]).extractall(sys.argv[2])", archive, job.settings.drop)


def shutil_move(job):
    stage = staged(job, job.settings.outside)
    job.run(sys.executable, "-c", "import os, shutil, sys\n"
            "for source in sys.argv[2:]:\n"
            "    shutil.move(source, os.path.join(sys.argv[1], os.path.basename(source)))",
            job.settings.drop, *stage)


def shutil_copy2(job):
    job.python("shutil.copy2(SOURCE, TARGET)")


def touch_late(job):
    """FTP clients and FastCopy set the time once the file is closed, and some only then the mode."""
    job.python("put(TARGET, open(SOURCE, 'rb').read())\n"
               "os.utime(TARGET, ns=(10**18, os.stat(SOURCE).st_mtime_ns))\nos.chmod(TARGET, 0o640)")


def syncthing(job):
    job.python("part = os.path.join(DROP, '.syncthing.' + NAME + '.tmp')\n"
               "put(part, open(SOURCE, 'rb').read())\n"
               "os.utime(part, ns=(10**18, os.stat(SOURCE).st_mtime_ns))\nos.rename(part, TARGET)")


def syncthing_windows(job):
    job.python("part = os.path.join(DROP, '~syncthing~' + NAME)\n"
               "put(part, open(SOURCE, 'rb').read())\nos.rename(part, TARGET)\n"
               "os.utime(TARGET, ns=(10**18, os.stat(SOURCE).st_mtime_ns))")


def onedrive(job):
    job.python("part = TARGET + '.partial'\nput(part, open(SOURCE, 'rb').read())\n"
               "os.rename(part, TARGET)\n"
               "os.utime(TARGET, ns=(10**18, os.stat(SOURCE).st_mtime_ns))")


def hard_link(job):
    job.python("part = os.path.join(DROP, '.' + NAME + '.part')\nput(part, open(SOURCE, 'rb').read())\n"
               "if os.path.exists(TARGET): os.unlink(TARGET)\nos.link(part, TARGET)\nos.unlink(part)")


def hard_link_image(job):
    """The temporary name is an image's, too."""
    job.python("part = os.path.join(DROP, 'part_' + NAME)\nput(part, open(SOURCE, 'rb').read())\n"
               "if os.path.exists(TARGET): os.unlink(TARGET)\nos.link(part, TARGET)\nos.unlink(part)")


def preallocating(job):
    job.python("data = open(SOURCE, 'rb').read()\nfile = open(TARGET, 'wb')\n"
               "os.posix_fallocate(file.fileno(), 0, len(data))\nfile.close()\nput(TARGET, data, 'r+b')")


def held_open(job):
    """The last size by ftruncate, written from the end, and kept open over a stall."""
    job.python("data = open(SOURCE, 'rb').read()\nfile = open(TARGET, 'wb')\nfile.truncate(len(data))\n"
               "half = len(data) // 2 // 4096 * 4096\nfile.seek(half); file.write(data[half:]); file.flush()\n"
               "if SLOW and SOURCE == sys.argv[1]: time.sleep(STALL_S)\n"
               "file.seek(0); file.write(data[:half]); file.close()")


def fallocating(job):
    """The last size by fallocate, kept open over a stall."""
    job.python("data = open(SOURCE, 'rb').read()\nfile = open(TARGET, 'wb')\n"
               "os.posix_fallocate(file.fileno(), 0, len(data))\nhalf = len(data) // 2\n"
               "file.write(data[:half]); file.flush()\n"
               "if SLOW and SOURCE == sys.argv[1]: time.sleep(STALL_S)\n"
               "file.write(data[half:]); file.close()")


def away_and_back(job):
    """Moved to another file system and back, for longer than two listings where there is time."""
    job.run("cp", *job.names(), job.settings.drop)
    there = [str(job.settings.drop / name) for name in job.pages]
    away = tempfile.mkdtemp(dir=job.settings.outside)
    # What was not taken before it went is not missed: it comes back.
    time.sleep(1)
    job.run("mv", *there, away)
    time.sleep(25 if job.settings.pace == "slow" else 0)
    job.run("mv", *[os.path.join(away, name) for name in job.pages], job.settings.drop)


def appending(job):
    """A program that adds each page to its file, as tifffile and MATLAB do."""
    job.python(f"EDGE = {job.settings.edge}\n"
               "data = open(SOURCE, 'rb').read()\n"
               "have = open(TARGET, 'rb').read() if os.path.exists(TARGET) else b''\n"
               "size = 114 + EDGE * EDGE + (EDGE & 1)\n"
               "grows = len(data) > len(have) > 8 and data[122:8 + size] == have[122:8 + size]\n"
               "begun = len(have) if grows else 0\n"
               "while begun < len(data):\n"
               "    end = min(len(data), max(begun, 8) + size)\n"
               "    with open(TARGET, 'r+b' if begun else 'wb') as file:\n"
               "        file.seek(begun); file.write(data[begun:end])\n"
               "        if begun:\n"
               "            link = begun - size + 110\n"
               "            file.flush(); file.seek(link); file.write(data[link:link + 4])\n"
               "        file.flush(); file.seek(end - size + 110); file.write(bytes(4))\n"
               "    begun = end")


def scp(job):
    job.run("scp", "-q", *job.settings.ssh(), *job.names(), f"root@127.0.0.1:{job.settings.drop}/")


def scp_old(job):
    job.run("scp", "-O", "-p", "-q", *job.settings.ssh(), *job.names(),
            f"root@127.0.0.1:{job.settings.drop}/")


def ftp(job):
    with ftplib.FTP() as client:
        client.connect("127.0.0.1", job.settings.ftp_port(), timeout=60)
        client.login()
        client.cwd("drop")
        for number, path in enumerate(job.names()):
            def rest(_, first=[number == 0]):
                if job.settings.pace == "slow" and first[0]:
                    first[0] = False
                    time.sleep(STALL_S)
            with open(path, "rb") as file:
                client.storbinary(f"STOR {os.path.basename(path)}", file, 8192, rest)
            client.sendcmd(f"MDTM 20240102030405 {os.path.basename(path)}")


def samba(job):
    script = ";".join(f"put {path} {os.path.basename(path)}" for path in job.names())
    job.run("smbclient", "//127.0.0.1/drop", "-p", job.settings.samba_port(), "-U", "root%", "-N",
            "-c", script)


TOOLS = {tool.__name__: tool for tool in [
    cp, cp_times, mv_same, mv_other, rsync, rsync_inplace, rsync_delta, rsync_preallocate, tar, tar_python,
    shutil_move, shutil_copy2, touch_late, syncthing, syncthing_windows, onedrive, hard_link,
    hard_link_image, preallocating, held_open, fallocating, away_and_back,
    appending, scp, scp_old, ftp, samba]}
NEEDS = {"scp": "sshd", "scp_old": "sshd", "ftp": "vsftpd", "samba": "smbd", "rsync": "rsync"}


# ---- Servers ----------------------------------------------------------------------------------------


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def answers(port):
    for _ in range(500):
        try:
            return socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.02)
    raise RuntimeError(f"nothing answers on port {port}")


class Settings:
    def __init__(self, drop, outside, pace, count, edge):
        self.drop, self.outside = pathlib.Path(drop), pathlib.Path(outside)
        self.pace, self.count, self.edge = pace, int(count), int(edge)
        self.servers, self.ports = [], {}
        self.lock = threading.Lock()

    def server(self, name, start):
        with self.lock:
            if name not in self.ports:
                port = free_port()
                folder = pathlib.Path(tempfile.mkdtemp(dir=self.outside))
                self.servers.append(subprocess.Popen(
                    start(port, folder), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                    # smbd ends all of its process group with itself.
                    stderr=subprocess.DEVNULL, start_new_session=True))
                answers(port)
                self.ports[name] = (port, folder)
        return self.ports[name]

    def ssh(self):
        def start(port, folder):
            for key in ["host", "user"]:
                subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / key], check=True)
            os.makedirs("/run/sshd", exist_ok=True)
            return [shutil.which("sshd", path="/usr/sbin"), "-D", "-f", "/dev/null", "-h", folder / "host",
                    "-p", str(port), "-o", "ListenAddress=127.0.0.1", "-o", "StrictModes=no",
                    "-o", "PermitRootLogin=yes", "-o", "Subsystem=sftp internal-sftp",
                    "-o", f"AuthorizedKeysFile={folder / 'user.pub'}", "-o", "PidFile=none"]
        port, folder = self.server("sshd", start)
        return ["-P", port, "-i", folder / "user", "-o", "StrictHostKeyChecking=no",
                "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR"]

    def ftp_port(self):
        def start(port, folder):
            (folder / "empty").mkdir()
            os.chmod(self.drop, 0o777)
            for parent in [self.drop.parent, *self.drop.parent.parents]:
                if parent != pathlib.Path("/") and parent.stat().st_mode & 0o5 != 0o5:
                    os.chmod(parent, 0o755)
            (folder / "conf").write_text(
                f"listen=YES\nlisten_address=127.0.0.1\nlisten_port={port}\nbackground=NO\n"
                f"anonymous_enable=YES\nno_anon_password=YES\nanon_root={self.drop.parent}\nftp_username=ftp\n"
                "local_enable=NO\nwrite_enable=YES\nanon_upload_enable=YES\nanon_other_write_enable=YES\n"
                "anon_mkdir_write_enable=YES\nanon_umask=022\nmdtm_write=YES\nseccomp_sandbox=NO\n"
                f"secure_chroot_dir={folder / 'empty'}\nxferlog_enable=NO\n")
            return [shutil.which("vsftpd", path="/usr/sbin"), folder / "conf"]
        return self.server("vsftpd", start)[0]

    def samba_port(self):
        def start(port, folder):
            (folder / "conf").write_text(
                f"[global]\nsmb ports = {port}\ninterfaces = lo\nbind interfaces only = yes\n"
                f"map to guest = Bad User\nguest account = root\nserver role = standalone\n"
                f"private dir = {folder}\nlock directory = {folder}\nstate directory = {folder}\n"
                f"cache directory = {folder}\npid directory = {folder}\nncalrpc dir = {folder}\n"
                f"disable netbios = yes\nload printers = no\nlog file = {folder}/log\n"
                f"[drop]\npath = {self.drop}\nread only = no\nguest ok = yes\nforce user = root\n"
                "strict allocate = yes\n")
            return [shutil.which("smbd", path="/usr/sbin"), "--foreground", "--no-process-group",
                    "-s", folder / "conf"]
        return self.server("smbd", start)[0]


def main():
    drop, outside, pace, count, edge, tools, kinds = sys.argv[1:]
    settings = Settings(drop, outside, pace, count, edge)
    jobs = []
    for at, tool in enumerate(sorted(TOOLS) if tools == "all" else tools.split(",")):
        need = NEEDS.get(tool.split("_")[0] if tool.startswith("rsync") else tool)
        path = os.environ["PATH"] + ":/usr/sbin"
        missing = need and not shutil.which(need, path=path)
        missing = missing or tool == "samba" and not shutil.which("smbclient")
        if missing:
            print(f"left out: {tool} (there is no {need or 'smbclient'})", file=sys.stderr)
        else:
            jobs.append(Job(tool, settings, at))
    try:
        with concurrent.futures.ThreadPoolExecutor(6) as threads:
            for kind in kinds.split(","):
                began = time.monotonic()
                # Of whichever fails, all others are through first.
                results = [(job, threads.submit(job.do, kind)) for job in jobs]
                for job, result in results:
                    try:
                        result.result()
                    except Exception as error:
                        raise RuntimeError(f"{job.tool}, {kind}: {error}") from error
                spent = time.monotonic() - began
                print(json.dumps({"kind": kind, "tools": len(jobs), "brought_in_s": round(spent, 2),
                                  "taken": taken}), flush=True)
                if not sys.stdin.readline():
                    return
    finally:
        for server in settings.servers:
            server.terminate()
            server.wait()


main()
