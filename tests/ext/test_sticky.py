"""Sticky sessions: the signed cookie, and the table of sources that workers share."""

import base64
import json
import os
import re
import subprocess
import sys
from datetime import UTC, datetime
from email.utils import format_datetime
from http.cookies import SimpleCookie

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from turnout.ext.scoreboard import Scoreboard
from turnout.ext.sticky import _Cookies, _siphash128, _Sources

WALL = 1_700_000_000
IDENTITY = 0x0123456789ABCDEF

# vectors_sip128 of the reference implementation: key 00 01 .. 0f, data 00 01 .. of the given length.
VECTORS = {
    0: "a3817f04ba25a8e66df67214c7550293",
    1: "da87c1d86b99af44347659119b22fc45",
    7: "a1f1ebbed8dbc153c0b84aa61ff08239",
    8: "3b62a9ba6258f5610f83e264f31497b4",
    15: "5493e99933b0a8117e08ec0f97cfc3d9",
    16: "6ee2a4ca67b054bbfd3315bf85230577",
    31: "2939b0183223fafc1723de4f52c43d35",
    32: "7c3956ca5eeafc3e363e9d556546eb68",
    33: "77c6077146f01c32b6b69d5f4ea9ffcf",
    63: "5150d1772f50834a503e069a973fbd7c",
}


@pytest.mark.parametrize("length", VECTORS)
def test_the_tag_is_that_of_the_reference_implementation(length):
    assert _siphash128(bytes(range(16)), bytes(range(length))).hex() == VECTORS[length]


# ---- by cookie ------------------------------------------------------------------------------------


def issue(cookies=None, *, identity=IDENTITY, version="v1", expires=WALL + 1800, wall=WALL):
    """The value that a Set-Cookie gives a client to send back."""
    written = (cookies or _Cookies()).write(identity, version, expires, wall)
    return written.partition(b"=")[2].partition(b";")[0]


def test_a_cookie_that_was_issued_names_its_endpoint_until_it_expires():
    value = issue()
    assert _Cookies().read(value, WALL) == ("bound", IDENTITY, WALL + 1800)
    assert _Cookies().read(value, WALL + 1799) == ("bound", IDENTITY, WALL + 1800)
    assert _Cookies().read(value, WALL + 1800) == ("bad", 0, 0)


def test_a_value_needs_no_quoting_anywhere():
    assert re.fullmatch(rb"[A-Za-z0-9_-]{64}", issue())


def test_a_value_carries_what_the_manual_says_and_no_names_in_clear():
    token = base64.urlsafe_b64decode(issue(version="secret-version"))
    word = [int.from_bytes(token[i : i + 8], "little") for i in range(0, 48, 8)]
    assert word[0] >> 56 == 1
    assert word[0] & (2**56 - 1) == WALL + 1800
    assert word[1] == IDENTITY
    assert token[32:] == _siphash128(bytes(range(16)), token[:32])
    assert b"shop" not in token
    assert b"secret" not in token
    other_version = base64.urlsafe_b64decode(issue(version="v2"))
    assert (other_version[:24], other_version[24:32]) == (token[:24], other_version[24:32])
    assert other_version[24:32] != token[24:32]


def test_a_cookie_of_another_service_is_refused():
    assert _Cookies(service="other").read(issue(), WALL) == ("bad", 0, 0)


def test_a_cookie_signed_with_another_key_is_refused():
    for i in range(16):
        key = bytearray(range(16))
        key[i] ^= 1
        assert _Cookies(key=bytes(key)).read(issue(), WALL) == ("bad", 0, 0)


def test_every_single_bit_that_is_turned_is_noticed():
    token = base64.urlsafe_b64decode(issue())
    for bit in range(len(token) * 8):
        forged = bytearray(token)
        forged[bit // 8] ^= 1 << bit % 8
        assert _Cookies().read(base64.urlsafe_b64encode(forged), WALL)[0] == "bad", bit


def test_every_other_character_at_every_place_is_noticed():
    value = issue()
    for i in range(len(value)):
        for c in range(256):
            if c != value[i]:
                assert _Cookies().read(value[:i] + bytes([c]) + value[i + 1 :], WALL)[0] == "bad"


def test_a_value_of_another_length_is_refused():
    value = issue()
    for n in range(len(value)):
        assert _Cookies().read(value[:n], WALL)[0] == "bad"
    for more in (b"=", b"A", b" ", b"\0", value):
        assert _Cookies().read(value + more, WALL)[0] == "bad"
        assert _Cookies().read(more + value, WALL)[0] == "bad"


@pytest.mark.parametrize("expires", [0, WALL, 2**56 - 1])
def test_an_expiry_is_taken_as_signed(expires):
    verdict = ("bound", IDENTITY, expires) if expires > WALL else ("bad", 0, 0)
    assert _Cookies().read(issue(expires=expires), WALL) == verdict


def resigned(word, value):
    token = bytearray(base64.urlsafe_b64decode(issue()))
    token[8 * word : 8 * word + 8] = value.to_bytes(8, "little")
    token[32:] = _siphash128(bytes(range(16)), bytes(token[:32]))
    return base64.urlsafe_b64encode(token)


@pytest.mark.parametrize("form", [0, 2, 255])
def test_another_format_is_refused_although_signed(form):
    assert _Cookies().read(resigned(0, form << 56 | WALL + 60), WALL)[0] == "bad"
    assert _Cookies().read(resigned(0, 1 << 56 | WALL + 60), WALL)[0] == "bound"


@pytest.mark.parametrize("kind", ["none", "source"])
def test_a_service_without_cookies_reads_none(kind):
    assert _Cookies(kind=kind).read(issue(), WALL) == ("none", 0, 0)


@given(value=st.one_of(st.binary(max_size=200), st.from_regex(rb"\A[A-Za-z0-9_-]{60,68}\Z")))
@example(value=b"")
@example(value=b"\xff" * 64)
@example(value=b"A" * 64)
@example(value=b"\0" * 4096)
def test_garbage_is_refused(value):
    assert _Cookies().read(value, WALL) == ("bad", 0, 0)


@given(
    identity=st.integers(1, 2**64 - 1),
    version=st.text(max_size=40),
    service=st.text(max_size=40),
    key=st.binary(min_size=16, max_size=16),
    ttl=st.integers(1, 2**32 - 1),
)
def test_whatever_is_issued_is_read_back(identity, version, service, key, ttl):
    cookies = _Cookies(service=service, key=key)
    value = issue(cookies, identity=identity, version=version, expires=WALL + ttl)
    assert cookies.read(value, WALL) == ("bound", identity, WALL + ttl)


def attributes(cookies=None, expires=WALL + 1800, **conf):
    written = (cookies or _Cookies(**conf)).write(IDENTITY, "v1", expires, WALL).decode()
    return written.split("; ")[1:]


LIFE = ["Max-Age=1800", "Expires=Tue, 14 Nov 2023 22:43:20 GMT"]


@pytest.mark.parametrize(
    ("conf", "expected"),
    [
        ({}, [*LIFE, "Path=/", "HttpOnly", "SameSite=Lax"]),
        ({"path": "", "http_only": False, "same_site": "unset"}, LIFE),
        ({"path": "/a b", "same_site": "unset"}, [*LIFE, "Path=/a b", "HttpOnly"]),
        (
            {"domain": "example.com", "same_site": "strict"},
            [*LIFE, "Path=/", "Domain=example.com", "HttpOnly", "SameSite=Strict"],
        ),
        ({"secure": True, "same_site": "none"}, [*LIFE, "Path=/", "HttpOnly", "Secure", "SameSite=None"]),
    ],
)
def test_a_cookie_has_the_attributes_that_are_set(conf, expected):
    assert attributes(**conf) == expected


@given(at=st.integers(0, 253_402_300_799))
def test_expires_is_the_date_of_http(at):
    expected = format_datetime(datetime.fromtimestamp(at, UTC), usegmt=True)
    assert attributes(expires=at)[1] == f"Expires={expected}"


def test_past_the_last_date_of_http_only_max_age_is_left():
    assert attributes(expires=253_402_300_800)[1] == "Path=/"
    assert attributes(expires=2**56 - 1)[0] == f"Max-Age={2**56 - 1 - WALL}"


def test_an_expiry_in_the_past_removes_the_cookie():
    assert attributes(expires=WALL - 1)[0] == "Max-Age=0"


def test_another_parser_reads_the_cookie_alike():
    cookie = SimpleCookie(
        _Cookies(name="__Host-s", secure=True).write(IDENTITY, "v1", WALL + 60, WALL).decode()
    )
    morsel = cookie["__Host-s"]
    assert _Cookies().read(morsel.value.encode(), WALL)[0] == "bound"
    assert (morsel["max-age"], morsel["path"], morsel["httponly"], morsel["secure"]) == (
        "60",
        "/",
        True,
        True,
    )


def test_a_cookie_that_does_not_fit_is_not_written_in_part():
    whole = _Cookies().write(IDENTITY, "v1", WALL + 60, WALL)
    for cap in range(len(whole)):
        assert _Cookies().write(IDENTITY, "v1", WALL + 60, WALL, cap=cap) == b""
    assert _Cookies().write(IDENTITY, "v1", WALL + 60, WALL, cap=len(whole)) == whole


def test_the_longest_cookie_keeps_to_the_bound_of_the_manual():
    conf = {"name": "n" * 255, "secure": True, "same_site": "strict", "path": "/", "domain": "d"}
    whole = _Cookies(**conf).write(IDENTITY, "v1", WALL + 2**32 - 1, WALL)
    assert len(whole) - len("/") - len("d") <= 512


# ---- by source address ----------------------------------------------------------------------------


@pytest.fixture
def board():
    board = Scoreboard.create(1, endpoints=2, groups=1, services=1, routes=1, listeners=1, sticky=64)
    yield board
    board.close()


def source(i, run=0):
    """Sources of one run of entries: the table is addressed by the low bits."""
    return i << 32 | run


def entries(sources, n=64):
    return [sources.entry(i) for i in range(n)]


def test_a_bound_source_is_found_until_it_expires(board):
    sources = _Sources(board.fd)
    sources.put(source(1), 5, 9, 1000)
    assert sources.get(source(1), 999) == (5, 9)
    assert sources.get(source(1), 1000) is None


def test_an_empty_table_binds_nobody_not_even_source_zero(board):
    sources = _Sources(board.fd)
    for key in (0, 1, 2**64 - 1):
        assert sources.get(key, 0) is None
    sources.put(0, 3, 1, 1000)
    assert sources.get(0, 1) == (3, 1)


def test_another_mapping_sees_the_binding(board):
    _Sources(board.fd).put(source(1), 5, 9, 1000)
    assert _Sources(board.fd).get(source(1), 1) == (5, 9)


def test_binding_anew_moves_the_source_and_takes_no_second_entry(board):
    sources = _Sources(board.fd)
    sources.put(source(1), 5, 9, 1000)
    sources.put(source(1), 6, 11, 900)
    assert sources.get(source(1), 899) == (6, 11)
    assert sources.get(source(1), 950) is None
    assert sum(expires > 0 for *_, expires in entries(sources)) == 1


def test_a_full_run_drops_the_binding_that_expires_first(board):
    sources = _Sources(board.fd)
    for i in range(1, 9):
        sources.put(source(i), i, 1, 1000 + (i * 5) % 8)
    sources.put(source(9), 9, 1, 2000)
    assert [i for i in range(1, 10) if sources.get(source(i), 1) is None] == [8]
    assert sources.get(source(9), 1) == (9, 1)


def test_an_expired_binding_makes_room_before_any_other(board):
    sources = _Sources(board.fd)
    for i in range(1, 9):
        sources.put(source(i), i, 1, 5000)
    sources.put(source(4), 4, 1, 10)
    sources.put(source(9), 9, 1, 3000)
    assert [i for i in range(1, 10) if sources.get(source(i), 20) is None] == [4]


def test_a_run_goes_round_the_end_of_the_table(board):
    sources = _Sources(board.fd)
    for i in range(1, 9):
        sources.put(source(i, 63), i, 1, 1000)
    assert all(sources.get(source(i, 63), 1) == (i, 1) for i in range(1, 9))


def test_the_table_is_bounded_whatever_comes(board):
    sources = _Sources(board.fd)
    before = os.fstat(board.fd).st_size
    sources.hammer(1, 10_000, 50_000)
    assert os.fstat(board.fd).st_size == before


def test_of_two_bindings_made_at_once_the_longer_one_counts_for_all(board):
    sources = _Sources(board.fd)
    sources.put(source(1), 5, 1, 1000)
    kept = sources.entry(0)
    sources.set_entry(0, 0, 0, 0, 0)
    sources.put(source(1), 6, 1, 1001)
    sources.set_entry(3, *kept)
    assert sources.get(source(1), 1) == (6, 1)
    sources.put(source(1), 7, 1, 2000)
    assert sources.get(source(1), 1) == (7, 1)
    assert sources.get(source(1), 1000) == (7, 1)
    assert sources.entry(3) == kept


def torn(old, new):
    """Every mixture of two writes' words (key, binding, expiry) but the two whole ones."""
    for pick in range(1, 7):
        a, b, c = (new if pick >> i & 1 else old for i in range(3))
        yield a[0], b[1], b[2], c[3]


def test_a_mixture_of_two_writes_is_nobodys(board):
    sources = _Sources(board.fd)
    sources.put(source(1), 5, 1, 1000)
    first = sources.entry(0)
    sources.set_entry(0, 0, 0, 0, 0)
    # The same bits differ in binding and expiry: a plain xor of the words would not notice.
    sources.put(source(2), 5 ^ 8, 1, 1000 ^ 8)
    second = sources.entry(0)
    for mixture in torn(first, second):
        sources.set_entry(0, *mixture)
        assert sources.get(source(1), 1) is None
        assert sources.get(source(2), 1) is None


def test_what_a_killed_writer_left_is_nobodys_and_is_used_again(board):
    sources = _Sources(board.fd)
    sources.put(source(1), 5, 1, 1000)
    check, slot, generation, _ = sources.entry(0)
    sources.set_entry(0, check ^ (2**64 - 1), slot, generation, 1000)
    assert sources.get(source(1), 1) is None

    for i in range(2, 10):
        sources.put(source(i), i, 1, 2000)

    assert all(sources.get(source(i), 1) == (i, 1) for i in range(2, 10))


CHILD = """
import json, sys
from turnout.ext.sticky import _Sources
fd, seed = json.loads(sys.argv[1])
sources = _Sources(fd)
print("ready", flush=True)
sys.stdin.readline()
print(json.dumps(sources.hammer(seed, 40, 3_000_000)))
"""


def test_processes_that_write_at_once_never_show_a_source_anothers_endpoint():
    board = Scoreboard.create(1, endpoints=1, groups=1, services=1, routes=1, listeners=1, sticky=8)
    children = [
        subprocess.Popen(
            [sys.executable, "-c", CHILD, json.dumps([board.fd, seed])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=[board.fd],
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        )
        for seed in range(1, 4)
    ]
    try:
        for child in children:
            assert child.stdout.readline() == b"ready\n"
        for child in children:
            child.stdin.write(b"go\n")
            child.stdin.flush()
        results = [json.loads(child.communicate(timeout=60)[0]) for child in children]
    finally:
        for child in children:
            child.kill()
            child.wait()
        board.close()
    assert all(found > 1000 for found, _ in results)
    assert [wrong for _, wrong in results] == [0, 0, 0]
