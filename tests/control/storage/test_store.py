"""The store: the same promises on SQLite and PostgreSQL."""

import asyncio
import contextlib
import sqlite3

import pytest
from harness.turnout import scenario
from sqlalchemy import insert, select, update
from sqlalchemy.exc import IntegrityError

from turnout.control.storage import schema
from turnout.control.storage.store import Change, FencedError, OvertakenError, Store, StoreError
from turnout.control.storage.store import store_url as url_of


@contextlib.asynccontextmanager
async def opened(url: str, *, claim: bool = True):
    store = await Store.open(url)
    try:
        if claim:
            await store.claim()
        yield store
    finally:
        await store.close()


def row(service: str, revision: int):
    values = {"service": service, "settings": "{}", "created_by": "test", "revision": revision}
    return insert(schema.services).values(values)


async def put(store: Store, service: str) -> int:
    async with store.change() as change:
        await change.execute(row(service, change.revision))
    return change.revision


async def names(store: Store) -> list[str]:
    rows = await store.read(select(schema.services).order_by(schema.services.c.revision))
    return [one.service for one in rows]


@scenario
async def test_a_change_is_numbered_and_found_again(store_url):
    async with opened(store_url) as store:
        assert await put(store, "a") == 1
        assert await put(store, "b") == 2
        assert store.revision == 2
    async with opened(store_url) as store:
        assert store.revision == 2
        assert await names(store) == ["a", "b"]
        assert await put(store, "c") == 3


@scenario
async def test_a_change_that_fails_leaves_nothing_and_no_gap(store_url):
    async with opened(store_url) as store:
        ends = []
        with contextlib.suppress(ZeroDivisionError):
            async with store.change() as change:
                change.then(lambda: ends.append("durable"))
                change.at_end(lambda: ends.append("ended"))
                await change.execute(row("a", change.revision))
                _ = 1 / 0
        assert await names(store) == []
        assert ends == ["ended"]
        assert await put(store, "b") == 1


@scenario
async def test_changes_that_begin_together_come_one_after_the_other(store_url):
    async with opened(store_url) as store:
        revisions = await asyncio.gather(*(put(store, f"s{number}") for number in range(20)))
        assert sorted(revisions) == list(range(1, 21))
        assert len(await names(store)) == 20


@scenario
async def test_who_has_lost_the_store_to_another_process_changes_nothing(store_url):
    async with opened(store_url) as former:
        await put(former, "a")
        async with opened(store_url, claim=False) as heir:
            await put(former, "b")  # the heir has only read so far
            assert await heir.claim() == 2
            with pytest.raises(FencedError):
                await put(former, "c")
            assert await put(heir, "d") == 3
            assert await names(former) == ["a", "b", "d"]
        assert await former.claim() == 3
        assert await put(former, "e") == 4


async def said_beside(store: Store, service: str) -> None:
    """By a process that does not write any more, but may add; it does not say its number."""
    async with store.change(fenced=False) as change:
        await change.execute(row(service, 0))


@scenario
async def test_a_number_that_another_process_has_taken_is_not_used_again(store_url):
    async with opened(store_url) as former, opened(store_url) as heir:
        await said_beside(former, "a")
        with pytest.raises(OvertakenError):
            await put(heir, "b")
        assert await names(heir) == ["a"]
        assert (heir.revision, heir.others) == (1, 1)
        assert await put(heir, "b") == 2


@scenario
async def test_who_does_not_ask_for_the_number_gets_the_next_one(store_url):
    async with opened(store_url) as former, opened(store_url) as heir:
        await said_beside(former, "a")
        await said_beside(heir, "b")
        assert (heir.revision, heir.others) == (2, 1)
        await said_beside(former, "c")
        assert (former.revision, former.others) == (3, 1)


@scenario
async def test_a_change_that_was_overtaken_is_made_anew(store_url):
    async with opened(store_url) as former, opened(store_url) as heir:
        await said_beside(former, "a")
        tries, ends = [], []

        async def make(change: Change) -> str:
            tries.append(change.revision)
            change.then(lambda: ends.append("durable"))
            await change.execute(row("b", change.revision))
            return "made"

        change, out = await heir.made(make)
        assert (change.revision, out, tries, ends) == (2, "made", [1, 2], ["durable"])
        assert sorted(await names(heir)) == ["a", "b"]


@scenario
async def test_what_is_fetched_within_a_change_comes_after_what_it_has_said(store_url):
    async with opened(store_url) as store:
        async with store.change() as change:
            await change.execute(row("a", change.revision))
            found = await change.fetch(select(schema.services.c.service))
            await change.execute(row("b", change.revision))
        assert [one.service for one in found] == ["a"]
        assert sorted(await names(store)) == ["a", "b"]


@scenario
async def test_a_change_of_which_a_part_has_failed_is_not_made_in_part(store_url):
    async with opened(store_url) as store:
        await put(store, "a")

        async def make(change: Change) -> None:
            await change.execute(row("b", change.revision))
            await change.execute(row("a", change.revision))
            with contextlib.suppress(IntegrityError):
                await change.fetch(select(schema.services))
            await change.execute(row("c", change.revision))

        with pytest.raises(StoreError, match="nothing of it is made"):
            await store.made(make)
        assert await names(store) == ["a"]
        assert await put(store, "d") == 2


@scenario
async def test_who_is_cancelled_in_a_commit_leaves_a_whole_change(store_url):
    async with opened(store_url) as store:
        inside, durable = asyncio.Event(), []

        async def one() -> None:
            async with store.change() as change:
                change.then(lambda: durable.append(change.revision))
                await change.execute(row("a", change.revision))
                inside.set()

        task = asyncio.create_task(one())
        await inside.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (durable, await names(store), store.revision) == ([1], ["a"], 1)


@scenario
async def test_a_reader_beside_a_change_sees_what_was_before_it(store_url):
    async with opened(store_url) as store:
        await put(store, "a")
        async with store.change() as change:
            await change.execute(row("b", change.revision))
            assert await names(store) == ["a"]
        assert await names(store) == ["a", "b"]


@scenario
async def test_callbacks_are_called_when_the_change_can_be_read_and_before_the_next_one(store_url):
    async with opened(store_url) as store:
        seen = []

        async def one(number: int) -> None:
            async with store.change() as change:
                seen.append(("begin", number))
                change.then(lambda: seen.append(("durable", number)))

        await asyncio.gather(one(1), one(2))
        assert seen == [("begin", 1), ("durable", 1), ("begin", 2), ("durable", 2)]


@scenario
async def test_a_database_of_a_newer_program_is_refused(store_url):
    async with opened(store_url) as store, store.change() as change:
        await change.execute(update(schema.state).values(schema_version=schema.VERSION + 1))
    with pytest.raises(StoreError, match=r"written by a newer Turnout .* \[control\] state"):
        await Store.open(store_url)


def test_a_plain_sqlite_is_a_private_file_in_the_state_directory(tmp_path):
    url = url_of("sqlite", tmp_path)
    assert url == f"sqlite:///{tmp_path}/control.db"

    @scenario
    async def make():
        async with opened(url):
            pass

    make()
    assert (tmp_path / "control.db").stat().st_mode & 0o777 == 0o600


@scenario
async def test_a_file_that_is_no_database_is_named(tmp_path):
    (tmp_path / "control.db").write_text("something else " * 100)
    with pytest.raises(StoreError, match=r"control\.db: file is not a database"):
        await Store.open(url_of("sqlite", tmp_path))


@scenario
async def test_a_file_that_cannot_be_made_is_named(tmp_path):
    with pytest.raises(StoreError, match=r"/none/control\.db cannot be opened: No such file"):
        await Store.open(url_of("sqlite", tmp_path / "none"))


@scenario
async def test_a_database_that_does_not_answer_is_named_without_its_password(tmp_path):
    with pytest.raises(StoreError) as caught:
        await Store.open(f"postgresql://me:secret@/x?host={tmp_path}")
    assert "secret" not in str(caught.value)
    assert "postgresql" in str(caught.value)
    assert "No such file" in str(caught.value)


@scenario
async def test_while_another_process_holds_the_file_the_loop_goes_on(tmp_path):
    async with opened(url_of("sqlite", tmp_path)) as store:
        other = sqlite3.connect(tmp_path / "control.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        waiting = asyncio.create_task(put(store, "a"))
        for _ in range(20):
            await asyncio.sleep(0.001)
            assert not waiting.done()
        other.execute("COMMIT")
        other.close()
        assert await waiting == 1
