"""A supervisor inside the test, with real workers: what control asks of it, and what the scoreboard says."""

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from harness.client import Connection, get, load, until
from harness.origin import Origin
from harness.turnout import config, free_port, scenario

from turnout.proxy import process
from turnout.proxy.config import ConfigError, parse
from turnout.proxy.crew import Pace
from turnout.proxy.errors import StartError, UpgradeError
from turnout.proxy.model import Config
from turnout.proxy.names import Names
from turnout.proxy.supervisor import Supervisor

QUICK = replace(Pace(), look=0.1, hung_looks=30, settle=0.05)
SPLIT = 'split = { v1 = 1, v2 = 1 }\nendpoints = ["127.0.0.1:9", { address = "127.0.0.2:9", version = "v2" }]'


class Control:
    """A control listener that only notes what happens to it."""

    def __init__(self, supervisor: Supervisor) -> None:
        self.supervisor = supervisor
        self.prepared = None
        self.address = None
        self.local = None
        self.ready_at_start = None
        self.closed = 0

    async def prepare(self, file: Config) -> None:
        self.prepared = file

    def merge(self, file: Config) -> Config:
        return file

    def health_of(self, service: str, address: str) -> str:
        return "up"

    def admin_of(self, service: str, address: str) -> str:
        return "ready"

    def in_force(self, config):
        pass

    async def start(self, sock: socket.socket, local: socket.socket | None = None) -> None:
        self.address = sock.getsockname()
        self.local = local and local.getsockname()
        self.ready_at_start = self.supervisor.ready()

    async def close(self) -> None:
        self.closed += 1


@contextlib.asynccontextmanager
async def supervised(folder, text: str, *, control=None, pace: Pace = QUICK, code: int = 0):
    """Serving inside the block, drained after it with this exit code."""
    file = folder / "turnout.toml"
    file.write_text(text)
    supervisor = Supervisor(file, parse(text, str(file)), control=control, pace=pace)
    running = asyncio.create_task(supervisor.run())
    await until(lambda: supervisor.state == "serving" or running.done())
    if running.done():
        running.result()
    try:
        yield supervisor
    finally:
        supervisor.stop()
        assert await asyncio.wait_for(running, 20) == code


def descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def slots(supervisor: Supervisor) -> list[int]:
    return list(supervisor.freezer.endpoints.held.values())


@scenario
async def test_counters_in_flight_are_zero_after_deaths_and_reloads(tmp_path):
    port = free_port()
    async with Origin() as origin, supervised(tmp_path, config(port, origin.address)) as supervisor:
        async with load(port, path="/slow/20", clients=12) as running:
            for _ in range(3):
                await running.more(30)
                victim = supervisor.worker_rows()[0].pid
                os.kill(victim, signal.SIGKILL)
                await until(lambda victim=victim: victim not in {row.pid for row in supervisor.worker_rows()})
                await supervisor.reload()
            await running.more(30)

        (slot,) = slots(supervisor)
        totals = supervisor.scoreboard.endpoint_totals(slot)
        await until(lambda: supervisor.scoreboard.endpoint(slot)["inflight"] == 0)
        assert totals["outcomes"]["2xx"] >= running.answers
        assert supervisor.restarts == 3
        assert supervisor.version == 4


@scenario
async def test_a_worker_that_hangs_is_replaced(tmp_path):
    port = free_port()
    async with (
        Origin() as origin,
        supervised(tmp_path, config(port, origin.address, workers=1)) as supervisor,
    ):
        (row,) = supervisor.worker_rows()
        os.kill(row.pid, signal.SIGSTOP)
        assert (await get(port)).status == 200

        assert supervisor.worker_rows()[0].pid != row.pid
        assert supervisor.worker_rows()[0].restarts == 1


@scenario
async def test_a_worker_that_takes_no_snapshot_is_replaced_and_the_reload_comes_to_its_end(tmp_path):
    port = free_port()
    pace = replace(QUICK, acknowledge=0.5, hung_looks=1000)
    async with (
        Origin() as origin,
        supervised(tmp_path, config(port, origin.address), pace=pace) as supervisor,
    ):
        row = supervisor.worker_rows()[0]
        os.kill(row.pid, signal.SIGSTOP)
        assert await supervisor.reload() == 2

        assert row.pid not in {other.pid for other in supervisor.worker_rows()}
        assert {other.snapshot for other in supervisor.worker_rows()} == {2}


@scenario
async def test_ready_means_that_every_worker_serves_the_snapshot_in_force(tmp_path):
    port = free_port()
    async with Origin() as origin, supervised(tmp_path, config(port, origin.address)) as supervisor:
        assert supervisor.ready()
        rows = supervisor.worker_rows()
        assert [(row.worker, row.state, row.snapshot, row.restarts) for row in rows] == [
            (0, "serving", 1, 0),
            (1, "serving", 1, 0),
        ]
        for deaths in (1, 2):  # the second one has a pause before its successor starts
            os.kill(supervisor.worker_rows()[0].pid, signal.SIGKILL)
            await until(lambda deaths=deaths: supervisor.restarts == deaths)
        assert not supervisor.ready()
        await until(supervisor.ready)
        supervisor.stop()
        await until(lambda: supervisor.state == "draining")
        assert not supervisor.ready()


@scenario
async def test_connections_are_told_for_each_worker(tmp_path):
    port = free_port()
    async with (
        Origin() as origin,
        supervised(tmp_path, config(port, origin.address, workers=1)) as supervisor,
    ):
        connection = await Connection.open(port)
        await connection.get()

        def counts() -> list[tuple[int, int, int]]:
            return [(row.clients, row.active, row.upstreams) for row in supervisor.worker_rows()]

        await until(lambda: counts() == [(1, 0, 1)])
        connection.close()
        await until(lambda: counts() == [(0, 0, 1)])


@scenario
async def test_a_bad_file_raises_all_problems_and_changes_nothing(tmp_path):
    async with supervised(tmp_path, config(free_port(), "127.0.0.1:9")) as supervisor:
        supervisor.file.write_text("[listeners.web]\nbimd = 1\n")
        with pytest.raises(ConfigError) as caught:
            await supervisor.reload()

        assert len(caught.value.problems) == 2
        assert (supervisor.version, supervisor.state) == (1, "serving")


@scenario
async def test_control_starts_when_workers_serve_and_closes_when_they_are_gone(tmp_path):
    port = free_port()
    text = config(free_port(), "127.0.0.1:9", control=port)
    async with supervised(tmp_path, text, control=Control) as supervisor:
        control = supervisor._control

        assert control.address == ("127.0.0.1", port)
        assert control.ready_at_start is False, "a proxy is ready once all of it is"
    assert control.closed == 1


@scenario
async def test_a_control_address_that_is_taken_is_a_reason_among_the_others(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        text = config(taken, "127.0.0.1:9", control=taken).replace('127.0.0.1:9"]', 'no.name.invalid:9"]')
        text = text.replace(f'bind = "127.0.0.1:{taken}"', 'bind = "192.0.2.1:80"')
        with pytest.raises(StartError) as caught:
            async with supervised(tmp_path, text, control=Control):
                pass

    assert len(caught.value.reasons) == 2
    assert any("[control] listen" in reason and "in use" in reason for reason in caught.value.reasons)


@scenario
async def test_weights_and_states_set_at_run_time_stay_until_the_file_says_something_new(tmp_path):
    async with supervised(tmp_path, config(free_port(), "127.0.0.1:9")) as supervisor:
        (slot,) = slots(supervisor)
        supervisor.set_weight("app", "127.0.0.1:9", 7)
        supervisor.set_admin("app", "127.0.0.1:9", "drain")
        await supervisor.reload()
        info = supervisor.scoreboard.endpoint(slot)
        assert (info["weight"], info["admin"]) == (7, "drain")
        text = supervisor.file.read_text()
        supervisor.file.write_text(
            text.replace('["127.0.0.1:9"]', '[{ address = "127.0.0.1:9", weight = 3 }]')
        )
        await supervisor.reload()

        info = supervisor.scoreboard.endpoint(slot)
        assert (info["weight"], info["admin"]) == (3, "drain")
        with pytest.raises(KeyError):
            supervisor.set_weight("app", "127.0.0.1:10", 1)


@scenario
async def test_a_split_set_at_run_time_stays_until_the_file_says_something_new(tmp_path):
    text = config(free_port(), "127.0.0.1:9").replace('endpoints = ["127.0.0.1:9"]', SPLIT)
    async with supervised(tmp_path, text) as supervisor:
        assert await supervisor.set_split("app", {"v1": 3, "v2": 1}) == {"v1": 750_000, "v2": 250_000}
        await supervisor.reload()
        assert supervisor.runtime.splits == {"app": {"v1": 3, "v2": 1}}
        supervisor.file.write_text(text.replace("v2 = 1 }", "v2 = 4 }"))
        await supervisor.reload()

        assert supervisor.runtime.splits == {}
        assert supervisor.scoreboard.group(supervisor.freezer.groups.held["app", "v2"])["share"] == 800_000


@scenario
async def test_what_was_set_at_run_time_is_exported_and_restored_where_the_file_agrees(tmp_path):
    text = config(free_port(), "127.0.0.1:9").replace('endpoints = ["127.0.0.1:9"]', SPLIT)
    async with supervised(tmp_path, text) as supervisor:
        await supervisor.set_split("app", {"v1": 3, "v2": 1})
        supervisor.set_weight("app", "127.0.0.1:9", 7)
        supervisor.set_weight("app", "127.0.0.2:9", 9)
        supervisor.set_admin("app", "127.0.0.2:9", "maint")
        exported = supervisor.runtime.export()
    changed = text.replace('["127.0.0.1:9"', '[{ address = "127.0.0.1:9", weight = 2 }')
    async with supervised(tmp_path, changed) as supervisor:
        supervisor.runtime.restore(exported)
        board = supervisor.scoreboard
        one, two = (
            board.endpoint(supervisor.freezer.endpoint_slots("app")[f"127.0.0.{n}:9"]) for n in (1, 2)
        )

        assert board.group(supervisor.freezer.groups.held["app", "v1"])["share"] == 750_000
        assert (one["weight"], one["admin"]) == (2, "ready")
        assert (two["weight"], two["admin"]) == (9, "maint")


@scenario
async def test_a_start_that_is_stopped_ends_cleanly(tmp_path):
    text = config(free_port(), "127.0.0.1:9")
    (tmp_path / "turnout.toml").write_text(text)
    supervisor = Supervisor(tmp_path / "turnout.toml", parse(text, "t"), pace=QUICK)
    running = asyncio.create_task(supervisor.run())
    await asyncio.sleep(0)
    await asyncio.sleep(0.05)
    supervisor.stop()

    assert await asyncio.wait_for(running, 20) == 0


@scenario
async def test_an_upgrade_of_a_proxy_that_drains_is_refused(tmp_path):
    async with supervised(tmp_path, config(free_port(), "127.0.0.1:9")) as supervisor:
        supervisor.stop()
        with pytest.raises(UpgradeError):
            await supervisor.upgrade()


@scenario
async def test_a_supervisor_leaves_neither_descriptors_nor_processes(tmp_path):
    text = config(free_port(), "127.0.0.1:9")
    before = descriptors()
    async with Origin() as origin:
        text = text.replace("127.0.0.1:9", origin.address)
        async with supervised(tmp_path, text, control=Control) as supervisor:
            await supervisor.reload()
            children = [row.pid for row in supervisor.worker_rows()]
        assert not any(Path(f"/proc/{pid}").exists() for pid in children)
    supervisor.scoreboard.close()

    assert descriptors() == before


@scenario
async def test_a_new_program_that_is_too_slow_is_ended_with_its_workers(tmp_path):
    port = free_port()
    pace = replace(QUICK, upgrade=0.01)
    async with (
        Origin() as origin,
        supervised(tmp_path, config(port, origin.address), pace=pace) as supervisor,
    ):
        await until(lambda: supervisor.crew._spare)
        before = {child.pid for child in psutil.Process().children()}
        with pytest.raises(UpgradeError, match="was not ready within"):
            await supervisor.upgrade()

        assert {child.pid for child in psutil.Process().children()} == before
        assert (await get(port)).status == 200
        await supervisor.reload()


@scenario
async def test_workers_do_not_outlive_a_supervisor_that_never_served(tmp_path):
    """As when a new program is killed halfway through an upgrade: the former one still serves."""
    port = free_port()
    file = tmp_path / "turnout.toml"
    file.write_text(config(port, "127.0.0.1:9"))
    code = (
        "import asyncio, os, signal, sys; from pathlib import Path; from turnout.proxy.config import load;"
        "from turnout.proxy.supervisor import Supervisor; path = Path(sys.argv[1]);"
        "Supervisor._start_control = lambda *_: os.kill(os.getpid(), signal.SIGKILL);"
        "asyncio.run(Supervisor(path, load(path)).run())"
    )
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, str(file), stderr=subprocess.PIPE
    )
    said = await child.stderr.read()  # ends with the last process that could write to it

    assert child.returncode == -signal.SIGKILL
    assert b"serving goes on" not in said


@scenario
async def test_workers_that_cannot_serve_make_the_start_fail(tmp_path, monkeypatch):
    before = psutil.Process().children()
    monkeypatch.setattr(process, "COMMAND", (sys.executable, "-c", "raise SystemExit(7)"))
    with pytest.raises(StartError, match="a worker ended before it served"):
        async with supervised(tmp_path, config(free_port(), "127.0.0.1:9")):
            pass

    assert psutil.Process().children() == before


@scenario
async def test_names_that_nobody_answers_for_hold_up_nothing_else(tmp_path):
    text, answer = config(free_port(), "127.0.0.1:9"), threading.Event()

    def never(_name):
        answer.wait(20)
        return ["10.0.0.1"]

    supervisor = Supervisor(tmp_path / "turnout.toml", parse(text, "t"), pace=QUICK)
    supervisor._names = Names(never)
    asked = [asyncio.create_task(supervisor.look_up([f"n{n}.test:80"])) for n in range(64)]
    await asyncio.sleep(0)
    assert await asyncio.wait_for(asyncio.to_thread(lambda: "free"), 10) == "free"
    answer.set()
    assert await asked[-1] == {"n63.test:80": "10.0.0.1:80"}
    await asyncio.gather(*asked)
    supervisor._put_away()
