"""What an HTTP answer has to say, and whether it does."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from turnout.control.health.outcome import Outcome, failed, passed
from turnout.control.health.tcp import SEEN
from turnout.proxy.checks import parse_statuses
from turnout.proxy.model import Health

NOTHING = object()


class Expectation:
    """Of a service's `health`, for an endpoint of this version."""

    def __init__(self, health: Health, version: str) -> None:
        self.reads_body = health.body is not None or health.pattern is not None or bool(health.values)
        self._statuses, self._degraded = parse_statuses(health.status), parse_statuses(health.degraded)
        self._said = ", ".join(health.status)
        self._identity, self._version = health.identity, version
        self._text = health.body
        self._pattern = re.compile(health.pattern) if health.pattern is not None else None
        self._values = {pointer: (_parts(pointer), value) for pointer, value in health.values.items()}

    def of_head(self, status: int, headers: Mapping[str, str]) -> Outcome:
        degraded = any(status in some for some in self._degraded)
        if not degraded and not any(status in some for some in self._statuses):
            return failed(f"status {status}, expected {self._said}")
        if self._identity is not None:
            is_it = headers.get(self._identity)
            if is_it is None:
                return failed(f"has no field {self._identity}, expected {self._version} in it")
            if is_it.strip() != self._version:
                return failed(f"{self._identity} says {is_it.strip()[:40]}, expected {self._version}")
        return Outcome("degraded" if degraded else "pass", f"status {status}")

    def of_body(self, body: bytes) -> Outcome:
        """The first SEEN bytes of it."""
        text = body[:SEEN].decode("utf-8", "replace")
        if self._text is not None and self._text not in text:
            return failed(f'body has no "{self._text}" in it')
        if self._pattern is not None and not self._pattern.search(text):
            return failed(f"body does not match {self._pattern.pattern}")
        return self._of_values(text) if self._values else passed("")

    def _of_values(self, text: str) -> Outcome:
        try:
            document = json.loads(text)
        except (ValueError, RecursionError):
            return failed(f"body is not JSON, or longer than {SEEN} bytes")
        for pointer, (parts, wanted) in self._values.items():
            found = _value(document, parts)
            if found is NOTHING:
                return failed(f"body has no {pointer}, expected {_shown(wanted)}")
            if not _same(found, wanted):
                return failed(f"{pointer} is {_shown(found)}, expected {_shown(wanted)}")
        return passed("")


def _parts(pointer: str) -> list[str]:
    return [part.replace("~1", "/").replace("~0", "~") for part in pointer.split("/")[1:]]


def _value(document: Any, parts: list[str]) -> Any:
    """RFC 6901."""
    for part in parts:
        if isinstance(document, dict) and part in document:
            document = document[part]
        elif isinstance(document, list) and part.isdecimal() and int(part) < len(document):
            document = document[int(part)]
        else:
            return NOTHING
    return document


def _same(found: Any, wanted: Any) -> bool:
    """As in JSON, where true is not 1."""
    return isinstance(found, bool) == isinstance(wanted, bool) and found == wanted


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 40 else f"{text[:40]}..."
