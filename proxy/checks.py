"""How the values of a health check are written, and which keys mean something to which kind of check."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable

STATUS = re.compile(r"([1-5]\d\d)(?:-([1-5]\d\d))?|([1-5])xx")
POINTER = re.compile(r"(/([^~]|~[01])*)*")

TIMING = frozenset({"interval", "timeout", "rise", "fall", "jitter", "fast", "slow", "slow_max"})
HTTP = frozenset(
    {
        "path",
        "method",
        "headers",
        "host",
        "status",
        "degraded",
        "body",
        "pattern",
        "values",
        "identity",
        "port",
    }
)
KEYS: dict[str, frozenset[str]] = {
    "http": HTTP | TIMING,
    "https": HTTP | TIMING | {"tls"},
    "websocket": frozenset({"path", "headers", "host", "identity", "port", "tls"}) | TIMING,
    "tcp": frozenset({"send", "expect", "port", "tls"}) | TIMING,
    "udp": frozenset({"send", "expect", "port"}) | TIMING,
    "grpc": frozenset({"grpc", "headers", "host", "port", "tls"}) | TIMING,
    "exec": frozenset({"exec"}) | TIMING,
    "ttl": frozenset({"ttl"}),
}
"""What each kind of check takes, besides `type`."""
NEEDS = {
    "exec": 'exec = ["/path/of/program", "argument"]',
    "ttl": 'ttl = "15s", the longest time between two heartbeats',
    "udp": "send, the datagram to be answered",
}
"""What a check cannot do without."""


def implied(given: Collection[str]) -> str | None:
    """The kind of check that keys speak of; None when they fit several."""
    for key in ("exec", "ttl", "grpc"):
        if key in given:
            return key
    if HTTP - {"port"} & set(given):
        return "http"
    return "tcp" if {"send", "expect"} & set(given) else None


def parse_statuses(items: Iterable[str]) -> tuple[range, ...]:
    """Of "200-299", "401" and "2xx". Raises ValueError that says what would be right."""
    out = []
    for item in items:
        match = STATUS.fullmatch(item)
        if not match:
            raise ValueError(
                f'"{item}" is not a status like "204", a range like "200-299" or a class like "2xx"'
            )
        if match[3]:
            first, last = int(match[3]) * 100, int(match[3]) * 100 + 99
        else:
            first, last = int(match[1]), int(match[2] or match[1])
        if first > last:
            raise ValueError(f'"{item}" is a range that ends before it begins')
        out.append(range(first, last + 1))
    return tuple(out)


def parse_bytes(text: str) -> bytes:
    """Text as it is, or bytes written as "hex:0d0a". Raises ValueError that says what would be right."""
    if not text.startswith("hex:"):
        return text.encode()
    try:
        return bytes.fromhex(text[4:])
    except ValueError:
        raise ValueError(
            f'"{text}" has no bytes in it; write two hex digits for each, like "hex:0d0a"'
        ) from None


def check_pattern(text: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise ValueError(f'"{text}" is not a regular expression: {error}') from None
    return text


def check_pointer(text: str) -> str:
    if not text or not POINTER.fullmatch(text):
        raise ValueError(f'"{text}" is not a JSON pointer; write it like "/status" or "/checks/0/state"')
    return text
