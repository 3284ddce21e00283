"""Checks decide who gets requests: a whole proxy with endpoints that fall ill and recover."""

import asyncio
import contextlib
import json
import urllib.request

from harness.client import get, load, until
from harness.turnout import config, free_port, scenario, turnout

CHECKS = '{ path = "/health", interval = "100ms", fast = "50ms", slow = "100ms", slow_max = "100ms" }'


class Backend:
    """An endpoint with a health page. `port` stays its own while it is stopped."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.port = free_port()
        self.status = 200
        self.requests = self.probes = 0
        self.server: asyncio.Server | None = None
        self.writers: set[asyncio.StreamWriter] = set()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def start(self) -> None:
        self.server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, reuse_port=True)

    async def stop(self) -> None:
        if self.server is not None:
            self.server.close()
            for writer in list(self.writers):
                writer.transport.abort()
            await self.server.wait_closed()
            self.server = None
            await asyncio.sleep(0)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.add(writer)
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while head := await reader.readuntil(b"\r\n\r\n"):
                is_probe = b" /health " in head.splitlines()[0]
                self.probes += is_probe
                self.requests += not is_probe
                status = self.status if is_probe else 200
                body = self.name.encode()
                writer.write(b"HTTP/1.1 %d x\r\nContent-Length: %d\r\n\r\n%s" % (status, len(body), body))
                await writer.drain()
        self.writers.discard(writer)
        writer.close()


@contextlib.asynccontextmanager
async def backends(*names: str):
    some = [Backend(name) for name in names]
    for one in some:
        await one.start()
    try:
        yield some
    finally:
        for one in some:
            await one.stop()


def checked(port: int, some: list[Backend], health: str = CHECKS, *, control: int = 0, more: str = "") -> str:
    listed = '", "'.join(one.address for one in some)
    return config(port, listed, control=control).replace(
        "[[routes]]", f"health = {health}\nbreaker = {{ failures = 0 }}\npanic = 0\n{more}\n[[routes]]", 1
    )


def status_of(control: int) -> dict:
    with urllib.request.urlopen(f"http://127.0.0.1:{control}/v1/status") as answer:
        return json.load(answer)


async def health_of(control: int, address: str) -> str:
    status = await asyncio.to_thread(status_of, control)
    rows = {row["address"]: row for row in status["services"][0]["endpoints"]}
    return rows[address]["health"]


async def is_health(control: int, address: str, word: str) -> None:
    async with asyncio.timeout(20):
        while await health_of(control, address) != word:
            await asyncio.sleep(0.02)


@scenario
async def test_an_endpoint_that_says_it_is_ill_gets_nothing_until_it_is_well(tmp_path):
    port, control = free_port(), free_port()
    async with (
        backends("a", "b") as (a, b),
        turnout(tmp_path, checked(port, [a, b], control=control)) as proxy,
    ):
        await is_health(control, a.address, "up")
        await is_health(control, b.address, "up")
        async with load(port) as running:
            await running.more(50)
            a.status = 503
            await is_health(control, a.address, "down")
            await running.more(20)
            before = a.requests
            await running.more(50)
            assert a.requests == before
            a.status = 200
            await is_health(control, a.address, "up")
            await running.more(50)
            assert a.requests > before

        assert running.failures == []
        assert proxy.said("endpoint is down")
        assert any("status 503, expected 200-299" in line for line in proxy.said("endpoint is down"))
        assert proxy.said("endpoint is up")


@scenario
async def test_a_backend_that_dies_is_out_and_comes_back(tmp_path):
    port, control = free_port(), free_port()
    async with backends("a", "b") as (a, b), turnout(tmp_path, checked(port, [a, b], control=control)):
        await is_health(control, a.address, "up")
        await is_health(control, b.address, "up")
        await a.stop()
        await is_health(control, a.address, "down")
        assert {(await get(port)).body for _ in range(10)} == {b"b"}
        await a.start()
        await is_health(control, a.address, "up")
        assert {(await get(port)).body for _ in range(10)} == {b"a", b"b"}


@scenario
async def test_a_service_none_of_whose_endpoints_is_sound_answers_503_and_recovers(tmp_path):
    port, control = free_port(), free_port()
    async with backends("a") as (a,), turnout(tmp_path, checked(port, [a], control=control)):
        await is_health(control, a.address, "up")
        a.status = 500
        await is_health(control, a.address, "down")
        assert (await get(port)).status == 503
        a.status = 200
        await is_health(control, a.address, "up")
        assert (await get(port)).status == 200


@scenario
async def test_after_a_restart_endpoints_serve_before_their_first_check(tmp_path):
    port, control = free_port(), free_port()
    async with backends("a") as (a,):
        text = checked(port, [a], control=control)
        async with turnout(tmp_path, text) as proxy:
            await is_health(control, a.address, "up")
            assert await proxy.stop() == 0
        slow = CHECKS.replace("100ms", "30s").replace("50ms", "30s")
        async with turnout(tmp_path, checked(port, [a], slow, control=control)) as proxy:
            assert (await get(port)).status == 200
            assert await proxy.stop() == 0


@scenario
async def test_a_reload_adds_and_takes_away_checks_without_a_lost_request(tmp_path):
    port, control = free_port(), free_port()
    async with backends("a", "b") as (a, b):
        plain = config(port, f'{a.address}", "{b.address}', control=control)
        async with turnout(tmp_path, plain) as proxy, load(port) as running:
            await running.more(20)
            proxy.file.write_text(checked(port, [a, b], control=control))
            await proxy.reload()
            await until(lambda: a.probes > 2 and b.probes > 2)
            a.status = 503
            await is_health(control, a.address, "down")
            proxy.file.write_text(plain)
            await proxy.reload()
            assert await health_of(control, a.address) == "up"
            probes = a.probes
            await running.more(50)
            assert a.probes <= probes + 1

        assert running.failures == []
