"""A page in somebody's browser must not use what lets him in without a word: his being on this machine, his
client certificate. A token is no such thing: who shows one knows it.

A page of another site is known by its Origin or Sec-Fetch-Site, and cannot send JSON without asking first:
each route says which kind of content it takes. A name that was made to point here (DNS rebinding) is known by
the Host that the browser was told.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable, Mapping

from turnout.control.api.problems import ProblemError


def own_names(listen: str, certificate: Iterable[str] = ()) -> frozenset[str]:
    """Names by which this listener may be called, besides addresses and localhost: its own, the machine's,
    and those that its certificate is for.
    """
    host = "" if listen.startswith("unix:") else listen.rpartition(":")[0]
    return frozenset({host.lower(), socket.gethostname().lower(), *certificate} - {""})


def check(headers: Mapping[str, str], names: frozenset[str]) -> None:
    """Raises ProblemError for a request that a foreign page may have caused. `headers` ignores case. One with
    a token counts by its token alone, so it may come by any name.
    """
    if "Authorization" not in headers:
        check_page(headers, names)


def check_page(headers: Mapping[str, str], names: frozenset[str]) -> None:
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
