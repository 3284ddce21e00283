"""Events: what belongs to a change, what is only said, and following both from any revision."""

import asyncio
import contextlib

import pytest
from harness.turnout import scenario
from sqlalchemy import select

from turnout.control.events.events import Events, GoneError
from turnout.control.storage import schema
from turnout.control.storage.store import Store, StoreError


@contextlib.asynccontextmanager
async def opened(url: str, **options):
    store = await Store.open(url)
    await store.claim()
    events = Events(store, **options)
    await events.open()
    await events.start()
    try:
        yield store, events
    finally:
        await events.close()
        await store.close()


async def happen(store: Store, events: Events, *kinds: str) -> int:
    async with store.change() as change:
        for kind in kinds:
            await events.add(change, kind, by="test", service="app", data={"n": 1})
    return change.revision


async def follow(events: Events, count: int, revision: int | None = None) -> list:
    out = []
    async for event in events.watch(revision):
        out.append(event)
        if len(out) == count:
            break
    return out


@scenario
async def test_what_has_happened_is_replayed_and_then_followed(store_url):
    async with opened(store_url) as (store, events):
        await happen(store, events, "a")
        following = asyncio.create_task(follow(events, 3, 0))
        await happen(store, events, "b")
        events.publish("c", by="test", address="1.2.3.4:5")
        some = await asyncio.wait_for(following, 10)
        assert [(event.kind, event.revision) for event in some] == [("a", 1), ("b", 2), ("c", 3)]
        assert (some[0].service, some[0].data, some[2].address) == ("app", {"n": 1}, "1.2.3.4:5")


@scenario
async def test_events_outlive_the_process(store_url):
    async with opened(store_url) as (store, events):
        await happen(store, events, "a", "b")
        events.publish("said", by="test")
    async with opened(store_url) as (store, events):
        some = await follow(events, 3, 0)
        assert [(event.kind, event.revision, event.last) for event in some] == [
            ("a", 1, False),
            ("b", 1, True),
            ("said", 2, True),
        ]
        assert [event.kind for event in events.recent(2)] == ["b", "said"]
        assert [event.kind for event in events.recent(5, from_revision=1)] == ["said"]


@scenario
async def test_a_reader_goes_on_after_the_last_event_that_it_has_seen_whole(store_url):
    async with opened(store_url) as (store, events):
        await happen(store, events, "a", "b")
        await happen(store, events, "c")
        first, second, third = await follow(events, 3, 0)
        assert [first.last, second.last, third.last] == [False, True, True]
        assert [event.kind for event in await follow(events, 1, second.revision)] == ["c"]


@scenario
async def test_a_change_that_fails_has_no_events(store_url):
    async with opened(store_url) as (store, events):
        with contextlib.suppress(ZeroDivisionError):
            async with store.change() as change:
                await events.add(change, "a", by="test")
                _ = 1 / 0
        await happen(store, events, "b")
        assert [(event.kind, event.revision) for event in await follow(events, 1, 0)] == [("b", 1)]


@scenario
async def test_what_is_said_at_one_moment_shares_one_change(store_url):
    async with opened(store_url) as (store, events):
        for number in range(100):
            events.publish("said", by="test", data={"n": number})
        some = await asyncio.wait_for(follow(events, 100, 0), 10)
        assert [event.data["n"] for event in some] == list(range(100))
        assert {event.revision for event in some} == {1}
        assert store.revision == 1


@scenario
async def test_only_so_many_are_kept_and_a_reader_of_older_ones_is_told(store_url):
    async with opened(store_url, kept=5) as (store, events):
        for _ in range(8):
            await happen(store, events, "a")
        with pytest.raises(GoneError) as caught:
            await follow(events, 1, 2)
        assert caught.value.oldest == 3
        assert [event.revision for event in await follow(events, 5, caught.value.oldest)] == [4, 5, 6, 7, 8]


@scenario
async def test_the_table_is_trimmed(store_url, monkeypatch):
    monkeypatch.setattr("turnout.control.events.events.TRIMMED_EVERY", 10)
    async with opened(store_url, kept=5) as (store, events):
        for _ in range(20):
            await happen(store, events, "a")
    async with opened(store_url, kept=100) as (store, events):
        assert [event.revision for event in events.recent(100)] == [16, 17, 18, 19, 20]


@scenario
async def test_following_ends_with_the_events(store_url):
    async with opened(store_url) as (store, events):
        await happen(store, events, "a")
        following = asyncio.create_task(follow(events, 2, 0))
        await asyncio.sleep(0)
    assert [event.kind for event in await asyncio.wait_for(following, 10)] == ["a"]


@scenario
async def test_following_from_now_on_leaves_out_what_was(store_url):
    async with opened(store_url) as (store, events):
        await happen(store, events, "a")
        following = asyncio.create_task(follow(events, 1))
        await asyncio.sleep(0)
        await happen(store, events, "b")
        assert [event.kind for event in await asyncio.wait_for(following, 10)] == ["b"]


@scenario
async def test_what_was_said_at_the_end_is_kept_too(store_url):
    async with opened(store_url) as (store, events):
        for kind in ("a", "b"):
            events.publish(kind, by="test")
            await asyncio.sleep(0)
            await store.read(select(schema.events))  # the first one is written, and the writer rests
    async with opened(store_url) as (store, events):
        assert [event.kind for event in events.recent()] == ["a", "b"]


@scenario
async def test_events_wait_for_a_store_that_takes_none(store_url, monkeypatch):
    monkeypatch.setattr("turnout.control.events.events.RETRY_S", 0.01)
    async with opened(store_url) as (store, events):
        tries = 0

        def refuse(**_options):
            nonlocal tries
            tries += 1
            raise StoreError("no space left")

        with monkeypatch.context() as broken:
            broken.setattr(store, "change", refuse)
            events.publish("a", by="test")
            while tries < 3:
                await asyncio.sleep(0.005)
            assert events.recent() == []
        assert [event.kind for event in await asyncio.wait_for(follow(events, 1, 0), 10)] == ["a"]
