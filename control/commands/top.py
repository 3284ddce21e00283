"""`turnout top`: what goes on, service by service, version by version, endpoint by endpoint."""

from __future__ import annotations

import contextlib
import os
import select
import sys
import termios
import time
import tty
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from turnout.control.client import Client, ClientError
from turnout.control.commands import completion, output, tables
from turnout.control.commands.options import PANEL, Interval, Json, Url, connect

app = typer.Typer(rich_markup_mode="rich")


class Sort(StrEnum):
    """What rows are sorted by, largest first but for names."""

    NAME = "name"
    REQUESTS = "requests"
    ERRORS = "errors"
    P50 = "p50"
    P99 = "p99"
    IN_FLIGHT = "in-flight"


class Level(StrEnum):
    SERVICE = "service"
    VERSION = "version"
    ENDPOINT = "endpoint"


DEPTH = {level: depth for depth, level in enumerate(Level)}
FIELD = {
    Sort.REQUESTS: "requests_per_s",
    Sort.ERRORS: "errors_per_s",
    Sort.P50: "p50_ms",
    Sort.P99: "p99_ms",
    Sort.IN_FLIGHT: "in_flight",
}
SORT_KEYS = {
    "n": Sort.NAME, "r": Sort.REQUESTS, "x": Sort.ERRORS, "5": Sort.P50, "9": Sort.P99, "i": Sort.IN_FLIGHT,
}  # fmt: skip
LEVEL_KEYS = {"s": Level.SERVICE, "v": Level.VERSION, "e": Level.ENDPOINT}
UP, DOWN = ("k", "\x1b[A", "\x1bOA"), ("j", "\x1b[B", "\x1bOB")
KEYS = "n r x 5 9 i: sort   s v e: detail   j k: move   q: quit"

COLUMNS = (
    # title, how wide a terminal has to be for it
    ("req/s", 0),
    ("err/s", 28),
    ("p50", 58),
    ("p99", 38),
    ("in flight", 48),
    ("share", 84),
    ("weight", 92),
    ("state", 68),
)
NAME_MIN = 12
FRAME = 4
"""Lines around the rows: the heading, the keys, the table's head and its rule."""


@dataclass(frozen=True)
class Row:
    level: Level
    service: str
    version: str | None
    address: str | None
    facts: dict[str, Any] = field(hash=False)

    @property
    def title(self) -> str:
        own = (self.service, self.version, self.address)[DEPTH[self.level]]
        return "  " * DEPTH[self.level] + str(own)

    def as_json(self) -> dict[str, Any]:
        return {
            "level": self.level,
            "service": self.service,
            "version": self.version,
            "address": self.address,
            **self.facts,
        }


def rows_of(status: Any, sort: Sort, level: Level, only: str | None = None) -> list[Row]:
    """Services with their versions and endpoints below them, each level sorted by itself."""
    out: list[Row] = []
    for service in ordered(status["services"], sort, "name"):
        if only is None or service["name"] == only:
            out += _of_service(service, sort, level)
    return out


def _of_service(service: Any, sort: Sort, level: Level) -> Iterator[Row]:
    name = service["name"]
    yield Row(Level.SERVICE, name, None, None, _facts(service))
    if level is Level.SERVICE:
        return
    shares = {row["version"]: row["share"] for row in service["split"]}
    for version in ordered(service["versions"], sort, "version"):
        own = version["version"]
        share = {"share": shares[own]} if own in shares else {}
        yield Row(Level.VERSION, name, own, None, _facts(version) | share)
        if level is Level.ENDPOINT:
            mine = [row for row in service["endpoints"] if row["version"] == own]
            for row in ordered(mine, sort, "address"):
                facts = _facts(row) | {"weight": row["weight"], "state": tables.state_of(row)}
                yield Row(Level.ENDPOINT, name, own, row["address"], facts)


def _facts(row: Any) -> dict[str, Any]:
    return {name: row[name] for name in FIELD.values()}


def ordered(rows: Sequence[Any], sort: Sort, name: str) -> list[Any]:
    if sort is Sort.NAME:
        return sorted(rows, key=lambda row: str(row[name]))
    return sorted(rows, key=lambda row: (-(row[FIELD[sort]] or 0), str(row[name])))


# ---- on the screen -----------------------------------------------------------------------------------------


@dataclass
class View:
    """How it is looked at, and what is looked at."""

    sort: Sort
    level: Level
    only: str | None = None
    at: int = 0
    """The first row that is shown."""
    status: Any = None
    trouble: str = ""

    def press(self, key: str) -> bool:
        """False: the end is wanted."""
        if key in {"q", "\x03", "\x1b"}:
            return False
        self.sort = SORT_KEYS.get(key, self.sort)
        self.level = LEVEL_KEYS.get(key, self.level)
        if key in UP:
            self.at = max(self.at - 1, 0)
        if key in DOWN:
            self.at += 1
        return True

    def rows(self) -> list[Row]:
        return rows_of(self.status, self.sort, self.level, self.only)

    def drawn(self, width: int, height: int) -> RenderableType:
        """Cut to the terminal."""
        rows = self.rows()
        room = max(height - FRAME, 1)
        self.at = max(min(self.at, len(rows) - room), 0)
        some = rows[self.at : self.at + room]
        hidden = len(rows) - len(some)
        more = f"   {hidden} more rows" if hidden else ""
        foot = Text(KEYS + more, style="dim", no_wrap=True, overflow="crop")
        return Group(self._heading(), table(some, self.sort, width), foot)

    def _heading(self) -> Text:
        status = self.status
        total = sum(row["requests_per_s"] for row in status["listeners"])
        text = Text(f"turnout {status['state']}", style="bold", no_wrap=True, overflow="crop")
        text.append(f"  {total:g} req/s  {time.strftime('%H:%M:%S')}", style="not bold")
        if self.trouble:
            text.append(f"  {self.trouble}", style="red")
        return text


def table(rows: Sequence[Row], sort: Sort, width: int) -> Table:
    """The columns that there is room for."""
    columns = [title for title, needs in COLUMNS if width >= needs]
    out = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1, 0, 0))
    out.add_column("service", no_wrap=True, overflow="ellipsis", min_width=NAME_MIN, ratio=None)
    for title in columns:
        mark = "▾" if sort is not Sort.NAME and title == SHOWN[sort] else ""
        out.add_column(title + mark, justify="left" if title == "state" else "right", no_wrap=True)
    for row in rows:
        cells = (CELLS[title](row.facts) for title in columns)
        out.add_row(row.title, *cells, style="bold" if row.level is Level.SERVICE else "")
    return out


SHOWN = {
    Sort.REQUESTS: "req/s", Sort.ERRORS: "err/s", Sort.P50: "p50", Sort.P99: "p99",
    Sort.IN_FLIGHT: "in flight",
}  # fmt: skip


CELLS: dict[str, Callable[[dict[str, Any]], RenderableType]] = {
    "req/s": lambda facts: f"{facts['requests_per_s']:g}",
    "err/s": lambda facts: Text(f"{facts['errors_per_s']:g}", style="red" if facts["errors_per_s"] else ""),
    "p50": lambda facts: tables.ms(facts["p50_ms"]),
    "p99": lambda facts: tables.ms(facts["p99_ms"]),
    "in flight": lambda facts: str(facts["in_flight"]),
    "share": lambda facts: f"{facts['share'] * 100:.6g}%" if "share" in facts else "",
    "weight": lambda facts: str(facts.get("weight", "")),
    "state": lambda facts: tables.state(facts["state"]) if "state" in facts else "",
}


# ---- the command -------------------------------------------------------------------------------------------


@app.command(rich_help_panel=PANEL)
def top(
    sort: Annotated[Sort, typer.Option(help="What comes first; a key changes it.")] = Sort.REQUESTS,
    by: Annotated[Level, typer.Option(help="How much detail; a key changes it.")] = Level.ENDPOINT,
    service: Annotated[
        str | None, typer.Option(help="Only this one.", autocompletion=completion.services)
    ] = None,
    interval: Interval = 1.0,
    once: Annotated[bool, typer.Option("--once", help="Print it once.")] = False,
    as_json: Json = False,
    api: Url = None,
) -> None:
    """Requests, errors, times and requests under way, live. As JSON: a line for each look."""
    running = connect(api)
    view = View(sort, by, service, status=running.status())
    with contextlib.suppress(KeyboardInterrupt):
        if as_json:
            tell(running, view, interval, once)
        elif once:
            console = output.console()
            console.print(table(view.rows(), view.sort, console.width))
        else:
            watch(running, view, interval)


def tell(running: Client, view: View, interval: float, once: bool) -> None:
    while True:
        output.line({"time": time.time(), "rows": [row.as_json() for row in view.rows()]})
        if once:
            return
        time.sleep(interval)
        view.status = running.status()


def watch(running: Client, view: View, interval: float) -> None:
    console = output.console()
    with keys() as pressed, Live(console=console, screen=console.is_terminal, auto_refresh=False) as live:
        while True:
            live.update(view.drawn(*console.size), refresh=True)
            deadline = time.monotonic() + interval
            while (left := deadline - time.monotonic()) > 0:
                key = pressed(left)
                if key is not None:
                    if not view.press(key):
                        return
                    live.update(view.drawn(*console.size), refresh=True)
            try:
                view.status, view.trouble = running.status(), ""
            except ClientError as error:
                view.trouble = str(error)


@contextlib.contextmanager
def keys() -> Iterator[Any]:
    """A function that waits for a key, so many seconds at most. Without a terminal none comes."""
    if not sys.stdin.isatty():
        yield _none
        return
    fd = sys.stdin.fileno()
    before = termios.tcgetattr(fd)
    tty.setcbreak(fd)

    def pressed(seconds: float) -> str | None:
        if not select.select([fd], [], [], seconds)[0]:
            return None
        return os.read(fd, 16).decode(errors="replace")

    try:
        yield pressed
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, before)


def _none(seconds: float) -> None:
    time.sleep(seconds)
