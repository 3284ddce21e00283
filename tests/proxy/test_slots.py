"""The life of a slot, against a model of who may still use it."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from turnout.proxy.slots import SlotsError, SlotTable

CAPACITY = 5


def take(table: SlotTable[str], owners: str, version: int) -> dict[str, int]:
    plan = table.plan(owners)
    table.commit(plan, version)
    return dict(table.held)


def test_a_slot_is_given_on_only_after_acknowledgement_and_when_idle():
    table: SlotTable[str] = SlotTable(1)
    take(table, "a", 1)
    take(table, "", 2)
    busy = {0}
    for released in (1, 2):
        with pytest.raises(SlotsError):
            table.plan("b")
        table.release(released, lambda slot: slot not in busy)
    with pytest.raises(SlotsError):
        table.plan("b")
    busy.clear()
    table.release(2, lambda slot: slot not in busy)

    assert take(table, "b", 3) == {"b": 0}


def test_a_plan_changes_nothing():
    table: SlotTable[str] = SlotTable(2)

    assert table.plan("ab") == table.plan("ab")
    assert table.held == {}


def test_the_slot_that_has_been_free_longest_is_given_first():
    table: SlotTable[str] = SlotTable(2)
    take(table, "a", 1)
    take(table, "", 2)
    table.release(2)

    assert take(table, "b", 3) == {"b": 1}


class Slots(RuleBasedStateMachine):
    """Owners come and go, workers acknowledge late, requests stay on slots longer than that."""

    def __init__(self):
        super().__init__()
        self.table: SlotTable[str] = SlotTable(CAPACITY)
        self.version = 0
        self.acknowledged = 0
        self.used: dict[int, list[tuple[str, int]]] = {}  # slot -> owners and the last version they were in
        self.busy: set[int] = set()

    @rule(owners=st.sets(st.sampled_from("abcdefgh")))
    def freeze(self, owners):
        before = dict(self.table.held)
        try:
            plan = self.table.plan(owners)
        except SlotsError:
            assert self.table.held == before
            return
        self.version += 1
        self.table.commit(plan, self.version)
        assert self.table.held.keys() == owners
        for owner, slot in self.table.held.items():
            assert before.get(owner, slot) == slot
            self.take(owner, slot)

    def users(self, slot) -> set[str]:
        """Owners in a snapshot that some worker may have, or with requests under way."""
        rows = self.used.get(slot, [])
        known = {owner for owner, last in rows if last >= self.acknowledged}
        return known | ({rows[-1][0]} if slot in self.busy and rows else set())

    def take(self, owner, slot):
        assert self.users(slot) <= {owner}
        self.used.setdefault(slot, []).append((owner, self.version))

    @rule(data=st.data())
    def acknowledge(self, data):
        self.acknowledged = data.draw(st.integers(self.acknowledged, self.version))
        self.release()

    @rule()
    def release(self):
        self.table.release(self.acknowledged, lambda slot: slot not in self.busy)

    @rule(slot=st.integers(0, CAPACITY - 1))
    def request_starts(self, slot):
        if slot in self.table.held.values():
            self.busy.add(slot)

    @rule(slot=st.integers(0, CAPACITY - 1))
    def request_ends(self, slot):
        self.busy.discard(slot)

    @invariant()
    def every_owner_has_a_slot_of_its_own(self):
        slots = list(self.table.held.values())
        assert len(set(slots)) == len(slots)
        assert set(slots) <= set(range(CAPACITY))

    def teardown(self):
        """No slot is lost: when all have left, all can be had again."""
        self.busy.clear()
        self.version += 1
        self.table.commit(self.table.plan(""), self.version)
        self.table.release(self.version)
        assert sorted(take(self.table, "12345", self.version + 1).values()) == list(range(CAPACITY))


TestSlots = Slots.TestCase
TestSlots.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)
