"""Selection: who gets a request, over one scoreboard and any number of workers."""

import collections
import json
import os
import subprocess
import sys
from fractions import Fraction

import mmh3
import pytest
from fakes.documents import SHARE, breaker, document, member, service, sticky
from hypothesis import given, settings
from hypothesis import strategies as st

from turnout.ext.scoreboard import Scoreboard
from turnout.ext.select import _Selector
from turnout.ext.snapshot import Snapshot

STRATEGIES = [
    "round_robin",
    "least_connections",
    "weighted_round_robin",
    "ip_hash",
    "random",
    "least_response_time",
    "consistent_hash",
]
KEYED = ["ip_hash", "consistent_hash"]
SMOOTH = ["round_robin", "weighted_round_robin"]


def key(i: int) -> int:
    return mmh3.hash64(f"key{i}", signed=False)[0]


class World:
    """A scoreboard with one service, and a selection for each worker."""

    def __init__(
        self,
        n: int,
        strategy: str = "round_robin",
        *,
        weights: list[int] | None = None,
        priorities: list[int] | None = None,
        groups: list[list[int]] | None = None,
        shares: list[int] | None = None,
        workers: int = 1,
        room: int = 0,
        seed: int = 7,
        **changes,
    ) -> None:
        self.weights = weights or [1] * n
        self.priorities = priorities or [0] * n
        self.groups = groups
        self.shares = shares or [SHARE]
        self.changes = {"strategy": strategy, **changes}
        self.version = 0
        self.board = Scoreboard.create(workers, endpoints=max(8, n, room), groups=8, services=2, sticky=64)
        for weight in self.weights:
            self.board.claim_endpoint(weight=weight, slow_start=False)
        for slot, share in enumerate(self.shares):
            self.board.use_group(slot, share)
        self.members = list(range(n))
        self.selectors = [_Selector(self.board.fd, worker, seed + worker) for worker in range(workers)]
        self.adopt()

    def snapshot(self) -> Snapshot:
        self.version += 1
        rows = [
            member(
                slot,
                "app",
                self.address(slot),
                weight=self.weights[slot],
                priority=self.priorities[slot],
                generation=self.board.endpoint(slot)["generation"],
            )
            for slot in self.members
        ]
        changes = dict(self.changes)
        if self.groups is not None:
            changes["split"] = True
            changes["groups"] = [
                {
                    "slot": slot,
                    "version": f"v{slot}",
                    "share": self.shares[slot],
                    "members": [i for i, s in enumerate(self.members) if s in wanted],
                }
                for slot, wanted in enumerate(self.groups)
            ]
        row = service(0, "app", list(range(len(rows))), **changes)
        return Snapshot(document(members=rows, version=self.version) | {"services": [row]})

    def adopt(self, now_ms: int = 1000) -> Snapshot:
        snapshot = self.snapshot()
        for selector in self.selectors:
            selector.adopt(snapshot, now_ms)
        return snapshot

    @staticmethod
    def address(slot: int) -> str:
        return f"10.0.{slot // 250}.{slot % 250 + 1}:80"

    @staticmethod
    def identity(slot: int) -> int:
        return mmh3.hash64(f"app/{World.address(slot)}", signed=False)[0]

    def pick(self, worker: int = 0, **ask) -> dict:
        return self.selectors[worker].pick(0, **ask)

    def release(self, pick: dict, *outcome, worker: int = 0, **more) -> None:
        self.selectors[worker].release(pick, *outcome, **more)

    def once(self, *outcome, worker: int = 0, **ask) -> int:
        """The slot of a pick that is closed at once."""
        pick = self.pick(worker, **ask)
        assert pick["result"] == "ok"
        self.release(pick, *outcome, worker=worker)
        return pick["slot"]

    def slots(self, n: int, **ask) -> list[int]:
        """Of n requests one after the other, each with its own key."""
        return [self.once(key=key(i), **ask) for i in range(n)]

    def counts(self, n: int, **ask) -> list[int]:
        found = collections.Counter(self.slots(n, **ask))
        return [found[slot] for slot in range(len(self.weights))]

    def inflight(self) -> list[int]:
        return [self.board.endpoint(slot)["inflight"] for slot in range(len(self.weights))]

    def totals(self) -> dict:
        return self.board.service_totals(0)

    def trip(self, slot: int, now_ms: int = 1000, worker: int = 0) -> None:
        """Fail at one endpoint until its breaker opens."""
        others = [other for other in self.members if other != slot]
        while self.board.breaker(slot)["state"] == "closed":
            pick = self.pick(worker, now_ms=now_ms, tried=others[:8])
            assert pick["slot"] == slot
            self.release(pick, "5xx", 500, worker=worker, now_us=now_ms * 1000)


def letters(slots: list[int]) -> str:
    return "".join("abcdefgh"[slot] for slot in slots)


# ---- all strategies --------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 3, 64, 65, 300])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_pick_that_is_closed_once_leaves_nothing_in_flight(strategy, n):
    world = World(n, strategy)
    picks = [world.pick(key=key(i)) for i in range(2 * n)]

    assert sum(world.inflight()) == 2 * n == world.board.group(0)["inflight"]
    for pick in picks:
        world.release(pick)
        with pytest.raises(ValueError, match="released already"):
            world.release(pick)
    assert sum(world.inflight()) == 0 == world.board.group(0)["inflight"]


@pytest.mark.parametrize(
    "strategy", ["round_robin", "weighted_round_robin", "random", "ip_hash", "consistent_hash"]
)
@pytest.mark.parametrize("n", [4, 80])
def test_requests_are_spread_by_weight(strategy, n):
    weights = [1 + slot % 4 for slot in range(n)]
    world = World(n, strategy, weights=weights)
    counts = world.counts(200 * n)
    by_weight = [sum(counts[slot] for slot in range(n) if weights[slot] == w) for w in range(1, 5)]

    for weight, count in enumerate(by_weight, 1):
        assert count == pytest.approx(200 * n * weight / 10, rel=0.02 if strategy in SMOOTH else 0.35)


@pytest.mark.parametrize("n", [4, 80])
def test_held_connections_are_spread_by_weight_over_all_workers(n):
    weights = [1 + slot % 4 for slot in range(n)]
    world = World(n, "least_connections", weights=weights, workers=3)
    for i in range(10 * n):
        assert world.pick(i % 3)["result"] == "ok"

    for slot, flight in enumerate(world.inflight()):
        assert abs(flight - 4 * weights[slot]) <= (1 if n <= 64 else 5)


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("n", [3, 80])
def test_nobody_gets_what_the_operator_or_health_forbids(strategy, n):
    world = World(n, strategy, panic_pct=0)
    world.board.set_admin(0, "drain")
    world.board.set_health(1, "down")

    assert not {0, 1} & set(world.slots(4 * n))
    world.board.set_weight(2, 0)
    for slot in range(3, n):
        world.board.set_admin(slot, "maint")
    assert world.pick(key=1)["result"] == "none"
    assert world.totals()["no_endpoint"] == 1
    world.board.set_weight(2, 1)
    assert world.slots(5) == [2] * 5


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("n", [3, 80])
def test_a_change_is_seen_by_the_next_pick(strategy, n):
    world = World(n, strategy)
    for slot in range(1, n):
        world.board.set_admin(slot, "maint")
    assert world.slots(10) == [0] * 10
    world.board.set_admin(0, "maint")
    world.board.set_admin(n - 1, "ready")
    assert world.slots(10) == [n - 1] * 10


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("n", [3, 80])
def test_whoever_was_tried_is_not_tried_again(strategy, n):
    world = World(n, strategy)
    for slot in range(2, n):
        world.board.set_admin(slot, "maint")

    assert [world.once(key=key(i), tried=[0]) for i in range(20)] == [1] * 20
    assert world.pick(tried=[0, 1])["result"] == "none"


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("n", [2, 80])
def test_limits_hold_over_all_workers_and_then_it_is_busy(strategy, n):
    world = World(n, strategy, workers=2, connections=3)
    picks = [(i % 2, world.pick(i % 2, key=key(i))) for i in range(3 * n)]

    assert world.inflight() == [3] * n
    assert world.pick(0)["result"] == world.pick(1)["result"] == "busy"
    assert world.totals()["no_endpoint"] == 0
    worker, pick = picks[1]
    world.release(pick, worker=worker)
    assert world.pick(0)["slot"] == pick["slot"]


def test_it_is_none_and_not_busy_when_who_is_below_its_limit_was_tried():
    world = World(2, connections=1)

    assert world.pick(tried=[0, 1])["result"] == "none"
    world.pick(tried=[0])
    assert world.pick(tried=[0])["result"] == "busy"


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("n", [4, 160])
def test_the_next_priority_serves_only_when_the_first_has_nobody(strategy, n):
    world = World(n, strategy, priorities=[5 if slot < n // 2 else 9 for slot in range(n)], panic_pct=0)

    assert max(world.slots(2 * n)) < n // 2
    for slot in range(1, n // 2):
        world.board.set_health(slot, "down")
    assert set(world.slots(n)) == {0}
    world.board.set_health(0, "down")
    assert min(world.slots(2 * n)) >= n // 2


def test_a_full_first_priority_spills_to_the_next():
    world = World(2, priorities=[0, 1], connections=1)

    assert [world.pick()["slot"] for _ in range(2)] == [0, 1]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_slot_that_went_to_another_endpoint_is_not_picked_under_its_old_name(strategy):
    world = World(3, strategy)
    world.board.release_endpoint(1)
    assert 1 not in world.slots(20)
    world.board.use_endpoint(1, slow_start=False)
    assert 1 not in world.slots(20)
    world.adopt()
    assert 1 in world.slots(200)


@settings(max_examples=60)
@given(
    st.sampled_from(STRATEGIES),
    st.integers(1, 5),
    st.lists(st.tuples(st.integers(0, 9), st.integers(0, 4), st.integers(0, 3)), max_size=60),
)
def test_in_flight_balances_and_nobody_forbidden_is_picked_whatever_happens(strategy, n, steps):
    world = World(n, strategy, weights=[1 + slot for slot in range(n)], workers=2, connections=4)
    opened = []
    clock = 1000
    for step, slot, value in steps:
        slot %= n
        clock += 50
        if step < 5:
            worker = step % 2
            pick = world.pick(worker, key=key(value), now_ms=clock)
            if pick["result"] == "ok":
                info = world.board.endpoint(pick["slot"])
                assert (info["admin"], info["weight"] > 0) == ("ready", True)
                assert info["health"] == "up" or pick["panic"]
                assert info["inflight"] <= 4
                opened.append((worker, pick))
        elif step == 5 and opened:
            worker, pick = opened.pop(value % len(opened))
            outcome = ["2xx", "5xx", "cancel", "timeout"][slot % 4]
            world.release(pick, outcome, 200, worker=worker, now_us=clock * 1000)
        elif step == 6:
            world.board.set_weight(slot, value)
        elif step == 7:
            world.board.set_admin(slot, ["ready", "drain", "maint", "ready"][value])
        elif step == 8:
            world.board.set_health(slot, ["up", "down"][value % 2])
        elif step == 9:
            world.adopt(clock)
        assert sum(world.inflight()) == len(opened) == world.board.group(0)["inflight"]
    for worker, pick in opened:
        world.release(pick, worker=worker)
    assert sum(world.inflight()) == 0


OTHER_PROCESS = """
import sys
from turnout.ext.scoreboard import Scoreboard
from turnout.ext.select import _Selector
from turnout.ext.snapshot import Snapshot
fd = int(sys.argv[1])
selector = _Selector(fd, 1)
selector.adopt(Snapshot(sys.stdin.buffer.readline()))
for line in sys.stdin:
    if line.strip() == "pick":
        pick = selector.pick(0)
        print(pick.get("slot", pick["result"]), flush=True)
    else:
        selector.release(pick)
        print("released", flush=True)
"""


def test_two_processes_see_what_the_other_has_in_flight():
    world = World(2, "least_connections", workers=2, connections=2)
    rows = [member(slot, "app", World.address(slot)) for slot in range(2)]
    row = service(0, "app", [0, 1], strategy="least_connections", connections=2)
    text = json.dumps(document(members=rows) | {"services": [row]})
    fd = os.dup(world.board.fd)
    with subprocess.Popen(
        [sys.executable, "-c", OTHER_PROCESS, str(fd)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        pass_fds=[fd],
        text=True,
    ) as other:

        def tell(line: str) -> str:
            other.stdin.write(line + "\n")
            other.stdin.flush()
            return other.stdout.readline().strip()

        other.stdin.write(text + "\n")
        mine = world.pick()
        theirs = int(tell("pick"))
        assert {mine["slot"], theirs} == {0, 1}
        assert world.inflight() == [1, 1]
        assert {world.pick()["slot"], int(tell("pick"))} == {0, 1}
        assert world.pick()["result"] == tell("pick") == "busy"
        world.release(mine)
        assert int(tell("pick")) == mine["slot"]
        assert tell("release") == "released"
        assert sum(world.inflight()) == 3
        other.stdin.close()
    os.close(fd)


# ---- the smooth scheduler --------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", SMOOTH)
@pytest.mark.parametrize("seed", range(5))
def test_the_round_is_smooth(strategy, seed):
    world = World(3, strategy, weights=[5, 1, 1], seed=seed)

    assert letters(world.slots(7)) in 2 * "aabacaa"


def test_workers_do_not_begin_at_the_same_place():
    world = World(8, workers=16)

    assert len({world.once(worker=worker) for worker in range(16)}) > 3


@settings(max_examples=50)
@given(st.lists(st.integers(1, 20), min_size=1, max_size=12), st.integers(0, 1000))
def test_in_every_round_each_gets_its_weight(weights, seed):
    world = World(len(weights), "weighted_round_robin", weights=weights, room=16, seed=seed)
    slots = world.slots(3 * sum(weights))

    for start in range(0, 2 * sum(weights), max(1, sum(weights) // 3)):
        window = collections.Counter(slots[start : start + sum(weights)])
        assert [window[slot] for slot in range(len(weights))] == weights


@settings(max_examples=20)
@given(st.lists(st.integers(1, 9), min_size=65, max_size=90), st.integers(0, 1000))
def test_a_long_list_is_as_smooth_to_within_one_turn(weights, seed):
    world = World(len(weights), "weighted_round_robin", weights=weights, room=90, seed=seed)
    total = sum(weights)
    seen = collections.Counter()
    for n, slot in enumerate(world.slots(3 * total), 1):
        seen[slot] += 1
        if n % 50 == 0:
            for other, weight in enumerate(weights):
                assert abs(seen[other] - n * weight / total) <= 2


@pytest.mark.parametrize("n", [6, 70])
def test_credits_survive_a_weight_change(n):
    """Nobody is served again before the others had their turn, as happens when a round starts anew."""
    world = World(n)
    half = world.slots(n // 2)
    world.board.set_weight(half[0], 2)
    world.board.set_weight(half[0], 1)
    world.adopt()
    rest = world.slots(n - n // 2)

    assert sorted(half + rest) == list(range(n))


def test_a_new_snapshot_with_another_endpoint_does_not_start_the_round_anew():
    world = World(6, room=8)
    half = world.slots(3)
    world.weights.append(1)
    world.priorities.append(0)
    world.members.append(world.board.claim_endpoint(slow_start=False)[0])
    world.adopt()
    next_four = world.slots(4)

    assert not set(half) & set(next_four[:3])


@pytest.mark.parametrize("n", [10, 100])
def test_a_newcomer_is_not_the_next_for_all_workers(n):
    world = World(n, workers=20, room=n + 1)
    for worker in range(20):
        for _ in range(worker):
            world.once(worker=worker)
    world.weights.append(1)
    world.priorities.append(0)
    world.members.append(world.board.claim_endpoint(slow_start=False)[0])
    world.adopt()
    first = [world.once(worker=worker) for worker in range(20)]

    assert first.count(n) <= 8
    for worker in range(20):
        turns = [first[worker]] + [world.once(worker=worker) for _ in range(2 * n + 2)]
        assert 1 <= turns.count(n) <= 3


def test_crossing_from_a_short_list_to_a_long_one_keeps_the_turns():
    world = World(66)
    world.board.set_admin(65, "maint")
    world.board.set_admin(64, "maint")
    half = world.slots(32)
    world.board.set_admin(64, "ready")
    world.board.set_admin(65, "ready")
    rest = world.slots(32)
    assert len(set(half) & set(rest)) <= 4
    world.board.set_admin(65, "maint")
    world.board.set_admin(64, "maint")
    assert max(collections.Counter(half + rest + world.slots(96)).values()) <= 4


# ---- least connections -----------------------------------------------------------------------------------


def test_an_idle_service_is_served_in_turn_by_weight():
    world = World(3, "least_connections", weights=[2, 1, 1])

    assert world.counts(40) == [20, 10, 10]


def test_the_one_with_fewest_in_flight_for_its_weight_is_next():
    world = World(3, "least_connections", weights=[4, 2, 1])
    for _ in range(7):
        world.pick()
    assert world.inflight() == [4, 2, 1]
    picks = [world.pick() for _ in range(7)]
    assert world.inflight() == [8, 4, 2]
    for pick in picks:
        if pick["slot"] == 1:
            world.release(pick)
    assert [world.pick()["slot"] for _ in range(2)] == [1, 1]


# ---- least response time ---------------------------------------------------------------------------------


class Latencies(World):
    """Requests in turn, each answered after the time its endpoint takes."""

    def __init__(self, us: list[int], **more) -> None:
        super().__init__(len(us), "least_response_time", **more)
        self.us = us
        self.clock = 1_000_000

    def serve(self, n: int, at_once: int = 1) -> list[int]:
        out = []
        for _ in range(n):
            picks = [self.pick(now_ms=self.clock // 1000) for _ in range(at_once)]
            for pick in picks:
                slot = pick["slot"]
                out.append(slot)
                self.clock += self.us[slot] // at_once
                self.release(pick, first_us=self.us[slot], now_us=self.clock)
        return out


def test_the_fastest_gets_most_and_the_others_by_their_speed():
    world = Latencies([1000, 2000, 10000])
    counts = collections.Counter(world.serve(200, at_once=12))

    assert counts[0] > 1.5 * counts[1] > 4 * counts[2] > 0


def test_an_endpoint_without_samples_gets_one_request_at_a_time():
    world = Latencies([1000, 1000, 1000])
    for slot in range(2):
        others = [other for other in range(3) if other != slot]
        pick = world.pick(tried=others)
        world.release(pick, first_us=1000, now_us=world.clock)
    picks = [world.pick() for _ in range(9)]

    assert picks[0]["slot"] == 2
    assert world.inflight() == [3, 3, 3]


def test_a_newcomer_is_neither_flooded_nor_starved():
    world = Latencies([5000, 5000, 5000], workers=1, room=8)
    world.serve(50, at_once=6)
    world.us.append(5000)
    world.weights.append(1)
    world.priorities.append(0)
    world.members.append(world.board.claim_endpoint(slow_start=False)[0])
    world.adopt(world.clock // 1000)
    counts = collections.Counter(world.serve(100, at_once=8))

    assert 0.5 * 200 < counts[3] < 1.5 * 200


def test_fast_failures_do_not_attract_traffic():
    world = Latencies([5000, 5000])
    world.serve(20)
    for _ in range(3):
        pick = world.pick(now_ms=world.clock // 1000, tried=[0])
        world.release(pick, "5xx", 500, first_us=10, now_us=world.clock)

    assert set(world.serve(50)) == {0}


def test_an_endpoint_that_was_slow_is_tried_again_later():
    world = Latencies([1000, 1000])
    world.serve(10)
    world.us[1] = 100_000
    assert 1 in world.serve(10)
    world.us[1] = 1000
    assert 1 not in world.serve(100)
    world.clock += 60_000_000
    assert 1 in world.serve(20)


def test_estimates_of_other_workers_count():
    world = World(2, "least_response_time", workers=2)
    for slot, us in ((0, 50_000), (1, 1000)):
        pick = world.pick(0, tried=[1 - slot])
        world.release(pick, first_us=us, now_us=1_000_000)

    assert [world.once(worker=1, now_ms=1200) for _ in range(10)] == [1] * 10


def test_a_new_owner_of_a_slot_has_no_estimate():
    world = World(1, "least_response_time")
    world.once()
    assert world.board.endpoint_totals(0)["ewma_us"] > 0
    world.board.release_endpoint(0)
    world.board.use_endpoint(0)
    world.adopt()

    assert world.board.endpoint_totals(0)["ewma_us"] == 0


# ---- random ----------------------------------------------------------------------------------------------


@settings(max_examples=20)
@given(st.lists(st.integers(1, 65535), min_size=1, max_size=100), st.integers(0, 2**32))
def test_the_alias_table_draws_by_weight(weights, seed):
    world = World(len(weights), "random", weights=weights, room=100, seed=seed)
    counts = world.counts(4000)

    for weight, count in zip(weights, counts, strict=True):
        expected = 4000 * weight / sum(weights)
        assert abs(count - expected) <= 6 * expected**0.5 + 6


# ---- hashing ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", KEYED)
@pytest.mark.parametrize("gone", [0, 4, 9])
def test_removing_an_endpoint_moves_its_own_keys_only(strategy, gone):
    world = World(10, strategy)
    before = world.slots(1000)
    world.members.remove(gone)
    world.adopt()
    after = world.slots(1000)

    assert gone in before
    assert all(now == was if was != gone else now != gone for was, now in zip(before, after, strict=True))


@pytest.mark.parametrize("strategy", KEYED)
def test_an_endpoint_that_is_away_moves_its_own_keys_and_gets_them_back(strategy):
    world = World(10, strategy)
    before = world.slots(500)
    world.board.set_health(3, "down")
    away = world.slots(500)
    assert all(now == was for was, now in zip(before, away, strict=True) if was != 3)
    world.members.remove(3)
    world.adopt()
    assert world.slots(500) == away
    world.board.set_health(3, "up")
    world.members.append(3)
    world.adopt()
    assert world.slots(500) == before


@pytest.mark.parametrize("strategy", KEYED)
def test_all_workers_and_restarts_agree_on_who_owns_a_key(strategy):
    world = World(10, strategy, weights=[1 + slot for slot in range(10)], workers=3)
    world.board.set_weight(3, 50)
    world.once()
    world.board.set_weight(3, 9)
    world.selectors[2] = _Selector(world.board.fd, 2, 99)
    world.selectors[2].adopt(world.snapshot())

    for i in range(300):
        assert len({world.once(worker=worker, key=key(i)) for worker in range(3)}) == 1


@pytest.mark.parametrize("strategy", KEYED)
def test_a_weight_set_at_run_time_moves_keys_to_or_from_that_endpoint_only(strategy):
    world = World(5, strategy)
    before = world.slots(1000)
    world.board.set_weight(2, 4)
    more = world.slots(1000)
    assert all(now in (was, 2) for was, now in zip(before, more, strict=True))
    assert more.count(2) > 2 * before.count(2)
    world.board.set_weight(2, 1)
    assert world.slots(1000) == before


@settings(max_examples=40)
@given(
    st.lists(st.integers(1, 9), min_size=1, max_size=8),
    st.integers(101, 300),
    st.lists(st.tuples(st.integers(0, 6), st.booleans()), max_size=80),
)
def test_bounded_load_is_never_exceeded(weights, pct, steps):
    world = World(len(weights), "consistent_hash", weights=weights, load_pct=pct)
    opened = []
    for value, closes in steps:
        if closes and opened:
            world.release(opened.pop(value % len(opened)))
            continue
        places = -(-(len(opened) + 1) * pct // 100)
        pick = world.pick(key=key(value))
        opened.append(pick)
        edges = [places * sum(weights[:i]) // sum(weights) for i in range(len(weights) + 1)]
        capacity = max(1, edges[pick["slot"] + 1] - edges[pick["slot"]])
        assert world.inflight()[pick["slot"]] <= capacity


def test_one_hot_key_fills_its_endpoint_to_the_bound_and_then_the_next():
    world = World(4, "consistent_hash", load_pct=125)
    for _ in range(40):
        world.pick(key=key(1))

    assert max(world.inflight()) <= 13
    assert min(world.inflight()) >= 2


def test_ip_hash_keeps_a_source_whatever_the_load():
    world = World(4, "ip_hash", load_pct=125)

    assert len({world.pick(key=key(1))["slot"] for _ in range(40)}) == 1


def test_extreme_weights_still_make_a_ring():
    world = World(4, "consistent_hash", weights=[65535, 65535, 1, 32768])
    counts = world.counts(2000)

    assert counts[0] > 400
    assert counts[1] > 400
    assert counts[2] < 50


# ---- slow start ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", ["round_robin", "random", "consistent_hash"])
def test_an_endpoint_ramps_up_in_a_line(strategy):
    world = World(4, strategy, slow_start_ms=10_000)
    world.board.set_slow_start(3, 100_000)

    start = world.counts(800, now_ms=100_000)[3]
    half = world.counts(800, now_ms=105_000)[3]
    full = world.counts(800, now_ms=110_000)[3]
    assert start < 20
    assert half == pytest.approx(800 / 7, rel=0.35)
    assert full == pytest.approx(200, rel=0.35)


def test_without_slow_start_a_new_endpoint_has_its_weight_at_once():
    world = World(4, slow_start_ms=0)
    world.board.set_slow_start(3, 1000)

    assert world.counts(400, now_ms=1000) == [100] * 4


def test_endpoints_that_start_together_share_by_weight_from_the_first_request():
    world = World(2, weights=[1, 3], slow_start_ms=10_000)
    for slot in range(2):
        world.board.set_slow_start(slot, 1000)

    assert world.counts(400, now_ms=1000) == [100, 300]


# ---- breakers, panic -------------------------------------------------------------------------------------


def test_a_breaker_opened_by_one_worker_is_open_for_all():
    world = World(3, workers=2)
    world.trip(1, worker=0)

    assert 1 not in [world.once(worker=1) for _ in range(20)]


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("n", [3, 80])
def test_half_open_lets_the_configured_probes_through_over_all_workers(strategy, n):
    world = World(n, strategy, workers=2, panic_pct=0, breaker=breaker(probes=2, successes=2, jitter_pct=0))
    for slot in range(2, n):
        world.board.set_admin(slot, "maint")
    world.trip(1, now_ms=1000)
    assert [world.once(key=key(i), now_ms=60_000) for i in range(20)] == [0] * 20

    picks = [(i % 2, world.pick(i % 2, key=key(i), now_ms=62_000)) for i in range(200)]
    probes = [(worker, pick) for worker, pick in picks if pick["probe"]]
    assert [pick["slot"] for _, pick in probes] == [1, 1]
    assert {pick["slot"] for _, pick in picks if not pick["probe"]} == {0}
    for worker, pick in probes:
        world.release(pick, worker=worker, now_us=62_500_000)
    assert world.board.breaker(1)["state"] == "closed"
    assert 1 in [world.once(key=key(i), now_ms=62_600) for i in range(200)]


def test_a_probe_that_fails_shuts_it_again():
    world = World(2, breaker=breaker(jitter_pct=0))
    world.trip(1)
    probe = next(p for p in (world.pick(now_ms=61_100) for _ in range(10)) if p["probe"])
    world.release(probe, "timeout", 0, now_us=61_200_000)

    assert world.board.breaker(1)["state"] == "open"
    assert world.board.breaker(1)["trips"] == 2


@pytest.mark.parametrize("outcome", ["cancel", "stale"])
def test_what_says_nothing_of_the_endpoint_gives_the_probe_back(outcome):
    world = World(2, breaker=breaker(jitter_pct=0))
    world.trip(1)
    for _ in range(3):
        probe = next(p for p in (world.pick(now_ms=61_100) for _ in range(10)) if p["probe"])
        world.release(probe, outcome, 0, now_us=61_200_000)
        assert world.board.breaker(1)["state"] == "half_open"


def test_the_last_endpoint_is_never_shut_out():
    world = World(2)
    world.trip(0)
    for _ in range(20):
        world.once("5xx", now_ms=1100)

    assert world.board.breaker(1)["state"] == "closed"
    assert world.once(now_ms=1200) == 1


def test_the_last_endpoint_is_shut_out_when_told_to():
    world = World(2, breaker=breaker(last=True), panic_pct=0)
    world.trip(0)
    for _ in range(5):
        world.once("5xx", now_ms=1100)

    assert world.board.breaker(1)["state"] == "open"
    assert world.pick(now_ms=1200)["result"] == "none"


def test_the_only_endpoint_is_kept_however_often_it_fails():
    world = World(1)

    for _ in range(20):
        world.once("connect", now_ms=1100)
    assert world.board.breaker(0)["state"] == "closed"


def test_a_group_may_lose_its_last_while_another_serves():
    world = World(2, groups=[[0], [1]], shares=[SHARE // 2, SHARE // 2])
    for _ in range(30):
        pick = world.pick()
        world.release(pick, "5xx" if pick["slot"] else "2xx", 200, now_us=1_000_000)

    assert world.board.breaker(1)["state"] == "open"


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("n", [4, 200])
def test_with_too_few_left_health_is_ignored(strategy, n):
    world = World(n, strategy, panic_pct=50)
    for slot in range(n // 2):
        world.board.set_health(slot, "down")
    assert min(world.slots(3 * n)) >= n // 2
    assert world.totals()["panics"] == 0
    world.board.set_health(n - 1, "down")
    world.board.set_admin(0, "maint")
    pick = world.pick(key=1)
    assert pick["panic"]
    world.release(pick)
    slots = world.slots(20 * n)
    assert 0 not in slots
    assert set(slots) >= {1, n - 1} or strategy == "least_response_time"
    assert world.totals()["panics"] == 20 * n + 1


def test_breakers_are_ignored_in_panic_and_still_get_their_trials():
    world = World(3, breaker=breaker(jitter_pct=0), panic_pct=50)
    world.trip(0)
    world.trip(1)
    picks = [world.pick(now_ms=1100) for _ in range(6)]
    assert {pick["slot"] for pick in picks} == {0, 1, 2}
    assert all(pick["panic"] for pick in picks)
    probes = [pick for pick in (world.pick(now_ms=70_000) for _ in range(6)) if pick["probe"]]
    assert {pick["slot"] for pick in probes} == {0, 1}
    for pick in probes:
        world.release(pick, now_us=70_100_000)
    assert world.board.breaker(0)["state"] == world.board.breaker(1)["state"] == "closed"
    assert not world.pick(now_ms=70_200)["panic"]


def test_limits_and_the_tried_hold_in_panic():
    world = World(2, connections=1, panic_pct=100)
    for slot in range(2):
        world.board.set_health(slot, "down")

    assert world.pick(tried=[0])["slot"] == 1
    assert world.pick(tried=[0])["result"] == "busy"
    assert world.pick()["slot"] == 0
    assert world.pick()["result"] == "busy"


def test_a_drained_endpoint_does_not_count_towards_panic():
    world = World(4, panic_pct=60)
    for slot in range(2):
        world.board.set_admin(slot, "drain")

    assert set(world.slots(8)) == {2, 3}
    assert world.totals()["panics"] == 0


def test_a_healthy_lower_priority_is_better_than_panic():
    world = World(4, priorities=[0, 0, 0, 1], panic_pct=50)
    for slot in range(3):
        world.board.set_health(slot, "down")

    assert world.slots(5) == [3] * 5


# ---- version groups --------------------------------------------------------------------------------------


def shares_of(weights: list[int]) -> list[int]:
    total = sum(weights)
    shares = [weight * SHARE // total for weight in weights]
    shares[0] += SHARE - sum(shares)
    return shares


def split_world(shares: list[int], **more) -> World:
    return World(len(shares), groups=[[slot] for slot in range(len(shares))], shares=shares, **more)


@settings(max_examples=150)
@given(st.lists(st.integers(0, 1000), min_size=2, max_size=6).filter(any), st.integers(1, 400))
def test_each_group_has_its_share_to_within_one_request_at_every_moment(weights, n):
    shares = shares_of(weights)
    world = split_world(shares)
    counts = [0] * len(shares)
    for k in range(1, n + 1):
        counts[world.once()] += 1
        for count, share in zip(counts, shares, strict=True):
            assert abs(Fraction(count) - Fraction(k * share, SHARE)) < 1


@settings(max_examples=80)
@given(
    st.integers(2, 5),
    st.lists(
        st.tuples(st.lists(st.integers(0, 100), min_size=5, max_size=5), st.integers(1, 40)), max_size=12
    ),
)
def test_shares_changed_while_it_runs_make_no_jump(k, phases):
    world = split_world(shares_of([1] * k))
    counts, asked = [0] * k, [Fraction(0)] * k
    for weights, n in phases:
        if not any(weights[:k]):
            continue
        shares = shares_of(weights[:k])
        world.board.set_shares(dict(enumerate(shares)))
        for _ in range(n):
            counts[world.once()] += 1
            for slot in range(k):
                asked[slot] += Fraction(shares[slot], SHARE)
                assert abs(counts[slot] - asked[slot]) < 2
        assert sum(world.selectors[0].lag(slot) for slot in range(k)) == 0


def test_a_split_goes_on_through_a_new_snapshot():
    world = split_world([900_000, 100_000])
    counts = [0, 0]
    for n in range(1, 101):
        counts[world.once()] += 1
        world.adopt()
        assert abs(counts[1] - n / 10) < 1


def test_a_group_without_anybody_gives_to_the_others_by_their_shares_and_runs_up_no_debt():
    world = split_world([500_000, 300_000, 200_000])
    world.slots(10)
    world.board.set_health(0, "down")
    assert world.counts(1000) == [0, pytest.approx(600, abs=2), pytest.approx(400, abs=2)]
    world.board.set_health(0, "up")
    assert world.counts(100) == [pytest.approx(50, abs=2), pytest.approx(30, abs=2), pytest.approx(20, abs=2)]


def test_a_group_that_lost_many_but_not_all_is_in_panic_by_itself():
    world = World(5, groups=[[0, 1, 2], [3, 4]], shares=[SHARE // 2, SHARE // 2], panic_pct=50)
    for slot in (0, 1):
        world.board.set_health(slot, "down")
    picks = [world.pick() for _ in range(12)]

    assert {pick["slot"]: pick["panic"] for pick in picks} == dict.fromkeys(range(3), True) | {
        3: False,
        4: False,
    }


def test_when_all_groups_are_down_the_split_goes_on_in_panic():
    world = split_world([750_000, 250_000])
    for slot in range(2):
        world.board.set_health(slot, "down")

    assert world.counts(100) == [75, 25]


def test_a_group_with_share_0_gets_nothing_new():
    world = split_world([SHARE, 0])

    assert set(world.slots(50)) == {0}
    world.board.set_health(0, "down")
    assert world.pick(now_ms=1100)["panic"]
    world.board.set_admin(0, "maint")
    assert world.pick()["result"] == "none"


def test_shares_that_are_all_0_admit_bound_sessions_only():
    world = split_world([SHARE // 2, SHARE // 2], sticky=cookie())
    world.board.set_shares({0: 0, 1: 0})

    assert world.pick()["result"] == "none"
    assert world.once(bound=World.identity(1)) == 1


def test_a_full_group_gives_to_the_others_and_is_busy_when_all_are():
    world = split_world([SHARE // 2, SHARE // 2], connections=1)

    assert {world.pick()["slot"], world.pick()["slot"]} == {0, 1}
    assert world.pick()["result"] == "busy"


def test_a_retry_stays_in_its_group_and_goes_elsewhere_only_when_it_must():
    world = World(4, groups=[[0, 1], [2, 3]], shares=[100_000, 900_000])

    assert {world.once(tried=[0]) for _ in range(10)} == {1}
    assert {world.once(tried=[0, 1]) for _ in range(10)} == {2, 3}


def test_retries_do_not_count_in_the_split():
    world = World(4, groups=[[0, 1], [2, 3]], shares=[SHARE // 2, SHARE // 2])
    before = [world.selectors[0].lag(slot) for slot in range(2)]
    for _ in range(7):
        world.once(tried=[0])
        world.once(tried=[0, 1])

    assert [world.selectors[0].lag(slot) for slot in range(2)] == before


def test_another_owner_of_a_group_slot_owes_nothing():
    world = split_world([900_000, 100_000])
    world.once()
    assert world.selectors[0].lag(0) != 0
    for slot in range(2):
        world.board.release_group(slot)
        world.board.use_group(slot, [900_000, 100_000][slot])
    world.adopt()

    assert world.selectors[0].lag(0) == world.selectors[0].lag(1) == 0


# ---- sticky sessions -------------------------------------------------------------------------------------


def cookie(**changes):
    return sticky(kind="cookie", name="turnout", ttl_s=60, key="0123456789abcdef" * 2, **changes)


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("n", [3, 80])
def test_a_bound_session_goes_where_it_is_bound(strategy, n):
    world = World(n, strategy, sticky=cookie())
    picks = [world.pick(bound=World.identity(2), key=key(i)) for i in range(10)]

    assert {(pick["slot"], pick["sticky"], pick["broken"]) for pick in picks} == {(2, True, False)}
    assert world.totals()["sticky_hits"] == 10


def test_drain_and_weight_0_keep_bound_sessions_and_maint_does_not():
    world = World(3, sticky=cookie())
    bound = World.identity(1)
    world.board.set_admin(1, "drain")
    assert world.once(bound=bound) == 1
    world.board.set_admin(1, "ready")
    world.board.set_weight(1, 0)
    assert world.once(bound=bound) == 1
    world.board.set_admin(1, "maint")
    pick = world.pick(bound=bound)
    assert (pick["slot"] == 1, pick["sticky"], pick["broken"]) == (False, False, True)
    assert world.totals()["sticky_broken"] == 1


@pytest.mark.parametrize("how", ["health", "breaker", "limit", "tried", "gone"])
def test_a_binding_that_cannot_be_honoured_is_broken_and_counted_once(how):
    world = World(3, sticky=cookie(), connections=1, panic_pct=0)
    bound = World.identity(1)
    if how == "health":
        world.board.set_health(1, "down")
    elif how == "breaker":
        world.trip(1)
    elif how == "limit":
        world.pick(bound=bound)
    elif how == "gone":
        bound = 12345
    pick = world.pick(bound=bound, tried=[1] if how == "tried" else [])
    assert (pick["broken"], pick["sticky"]) == (True, False)
    world.pick(bound=bound, tried=[*([1] if how == "tried" else []), pick["slot"]])

    assert world.totals()["sticky_broken"] == 1


def test_sessions_without_a_binding_are_new():
    world = World(3, sticky=cookie())
    world.slots(4)

    assert world.totals()["sticky_new"] == 4
    assert world.totals()["sticky_broken"] == world.totals()["sticky_hits"] == 0


def test_bound_sessions_do_not_count_in_the_split():
    world = split_world([SHARE // 2, SHARE // 2], sticky=cookie())
    for _ in range(10):
        world.once(bound=World.identity(0))

    assert world.counts(100) == [50, 50]


@pytest.mark.parametrize("n", [4, 70])
def test_new_sessions_avoid_an_endpoint_that_serves_bound_ones_for_a_round_at_most(n):
    world = World(n, sticky=cookie())
    for _ in range(50):
        world.once(bound=World.identity(0))
    slots = world.slots(3 * n)

    assert 0 not in slots[: n - 1]
    assert 0 in slots[: 2 * n + 1]


def test_a_source_is_bound_at_its_first_request_for_all_workers_until_its_time_is_over():
    world = World(5, "random", workers=2, sticky=sticky(kind="source", ttl_s=10, sliding=False))
    slot = world.once(source=77, now_ms=1000)

    assert {world.once(worker=1, source=77, now_ms=now) for now in range(2000, 10_900, 300)} == {slot}
    assert world.totals()["sticky_new"] == 1
    pick = world.pick(source=77, now_ms=11_100)
    assert not pick["sticky"]
    assert world.totals()["sticky_new"] == 2


def test_a_sliding_binding_lives_as_long_as_it_is_used():
    world = World(5, "random", sticky=sticky(kind="source", ttl_s=10, sliding=True))
    slot = world.once(source=77, now_ms=1000)

    assert {world.once(source=77, now_ms=now) for now in range(2000, 100_000, 9000)} == {slot}


def test_a_source_whose_endpoint_is_away_moves_for_good():
    world = World(3, sticky=sticky(kind="source", ttl_s=100))
    slot = world.once(source=77)
    world.board.set_admin(slot, "maint")
    moved = world.pick(source=77)
    assert moved["broken"]
    assert world.totals()["sticky_broken"] == 1
    world.board.set_admin(slot, "ready")
    assert {world.once(source=77) for _ in range(5)} == {moved["slot"]}


# ---- snapshots -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_request_of_an_older_snapshot_is_placed_among_the_members_it_knows(strategy):
    world = World(4, strategy, sticky=cookie())
    old = world.snapshot()
    world.members = [2, 3]
    world.adopt()
    world.board.set_admin(3, "maint")
    slots = {world.once(snapshot=old, key=key(i), tried=[0]) for i in range(8)}

    assert slots <= {1, 2}
    assert world.once(snapshot=old, bound=World.identity(1)) == 1
    assert sum(world.inflight()) == 0


def test_a_pick_may_be_closed_after_its_service_is_gone():
    world = World(2)
    pick = world.pick()
    world.selectors[0].adopt(Snapshot(document({}, routes=[])))
    world.release(pick, "5xx", 500)

    assert sum(world.inflight()) == 0


def test_a_service_without_endpoints_has_nobody():
    world = World(2)
    world.members = []
    world.adopt()

    assert world.pick()["result"] == "none"
