"""Buffers: room before and behind the data is respected, and every buffer that is taken comes back."""

from __future__ import annotations

import fcntl
import os
import resource

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from turnout.ext.buffers import _Pool

HEADROOM, SMALL, LARGE = 1024, 34816, 524288
KEPT = {0: 64, 1: 4}


@pytest.mark.parametrize(("klass", "size"), [(0, SMALL), (1, LARGE)])
def test_a_buffer_has_its_size_between_headroom_and_tailroom(klass, size):
    pool = _Pool(1 << 30)
    b = pool.take(klass)

    assert (pool.room(b), pool.data(b)) == (size, b"")
    pool.pad(b)
    pool.grow_down(b, b"h" * HEADROOM)
    assert pool.data(b) == b"h" * HEADROOM
    assert pool.fill(b, b"x" * (size + 1)) == size
    assert (pool.room(b), pool.data(b)[HEADROOM:]) == (0, b"x" * size)
    pool.give(b)


def test_the_buffer_given_last_is_taken_first_and_comes_back_empty():
    pool = _Pool(1 << 30)
    first, second = pool.take(0), pool.take(0)
    pool.fill(first, b"x")
    pool.give(second)
    pool.give(first)

    again = pool.take(0)
    assert (pool.data(again), pool.room(again)) == (b"", SMALL)
    assert pool.counts == (1, 1, 0, 0)
    pool.give(again)


@pytest.mark.parametrize("klass", [0, 1])
def test_a_pool_keeps_a_bounded_number_of_free_buffers(klass):
    pool = _Pool(1 << 30)
    for b in [pool.take(klass) for _ in range(KEPT[klass] + 3)]:
        pool.give(b)

    assert pool.counts[klass * 2 : klass * 2 + 2] == (0, KEPT[klass])


def test_past_the_bound_a_large_buffer_is_a_small_one():
    pool = _Pool(2 * LARGE + 1)
    taken = [pool.take(1) for _ in range(3)]

    assert [pool.klass(b) for b in taken] == [1, 1, 0]
    pool.give(taken[0])
    assert pool.klass(pool.take(1)) == 1
    assert pool.counts == (1, 0, 2, 0)
    for b in [*taken[1:], len(taken)]:
        pool.give(b)


def is_open(fd):
    try:
        fcntl.fcntl(fd, fcntl.F_GETFD)
    except OSError:
        return False
    return True


def test_a_pipe_holds_a_megabyte_and_is_used_again():
    pool = _Pool(1 << 30)
    first = pool.take(2)
    read, write = pool.ends(first)

    assert (pool.klass(first), pool.room(first), pool.data(first)) == (2, 0, b"")
    assert fcntl.fcntl(write, fcntl.F_GETPIPE_SZ) == 1 << 20
    assert not os.get_blocking(read)
    pool.give(first)
    assert pool.pipes == (0, 1)
    again = pool.take(2)
    assert (pool.ends(again), pool.pipes) == ((read, write), (1, 0))
    pool.give(again)


def test_a_pipe_with_bytes_left_in_it_is_closed():
    pool = _Pool(1 << 30)
    full = pool.take(2)
    ends = pool.ends(full)
    pool.hold(full, 1)
    pool.give(full)

    assert pool.pipes == (0, 0)
    assert not any(is_open(fd) for fd in ends)


def test_a_pool_keeps_a_bounded_number_of_pipes_and_closes_them_when_it_goes():
    pool = _Pool(1 << 30)
    taken = [pool.take(2) for _ in range(20)]
    ends = [fd for i in taken for fd in pool.ends(i)]
    for i in taken:
        pool.give(i)

    assert pool.pipes == (0, 16)
    assert sum(is_open(fd) for fd in ends) == 32
    del pool
    assert not any(is_open(fd) for fd in ends)


def test_a_pipe_counts_as_two_large_buffers_and_past_the_bound_is_one_or_a_small_one():
    pool = _Pool(5 * LARGE)
    taken = [pool.take(klass) for klass in (1, 2, 2, 2, 1)]

    assert [pool.klass(b) for b in taken] == [1, 2, 2, 0, 0]
    pool.give(taken[0])
    taken[0] = pool.take(2)
    assert pool.klass(taken[0]) == 1
    for b in taken:
        pool.give(b)


def test_without_a_descriptor_left_a_pipe_is_a_large_buffer_and_is_not_tried_again_at_once():
    pool = _Pool(1 << 30)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    probe = os.open("/dev/null", os.O_RDONLY)
    os.close(probe)
    resource.setrlimit(resource.RLIMIT_NOFILE, (probe, hard))
    try:
        without = pool.take(2)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    assert (pool.klass(without), pool.pipes) == (1, (0, 0))
    taken = [without, pool.take(2)]
    assert pool.klass(taken[1]) == 1
    for _ in range(999):
        pool.give(pool.take(2))
    taken.append(pool.take(2))
    assert pool.klass(taken[2]) == 2
    for b in taken:
        pool.give(b)


def test_a_chain_is_given_back_whole():
    pool = _Pool(1 << 30)
    pool.give_chain([pool.take(0), pool.take(1), pool.take(0)])
    pool.give_chain([])

    assert pool.counts == (0, 2, 0, 1)


def test_room_is_made_behind_the_data_only_when_there_is_none():
    pool = _Pool(0)
    b = pool.take(0)
    data = bytes(range(256)) * (SMALL // 256)
    pool.fill(b, data[:-1])
    pool.eat(b, 10)

    assert pool.slide(b)
    assert (pool.data(b), pool.room(b)) == (data[10:-1], 1)
    pool.fill(b, data[-1:])
    assert pool.slide(b)
    assert (pool.data(b), pool.room(b)) == (data[10:], 10)
    pool.fill(b, b"y" * 10)
    assert not pool.slide(b)
    assert pool.data(b) == data[10:] + b"y" * 10
    pool.give(b)


def test_a_full_buffer_that_reaches_into_its_headroom_is_left_alone():
    pool = _Pool(0)
    b = pool.take(0)
    pool.fill(b, b"x" * SMALL)
    pool.grow_down(b, b"12345678\r\n")

    assert not pool.slide(b)
    assert pool.data(b) == b"12345678\r\n" + b"x" * SMALL
    pool.give(b)


OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("take"), st.integers(0, 1)),
        st.tuples(st.sampled_from(["give", "slide", "chain"]), st.integers(0, 9)),
        st.tuples(st.just("fill"), st.integers(0, 40_000)),
        st.tuples(st.just("eat"), st.integers(0, 40_000)),
    ),
    max_size=40,
)


@settings(max_examples=150)
@given(OPERATIONS, st.integers(0, 3))
def test_whatever_is_done_data_stays_and_counts_end_at_zero(operations, large):
    pool = _Pool(large * LARGE)
    held: dict[int, bytes] = {}
    for what, n in operations:
        b = list(held)[n % len(held)] if held else None
        if what == "take":
            held[pool.take(n)] = b""
        elif b is None:
            continue
        elif what == "give":
            pool.give(b)
            del held[b]
        elif what == "chain":
            chain = list(held)[: n + 1]
            pool.give_chain(chain)
            held = {k: v for k, v in held.items() if k not in chain}
        elif what == "fill":
            piece = bytes([n % 256]) * n
            held[b] += piece[: pool.fill(b, piece)]
        elif what == "eat":
            pool.eat(b, n)
            held[b] = held[b][n:]
        else:
            assert pool.slide(b) == (pool.room(b) > 0)
        assert all(pool.data(k) == v for k, v in held.items())
    assert pool.counts[0] + pool.counts[2] == len(held)
    for b in held:
        pool.give(b)
    assert (pool.counts[0], pool.counts[2]) == (0, 0)
