"""All that can be known of a configuration file without serving it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path

from turnout.control.access import tls
from turnout.ext.scoreboard import Scoreboard
from turnout.proxy.config import load
from turnout.proxy.freeze import Freezer
from turnout.proxy.model import Config
from turnout.proxy.resolve import Resolver, system_resolver

ANYWHERE = "127.0.0.1"


def check(file: Path, *, resolve: bool = False) -> Config:
    """Load a file and make of it what workers would get. `resolve` looks up the names of endpoints as well.
    Raises ConfigError.
    """
    config = load(file)
    if config.control.tls is not None:
        tls.context(config.control.tls, file)
    _freeze(config, str(file), system_resolver if resolve else lambda _name: [ANYWHERE])
    return config


def _freeze(config: Config, file: str, resolver: Resolver) -> None:
    board = Scoreboard.create(1, endpoints=config.proxy.max_endpoints, sticky=config.proxy.sticky_table)
    try:
        with tempfile.TemporaryDirectory(prefix="turnout-check-") as state:
            Freezer(board, Path(state), file=file, resolver=resolver).freeze(config, 1)
    finally:
        board.close()


def summary(config: Config) -> str:
    """One line: how much of what the file has."""
    endpoints = sum(len(service.endpoints) for service in config.services.values())
    counts = (
        (len(config.listeners), "listener"),
        (len(config.services), "service"),
        (endpoints, "endpoint"),
        (len(config.routes), "route"),
    )
    return ", ".join(_counted(counts))


def _counted(counts: Iterable[tuple[int, str]]) -> Iterable[str]:
    return (f"{number} {noun}{'' if number == 1 else 's'}" for number, noun in counts)
