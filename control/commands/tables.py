"""Tables of what the API returns."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from turnout.control.commands import moments

Row = Mapping[str, Any]
"""As control/client/shapes.py and control/status.py describe it."""

GOOD, WARN, BAD, DIM = "green", "yellow", "red", "dim"
COLOURS = {
    "serving": GOOD, "ready": GOOD, "starting": WARN, "draining": WARN, "drain": WARN, "half_open": WARN,
    "maint": BAD, "down": BAD, "open": BAD, "gone": BAD, "closed": DIM, "up": GOOD, "valid": GOOD, "ok": GOOD,
    "expired": WARN, "revoked": BAD, "refused": BAD, "failed": BAD, "assumed": WARN, "flapping": WARN,
    "unknown": DIM, "unchecked": DIM, "degraded": WARN, "pass": GOOD, "warn": WARN, "fail": BAD,
}  # fmt: skip
TEXT = (
    "version", "state", "health", "breaker", "split", "bind", "balance", "source", "kind", "note", "name",
    "role", "namespaces", "action", "subject", "result", "who", "reason", "to", "check", "digest",
)  # fmt: skip
"""Columns that are no numbers, besides the first."""


def of_status(status: Row) -> RenderableType:
    return Group(
        headline(status),
        workers(status["workers"]),
        listeners(status["listeners"]),
        of_services(status["services"]),
    )


def headline(status: Row) -> Text:
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


def workers(rows: Iterable[Row]) -> Table:
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


def listeners(rows: Iterable[Row]) -> Table:
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


def of_services(rows: Iterable[Row]) -> RenderableType:
    return Group(*(part for row in rows for part in (service_line(row), endpoints(row["endpoints"]))))


def service_line(row: Row) -> Text:
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


def endpoints(rows: Iterable[Row]) -> Table:
    out = table(
        "endpoint", "version", "state", "health", "breaker", "weight", "in flight", "req/s", "err/s", "p50",
        "p99", "requests", "errors", "reuse",
    )  # fmt: skip
    for row in rows:
        out.add_row(
            row["address"],
            row["version"],
            state(state_of(row)),
            health(row),
            state(row["breaker"]),
            str(row["weight"]),
            str(row["in_flight"]),
            *rates(row),
            str(row["requests"]),
            str(row["errors"]),
            "-" if row["reuse"] is None else f"{row['reuse']:.0%}",
        )
    return out


def state_of(row: Row) -> str:
    """What keeps it from taking sessions, in one word: unhealthy counts more than what was asked for."""
    return "down" if row["health"] == "down" and row["admin"] == "ready" else str(row["admin"])


def health(row: Row) -> Text:
    """What checks say, with the reason unless all is well."""
    word = row["check"]
    if word is None:
        return Text("-", style=DIM)
    out = state(word)
    return out if word == "up" else out.append(f" {row['check_reason']}", style=DIM)


def health_line(row: Row) -> Text:
    out = Text(f"{row['service']}/{row['address']}  ", style="bold")
    out.append(row["status"], style=COLOURS.get(row["status"], ""))
    facts = [row["reason"]]
    if row["check"] is not None:
        facts += [f"check {row['check']}", f"since {when(row['since'])}", f"checked {when(row['checked'])}"]
        facts += [
            f"takes {ms(row['mean_ms'])}",
            f"passed {row['successes']}, failed {row['failures']} in a row",
        ]
    return out.append("  " + "  ".join(facts), style="not bold")


def health_turns(rows: Iterable[Row]) -> Table:
    out = table("when", "health", "reason")
    for row in rows:
        out.add_row(when(row["time"]), state(row["status"]), row["reason"])
    return out


def registered(rows: Iterable[Row], now: float) -> Table:
    """What is registered, of one or more services, and how it goes."""
    out = table(
        "endpoint", "version", "source", "state", "health", "breaker", "weight", "in flight", "req/s",
        "err/s", "p50", "p99", "lease", "note",
    )  # fmt: skip
    for row in rows:
        out.add_row(
            f"{row['service']}/{row['address']}",
            row["version"],
            row["source"],
            state(row["admin"]),
            health(row),
            state(row["breaker"]),
            str(row["weight"]),
            str(row["in_flight"]),
            *rates(row),
            "-" if row["expires"] is None else moments.span(max(row["expires"] - now, 0)),
            note(row),
        )
    return out


def note(row: Row) -> str:
    """Why it is not in force, or is out of the traffic, and until when."""
    if row["unfit"]:
        return f"not in force: {row['unfit']}"
    if row["admin"] == "ready":
        return " ".join(row["tags"])
    by, until = row["admin_by"], row["admin_until"]
    said = [row["admin_reason"]] if row["admin_reason"] else []
    said += [f"by {by}"] if by else []
    said += [f"until {moments.of_day(until)}"] if until else []
    return ", ".join(said)


def checks(rows: Iterable[Row], now: float) -> Table:
    """How endpoints are, one line each."""
    out = table("endpoint", "health", "check", "took", "mean", "good", "bad", "since", "checked", "reason")
    for row in rows:
        out.add_row(
            f"{row['service']}/{row['address']}",
            state(row["status"]),
            row["check"] or "-",
            ms(row["ms"]),
            ms(row["mean_ms"]),
            str(row["successes"]),
            str(row["failures"]),
            *("-" if row[name] is None else moments.ago(now - row[name]) for name in ("since", "checked")),
            row["reason"],
        )
    return out


def versions(rows: Iterable[Row]) -> Table:
    """Of the configuration."""
    out = table("version", "time", "who", "size", "digest", "note")
    for row in rows:
        out.add_row(
            str(row["version"]),
            moments.of_day(row["time"]),
            row["by"],
            str(row["size"]),
            row["digest"][:12],
            row["note"],
        )
    return out


def tokens(rows: Iterable[Row]) -> Table:
    out = table("id", "name", "role", "namespaces", "state", "expires", "last used", "created", "by")
    for row in rows:
        out.add_row(
            row["id"],
            row["name"],
            row["role"],
            " ".join(row["namespaces"]),
            state(row["state"]),
            *(when(row[name]) for name in ("expires", "last_used", "created")),
            row["created_by"],
        )
    return out


def when(epoch: float | None) -> str:
    return "-" if epoch is None else moments.of_day(epoch)


def changes(before: Any, after: Any) -> str:
    """What is different, in words; what is empty on both sides is left out."""
    if not isinstance(after, Mapping):
        return ""
    was = before if isinstance(before, Mapping) else {}
    return ", ".join(
        f"{name} {short(was[name])} → {short(value)}" if name in was else f"{name} {short(value)}"
        for name, value in after.items()
        if value != was.get(name) and (name in was or value not in (None, "", [], {}))
    )


def short(value: Any) -> str:
    """As one writes it; nothing for what is empty."""
    if value in (None, "", [], {}):
        return "-"
    if isinstance(value, Mapping):
        return " ".join(f"{name}={short(item)}" for name, item in value.items())
    if isinstance(value, list):
        return " ".join(map(short, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def audit(rows: Iterable[Row]) -> Table:
    out = table("entry", "time", "who", "role", "action", "subject", "result", "note")
    for row in rows:
        changed = changes(*(json.loads(row[side] or "null") for side in ("before", "after")))
        out.add_row(
            str(row["n"]),
            moments.of_day(row["time"] / 1000),
            f"{row['kind']} {row['actor']}".strip(),
            row["role"],
            row["action"],
            row["subject"],
            state(row["result"]),
            row["detail"] or changed,
        )
    return out


def rates(row: Row) -> tuple[str, str, str, str]:
    return f"{row['requests_per_s']:g}", f"{row['errors_per_s']:g}", ms(row["p50_ms"]), ms(row["p99_ms"])


def ms(value: float | None) -> str:
    if value is None:
        return "-"
    if value < 10_000:
        return f"{value:.2f} ms" if value < 10 else f"{value:.0f} ms"
    return f"{value / 1000:.1f} s"


def services(rows: Iterable[Row]) -> Table:
    """One line for each service."""
    out = table(
        "service", "kind", "source", "balance", "split", "endpoints", "in flight", "queue", "req/s", "err/s",
        "p50", "p99",
    )  # fmt: skip
    for row in rows:
        out.add_row(
            row["name"],
            row["kind"],
            row["source"],
            row["balance"],
            shares({v["version"]: v["share"] for v in row["split"]}) or "-",
            f"{row['available']}/{len(row['endpoints'])}",
            str(row["in_flight"]),
            str(row["queued"]),
            *rates(row),
        )
    return out


def shares(split: dict[str, float]) -> str:
    """As one writes them: v1=90% v2=10%."""
    return " ".join(f"{version}={share * 100:.6g}%" for version, share in split.items())
