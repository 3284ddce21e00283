"""UDP sessions while the processes and the file come and go."""

import asyncio
import contextlib
import os
import signal
import urllib.request

import psutil
import pytest
from fakes.datagrams import Echo, Talker
from harness.client import until
from harness.turnout import config, free_port, scenario, turnout

SESSIONS = 5000
SESSION_BYTES = 2048  # of a worker's memory; the kernel's socket comes on top


def udp_config(udp, address, *, control=0, workers=1, grace="20s", timeouts="", listener=""):
    more = f"""
    [listeners.feed]
    bind = "127.0.0.1:{udp}"
    protocol = "udp"
    {listener}
    [services.quotes]
    endpoints = ["{address}"]
    timeouts = {{ {timeouts} }}
    [[routes]]
    listener = "feed"
    service = "quotes"
    """
    return config(free_port(), "127.0.0.1:9", control=control, workers=workers, grace=grace, more=more)


async def ask(client, data):
    return await asyncio.to_thread(client.ask, data)


async def unheard(client, data):
    """Nothing comes back for a while."""
    client.sock.settimeout(0.2)
    with pytest.raises(TimeoutError):
        await ask(client, data)
    return True


@contextlib.asynccontextmanager
async def asking(port):
    """A client that asks on and on; each question must have its answer."""
    seen, stop = [], asyncio.Event()

    async def run():
        with Talker(port) as client:
            while not stop.is_set():
                data = b"%d" % len(seen)
                assert await ask(client, data) == data
                seen.append(data)

    task = asyncio.create_task(run())
    yield seen
    stop.set()
    await task


def counter(control, name, **labels):
    """A figure of /metrics."""
    with urllib.request.urlopen(f"http://127.0.0.1:{control}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    wanted = [f'{key}="{value}"' for key, value in labels.items()]
    found = [line for line in lines if line.startswith(name + "{") and all(each in line for each in wanted)]
    return sum(float(line.rpartition(" ")[2]) for line in found)


@scenario
async def test_datagrams_that_wait_while_a_worker_is_killed_are_served_by_its_successor(tmp_path):
    udp = free_port()
    with Echo() as echo, Talker(udp) as known, Talker(udp) as new:
        text = udp_config(udp, echo.address, timeouts='tunnel_drain = "100ms"')
        async with turnout(tmp_path, text) as proxy:
            assert await ask(known, b"before") == b"before"
            (victim,) = proxy.workers
            os.kill(victim, signal.SIGSTOP)
            await until(lambda: psutil.Process(victim).status() == psutil.STATUS_STOPPED)
            for number in range(50):
                known.send(b"%d" % number)
                new.send(b"%d" % number)
            os.kill(victim, signal.SIGKILL)
            for number in range(50):
                for client in (known, new):
                    assert await asyncio.to_thread(client.receive) == b"%d" % number
            assert len(set(echo.peers)) == 3
            await until(lambda: proxy.workers and victim not in proxy.workers)
            assert await proxy.stop() == 0


@scenario
async def test_an_upgrade_loses_no_datagram_and_answers_find_their_way_through_the_former_program(tmp_path):
    udp = free_port()
    with Echo(lambda data: [] if data == b"slow" else [data]) as echo, Talker(udp) as slow:
        text = udp_config(udp, echo.address, workers=2, timeouts='tunnel_drain = "3s"')
        async with turnout(tmp_path, text) as proxy:
            slow.send(b"slow")
            await until(lambda: echo.peers)
            before = echo.peers[0]
            async with asking(udp) as one, asking(udp) as other:
                await until(lambda: len(one) > 50 and len(other) > 50)
                proxy.signal(signal.SIGUSR2)
                await proxy.serving(2)
                await until(lambda: proxy.said(" the new program serves"))
                echo.sock.sendto(b"late", before)
                assert await asyncio.to_thread(slow.receive) == b"late"
                seen = len(one), len(other)
                await until(lambda: len(one) > seen[0] + 50 and len(other) > seen[1] + 50)
            assert await ask(slow, b"again") == b"again"
            assert echo.peers[-1] != before
            assert await proxy.exit_code() == 0
            assert proxy.said(" ended requests_cut=0")
            assert await ask(slow, b"still") == b"still"
            proxy.signal(signal.SIGTERM)
            await until(lambda: not proxy.processes())


@scenario
async def test_a_drain_serves_who_has_a_session_and_nobody_new(tmp_path):
    udp, control = free_port(), free_port()
    with Echo() as echo, Talker(udp) as known, Talker(udp) as new:
        text = udp_config(udp, echo.address, control=control, grace="4s", timeouts='tunnel_drain = "1h"')
        async with turnout(tmp_path, text) as proxy:
            assert await ask(known, b"before") == b"before"
            stopping = asyncio.create_task(proxy.stop())
            await until(lambda: proxy.said(" waiting for what is under way sessions=1 requests=0"))
            assert await ask(known, b"still") == b"still"
            assert await unheard(new, b"new")
            assert await ask(known, b"and on") == b"and on"
            assert await stopping == 0
            assert len(set(echo.peers)) == 1
            assert b"new" not in echo.got


@scenario
async def test_a_listener_that_goes_serves_its_sessions_on_and_may_come_back_meanwhile(tmp_path):
    udp, control = free_port(), free_port()
    with Echo() as echo, Talker(udp) as known, Talker(udp) as new:
        text = udp_config(udp, echo.address, control=control, workers=2, timeouts='tunnel_drain = "20s"')
        async with turnout(tmp_path, text) as proxy:
            assert await ask(known, b"before") == b"before"
            proxy.file.write_text(text.partition("[listeners.feed]")[0])
            await proxy.reload()
            assert proxy.said(" reloaded ")
            assert await ask(known, b"still") == b"still"
            assert await unheard(new, b"new")
            assert (
                await asyncio.to_thread(
                    counter, control, "turnout_worker_datagrams_total", direction="dropped"
                )
                == 1
            )
            proxy.file.write_text(text)
            await proxy.reload()
            assert len(proxy.said(" reloaded ")) == 2, proxy.text
            new.sock.settimeout(10)
            assert await ask(new, b"again") == b"again"
            assert await ask(known, b"and on") == b"and on"
            # Whichever socket of the address its source leads to.
            for number in range(40):
                with Talker(udp) as another:
                    assert await ask(another, b"%d" % number) == b"%d" % number
            assert b"new" not in echo.got


@scenario
async def test_tcp_and_udp_share_a_port(tmp_path):
    port = free_port()
    with Echo() as echo:
        server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
        address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        more = f"""
        [listeners.dns-tcp]
        bind = "127.0.0.1:{port}"
        protocol = "tcp"
        [services.streams]
        endpoints = ["{address}"]
        [[routes]]
        listener = "dns-tcp"
        service = "streams"
        """
        text = udp_config(port, echo.address, timeouts='tunnel_drain = "100ms"')
        async with server, turnout(tmp_path, text + more) as proxy:
            for _ in range(2):
                with Talker(port) as client:
                    assert await ask(client, b"x") == b"x"
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                assert await asyncio.wait_for(reader.read(), 10) == b""
                writer.close()
                await proxy.reload()
            assert await proxy.stop() == 0


@pytest.mark.memory
@scenario
async def test_five_thousand_sessions_take_little_memory_and_each_datagram_is_counted(tmp_path):
    udp, control = free_port(), free_port()
    with Echo() as echo:
        listener = f"limits = {{ connections = {SESSIONS} }}"
        text = udp_config(udp, echo.address, control=control, timeouts='session = "1h"', listener=listener)
        async with turnout(tmp_path, text) as proxy:
            worker = psutil.Process(proxy.workers[0])

            def open_sessions(first, count):
                for number in range(count):
                    with Talker(udp, source=f"127.{first + number // 250}.{number % 250}.9") as client:
                        assert client.ask(b"x") == b"x"

            await asyncio.to_thread(open_sessions, 1, 500)
            before = worker.memory_info().rss
            await asyncio.to_thread(open_sessions, 100, SESSIONS - 500)
            assert worker.memory_info().rss - before < (SESSIONS - 500) * SESSION_BYTES
            with Talker(udp) as client:
                assert await unheard(client, b"too many")

            def count(direction):
                return counter(control, "turnout_worker_datagrams_total", direction=direction)

            counted = [await asyncio.to_thread(count, way) for way in ("in", "out", "dropped")]
            assert counted == [SESSIONS + 1, SESSIONS, 1]
            assert len(set(echo.peers)) == SESSIONS


@scenario
async def test_datagrams_without_sessions_are_counted_one_by_one(tmp_path):
    udp, control = free_port(), free_port()
    with Echo() as echo, Talker(udp) as client:
        text = udp_config(udp, echo.address, control=control, listener="udp = { sessions = false }")
        async with turnout(tmp_path, text) as proxy:
            for number in range(300):
                client.send(b"%d" % number)
            await until(lambda: len(echo.got) == 300)
            name = "turnout_worker_datagrams_total"
            assert await asyncio.to_thread(counter, control, name, direction="in") == 300
            assert await asyncio.to_thread(counter, control, name, direction="dropped") == 0
            assert await proxy.stop() == 0
