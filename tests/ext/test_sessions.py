"""The table of UDP sessions, beside a dict."""

import random

import pytest

from turnout.ext.sessions import _Sessions


def address(rng):
    return rng.choice([bytes(10) + b"\xff\xff\x7f\0\0", b"\xfe\x80" + bytes(13)]) + bytes([rng.randrange(4)])


@pytest.mark.parametrize("seed", range(5))
def test_sessions_are_found_by_listener_address_scope_and_port_however_they_come_and_go(seed):
    rng = random.Random(seed)
    room = 1500
    table, model = _Sessions(room), {}
    for _ in range(20_000):
        key = (rng.randrange(2), address(rng), rng.randrange(2), rng.randrange(300))
        number = table.find(*key)
        assert number == model.get(key)
        if number is not None and rng.random() < 0.6:
            table.drop(number)
            del model[key]
        elif number is None and len(model) < room:
            model[key] = table.add(*key)
        assert len(table) == len(model)
    for key, number in model.items():
        assert table.find(*key) == number
        table.drop(number)
        assert table.find(*key) is None
    assert len(table) == 0


def test_dropping_a_session_that_is_not_there_changes_nothing():
    table = _Sessions(2)
    number = table.add(0, bytes(16), 0, 1)
    table.drop(number)
    table.drop(number)
    assert len(table) == 0


def test_the_table_stays_at_most_half_full():
    table = _Sessions(5000)
    for n in range(5000):
        table.add(0, bytes(16), 0, n)
        assert len(table) * 2 <= table.places
    assert table.places == 16384


def test_senders_that_stand_in_each_others_way_in_one_table_do_not_in_another():
    one, other = _Sessions(4000), _Sessions(4000)
    keys = [(0, bytes(16), 0, n) for n in range(400)]
    places = [(one.home(one.add(*key)), other.home(other.add(*key))) for key in keys]
    assert places != [(mine, mine) for mine, _ in places]
    # Of 400 sources in 1024 places some share a quarter; which ones, the key of the table says.
    together = [theirs for mine, theirs in places if mine < 256]
    assert len({theirs // 256 for theirs in together}) == 4
