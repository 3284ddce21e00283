"""The live table: what it shows, in which order, and how it fits."""

import io
import json

import pytest
from rich.console import Console

from turnout.control.commands.top import COLUMNS, Level, Sort, View, rows_of


def counts(requests: float, p99: float | None = None, in_flight: int = 0) -> dict:
    return {
        "requests_per_s": requests,
        "errors_per_s": 0.0,
        "p50_ms": p99,
        "p99_ms": p99,
        "in_flight": in_flight,
    }


def endpoint(address: str, version: str, **facts) -> dict:
    return {
        "address": address,
        "version": version,
        "weight": 1,
        "admin": "ready",
        "health": "up",
        **counts(**facts),
    }


STATUS = {
    "state": "serving",
    "listeners": [{"requests_per_s": 12.0}],
    "services": [
        {
            "name": "calm",
            "split": [],
            "versions": [{"version": "v1", **counts(2, 9.0)}],
            "endpoints": [endpoint("10.0.0.9:80", "v1", requests=2, p99=9.0)],
            **counts(2, 9.0),
        },
        {
            "name": "busy",
            "split": [{"version": "v1", "share": 0.9}, {"version": "v2", "share": 0.1}],
            "versions": [{"version": "v1", **counts(9, 1.0)}, {"version": "v2", **counts(1, 5.0, 3)}],
            "endpoints": [
                endpoint("10.0.0.1:80", "v1", requests=4, p99=1.0),
                endpoint("10.0.0.2:80", "v1", requests=5, p99=0.5),
                endpoint("10.0.0.3:80", "v2", requests=1, p99=5.0, in_flight=3),
            ],
            **counts(10, 2.0, 3),
        },
    ],
}


def titles(sort: Sort, level: Level = Level.ENDPOINT, only: str | None = None) -> list[str]:
    return [row.title.strip() for row in rows_of(STATUS, sort, level, only)]


def drawn(view: View, width: int, height: int) -> list[str]:
    console = Console(width=width, height=height, file=io.StringIO())
    with console.capture() as said:
        console.print(view.drawn(width, height))
    return said.get().rstrip("\n").split("\n")


def test_endpoints_stand_below_their_version_and_versions_below_their_service():
    assert titles(Sort.REQUESTS) == [
        "busy", "v1", "10.0.0.2:80", "10.0.0.1:80", "v2", "10.0.0.3:80", "calm", "v1", "10.0.0.9:80",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("sort", "first"),
    [
        (Sort.NAME, ["busy", "v1"]),
        (Sort.REQUESTS, ["busy", "v1"]),
        (Sort.P99, ["calm", "v1"]),
        (Sort.IN_FLIGHT, ["busy", "v2"]),
    ],
)
def test_each_level_is_sorted(sort, first):
    assert titles(sort, Level.VERSION)[:2] == first


def test_detail_and_service_are_chosen():
    assert titles(Sort.NAME, Level.SERVICE) == ["busy", "calm"]
    assert titles(Sort.NAME, Level.VERSION, "calm") == ["calm", "v1"]


@pytest.mark.parametrize("width", [20, 40, 60, 80, 120])
@pytest.mark.parametrize("height", [5, 8, 24])
def test_it_fits_into_every_terminal(width, height):
    lines = drawn(View(Sort.REQUESTS, Level.ENDPOINT, status=STATUS), width, height)

    assert len(lines) <= height
    assert max(map(len, lines)) <= width


def test_a_wide_terminal_has_every_column_and_a_narrow_one_the_requests():
    wide, narrow = (
        "\n".join(drawn(View(Sort.NAME, Level.ENDPOINT, status=STATUS), width, 24)) for width in (120, 24)
    )

    assert all(title in wide for title, _ in COLUMNS)
    assert "90%" in wide
    assert "req/s" in narrow


def test_keys_sort_move_and_end():
    view = View(Sort.REQUESTS, Level.ENDPOINT, status=STATUS)
    assert view.press("9")
    assert view.press("v")
    assert (view.sort, view.level) == (Sort.P99, Level.VERSION)
    for _ in range(3):
        assert view.press("j")
    assert view.press("\x1b[A")
    assert "2 more rows" not in "\n".join(drawn(view, 120, 24))
    assert view.at == 0
    assert not view.press("q")


def test_what_does_not_fit_is_reached_by_moving():
    view = View(Sort.REQUESTS, Level.ENDPOINT, status=STATUS)
    before = "\n".join(drawn(view, 120, 7))
    for _ in range(20):
        view.press("j")
    after = "\n".join(drawn(view, 120, 7))

    assert "6 more rows" in before
    assert "10.0.0.9:80" not in before
    assert "10.0.0.9:80" in after


def test_it_is_printed_once_as_a_table_and_as_json(call):
    code, out, _ = call("top", "--once", "--by", "version")
    assert (code, "app" in out, "v2" in out, "10.0.0.1:80" in out) == (0, True, True, False)

    code, out, _ = call("top", "--once", "--json", "--service", "app")
    rows = json.loads(out)["rows"]
    assert code == 0
    assert [row["level"] for row in rows] == [
        "service", "version", "endpoint", "endpoint", "version", "endpoint",
    ]  # fmt: skip
    assert rows[1]["share"] == 0.75
