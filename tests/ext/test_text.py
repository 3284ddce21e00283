"""The bounded writer, and addresses as text."""

from __future__ import annotations

import ctypes
import ipaddress

import pytest
from harness.edge import EDGE
from hypothesis import given
from hypothesis import strategies as st

from turnout.ext.text import _address_parse, _address_text, _write

MAPPED = bytes(10) + b"\xff\xff"
PIECES = st.lists(
    st.one_of(
        st.binary(max_size=20),
        st.tuples(st.binary(max_size=8), st.binary(max_size=8)),
        st.integers(0, (1 << 64) - 1),
    ),
    max_size=8,
)


def as_bytes(piece) -> bytes:
    if isinstance(piece, bytes):
        return piece
    return piece[0] + b": " + piece[1] + b"\r\n" if isinstance(piece, tuple) else str(piece).encode()


@given(PIECES, st.integers(0, 100))
def test_pieces_are_written_whole_or_the_writer_is_full(pieces, cap):
    wanted = b"".join(as_bytes(piece) for piece in pieces)
    room = EDGE.last(b"\xee" * cap)

    length, full = _write(room, cap, pieces)

    assert full == (len(wanted) > cap)
    assert length <= cap
    if not full:
        assert ctypes.string_at(room, length) == wanted
    assert ctypes.string_at(room + length, cap - length) == b"\xee" * (cap - length)


@pytest.mark.parametrize("number", [0, 9, 10, 99, 100, 2**32 - 1, 2**32, 2**63, 2**64 - 1])
def test_a_number_fits_to_the_byte(number):
    n = len(str(number))

    assert _write(EDGE.last(bytes(n)), n, [number]) == (n, False)
    assert _write(EDGE.last(bytes(n - 1)), n - 1, [number]) == (0, True)


def parse(text: bytes) -> bytes | None:
    return _address_parse(EDGE.last(text), len(text))


def packed(text: str) -> bytes:
    address = ipaddress.ip_address(text)
    return MAPPED + address.packed if address.version == 4 else address.packed


@given(st.ip_addresses())
def test_an_address_is_written_and_read_back(address):
    text = _address_text(packed(str(address)))

    assert parse(text) == packed(str(address))
    assert ipaddress.ip_address(text.decode()) in (address, getattr(address, "ipv4_mapped", None))


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("0.0.0.0", "0.0.0.0"),
        ("255.255.255.255", "255.255.255.255"),
        ("1.20.100.9", "1.20.100.9"),
        ("::", "::"),
        ("::ffff:1.2.3.4", "1.2.3.4"),
        ("2001:db8:0:0:1:0:0:1", "2001:db8::1:0:0:1"),
        ("FE80::A", "fe80::a"),
        ("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
    ],
)
def test_an_address_has_one_form(text, form):
    assert _address_text(parse(text.encode())) == form.encode()


@pytest.mark.parametrize(
    ("text", "address"),
    [
        (b"1.2.3.4:80", "1.2.3.4"),
        (b"1.2.3.4:65535", "1.2.3.4"),
        (b"1.2.3.4:", "1.2.3.4"),
        (b"[::1]", "::1"),
        (b"[2001:db8::1]:443", "2001:db8::1"),
        (b"[::ffff:1.2.3.4]:1", "::ffff:1.2.3.4"),
    ],
)
def test_a_port_behind_an_address_is_left_out(text, address):
    assert parse(text) == packed(address)


@pytest.mark.parametrize(
    "text",
    [
        b"", b"[", b"]", b"[]", b":", b".", b"a", b"1.2.3", b"1.2.3.4.5", b"1.2.3.256", b"1.2.3.4 ",
        b" 1.2.3.4", b"01.2.3.4", b"1.2.3.4:x", b"1.2.3.4:123456", b"1.2.3.4:80:80", b"1.2.3.4\0", b"[::1",
        b"[::1]x", b"[::1]:x", b"[::1]80", b"[1.2.3.4]", b"::1]", b"::1%lo", b":::", b"1::2::3", b"12345::",
        b"_hidden", b"unknown", b"-", b"1" * 47, b"1" * 200,
    ],
)  # fmt: skip
def test_what_is_no_address_is_refused(text):
    assert parse(text) is None


@given(st.text("0123456789abcf.:[]%x \0", max_size=50))
def test_any_text_is_an_address_or_refused(text):
    found = parse(text.encode())

    if found is not None:
        bare = (
            text[1:].partition("]")[0]
            if text.startswith("[")
            else text.partition(":")[0]
            if "." in text.partition(":")[0]
            else text
        )
        assert found == packed(bare)
