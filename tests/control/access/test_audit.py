"""The audit log: what it says, and that nothing can be done to it unnoticed."""

import asyncio
import contextlib
import json

import pytest
from sqlalchemy import delete, func, select, update

from turnout.control.access import anchor
from turnout.control.access.actor import Actor
from turnout.control.access.audit import Audit
from turnout.control.access.canonical import MAX
from turnout.control.access.roles import Role
from turnout.control.storage.schema import audit as table
from turnout.control.storage.schema import audit_head
from turnout.control.storage.store import Store

ANN = Actor("token", "ann", Role.DEPLOYER, ("*",), "10.0.0.9")
ENTRIES = 7


@pytest.fixture
def with_audit(with_store, tmp_path):
    """Run a coroutine function with an audit log of ENTRIES entries, and its store."""

    def run(work):
        async def whole(store):
            audit = Audit(store, tmp_path)
            await audit.open()
            for number in range(1, ENTRIES + 1):
                await audit.record(
                    ANN, "split.change", f"app{number}", before={"v1": 1}, after={"v1": 0, "v2": 1}
                )
            await audit.close()
            return await work(audit, store)

        return with_store(whole)

    return run


async def change(store, statement) -> None:
    async with store.change() as changing:
        await changing.execute(statement)


def test_an_entry_says_who_did_what_before_after_and_with_what_result(with_audit):
    async def work(audit, _store):
        entry = (await audit.entries(limit=1))[0]

        assert (entry.n, entry.kind, entry.actor, entry.role, entry.source) == (
            1,
            "token",
            "ann",
            "deployer",
            "10.0.0.9",
        )
        assert (entry.action, entry.subject, entry.result) == ("split.change", "app1", "ok")
        assert (json.loads(entry.before), json.loads(entry.after)) == ({"v1": 1}, {"v1": 0, "v2": 1})

    with_audit(work)


def test_an_entry_that_is_part_of_a_change_shares_what_becomes_of_it(with_audit):
    async def work(audit, store):
        async with store.change() as made:
            await audit.add(made, ANN, "x", "made", after={"weight": 2})
        with contextlib.suppress(ZeroDivisionError):
            async with store.change() as failed:
                await audit.add(failed, ANN, "x", "failed")
                _ = 1 / 0
        number = await audit.record(ANN, "x", "later")

        found = [(entry.n, entry.subject) for entry in await audit.entries(after=ENTRIES)]
        assert found == [(ENTRIES + 1, "made"), (number, "later")]
        assert (await audit.verify()).ok

    with_audit(work)


def test_entries_of_two_processes_are_one_chain(with_audit, store_url, tmp_path):
    async def work(audit, _store):
        other_store = await Store.open(store_url)
        other = Audit(other_store, tmp_path)
        try:
            for number in range(3):
                await audit.record(ANN, "x", f"one {number}")
                await other.record(ANN, "x", f"other {number}")
        finally:
            await other.close()
            await other_store.close()
        assert len(await audit.entries(after=ENTRIES)) == 6
        assert (await audit.verify()).ok

    with_audit(work)


def test_somebody_who_is_not_known_is_recorded_by_his_address(with_audit):
    async def work(audit, _store):
        number = await audit.record(
            None, "proxy.stop", "proxy", result="refused", detail="who are you?", source="10.0.0.66"
        )
        (entry,) = await audit.entries(after=ENTRIES)

        assert (entry.n, entry.actor, entry.source, entry.result) == (number, "", "10.0.0.66", "refused")

    with_audit(work)


def test_entries_that_come_together_have_each_their_number(with_audit):
    async def work(audit, _store):
        numbers = await asyncio.gather(*(audit.record(ANN, "x", str(n)) for n in range(50)))

        assert sorted(numbers) == list(range(ENTRIES + 1, ENTRIES + 51))
        assert {entry.n: entry.subject for entry in await audit.entries(after=ENTRIES)} == {
            number: str(n) for n, number in enumerate(numbers)
        }
        assert (await audit.verify()).ok

    with_audit(work)


def test_entries_are_found_by_what_is_asked_for(with_audit):
    async def work(audit, _store):
        await audit.record(ANN, "proxy.stop", "proxy", result="refused")

        assert [entry.n for entry in await audit.entries(after=2, limit=2)] == [3, 4]
        assert [entry.n for entry in await audit.entries(limit=2, newest=True)] == [ENTRIES, ENTRIES + 1]
        assert [entry.n for entry in await audit.entries(subject="app3", actor="ann")] == [3]
        assert [entry.n for entry in await audit.entries(result="refused")] == [ENTRIES + 1]
        assert await audit.entries(action="nothing") == []

    with_audit(work)


@pytest.mark.parametrize("text", ["a\0b", "\udcff", "é", '"quoted"\n'])
def test_any_text_can_be_recorded_and_verified(with_audit, text):
    async def work(audit, _store):
        await audit.record(ANN, "x", text, before={text: text}, detail=text)

        assert (await audit.verify()).ok

    with_audit(work)


def test_of_what_is_too_long_the_digest_is_kept(with_audit):
    async def work(audit, _store):
        await audit.record(ANN, "x", "y", after="a" * 10 * MAX)
        (entry,) = await audit.entries(after=ENTRIES)

        assert json.loads(entry.after).keys() == {"characters", "sha256"}
        assert (await audit.verify()).ok

    with_audit(work)


def test_a_log_that_nobody_touched_is_whole(with_audit, tmp_path):
    async def work(audit, _store):
        verdict = await audit.verify()

        assert (verdict.ok, verdict.entries) == (True, ENTRIES)
        assert verdict.head == anchor.read(tmp_path)

    with_audit(work)


@pytest.mark.parametrize("column", [column.name for column in table.columns if column.name != "n"])
def test_one_byte_changed_in_any_column_is_found(with_audit, column):
    async def work(audit, store):
        of = table.c[column]
        (row,) = await store.read(select(of).where(table.c.n == 4))
        other = (
            row[0] + 1 if column == "time" else "x" if row[0] == "" else chr(ord(row[0][0]) ^ 1) + row[0][1:]
        )
        await change(store, update(table).where(table.c.n == 4).values({column: other}))

        verdict = await audit.verify()
        assert (verdict.broken.n, verdict.entries) == (4, 3)

    with_audit(work)


@pytest.mark.parametrize(
    ("gone", "first"), [([1], 1), ([4], 4), ([3, 4, 5], 3), ([ENTRIES], ENTRIES), ([5, 6, 7], 5)]
)
def test_entries_that_are_removed_are_found(with_audit, gone, first):
    async def work(audit, store):
        await change(store, delete(table).where(table.c.n.in_(gone)))

        broken = (await audit.verify()).broken
        assert broken.n == first
        assert "missing" in broken.why

    with_audit(work)


def test_entries_that_change_places_are_found(with_audit):
    async def work(audit, store):
        for former, new in ((3, 100), (4, 3), (100, 4)):
            await change(store, update(table).where(table.c.n == former).values(n=new))

        assert (await audit.verify()).broken.n == 3

    with_audit(work)


@pytest.mark.parametrize("kept", [0, 4])
def test_a_tail_that_is_cut_off_in_the_whole_database_is_found_by_the_file(with_audit, kept):
    async def work(audit, store):
        await change(store, delete(table).where(table.c.n > kept))
        await change(store, delete(audit_head))

        broken = (await audit.verify()).broken
        assert broken.n == kept + 1
        assert f"{ENTRIES}, the last one that {anchor.NAME} remembers" in broken.why

    with_audit(work)


def test_a_log_that_is_written_anew_as_a_whole_is_found_by_the_file(with_audit, with_store, tmp_path):
    async def work(audit, store):
        await change(store, delete(table))
        await change(store, delete(audit_head))
        forged = Audit(store, tmp_path / "elsewhere")
        (tmp_path / "elsewhere").mkdir()
        for _ in range(ENTRIES + 3):
            await forged.record(ANN, "split.change", "app")

        assert "is another one" in (await audit.verify()).broken.why

    with_audit(work)


def test_what_was_cut_off_stays_missing_after_a_restart_and_new_entries(with_audit, tmp_path):
    async def work(_audit, store):
        await change(store, delete(table).where(table.c.n > 4))
        await change(store, delete(audit_head))
        audit = Audit(store, tmp_path)
        await audit.open()
        await audit.record(ANN, "split.change", "app")
        await audit.close()

        assert (await audit.verify()).broken.n == 5
        (said,) = await audit.entries(action="audit.open")
        assert (said.n, said.result) == (ENTRIES + 1, "failed")
        assert "ends with entry 4" in said.detail

    with_audit(work)


@pytest.mark.parametrize("content", [None, "{}", "nonsense"])
def test_a_file_that_is_gone_or_makes_no_sense_becomes_an_entry(with_audit, tmp_path, content):
    async def work(_audit, store):
        if content is None:
            (tmp_path / anchor.NAME).unlink()
        else:
            (tmp_path / anchor.NAME).write_text(content)
        audit = Audit(store, tmp_path)
        await audit.open()
        await audit.close()

        (said,) = await audit.entries(action="audit.open")
        assert anchor.NAME in said.detail
        assert (await audit.verify()).ok

    with_audit(work)


def test_a_process_that_was_killed_before_the_file_was_written_leaves_a_whole_log(with_audit, tmp_path):
    async def work(audit, store):
        before = (tmp_path / anchor.NAME).read_bytes()
        await audit.record(ANN, "split.change", "app")
        await audit.close()
        (tmp_path / anchor.NAME).write_bytes(before)
        later = Audit(store, tmp_path)
        await later.open()

        assert (await later.verify()).ok
        assert (await store.read(select(func.count()).select_from(table)))[0][0] == ENTRIES + 1

    with_audit(work)


def test_a_failure_to_write_is_the_callers_and_the_next_entry_is_written(with_audit):
    async def work(audit, store):
        good, store.change = store.change, lambda **_: 1 / 0
        with pytest.raises(ZeroDivisionError):
            await audit.record(ANN, "x", "lost")
        store.change = good

        assert await audit.record(ANN, "x", "kept") == ENTRIES + 1
        assert (await audit.verify()).ok

    with_audit(work)


def test_a_program_and_the_one_that_replaces_it_write_one_log(with_audit, tmp_path, store_url):
    async def work(audit, _store):
        other_store = await Store.open(store_url)
        await other_store.claim()
        other = Audit(other_store, tmp_path)
        await other.open()
        for _ in range(5):
            await asyncio.gather(audit.record(ANN, "proxy.upgrade", "old"), other.record(ANN, "x", "new"))
        await audit.close()
        await other.close()
        await other_store.close()

        verdict = await audit.verify()
        assert (verdict.ok, verdict.entries) == (True, ENTRIES + 10)

    with_audit(work)
