"""The life of the processes: start, reload, death, takeover, upgrade and drain, under load."""

import os
import signal

from harness.client import load, until
from harness.origin import Origin
from harness.turnout import config, free_port, scenario, turnout


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
