"""Tables of `turnout status` and `turnout services`, made of what GET /v1/status returns."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from turnout.control.status import EndpointStatus, ListenerStatus, ServiceStatus, Status, takes_sessions

GOOD, WARN, BAD, DIM = "green", "yellow", "red", "dim"
COLOURS = {
    "serving": GOOD, "ready": GOOD, "starting": WARN, "draining": WARN, "drain": WARN, "half_open": WARN,
    "maint": BAD, "down": BAD, "open": BAD, "gone": BAD, "closed": DIM,
}  # fmt: skip
TEXT = ("version", "state", "breaker", "split", "bind", "balance")
"""Columns that are no numbers, besides the first."""


def of_status(status: Status) -> RenderableType:
    return Group(
        headline(status),
        workers(status["workers"]),
        listeners(status["listeners"]),
        of_services(status["services"]),
    )


def headline(status: Status) -> Text:
    up = str(timedelta(seconds=int(status["uptime_s"])))
    text = Text(f"turnout {status['program']}  ")
    text.append(status["state"], style=COLOURS.get(status["state"], ""))
    text.append(
        f"  pid {status['pid']}  up {up}  configuration {status['snapshot']} of {status['file']}"
        f"  worker restarts {status['restarts']}"
    )
    return text


def table(*columns: str) -> Table:
    out = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for place, column in enumerate(columns):
        is_text = place == 0 or column in TEXT
        out.add_column(column, justify="left" if is_text else "right", overflow="fold")
    return out


def state(word: str) -> Text:
    return Text(word, style=COLOURS.get(word, ""))


def workers(rows: Iterable[Any]) -> Table:
    out = table(
        "worker",
        "pid",
        "state",
        "configuration",
        "connections",
        "busy",
        "sessions",
        "to endpoints",
        "restarts",
    )
    for row in rows:
        out.add_row(
            str(row["worker"]),
            str(row["pid"]),
            state(row["state"]),
            str(row["snapshot"]),
            str(row["clients"]),
            str(row["active"]),
            str(row["sessions"]),
            str(row["upstreams"]),
            str(row["restarts"]),
        )
    return out


def listeners(rows: Iterable[ListenerStatus]) -> Table:
    out = table("listener", "bind", "connections", "sessions", "req/s", "err/s", "p50", "p99", "requests")
    for row in rows:
        out.add_row(
            row["name"],
            row["bind"],
            str(row["connections"]),
            str(row["sessions"]),
            *rates(row),
            str(row["requests"]),
        )
    return out


def of_services(rows: Iterable[ServiceStatus]) -> RenderableType:
    return Group(*(part for row in rows for part in (service_line(row), endpoints(row["endpoints"]))))


def service_line(row: ServiceStatus) -> Text:
    split = shares({v["version"]: v["share"] for v in row["split"]})
    text = Text(f"\n{row['name']}", style="bold")
    facts = [
        row["balance"],
        *([f"split {split}"] if split else []),
        f"{row['requests_per_s']:g} req/s",
        f"{row['errors_per_s']:g} err/s",
        f"p50 {ms(row['p50_ms'])} p99 {ms(row['p99_ms'])}",
        f"queued {row['queued']}",
        f"retries {row['retries']} (denied {row['retries_denied']}, budget {row['retry_budget']:g})",
    ]
    return text.append("  " + "  ".join(facts), style="not bold")


def endpoints(rows: Iterable[EndpointStatus]) -> Table:
    out = table(
        "endpoint", "version", "state", "breaker", "weight", "in flight", "req/s", "err/s", "p50", "p99",
        "requests", "errors", "reuse",
    )  # fmt: skip
    for row in rows:
        out.add_row(
            row["address"],
            row["version"],
            state("down" if row["health"] == "down" else row["admin"]),
            state(row["breaker"]),
            str(row["weight"]),
            str(row["in_flight"]),
            *rates(row),
            str(row["requests"]),
            str(row["errors"]),
            "-" if row["reuse"] is None else f"{row['reuse']:.0%}",
        )
    return out


def rates(row: ListenerStatus | EndpointStatus | ServiceStatus) -> tuple[str, str, str, str]:
    return f"{row['requests_per_s']:g}", f"{row['errors_per_s']:g}", ms(row["p50_ms"]), ms(row["p99_ms"])


def ms(value: float | None) -> str:
    if value is None:
        return "-"
    if value < 10_000:
        return f"{value:.2f} ms" if value < 10 else f"{value:.0f} ms"
    return f"{value / 1000:.1f} s"


def services(rows: Iterable[ServiceStatus]) -> Table:
    """One line for each service."""
    out = table(
        "service", "balance", "split", "endpoints", "in flight", "queue", "req/s", "err/s", "p50", "p99",
    )  # fmt: skip
    for row in rows:
        able = sum(takes_sessions(endpoint) for endpoint in row["endpoints"])
        out.add_row(
            row["name"],
            row["balance"],
            shares({v["version"]: v["share"] for v in row["split"]}) or "-",
            f"{able}/{len(row['endpoints'])}",
            str(row["in_flight"]),
            str(row["queued"]),
            *rates(row),
        )
    return out


def shares(split: dict[str, float]) -> str:
    """As one writes them: v1=90% v2=10%."""
    return " ".join(f"{version}={share * 100:.6g}%" for version, share in split.items())
