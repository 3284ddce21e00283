"""The scoreboard: layout, slots, and what is left of a dead worker."""

import itertools
import os

import pytest

from turnout.ext.scoreboard import SHARE, Scoreboard, _hist_bucket, hist_bounds


@pytest.fixture
def board():
    board = Scoreboard.create(3, endpoints=8, groups=4, services=2, routes=2, listeners=2, sticky=8)
    yield board
    board.close()


def test_a_second_mapping_sees_what_the_first_one_stored(board):
    generation = board.use_endpoint(3, weight=7)
    other = Scoreboard.open(os.dup(board.fd))

    assert other.endpoint(3)["weight"] == 7
    assert other.endpoint(3)["generation"] == generation
    other.close()


def test_another_file_is_not_taken_for_a_scoreboard(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"x" * 65536)
    with path.open("r+b") as f, pytest.raises(ValueError, match="not a scoreboard"):
        Scoreboard.open(f.fileno())


def test_a_truncated_scoreboard_is_refused(board):
    os.ftruncate(board.fd, 8192)
    with pytest.raises(ValueError, match="not a scoreboard"):
        Scoreboard.open(board.fd)


@pytest.mark.parametrize(
    ("workers", "sizes", "message"),
    [
        (0, {}, "workers = 0"),
        (257, {}, "workers = 257"),
        (1, {"sticky": 12}, "power of two"),
        (1, {"endpoints": 0}, "at least"),
    ],
)
def test_sizes_that_make_no_sense_are_refused(workers, sizes, message):
    with pytest.raises(ValueError, match=message):
        Scoreboard.create(workers, **sizes)


def test_an_unused_scoreboard_takes_little_memory():
    board = Scoreboard.create(64, endpoints=4096)

    assert board.size > 1 << 30
    assert os.fstat(board.fd).st_blocks * 512 < 1 << 20
    board.close()


def test_a_generation_is_odd_while_the_slot_is_in_use(board):
    assert board.use_endpoint(0) == 1
    with pytest.raises(ValueError, match="slot 0 is in use"):
        board.use_endpoint(0)
    board.release_endpoint(0)
    assert not board.endpoint(0)["in_use"]
    with pytest.raises(ValueError, match="slot 0 is not in use"):
        board.release_endpoint(0)
    assert board.use_endpoint(0) == 3


def test_a_claim_takes_the_slot_that_was_used_least_often(board):
    assert board.claim_endpoint() == (0, 1)
    board.release_endpoint(0)
    assert [board.claim_endpoint()[0] for _ in range(8)] == [1, 2, 3, 4, 5, 6, 7, 0]
    with pytest.raises(ValueError, match="all 8 endpoint slots"):
        board.claim_endpoint()


def test_every_store_raises_changes(board):
    board.use_group(0)
    seen = [board.changes]
    for store in (
        lambda: board.use_endpoint(1),
        lambda: board.set_weight(1, 0),
        lambda: board.set_health(1, "down"),
        lambda: board.set_admin(1, "drain"),
        lambda: board.set_slow_start(1),
        lambda: board.set_shares({0: SHARE}),
        lambda: board.release_endpoint(1),
    ):
        store()
        seen.append(board.changes)

    assert seen == sorted(set(seen))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda b: b.endpoint(8), IndexError, "endpoint slot 8: the scoreboard has 8"),
        (lambda b: b.endpoint(-1), IndexError, "endpoint slot -1"),
        (lambda b: b.settle(3), IndexError, "worker 3"),
        (lambda b: b.route_totals(2), IndexError, "route slot 2"),
        (lambda b: b.use_endpoint(0, weight=65536), ValueError, "weight = 65536"),
        (lambda b: b.set_shares({0: 1}), ValueError, "shares add up to 1"),
        (lambda b: b.set_shares({9: SHARE}), IndexError, "group slot 9"),
        (lambda b: b.set_health(0, "sick"), ValueError, "sick"),
    ],
)
def test_bad_arguments_are_named(board, call, error, message):
    with pytest.raises(error, match=message):
        call(board)


def test_a_closed_scoreboard_says_so():
    board = Scoreboard.create(1)
    board.close()
    with pytest.raises(ValueError, match="closed"):
        board.endpoint(0)
    with pytest.raises(ValueError, match="closed"):
        board.set_snapshot(1)


def test_histogram_buckets_and_bounds_agree():
    bounds = hist_bounds()

    assert bounds == sorted(bounds)
    for us in [*range(2000), *(1 << k for k in range(11, 30)), *((1 << k) - 1 for k in range(11, 30))]:
        bucket = _hist_bucket(us)
        assert us < bounds[bucket]
        assert bucket == 0 or us >= bounds[bucket - 1]
    relative = [(hi - lo) / lo for lo, hi in itertools.pairwise(bounds[7:-1])]
    assert max(relative) <= 0.126


def test_totals_have_every_outcome(board):
    totals = board.endpoint_totals(0)

    assert set(totals["outcomes"]) == {
        "1xx",
        "2xx",
        "3xx",
        "4xx",
        "5xx",
        "connect",
        "timeout",
        "reset",
        "stale",
        "cancel",
    }
    assert len(totals["first_us"]) == len(hist_bounds())
    assert board.listener_totals(1)["open"] == 0
    assert board.service_totals(1)["retries"]["stale"] == 0


def test_a_worker_is_attached_and_settled(board):
    board.attach(1, 4711)
    board.set_worker_state(1, "serving")
    assert (board.worker(1)["pid"], board.worker(1)["state"]) == (4711, "serving")

    board.settle(1)

    assert (board.worker(1)["pid"], board.worker(1)["state"]) == (0, "gone")
