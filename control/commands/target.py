"""What users name on the command line: endpoints and shares."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import typer

from turnout.control.hints import hint


def find(status: Any, service: str) -> Any:
    """A service's row of the status. Raises BadParameter."""
    rows = {row["name"]: row for row in status["services"]}
    if service not in rows:
        raise typer.BadParameter(f'no service is named "{service}"{hint(service, rows)}')
    return rows[service]


@dataclass(frozen=True)
class Target:
    """An endpoint."""

    service: str
    address: str

    @classmethod
    def parse(cls, text: str, status: Any) -> Target:
        """SERVICE/ENDPOINT, or an endpoint that only one service has. Raises BadParameter."""
        there = [
            cls(service["name"], row["address"])
            for service in status["services"]
            for row in service["endpoints"]
        ]
        named = [target for target in there if str(target) == text]
        found = named or [target for target in there if target.address == text]
        if len(found) > 1:
            raise typer.BadParameter(f'"{text}" stands in several services: {", ".join(map(str, found))}')
        if not found:
            raise typer.BadParameter(f'there is no endpoint "{text}"{hint(text, map(str, there))}')
        return found[0]

    def __str__(self) -> str:
        return f"{self.service}/{self.address}"


def parse_new(text: str) -> tuple[str, str]:
    """SERVICE/ENDPOINT of one that need not be there. Raises BadParameter."""
    service, slash, address = text.partition("/")
    if not service or not slash or not address:
        raise typer.BadParameter(
            f'"{text}" is no endpoint; write SERVICE/ENDPOINT, like orders/10.0.0.3:8000'
        )
    return service, address


def parse_shares(words: Iterable[str]) -> dict[str, float]:
    """["v1=90", "v2=10"] as a mapping. Raises BadParameter."""
    out: dict[str, float] = {}
    for word in words:
        version, equals, number = word.partition("=")
        try:
            share = float(number)
        except ValueError:
            share = -1.0
        if not version or not equals or not 0 <= share < float("inf"):
            raise typer.BadParameter(f'"{word}" is no share; write VERSION=NUMBER, like v2=10')
        if version in out:
            raise typer.BadParameter(f'"{version}" has two shares')
        out[version] = share
    return out
