"""A snapshot made from another one and what has changed since: it is the one that the whole document makes,
and shares what is the same.
"""

import re

import pytest
from fakes.documents import document, member, route, service

from turnout.ext.scoreboard import SHARE, Scoreboard
from turnout.ext.select import _Selector
from turnout.ext.snapshot import Snapshot

TWO = {"app": ["10.0.0.1:80", "10.0.0.2:80"], "other": ["10.0.1.1:80"]}
KEYS = ("slot", "name", "address", "version", "weight", "generation", "identity", "service", "group")


def settings(**changes):
    row = service(0, "app", [], **changes)
    return {key: value for key, value in row.items() if key not in {"slot", "members", "groups"}}


def group(slot=0, members=(), version="", share=SHARE):
    return {"slot": slot, "version": version, "share": share, "members": list(members)}


def change(slot=0, members=(0, 1), groups=None, settings=None):
    own = [group(slot, range(len(members)))] if groups is None else groups
    return {"slot": slot, "settings": settings, "members": list(members), "groups": own}


def changes(*services, base=1, version=2, frame=None):
    return {"version": version, "base": base, "frame": frame, "services": list(services)}


def rows(snapshot: Snapshot) -> list[dict]:
    out = []
    while True:
        try:
            row = snapshot._member(len(out))
        except IndexError:
            return out
        out.append({key: row[key] for key in KEYS})


def test_an_endpoint_that_comes_makes_what_the_whole_document_makes():
    base = Snapshot(document(TWO))
    new = member(3, "app", "10.0.0.3:80")
    whole = document(TWO)
    whole["members"].append(new)
    whole["services"][0] = service(0, "app", [0, 1, 3])

    made = Snapshot(changes(change(members=[0, 1, new]), 1), base)

    assert (rows(made), made.slots) == (rows(Snapshot(whole)), Snapshot(whole).slots)


def test_what_is_the_same_is_shared_and_what_has_changed_is_not():
    base = Snapshot(document(TWO))

    made = Snapshot(changes(change(members=[1]), 1), base)

    assert (made._shares(0, base), made._shares(1, base)) == (False, True)


def test_it_needs_nothing_of_the_snapshot_it_was_made_from():
    before = Snapshot(document(TWO))
    wanted = rows(before)
    for version in range(2, 6):
        before = Snapshot(changes(change(members=[0, 1]), 1, base=version - 1, version=version), before)

    assert rows(before) == wanted
    assert before._route(0, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")["route"] == "route0"


def test_a_service_comes_with_its_route_and_goes_again():
    base = Snapshot(document(TWO))
    frame = {key: document()[key] for key in ("ticket_keys", "listeners")}
    routes = [route(0), route(1, path="/new", service=2)]
    came = Snapshot(
        changes(
            0,
            1,
            change(2, [member(3, "new", "10.0.2.1:80")], settings=settings() | {"name": "new"}),
            frame=frame | {"routes": routes},
        ),
        base,
    )
    went = Snapshot(changes(0, 1, base=2, version=3, frame=frame | {"routes": routes[:1]}), came)

    head = b"GET /new HTTP/1.1\r\nHost: x\r\n\r\n"
    assert [s._route(0, head)["route"] for s in (base, came, went)] == ["route0", "route1", "route0"]
    assert [s.slots["services"] for s in (base, came, went)] == [2, 3, 2]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (changes(0, 1, base=7), "base: is not 1, the version of the snapshot that is to be changed"),
        (changes(0), "services: has 1 of them, routes lead to 2"),
        (changes(0, 0), "services: 0 is not the slot of a service there was before, or stands twice"),
        (changes(5, 1), "services: 5 is not the slot of a service there was before, or stands twice"),
        (changes("x", 1), "services[0]: 'x' is not a table"),
        (changes(change(7, []), 0, 1), "services[0].settings: is needed: the service is new"),
        (
            changes(change(members=[2]), 1),
            "services[0].members: 2 is not the slot of a member that the service",
        ),
        (
            changes(change(members=[9]), 1),
            "services[0].members: 9 is not the slot of a member that the service",
        ),
        (changes(change(members=[0, 0]), 1), "services[0].members: two of them have the same identity"),
        (changes(change(members=[member(2, "app", "10.0.0.9:80")]), 1), "endpoint slot 2 is given twice"),
        (changes(change(members=[0], groups=[group(1, [0])]), 1), "group slot 1 is given twice"),
        (
            changes(change(members=[0, 1], groups=[group(0, [0])]), 1),
            "services[0].groups: do not hold member 1",
        ),
        (changes(change(members=[0], groups=[group(0, [1])]), 1), "services[0].groups[0].members: 1 is not"),
        (changes(change(settings={"name": "app"}), 1), "services[0].settings.strategy: is missing"),
        (changes(change(), 1, frame={"listeners": []}), "frame.routes: is missing"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(wrong, message):
    base = Snapshot(document(TWO, routes=[route(0), route(1, path="/b", service=1)]))

    with pytest.raises(ValueError, match="^" + re.escape(message)):
        Snapshot(wrong, base)


# ---- selection over such changes -------------------------------------------------------------------------


class World:
    """Two services under selection: `app` with these weights, and `other`."""

    def __init__(self, weights, **service_changes):
        self.board = Scoreboard.create(1, endpoints=16, groups=4, services=4)
        for slot, weight in enumerate([*weights, 1]):
            self.board.use_endpoint(slot, weight=weight, slow_start=False)
        self.board.use_group(0, SHARE)
        self.board.use_group(1, SHARE)
        self.n = len(weights)
        tables = document({"app": [f"10.0.0.{i}:80" for i in range(self.n)], "other": ["10.0.1.1:80"]})
        tables["services"][0] |= service_changes
        self.snapshot = Snapshot(tables)
        self.selector = _Selector(self.board.fd, 0)
        self.selector.adopt(self.snapshot)

    def take(self, wanted):
        self.snapshot = Snapshot(
            wanted | {"base": self.snapshot.version, "version": self.snapshot.version + 1}, self.snapshot
        )
        self.selector.adopt(self.snapshot)

    def slots(self, count, service=0, **ask):
        out = []
        for _ in range(count):
            pick = self.selector.pick(service, **ask)
            out.append(pick.get("slot"))
            if pick["result"] == "ok":
                self.selector.release(pick)
        return out


def test_a_round_goes_on_where_it_was_when_another_service_changes():
    world, still = World([5, 1, 1]), World([5, 1, 1])
    assert world.slots(3) == still.slots(3)

    world.take(changes(0, change(1, [3])))

    assert world.slots(11) == still.slots(11)


@pytest.mark.parametrize("strategy", ["round_robin", "random", "consistent_hash", "least_connections"])
def test_endpoints_come_and_go_to_none_and_back(strategy):
    world = World([1, 1], strategy=strategy)
    rows_of = [member(slot, "app", f"10.0.0.{slot}:80") for slot in (0, 1)]
    assert set(world.slots(40)) <= {0, 1}

    world.take(changes(change(members=[]), 1))
    assert world.slots(3) == [None] * 3
    world.take(changes(change(members=[rows_of[1]]), 1))
    assert world.slots(3) == [1] * 3
    world.take(changes(change(members=[*rows_of[:1], 1]), 1))

    assert {slot for key in range(64) for slot in world.slots(1, key=key << 58)} == {0, 1}
    assert world.slots(2, service=1) == [2, 2]


def test_an_open_pick_is_released_after_its_endpoint_has_gone():
    world = World([1, 1])
    pick = world.selector.pick(0)

    world.take(changes(change(members=[1 - pick["slot"]]), 1))
    world.take(changes(0, 1))
    world.selector.release(pick)

    assert world.board.endpoint(pick["slot"])["inflight"] == 0


def test_a_request_that_outlived_a_change_of_another_service_is_balanced_as_ever():
    world, old = World([1, 1, 1]), World([1, 1, 1])
    older = world.snapshot
    world.take(changes(0, change(1, [])))

    assert [world.slots(1, snapshot=older) for _ in range(6)] == [old.slots(1) for _ in range(6)]


def test_a_slot_that_moves_to_another_service_counts_there():
    world = World([1, 1])
    row = member(1, "other", "10.0.1.9:80")

    world.take(changes(change(members=[0]), change(1, [2, row])))

    assert set(world.slots(8)) == {0}
    assert set(world.slots(8, service=1)) == {1, 2}
