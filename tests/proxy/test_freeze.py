"""Freezing a configuration: what workers get, and what the scoreboard holds before they get it."""

import json
from pathlib import Path

import pytest

from turnout.ext.scoreboard import SHARE, Scoreboard
from turnout.ext.snapshot import Snapshot
from turnout.proxy.config import ConfigError, parse
from turnout.proxy.freeze import Freezer, identity, shares_of
from turnout.proxy.pieces import Frozen

WEB = '[listeners.web]\nbind = "0.0.0.0:8080"\n'
ROUTE = '[[routes]]\npath = "/"\nservice = "app"\n'


def service(endpoints: str, more: str = "", name: str = "app") -> str:
    return f"[services.{name}]\nendpoints = [{endpoints}]\n{more}\n"


def config(*tables: str):
    return parse("\n".join((WEB, *tables, ROUTE)), "turnout.toml")


@pytest.fixture
def board():
    board = Scoreboard.create(2, endpoints=8, groups=8, services=4, routes=8, listeners=4)
    yield board
    board.close()


@pytest.fixture
def freezer(board, tmp_path: Path) -> Freezer:
    return Freezer(board, tmp_path, file="turnout.toml", resolver=unknown)


def unknown(name: str) -> list[str]:
    raise OSError(-2, "unknown name")


def members(frozen: Frozen) -> dict[str, dict]:
    return {row["name"]: row for row in json.loads(frozen.whole)["members"]}


def test_the_document_is_one_that_a_worker_takes(freezer):
    frozen = freezer.freeze(config(service('"10.0.0.1:80", "[::1]:80", "unix:/run/app"')), 1)

    assert Snapshot(frozen.whole).version == 1


def test_an_endpoint_is_known_by_service_and_address_over_restarts(freezer):
    frozen = freezer.freeze(config(service('"10.0.0.1:80"')), 1)

    assert members(frozen)["10.0.0.1:80"]["identity"] == identity("app", "10.0.0.1:80")


def test_endpoints_keep_their_slots_when_others_come_and_go(freezer, board):
    first = members(freezer.freeze(config(service('"10.0.0.1:80", "10.0.0.2:80"')), 1))
    second = members(freezer.freeze(config(service('"10.0.0.3:80", "10.0.0.2:80"')), 2))

    assert second["10.0.0.2:80"]["slot"] == first["10.0.0.2:80"]["slot"]
    assert second["10.0.0.2:80"]["generation"] == first["10.0.0.2:80"]["generation"]
    assert second["10.0.0.3:80"]["slot"] not in {row["slot"] for row in first.values()}


def test_the_document_carries_the_generations_of_the_scoreboard(freezer, board):
    freezer.freeze(config(service('"10.0.0.1:80"')), 1)
    freezer.freeze(config(service('"10.0.0.2:80"')), 2)
    freezer.release(2)
    rows = members(freezer.freeze(config(service('"10.0.0.2:80", "10.0.0.3:80", "10.0.0.4:80"')), 3)).values()

    assert (
        {row["generation"] for row in rows}
        == {board.endpoint(row["slot"])["generation"] for row in rows}
        == {1}
    )


def test_a_removed_endpoint_is_picked_until_every_worker_knows(freezer, board):
    slot = members(freezer.freeze(config(service('"10.0.0.1:80"')), 1))["10.0.0.1:80"]["slot"]
    freezer.freeze(config(service('"10.0.0.2:80"')), 2)
    freezer.release(1)
    before = board.endpoint(slot)["in_use"]
    freezer.release(2)

    assert (before, board.endpoint(slot)["in_use"]) == (True, False)


def test_an_endpoint_that_comes_back_at_once_has_its_slot_again(freezer):
    first = members(freezer.freeze(config(service('"10.0.0.1:80"')), 1))
    freezer.freeze(config(service('"10.0.0.2:80"')), 2)
    third = members(freezer.freeze(config(service('"10.0.0.1:80"')), 3))

    assert third == first


def test_without_a_free_slot_the_key_to_raise_is_named(freezer):
    nine = ", ".join(f'"10.0.0.{i}:80"' for i in range(1, 10))

    with pytest.raises(ConfigError, match=r"turnout.toml: \[proxy\] max_endpoints: 9 do not fit 8 slots"):
        freezer.freeze(config(service(nine)), 1)


def test_a_failed_freeze_changes_nothing(freezer, board):
    freezer.freeze(config(service('"10.0.0.1:80"')), 1)
    changes = board.changes
    with pytest.raises(ConfigError):
        freezer.freeze(config(service('"10.0.0.2:80", "nowhere.example:80"')), 2)

    assert board.changes == changes
    assert freezer.endpoint_slots("app") == {"10.0.0.1:80": 0}


def test_every_name_that_does_not_resolve_is_told_with_its_place(freezer):
    with pytest.raises(ConfigError) as error:
        freezer.freeze(config(service('"10.0.0.1:80", "a.example:80", "b.example:81"')), 1)

    assert [str(problem) for problem in error.value.problems] == [
        'turnout.toml: [services.app] endpoints[2]: "a.example:80" cannot be looked up: unknown name',
        'turnout.toml: [services.app] endpoints[3]: "b.example:81" cannot be looked up: unknown name',
    ]


def test_of_several_addresses_the_lowest_ipv4_is_taken_in_whatever_order(board, tmp_path):
    answers = ["2001:db8::1", "10.0.0.9", "10.0.0.10"]
    freezer = Freezer(board, tmp_path, resolver=lambda _name: answers)
    first = members(freezer.freeze(config(service('"app.example:80"')), 1))
    answers.reverse()
    second = members(freezer.freeze(config(service('"app.example:80"')), 2, names=True))

    assert first["app.example:80"]["address"] == "10.0.0.9:80"
    assert second == first


def test_a_name_that_moves_to_another_address_is_another_endpoint_with_the_same_identity(board, tmp_path):
    answers = ["2001:db8::1"]
    freezer = Freezer(board, tmp_path, resolver=lambda _name: answers)
    first = members(freezer.freeze(config(service('"app.example:80"')), 1))["app.example:80"]
    answers[:] = ["2001:db8::2"]
    second = members(freezer.freeze(config(service('"app.example:80"')), 2, names=True))["app.example:80"]

    assert (first["address"], second["address"]) == ("[2001:db8::1]:80", "[2001:db8::2]:80")
    assert first["slot"] != second["slot"]
    assert first["identity"] == second["identity"]


def test_only_a_newcomer_to_a_running_service_starts_slowly(freezer, board):
    freezer.freeze(config(service('"10.0.0.1:80", "10.0.0.2:80"')), 1)
    at_start = [board.endpoint(slot)["slow_start_ms"] for slot in freezer.endpoint_slots("app").values()]
    freezer.freeze(config(service('"10.0.0.1:80", "10.0.0.3:80"')), 2)
    slots = freezer.endpoint_slots("app")

    assert at_start == [0, 0]
    assert board.endpoint(slots["10.0.0.3:80"])["slow_start_ms"] > 0
    assert board.endpoint(slots["10.0.0.1:80"])["slow_start_ms"] == 0


def test_a_weight_set_at_run_time_outlives_a_reload_that_says_nothing_new(freezer, board):
    freezer.freeze(config(service('{ address = "10.0.0.1:80", weight = 3 }')), 1)
    slot = freezer.endpoint_slots("app")["10.0.0.1:80"]
    board.set_weight(slot, 7)
    freezer.freeze(config(service('{ address = "10.0.0.1:80", weight = 3 }, "10.0.0.2:80"')), 2)
    kept = board.endpoint(slot)["weight"]
    freezer.freeze(config(service('{ address = "10.0.0.1:80", weight = 4 }')), 3)

    assert (kept, board.endpoint(slot)["weight"]) == (7, 4)


TWO = '{ address = "10.0.0.1:80", version = "v1" }, { address = "10.0.0.2:80", version = "v2" }'


def shares(freezer, board) -> dict[str, int]:
    return {version: board.group(slot)["share"] for (_, version), slot in freezer.groups.held.items()}


def test_a_split_is_in_the_scoreboard_in_exact_shares(freezer, board):
    freezer.freeze(config(service(TWO, "split = { v1 = 2, v2 = 1 }")), 1)

    assert shares(freezer, board) == {"v1": 666_667, "v2": 333_333}


def test_without_split_all_versions_are_one_group(freezer, board):
    frozen = freezer.freeze(config(service(TWO)), 1)

    assert [group["members"] for group in json.loads(frozen.whole)["services"][0]["groups"]] == [[0, 1]]
    assert shares(freezer, board) == {"": SHARE}


def test_a_split_set_at_run_time_outlives_a_reload_until_the_file_says_another(freezer, board):
    at_run_time = {"app": {"v2": 1.0}}
    freezer.freeze(config(service(TWO, "split = { v1 = 95, v2 = 5 }")), 1)
    stored = freezer.set_split("app", at_run_time["app"])
    freezer.freeze(
        config(service(TWO + ', { address = "10.0.0.3:80", version = "v2" }', "split = { v1 = 95, v2 = 5 }")),
        2,
    )
    freezer.apply_shares(at_run_time)
    kept = shares(freezer, board)
    assert at_run_time == {"app": {"v2": 1.0}}
    freezer.freeze(config(service(TWO, "split = { v1 = 50, v2 = 50 }")), 3)
    freezer.apply_shares(at_run_time)

    assert stored == kept == {"v1": 0, "v2": SHARE}
    assert shares(freezer, board) == {"v1": SHARE // 2, "v2": SHARE // 2}
    assert at_run_time == {}


def test_a_split_of_what_does_not_exist_is_refused(freezer):
    freezer.freeze(config(service(TWO, "split = { v1 = 1 }"), service('"10.0.0.9:80"', name="other")), 1)

    for name, wanted, error in (
        ("nobody", {"v1": 1.0}, KeyError),
        ("app", {"v3": 1.0}, KeyError),
        ("app", {"v1": 0.0}, ValueError),
        ("app", {"v1": -1.0, "v2": 2.0}, ValueError),
        ("app", {"v1": float("nan")}, ValueError),
        ("other", {"v1": 1.0}, ValueError),
    ):
        with pytest.raises(error):
            freezer.set_split(name, wanted)


@pytest.mark.parametrize(
    "split", [{"a": 1 / 3, "b": 1 / 3, "c": 1 / 3}, {"a": 1e-9, "b": 1}, {"a": 7, "b": 0}, {"a": 1e12}]
)
def test_shares_add_up_to_the_whole(split):
    assert sum(shares_of(split).values()) == SHARE
    assert all(share >= 0 for share in shares_of(split).values())


def test_a_removed_listener_is_still_known_until_workers_closed_it(freezer):
    two = config('[listeners.old]\nbind = "0.0.0.0:8081"', service('"10.0.0.1:80"'))
    freezer.freeze(two, 1)
    slot = freezer.listener_slot("old")
    freezer.freeze(config(service('"10.0.0.1:80"')), 2)

    assert freezer.listener_slot("old") == slot
    freezer.release(2)
    with pytest.raises(KeyError):
        freezer.listener_slot("old")


STICKY = 'sticky = { cookie = "turnout" }'


def sticky_key(frozen: Frozen) -> str:
    return json.loads(frozen.whole)["services"][0]["sticky"]["key"]


def test_a_made_signing_key_is_kept_and_private(board, tmp_path):
    tables = config(service('"10.0.0.1:80"', STICKY))
    first = sticky_key(Freezer(board, tmp_path).freeze(tables, 1))
    board2 = Scoreboard.create(1)
    second = sticky_key(Freezer(board2, tmp_path).freeze(tables, 1))
    board2.close()

    assert first == second
    assert [path.name for path in tmp_path.iterdir()] == ["sticky.key"]
    assert (tmp_path / "sticky.key").stat().st_mode & 0o777 == 0o600


def test_services_sign_with_keys_of_their_own(freezer):
    frozen = freezer.freeze(
        config(service('"10.0.0.1:80"', STICKY), service('"10.0.0.1:80"', STICKY, name="other")), 1
    )
    keys = {row["sticky"]["key"] for row in json.loads(frozen.whole)["services"]}

    assert len(keys) == 2


def test_a_key_in_the_file_needs_no_state(board, tmp_path):
    tables = config(service('"10.0.0.1:80"', 'sticky = { cookie = "turnout", key = "sixteen letters!" }'))
    frozen = Freezer(board, tmp_path / "nowhere").freeze(tables, 1)

    assert len(sticky_key(frozen)) == 32
    assert not (tmp_path / "nowhere").exists()


def test_a_damaged_key_file_is_told(freezer, tmp_path):
    (tmp_path / "sticky.key").write_bytes(b"short")

    with pytest.raises(ConfigError, match=r"\[services.app\] sticky: no signing key: .*has 5 bytes, not 32"):
        freezer.freeze(config(service('"10.0.0.1:80"', STICKY)), 1)


def test_everything_a_file_can_say_is_frozen(freezer):
    whole = Path(__file__).parent / "whole.toml"
    frozen = freezer.freeze(parse(whole.read_text(), "whole.toml"), 1)
    document = json.loads(frozen.whole)

    assert Snapshot(frozen.whole).slots == {
        "listeners": 2,
        "services": 2,
        "groups": 3,
        "endpoints": 4,
        "routes": 5,
    }
    orders = document["services"][0]
    assert orders["breaker"]["on"] == ["connect"]
    assert orders["breaker"]["statuses"] == [429, *range(500, 600)]
    assert orders["retry"]["on"] == ["stale", "status"]
    assert (orders["key_source"], orders["key_name"], orders["load_pct"]) == ("header", "x-user", 125)
    assert (orders["host_mode"], orders["host"]) == ("literal", "orders.internal")
    assert (orders["sticky"]["kind"], orders["sticky"]["ttl_s"], orders["sticky"]["same_site"]) == (
        "cookie",
        1800,
        "none",
    )
    web = document["listeners"][0]
    assert (web["port"], web["forwarded"], web["trusted"]) == (
        8080,
        ["x", "rfc7239"],
        ["10.0.0.0/8", "::1/128"],
    )
    assert [(route["action"], route["listeners"], route["prefix_to"]) for route in document["routes"]] == [
        ("service", [0], "/v1"),
        ("service", [0, 1], ""),
        ("respond", [0, 1], None),
        ("redirect", [1], None),
        ("service", [0, 1], None),
    ]
    assert document["routes"][0]["headers"] == [
        {"name": "X-Beta", "value": None},
        {"name": "X-Tier", "value": "gold"},
    ]
    assert (document["routes"][0]["log_per_million"], document["routes"][1]["log_per_million"]) == (
        250_000,
        1_000_000,
    )
