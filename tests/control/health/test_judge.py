import pytest
from hypothesis import given
from hypothesis import strategies as st

from turnout.control.health.judge import HIGHEST, RELEASE, SUPPRESS, Judge, Thresholds
from turnout.control.health.outcome import Outcome, failed, passed

GOOD, BAD, REFUSED = passed("status 200"), failed("status 503"), failed("refused", 2)
SILENT = Outcome("unknown", "no answer")
DEGRADED = Outcome("degraded", "status 429")


def play(judge: Judge, *outcomes: Outcome, apart: float = 1.0, start: float = 0.0) -> list[bool]:
    """Whether it was up after each."""
    out = []
    for number, outcome in enumerate(outcomes):
        judge.take(outcome, start + number * apart)
        out.append(judge.up)
    return out


def test_the_first_success_brings_up_an_endpoint_that_never_was():
    assert play(Judge(Thresholds(rise=5)), BAD, BAD, GOOD) == [False, False, True]


def test_fall_failures_in_a_row_take_it_down_and_a_success_between_them_starts_the_count_anew():
    judge = Judge(Thresholds(rise=2, fall=3))

    assert play(judge, GOOD, BAD, BAD, GOOD, BAD, BAD, BAD) == [True, True, True, True, True, True, False]


def test_rise_successes_in_a_row_bring_it_back():
    judge = Judge(Thresholds(rise=3, fall=1))

    assert play(judge, GOOD, BAD, GOOD, GOOD, BAD, GOOD, GOOD, GOOD)[-4:] == [False, False, False, True]


def test_a_refused_connection_counts_twice():
    assert play(Judge(Thresholds(fall=3)), GOOD, REFUSED, REFUSED) == [True, True, False]


def test_what_is_only_assumed_falls_with_its_first_failure():
    judge = Judge(Thresholds(fall=3), "up")

    assert judge.up
    assert judge.assumed
    assert play(judge, BAD) == [False]


def test_what_is_assumed_is_known_after_its_first_success():
    judge = Judge(Thresholds(fall=3), "up")

    assert play(judge, GOOD, BAD, BAD) == [True, True, True]
    assert not judge.assumed


def test_an_endpoint_that_was_down_before_a_restart_needs_rise_successes():
    assert play(Judge(Thresholds(rise=2), "down"), GOOD, GOOD) == [False, True]


def test_a_degraded_endpoint_is_up():
    assert play(Judge(Thresholds()), DEGRADED, DEGRADED) == [True, True]


@pytest.mark.parametrize("before", [[], [GOOD], [GOOD, BAD, BAD], [GOOD, BAD, BAD, BAD, GOOD]])
def test_silence_changes_nothing(before):
    judge = Judge(Thresholds())
    play(judge, *before)
    counts = judge.successes, judge.failures, judge.up

    assert not any(judge.take(SILENT, 10.0 + n) for n in range(9))
    assert (judge.successes, judge.failures, judge.up) == counts


def test_an_endpoint_that_flaps_is_kept_down_until_its_score_has_decayed():
    judge = Judge(Thresholds(rise=1, fall=1))
    play(judge, GOOD, BAD, GOOD, BAD, GOOD, BAD, GOOD)

    assert judge.flapping
    assert not judge.up
    assert SUPPRESS < judge.score(6.0) <= HIGHEST
    now, seen = 7.0, []
    while not judge.up:
        judge.take(GOOD, now)
        seen.append(judge.score(now))
        now += 2.0
    assert min(seen[:-1]) >= RELEASE > seen[-1]
    assert now < 7 + 150


def test_turns_that_are_far_apart_are_no_flapping():
    judge = Judge(Thresholds(rise=1, fall=1))

    assert play(judge, *[GOOD, BAD] * 50, apart=60.0) == [True, False] * 50


def test_coming_up_for_the_first_time_and_a_wrong_assumption_are_no_flapping():
    new, assumed = Judge(Thresholds(fall=1)), Judge(Thresholds(fall=1), "up")
    new.take(GOOD, 0.0)
    assumed.take(BAD, 0.0)

    assert new.score(0.0) == assumed.score(0.0) == 0


OUTCOMES = st.lists(
    st.tuples(st.sampled_from([GOOD, BAD, REFUSED, SILENT, DEGRADED]), st.floats(0, 300)), max_size=50
)


@given(OUTCOMES, st.integers(1, 5), st.integers(1, 5), st.sampled_from(["new", "up", "down"]))
def test_whatever_comes_a_judge_keeps_its_word(outcomes, rise, fall, start):
    judge, now, failures, successes = Judge(Thresholds(rise, fall), start), 0.0, 0, 0
    for outcome, apart in outcomes:
        now += apart
        was_up, was_assumed, was_proven = judge.up, judge.assumed, judge.proven
        turned = judge.take(outcome, now)

        if outcome.verdict != "unknown":
            successes = successes + 1 if outcome.ok else 0
            failures = 0 if outcome.ok else failures + outcome.counts
        assert turned == (judge.up != was_up)
        assert 0 <= judge.score(now) <= HIGHEST
        if was_up and not judge.up:
            assert failures >= fall or was_assumed
        if judge.up and not was_up:
            assert outcome.ok
            assert successes >= rise or not was_proven
        if outcome.ok and successes >= rise and not judge.flapping:
            assert judge.up
        if failures >= fall:
            assert not judge.up


@given(st.integers(0, 1 << 400))
def test_an_endpoint_checked_twice_a_second_turns_but_a_few_times_in_a_minute(results):
    judge, turns = Judge(Thresholds(rise=1, fall=1)), []
    for number, good in enumerate(results >> place & 1 for place in range(400)):
        if judge.take(GOOD if good else BAD, number / 2):
            turns.append(number / 2)

    assert all(sum(start <= t < start + 60 for t in turns) <= 11 for start in turns)
