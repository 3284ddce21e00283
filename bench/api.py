"""Requests per second of the API: a proxy in processes of its own with 1 000 endpoints in force, and clients
that ask one after the other, alone and eight together. A change is counted when its answer has come: then it
is in the store, in the audit log and with every worker.
"""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp

Row = dict[str, Any]
Ask = Callable[[int], Awaitable[aiohttp.ClientResponse]]
SERVICES, ENDPOINTS = 20, 50
TOGETHER = (1, 8)
SECONDS = 2.0
START_S = 30.0


@contextlib.asynccontextmanager
async def running(text: str, folder: Path, session: aiohttp.ClientSession) -> AsyncIterator[None]:
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
        yield
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


async def rates(text: str, address: str, spread: Callable[[str, list[float]], Row]) -> list[Row]:
    """`text` is a file whose API needs no token; FOLDER in it stands for one that is made here."""
    base = f"http://{tomllib.loads(text)['control']['listen']}"
    with tempfile.TemporaryDirectory(prefix="turnout-bench-") as name:
        async with (
            aiohttp.ClientSession(base) as session,
            running(text.replace("FOLDER", name), Path(name), session),
        ):
            return [
                {
                    "mode": "api",
                    "request": title,
                    "clients": together,
                    "per_s": round(len(taken) / SECONDS),
                    **spread("answer", taken),
                }
                for title, ask in requests(session, address).items()
                for together in TOGETHER
                for taken in [await measure(ask, together)]
            ]
