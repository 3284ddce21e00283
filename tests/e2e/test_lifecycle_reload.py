"""A configuration changes under load: listeners come, go and move, workers too, and no request is lost."""

import asyncio
import signal

import psutil
from harness.client import Connection, get, load, until
from harness.origin import Origin
from harness.turnout import config, free_port, scenario, turnout

EXTRA = '[listeners.extra]\nbind = "127.0.0.1:{}"\n'


@scenario
async def test_a_hundred_reloads_under_load_lose_no_request(tmp_path):
    port = free_port()
    async with Origin() as origin, turnout(tmp_path, config(port, origin.address)) as proxy:
        first = proxy.file.read_text()
        async with load(port) as running:
            await running.more(20)
            for number in range(100):
                more = '[[routes]]\npath = "/n"\nservice = "app"' if number % 2 else ""
                proxy.file.write_text(first + more)
                await proxy.reload()
            await running.more(20)

        assert running.failures == []
        assert len(proxy.said(" reloaded ")) == 100, proxy.text
        assert "snapshot=101" in proxy.lines[-1]
        assert await proxy.stop() == 0


@scenario
async def test_a_file_that_does_not_validate_changes_nothing_and_is_told_whole(tmp_path):
    port = free_port()
    async with Origin() as origin, turnout(tmp_path, config(port, origin.address)) as proxy:
        good = proxy.file.read_text()
        proxy.file.write_text(good.replace('grace = "5s"', 'grace = "5"\nworkerz = 3'))
        await proxy.reload()
        await until(lambda: len(proxy.said("reload refused")) == 2)

        assert proxy.said("[proxy] grace")
        assert proxy.said("[proxy] workerz: unknown key")
        assert (await get(port)).status == 200
        proxy.file.write_text(good)
        await proxy.reload()
        assert proxy.said(" reloaded snapshot=2")


@scenario
async def test_what_only_a_new_supervisor_can_change_is_said_and_refused(tmp_path):
    port = free_port()
    async with Origin() as origin, turnout(tmp_path, config(port, origin.address)) as proxy:
        text = proxy.file.read_text().replace("workers = 2", "workers = 64\nmax_endpoints = 17")
        proxy.file.write_text(text.replace("127.0.0.1:", "127.0.0.2:", 1))
        await proxy.reload()
        await until(lambda: len(proxy.said("reload refused")) == 3)

        assert proxy.said("[proxy] max_endpoints: cannot be changed by a reload (4096 now, 17 in the file)")
        assert proxy.said("[control] listen: cannot be changed by a reload")
        assert proxy.said("[proxy] workers: 64 workers need a larger scoreboard")


@scenario
async def test_a_listener_that_moves_serves_at_both_addresses_until_the_old_one_is_empty(tmp_path):
    old, new = free_port(), free_port()
    async with Origin() as origin, turnout(tmp_path, config(old, origin.address)) as proxy:
        kept = await Connection.open(old)
        assert (await kept.get()).status == 200
        async with load(old, until_refused=True) as before:
            await before.more(50)
            proxy.file.write_text(proxy.file.read_text().replace(f":{old}", f":{new}"))
            await proxy.reload()
            async with load(new) as after:
                await after.more(50)

            assert (await kept.get()).status == 200
            before.stopping = True

        assert before.failures == []
        assert after.failures == []
        kept.close()


@scenario
async def test_listeners_come_and_go_without_a_failure_at_the_others(tmp_path):
    port, extra = free_port(), free_port()
    async with Origin() as origin, turnout(tmp_path, config(port, origin.address)) as proxy:
        text = proxy.file.read_text()
        async with load(port) as running:
            proxy.file.write_text(text + EXTRA.format(extra))
            await proxy.reload()
            async with load(extra, until_refused=True) as others:
                await others.more(50)
                proxy.file.write_text(text)
                await proxy.reload()
            await running.more(50)

        assert running.failures == []
        assert others.failures == []


@scenario
async def test_a_listener_that_cannot_have_its_address_leaves_the_others_and_the_snapshot_alone(tmp_path):
    port = free_port()
    async with Origin() as origin, turnout(tmp_path, config(port, origin.address)) as proxy:
        proxy.file.write_text(proxy.file.read_text() + EXTRA.format(origin.port))
        await proxy.reload()

        (line,) = proxy.said("reload refused")
        assert "[listeners.extra] bind" in line
        assert f"127.0.0.1:{origin.port}: in use by process" in line
        assert (await get(port)).status == 200


@scenario
async def test_the_number_of_workers_changes_under_load(tmp_path):
    port = free_port()
    async with Origin() as origin, turnout(tmp_path, config(port, origin.address, workers=2)) as proxy:
        text = proxy.file.read_text()
        async with load(port, clients=12) as running:
            for workers in (1, 2, 1):
                await running.more(50)
                proxy.file.write_text(text.replace("workers = 2", f"workers = {workers}"))
                await proxy.reload()
                await until(lambda workers=workers: len(proxy.workers) == workers)
            await running.more(50)

        assert running.failures == []


@scenario
async def test_a_removed_listener_finishes_what_its_connections_have_begun(tmp_path):
    port, extra = free_port(), free_port()
    async with (
        Origin() as origin,
        turnout(tmp_path, config(port, origin.address, more=EXTRA.format(extra))) as proxy,
    ):
        held = asyncio.create_task(get(extra, "/hold"))
        await until(lambda: origin.requests)
        proxy.file.write_text(proxy.file.read_text().replace(EXTRA.format(extra), ""))
        await proxy.reload()
        origin.release.set()

        assert (await held).status == 200


@scenario
async def test_the_access_log_is_opened_anew_by_sigusr1(tmp_path):
    port = free_port()
    log = '[proxy.access_log]\npath = "access.log"\n'
    async with Origin() as origin, turnout(tmp_path, config(port, origin.address, more=log)) as proxy:
        path, moved = tmp_path / "access.log", tmp_path / "access.log.1"
        await get(port, "/first")
        path.rename(moved)
        proxy.signal(signal.SIGUSR1)
        await until(path.exists)
        await get(port, "/second")
        assert await proxy.stop() == 0

        assert "/first" in moved.read_text()
        assert "/second" not in moved.read_text()
        assert "/second" in path.read_text()


@scenario
async def test_a_hundred_reloads_leave_no_descriptor_behind(tmp_path):
    port = free_port()
    async with Origin() as origin, turnout(tmp_path, config(port, origin.address)) as proxy:
        await proxy.reload()
        processes = [psutil.Process(pid) for pid in (proxy.supervisor, *proxy.workers)]
        before = [process.num_fds() for process in processes]
        for _ in range(20):
            await proxy.reload()

        assert [process.num_fds() for process in processes] == before
