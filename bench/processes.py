"""Processes under measurement: pinned to a core, CPU time and memory read, killed whatever happens."""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil


class BenchError(Exception):
    """A process did not start, or something measured is not what it must be."""


_running: list[Tree] = []


class Tree:
    """A process with all its children, pinned to one CPU."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        cpu: int,
        folder: Path,
        name: str,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self.output = folder / f"{name}.log"
        with self.output.open("wb") as log:
            self.child = subprocess.Popen(
                ["taskset", "-c", str(cpu), *command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=folder,
                env={**os.environ, **(env or {})},
                start_new_session=True,
            )
        _running.append(self)

    def _members(self) -> list[psutil.Process]:
        try:
            root = psutil.Process(self.child.pid)
            return [root, *root.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def cpu_ns(self) -> int:
        """Nanoseconds on a CPU, user and kernel, of all threads of all its processes so far."""
        total = 0
        for process in self._members():
            for task in Path(f"/proc/{process.pid}/task").glob("*/schedstat"):
                with contextlib.suppress(OSError):
                    total += int(task.read_text().split()[0])
        return total

    def private_bytes(self) -> int:
        """Memory these processes have written and share with nobody. Pages of files do not count: the kernel
        takes them back when it likes.
        """
        total = 0
        for process in self._members():
            with contextlib.suppress(OSError):
                for line in Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines():
                    if line.startswith("Private_Dirty:"):
                        total += int(line.split()[1]) * 1024
        return total

    def resident_bytes(self) -> int:
        """Proportional set size: shared pages counted once."""
        total = 0
        for process in self._members():
            with contextlib.suppress(OSError):
                for line in Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines():
                    if line.startswith("Pss:"):
                        total += int(line.split()[1]) * 1024
        return total

    def alive(self) -> bool:
        return self.child.poll() is None

    def tail(self) -> str:
        return self.output.read_text(errors="replace")[-2000:]

    def kill(self) -> None:
        members = self._members()
        for process in members:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self.child.wait()
        psutil.wait_procs(members, timeout=5)
        with contextlib.suppress(ValueError):
            _running.remove(self)


def busy_ns(cpu: int) -> int:
    """Nanoseconds this CPU has worked for anybody so far; counted in ticks of ten milliseconds."""
    for line in Path("/proc/stat").read_text().splitlines():
        name, *ticks = line.split()
        if name == f"cpu{cpu}":
            user, nice, system, _idle, _iowait, irq, softirq = (int(t) for t in ticks[:7])
            return (user + nice + system + irq + softirq) * 1_000_000_000 // os.sysconf("SC_CLK_TCK")
    raise BenchError(f"there is no CPU {cpu}")


def kill_all() -> None:
    for tree in list(_running):
        tree.kill()


def kill_on_exit() -> None:
    """Nothing started here outlives this process, SIGTERM and SIGINT included."""
    atexit.register(kill_all)
    signal.signal(signal.SIGTERM, lambda *_: exit(143))


def free_port() -> int:
    """A port nobody listens on, for programs that cannot be handed a socket."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def wait_for_port(tree: Tree, port: int, seconds: float = 20) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if not tree.alive():
            raise BenchError(f"{tree.name} ended at start:\n{tree.tail()}")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.05)
    raise BenchError(f"{tree.name} does not listen on port {port} after {seconds:.0f} s:\n{tree.tail()}")
