"""How often somebody may fail."""

import pytest

from turnout.control.access.limiter import SOURCES, Limiter, network


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def limiter(clock):
    return Limiter(burst=3, per_s=0.5, clock=clock)


def test_a_burst_is_free_and_then_there_is_a_wait(limiter):
    assert [limiter.failed("10.0.0.1")[0] for _ in range(4)] == [0, 0, 0, 2.0]


def test_the_first_beyond_the_burst_is_told_from_the_others(limiter, clock):
    assert [limiter.failed("10.0.0.1")[1] for _ in range(6)] == [False, False, False, True, False, False]
    clock.now = 2
    assert [limiter.failed("10.0.0.1")[1] for _ in range(3)] == [False, True, False]


def test_failures_are_forgiven_with_time(limiter, clock):
    for _ in range(4):
        limiter.failed("10.0.0.1")
    clock.now = 2

    assert limiter.failed("10.0.0.1")[0] == 0
    assert limiter.failed("10.0.0.1")[0] > 0


def test_sources_do_not_pay_for_each_other(limiter):
    for _ in range(9):
        limiter.failed("10.0.0.1")

    assert limiter.failed("10.0.0.2") == (0, False)


def test_many_sources_take_bounded_memory(limiter):
    for number in range(SOURCES + 100):
        limiter.failed(f"source {number}")

    assert len(limiter._buckets) == SOURCES


@pytest.mark.parametrize(
    ("source", "counts_as"),
    [
        ("10.0.0.1", "10.0.0.1"),
        ("2001:db8::1", "2001:db8::/64"),
        ("2001:db8::ffff:1", "2001:db8::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::ffff:10.0.0.1", "10.0.0.1"),
        ("unix:ann", "unix:ann"),
    ],
)
def test_one_subscriber_is_one_source(source, counts_as):
    assert network(source) == counts_as
