"""Requests per second of the API: a proxy in processes of its own with 1 000 endpoints in force, and clients
that ask one after the other, alone and eight together. A change is counted when its answer has come: then it
is in the store, in the audit log and with every worker. `cpu` is the supervisor's, for each request.

`changes`: one client on one connection registers endpoints, gives each another weight and takes them out.
"""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import psutil

Row = dict[str, Any]
Ask = Callable[[int], Any]
"""A request, to be awaited or entered."""
Spread = Callable[[str, list[float]], Row]
SERVICES, ENDPOINTS = 20, 50
TOGETHER = (1, 8)
SECONDS = 2.0
WARM_UP = 10
PAUSE_S = 0.002
START_S = 30.0


@contextlib.asynccontextmanager
async def running(text: str, folder: Path, session: aiohttp.ClientSession) -> AsyncIterator[psutil.Process]:
    """The supervisor."""
    file = folder / "turnout.toml"
    file.write_text(text)
    command = [sys.executable, "-m", "turnout", "run", str(file)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        until = time.monotonic() + START_S
        while not await is_ready(session):
            if process.poll() is not None or time.monotonic() > until:
                raise SystemExit("the proxy does not start")
            await asyncio.sleep(0.05)
        yield psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait()


async def is_ready(session: aiohttp.ClientSession) -> bool:
    try:
        async with session.get("/readyz") as answer:
            return answer.status == 200
    except aiohttp.ClientError:
        return False


async def measure(ask: Ask, together: int) -> list[float]:
    """Milliseconds of each request."""
    until, taken, number = time.perf_counter() + SECONDS, list[float](), iter(range(1 << 30))

    async def client() -> None:
        while (start := time.perf_counter()) < until:
            async with await ask(next(number)) as answer:
                await answer.read()
                if answer.status >= 400:
                    raise SystemExit(f"refused: {await answer.text()}")
            taken.append((time.perf_counter() - start) * 1000)

    await asyncio.gather(*(client() for _ in range(together)))
    return taken


def requests(session: aiohttp.ClientSession, address: str) -> dict[str, Ask]:
    base = "/v1/services/s0"
    return {
        "GET service": lambda _: session.get(base),
        "GET endpoint": lambda _: session.get(f"{base}/endpoints/{address}"),
        "GET 50 endpoints": lambda _: session.get(f"{base}/endpoints"),
        "PATCH weight": lambda n: session.patch(f"{base}/endpoints/{address}", json={"weight": n % 9 + 1}),
        "register": lambda n: session.post(
            f"{base}/endpoints", json={"address": f"10.200.0.{n % 50 + 1}:80", "weight": n % 9 + 1}
        ),
        "GET status": lambda _: session.get("/v1/status"),
    }


class Meter:
    """CPU of a process."""

    def __init__(self, process: psutil.Process) -> None:
        self._process = process
        self._start = self._now()

    def _now(self) -> float:
        times = self._process.cpu_times()
        return float(times.user + times.system)

    def ms_each(self, count: int) -> float:
        return round((self._now() - self._start) * 1000 / count, 2)


@contextlib.asynccontextmanager
async def asked(text: str) -> AsyncIterator[tuple[aiohttp.ClientSession, psutil.Process]]:
    """`text` is a file whose API needs no token; FOLDER in it stands for one that is made here."""
    base = f"http://{tomllib.loads(text)['control']['listen']}"
    with tempfile.TemporaryDirectory(prefix="turnout-bench-") as name:
        async with (
            aiohttp.ClientSession(base) as session,
            running(text.replace("FOLDER", name), Path(name), session) as supervisor,
        ):
            yield session, supervisor


async def rates(text: str, address: str, spread: Spread) -> list[Row]:
    rows = list[Row]()
    async with asked(text) as (session, supervisor):
        for title, ask in requests(session, address).items():
            for together in TOGETHER:
                meter = Meter(supervisor)
                taken = await measure(ask, together)
                rows.append(
                    {
                        "mode": "api",
                        "request": title,
                        "clients": together,
                        "per_s": round(len(taken) / SECONDS),
                        **spread("answer", taken),
                        "cpu_ms": meter.ms_each(len(taken)),
                    }
                )
    return rows


def kinds(session: aiohttp.ClientSession) -> dict[str, Ask]:
    """Changes of one endpoint; each is done to all of them before the next begins."""
    base = "/v1/services/s0/endpoints"

    def address(number: int) -> str:
        return f"10.200.{number // 250}.{number % 250 + 1}:80"

    return {
        "register": lambda n: session.post(base, json={"address": address(n)}),
        "weight": lambda n: session.patch(f"{base}/{address(n)}", json={"weight": n % 9 + 2}),
        "deregister": lambda n: session.delete(f"{base}/{address(n)}"),
    }


async def changes(text: str, shape: str, count: int, spread: Spread) -> list[Row]:
    """A pause after each lets the proxy do what it does after its answer."""
    rows = list[Row]()
    async with asked(text) as (session, supervisor):
        for title, ask in kinds(session).items():
            meter, taken = Meter(supervisor), list[float]()
            for number in range(WARM_UP + count):
                start = time.perf_counter()
                async with ask(number) as answer:
                    if answer.status >= 400:
                        raise SystemExit(f"refused: {await answer.text()}")
                    await answer.read()
                taken.append((time.perf_counter() - start) * 1000)
                await asyncio.sleep(PAUSE_S)
            rows.append(
                {
                    "mode": "changes",
                    "shape": shape,
                    "change": title,
                    "count": count,
                    **spread("answer", taken[WARM_UP:]),
                    "cpu_ms": meter.ms_each(len(taken)),
                }
            )
    return rows
