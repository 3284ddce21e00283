"""Where the unix socket of a proxy is: made by its supervisor, found by commands."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from turnout.proxy.statedir import base_directory, folder_name

SYSTEM = Path("/run/turnout")
PATH_MAX = 107
"""Bytes of a unix socket's path."""


def directories(environ: Mapping[str, str] = os.environ) -> list[Path]:
    """The service manager's; without one root's, the user's, and where state is for whoever has none of
    these. The first that can be used is.
    """
    if environ.get("RUNTIME_DIRECTORY"):
        return [Path(environ["RUNTIME_DIRECTORY"].split(":")[0])]
    out = [SYSTEM] if os.geteuid() == 0 else []
    if environ.get("XDG_RUNTIME_DIR"):
        out.append(Path(environ["XDG_RUNTIME_DIR"]) / "turnout")
    return [*out, base_directory(None, Path(), environ)]


def places_to_look(environ: Mapping[str, str] = os.environ) -> list[Path]:
    """Where commands find sockets. What a service manager runs means its own service."""
    found = directories(environ)
    return found if environ.get("RUNTIME_DIRECTORY") else [*found, SYSTEM]


def candidates(file: Path, environ: Mapping[str, str] = os.environ) -> list[Path]:
    """Paths for the socket of a configuration file, the best first."""
    paths = [directory.absolute() / f"{folder_name(file)}.sock" for directory in directories(environ)]
    return [path for path in paths if len(os.fsencode(path)) <= PATH_MAX]
