"""Times and durations on the command line."""

from __future__ import annotations

import time
from datetime import datetime, timedelta
from datetime import time as time_of_day

import typer

from turnout.proxy.units import parse_duration


def seconds(text: str) -> float:
    """Of "90s", "2h". Raises BadParameter."""
    try:
        ms = 0 if text == "off" else parse_duration(text)
    except ValueError:
        ms = 0
    if not ms:
        raise typer.BadParameter(f'"{text}" is no length of time; write "30s", "5m" or "2h"')
    return ms / 1000


def until(at: str | None, after: str | None) -> float | None:
    """When --until or --for is over, Unix epoch. Raises BadParameter."""
    if at is not None and after is not None:
        raise typer.BadParameter("give --until or --for, not both")
    if after is not None:
        return time.time() + seconds(after)
    return None if at is None else moment(at, datetime.now().astimezone())


def moment(text: str, now: datetime) -> float:
    """Local time unless it says its offset; a time of day is the next one. Raises BadParameter."""
    try:
        day = time_of_day.fromisoformat(text)
    except ValueError:
        return _date(text)
    at = datetime.combine(now.date(), day, day.tzinfo or now.tzinfo)
    return (at if at > now else at + timedelta(days=1)).timestamp()


def _date(text: str) -> float:
    try:
        return datetime.fromisoformat(text).astimezone().timestamp()
    except ValueError:
        raise typer.BadParameter(f'"{text}" is no time; write "18:30" or "2026-12-01 06:00"') from None


def of_day(epoch: float) -> str:
    """For tables, local time: the time of day, with the date unless that is today."""
    at = datetime.fromtimestamp(epoch).astimezone()
    form = "%H:%M:%S" if at.date() == datetime.now().astimezone().date() else "%Y-%m-%d %H:%M:%S"
    return at.strftime(form)


def ago(s: float) -> str:
    return f"{span(max(s, 0))} ago"


def span(s: float) -> str:
    """A rough duration: 12 s, 5 min, 3 h, 2 d."""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if s >= 2 * size:
            return f"{s / size:.0f} {unit}"
    return f"{s:.0f} s"
