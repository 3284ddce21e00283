"""Addresses of endpoints as numbers: names are resolved when a configuration is loaded, never by a worker."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

Resolver = Callable[[str], list[str]]
"""Name -> numeric addresses, in any order. Raises OSError."""

LOOK_UPS = 16


def system_resolver(name: str) -> list[str]:
    return [str(info[4][0]) for info in socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)]


def resolve(addresses: Iterable[str], resolver: Resolver = system_resolver) -> dict[str, str | OSError]:
    """Each address ("host:port", "[IPv6]:port", "unix:/path") in numeric form, or why there is none. Names
    are looked up side by side, each once.
    """
    wanted = list(dict.fromkeys(addresses))
    names = sorted({name for address in wanted if (name := name_in(address))})
    if not names:
        return {address: address for address in wanted}
    with ThreadPoolExecutor(LOOK_UPS) as pool:
        found = dict(zip(names, pool.map(lambda name: _chosen(name, resolver), names), strict=True))
    return {address: _numeric(address, found) for address in wanted}


def name_in(address: str) -> str | None:
    """The host name of an address that has one to look up."""
    if address.startswith("unix:"):
        return None
    host = address.rpartition(":")[0]
    if host.startswith("["):
        return None
    try:
        ipaddress.IPv4Address(host)
    except ValueError:
        return host
    return None


def _chosen(name: str, resolver: Resolver) -> str | OSError:
    """One address of a name: IPv4 before IPv6, the lowest number first, so that a name server that rotates
    its answers does not move the endpoint with every load.
    """
    try:
        found = [ipaddress.ip_address(text.partition("%")[0]) for text in resolver(name)]
    except OSError as error:
        return error
    except UnicodeError as error:
        return OSError(0, f"is no host name ({error})")
    if not found:
        return OSError(0, "has no address")
    best = min(found, key=lambda address: (address.version, int(address)))
    return f"[{best}]" if best.version == 6 else str(best)


def _numeric(address: str, found: dict[str, str | OSError]) -> str | OSError:
    name = name_in(address)
    if name is None:
        return address
    host = found[name]
    return host if isinstance(host, OSError) else f"{host}:{address.rpartition(':')[2]}"
