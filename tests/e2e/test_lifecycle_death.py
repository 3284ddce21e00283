"""Processes are killed under load: a worker has a successor, a supervisor an heir."""

import asyncio
import os
import re
import signal

import psutil
from harness.client import Connection, get, load, until
from harness.origin import Origin
from harness.turnout import config, free_port, listens, scenario, turnout


@scenario
async def test_a_killed_worker_loses_what_it_had_in_flight_and_nothing_else(tmp_path):
    port = free_port()
    async with Origin() as origin, turnout(tmp_path, config(port, origin.address)) as proxy:
        async with load(port, clients=8) as running:
            await running.more(50)
            victim = proxy.workers[0]
            os.kill(victim, signal.SIGKILL)
            await until(lambda: proxy.said(" worker serves "))
            await running.more(50)
            assert victim not in proxy.workers

        assert len(running.failures) <= 8
        assert not [failure for failure in running.failures if failure.startswith("status")]
        assert await proxy.stop() == 0


@scenario
async def test_who_waits_in_the_accept_queue_of_a_killed_worker_is_served_by_its_successor(tmp_path):
    port = free_port()
    async with Origin() as origin, turnout(tmp_path, config(port, origin.address, workers=1)) as proxy:
        (victim,) = proxy.workers
        os.kill(victim, signal.SIGSTOP)
        waiting = [asyncio.create_task(get(port)) for _ in range(10)]
        while psutil.Process(victim).status() != psutil.STATUS_STOPPED:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)
        os.kill(victim, signal.SIGKILL)

        assert [answer.status for answer in await asyncio.gather(*waiting)] == [200] * 10


@scenario
async def test_a_worker_that_keeps_dying_pauses_longer_each_time_and_the_others_serve_for_it(tmp_path):
    port = free_port()
    async with Origin() as origin, turnout(tmp_path, config(port, origin.address, workers=2)) as proxy:
        survivor = proxy.workers[1]
        for deaths in range(1, 5):
            (victim,) = set(proxy.workers) - {survivor}
            os.kill(victim, signal.SIGKILL)
            await until(lambda deaths=deaths: len(proxy.said(" worker ended ")) == deaths)
            answers = await asyncio.gather(*(get(port) for _ in range(20)))
            assert {answer.status for answer in answers} == {200}
            await until(lambda deaths=deaths: len(proxy.said(" worker serves ")) == deaths)

        pauses = [int(re.search(r"restart_in_ms=(\d+)", line)[1]) for line in proxy.said(" worker ended ")]
        assert pauses == [0, 100, 200, 400]


@scenario
async def test_workers_of_a_killed_supervisor_serve_until_the_next_one_takes_over(tmp_path):
    port = free_port()
    async with Origin() as origin, turnout(tmp_path, config(port, origin.address)) as proxy:
        async with load(port) as running:
            await running.more(50)
            orphans = set(proxy.workers)
            await proxy.kill_supervisor()
            await running.more(50)
            await proxy.start()
            await proxy.serving(times=2)
            await until(lambda: not orphans & set(proxy.workers))
            await until(lambda: not any(psutil.pid_exists(pid) for pid in orphans))
            await running.more(50)

        assert running.failures == []
        assert await proxy.stop() == 0
        assert proxy.processes() == []


@scenario
async def test_a_takeover_serves_who_waits_at_addresses_that_are_no_longer_in_the_file(tmp_path):
    old, new = free_port(), free_port()
    async with Origin() as origin, turnout(tmp_path, config(old, origin.address)) as proxy:
        async with load(old, until_refused=True) as running:
            await running.more(50)
            await proxy.kill_supervisor()
            proxy.file.write_text(proxy.file.read_text().replace(f":{old}", f":{new}"))
            await proxy.start()
            await proxy.serving(times=2)
            assert (await get(new)).status == 200

        assert running.failures == []


@scenario
async def test_a_supervisor_that_cannot_start_leaves_the_orphans_serving(tmp_path):
    port = free_port()
    async with Origin() as origin, turnout(tmp_path, config(port, origin.address)) as proxy:
        text, orphans = proxy.file.read_text(), proxy.workers
        await proxy.kill_supervisor()
        proxy.file.write_text(text + f'[listeners.bad]\nbind = "127.0.0.1:{origin.port}"\n')
        await proxy.start()
        assert await proxy.exit_code() == 1
        assert (await get(port)).status == 200
        proxy.file.write_text(text)
        await proxy.start()
        await proxy.serving(times=2)

        assert (await get(port)).status == 200
        await until(lambda: not any(psutil.pid_exists(pid) for pid in orphans))


@scenario
async def test_an_orphan_that_hangs_is_killed_by_the_heir(tmp_path):
    port = free_port()
    async with Origin() as origin, turnout(tmp_path, config(port, origin.address, workers=1)) as proxy:
        (orphan,) = proxy.workers
        os.kill(orphan, signal.SIGSTOP)
        await proxy.kill_supervisor()
        await proxy.start()
        await proxy.serving(times=2)

        assert proxy.said("killing a worker that does not hand over")
        assert (await get(port)).status == 200


@scenario
async def test_an_orphan_drains_when_it_is_told_to(tmp_path):
    port = free_port()
    async with (
        Origin() as origin,
        turnout(tmp_path, config(port, origin.address, workers=1, grace="1m")) as proxy,
    ):
        (orphan,) = proxy.workers
        held = asyncio.create_task(get(port, "/hold"))
        await until(lambda: origin.requests)
        await proxy.kill_supervisor()
        await until(lambda: proxy.said("serving goes on"))
        os.kill(orphan, signal.SIGTERM)
        await until(lambda: not listens(orphan))
        origin.release.set()

        assert (await held).status == 200
        await until(lambda: not psutil.pid_exists(orphan))


@scenario
async def test_two_supervisors_of_one_file_do_not_live_side_by_side(tmp_path):
    port = free_port()
    async with Origin() as origin, turnout(tmp_path, config(port, origin.address)) as proxy:
        first = proxy.child
        supervisor = proxy.supervisor
        await proxy.start()
        assert await proxy.exit_code() == 1
        assert proxy.said(f"is being run by process {supervisor} already")
        proxy.child = first
        assert (await get(port)).status == 200
        assert await proxy.stop() == 0


@scenario
async def test_a_connection_kept_over_a_takeover_gets_its_answers(tmp_path):
    port = free_port()
    async with Origin() as origin, turnout(tmp_path, config(port, origin.address, grace="1m")) as proxy:
        kept = await Connection.open(port)
        assert (await kept.get()).status == 200
        orphans = proxy.workers
        await proxy.kill_supervisor()
        held = asyncio.create_task(kept.get("/hold"))
        await proxy.start()
        await proxy.serving(times=2)
        await until(lambda: not any(listens(pid) for pid in orphans))
        origin.release.set()

        assert (await held).status == 200
        assert kept.closed
        kept.close()


async def status_at(path) -> bytes:
    """Of a request to a unix socket."""
    reader, writer = await asyncio.open_unix_connection(str(path))
    writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    answer = await reader.read()
    writer.close()
    return answer[:12]


@scenario
async def test_a_socket_that_workers_share_is_taken_over_once(tmp_path):
    path = tmp_path / "web.sock"
    async with Origin() as origin:
        text = config(1, origin.address, workers=2).replace('127.0.0.1:1"', f'unix:{path}"')
        async with turnout(tmp_path, text) as proxy:
            orphans = proxy.workers
            await proxy.kill_supervisor()
            assert await status_at(path) == b"HTTP/1.1 200"
            await proxy.start()
            await proxy.serving(times=2)
            await until(lambda: not any(psutil.pid_exists(pid) for pid in orphans))

            assert await status_at(path) == b"HTTP/1.1 200"
            assert await proxy.stop() == 0
            assert not path.exists()
