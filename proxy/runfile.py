"""Who runs, and what was set at run time: for the supervisor that comes after a killed one."""

from __future__ import annotations

import contextlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from turnout.proxy.statedir import write_json

NAME = "run.json"


@dataclass(frozen=True)
class Process:
    """A process and when it started (clock ticks since boot): a pid alone may by now be somebody else's."""

    pid: int
    started: int

    def alive(self) -> bool:
        return started_at(self.pid) == self.started


@dataclass(frozen=True)
class Run:
    supervisor: Process
    workers: tuple[tuple[Process, str], ...]
    """Each with the name of its socket in the folder of the run file."""
    runtime: dict[str, Any] = field(default_factory=dict)


def started_at(pid: int) -> int | None:
    """None when there is no such process, or only what is left of it."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else int(fields[19])


def process(pid: int) -> Process:
    return Process(pid, started_at(pid) or 0)


def write(directory: Path, run: Run) -> None:
    write_json(directory / NAME, asdict(run))


def read(directory: Path) -> Run | None:
    """None when there is none, or nothing that could be read as one."""
    try:
        raw = json.loads((directory / NAME).read_text())
        workers = tuple((Process(**worker), str(name)) for worker, name in raw["workers"])
        return Run(Process(**raw["supervisor"]), workers, dict(raw["runtime"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def remove(directory: Path) -> None:
    with contextlib.suppress(OSError):
        (directory / NAME).unlink()
