"""Bodies: where one ends, and the chunked coding whatever pieces it comes in."""

from __future__ import annotations

import pytest
from harness.bodies import CHUNKED, CLOSE, LENGTH, MALFORMED, NONE, Fed, body, chunked, chunked_any_way
from harness.edge import EDGE
from hypothesis import given
from hypothesis import strategies as st

from turnout.ext.framing import _Body, _frame

TRAILERS_NEXT = 7


@pytest.mark.parametrize("cuts", [[], [1], [5], [6], range(9)])
def test_a_length_ends_after_that_many_bytes(cuts):
    assert body(LENGTH, b"helloNEXT", cuts, left=5) == Fed(b"hello", b"NEXT", ended=True)
    assert body(LENGTH, b"hell", cuts, left=5) == Fed(b"hell", b"", ended=False)


def test_no_body_takes_nothing():
    assert body(NONE, b"NEXT") == Fed(b"", b"NEXT", ended=True)


def test_up_to_the_end_of_the_connection_takes_all():
    assert body(CLOSE, b"anything", [3]) == Fed(b"anything", b"", ended=False)


@pytest.mark.parametrize(
    ("raw", "data"),
    [
        (b"0\r\n", b""),
        (b"5\r\nhello\r\n0\r\n", b"hello"),
        (b"5\r\nhello\r\n6\r\n world\r\n0\r\n", b"hello world"),
        (b"a\r\n0123456789\r\n00\r\n", b"0123456789"),
        (b"A;x\r\n0123456789\r\n0;last=1\r\n", b"0123456789"),
        (b"0000000000000001\r\nx\r\n0000000000000000\r\n", b"x"),
        (b'1;a="b;c\td" ; e\r\nx\r\n0\r\n', b"x"),
        (b"2\r\n\r\n\r\n0\r\n", b"\r\n"),
        (b"5\r\n0\r\n\r\n\r\n0\r\n", b"0\r\n\r\n"),
    ],
)
def test_chunks_become_data(raw, data):
    assert chunked_any_way(raw) == Fed(data, b"", ended=True)
    assert chunked_any_way(raw + b"\r\nGET") == Fed(data, b"\r\nGET", ended=True)


@pytest.mark.parametrize(
    "raw",
    [
        b"\r\n",
        b"x\r\n",
        b"-1\r\n",
        b"+1\r\n",
        b" 1\r\nx\r\n",
        b"1 \r\nx\r\n",
        b"0x1\r\nx\r\n",
        b"1_0\r\n",
        b"1\nx\r\n0\r\n",
        b"1\rx\r\n0\r\n",
        b"1\r\r\n",
        b"1\r\nxy\r\n",
        b"1\r\nx\n0\r\n",
        b"1\r\nx\r0\r\n",
        b"1\r\nx0\r\n",
        b"1\r\nx\r\n\r\n",
        b";a\r\n",
        b"1;a\nb\r\nx\r\n",
        b"1;a\rb\r\nx\r\n",
        b"1;\0\r\nx\r\n",
        b"1;\x7f\r\nx\r\n",
        b"1000000000000000\r\n",
        b"ffffffffffffffff\r\n",
        b"fffffffffffffffff\r\n",
        b"00000000000000001\r\nx\r\n",
        b"\xb2\r\n",
        b"0\n\n",
    ],
)
def test_chunks_that_could_be_read_otherwise_are_refused(raw):
    assert chunked_any_way(raw) is None


def test_the_largest_size_is_below_two_to_the_sixty():
    assert chunked_any_way(b"fffffffffffffff\r\nx") == Fed(b"x", b"", ended=False)


def test_nothing_may_follow_the_last_chunk_but_a_trailer_section():
    decoder = _Body(CHUNKED)
    decoder.feed(EDGE.last(b"0\r\n"), 3)

    assert decoder.phase == TRAILERS_NEXT
    assert decoder.feed(EDGE.last(b"0\r\n"), 3)[0] == MALFORMED


def test_an_extension_has_a_limit():
    assert chunked_any_way(b"1;" + b"x" * 255 + b"\r\nx\r\n0\r\n") is not None
    assert chunked_any_way(b"1;" + b"x" * 256 + b"\r\nx\r\n0\r\n") is not None
    assert chunked_any_way(b"1;" + b"x" * 257 + b"\r\nx\r\n0\r\n") is None


def test_single_bytes_in_chunks_of_their_own_are_taken_without_end():
    raw = b"1\r\nx\r\n" * 30_000 + b"0\r\n"

    assert chunked(raw) == Fed(b"x" * 30_000, b"", ended=True)


@pytest.mark.parametrize("cuts", [[], range(0, 100_000, 1000), range(0, 100_000, 7)])
def test_a_flood_of_extensions_is_refused_at_the_same_byte_whatever_the_pieces(cuts):
    chunk = b"1;" + b"x" * 200 + b"\r\nx\r\n"
    most = next(n for n in range(400) if chunked(chunk * n) is None)

    assert 50 < most < 100
    assert chunked(chunk * (most - 1), cuts) is not None
    assert chunked(chunk * most + b"100000\r\n" + b"x" * 0x1000, cuts) is None


CHUNKS = st.lists(
    st.tuples(st.binary(min_size=1, max_size=40), st.integers(0, 8), st.text('abc=;"\t ', max_size=6)),
    max_size=6,
)
CUTS = st.lists(st.integers(0, 400), max_size=12)


def encoded(chunks) -> bytes:
    out = b""
    for data, zeros, extension in chunks:
        size = "0" * zeros + f"{len(data):x}" + (f";{extension}" if extension else "")
        out += size.encode() + b"\r\n" + data + b"\r\n"
    return out + b"0\r\n"


@given(CHUNKS, CUTS, st.binary(max_size=10))
def test_any_chunks_in_any_pieces_give_the_data_back(chunks, cuts, behind):
    data = b"".join(chunk[0] for chunk in chunks)

    assert chunked(encoded(chunks) + behind, cuts) == Fed(data, behind, ended=True)


@given(st.lists(st.binary(min_size=1, max_size=300), max_size=6), CUTS)
def test_what_is_framed_here_is_decoded_here(pieces, cuts):
    raw = b"".join(_frame(piece) for piece in pieces) + b"0\r\n"

    assert chunked(raw, cuts) == Fed(b"".join(pieces), b"", ended=True)


@pytest.mark.parametrize("n", [1, 9, 10, 15, 16, 255, 256, 4095, 4096, 65535, 65536, 524288])
def test_a_chunk_is_framed_with_its_size_in_hexadecimal(n):
    assert _frame(b"x" * n) == f"{n:x}\r\n".encode() + b"x" * n + b"\r\n"


@given(st.text("0123456789abcdefABCDEF\r\n; x\t\0", max_size=40), CUTS)
def test_any_bytes_get_one_verdict_whatever_the_pieces(text, cuts):
    raw = text.encode()

    assert chunked(raw, cuts) == chunked_any_way(raw)
