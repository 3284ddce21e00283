"""The wheel against a table of deadlines: nothing fires early or more than a tick late, nothing is lost."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from turnout.ext.timers import _Wheel

TICK = 16
NODES = 12
SPANS = st.one_of(
    st.integers(0, 3 * TICK),
    st.integers(0, 300 * TICK),
    st.sampled_from([n * 256 * TICK + d for n in (1, 2, 254, 255, 256) for d in (-TICK, -1, 0, 1, TICK)]),
    st.integers(0, 20_000_000),
)
STARTS = st.one_of(
    st.integers(0, 70_000 * TICK),
    st.sampled_from([(1 << 32) * TICK - d for d in (1, 100 * TICK, 70_000 * TICK)]),  # ticks wrap around
)


def last_tick(now: int) -> int:
    return now // TICK * TICK


class Timers(RuleBasedStateMachine):
    @initialize(now=STARTS)
    def begin(self, now):
        self.now = now
        self.wheel = _Wheel(now, NODES)
        self.deadlines: dict[int, int] = {}

    def arm(self, node, deadline):
        self.wheel.arm(node, deadline)
        if (deadline // TICK + 1) % (1 << 32) == 0:
            deadline += TICK  # tick 0 stands for "disarmed"; the next one is taken instead
        self.deadlines[node] = max(deadline, last_tick(self.now))

    @rule(node=st.integers(0, NODES - 1), span=SPANS)
    def arm_ahead(self, node, span):
        self.arm(node, self.now + span)

    @rule(node=st.integers(0, NODES - 1), span=st.integers(0, 1000))
    def arm_in_the_past(self, node, span):
        self.arm(node, max(0, self.now - span))

    @rule(node=st.integers(0, NODES - 1), by=SPANS)
    def move_later(self, node, by):
        if node in self.deadlines:
            self.arm(node, self.deadlines[node] + by)

    @rule(node=st.integers(0, NODES - 1), share=st.floats(0, 1))
    def move_earlier(self, node, share):
        if node in self.deadlines:
            self.arm(node, self.now + int((self.deadlines[node] - last_tick(self.now)) * share))

    @rule(node=st.integers(0, NODES - 1))
    def drop(self, node):
        self.wheel.drop(node)
        self.deadlines.pop(node, None)

    @rule(node=st.integers(0, NODES - 1))
    def disarm(self, node):
        self.wheel.disarm(node)
        self.deadlines.pop(node, None)

    @rule(
        by=SPANS,
        again=st.dictionaries(st.integers(0, NODES - 1), st.tuples(st.integers(0, NODES - 1), SPANS)),
    )
    def advance(self, by, again):
        self.now += by
        fired: list[int] = []

        def fire(node):
            assert node in self.deadlines, "fired though not armed"
            assert self.deadlines.pop(node) < last_tick(self.now), "fired early"
            fired.append(node)
            if node in again:  # what fires may arm any node, its own included
                other, span = again.pop(node)
                self.arm(other, self.now + span)

        self.wheel.advance(self.now, fire)
        assert [d for d in self.deadlines.values() if d < last_tick(self.now)] == [], "late"

    @invariant()
    def nodes_are_counted(self):
        if hasattr(self, "wheel"):
            armed, standing = self.wheel.linked
            assert armed == standing >= len(self.deadlines)


TestTimers = Timers.TestCase
TestTimers.settings = settings(max_examples=150, stateful_step_count=25, deadline=None)


def fired_at(wheel: _Wheel, start: int, stop: int, step: int = 1) -> dict[int, int]:
    at: dict[int, int] = {}
    for now in range(start, stop, step):
        wheel.advance(now, lambda node, now=now: at.setdefault(node, now))
    return at


@given(st.integers(0, 3000), st.lists(st.integers(0, 5000), min_size=1, max_size=8))
def test_each_fires_once_within_a_tick_of_its_deadline(start, spans):
    wheel = _Wheel(start, len(spans))
    for node, span in enumerate(spans):
        wheel.arm(node, start + span)

    at = fired_at(wheel, start, start + 5000 + 2 * TICK)

    assert {node: 0 < at[node] - (start + span) <= TICK for node, span in enumerate(spans)} == dict.fromkeys(
        range(len(spans)), True
    )
    assert wheel.linked == (0, 0)


def test_a_deadline_beyond_the_wheel_is_reached():
    wheel = _Wheel(5, 1)
    hours = 5 * 3600 * 1000
    wheel.arm(0, 5 + hours)

    assert fired_at(wheel, 5, hours, 60_000) == {}
    assert fired_at(wheel, hours, hours + 100) == {0: hours + 16}


def test_a_deadline_moved_later_without_end_never_fires():
    wheel = _Wheel(0, 1)
    for now in range(0, 100_000, 10):
        wheel.advance(now, lambda node: 1 / 0)
        wheel.arm(0, now + 50)

    assert wheel.linked == (1, 1)


def test_the_first_to_fire_may_drop_and_move_what_is_due_with_it():
    wheel = _Wheel(0, 4)
    for node in range(4):
        wheel.arm(node, 100)
    fired = []

    def fire(node):
        fired.append(node)
        if node == 0:
            wheel.drop(1)
            wheel.arm(2, 1000)
            wheel.disarm(3)

    wheel.advance(500, fire)
    assert (fired, wheel.linked[0]) == ([0], 1)
    wheel.advance(2000, fire)
    assert fired == [0, 2]
