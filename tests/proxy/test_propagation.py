"""Changes while traffic flows, with real workers: what has not changed does not notice."""

import asyncio
import contextlib
import socket
from dataclasses import replace

import pytest
from harness.client import Connection, get, load, until
from harness.origin import Origin
from harness.turnout import config, free_port, scenario

from turnout.proxy.config import parse
from turnout.proxy.crew import Pace
from turnout.proxy.model import Config, Endpoint
from turnout.proxy.supervisor import Supervisor

QUICK = replace(Pace(), look=0.1, hung_looks=30, settle=0.05)
NOBODY = "127.0.0.1:9"


class Registered:
    """A control side that has endpoints to add to, or to take from, those of the file."""

    def __init__(self, supervisor: Supervisor) -> None:
        self.supervisor = supervisor
        self.config = supervisor.config

    async def prepare(self, file: Config) -> None: ...

    def merge(self, file: Config) -> Config:
        return self.config

    def health_of(self, service: str, address: str) -> str:
        return "up"

    def admin_of(self, service: str, address: str) -> str:
        return "ready"

    def in_force(self, config: Config) -> None: ...

    async def start(self, *socks: object) -> None: ...

    async def close(self) -> None: ...

    async def put(self, name: str, *endpoints: Endpoint) -> int:
        service = self.config.services[name].model_copy(update={"endpoints": endpoints})
        self.config = self.config.model_copy(update={"services": {**self.config.services, name: service}})
        return await self.supervisor.refresh()


@contextlib.asynccontextmanager
async def registered(folder, text: str):
    file = folder / "turnout.toml"
    file.write_text(text)
    controls = []
    supervisor = Supervisor(
        file,
        parse(text, str(file)),
        control=lambda s: controls.append(Registered(s)) or controls[0],
        pace=QUICK,
    )
    running = asyncio.create_task(supervisor.run())
    await until(lambda: supervisor.state == "serving" or running.done())
    if running.done():
        running.result()
    try:
        yield controls[0]
    finally:
        supervisor.stop()
        assert await asyncio.wait_for(running, 20) == 0


def totals(control: Registered, service: str, address: str) -> dict:
    freezer = control.supervisor.freezer
    return control.supervisor.scoreboard.endpoint_totals(freezer.endpoint_slot(service, address))


OTHER = """
[services.other]
endpoints = []
[[routes]]
path = "/other"
service = "other"
"""


@scenario
async def test_a_hundred_registrations_under_load_fail_no_request_and_leave_pools_alone(tmp_path):
    port = free_port()
    async with (
        Origin() as origin,
        Origin() as second,
        registered(tmp_path, config(port, origin.address, more=OTHER)) as control,
        load(port, clients=8) as running,
    ):
        own = control.config.services["app"].endpoints
        held = await Connection.open(port)
        waiting = asyncio.create_task(held.get("/hold"))
        await until(lambda: totals(control, "app", origin.address)["inflight"])
        await running.more(40)
        before, opened = totals(control, "app", origin.address), set(origin.connections)
        for number in range(50):
            await control.put(
                "other", *[Endpoint(address=f"127.0.1.{n}:9") for n in range(1, number % 7 + 1)]
            )
            await control.put("app", *own, *[Endpoint(address=second.address)][: number % 2])
        await running.more(40)
        after = totals(control, "app", origin.address)
        origin.release.set()
        answer = await waiting
        held.close()

        assert running.failures == []
        assert answer.status == 200
        assert second.requests > 0
        assert opened <= origin.connections
        assert after["reused"] > before["reused"]
        assert after["outcomes"]["2xx"] > before["outcomes"]["2xx"]
        assert control.supervisor.version == 101
        assert control.supervisor.restarts == 0
    await until(lambda: not origin.connections)


@scenario
async def test_what_a_breaker_has_learned_stays_when_another_endpoint_comes(tmp_path):
    port = free_port()
    breaker = "breaker = { failures = 1, last = true }\nretries = { attempts = 0 }\n[[routes]]"
    text = config(port, NOBODY, more=OTHER).replace("[[routes]]", breaker, 1)
    async with Origin() as origin, registered(tmp_path, text) as control:
        assert (await get(port)).status == 502
        freezer, board = control.supervisor.freezer, control.supervisor.scoreboard
        slot = freezer.endpoint_slot("app", NOBODY)
        assert board.breaker(slot)["state"] == "open"
        own = control.config.services["app"].endpoints
        await control.put("app", *own, Endpoint(address=origin.address))
        await control.put("other", Endpoint(address="127.0.1.1:9"))

        assert [(await get(port)).status for _ in range(6)] == [200] * 6
        assert (board.breaker(slot)["state"], board.breaker(slot)["trips"]) == ("open", 1)


@scenario
async def test_a_service_without_endpoints_answers_503_until_it_has_some(tmp_path):
    port = free_port()
    async with Origin() as origin, registered(tmp_path, config(port, NOBODY, more=OTHER)) as control:
        board, slot = control.supervisor.scoreboard, control.supervisor.freezer.services.held["other"]
        none = [(await get(port, "/other")).status for _ in range(3)]
        counted = board.service_totals(slot)["no_endpoint"]
        await control.put("other", Endpoint(address=origin.address))
        some = [(await get(port, "/other")).status for _ in range(3)]
        await control.put("other")
        gone = (await get(port, "/other")).status

        assert (none, some, gone) == ([503] * 3, [200] * 3, 503)
        assert counted == 3
        assert board.service_totals(slot)["no_endpoint"] == 4
        assert board.service_totals(slot)["queued"] == 0


@pytest.mark.parametrize(
    "settings",
    ['sticky = { cookie = "c" }', "sticky = { source = true }", "split = { v1 = 1, v2 = 1 }", "panic = 1.0"]
    + [f'balance = "{name}"' for name in ("ip_hash", "consistent_hash", "least_response_time", "random")],
)
@scenario
async def test_endpoints_go_to_none_and_come_back_with_whatever_settings(tmp_path, settings):
    port = free_port()
    async with Origin() as origin:
        text = config(port, origin.address, workers=1).replace(
            "[services.app]", f"[services.app]\n{settings}"
        )
        async with registered(tmp_path, text) as control:
            own = control.config.services["app"].endpoints
            connection = await Connection.open(port)
            statuses = []
            for endpoints in (own, (), own, (), own):
                await control.put("app", *endpoints)
                statuses.append((await connection.get()).status)
            connection.close()

            assert statuses == [200, 503, 200, 503, 200]


RAW = """
[listeners.raw]
bind = "127.0.0.1:{tcp}"
protocol = "tcp"
[listeners.packets]
bind = "127.0.0.1:{udp}"
protocol = "udp"
[services.quotes]
[[routes]]
listener = "raw"
service = "other"
[[routes]]
listener = "packets"
service = "quotes"
"""


@scenario
async def test_without_endpoints_connections_are_closed_and_datagrams_dropped(tmp_path):
    tcp, udp = free_port(), free_port()
    more = OTHER + RAW.format(tcp=tcp, udp=udp)
    async with Origin() as origin, registered(tmp_path, config(free_port(), NOBODY, more=more)) as control:
        with pytest.raises((ConnectionError, EOFError)):  # reset as soon as it is accepted
            await get(tcp, timeout=10)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.sendto(b"x", ("127.0.0.1", udp))
        board, slots = control.supervisor.scoreboard, control.supervisor.freezer.services.held
        for name in ("other", "quotes"):
            await until(lambda name=name: board.service_totals(slots[name])["no_endpoint"] == 1)
        await control.put("other", Endpoint(address=origin.address))

        assert (await get(tcp)).status == 200


@scenario
async def test_a_worker_that_dies_between_changes_is_replaced_by_one_that_has_them_all(tmp_path):
    port = free_port()
    async with Origin() as origin, registered(tmp_path, config(port, NOBODY, more=OTHER)) as control:
        await control.put("other", Endpoint(address=origin.address))
        for seat in control.supervisor.crew.seats:
            seat.process.kill()
        await control.put("app", Endpoint(address=origin.address))
        await until(lambda: control.supervisor.restarts == 2 and control.supervisor.ready())

        assert [(await get(port, path)).status for path in ("/", "/other") * 4] == [200] * 8
