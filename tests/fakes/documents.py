"""Snapshot documents for tests: the smallest valid rows, and what the test cares about on top."""

from __future__ import annotations

import itertools
from typing import Any

import mmh3

Row = dict[str, Any]
SHARE = 1_000_000


def listener(slot: int = 0, **changes: Any) -> Row:
    row: Row = {
        "slot": slot,
        "name": f"listener{slot}",
        "protocol": "http",
        "proxied": False,
        "sessions": True,
        "responses": 0,
        "port": 8080,
        "header_ms": 10000,
        "body_idle_ms": 60000,
        "body_rate": 0,
        "half_close_ms": 1000,
        "keepalive_ms": 75000,
        "keepalive_requests": 0,
        "line_max": 8192,
        "head_max": 32768,
        "fields_max": 100,
        "body_max": 0,
        "connections": 0,
        "forwarded": ["x"],
        "trusted": [],
        "tls": None,
        "hsts": "",
    }
    return row | changes


CIPHERS = ":".join(
    f"ECDHE-{kind}-{cipher}"
    for cipher in ("AES128-GCM-SHA256", "AES256-GCM-SHA384", "CHACHA20-POLY1305")
    for kind in ("ECDSA", "RSA")
)
PROTOCOL: Row = {
    "min": "1.2",
    "max": "1.3",
    "ciphers": CIPHERS,
    "ciphersuites": "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256",
    "curves": "X25519:P-256:P-384",
}


def server_tls(*leaves: Any, **changes: Any) -> Row:
    """The `tls` of a listener: one context for each certificate (anything with chain and key),
    and no names.
    """
    row: Row = PROTOCOL | {
        "certificates": [{"chain": leaf.chain, "key": leaf.key, "ocsp": ""} for leaf in leaves],
        "contexts": [[i] for i in range(len(leaves))],
        "names": [],
        "strict_sni": False,
        "client": "off",
        "client_ca": "",
        "client_header": "",
    }
    return row | changes


def client_tls(**changes: Any) -> Row:
    """The `tls` of a service: verification off."""
    return PROTOCOL | {"verify": False, "ca": "", "chain": "", "key": ""} | changes


def member(slot: int, service: str, address: str, **changes: Any) -> Row:
    row: Row = {
        "slot": slot,
        "generation": 1,
        "weight": 1,
        "priority": 0,
        "name": address,
        "version": "",
        "address": address,
        "tls": None,
        "identity": mmh3.hash64(f"{service}/{address}", signed=False)[0],
    }
    return row | changes


def service(slot: int, name: str, members: list[int], **changes: Any) -> Row:
    """One group with all members unless `groups` says otherwise."""
    row: Row = {
        "slot": slot,
        "name": name,
        "strategy": "round_robin",
        "key_source": "source_ip",
        "key_name": "",
        "host_mode": "preserve",
        "host": "",
        "split": False,
        "load_pct": 0,
        "slow_start_ms": 0,
        "panic_pct": 50,
        "connections": 0,
        "queue": 0,
        "queue_ms": 1000,
        "connect_ms": 5000,
        "response_ms": 60000,
        "idle_ms": 60000,
        "proxy_version": 0,
        "tunnel_ms": 3600000,
        "session_ms": 60000,
        "tunnel_drain_ms": 30000,
        "pool_idle_ms": 60000,
        "pool_max": 64,
        "pool_requests": 0,
        "breaker": breaker(),
        "sticky": sticky(),
        "retry": retry(),
        "tls": None,
        "members": members,
        "groups": [{"slot": slot, "version": "", "share": SHARE, "members": members}],
    }
    return row | changes


def breaker(**changes: Any) -> Row:
    row: Row = {
        "failures": 5,
        "open_ms": 60000,
        "open_max_ms": 300000,
        "jitter_pct": 10,
        "probes": 1,
        "successes": 1,
        "on": ["connect", "timeout", "reset", "5xx"],
        "statuses": [],
        "last": False,
    }
    return row | changes


def sticky(**changes: Any) -> Row:
    row: Row = {
        "kind": "none",
        "sliding": True,
        "secure": False,
        "http_only": True,
        "same_site": "lax",
        "name": "",
        "path": "/",
        "domain": "",
        "ttl_s": 0,
        "key": "",
    }
    return row | changes


def retry(**changes: Any) -> Row:
    row: Row = {
        "attempts": 2,
        "on": ["connect", "stale", "reset", "timeout"],
        "budget": 0.2,
        "floor_per_s": 10.0,
        "statuses": [],
        "methods": ["GET", "HEAD", "PUT", "DELETE", "OPTIONS"],
    }
    return row | changes


def route(slot: int = 0, **changes: Any) -> Row:
    """To service 0, unless `action` is another."""
    row: Row = {
        "slot": slot,
        "name": f"route{slot}",
        "listeners": [0],
        "hosts": [],
        "path": "/",
        "methods": [],
        "headers": [],
        "action": "service",
        "service": 0,
        "prefix_to": None,
        "status": 0,
        "body": "",
        "content_type": "",
        "location": "",
        "upgrades": ["websocket"],
        "request": [],
        "response": [],
        "log_per_million": 0,
        "slow_ms": 0,
        "log_errors": False,
    }
    return row | ({} if changes.get("action", "service") == "service" else {"service": None}) | changes


def document(
    services: dict[str, list[str]] | None = None, *, routes: list[Row] | None = None, **changes: Any
) -> Row:
    """services: name -> addresses; slots in the order of the arguments. Default: "app" with one endpoint."""
    names = {"app": ["127.0.0.1:9000"]} if services is None else services
    slots = itertools.count()
    members = [
        member(next(slots), name, address) for name, addresses in names.items() for address in addresses
    ]
    at = itertools.count()
    rows = [service(i, name, [next(at) for _ in names[name]]) for i, name in enumerate(names)]
    row: Row = {
        "version": 1,
        "ticket_keys": [],
        "listeners": [listener()],
        "members": members,
        "services": rows,
        "routes": [route()] if routes is None else routes,
    }
    return row | changes
