"""The ring: who owns which key, and what moves when members come and go."""

import bisect

import mmh3
import pytest
from hypothesis import given
from hypothesis import strategies as st

from turnout.ext.ring import _murmur, _Ring
from turnout.ext.select import _hash

KEYS = [mmh3.hash64(f"key{i}", signed=False)[0] for i in range(3000)]


def members(n: int, points: int = 160) -> list[tuple[int, int, int]]:
    return [(mmh3.hash64(f"app/10.0.0.{i}:80", signed=False)[0], i, points) for i in range(n)]


def owners(rows: list[tuple[int, int, int]]) -> list[int | None]:
    ring = _Ring(rows)
    return [ring.find(key) for key in KEYS]


@given(st.binary(max_size=100))
def test_the_hash_is_murmur3_x64_128(data):
    assert _murmur(data) == mmh3.hash64(data, signed=False)
    assert _hash(data) == mmh3.hash64(data, signed=False)[0]


@given(
    st.lists(st.tuples(st.integers(0, 2**64 - 1), st.integers(1, 40)), min_size=1, max_size=20),
    st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=20),
)
def test_a_key_belongs_to_the_first_point_from_its_place_on(rows, keys):
    ring = _Ring([(identity, slot, points) for slot, (identity, points) in enumerate(rows)])
    points = ring.points()
    hashes = [point[0] for point in points]

    assert hashes == sorted(hashes)
    assert len(points) == sum(count for _, count in rows)
    for key in [*keys, 0, 2**64 - 1, hashes[0] << 32, hashes[-1] << 32]:
        assert ring.find(key) == points[bisect.bisect_left(hashes, key >> 32) % len(points)][1]


@pytest.mark.parametrize("gone", range(10))
def test_a_member_that_leaves_moves_its_own_keys_only(gone):
    rows = members(10)
    before = owners(rows)
    after = owners(rows[:gone] + rows[gone + 1 :])

    assert gone in before
    assert gone not in after
    assert all(was in (now, gone) for was, now in zip(before, after, strict=True))


def test_the_order_of_the_members_does_not_matter():
    rows = members(50)

    assert owners(rows) == owners(rows[::-1])


def test_more_weight_takes_keys_and_gives_none_away():
    rows = members(5)
    before = owners(rows)
    after = owners([*rows[:2], (rows[2][0], 2, 480), *rows[3:]])

    assert all(now in (was, 2) for was, now in zip(before, after, strict=True))
    assert after.count(2) > 2 * before.count(2)


def test_points_of_a_member_are_the_same_on_every_ring():
    few = {point for point in _Ring(members(20)).points() if point[1] == 3}

    assert few == {point for point in _Ring(members(4)).points() if point[1] == 3}
    assert few > {point for point in _Ring(members(4, points=37)).points() if point[1] == 3}


def test_members_get_keys_by_their_points():
    found = owners([(identity, slot, 160 * (1 + slot)) for identity, slot, _ in members(4)])

    for slot in range(4):
        assert found.count(slot) == pytest.approx(len(KEYS) * (1 + slot) / 10, rel=0.35)


def test_an_empty_ring_has_no_owners():
    assert _Ring([]).find(7) is None
    assert _Ring([(1, 0, 0)]).find(7) is None
