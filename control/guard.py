"""The API has no password yet, so a page in the browser of somebody on this machine must not reach it.

A page of another site is known by its Origin or Sec-Fetch-Site, and cannot send JSON without asking first. A
name that was made to point here (DNS rebinding) is known by the Host that the browser was told.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Mapping

from turnout.control.problem import ProblemError

CHANGING = frozenset({"POST", "PUT", "PATCH", "DELETE"})


def own_names(listen: str) -> frozenset[str]:
    """Names by which this listener may be called, besides addresses and localhost."""
    host = "" if listen.startswith("unix:") else listen.rpartition(":")[0]
    return frozenset({host.lower(), socket.gethostname().lower()} - {""})


def check(method: str, headers: Mapping[str, str], names: frozenset[str]) -> None:
    """Raises ProblemError for a request that a foreign page may have caused. `headers` ignores case."""
    host = headers.get("Host", "")
    if not is_known(host, names):
        raise ProblemError(
            403, f'called by the name "{host}"; use an address, "localhost" or this machine\'s name'
        )
    origin = headers.get("Origin")
    if origin is not None and origin.partition("://")[2] != host:
        raise ProblemError(403, f'a page of another origin ("{origin}") may not call this')
    if headers.get("Sec-Fetch-Site", "none") not in {"none", "same-origin"}:
        raise ProblemError(403, "a page of another site may not call this")
    kind = headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if method in CHANGING and kind != "application/json":
        raise ProblemError(415, 'send "Content-Type: application/json"')


def is_known(host: str, names: frozenset[str]) -> bool:
    name = host_name(host)
    if name == "localhost" or name.endswith(".localhost") or name in names:
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def host_name(host: str) -> str:
    """Of a Host field, without port and brackets."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.rpartition(":")[0].lower() if ":" in host else host.lower()
