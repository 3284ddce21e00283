"""The circuit breaker: every cell of its table, against a plain model, and by many processes at once."""

import itertools
import json
import os
import subprocess
import sys
from dataclasses import dataclass, field

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, rule

from turnout.ext.breaker import _Breaker, _is_failure, _next, _open_to, _pack, _table, _unpack
from turnout.ext.scoreboard import OUTCOMES, Scoreboard

TICK = 16
NOW = 1_000 * TICK
CONF = {"failures": 3, "open_ms": 1600, "open_max_ms": 10_000, "probes": 2, "successes": 2}
LEASE = 800


@pytest.fixture
def board():
    board = Scoreboard.create(1, endpoints=4, groups=1, services=1, routes=1, listeners=1, sticky=8)
    board.use_endpoint(1)
    yield board
    board.close()


def step(event, now=NOW, conf=CONF, *, random=0, may_trip=True, **fields):
    """The fields of the word after the event."""
    word = _pack(**fields)
    return _unpack(_next(word, event, now, lease_ms=LEASE, random=random, may_trip=may_trip, **conf))


def word(**fields):
    return _unpack(_pack(**fields))


def ticks(ms):
    return -(-ms // TICK)


# Every cell: a word in which the event has something to do, and the word that has to come of it.
LATER = ticks(NOW + 5000)
CLOSED = {"state": "closed", "failures": 1, "streak": 1, "epoch": 7, "deadline": LATER}
OPEN = {"state": "open", "failures": 3, "streak": 2, "epoch": 7, "deadline": LATER}
HALF = {
    "state": "half_open",
    "failures": 3,
    "streak": 2,
    "epoch": 7,
    "deadline": LATER,
    "probes": 1,
    "successes": 0,
}
FULL = HALF | {"probes": 2}
LAST = HALF | {"probes": 2, "successes": 1}
CELLS = {
    ("closed", "ask_early"): [(CLOSED, {})],
    ("closed", "ask_due"): [(CLOSED, {})],
    ("closed", "success"): [(CLOSED, {"failures": 0})],
    ("closed", "failure"): [
        (CLOSED, {"failures": 2}),
        (
            CLOSED | {"failures": 2},
            {"state": "open", "failures": 3, "streak": 2, "deadline": ticks(NOW + 3200)},
        ),
    ],
    ("closed", "neutral"): [(CLOSED, {})],
    ("closed", "probe_success"): [(CLOSED, {"failures": 0})],
    ("closed", "probe_failure"): [(CLOSED, {"failures": 2})],
    ("closed", "probe_neutral"): [(CLOSED, {})],
    ("open", "ask_early"): [(OPEN, {})],
    ("open", "ask_due"): [
        (
            OPEN | {"deadline": ticks(NOW)},
            {"state": "half_open", "epoch": 8, "probes": 1, "deadline": ticks(NOW + LEASE)},
        ),
        (
            OPEN | {"deadline": 0, "epoch": 15},
            {"state": "half_open", "epoch": 0, "probes": 1, "deadline": ticks(NOW + LEASE)},
        ),
    ],
    ("open", "success"): [(OPEN, {})],
    ("open", "failure"): [(OPEN, {})],
    ("open", "neutral"): [(OPEN, {})],
    ("open", "probe_success"): [(OPEN, {})],
    ("open", "probe_failure"): [(OPEN, {})],
    ("open", "probe_neutral"): [(OPEN, {})],
    ("half_open", "ask_early"): [(HALF, {"probes": 2, "deadline": ticks(NOW + LEASE)}), (FULL, {})],
    ("half_open", "ask_due"): [
        (HALF, {"probes": 2, "deadline": ticks(NOW + LEASE)}),
        (LAST, {"probes": 1, "successes": 0, "epoch": 8, "deadline": ticks(NOW + LEASE)}),
    ],
    ("half_open", "success"): [(HALF, {})],
    ("half_open", "failure"): [(HALF, {})],
    ("half_open", "neutral"): [(HALF, {})],
    ("half_open", "probe_success"): [
        (HALF, {"probes": 0, "successes": 1}),
        (
            LAST,
            {"state": "closed", "failures": 0, "probes": 0, "successes": 0, "deadline": ticks(NOW + 3200)},
        ),
    ],
    ("half_open", "probe_failure"): [
        (LAST, {"state": "open", "streak": 3, "probes": 0, "successes": 0, "deadline": ticks(NOW + 6400)}),
    ],
    ("half_open", "probe_neutral"): [(LAST, {"probes": 1})],
}


def test_the_cells_below_are_all_that_the_table_has():
    table = _table()
    assert {(state, event) for state in table for event in table[state]} == set(CELLS)


@pytest.mark.parametrize(
    ("event", "before", "changes"),
    [(event, before, changes) for (_, event), cases in CELLS.items() for before, changes in cases],
)
def test_each_cell_of_the_table_does_what_is_written_here(event, before, changes):
    assert step(event, **before) == word(**(before | changes))


def test_a_state_that_does_not_exist_is_left_alone():
    for event in _table()["closed"]:
        assert _next(3, event, NOW, **CONF) == 3


def test_without_a_threshold_nothing_ever_changes():
    for event, before in itertools.product(_table()["closed"], (CLOSED, OPEN, HALF)):
        packed = _pack(**before)
        assert _next(packed, event, NOW, **(CONF | {"failures": 0})) == packed


def test_a_success_of_an_endpoint_without_failures_writes_nothing():
    well = _pack(state="closed", streak=1, deadline=LATER)
    assert _next(well, "success", NOW, **CONF) == well
    assert _next(0, "success", NOW, **CONF) == 0


def test_a_success_between_failures_starts_the_count_anew():
    packed = 0
    for event in ["failure", "failure", "success", "failure", "failure"]:
        packed = _next(packed, event, NOW, **CONF)
    assert _unpack(packed)["state"] == "closed"
    assert _unpack(_next(packed, "failure", NOW, **CONF))["state"] == "open"


def test_the_open_time_doubles_up_to_its_cap():
    packed, spans = _pack(state="half_open", probes=1, deadline=LATER), []
    for _ in range(20):
        tripped = _unpack(_next(packed, "probe_failure", NOW, **CONF))
        spans.append(tripped["deadline"] * TICK - NOW)
        packed = _pack(**(tripped | {"state": "half_open", "probes": 1}))
    assert spans == [1600, 3200, 6400] + [10_000] * 17
    assert _unpack(packed)["streak"] == 15


def test_an_open_time_above_its_cap_is_not_cut():
    tripped = step("failure", conf=CONF | {"failures": 1, "open_ms": 20_000})
    assert tripped["deadline"] == ticks(NOW + 20_000)


@pytest.mark.parametrize(("random", "extra"), [(0, 0), (2**31, 200), (2**32 - 1, 400)])
def test_jitter_adds_up_to_its_share_of_the_open_time(random, extra):
    tripped = step("failure", conf=CONF | {"failures": 1, "jitter_pct": 25}, random=random)
    assert tripped["deadline"] in (ticks(NOW + 1600 + extra), ticks(NOW + 1600 + extra - 1))


def test_the_largest_times_do_not_overflow():
    conf = {"failures": 1, "open_ms": 2**32 - 1, "open_max_ms": 2**32 - 1, "jitter_pct": 100}
    tripped = step("probe_failure", conf=conf, random=2**32 - 1, state="half_open", streak=15)
    assert ticks(NOW + 2 * (2**32 - 1) - 2) <= tripped["deadline"] <= ticks(NOW + 2 * (2**32 - 1))
    assert not _open_to(_pack(**tripped), NOW, **conf)


def test_settings_beyond_what_the_word_holds_count_as_its_largest():
    conf = {
        "failures": 2**32 - 1,
        "open_ms": 100,
        "open_max_ms": 100,
        "probes": 2**32 - 1,
        "successes": 2**32 - 1,
    }
    assert step("failure", conf=conf, failures=1021)["state"] == "closed"
    assert step("failure", conf=conf, failures=1022)["state"] == "open"
    assert step("ask_early", conf=conf, state="half_open", probes=62, deadline=LATER)["probes"] == 63
    assert step("ask_early", conf=conf, state="half_open", probes=63, deadline=LATER)["probes"] == 63
    assert step("probe_success", conf=conf, state="half_open", probes=1, successes=61)["state"] == "half_open"
    assert step("probe_success", conf=conf, state="half_open", probes=1, successes=62)["state"] == "closed"


def test_a_trip_soon_after_recovery_goes_on_with_the_streak_and_a_late_one_does_not():
    near = {"state": "closed", "failures": 2, "streak": 2, "deadline": ticks(NOW) + 1}
    assert step("failure", **near)["streak"] == 3
    assert step("failure", **(near | {"deadline": ticks(NOW)}))["streak"] == 1


def test_a_streak_is_forgotten_before_its_deadline_could_come_again():
    over = step("success", state="closed", streak=4, deadline=ticks(NOW) - 1)
    assert (over["streak"], over["deadline"]) == (0, 0)


def test_a_machine_that_has_run_for_years_counts_its_first_trip_as_the_first():
    years = 2**31 * TICK + NOW
    tripped = step("failure", now=years, state="closed", failures=2)
    assert tripped["streak"] == 1
    assert not _open_to(_pack(**tripped), years, **CONF)
    assert _open_to(_pack(**tripped), years + 1600 + TICK, **CONF)


def test_a_deadline_holds_across_the_end_of_its_bits():
    late = 2**32 * TICK - 320
    tripped = _pack(**step("failure", now=late, conf=CONF | {"failures": 1}))
    assert _unpack(tripped)["deadline"] == 80
    assert not _open_to(tripped, late + 1599, **CONF)
    assert _open_to(tripped, late + 1600, **CONF)


def test_an_endpoint_that_may_not_trip_stays_closed_and_trips_once_it_may():
    packed = 0
    for _ in range(10):
        packed = _next(packed, "failure", NOW, may_trip=False, **CONF)
    assert _unpack(packed) == word(state="closed", failures=10)
    assert _unpack(_next(packed, "failure", NOW, **CONF))["state"] == "open"


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"state": "closed"}, True),
        ({"state": "open", "deadline": LATER}, False),
        ({"state": "open", "deadline": ticks(NOW)}, True),
        ({"state": "half_open", "probes": 1, "deadline": LATER}, True),
        ({"state": "half_open", "probes": 2, "deadline": LATER}, False),
        ({"state": "half_open", "probes": 2, "deadline": ticks(NOW)}, True),
    ],
)
def test_looking_agrees_with_asking(board, fields, expected):
    assert _open_to(_pack(**fields), NOW, **CONF) is expected
    events = ["ask_due" if _unpack(_pack(**fields))["deadline"] <= ticks(NOW) else "ask_early"]
    asked = _next(_pack(**fields), events[0], NOW, **CONF) != _pack(**fields)
    assert expected is (asked or fields["state"] == "closed")


FAILS = {"connect": 1, "timeout": 2, "reset": 4, "5xx": 8}


@pytest.mark.parametrize("outcome", OUTCOMES)
@pytest.mark.parametrize("on", range(16))
def test_an_outcome_is_a_failure_only_where_its_bit_is_set(outcome, on):
    status = int(outcome[0]) * 100 + 3 if outcome.endswith("xx") else 0
    assert _is_failure(OUTCOMES.index(outcome), status, on=on) is bool(on & FAILS.get(outcome, 0))


def test_single_statuses_are_failures_where_listed():
    for status in (*range(100, 612), 0, 99, 612, 999):
        outcome = OUTCOMES.index(f"{min(max(status // 100, 1), 5)}xx")
        assert _is_failure(outcome, status, statuses=[429, 503, 100, 611]) is (status in (429, 503, 100, 611))


@pytest.mark.parametrize("outcome", ["stale", "cancel"])
def test_what_says_nothing_of_the_endpoint_is_no_failure_whatever_the_status(outcome):
    assert not _is_failure(OUTCOMES.index(outcome), 503, on=15, statuses=[503])


# ---- in the scoreboard ---------------------------------------------------------------------------


def trip(breaker, now=NOW):
    for _ in range(CONF["failures"] - 1):
        assert breaker.report("failure", now) == 0
    return breaker.report("failure", now)


def test_a_trip_is_counted_dated_and_told(board):
    breaker = _Breaker(board.fd, 1, **CONF)
    changes = board.changes

    tripped = trip(breaker)

    assert tripped == breaker.word
    assert board.breaker(1)["state"] == "open"
    assert board.breaker(1)["trips"] == 1
    assert board.breaker(1)["changed_ms"] == NOW
    assert board.changes == changes + 1
    assert breaker.admit(NOW) == (0, 0)


def test_a_breaker_goes_all_the_way_round(board):
    breaker = _Breaker(board.fd, 1, **CONF)
    trip(breaker)
    later = NOW + 1600
    changes = board.changes

    assert breaker.admit(later - 1) == (0, 0)
    assert breaker.admit(later) == (2, 1)
    assert breaker.admit(later) == (2, 1)
    assert breaker.admit(later) == (0, 0)
    assert breaker.report("probe_success", later, epoch=1) == 0
    assert board.breaker(1)["state"] == "half_open"
    assert breaker.report("probe_success", later + 5, epoch=1) == 0
    assert board.breaker(1) | {"streak": 0} == {
        "state": "closed",
        "failures": 0,
        "streak": 0,
        "probes": 0,
        "successes": 0,
        "trips": 1,
        "changed_ms": later + 5,
    }
    assert board.changes == changes + 2
    assert breaker.admit(later) == (1, 0)


def test_a_failed_probe_shuts_again_and_is_no_trip_to_be_taken_back(board):
    breaker = _Breaker(board.fd, 1, **CONF)
    trip(breaker)
    _, epoch = breaker.admit(NOW + 1600)

    assert breaker.report("probe_failure", NOW + 1600, epoch=epoch) == 0
    assert board.breaker(1)["state"] == "open"
    assert board.breaker(1)["trips"] == 2
    assert breaker.admit(NOW + 1600 + 3199) == (0, 0)
    assert breaker.admit(NOW + 1600 + 3200)[0] == 2


def test_a_trip_can_be_taken_back(board):
    breaker = _Breaker(board.fd, 1, **CONF)
    tripped = trip(breaker)
    changes = board.changes

    breaker.untrip(tripped, NOW + 1)

    assert _unpack(breaker.word)["state"] == "closed"
    assert _unpack(breaker.word)["streak"] == 0
    assert breaker.admit(NOW + 1) == (1, 0)
    assert board.breaker(1)["changed_ms"] == NOW + 1
    assert board.changes == changes + 1
    assert breaker.report("failure", NOW + 2) == breaker.word != 0


def test_a_trip_is_not_taken_back_once_the_breaker_has_moved_on(board):
    breaker = _Breaker(board.fd, 1, **CONF)
    tripped = trip(breaker)
    breaker.admit(NOW + 1600)
    moved, changes = breaker.word, board.changes

    breaker.untrip(tripped, NOW + 1600)

    assert (breaker.word, board.changes) == (moved, changes)


def test_probes_of_a_killed_worker_come_back_when_the_lease_is_over(board):
    breaker = _Breaker(board.fd, 1, **CONF)
    trip(breaker)
    start = NOW + 1600
    lost = [breaker.admit(start, lease_ms=LEASE) for _ in range(2)]
    assert lost == [(2, 1), (2, 1)]

    assert breaker.admit(start + LEASE - 1, lease_ms=LEASE) == (0, 0)
    assert breaker.admit(start + LEASE, lease_ms=LEASE) == (2, 2)
    assert breaker.admit(start + LEASE, lease_ms=LEASE) == (2, 2)
    assert breaker.admit(start + LEASE, lease_ms=LEASE) == (0, 0)

    # Should the worker live after all, its probes count for nothing: no close, no trip, no token freed.
    before = breaker.word
    for event in ("probe_success", "probe_failure", "probe_neutral"):
        assert breaker.report(event, start + LEASE, epoch=1) == 0
    assert breaker.word == before
    assert breaker.report("probe_success", start + LEASE, epoch=2) == 0
    assert _unpack(breaker.word)["successes"] == 1


def test_without_a_breaker_everything_is_let_through(board):
    armed, off = _Breaker(board.fd, 1, **CONF), _Breaker(board.fd, 1, failures=0)
    trip(armed)
    assert off.admit(NOW) == (1, 0)
    assert off.report("failure", NOW) == 0


# ---- against a plain model -----------------------------------------------------------------------


@dataclass
class Model:
    """The breaker as one would write it with a lock: probes are a set of numbers, epochs have no end."""

    failures: int = 3
    open_ms: int = 1600
    open_max_ms: int = 6000
    probes: int = 2
    successes: int = 2
    state: str = "closed"
    failed: int = 0
    row: int = 0
    passed: int = 0
    epoch: int = 0
    due_ms: int = 0
    out: set = field(default_factory=set)
    serial: int = 0
    trips: int = 0
    changed_ms: int = 0

    def due(self, now):
        return now // TICK >= -(-self.due_ms // TICK)

    def shut_ms(self):
        return min(self.open_ms * 2 ** (self.row - 1), self.open_max_ms)

    def enter(self, state, now):
        self.state, self.changed_ms = state, now
        self.out = set()
        self.passed = 0

    def trip(self, now):
        self.row = min(self.row + 1, 15)
        self.enter("open", now)
        self.trips += 1
        self.due_ms = now + self.shut_ms()

    def begin_epoch(self, now):
        self.epoch += 1
        self.out = set()
        self.passed = 0

    def admit(self, now, lease):
        if self.state == "closed":
            return None, 1
        if self.state == "open":
            if not self.due(now):
                return None, 0
            self.enter("half_open", now)
            self.begin_epoch(now)
        elif len(self.out) >= self.probes:
            if not self.due(now):
                return None, 0
            self.begin_epoch(now)
        self.serial += 1
        self.out.add(self.serial)
        self.due_ms = now + lease
        return self.serial, 2

    def rest(self, now):
        """CLOSED for long enough: the row of trips is over."""
        if self.row and self.due(now):
            self.row = 0

    def report(self, event, now, may_trip):
        if self.state != "closed" or event == "neutral":
            return False
        self.rest(now)
        if event == "success":
            self.failed = 0
            return False
        self.failed += 1
        if self.failed < self.failures or not may_trip:
            return False
        self.trip(now)
        return True

    def report_probe(self, event, serial, epoch, now, may_trip):
        if epoch != self.epoch:
            return False
        if self.state == "closed":
            return self.report(event, now, may_trip)
        if serial not in self.out:
            return False
        self.out.remove(serial)
        if event == "failure":
            self.trip(now)
        elif event == "success":
            self.passed += 1
            if self.passed >= self.successes:
                self.enter("closed", now)
                self.failed = 0
                self.due_ms = now + self.shut_ms()
        return False

    def untrip(self, now):
        self.enter("closed", now)
        self.row -= 1


class BreakerMachine(RuleBasedStateMachine):
    probes = Bundle("probes")

    def __init__(self):
        super().__init__()
        self.model = Model()
        self.board = Scoreboard.create(1, endpoints=1, groups=1, services=1, routes=1, listeners=1, sticky=8)
        self.breaker = _Breaker(
            self.board.fd, 0, failures=3, open_ms=1600, open_max_ms=6000, probes=2, successes=2
        )
        self.now = 10**9
        self.tripped = 0

    def teardown(self):
        del self.breaker
        self.board.close()

    @rule(ms=st.one_of(st.integers(0, 40), st.sampled_from([799, 800, 1600, 3200, 6000, 7000])))
    def time_goes_on(self, ms):
        self.now += ms

    @rule(target=probes)
    def asks(self):
        serial, verdict = self.model.admit(self.now, LEASE)
        got, epoch = self.breaker.admit(self.now, lease_ms=LEASE)
        assert got == verdict
        if got != 2:
            return multiple()
        assert epoch == self.model.epoch % 16
        return serial, self.model.epoch

    @rule(event=st.sampled_from(["success", "failure", "failure", "neutral"]), may_trip=st.booleans())
    def a_request_ends(self, event, may_trip):
        tripped = self.model.report(event, self.now, may_trip)
        self.took(tripped, self.breaker.report(event, self.now, may_trip=may_trip))

    @rule(
        probe=consumes(probes),
        event=st.sampled_from(["success", "success", "failure", "neutral"]),
        may_trip=st.booleans(),
    )
    def a_probe_ends(self, probe, event, may_trip):
        serial, epoch = probe
        if self.model.epoch - epoch >= 16:
            return  # its number has come again, see breaker.pxd
        tripped = self.model.report_probe(event, serial, epoch, self.now, may_trip)
        word = self.breaker.report(f"probe_{event}", self.now, epoch=epoch % 16, may_trip=may_trip)
        self.took(tripped, word)

    @rule(probe=consumes(probes))
    def a_prober_is_killed(self, probe):
        pass

    @rule()
    def a_trip_is_taken_back(self):
        if self.tripped and self.tripped == self.breaker.word:
            self.model.untrip(self.now)
        self.breaker.untrip(self.tripped, self.now)
        self.tripped = 0

    def took(self, tripped, word):
        assert bool(word) == tripped
        if word:
            assert word == self.breaker.word
            self.tripped = word

    @invariant()
    def agrees_with_the_model(self):
        model, seen = self.model, self.board.breaker(0)
        assert seen["state"] == model.state
        assert seen["trips"] == model.trips
        assert seen["changed_ms"] == model.changed_ms
        assert seen["streak"] == model.row
        assert seen["probes"] == len(model.out) <= model.probes
        assert seen["successes"] == model.passed
        if model.state == "closed":
            assert seen["failures"] == model.failed


BreakerMachine.TestCase.settings = settings(max_examples=150, stateful_step_count=60, deadline=None)
TestBreakerMachine = BreakerMachine.TestCase


# ---- many processes ------------------------------------------------------------------------------

PARTIES = 4
TIMES = 400_000
CHILD = """
import json, sys
from turnout.ext.breaker import _Breaker
fd, parties, work, now, times, conf = json.loads(sys.argv[1])
breaker = _Breaker(fd, 1, **conf)
breaker.meet(parties)
print(json.dumps(getattr(breaker, work)(now, times)))
"""


def together(board, work, now, times, conf):
    """What each of several processes got that did the same work at the same time."""
    job = json.dumps([board.fd, PARTIES, work, now, times, conf])
    children = [
        subprocess.Popen(
            [sys.executable, "-c", CHILD, job],
            stdout=subprocess.PIPE,
            pass_fds=[board.fd],
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        )
        for _ in range(PARTIES)
    ]
    try:
        return [json.loads(child.communicate(timeout=20)[0]) for child in children]
    finally:
        for child in children:
            child.kill()
            child.wait()


@pytest.mark.parametrize("probes", [1, 3, 63])
def test_processes_together_never_have_more_probes_in_flight_than_allowed(board, probes):
    conf = CONF | {"probes": probes}
    breaker = _Breaker(board.fd, 1, **conf)
    trip(breaker)
    changes = board.changes

    results = together(board, "hammer_probes", NOW + 1600, TIMES, conf)

    assert [got for got, _ in results] == [TIMES] * PARTIES
    assert max(most for _, most in results) <= probes
    assert _unpack(breaker.word)["state"] == "half_open"
    assert _unpack(breaker.word)["probes"] == 0
    assert _unpack(breaker.word)["epoch"] == 1
    assert board.changes == changes + 1


def test_failures_of_processes_together_trip_once_and_every_process_sees_it(board):
    conf = CONF | {"failures": 1000}
    breaker = _Breaker(board.fd, 1, **conf)
    changes = board.changes

    results = together(board, "hammer_failures", NOW, 900, conf)

    assert sum(results) == 1
    assert _unpack(breaker.word)["failures"] == 1000
    assert board.breaker(1)["trips"] == 1
    assert board.changes == changes + 1
    assert breaker.admit(NOW) == (0, 0)
    assert together(board, "hammer_probes", NOW, 100, conf) == [[0, 0]] * PARTIES
