"""Whether a failed attempt is tried again, and what a service may spend on it."""

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from turnout.ext.retry import _allowed, _Budget
from turnout.ext.scoreboard import RETRY_REASONS

# method_id of headers.pxd
OTHER, GET, HEAD, POST, PUT, DELETE, OPTIONS, PATCH, TRACE = range(9)
IDEMPOTENT = (GET, HEAD, PUT, DELETE, OPTIONS, TRACE)  # RFC 9110 9.2.2
CONNECT, STALE, RESET, TIMEOUT, STATUS = range(5)
CONF = {"attempts": 2, "on": 31, "methods": sum(1 << m for m in IDEMPOTENT), "statuses": [503]}

METHODS = range(9)
REASONS = range(5)


def allowed(reason, method, conf=CONF, **attempt):
    return _allowed(conf, reason=reason, method=method, **({"status": 503} | attempt))


def test_the_reasons_here_are_those_of_the_scoreboard():
    assert RETRY_REASONS == ("connect", "stale", "reset", "timeout", "status")


@pytest.mark.parametrize("reason", REASONS)
@pytest.mark.parametrize("method", METHODS)
def test_once_bytes_were_sent_only_an_idempotent_method_is_repeated(reason, method):
    assert allowed(reason, method, sent=True) is (method in IDEMPOTENT)


@pytest.mark.parametrize("reason", REASONS)
@pytest.mark.parametrize("method", METHODS)
def test_while_nothing_was_sent_any_method_is_repeated(reason, method):
    assert allowed(reason, method, sent=False)


@pytest.mark.parametrize("method", METHODS)
def test_an_idempotency_key_makes_any_method_repeatable(method):
    assert allowed(RESET, method, sent=True, keyed=True)


@pytest.mark.parametrize(
    ("reason", "method", "changed"),
    [
        (reason, method, changed)
        for reason, method in itertools.product(REASONS, (GET, POST))
        for changed in ({"answered": True}, {"replayable": False}, {"answered": True, "keyed": True})
    ],
)
def test_nothing_is_repeated_that_was_answered_or_is_not_at_hand(reason, method, changed):
    assert not allowed(reason, method, **changed)


@pytest.mark.parametrize("reason", REASONS)
@pytest.mark.parametrize("on", range(32))
def test_a_reason_counts_only_where_it_is_switched_on(reason, on):
    assert allowed(reason, GET, CONF | {"on": on}, sent=True) is bool(on >> reason & 1)


@pytest.mark.parametrize("attempts", range(4))
@pytest.mark.parametrize("reason", [CONNECT, RESET, TIMEOUT, STATUS])
def test_attempts_are_further_tries_after_the_first(attempts, reason):
    granted = [allowed(reason, GET, CONF | {"attempts": attempts}, tries=n) for n in range(1, 6)]
    assert granted == [n <= attempts for n in range(1, 6)]


def test_stale_connections_are_no_attempts_but_bounded():
    conf = CONF | {"attempts": 0}
    assert allowed(STALE, GET, conf, tries=1)
    assert allowed(STALE, GET, tries=9)
    granted = [allowed(STALE, GET, conf, stale_tries=n) for n in range(6)]
    assert granted == [True, True, True, False, False, False]
    assert not allowed(CONNECT, GET, conf, stale_tries=0)


@pytest.mark.parametrize("status", [0, 99, 100, 200, 429, 500, 502, 503, 504, 611, 612, 65535])
def test_a_status_is_repeated_only_where_listed(status):
    conf = CONF | {"statuses": [429, 503, 611, 100]}
    assert allowed(STATUS, GET, conf, status=status) is (status in (429, 503, 611, 100))
    assert allowed(RESET, GET, conf, status=status)


def test_a_budget_earns_its_share_of_requests():
    budget = _Budget(budget=0.2, floor_per_s=0)
    granted = 0
    for _ in range(100):
        budget.earn(0.0)
        granted += budget.spend()
    assert granted == 20
    assert budget.denied == 80


def test_shares_that_add_up_to_one_are_a_token_whatever_rounding_did():
    budget = _Budget(budget=0.1, floor_per_s=0)
    for _ in range(10):
        budget.earn(0.0)
    assert budget.tokens < 1
    assert budget.spend()
    assert budget.tokens == 0
    assert not budget.spend()


def test_a_budget_earns_its_floor_by_the_clock():
    budget = _Budget(budget=0, floor_per_s=4)
    budget.earn(0.5)
    assert [budget.spend() for _ in range(3)] == [True, True, False]


def test_the_first_request_finds_ten_seconds_of_the_floor():
    budget = _Budget(budget=0, floor_per_s=3)
    budget.earn(1e9)
    assert budget.tokens == 30


def test_saving_ends_at_ten_seconds_of_the_floor_and_a_hundred():
    budget = _Budget(budget=1.0, floor_per_s=3)
    for _ in range(1000):
        budget.earn(1.0)
    assert budget.tokens == 130


def test_a_budget_of_nothing_grants_nothing():
    budget = _Budget(budget=0, floor_per_s=0)
    budget.earn(1e9)
    assert not budget.spend()
    assert budget.denied == 1


def test_a_clock_that_stands_still_or_is_odd_takes_nothing_away():
    budget = _Budget(budget=0, floor_per_s=1)
    budget.earn(5.0)
    for elapsed in (0.0, -1.0, -math.inf, math.nan):
        budget.earn(elapsed)
    assert budget.tokens == 5


@given(
    share=st.floats(0, 1),
    floor=st.floats(0, 50),
    steps=st.lists(st.one_of(st.none(), st.floats(0, 20)), max_size=300),
)
def test_never_more_is_spent_than_was_earned(share, floor, steps):
    """A step is an attempt to spend (None) or a request so many seconds after the last."""
    budget = _Budget(budget=share, floor_per_s=floor)
    cap = 10 * floor + 100
    earned = spent = denied = 0.0
    for elapsed in steps:
        if elapsed is None:
            before = budget.tokens
            granted = budget.spend()
            assert granted is (before >= 1 - 1e-9)
            spent += granted
            denied += not granted
        else:
            budget.earn(elapsed)
            earned += share + floor * min(elapsed, 10)
        assert 0 <= budget.tokens <= cap
        assert spent <= earned + 1e-6
        assert budget.tokens <= earned - spent + 1e-6
    assert budget.denied == denied
