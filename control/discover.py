"""How commands find the proxy: what they are told, else the one unix socket at which somebody answers."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from turnout.proxy.runtimedir import places_to_look

DEFAULT = "http://127.0.0.1:9900"
"""Where a proxy without a socket may be."""


class SeveralError(Exception):
    """More than one proxy runs; the text lists them."""


@dataclass(frozen=True)
class Found:
    """Sockets at which somebody listens: ours to use, and those of other users."""

    live: list[Path]
    closed: list[Path]


def api_url(given: str | None, environ: Mapping[str, str] = os.environ) -> str:
    """As given by --api or TURNOUT_API, else where a proxy is. Raises SeveralError."""
    if given is not None:
        return given
    live = find(environ).live
    if len(live) > 1:
        listed = "".join(f"\n  --api unix:{path}" for path in live)
        raise SeveralError(f"{len(live)} proxies run; say which one (or set TURNOUT_API):{listed}")
    return f"unix:{live[0]}" if live else DEFAULT


def find(environ: Mapping[str, str] = os.environ) -> Found:
    found = Found([], [])
    for path in _sockets(places_to_look(environ)):
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(1)
            try:
                probe.connect(str(path))
                found.live.append(path)
            except PermissionError:
                found.closed.append(path)
    return found


def hint(url: str, environ: Mapping[str, str] = os.environ) -> str:
    """What to say when nobody answers at a place that was only guessed; empty otherwise."""
    if url != DEFAULT:
        return ""
    closed = find(environ).closed
    if closed:
        return f"; {closed[0]} is the socket of another user, root may use it"
    return (
        '; no proxy of this user runs with [control] socket = "auto" (--api or TURNOUT_API says where one is)'
    )


def _sockets(folders: Iterable[Path]) -> list[Path]:
    """Each once, in order."""
    out: dict[Path, None] = {}
    for folder in folders:
        with contextlib.suppress(OSError):
            for path in sorted(folder.glob("*.sock")):
                if stat.S_ISSOCK(path.stat().st_mode):
                    out[path.resolve()] = None
    return list(out)
