"""What makes no sense in a file where connections or datagrams are passed on without speaking HTTP."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from turnout.proxy.model import Config, Listener, ListenerTls, Service

Location = tuple[int | str, ...]

ROUTE_KEYS = {
    "tcp": frozenset({"name", "listener", "host", "service", "log"}),
    "udp": frozenset({"name", "listener", "service", "log"}),
}
"""What a route of such a listener may say."""
LISTENER_KEYS = {
    "tcp": frozenset(
        {"bind", "protocol", "backlog", "trusted", "proxy_protocol", "timeouts", "limits", "tls"}
    ),
    "udp": frozenset({"bind", "protocol", "udp", "limits"}),
}
TIMEOUTS = {"tcp": frozenset({"header"}), "udp": frozenset[str]()}
LIMITS = frozenset({"connections"})


def without_http(config: Config) -> Iterator[tuple[Location, str]]:
    """Problems of listeners, routes and services, each with its place."""
    raw = {
        name: listener.protocol for name, listener in config.listeners.items() if listener.protocol != "http"
    }
    for name, listener in config.listeners.items():
        yield from _listener(config, name, listener)
    for index, route in enumerate(config.routes):
        if route.listener in raw:
            known = ROUTE_KEYS[raw[route.listener]]
            for key in sorted(route.model_fields_set - known):
                yield (
                    ("routes", index, key),
                    f'listener "{route.listener}" speaks no HTTP; its routes take {_listed(known)}',
                )
        elif route.listener is None and raw and raw.keys() == config.listeners.keys():
            yield (
                ("routes", index, "listener"),
                f"is missing; without it it is for HTTP listeners, and there is none; say {_listed(raw)}",
            )
    yield from _services(config, raw)


def _listener(config: Config, name: str, listener: Listener) -> Iterator[tuple[Location, str]]:
    if listener.proxy_protocol and not listener.trusted:
        yield (
            ("listeners", name, "proxy_protocol"),
            'needs trusted, the networks whose PROXY headers count, like trusted = ["10.0.0.0/8"]',
        )
    if listener.protocol == "http":
        if "udp" in listener.model_fields_set:
            yield ("listeners", name, "udp"), 'is for listeners with protocol = "udp"'
        return
    kind = listener.protocol.upper()
    for key in sorted(listener.model_fields_set - LISTENER_KEYS[listener.protocol]):
        yield ("listeners", name, key), f"means nothing to a {kind} listener"
    parts = (("timeouts", TIMEOUTS[listener.protocol]), ("limits", LIMITS))
    for part, known in parts:
        for key in sorted(getattr(listener, part).model_fields_set - known):
            yield ("listeners", name, part, key), f"means nothing to a {kind} listener"
    if listener.tls is not None and listener.protocol == "tcp":
        yield from _of_answers(name, listener.tls)
    if listener.protocol == "udp" and listener.bind.startswith("unix:"):
        yield ("listeners", name, "bind"), 'UDP needs an address like "0.0.0.0:53"'
    if not any(route.listener == name for route in config.routes):
        yield (
            ("listeners", name),
            f'no route leads on from here; a {kind} listener needs one with listener = "{name}"',
        )


def _of_answers(name: str, tls: ListenerTls) -> Iterator[tuple[Location, str]]:
    if tls.hsts is not False:
        yield ("listeners", name, "tls", "hsts"), "is a field of HTTP answers"
    if tls.client is not None and "header" in tls.client.model_fields_set:
        yield ("listeners", name, "tls", "client", "header"), "is a field of HTTP requests"


def _services(config: Config, raw: Mapping[str, str]) -> Iterator[tuple[Location, str]]:
    """Keys that only requests have, in services to which no request comes; and services of two worlds."""
    users: dict[str, set[str]] = {}
    for route in config.routes:
        if route.service in config.services:
            users.setdefault(route.service, set()).add(raw.get(route.listener or "", "http"))
    for name, kinds in users.items():
        if "udp" in kinds and len(kinds) > 1:
            yield ("services", name), "takes datagrams and connections; give each kind a service of its own"
        if "udp" in kinds and any(
            config.services[name].over_tls(endpoint) for endpoint in config.services[name].endpoints
        ):
            yield ("services", name), "a UDP listener leads here, and datagrams cannot be put into TLS"
        if "http" not in kinds:
            for where, what in _of_requests(config.services[name]):
                yield ("services", name, *where), f"{what}, and none comes to this service"
        if "udp" in kinds:
            yield from _of_connections(name, config.services[name])


def _of_requests(service: Service) -> Iterator[tuple[Location, str]]:
    if service.sticky is not None and service.sticky.cookie is not None:
        yield ("sticky", "cookie"), "a cookie goes with an HTTP request; say sticky = { source = true }"
    if service.balance == "consistent_hash" and service.hash.key != "source":
        yield ("hash", "key"), f'"{service.hash.key}" is part of an HTTP request; say key = "source"'
    if service.host != "preserve":
        yield ("host",), "is what the Host field of an HTTP request says"


def _of_connections(name: str, service: Service) -> Iterator[tuple[Location, str]]:
    if service.proxy_protocol is not None:
        yield ("services", name, "proxy_protocol"), "goes with connections, and UDP has none"
    for index, endpoint in enumerate(service.endpoints):
        if endpoint.address.startswith("unix:"):
            yield ("services", name, "endpoints", index), "is a unix socket, and datagrams go to host:port"


def _listed(names: Collection[str]) -> str:
    return ", ".join(sorted(names))
