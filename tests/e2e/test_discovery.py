"""Endpoints that the DNS names, and a file that takes effect when it is edited."""

import asyncio

from fakes.nameserver import Nameserver
from harness.client import get, load, until
from harness.origin import Origin
from harness.turnout import config, free_port, scenario, turnout


def discovering(port: int, server: Nameserver, question: str) -> str:
    text = config(port, "127.0.0.1:1")
    found = f'discover = {{ {question}, server = "{server.address}" }}'
    return text.replace('endpoints = ["127.0.0.1:1"]', found)


def port_of(origin: Origin) -> str:
    return origin.address.rpartition(":")[2]


async def answers(port: int, status: int) -> None:
    async def so() -> bool:
        return (await get(port)).status == status

    while not await so():
        await asyncio.sleep(0.05)


@scenario
async def test_traffic_follows_what_the_dns_says_and_no_request_is_lost(tmp_path):
    port = free_port()
    async with Origin() as one, Origin() as other, Nameserver() as server:
        server.say("_app._tcp.test", "SRV", f"0 1 {port_of(one)} a.test.")
        server.say("a.test", "A", "127.0.0.1")
        text = discovering(port, server, 'srv = "_app._tcp.test"')
        async with turnout(tmp_path, text) as proxy, load(port) as running:
            await running.more(20)
            assert (one.requests > 0, other.requests) == (True, 0)

            server.say("_app._tcp.test", "SRV", f"0 1 {port_of(other)} a.test.")
            await until(lambda: other.requests > 0)
            await running.more(20)
            assert running.failures == [], proxy.text


@scenario
async def test_neither_a_server_that_fails_nor_a_name_that_is_gone_empties_a_service(tmp_path):
    port = free_port()
    async with Origin() as origin, Nameserver() as server:
        server.say("app.test", "A", "127.0.0.1")
        async with turnout(
            tmp_path, discovering(port, server, f'dns = "app.test:{port_of(origin)}"')
        ) as proxy:
            assert (await get(port)).status == 200

            server.rcode = "SERVFAIL"
            await until(lambda: proxy.said("what is known of a name stays: "))
            assert (await get(port)).status == 200

            server.rcode = None
            await until(lambda: proxy.said("a name is answered again"))
            server.records.clear()
            await until(lambda: proxy.said("has no addresses any more"))
            assert (await get(port)).status == 200


@scenario
async def test_the_last_good_answer_serves_after_a_restart_without_a_name_server(tmp_path):
    port = free_port()
    async with Origin() as origin, Nameserver() as server:
        server.say("app.test", "A", "127.0.0.1")
        async with turnout(
            tmp_path, discovering(port, server, f'dns = "app.test:{port_of(origin)}"')
        ) as proxy:
            assert (await get(port)).status == 200
            assert await proxy.stop() == 0
            server.silent = True
            await proxy.start()
            await proxy.serving(2)
            assert (await get(port)).status == 200


@scenario
async def test_a_name_that_comes_later_is_found_later(tmp_path):
    port = free_port()
    async with Origin() as origin, Nameserver() as server:
        server.rcode = "SERVFAIL"
        async with turnout(tmp_path, discovering(port, server, f'dns = "app.test:{port_of(origin)}"')):
            assert (await get(port)).status == 503
            server.rcode = None
            server.say("app.test", "A", "127.0.0.1")
            await asyncio.wait_for(answers(port, 200), 20)


@scenario
async def test_an_edit_takes_effect_by_itself_and_a_bad_one_changes_nothing(tmp_path):
    port, more = free_port(), free_port()
    async with Origin() as origin:
        text = config(port, origin.address).replace("watch = false", "watch = true")
        async with turnout(tmp_path, text) as proxy:
            proxy.file.write_text(text + "nonsense = 1")
            await until(lambda: proxy.said("reload refused"))
            assert (await get(port)).status == 200

            proxy.file.write_text(text + f'[listeners.more]\nbind = "127.0.0.1:{more}"\n')
            await until(lambda: proxy.said(" reloaded "))
            assert (await get(more)).status == 200
