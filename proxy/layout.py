"""What of a configuration is laid out when a supervisor starts, and what that means for a reload."""

from __future__ import annotations

import os

from turnout.ext.scoreboard import Scoreboard
from turnout.proxy.config import Problem
from turnout.proxy.model import Config
from turnout.proxy.sockets import UDP

WORKERS_MAX = 64
FIXED = (
    ("proxy", "max_endpoints"),
    ("proxy", "sticky_table"),
    ("proxy", "buffers"),
    ("proxy", "state"),
    ("control", "listen"),
    ("control", "socket"),
    ("control", "auth"),
    ("control", "tls"),
    ("control", "clients"),
    ("control", "state"),
)
"""What cannot change before the next supervisor, an upgrade's included."""


def cpus() -> int:
    """That this process may run on."""
    return min(len(os.sched_getaffinity(0)), WORKERS_MAX)


def workers_of(config: Config) -> int:
    return cpus() if config.proxy.workers == "auto" else config.proxy.workers


def make_scoreboard(config: Config) -> Scoreboard:
    """With room for a worker on every CPU: a reload can have more of them than the start, within that."""
    return Scoreboard.create(
        max(workers_of(config), cpus()),
        endpoints=config.proxy.max_endpoints,
        sticky=config.proxy.sticky_table,
    )


def binds_of(config: Config) -> dict[str, tuple[str, int]]:
    """Listener -> address as written, length of the accept queue."""
    return {
        name: (f"{UDP}{listener.bind}" if listener.protocol == "udp" else listener.bind, listener.backlog)
        for name, listener in config.listeners.items()
    }


def fixed_problems(now: Config, then: Config, room: int, file: str) -> list[Problem]:
    """What a reload from one configuration to another would have to change and cannot, with a scoreboard that
    has room for so many workers.
    """
    problems = []
    for table, key in FIXED:
        old, new = getattr(getattr(now, table), key), getattr(getattr(then, table), key)
        if old != new:
            what = f"cannot be changed by a reload ({old} now, {new} in the file); turnout upgrade does it"
            problems.append(Problem(file, f"[{table}] {key}", what))
    if workers_of(then) > room:
        what = (
            f"{workers_of(then)} workers need a larger scoreboard than was made at the start, which has room"
            f" for {room}; turnout upgrade makes it"
        )
        problems.append(Problem(file, "[proxy] workers", what))
    return problems
