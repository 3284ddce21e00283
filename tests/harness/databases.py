"""Databases for tests: SQLite in a folder, PostgreSQL in a cluster of its own without a port."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

START_S = 30


def programs() -> Path | None:
    """The folder of PostgreSQL's programs; Debian keeps them out of the path."""
    found = shutil.which("initdb")
    if found:
        return Path(found).resolve().parent
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    return versions[-1].parent if versions else None


class Cluster:
    """A running PostgreSQL; `fresh` makes an empty database."""

    def __init__(self, bin: Path, folder: Path) -> None:
        self._bin = bin
        self._folder = folder
        self._made = 0
        # It refuses to be run by root; and it ends with these tests, whatever ends them.
        own = ["setpriv", "--reuid", "postgres", "--regid", "postgres", "--clear-groups"]
        self._as = own if os.geteuid() == 0 else ["setpriv"]

    def start(self) -> None:
        if os.geteuid() == 0:
            shutil.chown(self._folder, "postgres", "postgres")
        data = self._folder / "data"
        self._run(
            "initdb", "-D", data, "-A", "trust", "-U", "turnout", "--no-sync", "-E", "UTF8", "--locale=C"
        )
        options = ("listen_addresses=", f"unix_socket_directories={self._folder}", "fsync=off")
        self._process = subprocess.Popen(
            [*self._as, "--pdeathsig", "INT", self._bin / "postgres", "-D", data]
            + [word for option in options for word in ("-c", option)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
        )
        deadline = time.monotonic() + START_S
        while not (self._folder / ".s.PGSQL.5432").exists() or not self._answers():
            assert self._process.poll() is None, "postgres has ended"
            assert time.monotonic() < deadline, "postgres does not answer"
            time.sleep(0.05)

    def stop(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def fresh(self) -> str:
        """URL of an empty database."""
        self._made += 1
        name = f"test{self._made}"
        self._run("createdb", "-h", self._folder, "-U", "turnout", "-T", "template0", name)
        return f"postgresql://turnout@/{name}?host={self._folder}"

    def _answers(self) -> bool:
        command = [self._bin / "pg_isready", "-q", "-h", self._folder]
        return subprocess.run(command, check=False).returncode == 0

    def _run(self, program: str, *words: object) -> None:
        command = [*self._as, str(self._bin / program), *map(str, words)]
        done = subprocess.run(command, capture_output=True, text=True, cwd="/", check=False)
        assert done.returncode == 0, done.stdout + done.stderr


@contextlib.contextmanager
def cluster() -> Iterator[Cluster | None]:
    """None where PostgreSQL is not installed."""
    bin = programs()
    if bin is None:
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="turnout-pg-", ignore_cleanup_errors=True) as folder:
        out = Cluster(bin, Path(folder))
        out.start()
        try:
            yield out
        finally:
            out.stop()
