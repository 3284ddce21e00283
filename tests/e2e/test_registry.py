"""Services and endpoints that come and go at run time, with real workers and a store on disk."""

import asyncio
import contextlib
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

import aiohttp
from harness.client import get, load, until
from harness.origin import Origin
from harness.turnout import Turnout, config, free_port, scenario, turnout

from turnout.control.plane import Plane
from turnout.proxy.config import parse
from turnout.proxy.crew import Pace
from turnout.proxy.supervisor import Supervisor

QUICK = replace(Pace(), settle=0.05)
REGISTERING = Path(__file__).parents[1] / "fakes" / "registering.py"
ROUNDS = 10
SPLIT = "split = { v1 = 1, v2 = 1 }\n"


@contextlib.asynccontextmanager
async def running(folder: Path, text: str):
    """A supervisor in this process, and its registry; drained after the block."""
    file = folder / "turnout.toml"
    file.write_text(text)
    supervisor = Supervisor(file, parse(text, str(file)), control=Plane, pace=QUICK)
    task = asyncio.create_task(supervisor.run())
    await until(lambda: supervisor.state == "serving" or task.done())
    if task.done():
        task.result()
    try:
        yield supervisor, supervisor.control.registry
    finally:
        supervisor.stop()
        assert await asyncio.wait_for(task, 20) == 0


def without_endpoints(port: int, more: str = "", **options) -> str:
    return config(port, "X", **options).replace('endpoints = ["X"]\n', more)


async def bodies(port: int, number: int) -> set[bytes]:
    return {(await get(port)).body for _ in range(number)}


@scenario
async def test_a_service_without_endpoints_answers_503_until_some_register(tmp_path):
    port = free_port()
    async with Origin() as origin, running(tmp_path, without_endpoints(port)) as (supervisor, registry):
        assert (await get(port)).status == 503
        applied = await registry.register("app", {"address": origin.address}, by="test")
        assert applied.snapshot == supervisor.version == 2
        assert {row.snapshot for row in supervisor.worker_rows()} == {2}
        assert (await get(port)).status == 200
        await registry.deregister("app", origin.address, by="test")
        assert (await get(port)).status == 503


@scenario
async def test_endpoints_come_and_go_under_load_and_no_request_fails(tmp_path):
    port = free_port()
    async with (
        Origin() as one,
        Origin() as two,
        running(tmp_path, config(port, one.address)) as (_, registry),
        load(port, path="/slow/5", clients=8) as running_load,
    ):
        for _ in range(20):
            await registry.register("app", {"address": two.address, "weight": 3}, by="test")
            await running_load.more(4)
            await registry.set_admin("app", one.address, "drain", by="test")
            await running_load.more(4)
            await registry.set_admin("app", one.address, "ready", by="test")
            await registry.deregister("app", two.address, by="test")
        await running_load.more(20)
        assert running_load.failures == []
        assert two.requests > 0


@scenario
async def test_all_that_was_registered_and_set_is_there_from_the_first_request_after_a_restart(tmp_path):
    port = free_port()
    text = without_endpoints(port, SPLIT)
    async with Origin() as one, Origin() as two, Origin() as three:
        async with running(tmp_path, text) as (_, registry):
            for origin, version in ((one, "v1"), (two, "v2"), (three, "v1")):
                await registry.register("app", {"address": origin.address, "version": version}, by="test")
            await registry.set_split("app", {"v1": 1}, by="test")
            await registry.set_admin("app", one.address, "maint", reason="disk", by="test")
            await registry.set_weight("app", three.address, 9, by="test")
            await registry.put_service("trading:risk", {"balance": "random"}, by="test")
            assert await bodies(port, 8) == {f"origin {three.port}".encode()}
        async with running(tmp_path, text) as (supervisor, registry):
            assert supervisor.version == 1, "all in the first snapshot"
            assert await bodies(port, 8) == {f"origin {three.port}".encode()}
            slots = supervisor.freezer.endpoint_slots("app")
            rows = {address: supervisor.scoreboard.endpoint(slot) for address, slot in slots.items()}
            assert rows[one.address]["admin"] == "maint"
            assert rows[three.address]["weight"] == 9
            assert registry.service("app").settings.split == {"v1": 1, "v2": 0}
            assert registry.service("trading:risk").settings.balance == "random"
            await registry.set_split("app", {"v2": 1}, by="test")
            assert await bodies(port, 8) == {f"origin {two.port}".encode()}


@scenario
async def test_a_reload_keeps_what_is_registered_and_may_overrule_what_was_set(tmp_path):
    port = free_port()
    async with (
        Origin() as one,
        Origin() as two,
        running(tmp_path, config(port, one.address)) as (supervisor, registry),
    ):
        await registry.register("app", {"address": two.address}, by="test")
        await registry.set_weight("app", one.address, 0, by="test")
        await supervisor.reload()
        assert await bodies(port, 8) == {f"origin {two.port}".encode()}
        text = supervisor.file.read_text()
        endpoint = f'{{ address = "{one.address}", weight = 2 }}'
        supervisor.file.write_text(text.replace(f'"{one.address}"', endpoint))
        await supervisor.reload()
        assert registry.endpoint("app", one.address).weight == 2
        assert len(await bodies(port, 12)) == 2


@scenario
async def test_a_lease_that_nobody_renews_ends_by_itself(tmp_path):
    port = free_port()
    async with (
        Origin() as one,
        Origin() as two,
        running(tmp_path, config(port, one.address)) as (supervisor, registry),
    ):
        await registry.register("app", {"address": two.address}, by="test", lease_ttl=1)
        async for event in supervisor.control.events.watch(0):
            if event.kind == "endpoint.expired":
                break
        await until(lambda: len(supervisor.config.services["app"].endpoints) == 1)
        assert await bodies(port, 4) == {f"origin {one.port}".encode()}


class Book:
    """What a registering proxy has written down."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def lines(self) -> list[list[str]]:
        """Whole ones."""
        text = self.path.read_text() if self.path.exists() else ""
        return [line.split() for line in text[: text.rfind("\n") + 1].splitlines()]

    def count(self, word: str) -> int:
        return sum(line[0] == word for line in self.lines())

    def rounds(self) -> list[list[list[str]]]:
        out: list[list[list[str]]] = []
        for line in self.lines():
            if line[0] == "start":
                out.append([])
            out[-1].append(line)
        return out


def allowed(known: dict[str, set[str]], lines: list[list[str]]) -> dict[str, set[str]]:
    """Address -> states it may be found in: the last acknowledged one, and one that was under way."""
    out = {address: set(states) for address, states in known.items()}
    for word, address, state in (line for line in lines if line[0] in {"try", "ok"}):
        if word == "ok":
            out[address] = {state}
        else:
            out.setdefault(address, {"gone"}).add(state)
    return out


@scenario
async def test_kill_9_in_the_middle_of_writes_loses_no_write_that_was_acknowledged(tmp_path):
    book = Book(tmp_path / "book")
    file = tmp_path / "turnout.toml"
    file.write_text(without_endpoints(free_port(), workers=1))
    proxy = Turnout(file, env={**os.environ, "TURNOUT_TEST": str(file), "RUNTIME_DIRECTORY": str(tmp_path)})
    command = (sys.executable, str(REGISTERING), str(book.path))
    try:
        for number in range(ROUNDS):
            await proxy.start(command)
            wanted = book.count("ok") + 10 + 3 * number  # not always at the same point
            await until(lambda wanted=wanted: book.count("ok") >= wanted or proxy.failed)
            assert not proxy.failed, proxy.text
            os.kill(proxy.child.pid, signal.SIGKILL)
            await proxy.exit_code()
        await proxy.start(command)
        await until(lambda: book.count("serving") == ROUNDS + 1 or proxy.failed)
    finally:
        for child, _ in proxy.started:
            with contextlib.suppress(ProcessLookupError):
                child.kill()
        await proxy.clean_up()

    states: dict[str, set[str]] = {}
    for lines in book.rounds():
        found = {address: state for word, address, state in (line for line in lines if line[0] == "is")}
        for address, may_be in states.items():
            assert found.get(address, "gone") in may_be, (address, found.get(address), may_be)
        assert found.keys() <= states.keys()
        known = {address: {found.get(address, "gone")} for address in states}
        states = allowed(known, lines)
    assert len(states) > 4


@scenario
async def test_an_upgrade_in_the_middle_of_writes_loses_none_that_was_acknowledged(tmp_path):
    port, control = free_port(), free_port()
    async with (
        Origin() as origin,
        turnout(tmp_path, config(port, origin.address, control=control)) as proxy,
        aiohttp.ClientSession(f"http://127.0.0.1:{control}") as session,
    ):
        path = f"/v1/services/app/endpoints/{origin.address}"
        acknowledged, stopping = [0], False

        async def write() -> None:
            weight = 0
            while not stopping:
                weight += 1
                with contextlib.suppress(aiohttp.ClientConnectionError):
                    async with session.put(path, json={"weight": weight}) as answer:
                        if answer.status == 200:
                            acknowledged.append(weight)

        writing = asyncio.create_task(write())
        await until(lambda: len(acknowledged) > 5)
        async with session.post("/v1/upgrade", json={}) as answer:
            assert answer.status == 200, await answer.text()
        before = len(acknowledged)
        await until(lambda: len(acknowledged) > before + 5)
        stopping = True
        await writing
        await proxy.serving(2)
        async with session.get("/v1/status") as answer:
            (service,) = (await answer.json())["services"]
        assert service["endpoints"][0]["weight"] == acknowledged[-1]
        await proxy.stop()
        await proxy.start()
        await proxy.serving(3)
        async with session.get("/v1/status") as answer:
            (service,) = (await answer.json())["services"]
        assert service["endpoints"][0]["weight"] == acknowledged[-1]
