"""PROXY protocol headers: read whole and in pieces, at the edge of memory, and written."""

from __future__ import annotations

import ipaddress
import random
import struct

import pytest
from harness.corpus import corpus
from harness.edge import EDGE
from harness.mutation import ANYWHERE, damaged
from hypothesis import given
from hypothesis import strategies as st

from turnout.ext.proxyproto import _likely_at, _parse_at, _write

V2 = b"\r\n\r\n\0\r\nQUIT\n"
MORE = -2
BEHIND = (b"", b"\r", b"\n", b"\r\n", b"\0", b"PROXY TCP4 ", b"GET / HTTP/1.1\r\n", bytes(5000))


def packed(text):
    address = ipaddress.ip_address(text)
    return address.packed if address.version == 6 else b"\0" * 10 + b"\xff\xff" + address.packed


def who(source, source_port, target, target_port):
    return packed(source), source_port, packed(target), target_port


def fed(raw):
    """The verdict on raw, the same with anything behind; every prefix of a whole header asks for more."""
    whole = _parse_at(EDGE.last(raw), len(raw))
    assert _parse_at(EDGE.first(raw), len(raw)) == whole
    if isinstance(whole, str):
        refused = False
        for n in range(len(raw)):
            part = _parse_at(EDGE.last(raw[:n]), n)
            assert part == "bad" if refused else part in ("more", whole), n
            refused = part == "bad"
        return whole
    used, said = whole
    for behind in BEHIND:
        assert _parse_at(EDGE.last(raw[:used] + behind), used + len(behind)) == whole, behind
    for n in range(used):
        assert _parse_at(EDGE.last(raw[:n]), n) == "more", n
    assert used == len(raw)
    return said


def binary(command=0x21, family=0x11, body=b"", length=None):
    return V2 + bytes([command, family]) + struct.pack("!H", len(body) if length is None else length) + body


IPV4 = ipaddress.ip_address("1.2.3.4").packed + ipaddress.ip_address("10.0.0.1").packed + b"\xdc\x04\x01\xbb"
IPV6 = packed("2001:db8::1") + packed("2001:db8::2") + b"\xdc\x04\x01\xbb"
HTTP4 = who("1.2.3.4", 56324, "10.0.0.1", 443)
HTTP6 = who("2001:db8::1", 56324, "2001:db8::2", 443)


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b"PROXY TCP4 1.2.3.4 10.0.0.1 56324 443\r\n", HTTP4),
        (b"PROXY TCP6 2001:db8::1 2001:db8::2 56324 443\r\n", HTTP6),
        (b"PROXY TCP6 2001:DB8::1 2001:0db8:0:0:0:0:0:2 56324 443\r\n", HTTP6),
        (b"PROXY TCP4 0.0.0.0 255.255.255.255 0 65535\r\n", who("0.0.0.0", 0, "255.255.255.255", 65535)),
        (
            b"PROXY TCP6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"
            b" 65535 65535\r\n",
            who("ffff:" * 7 + "ffff", 65535, "ffff:" * 7 + "ffff", 65535),
        ),
        (b"PROXY UNKNOWN\r\n", None),
        (b"PROXY UNKNOWN ffff:f...f:ffff 65535 any thing\r\n", None),
        (b"PROXY UNKNOWN " + b"x" * 91 + b"\r\n", None),
        (binary(body=IPV4), HTTP4),
        (binary(family=0x21, body=IPV6), HTTP6),
        (binary(body=IPV4 + b"\x04\0\0"), HTTP4),
        (binary(body=IPV4 + b"\x04\0\x03abc\x20\0\x01\0"), HTTP4),
        (binary(family=0x21, body=IPV6 + b"\x01\0\x02h2"), HTTP6),
        (binary(family=0x31, body=bytes(216)), None),
        (binary(family=0, body=b""), None),
        (binary(family=0, body=b"whatever"), None),
        (binary(command=0x20, family=0), None),
        (binary(command=0x20, family=0x11, body=IPV4), None),
        (binary(command=0x20, family=0x99, body=b"xy"), None),
        (binary(body=IPV4 + b"\x04" + struct.pack("!H", 4096 - 16 - 12 - 3) + bytes(4065)), HTTP4),
    ],
)
def test_a_header_says_who_the_client_is(raw, said):
    assert fed(raw) == said


@pytest.mark.parametrize(
    "raw",
    [
        b"GET / HTTP/1.1\r\n",
        b"proxy TCP4 1.2.3.4 10.0.0.1 1 2\r\n",
        b"PROXY  TCP4 1.2.3.4 10.0.0.1 1 2\r\n",
        b"PROXY TCP4  1.2.3.4 10.0.0.1 1 2\r\n",
        b"PROXY TCP4 1.2.3.4 10.0.0.1 1 2 \r\n",
        b"PROXY TCP4 1.2.3.4 10.0.0.1 1  2\r\n",
        b"PROXY TCP4 1.2.3.4 10.0.0.1 1\r\n",
        b"PROXY TCP4 1.2.3.4 10.0.0.1 1 2 3\r\n",
        b"PROXY TCP4 1.2.3.4 10.0.0.1 1 2\n",
        b"PROXY TCP4 1.2.3.4 10.0.0\n.1 1 2\r",
        b"PROXY TCP4 1.2.3.4 10.0.0.1 1 2\r\r\n",
        b"PROXY TCP4 1.2.3.4 10.0.0.1 01 2\r\n",
        b"PROXY TCP4 1.2.3.4 10.0.0.1 65536 2\r\n",
        b"PROXY TCP4 1.2.3.4 10.0.0.1 99999 2\r\n",
        b"PROXY TCP4 1.2.3.4 10.0.0.1 100000 2\r\n",
        b"PROXY TCP4 1.2.3.4 10.0.0.1 -1 2\r\n",
        b"PROXY TCP4 1.2.3.4 10.0.0.1 1 x\r\n",
        b"PROXY TCP4 1.2.3 10.0.0.1 1 2\r\n",
        b"PROXY TCP4 1.2.3.256 10.0.0.1 1 2\r\n",
        b"PROXY TCP4 1.2.3.4:80 10.0.0.1 1 2\r\n",
        b"PROXY TCP4 ::1 ::1 1 2\r\n",
        b"PROXY TCP6 1.2.3.4 10.0.0.1 1 2\r\n",
        b"PROXY TCP6 [::1] ::1 1 2\r\n",
        b"PROXY TCP6 fe80::1%lo ::1 1 2\r\n",
        b"PROXY TCP4\r\n",
        b"PROXY TCP4 \r\n",
        b"PROXY TCP5 1.2.3.4 10.0.0.1 1 2\r\n",
        b"PROXY UDP4 1.2.3.4 10.0.0.1 1 2\r\n",
        b"PROXY UNKNOWNX\r\n",
        b"PROXY \r\n",
        b"PROXY UNKNOWN " + b"x" * 92 + b"\r\n",
        b"PROXY TCP4 " + b"1" * 200,
        V2[:-1] + b"\r" + b"\x21\x11\0\x0c" + IPV4,
        binary(command=0x11, body=IPV4),
        binary(command=0x22, body=IPV4),
        binary(command=0x31, body=IPV4),
        binary(family=0x12, body=IPV4),
        binary(family=0x41, body=IPV4),
        binary(family=0x11, body=IPV4[:-1]),
        binary(family=0x21, body=IPV4),
        binary(family=0x31, body=bytes(215)),
        binary(body=IPV4 + b"\x04"),
        binary(body=IPV4 + b"\x04\0"),
        binary(body=IPV4 + b"\x04\0\x01"),
        binary(body=IPV4 + b"\x04\0\0\x04\xff\xff"),
        binary(body=IPV4, length=65535),
        binary(command=0x20, family=0, body=b"", length=4081),
    ],
)
def test_what_does_not_hold_together_is_no_header(raw):
    assert fed(raw) == "bad"


@pytest.mark.parametrize("raw", [b"PROXY TCP4 1.2.3.4 10.0.0.1 1 2\r\n", V2 + b"\x21", b"PROXY rubbish"])
def test_what_starts_like_a_header_can_be_told_early(raw):
    enough = 12 if raw.startswith(V2) else 6
    for n in range(len(raw)):
        assert _likely_at(EDGE.last(raw[:n]), n) == (MORE if n < enough else 1), n


@pytest.mark.parametrize(
    "raw", [b"GET /", b"P\0", b"PROXX", b"PROXYING", b"\r\n\r\n\0\r\nQUIP\n", b"\x16\x03\x01"]
)
def test_what_does_not_start_like_a_header_is_none(raw):
    assert _likely_at(EDGE.last(raw), len(raw)) == 0


ADDRESSES = st.one_of(
    st.ip_addresses(v=4).map(lambda a: packed(str(a))), st.ip_addresses(v=6).map(lambda a: a.packed)
)
PORTS = st.integers(0, 65535)


@given(st.tuples(ADDRESSES, PORTS, ADDRESSES, PORTS), st.sampled_from([1, 2]))
def test_what_is_written_is_read(said, version):
    raw = _write(version, said)
    assert len(raw) <= 107
    assert fed(raw) == said


def test_an_unknown_client_is_written_as_such():
    assert _write(1, None) == b"PROXY UNKNOWN\r\n"
    assert _write(2, None) == binary(family=0)


def test_the_forms_that_are_written():
    assert _write(1, HTTP4) == b"PROXY TCP4 1.2.3.4 10.0.0.1 56324 443\r\n"
    mixed = who("1.2.3.4", 1, "2001:db8::2", 2)
    assert _write(1, mixed) == b"PROXY TCP6 ::ffff:1.2.3.4 2001:db8::2 1 2\r\n"
    assert _write(2, HTTP4) == binary(body=IPV4)
    assert _write(2, HTTP6) == binary(family=0x21, body=IPV6)


@given(st.binary(max_size=300))
def test_any_bytes_get_a_verdict(raw):
    _parse_at(EDGE.last(raw), len(raw))
    _likely_at(EDGE.last(raw), len(raw))


@given(st.integers(0, 1 << 32))
def test_damaged_headers_get_the_same_verdict_however_they_come(seed):
    raw = damaged(random.Random(seed), corpus("proxy"), ANYWHERE)[:6000]
    whole = _parse_at(EDGE.last(raw), len(raw))
    for n in {*range(min(len(raw), 130)), len(raw) // 2, max(len(raw) - 1, 0)}:
        part = _parse_at(EDGE.last(raw[:n]), n)
        if isinstance(whole, tuple) and n < whole[0]:
            assert part == "more"
        elif isinstance(whole, tuple):
            assert part == whole
        else:
            assert part in ("more", whole)
