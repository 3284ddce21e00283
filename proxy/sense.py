"""What makes no sense in a file where connections are passed on without speaking HTTP."""

from __future__ import annotations

from collections.abc import Iterator

from turnout.proxy.model import Config, Listener, Service

Location = tuple[int | str, ...]

ROUTE_KEYS = frozenset({"name", "listener", "host", "service", "log"})
"""What a route of a TCP listener may say."""

LISTENER_KEYS = frozenset({"bind", "protocol", "backlog", "trusted", "proxy_protocol"})
LISTENER_PARTS = {"timeouts": frozenset({"header"}), "limits": frozenset({"connections"})}


def without_http(config: Config) -> Iterator[tuple[Location, str]]:
    """Problems of listeners, routes and services, each with its place."""
    tcp = {name for name, listener in config.listeners.items() if listener.protocol == "tcp"}
    for name, listener in config.listeners.items():
        yield from _listener(config, name, listener, is_tcp=name in tcp)
    for index, route in enumerate(config.routes):
        if route.listener in tcp:
            for key in sorted(route.model_fields_set - ROUTE_KEYS):
                yield (
                    ("routes", index, key),
                    f'listener "{route.listener}" speaks no HTTP; its routes take {_listed(ROUTE_KEYS)}',
                )
        elif route.listener is None and tcp and tcp == config.listeners.keys():
            yield (
                ("routes", index, "listener"),
                f"is missing; without it it is for HTTP listeners, and there is none; say {_listed(tcp)}",
            )
    yield from _services(config, tcp)


def _listener(
    config: Config, name: str, listener: Listener, *, is_tcp: bool
) -> Iterator[tuple[Location, str]]:
    if listener.proxy_protocol and not listener.trusted:
        yield (
            ("listeners", name, "proxy_protocol"),
            'needs trusted, the networks whose PROXY headers count, like trusted = ["10.0.0.0/8"]',
        )
    if not is_tcp:
        return
    for key in sorted(listener.model_fields_set - LISTENER_KEYS - LISTENER_PARTS.keys()):
        yield ("listeners", name, key), "means nothing to a TCP listener"
    for part, known in LISTENER_PARTS.items():
        for key in sorted(getattr(listener, part).model_fields_set - known):
            yield ("listeners", name, part, key), "means nothing to a TCP listener"
    if not any(route.listener == name for route in config.routes):
        yield (
            ("listeners", name),
            f'no route leads on from here; a TCP listener needs one with listener = "{name}"',
        )


def _services(config: Config, tcp: set[str]) -> Iterator[tuple[Location, str]]:
    """Keys that only requests have, in services to which no request comes."""
    asked = {route.service for route in config.routes if route.listener not in tcp}
    for name in dict.fromkeys(route.service for route in config.routes if route.listener in tcp):
        if name is None or name not in config.services:
            continue
        service = config.services[name]
        if any(service.over_tls(endpoint) for endpoint in service.endpoints):
            yield ("services", name), "a TCP listener leads here, and its connections cannot be put into TLS"
        if name in asked:
            continue
        for where, what in _of_requests(config.services[name]):
            yield ("services", name, *where), f"{what}, and only TCP connections come to this service"


def _of_requests(service: Service) -> Iterator[tuple[Location, str]]:
    if service.sticky is not None and service.sticky.cookie is not None:
        yield ("sticky", "cookie"), "a cookie goes with an HTTP answer; say sticky = { source = true }"
    if service.balance == "consistent_hash" and service.hash.key != "source":
        yield ("hash", "key"), f'"{service.hash.key}" is part of an HTTP request; say key = "source"'
    if service.host != "preserve":
        yield ("host",), "is what the Host field of a request says"


def _listed(names: frozenset[str] | set[str]) -> str:
    return ", ".join(sorted(names))
