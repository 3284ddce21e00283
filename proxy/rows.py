"""The tables of the configuration as rows of a snapshot's document, one function for each table.

Values go over as they are; nothing here knows slots, other tables or the scoreboard.
"""

from __future__ import annotations

import ipaddress
import math
import re
from typing import TYPE_CHECKING, Any

from turnout.proxy.model import AccessLog, Breaker, HeaderEdits, Listener, Retries, Route, Service, Sticky
from turnout.proxy.paths import canonical_path
from turnout.proxy.units import NEVER_MS

if TYPE_CHECKING:
    from turnout.ext.snapshot import BreakerRow, EditRow, HeaderRow, RetryRow, StickyRow

MILLION = 1_000_000
FORWARDED = {"x-forwarded": "x", "forwarded": "rfc7239"}
KEY_SOURCES = {"source": "source_ip"}
ANY_VALUE = "*"


def statuses_of(causes: tuple[str, ...]) -> list[int]:
    """The statuses that "503" and "5xx" stand for; words stand for none."""
    out: set[int] = set()
    for cause in causes:
        if re.fullmatch(r"\dxx", cause):
            out |= set(range(int(cause[0]) * 100, int(cause[0]) * 100 + 100))
        elif cause.isdigit():
            out.add(int(cause))
    return sorted(out)


def words_of(causes: tuple[str, ...]) -> list[Any]:
    return [cause for cause in dict.fromkeys(causes) if cause.isalpha() and not cause.endswith("xx")]


def port_of(bind: str) -> int:
    return 0 if bind.startswith("unix:") else int(bind.rpartition(":")[2])


def listener_row(listener: Listener, tls: dict[str, Any] | None) -> dict[str, Any]:
    """All but slot and name; `tls` from turnout.proxy.certs."""
    timeouts, limits = listener.timeouts, listener.limits
    return {
        "protocol": listener.protocol,
        "proxied": listener.proxy_protocol,
        "port": port_of(listener.bind),
        "tls": tls,
        "hsts": listener.tls.policy if listener.tls else "",
        "header_ms": timeouts.header,
        "body_idle_ms": timeouts.body,
        "body_rate": timeouts.body_rate,
        "keepalive_ms": timeouts.keepalive,
        "half_close_ms": timeouts.half_close,
        "keepalive_requests": limits.requests,
        "line_max": limits.line,
        "head_max": limits.head,
        "fields_max": limits.fields,
        "body_max": limits.body,
        "connections": listener.connections,
        "sessions": listener.protocol != "udp" or listener.udp.sessions,
        "responses": listener.udp.responses,
        "forwarded": [FORWARDED[mode] for mode in dict.fromkeys(listener.forwarded)],
        "trusted": [str(ipaddress.ip_network(network, strict=False)) for network in listener.trusted],
    }


def breaker_row(breaker: Breaker) -> BreakerRow:
    return {
        "failures": breaker.failures,
        "open_ms": breaker.open,
        "open_max_ms": max(breaker.open_max, breaker.open),
        "jitter_pct": round(breaker.jitter * 100),
        "probes": breaker.probes,
        "successes": breaker.successes,
        "on": words_of(breaker.on),
        "statuses": statuses_of(breaker.on),
        "last": breaker.last,
    }


def sticky_row(sticky: Sticky | None, key: str) -> StickyRow:
    """`key` is the signing key, "" for stickiness without a cookie."""
    conf = sticky or Sticky(source=True)
    by_cookie: Any = "cookie" if conf.cookie is not None else "source"
    same_site: Any = conf.same_site.lower()
    return {
        "kind": by_cookie if sticky else "none",
        "sliding": conf.sliding,
        "secure": conf.secure,
        "http_only": conf.http_only,
        "same_site": same_site,
        "name": conf.cookie or "",
        "path": conf.path,
        "domain": conf.domain or "",
        "ttl_s": math.ceil(conf.ttl / 1000),
        "key": key,
    }


def retry_row(retries: Retries) -> RetryRow:
    statuses = statuses_of(retries.on)
    return {
        "attempts": retries.attempts,
        "on": words_of(retries.on) + (["status"] if statuses else []),
        "methods": list(retries.methods),
        "budget": retries.budget,
        "floor_per_s": retries.floor,
        "statuses": statuses,
    }


def service_row(service: Service, key: str, grace: int, tls: dict[str, Any] | None) -> dict[str, Any]:
    """All but slot, name, members and groups. `key` as for sticky_row, `grace` the proxy's, in ms, `tls` from
    turnout.proxy.certs.
    """
    source, _, key_name = service.hash.key.partition(":")
    host_mode, _, host = service.host.partition(":")
    limits, timeouts = service.limits, service.timeouts
    return {
        "strategy": service.balance,
        "key_source": KEY_SOURCES.get(source, source),
        "key_name": key_name.lower() if source == "header" else key_name,
        "host_mode": host_mode,
        "host": host,
        "split": service.split is not None,
        "load_pct": round(service.hash.bounded_load * 100),
        "slow_start_ms": 0 if service.slow_start_ms == NEVER_MS else service.slow_start_ms,
        "panic_pct": round(service.panic * 100),
        "connections": limits.connections,
        "queue": limits.queue,
        "queue_ms": limits.queue_timeout,
        "connect_ms": timeouts.connect,
        "response_ms": timeouts.response,
        "idle_ms": timeouts.idle,
        "proxy_version": {None: 0, "v1": 1, "v2": 2}[service.proxy_protocol],
        "tunnel_ms": timeouts.tunnel,
        "session_ms": timeouts.session,
        "tunnel_drain_ms": min(timeouts.tunnel_drain, grace - grace // 10),
        "pool_idle_ms": timeouts.keepalive,
        "pool_max": limits.pool,
        "pool_requests": limits.requests,
        "breaker": breaker_row(service.breaker),
        "sticky": sticky_row(service.sticky, key),
        "retry": retry_row(service.retries),
        "tls": tls,
    }


def edit_rows(edits: HeaderEdits) -> list[EditRow]:
    rows: list[EditRow] = [{"kind": "set", "name": name, "value": value} for name, value in edits.set.items()]
    return rows + [{"kind": "remove", "name": name, "value": ""} for name in edits.remove]


def header_rows(route: Route) -> list[HeaderRow]:
    return [
        {"name": name, "value": None if value == ANY_VALUE else value}
        for name, value in route.headers.items()
    ]


def target_row(route: Route) -> dict[str, Any]:
    """What a route leads to, the service's index aside."""
    row: dict[str, Any] = {"action": "service", "status": 0, "body": "", "content_type": "", "location": ""}
    if route.respond is not None:
        row |= {"action": "respond", **route.respond.model_dump()}
    if route.redirect is not None:
        row |= {"action": "redirect", "status": route.redirect.status, "location": route.redirect.to}
    return row


def log_row(route: Route, log: AccessLog) -> dict[str, Any]:
    """What of a route is logged: its own word, else the proxy's; nothing with the log off."""
    if log.path == "off":
        return {"log_per_million": 0, "slow_ms": 0, "log_errors": False}
    slow = log.slow if route.log.slow is None else route.log.slow
    sample = log.sample if route.log.sample is None else route.log.sample
    return {
        "log_per_million": round(sample * MILLION),
        "slow_ms": 0 if slow == NEVER_MS else slow,
        "log_errors": log.errors if route.log.errors is None else route.log.errors,
    }


def route_row(route: Route, log: AccessLog) -> dict[str, Any]:
    """All but slot, listeners and service."""
    return {
        "name": route.title,
        "hosts": [route.host] if route.host else [],
        "path": canonical_path(route.path),
        "methods": list(dict.fromkeys(route.methods)),
        "headers": header_rows(route),
        "prefix_to": "" if route.strip_prefix else route.rewrite,
        "upgrades": list(dict.fromkeys(name.lower() for name in route.upgrade)),
        "request": edit_rows(route.request_headers),
        "response": edit_rows(route.response_headers),
        **target_row(route),
        **log_row(route, log),
    }
