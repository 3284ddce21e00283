"""What the engine's inner steps cost: a pick, a ring, a head.

    python bench/micro.py [--json FILE] [--no-callgrind]

Pick: select_pick and select_release together, one worker, every endpoint eligible, breaker on, a new key
each time. Times are those of the best of many short slices, since a machine that does other things as
well only adds to them; the median of the slices is printed beside it. Instructions are callgrind's count
inside these functions and what they call; they do not depend on what else the machine does. Without
valgrind they are left out.
"""

from __future__ import annotations

import argparse
import json
import platform
import re
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mmh3
from rich.console import Console
from rich.table import Table

from turnout.ext.http1 import _bench as bench_head
from turnout.ext.ring import _Ring
from turnout.ext.scoreboard import SHARE, Scoreboard
from turnout.ext.select import _Selector
from turnout.ext.snapshot import Snapshot

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from fakes.documents import document, member, service

STRATEGIES = (
    "round_robin",
    "least_connections",
    "weighted_round_robin",
    "ip_hash",
    "random",
    "least_response_time",
    "consistent_hash",
)
SIZES = (3, 100, 1000)
GOALS = {3: 50.0, 1000: 200.0}
"""ns per pick by number of endpoints"""
RING_GOAL_MS = 50.0
RING_POINTS = 160
SLICE_MS = 0.4
SLICES = 200
COUNTED = 20_000
"""calls under callgrind"""
PICK = ["select_select_pick", "select_select_release"]

HEADS = {
    "request, 4 fields": (
        "request",
        b"GET /orders/17?full=1 HTTP/1.1\r\nHost: api.example.com\r\nUser-Agent: wrk/4.1\r\n"
        b"Accept: */*\r\nConnection: keep-alive\r\n\r\n",
    ),
    "request, browser": (
        "request",
        b"GET /quotes/EURUSD HTTP/1.1\r\nHost: www.example.com\r\nConnection: keep-alive\r\n"
        b"User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0 "
        b"Safari/537.36\r\n"
        b"Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8\r\n"
        b"Accept-Encoding: gzip, deflate, br\r\nAccept-Language: en-GB,en;q=0.9,de;q=0.8\r\n"
        b"Cache-Control: no-cache\r\n"
        b"Cookie: session=0f2b8a7c6d5e4f3a2b1c0d9e8f7a6b5c; theme=dark; turnout=AAECAwQFBgcICQoLDA0ODw\r\n"
        b"Referer: https://www.example.com/quotes\r\nSec-Fetch-Dest: document\r\nSec-Fetch-Mode: navigate\r\n"
        b"Sec-Fetch-Site: same-origin\r\nUpgrade-Insecure-Requests: 1\r\n\r\n",
    ),
    "response, 5 fields": (
        "response",
        b"HTTP/1.1 200 OK\r\nServer: uvicorn\r\nDate: Tue, 24 Nov 2026 15:00:00 GMT\r\n"
        b"Content-Type: application/json\r\nContent-Length: 75\r\nConnection: keep-alive\r\n\r\n",
    ),
}

Row = dict[str, Any]


class Service:
    """One service with n endpoints, all eligible, and the selection of its one worker."""

    def __init__(self, strategy: str, n: int) -> None:
        self.board = Scoreboard.create(1, endpoints=max(8, n))
        rows = []
        for slot in range(n):
            self.board.use_endpoint(slot, slow_start=False)
            rows.append(member(slot, "app", f"10.0.{slot // 250}.{slot % 250 + 1}:80"))
        self.board.use_group(0, SHARE)
        self.selector = _Selector(self.board.fd, 0)
        tables = document(members=rows) | {
            "services": [service(0, "app", list(range(n)), strategy=strategy, slow_start_ms=0)]
        }
        self.selector.adopt(Snapshot(tables))

    def ns(self, times: int) -> float:
        return self.selector.bench(0, times)

    def close(self) -> None:
        del self.selector
        self.board.close()


def slices(measure: Callable[[int], float], count: int = SLICES) -> tuple[float, float]:
    """Best and median of many short slices, nanoseconds per call."""
    times = max(1, int(SLICE_MS * 1e6 / measure(2000)))
    found = [measure(times) for _ in range(count)]
    return min(found), statistics.median(found)


def callgrind(what: list[str], functions: list[str]) -> float | None:
    """Instructions of one call of the functions, with all they call; this file runs `what` COUNTED times."""
    if shutil.which("valgrind") is None:
        return None
    command = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", "--collect-atstart=no"]
    command += [f"--toggle-collect=*{function}*" for function in functions]
    command += [sys.executable, __file__, "--child", *what]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    counted = re.search(r"Collected : (\d+)", done.stderr)
    return int(counted[1]) / COUNTED if counted else None


def child(what: list[str]) -> None:
    """Under callgrind."""
    if what[0] == "head":
        bench_head(*HEADS[what[1]], COUNTED)
    else:
        Service(what[1], int(what[2])).ns(COUNTED)


def pick_rows(counting: bool) -> list[Row]:
    rows = []
    for strategy in STRATEGIES:
        for n in SIZES:
            place = Service(strategy, n)
            best, median = slices(place.ns)
            place.close()
            count = callgrind(["pick", strategy, str(n)], PICK) if counting else None
            rows.append(
                {
                    "what": "pick",
                    "strategy": strategy,
                    "endpoints": n,
                    "ns": best,
                    "median_ns": median,
                    "instructions": count,
                    "goal_ns": GOALS.get(n),
                }
            )
    return rows


def ring_rows() -> list[Row]:
    rows = []
    for n in SIZES:
        members = [(mmh3.hash64(f"app/{i}", signed=False)[0], i, RING_POINTS) for i in range(n)]
        ring = _Ring(members)
        spent = []
        for _ in range(10):
            started = time.perf_counter_ns()
            ring.build()
            spent.append((time.perf_counter_ns() - started) / 1e6)
        rows.append(
            {
                "what": "ring",
                "endpoints": n,
                "ms": min(spent),
                "median_ms": statistics.median(spent),
                "goal_ms": RING_GOAL_MS if n == max(SIZES) else None,
            }
        )
    return rows


def head_rows(counting: bool) -> list[Row]:
    rows = []
    for name, (kind, raw) in HEADS.items():
        best, median = slices(lambda times, kind=kind, raw=raw: bench_head(kind, raw, times))
        count = callgrind(["head", name], [f"http1_parse_{kind}"]) if counting else None
        rows.append(
            {
                "what": "head",
                "head": name,
                "bytes": len(raw),
                "ns": best,
                "median_ns": median,
                "instructions": count,
            }
        )
    return rows


def text(value: float | None, goal: float | None = None) -> str:
    if value is None:
        return "-"
    shown = f"{value:.0f}" if value >= 10 else f"{value:.2f}"
    if goal is None:
        return shown
    return f"[{'green' if value <= goal else 'red'}]{shown}[/] / {goal:.0f}"


def print_tables(rows: list[Row]) -> None:
    console = Console()
    picks = Table("pick", "endpoints", "ns / goal", "median ns", "instructions")
    rings = Table("ring of", "ms / goal", "median ms")
    heads = Table("head", "bytes", "ns", "median ns", "instructions")
    for row in rows:
        if row["what"] == "pick":
            cells = [text(row["ns"], row["goal_ns"]), text(row["median_ns"]), text(row["instructions"])]
            picks.add_row(row["strategy"], str(row["endpoints"]), *cells)
        elif row["what"] == "ring":
            rings.add_row(str(row["endpoints"]), text(row["ms"], row["goal_ms"]), text(row["median_ms"]))
        else:
            cells = [text(row["ns"]), text(row["median_ns"]), text(row["instructions"])]
            heads.add_row(row["head"], str(row["bytes"]), *cells)
    for table in (picks, rings, heads):
        console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there as well")
    parser.add_argument("--no-callgrind", action="store_true", help="times only")
    parser.add_argument("--child", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(options.child)
        return
    counting = not options.no_callgrind
    rows = [*pick_rows(counting), *ring_rows(), *head_rows(counting)]
    print_tables(rows)
    if options.json:
        machine = {"machine": platform.machine(), "python": platform.python_version()}
        options.json.write_text(json.dumps({**machine, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
