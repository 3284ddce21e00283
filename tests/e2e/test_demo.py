"""`turnout demo` as users run it: what it prints works, and nothing is left of it."""

import asyncio
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile

import psutil
from harness.client import get, until
from harness.turnout import scenario

END_S = 20


class Demo:
    """One that runs; `said` is what it printed."""

    def __init__(self, child: asyncio.subprocess.Process, said: str) -> None:
        self.child = child
        self.said = said

    async def end(self) -> int:
        self.child.send_signal(signal.SIGINT)
        return await asyncio.wait_for(self.child.wait(), END_S)

    async def json(self, path: str) -> dict:
        """The answer to the request that is printed for that path."""
        found = re.search(rf"http://127\.0\.0\.1:(\d+){path}\s", self.said)
        assert found, self.said
        return json.loads((await get(int(found[1]), path)).body)


@contextlib.asynccontextmanager
async def demo(*options: str):
    mark = f"{os.getpid()}-{'-'.join(options)}"
    with tempfile.TemporaryDirectory(prefix="turnout-test-") as place:
        async with _demo(mark, {"TURNOUT_TEST": mark, "RUNTIME_DIRECTORY": place}, *options) as shown:
            yield shown


@contextlib.asynccontextmanager
async def _demo(mark: str, environment: dict[str, str], *options: str):
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "turnout", "demo", "--seconds", str(END_S), *options,
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env={**os.environ, **environment},
    )  # fmt: skip
    try:
        assert child.stdout
        said = ""
        while "ends after" not in said:
            line = await asyncio.wait_for(child.stdout.readline(), END_S)
            assert line, said
            said += line.decode()
        yield Demo(child, said)
    finally:
        with contextlib.suppress(ProcessLookupError):
            child.terminate()
        await asyncio.wait_for(child.wait(), END_S)
        await until(lambda: not marked(mark))


def marked(mark: str) -> list[int]:
    return [
        process.pid
        for process in psutil.process_iter(["environ"])
        if (process.info["environ"] or {}).get("TURNOUT_TEST") == mark
    ]


@scenario
async def test_the_demo_runs_tells_what_to_try_and_leaves_nothing():
    async with demo() as shown:
        answers = [await shown.json("/") for _ in range(20)]
        code = await shown.end()

    assert code == 0
    assert {answer["version"] for answer in answers} == {"v1", "v2"}
    assert len({answer["backend"] for answer in answers}) == 3


@scenario
async def test_the_demo_of_the_trading_preset_serves_every_service_of_it():
    async with demo("--preset", "trading") as shown:
        trading = {(await shown.json("/trading/orders"))["backend"] for _ in range(4)}
        balanced = [(await shown.json("/"))["backend"] for _ in range(40)]
        others = {path: (await shown.json(path))["backend"] for path in ("/api/accounts", "/ai/predict")}
        price = await first_price(shown)
        row = await ask_database(shown, b"select 1\n")
        code = await shown.end()

    assert code == 0
    assert trading == {"trading-1", "trading-2"}
    assert set(balanced) == {"server-1", "server-2"}
    assert balanced.count("server-1") > balanced.count("server-2")
    assert others == {"/api/accounts": "gateway", "/ai/predict": "models"}
    assert price["price"] > 0
    assert row == b"database: select 1\n"


async def first_price(shown: Demo) -> dict:
    found = re.search(r"http://127\.0\.0\.1:(\d+)/market/prices", shown.said)
    assert found
    async with connection(int(found[1])) as (reader, writer):
        writer.write(b"GET /market/prices HTTP/1.1\r\nHost: a\r\n\r\n")
        await reader.readuntil(b"data: ")
        return json.loads(await reader.readuntil(b"}"))


async def ask_database(shown: Demo, line: bytes) -> bytes:
    found = re.search(r'create_connection\(\("127\.0\.0\.1", (\d+)\)\)', shown.said)
    assert found
    async with connection(int(found[1])) as (reader, writer):
        writer.write(line)
        return await asyncio.wait_for(reader.readline(), END_S)


@contextlib.asynccontextmanager
async def connection(port: int):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield reader, writer
    finally:
        writer.close()
        await writer.wait_closed()
