"""Drain and upgrade: who is in is served, who comes later finds the next one, or nobody."""

import asyncio
import json
import os
import signal

import aiohttp
from harness.client import Connection, get, load, until
from harness.origin import Origin
from harness.turnout import config, free_port, scenario, turnout


@scenario
async def test_a_drain_under_load_loses_no_request(tmp_path):
    port = free_port()
    async with Origin() as origin, turnout(tmp_path, config(port, origin.address)) as proxy:
        async with load(port, clients=12, until_refused=True) as running:
            await running.more(50)
            proxy.signal(signal.SIGTERM)

        assert running.failures == []
        assert await proxy.exit_code() == 0
        assert proxy.said(" ended requests_cut=0")
        assert proxy.processes() == []


@scenario
async def test_a_long_request_ends_within_grace_and_new_ones_are_refused_meanwhile(tmp_path):
    port = free_port()
    async with Origin() as origin, turnout(tmp_path, config(port, origin.address, grace="1m")) as proxy:
        held = asyncio.create_task(get(port, "/hold"))
        await until(lambda: origin.requests)
        proxy.signal(signal.SIGTERM)
        async with load(port, clients=1, until_refused=True):
            pass
        origin.release.set()
        answer = await held
        assert answer.status == 200
        assert answer.headers["connection"] == "close"
        assert await proxy.exit_code() == 0


@scenario
async def test_what_is_not_done_at_the_end_of_grace_is_cut_and_told_by_the_exit_code(tmp_path):
    port = free_port()
    async with Origin() as origin, turnout(tmp_path, config(port, origin.address, grace="300ms")) as proxy:
        slow = asyncio.create_task(get(port, "/slow/20000"))
        await until(lambda: origin.requests)
        assert await proxy.stop() == 3

        assert proxy.said(" ended requests_cut=1")
        assert isinstance((await asyncio.gather(slow, return_exceptions=True))[0], EOFError | ConnectionError)


@scenario
async def test_a_second_signal_quits_at_once(tmp_path):
    port = free_port()
    async with Origin() as origin, turnout(tmp_path, config(port, origin.address, grace="10m")) as proxy:
        slow = asyncio.create_task(get(port, "/slow/20000"))
        await until(lambda: origin.requests)
        proxy.signal(signal.SIGINT)
        await until(lambda: proxy.said(" draining "))
        proxy.signal(signal.SIGINT)

        assert await proxy.exit_code() == 3
        assert isinstance((await asyncio.gather(slow, return_exceptions=True))[0], EOFError | ConnectionError)
        assert proxy.processes() == []


@scenario
async def test_an_idle_connection_closes_during_a_drain(tmp_path):
    port = free_port()
    async with Origin() as origin, turnout(tmp_path, config(port, origin.address, grace="10m")) as proxy:
        idle = await Connection.open(port)
        assert (await idle.get()).status == 200
        assert await proxy.stop() == 0

        assert await idle.reader.read() == b""
        idle.close()


@scenario
async def test_who_waits_in_the_accept_queue_when_the_drain_begins_is_served(tmp_path):
    port = free_port()
    async with Origin() as origin, turnout(tmp_path, config(port, origin.address, workers=1)) as proxy:
        (worker,) = proxy.workers
        os.kill(worker, signal.SIGSTOP)
        waiting = [asyncio.create_task(get(port)) for _ in range(10)]
        await asyncio.sleep(0.1)
        proxy.signal(signal.SIGTERM)
        await until(lambda: proxy.said(" draining "))
        os.kill(worker, signal.SIGCONT)

        assert [answer.status for answer in await asyncio.gather(*waiting)] == [200] * 10
        assert await proxy.exit_code() == 0


@scenario
async def test_a_terminals_interrupt_to_all_drains_once(tmp_path):
    port = free_port()
    async with Origin() as origin, turnout(tmp_path, config(port, origin.address, grace="1m")) as proxy:
        held = asyncio.create_task(get(port, "/hold"))
        await until(lambda: origin.requests)
        for process in proxy.processes():
            process.send_signal(signal.SIGINT)
        await until(lambda: proxy.said(" draining "))
        origin.release.set()

        assert (await held).status == 200
        assert await proxy.exit_code() == 0


@scenario
async def test_an_upgrade_under_load_loses_no_request(tmp_path):
    port = free_port()
    async with Origin() as origin, turnout(tmp_path, config(port, origin.address)) as proxy:
        former = proxy.supervisor
        async with load(port, clients=12) as running:
            for times in (2, 3):
                await running.more(50)
                proxy.signal(signal.SIGUSR2)
                await proxy.serving(times)
            await running.more(50)

        assert running.failures == []
        assert await proxy.exit_code() == 0
        assert proxy.supervisor != former
        proxy.signal(signal.SIGTERM)
        await until(lambda: not proxy.processes())
        assert proxy.said(" ended requests_cut=0")


@scenario
async def test_a_long_request_ends_with_the_former_program(tmp_path):
    port = free_port()
    async with Origin() as origin, turnout(tmp_path, config(port, origin.address, grace="1m")) as proxy:
        held = asyncio.create_task(get(port, "/hold"))
        await until(lambda: origin.requests)
        proxy.signal(signal.SIGUSR2)
        await proxy.serving(2)
        assert (await get(port)).status == 200
        origin.release.set()

        assert (await held).status == 200
        assert await proxy.exit_code() == 0


@scenario
async def test_an_upgrade_that_does_not_come_up_changes_nothing_and_says_why(tmp_path):
    port = free_port()
    async with Origin() as origin, turnout(tmp_path, config(port, origin.address)) as proxy:
        former, good = proxy.supervisor, proxy.file.read_text()
        for bad, reason in (
            (good.replace("workers = 2", 'workers = "two"'), "[proxy] workers"),
            (good + f'[listeners.bad]\nbind = "127.0.0.1:{origin.port}"\n', "in use by process"),
        ):
            proxy.file.write_text(bad)
            proxy.signal(signal.SIGUSR2)
            await until(lambda reason=reason: [x for x in proxy.said("upgrade failed") if reason in x])
            assert (await get(port)).status == 200
        proxy.file.write_text(good)

        assert proxy.supervisor == former
        await proxy.reload()
        assert proxy.said(" reloaded ")
        assert await proxy.stop() == 0


@scenario
async def test_an_upgrade_takes_up_what_a_reload_cannot_change(tmp_path):
    port, moved = free_port(), free_port()
    async with Origin() as origin, turnout(tmp_path, config(port, origin.address)) as proxy:
        async with load(port, until_refused=True) as running:
            await running.more(20)
            text = proxy.file.read_text().replace("workers = 2", "workers = 4\nmax_endpoints = 99")
            proxy.file.write_text(text.replace(f":{port}", f":{moved}"))
            proxy.signal(signal.SIGUSR2)
            await proxy.serving(2)

        assert running.failures == []
        assert (await get(moved)).status == 200
        assert len(proxy.workers) == 4


async def call(port: int, method: str, path: str, body: object = None) -> dict:
    """The API of a running proxy."""
    async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session:
        headers = {"Content-Type": "application/json"}
        async with session.request(method, path, data=json.dumps(body or {}), headers=headers) as answer:
            assert answer.status == 200, await answer.text()
            return await answer.json()


async def weight_and_state(api: int) -> tuple[int, str]:
    status = await call(api, "GET", "/v1/status")
    (service,) = status["services"]
    (endpoint,) = service["endpoints"]
    return endpoint["weight"], endpoint["admin"]


@scenario
async def test_what_was_set_at_run_time_survives_upgrade_and_takeover(tmp_path):
    port, api = free_port(), free_port()
    async with Origin() as origin, turnout(tmp_path, config(port, origin.address, control=api)) as proxy:
        change = {"weight": 7, "admin": "drain"}
        await call(api, "PUT", f"/v1/services/app/endpoints/{origin.address}", change)
        assert await weight_and_state(api) == (7, "drain")
        former = proxy.supervisor
        heir = (await call(api, "POST", "/v1/upgrade"))["pid"]
        assert heir == proxy.supervisor != former
        await proxy.exit_code()
        assert await weight_and_state(api) == (7, "drain")
        os.kill(heir, signal.SIGKILL)
        await until(lambda: proxy.said("serving goes on"))
        await proxy.start()
        await proxy.serving(times=3)

        assert await weight_and_state(api) == (7, "drain")
