"""TCP sessions and WebSockets while the processes come and go."""

import asyncio
import contextlib
import json
import signal
import urllib.request

from harness.client import until
from harness.turnout import config, free_port, listens, scenario, turnout

ASK = b"GET /chat HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
GRANT = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"


@contextlib.asynccontextmanager
async def far_end():
    """Echoes, after a 101 to those that ask for an upgrade."""

    async def echo(reader, writer):
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                writer.write(GRANT if data.startswith(b"GET ") else data)
                await writer.drain()
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    server.close()
    await server.wait_closed()


def sessions_config(web, tcp, address, *, control, drain="30s", grace="10s"):
    more = f"""
    [listeners.fix]
    bind = "127.0.0.1:{tcp}"
    protocol = "tcp"
    [services.gate]
    endpoints = ["{address}"]
    timeouts = {{ tunnel_drain = "{drain}" }}
    [[routes]]
    listener = "fix"
    service = "gate"
    """
    return config(web, address, control=control, grace=grace, more=more)


def asked(control):
    """What `turnout status` shows."""
    with urllib.request.urlopen(f"http://127.0.0.1:{control}/v1/status", timeout=10) as answer:
        return json.load(answer)


class Talk:
    """One session, over which an echo is heard."""

    def __init__(self, reader, writer):
        self.reader, self.writer = reader, writer

    @classmethod
    async def open(cls, port, *, upgrade=False):
        self = cls(*await asyncio.open_connection("127.0.0.1", port))
        if upgrade:
            self.writer.write(ASK)
            head = await self.reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 101 ")
        await self.say(b"hello")
        return self

    async def say(self, data):
        self.writer.write(data)
        assert await asyncio.wait_for(self.reader.readexactly(len(data)), 10) == data

    async def ended(self):
        with contextlib.suppress(ConnectionError):
            assert await asyncio.wait_for(self.reader.read(), 10) == b""
        return True

    async def close(self):
        self.writer.close()
        with contextlib.suppress(ConnectionError):
            await self.writer.wait_closed()


@scenario
async def test_sessions_stand_through_reloads_and_are_waited_for_by_a_drain(tmp_path):
    web, tcp, control = free_port(), free_port(), free_port()
    async with (
        far_end() as address,
        turnout(tmp_path, sessions_config(web, tcp, address, control=control)) as proxy,
    ):
        talks = [await Talk.open(tcp), await Talk.open(tcp), await Talk.open(web, upgrade=True)]
        text = proxy.file.read_text()
        for number in range(20):
            proxy.file.write_text(text + '[[routes]]\npath = "/n"\nservice = "app"' * (number % 2))
            await proxy.reload()
        for talk in talks:
            await talk.say(b"still here")
        status = await asyncio.to_thread(asked, control)
        assert sum(worker["sessions"] for worker in status["workers"]) == 3
        assert {row["name"]: row["sessions"] for row in status["listeners"]} == {"web": 1, "fix": 2}

        stopping = asyncio.create_task(proxy.stop())
        await until(lambda: proxy.said(" waiting for what is under way sessions=3 requests=0"))
        for talk in talks:
            await talk.say(b"still served")
            await talk.close()
        assert await stopping == 0
        assert proxy.said(" ended requests_cut=0")


@scenario
async def test_a_drain_ends_sessions_that_do_not_end_themselves_within_its_grace(tmp_path):
    web, tcp, control = free_port(), free_port(), free_port()
    text = sessions_config(web, tcp, "127.0.0.1:1", control=control, grace="1s", drain="1h")
    async with far_end() as address, turnout(tmp_path, text.replace('127.0.0.1:1"', f'{address}"')) as proxy:
        talks = [await Talk.open(tcp), await Talk.open(web, upgrade=True)]
        assert await proxy.stop() == 0
        for talk in talks:
            assert await talk.ended()
            await talk.close()
        assert proxy.said(" ended requests_cut=0")


@scenario
async def test_a_reload_without_their_listener_ends_its_sessions_and_no_others(tmp_path):
    web, tcp, control = free_port(), free_port(), free_port()
    text = sessions_config(web, tcp, "ADDRESS", control=control, drain="200ms")
    async with far_end() as address, turnout(tmp_path, text.replace("ADDRESS", address)) as proxy:
        gone, kept = await Talk.open(tcp), await Talk.open(web, upgrade=True)
        proxy.file.write_text(config(web, address, control=control, grace="10s"))
        await proxy.reload()
        assert await gone.ended()
        await kept.say(b"still here")
        for talk in (gone, kept):
            await talk.close()
        assert await proxy.stop() == 0


@scenario
async def test_after_an_upgrade_sessions_go_on_in_the_former_program_and_new_ones_in_the_new(tmp_path):
    web, tcp, control = free_port(), free_port(), free_port()
    text = sessions_config(web, tcp, "ADDRESS", control=control, grace="60s", drain="1h")
    async with far_end() as address, turnout(tmp_path, text.replace("ADDRESS", address)) as proxy:
        former, workers = proxy.supervisor, proxy.workers
        old = [await Talk.open(tcp), await Talk.open(web, upgrade=True)]
        upgraded = asyncio.create_task(asyncio.to_thread(upgrade, control))
        while not upgraded.done():
            for talk in old:
                await talk.say(b"meanwhile")
            new = await Talk.open(tcp)
            await new.close()
        assert await upgraded != former
        await until(lambda: not any(listens(pid) for pid in workers))
        new = [await Talk.open(tcp), await Talk.open(web, upgrade=True)]
        status = await asyncio.to_thread(asked, control)
        assert {row["name"]: row["sessions"] for row in status["listeners"]} == {"web": 1, "fix": 1}
        for talk in old + new:
            await talk.say(bytes(200_000))
        for talk in old:
            await talk.close()
        assert await proxy.exit_code() == 0
        assert proxy.said(" ended requests_cut=0")
        for talk in new:
            await talk.say(b"still here")
            await talk.close()
        proxy.signal(signal.SIGTERM)
        await until(lambda: not proxy.processes())


@scenario
async def test_after_an_upgrade_sessions_that_do_not_end_are_ended_within_their_drain_and_no_new_ones(
    tmp_path,
):
    web, tcp, control = free_port(), free_port(), free_port()
    text = sessions_config(web, tcp, "ADDRESS", control=control, grace="2s", drain="500ms")
    async with far_end() as address, turnout(tmp_path, text.replace("ADDRESS", address)) as proxy:
        workers = proxy.workers
        old = [await Talk.open(tcp), await Talk.open(web, upgrade=True)]
        await asyncio.to_thread(upgrade, control)
        await until(lambda: not any(listens(pid) for pid in workers))
        new = [await Talk.open(tcp), await Talk.open(web, upgrade=True)]
        for talk in old:
            assert await talk.ended()
        assert await proxy.exit_code() == 0
        for talk in new:
            await talk.say(b"still here")
        for talk in old + new:
            await talk.close()


def upgrade(control):
    """As `turnout upgrade`; the pid of the new program."""
    ask = urllib.request.Request(
        f"http://127.0.0.1:{control}/v1/upgrade", data=b"{}", headers={"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(ask, timeout=30) as answer:
        return json.load(answer)["pid"]
