"""What a change of the configuration costs and says: only what has changed is made and sent, and workers that
follow the changes have what the whole document says.
"""

import json
from pathlib import Path

import pytest
from fakes.certs import Authority
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from turnout.ext.scoreboard import SHARE, Scoreboard
from turnout.ext.snapshot import Snapshot
from turnout.proxy.config import ConfigError, parse
from turnout.proxy.freeze import Freezer
from turnout.proxy.model import Config, Endpoint
from turnout.proxy.shares import effective

WEB = '[listeners.web]\nbind = "0.0.0.0:8080"\n'
ROUTES = '[[routes]]\npath = "/"\nservice = "app"\n[[routes]]\npath = "/b"\nservice = "other"\n'
ONE, TWO, THREE = (f"10.0.0.{n}:80" for n in (1, 2, 3))


def config(app: str = "", other: str = 'endpoints = ["10.0.1.1:80"]') -> Config:
    return parse(f"{WEB}[services.app]\n{app}\n[services.other]\n{other}\n{ROUTES}", "turnout.toml")


def with_endpoints(before: Config, *endpoints: Endpoint, name: str = "app") -> Config:
    service = before.services[name].model_copy(update={"endpoints": endpoints})
    return before.model_copy(update={"services": {**before.services, name: service}})


def at(address: str, **more) -> Endpoint:
    return Endpoint(address=address, **more)


@pytest.fixture
def board():
    board = Scoreboard.create(2, endpoints=64, groups=32, services=8, routes=8, listeners=4)
    yield board
    board.close()


@pytest.fixture
def freezer(board, tmp_path: Path) -> Freezer:
    return Freezer(board, tmp_path, file=str(tmp_path / "turnout.toml"))


def shares(freezer, board) -> dict[str, int]:
    return {
        version: board.group(slot)["share"]
        for (name, version), slot in freezer.groups.held.items()
        if name == "app"
    }


# ---- what is sent ----------------------------------------------------------------------------------------


def test_only_the_service_that_changes_is_sent_and_of_it_only_the_new_endpoint(freezer):
    first = config(f'endpoints = ["{ONE}", "{TWO}"]')
    freezer.freeze(first, 1)
    slots = freezer.endpoint_slots("app")
    changes = json.loads(
        freezer.freeze(with_endpoints(first, *first.services["app"].endpoints, at(THREE)), 2).changes
    )

    app, other = changes["services"]
    assert (changes["frame"], app["settings"]) == (None, None)
    assert app["members"][:2] == [slots[ONE], slots[TWO]]
    assert app["members"][2]["name"] == THREE
    assert other == freezer.services.held["other"]


def test_a_reload_of_the_same_file_sends_nothing(freezer):
    text = f'endpoints = ["{ONE}", "{TWO}"]\nsplit = {{ v1 = 1 }}\nsticky = {{ cookie = "c" }}'
    freezer.freeze(config(text), 1)
    changes = json.loads(freezer.freeze(config(text), 2, names=True, files=True).changes)

    assert changes["services"] == list(freezer.services.held.values())
    assert changes["frame"] is None


def test_a_worker_that_has_another_version_gets_the_whole(freezer):
    first = config(f'endpoints = ["{ONE}"]')
    assert freezer.freeze(first, 1).body(0)[0] == 0
    second = freezer.freeze(with_endpoints(first, at(TWO)), 2)

    assert [second.body(has)[0] for has in (0, 1, 2)] == [0, 1, 0]
    assert second.body(1)[1] == second.changes
    assert Snapshot(second.body(0)[1]).version == 2


def test_a_failed_change_leaves_the_next_one_to_the_version_in_force(freezer):
    first = config(f'endpoints = ["{ONE}"]')
    worker = Snapshot(freezer.freeze(first, 1).whole)
    many = [at(f"10.1.{n}.1:80") for n in range(100)]
    with pytest.raises(ConfigError, match="max_endpoints"):
        freezer.freeze(with_endpoints(first, *many), 2)
    made = freezer.freeze(with_endpoints(first, at(TWO)), 2)

    assert Snapshot(made.changes, worker)._member(0)["name"] == TWO


ENDPOINTS = st.lists(
    st.builds(
        Endpoint,
        address=st.sampled_from([f"10.0.0.{n}:80" for n in range(6)]),
        weight=st.integers(0, 2),
        version=st.sampled_from(["v1", "v2", "v3"]),
        priority=st.integers(0, 1),
    ),
    max_size=6,
    unique_by=lambda endpoint: endpoint.address,
)
SETTINGS = st.sampled_from(['balance = "random"', "split = { v1 = 3, v2 = 1 }", "split = { v9 = 1 }", ""])
STEPS = st.lists(
    st.tuples(st.sampled_from(["app", "other"]), ENDPOINTS, SETTINGS | st.none(), st.booleans()), max_size=8
)


def everything(snapshot: Snapshot) -> list[object]:
    members = []
    while True:
        try:
            members.append(snapshot._member(len(members)))
        except IndexError:
            return [snapshot.slots, *members]


@given(STEPS)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_changes_one_after_the_other_make_what_the_whole_document_says(tmp_path, steps):
    board = Scoreboard.create(1, endpoints=32, groups=32, services=8, routes=8, listeners=4)
    freezer = Freezer(board, tmp_path)
    now = config(f'endpoints = ["{ONE}"]')
    worker = Snapshot(freezer.freeze(now, 1).whole)
    for version, (name, endpoints, text, acknowledged) in enumerate(steps, 2):
        if text is not None:
            app = config(text).services["app"].model_copy(update={"endpoints": now.services["app"].endpoints})
            now = now.model_copy(update={"services": {**now.services, "app": app}})
        now = with_endpoints(now, *endpoints, name=name)
        try:
            frozen = freezer.freeze(now, version)
        except ConfigError:
            break  # no slot left, as workers lag behind
        worker = Snapshot(frozen.changes, worker)
        assert everything(worker) == everything(Snapshot(frozen.whole))
        for service in now.services:
            for row in now.services[service].endpoints:
                slot = freezer.endpoint_slot(service, row.address)
                assert board.endpoint(slot)["weight"] == row.weight
        if acknowledged:
            freezer.release(version)
    board.close()


# ---- what is not done again ------------------------------------------------------------------------------


def test_names_are_asked_once_and_again_when_that_is_wanted(board, tmp_path):
    asked = []
    freezer = Freezer(board, tmp_path, resolver=lambda name: asked.append(name) or ["10.0.0.9"])
    first = config('endpoints = ["a.test:80"]')
    freezer.freeze(first, 1)
    second = with_endpoints(first, *first.services["app"].endpoints, at("b.test:80"))
    unknown = freezer.unknown(second)
    freezer.freeze(second, 2)
    once = list(asked)
    freezer.freeze(second, 3, names=True)

    assert unknown == ["b.test:80"]
    assert once == ["a.test", "b.test"]
    assert asked[2:] == ["a.test", "b.test"]


def test_certificates_are_read_when_that_is_wanted_and_a_change_does_not_stumble_over_their_files(
    freezer, tmp_path
):
    Authority().leaf("site.test").write(tmp_path)
    text = f'{WEB}tls = {{ cert = "site.pem", key = "site.key" }}\n[services.app]\nendpoints = ["{ONE}"]\n'
    first = parse(text + '[[routes]]\nservice = "app"\n', "turnout.toml")
    freezer.freeze(first, 1)
    (tmp_path / "site.pem").write_text("half of a certificate")
    changes = json.loads(freezer.freeze(with_endpoints(first, at(TWO)), 2).changes)
    with pytest.raises(ConfigError, match=r"site\.pem"):
        freezer.freeze(first, 3, files=True)
    last = json.loads(freezer.freeze(first, 3).changes)

    assert (changes["frame"], last["frame"]) == (None, None)


def test_the_first_endpoint_over_tls_brings_the_settings_for_it(freezer):
    first = config(f'endpoints = ["{ONE}"]\ntls = {{ verify = false }}')
    first = with_endpoints(first)
    worker = Snapshot(freezer.freeze(first, 1).whole)
    frozen = freezer.freeze(with_endpoints(first, at(ONE)), 2)
    again = freezer.freeze(with_endpoints(first, *freezer.config.services["app"].endpoints, at(TWO)), 3)

    assert json.loads(frozen.changes)["services"][0]["settings"]["tls"]["verify"] is False
    assert json.loads(again.changes)["services"][0]["settings"] is None
    assert Snapshot(again.changes, Snapshot(frozen.changes, worker))._member(1)["name"] == TWO


# ---- services and versions without endpoints -------------------------------------------------------------


def test_a_version_without_endpoints_keeps_its_group_and_gets_its_share_once_it_has_some(freezer, board):
    first = config(
        f'endpoints = ["{ONE}", {{ address = "{TWO}", version = "v2" }}]\n'
        "split = { v1 = 60, v2 = 20, v3 = 20 }"
    )
    freezer.freeze(first, 1)
    before, groups = shares(freezer, board), dict(freezer.groups.held)
    own = first.services["app"].endpoints
    freezer.freeze(with_endpoints(first, *own, at(THREE, version="v3")), 2)
    with_three = shares(freezer, board)
    freezer.freeze(with_endpoints(first, at(THREE, version="v3")), 3)

    assert before == {"v1": 750_000, "v2": 250_000, "v3": 0}
    assert with_three == {"v1": 600_000, "v2": 200_000, "v3": 200_000}
    assert shares(freezer, board) == {"v1": 0, "v2": 0, "v3": SHARE}
    assert groups.items() == freezer.groups.held.items()


def test_a_share_set_at_run_time_waits_for_the_endpoints_of_its_version(freezer, board):
    first = config(f'endpoints = ["{ONE}"]\nsplit = {{ v1 = 1, v2 = 0 }}')
    freezer.freeze(first, 1)
    asked = freezer.set_split("app", {"v1": 90, "v2": 10})
    before = shares(freezer, board)
    freezer.freeze(with_endpoints(first, *first.services["app"].endpoints, at(TWO, version="v2")), 2)

    assert asked == {"v1": 900_000, "v2": 100_000}
    assert before == {"v1": SHARE, "v2": 0}
    assert shares(freezer, board) == asked


@pytest.mark.parametrize(
    ("asked", "able", "wanted"),
    [
        ({"a": 500_000, "b": 500_000}, {"a": True, "b": False}, {"a": SHARE, "b": 0}),
        ({"a": 0, "b": SHARE}, {"a": True, "b": False}, {"a": 0, "b": 0}),
        ({"a": 500_000, "b": 500_000}, {"a": False, "b": False}, {"a": 0, "b": 0}),
        ({"a": SHARE}, {"a": True, "new": True}, {"a": SHARE, "new": 0}),
    ],
)
def test_shares_in_force_are_those_of_versions_with_endpoints(asked, able, wanted):
    assert effective(asked, able) == wanted


def test_a_service_without_endpoints_is_one_that_workers_take(freezer):
    frozen = freezer.freeze(config(), 1)

    assert freezer.endpoint_slots("app") == {}
    assert Snapshot(frozen.whole).slots["endpoints"] == 1


# ---- health and admin state ------------------------------------------------------------------------------


def test_new_endpoints_enter_with_the_health_and_state_that_somebody_says(freezer, board):
    freezer.health_of = lambda service, address: "down" if address == TWO else "up"
    freezer.admin_of = lambda service, address: "drain" if service == "other" else "ready"
    freezer.freeze(config(f'endpoints = ["{ONE}", "{TWO}"]'), 1)
    rows = {
        address: board.endpoint(slot)
        for name in ("app", "other")
        for address, slot in freezer.endpoint_slots(name).items()
    }

    assert [(row["health"], row["admin"]) for row in rows.values()] == [
        ("up", "ready"),
        ("down", "ready"),
        ("up", "drain"),
    ]


@pytest.mark.parametrize(("slow_start", "ramps"), [("10s", True), ("0s", False)])
def test_slow_start_begins_when_an_endpoint_goes_from_down_to_up(freezer, board, slow_start, ramps):
    freezer.freeze(config(f'endpoints = ["{ONE}", "{TWO}"]\nslow_start = "{slow_start}"'), 1)
    slot = freezer.endpoint_slot("app", ONE)
    freezer.set_health("app", ONE, "down")
    changes = board.changes
    freezer.set_health("app", ONE, "up")
    stored = board.changes - changes
    since = board.endpoint(slot)["slow_start_ms"]
    freezer.set_health("app", ONE, "up")

    assert stored == 1
    assert (since > 0) == ramps
    assert board.changes == changes + 1
    with pytest.raises(KeyError):
        freezer.set_health("app", "10.9.9.9:80", "up")


def test_who_comes_back_at_once_has_the_state_that_is_said_now(freezer, board):
    first = config(f'endpoints = ["{ONE}", "{TWO}"]')
    freezer.freeze(first, 1)
    slot = freezer.endpoint_slot("app", TWO)
    board.set_admin(slot, "maint")
    freezer.freeze(with_endpoints(first, first.services["app"].endpoints[0]), 2)
    freezer.freeze(with_endpoints(first, at(ONE), at(TWO, weight=5)), 3)

    assert freezer.endpoint_slot("app", TWO) == slot
    assert (board.endpoint(slot)["admin"], board.endpoint(slot)["weight"]) == ("ready", 5)
