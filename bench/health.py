"""What active checks cost: checks a second, and CPU, lateness and memory of the process that makes them.

    python bench/health.py                                           under two minutes
    python bench/health.py --endpoints 5000 --kinds http tcp --seconds 20 --json FILE

The prober of the supervisor alone in this process, with every endpoint an address of the loopback of its own
(127.x.y.z) and all of them answered by another process. After the first checks and a warm-up, so many
seconds are measured. `asked` is what the interval asks for: with 5 000 endpoints and 2 s, 2 500 a second.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import multiprocessing
import os
import platform
import statistics
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import psutil
import uvloop
from rich.console import Console
from rich.table import Table

from turnout.control.health.kinds import Checks
from turnout.control.health.prober import Prober
from turnout.control.health.remembered import Remembered
from turnout.control.serve import GARBAGE
from turnout.proxy.model import Config, Service

Row = dict[str, Any]
ANSWER = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 15\r\n\r\n" + b'{"status":"UP"}'
)
INTERVAL = "2s"
KINDS = {
    "tcp": {"interval": INTERVAL},
    "http": {"path": "/health", "interval": INTERVAL},
    "json": {"path": "/health", "values": {"/status": "UP"}, "interval": INTERVAL},
}
LOOK_S = 0.02


class Server(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, _data: bytes) -> None:
        self.transport.write(ANSWER)  # type: ignore[attr-defined]


def answer_all(pipe: Connection) -> None:
    """Every address of this machine, on one port; that is what goes into the pipe first."""

    async def serve() -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(Server, "0.0.0.0", 0, backlog=4096)
        pipe.send(server.sockets[0].getsockname()[1])
        await loop.run_in_executor(None, pipe.recv)

    uvloop.run(serve())


class Board:
    """Everything is in force, and what is found goes nowhere."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.up: set[tuple[str, str]] = set()

    def resolved(self, service: str) -> dict[str, str]:
        return {e.address: e.address for e in self.config.services[service].endpoints}

    def health_in_force(self, service: str, address: str) -> Any:
        return "up" if (service, address) in self.up else "down"

    def admin_in_force(self, _service: str, _address: str) -> Any:
        return "ready"

    def set_health(self, service: str, address: str, health: str) -> None:
        (self.up.add if health == "up" else self.up.discard)((service, address))


def checks_made(prober: Prober) -> int:
    return sum(sum(watched.memory.counted.values()) for watched in prober.watched())


async def measure(kind: str, endpoints: int, port: int, seconds: float) -> Row:
    addresses = [f"127.{1 + n // 62500}.{n // 250 % 250}.{n % 250 + 1}:{port}" for n in range(endpoints)]
    service = Service.model_validate({"endpoints": addresses, "health": KINDS[kind]})
    board = Board(Config(services={"all": service}))
    prober = Prober(board, Checks(Path()), Remembered(None), lambda *_args, **_data: None)
    before = psutil.Process().memory_info().rss
    start = time.perf_counter()
    prober.in_force(board.config)
    followed_ms = (time.perf_counter() - start) * 1000
    await prober.start()
    while len(board.up) < endpoints:
        await asyncio.sleep(LOOK_S)
    first_s = time.perf_counter() - start
    await asyncio.sleep(3.0)
    return {
        "kind": kind,
        "endpoints": endpoints,
        "asked_per_s": endpoints // 2,
        **await observed(prober, seconds),
        "follow_ms": round(followed_ms, 1),
        "first_all_up_s": round(first_s, 2),
        "memory_kb_each": round((psutil.Process().memory_info().rss - before) / 1024 / endpoints, 1),
        "up_at_end": len(board.up),
        **await closed(prober),
    }


async def observed(prober: Prober, seconds: float) -> Row:
    made, cpu, start = checks_made(prober), time.process_time(), time.perf_counter()
    lags, turns = [], []
    while time.perf_counter() - start < seconds:
        looked = time.perf_counter()
        await asyncio.sleep(LOOK_S)
        turns.append((time.perf_counter() - looked - LOOK_S) * 1000)
        lags.append(prober.lag * 1000)
    wall = time.perf_counter() - start
    made, cpu = checks_made(prober) - made, time.process_time() - cpu
    return {
        "made_per_s": round(made / wall),
        "cpu_percent": round(100 * cpu / wall, 1),
        "us_each": round(1e6 * cpu / made),
        "late_p50_ms": round(statistics.median(lags), 1),
        "late_p99_ms": round(sorted(lags)[int(len(lags) * 0.99)], 1),
        "loop_p99_ms": round(sorted(turns)[int(len(turns) * 0.99)], 1),
    }


async def closed(prober: Prober) -> Row:
    start = time.perf_counter()
    await prober.close()
    return {"close_ms": round((time.perf_counter() - start) * 1000)}


def main() -> None:
    parser = argparse.ArgumentParser(description="What active checks cost.")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--endpoints", nargs="+", type=int, default=[100, 1000, 5000])
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    ours, theirs = multiprocessing.Pipe()
    child = multiprocessing.get_context("spawn").Process(target=answer_all, args=(theirs,), daemon=True)
    child.start()
    gc.set_threshold(*GARBAGE)
    port = ours.recv()
    rows = [
        uvloop.run(measure(kind, number, port, args.seconds))
        for kind in args.kinds
        for number in args.endpoints
    ]
    ours.send(None)
    child.join()
    show(rows)
    if args.json:
        head = {"python": platform.python_version(), "cpus": os.cpu_count()}
        args.json.write_text(json.dumps({**head, "rows": rows}, indent=1) + "\n")


def show(rows: list[Row]) -> None:
    table = Table(title="checks")
    for key in rows[0]:
        table.add_column(key.replace("_", " "), justify="right")
    for row in rows:
        table.add_row(*map(str, row.values()))
    Console(width=160).print(table)


if __name__ == "__main__":
    main()
