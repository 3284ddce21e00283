"""What the control side costs: how long a change takes until every worker has it.

    python bench/control.py                                          everything, under a minute
    python bench/control.py --modes propagation --shapes 1x1000 20x50 --changes 300 --json FILE

Propagation: a supervisor with two workers in a process of its own, SERVICESxENDPOINTS of them in force; one
endpoint comes, changes its weight in the configuration or goes, and the time runs from the call until the
last worker has acknowledged. `freeze` is the part in which the supervisor's loop stands still: making the
snapshot and trying it. The rest is the channel, the workers and the way back. Nothing else runs; `busy`
repeats it while a client keeps 32 requests under way.

API: requests per second of a whole proxy; changes: from the call of the API until its answer, which comes
when the last worker has acknowledged. See api.py.

A further mode is a function of the arguments that returns rows, entered in MODES.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import api
import psutil
import uvloop
from rich.console import Console
from rich.table import Table

from turnout.ext.scoreboard import Admin, Health
from turnout.proxy.config import parse
from turnout.proxy.model import Config, Endpoint, Service
from turnout.proxy.supervisor import Supervisor

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from harness.origin import Origin
from harness.turnout import free_port

Row = dict[str, Any]
WORKERS = 2
GOAL_MS = 10.0
"""p99 with 1 000 endpoints"""
SHAPES = ("1x1000", "20x50", "250x4")
LARGE = ("1x5000", "100x100")
WARM_UP = 10
CLIENTS = 32


# ---- a proxy and its configurations ----------------------------------------------------------------------


def addresses(service: int, count: int) -> list[str]:
    return [f"10.{service}.{n // 250}.{n % 250 + 1}:8000" for n in range(count)]


def text_of(folder: str, port: int, services: int, endpoints: int, origin: str, balance: str) -> str:
    tables = "".join(
        f'[services.s{i}]\nbalance = "{balance}"\nendpoints = {json.dumps(addresses(i, endpoints))}\n'
        f'[[routes]]\npath = "/s{i}"\nservice = "s{i}"\n'
        for i in range(services)
    )
    return (
        f'[proxy]\nworkers = {WORKERS}\nmax_endpoints = 16384\nstate = "{folder}/state"\n'
        f'[control]\nlisten = "127.0.0.1:{free_port()}"\nsocket = "off"\nauth = "none"\n'
        f'[listeners.web]\nbind = "127.0.0.1:{port}"\n[services.live]\nendpoints = ["{origin}"]\n'
        f'[[routes]]\npath = "/live"\nservice = "live"\n{tables}'
    )


class Registered:
    """A control side that has nothing but the configuration to put in force next."""

    def __init__(self, supervisor: Supervisor) -> None:
        self.config = supervisor.config

    async def prepare(self, file: Config) -> None: ...

    def merge(self, _file: Config) -> Config:
        return self.config

    def health_of(self, _service: str, _address: str) -> Health:
        return "up"

    def admin_of(self, _service: str, _address: str) -> Admin:
        return "ready"

    def in_force(self, config: Config) -> None: ...

    async def start(self, *_socks: object) -> None: ...

    async def close(self) -> None: ...


@contextlib.asynccontextmanager
async def serving(text: str, folder: Path) -> AsyncIterator[tuple[Supervisor, Registered]]:
    file = folder / "turnout.toml"
    file.write_text(text)
    controls: list[Registered] = []

    def control(supervisor: Supervisor) -> Registered:
        controls.append(Registered(supervisor))
        return controls[0]

    supervisor = Supervisor(file, parse(text, str(file)), control=control)
    running = asyncio.create_task(supervisor.run())
    while supervisor.state != "serving":
        await asyncio.sleep(0.01)
        if running.done():
            running.result()
    try:
        yield supervisor, controls[0]
    finally:
        supervisor.stop()
        await running


def with_endpoints(config: Config, name: str, endpoints: tuple[Endpoint, ...]) -> Config:
    service: Service = config.services[name].model_copy(update={"endpoints": endpoints})
    return config.model_copy(update={"services": {**config.services, name: service}})


def changes(config: Config, number: int, services: int) -> Config:
    """One endpoint comes, then changes, then goes, in one service after the other."""
    name = f"s{number // 3 % services}"
    own = config.services[name].endpoints
    if number % 3 == 0:
        return with_endpoints(config, name, (*own, Endpoint(address=f"10.255.{number // 3 % 250}.1:8000")))
    if number % 3 == 1:
        return with_endpoints(config, name, (*own[:-1], own[-1].model_copy(update={"weight": 3})))
    return with_endpoints(config, name, own[:-1])


# ---- propagation -----------------------------------------------------------------------------------------


class Watch:
    """Times the supervisor's own part of every change."""

    def __init__(self, supervisor: Supervisor) -> None:
        self.freeze_ms: list[float] = []
        inner = supervisor.freezer.freeze

        def freeze(*args: Any, **kwargs: Any) -> Any:
            start = time.perf_counter()
            try:
                return inner(*args, **kwargs)
            finally:
                self.freeze_ms.append((time.perf_counter() - start) * 1000)

        supervisor.freezer.freeze = freeze  # type: ignore[method-assign]


async def measure(supervisor: Supervisor, control: Registered, services: int, count: int) -> Row:
    watch, total = Watch(supervisor), []
    for number in range(WARM_UP + count):
        control.config = changes(supervisor.config, number, services)
        start = time.perf_counter()
        await supervisor.refresh()
        total.append((time.perf_counter() - start) * 1000)
        await asyncio.sleep(0.002)
    total, freeze = total[WARM_UP:], watch.freeze_ms[WARM_UP:]
    return {**spread("total", total), **spread("freeze", freeze)}


def spread(name: str, values: list[float]) -> Row:
    ordered = sorted(values)
    return {
        f"{name}_p50_ms": round(statistics.median(ordered), 3),
        f"{name}_p99_ms": round(ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))], 3),
        f"{name}_max_ms": round(ordered[-1], 3),
    }


async def client(port: int, failed: list[str], stop: asyncio.Event) -> None:
    """One request after the other over one connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    while not stop.is_set():
        writer.write(b"GET /live HTTP/1.1\r\nHost: x\r\n\r\n")
        head = await reader.readuntil(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200"):
            failed.append(head.decode())
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        await reader.readexactly(length)
    writer.close()


@contextlib.asynccontextmanager
async def traffic(port: int, busy: bool) -> AsyncIterator[None]:
    if not busy:
        yield
        return
    stop, failed = asyncio.Event(), list[str]()
    clients = [asyncio.create_task(client(port, failed, stop)) for _ in range(CLIENTS)]
    try:
        yield
    finally:
        stop.set()
        await asyncio.gather(*clients)
    if failed:
        raise SystemExit(f"{len(failed)} requests failed, the first with {failed[0]!r}")


async def propagation(args: argparse.Namespace) -> list[Row]:
    return [
        await propagate(shape, balance, busy, args.changes)
        for shape in args.shapes
        for balance in args.balance
        for busy in ((False, True) if args.busy else (False,))
    ]


async def propagate(shape: str, balance: str, busy: bool, count: int) -> Row:
    services, endpoints = (int(part) for part in shape.split("x"))
    with tempfile.TemporaryDirectory(prefix="turnout-bench-") as name:
        async with Origin() as origin:
            port = free_port()
            text = text_of(name, port, services, endpoints, origin.address, balance)
            async with serving(text, Path(name)) as (supervisor, control), traffic(port, busy):
                row = await measure(supervisor, control, services, count)
                pids = [worker.pid for worker in supervisor.worker_rows()]
                memory = [psutil.Process(pid).memory_info().rss for pid in (os.getpid(), *pids)]
    return {
        "mode": "propagation",
        "services": services,
        "endpoints": services * endpoints,
        "balance": balance,
        "busy": busy,
        "changes": count,
        **row,
        "supervisor_mb": round(memory[0] / 1e6, 1),
        "worker_mb": round(max(memory[1:]) / 1e6, 1),
    }


# ---- API -------------------------------------------------------------------------------------------------


async def api_rates(_args: argparse.Namespace) -> list[Row]:
    """Of a whole proxy; see api.py."""
    async with Origin() as origin:
        text = text_of("FOLDER", free_port(), api.SERVICES, api.ENDPOINTS, origin.address, "round_robin")
        return await api.rates(text, addresses(0, 1)[0], spread)


async def api_changes(args: argparse.Namespace) -> list[Row]:
    """Of a whole proxy, over HTTP; see api.py."""
    rows = list[Row]()
    for shape in args.shapes:
        services, endpoints = (int(part) for part in shape.split("x"))
        async with Origin() as origin:
            text = text_of("FOLDER", free_port(), services, endpoints, origin.address, "round_robin")
            rows += await api.changes(text, shape, args.changes, spread)
    return rows


# ---- the whole -------------------------------------------------------------------------------------------

Measure = Callable[[argparse.Namespace], Awaitable[list[Row]]]
MODES: dict[str, Measure] = {"propagation": propagation, "changes": api_changes, "api": api_rates}


def show(rows: list[Row]) -> None:
    for mode in dict.fromkeys(row["mode"] for row in rows):
        some = [row for row in rows if row["mode"] == mode]
        table = Table(title=mode)
        for key in list(some[0])[1:]:
            table.add_column(key.replace("_", " "), justify="right")
        for row in some:
            table.add_row(*(str(value) for value in list(row.values())[1:]))
        Console().print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description="What the control side costs.")
    parser.add_argument("--modes", nargs="+", choices=MODES, default=list(MODES))
    parser.add_argument("--shapes", nargs="+", default=[*SHAPES, *LARGE], metavar="SERVICESxENDPOINTS")
    parser.add_argument("--balance", nargs="+", default=["round_robin"])
    parser.add_argument("--changes", type=int, default=300, help="measured for each shape")
    parser.add_argument("--busy", action="store_true", help="also with requests under way")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    rows: list[Row] = []
    for mode in args.modes:
        rows += uvloop.run(MODES[mode](args))  # type: ignore[arg-type]
    show(rows)
    if args.json:
        head = {"python": platform.python_version(), "cpus": os.cpu_count(), "workers": WORKERS}
        args.json.write_text(json.dumps({**head, "goal_p99_ms": GOAL_MS, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
