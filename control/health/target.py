"""What is to be checked: an endpoint, with how its service wants it checked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from turnout.proxy.certs import name_for
from turnout.proxy.model import CheckType, Endpoint, Health, Service, ServiceTls


class Key(NamedTuple):
    """An endpoint: its service's full name and its address as written."""

    service: str
    address: str


class Manner(NamedTuple):
    """How the endpoints of a service are spoken to, as far as checks have to know."""

    health: Health
    kind: str
    host: str
    proxy_protocol: str | None
    tls: ServiceTls | None


def manner_of(service: Service) -> Manner | None:
    """None when it has no checks."""
    if service.health is None:
        return None
    kind = service.kind
    return Manner(service.health, kind, service.host, service.proxy_protocol, service.tls)


@dataclass(frozen=True)
class Target:
    """`host` is a number without brackets, `unix` the path of a socket in its place. `name` is what TLS asks
    for and Host says, `over_tls` whether requests to the endpoint go over TLS.
    """

    key: Key
    kind: CheckType
    version: str
    host: str
    port: int
    unix: str
    name: str
    over_tls: bool
    manner: Manner

    @property
    def health(self) -> Health:
        return self.manner.health

    @property
    def secure(self) -> bool:
        """Does the check speak TLS?"""
        if self.kind in {"http", "https"}:
            return self.kind == "https"
        return self.over_tls or self.health.tls is not None

    @property
    def machine(self) -> str:
        """Whom many checks at a time would burden."""
        return self.host or "unix"

    @property
    def place(self) -> str:
        """Where the check connects."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"unix:{self.unix}" if self.unix else f"{host}:{self.port}"

    @property
    def authority(self) -> str:
        """What Host says."""
        mode, _, literal = self.manner.host.partition(":")
        if self.health.host or mode == "literal":
            return self.health.host or literal
        return "localhost" if self.unix else self.key.address


def target_of(key: Key, manner: Manner, service: Service, endpoint: Endpoint, resolved: str) -> Target:
    """For an endpoint of the service whose address is `resolved`."""
    health, over_tls = manner.health, service.over_tls(endpoint)
    unix = resolved[5:] if resolved.startswith("unix:") else ""
    host, _, port = ("", "", "0") if unix else resolved.rpartition(":")
    if unix and health.port:
        unix, host = "", "127.0.0.1"
    named = health.tls.name if health.tls is not None else None
    return Target(
        key=key,
        kind=health.check(manner.kind, over_tls=over_tls),
        version=endpoint.version,
        host=host.strip("[]"),
        port=health.port or int(port),
        unix=unix,
        name=named or name_for(service, endpoint.address),
        over_tls=over_tls,
        manner=manner,
    )
