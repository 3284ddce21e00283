"""The client against a proxy that runs: a service that registers itself, and events through a restart."""

import asyncio
import contextlib
import itertools
import threading

from harness.client import get, until
from harness.origin import Origin
from harness.turnout import config, free_port, scenario, turnout

from turnout import AsyncClient, Client


@contextlib.asynccontextmanager
async def running(folder):
    """An origin in the file, the proxy, the port of its listener and the address of its API."""
    port, control = free_port(), free_port()
    async with Origin() as origin, turnout(folder, config(port, origin.address, control=control)) as proxy:
        yield proxy, port, f"http://127.0.0.1:{control}"


async def addresses(client: AsyncClient) -> set[str]:
    return {row["address"] for row in await client.endpoints("app")}


@scenario
async def test_a_registered_service_gets_requests_and_leaves_without_one_lost(tmp_path):
    async with running(tmp_path) as (_, port, api), Origin() as mine, AsyncClient(api) as client:
        async with client.registered("app", mine.address, ttl=5, version="v2", drain=20):
            assert mine.address in await addresses(client)
            for _ in range(10):
                assert (await get(port)).status == 200
            served = mine.requests
            slow = [asyncio.create_task(get(port, "/slow/300")) for _ in range(4)]
            await until(lambda: mine.requests > served)
        answers = await asyncio.gather(*slow)
        after = mine.requests
        for _ in range(6):
            assert (await get(port)).status == 200

        assert served > 0
        assert {answer.status for answer in answers} == {200}
        assert mine.requests == after
        assert mine.address not in await addresses(client)


@scenario
async def test_a_lease_that_somebody_took_away_is_taken_anew(tmp_path):
    async with (
        running(tmp_path) as (_, _, api),
        AsyncClient(api) as client,
        client.registered("app", "127.0.0.1:1", ttl=1),
    ):
        await client.deregister("app", "127.0.0.1:1")
        while "127.0.0.1:1" not in await addresses(client):
            await asyncio.sleep(0.02)


@scenario
async def test_a_lease_that_is_not_renewed_ends(tmp_path):
    async with running(tmp_path) as (_, _, api), Origin() as mine, AsyncClient(api) as client:
        await client.register("app", mine.address, ttl=1)
        revision = (await client.past_events())[-1]["revision"]
        async for event in client.events(revision, kind="endpoint"):
            assert (event["kind"], event["address"]) == ("endpoint.expired", mine.address)
            break

        assert mine.address not in await addresses(client)


@scenario
async def test_events_go_on_after_the_proxy_was_away(tmp_path):
    async with running(tmp_path) as (proxy, _, api):
        client, seen = Client(api), []
        client.register("app", "127.0.0.1:1")
        thread = threading.Thread(
            target=lambda: seen.extend(itertools.islice(client.events(0, service="app"), 3))
        )
        thread.start()
        await until(lambda: proxy.said(" serving file="))
        await proxy.stop()
        await proxy.start()
        await proxy.serving(2)
        for address in ("127.0.0.1:2", "127.0.0.1:3"):
            await asyncio.to_thread(client.register, "app", address)
        await asyncio.to_thread(thread.join, 20)

    assert [event["address"] for event in seen] == [f"127.0.0.1:{number}" for number in (1, 2, 3)]
