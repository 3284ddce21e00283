"""One direction of an exchange without its sockets: bodies decoded, framed anew, every buffer given back."""

from __future__ import annotations

from itertools import pairwise

import pytest
from harness.bodies import CHUNKED, CLOSE, LENGTH, chunked
from hypothesis import given
from hypothesis import strategies as st

from turnout.ext.stream import _relay

OK, MALFORMED = 0, -1
CUTS = st.lists(st.integers(0, 300), max_size=10)
DATA = st.lists(st.binary(min_size=1, max_size=60), max_size=6)
TRAILERS = st.sampled_from([b"", b"A: b\r\n", b"A: b\r\nHost: x\r\nC:d\r\n", b"X-Forwarded-For: 1\r\n"])
KEPT = {b"": b"", b"A: b\r\n": b"A: b\r\n", b"A: b\r\nHost: x\r\nC:d\r\n": b"A: b\r\nC: d\r\n"}


def relay(kind: int, out: int, raw: bytes, cuts=(), left: int = 0):
    """(verdict, wire, behind, ended) for the bytes in pieces; no buffer may be lost."""
    bounds = [0, *sorted({cut for cut in cuts if 0 < cut < len(raw)}), len(raw)]
    *found, lost = _relay(kind, left, out, [raw[a:b] for a, b in pairwise(bounds)])
    assert lost == 0
    return tuple(found)


def encoded(pieces: list[bytes], trailers: bytes = b"") -> bytes:
    return b"".join(b"%x;e\r\n%b\r\n" % (len(p), p) for p in pieces) + b"0\r\n" + trailers + b"\r\n"


@given(st.binary(max_size=200), st.integers(0, 200), CUTS)
def test_a_body_with_a_length_goes_on_as_it_is(raw, n, cuts):
    verdict, wire, behind, ended = relay(LENGTH, LENGTH, raw, cuts, left=n)

    assert (verdict, wire, behind, ended) == (OK, raw[:n], raw[n:], len(raw) >= n)


@given(DATA, TRAILERS, st.binary(max_size=20), CUTS)
def test_chunks_are_framed_anew_and_trailers_kept(pieces, trailers, behind, cuts):
    raw = encoded(pieces, trailers)
    verdict, wire, rest, ended = relay(CHUNKED, CHUNKED, raw + behind, cuts)
    again = chunked(wire)

    assert (verdict, rest, ended) == (OK, behind, True)
    assert (again.data, again.ended) == (b"".join(pieces), True)
    assert again.rest == KEPT.get(trailers, b"") + b"\r\n"


@given(DATA, TRAILERS, st.binary(max_size=20), CUTS)
def test_for_a_peer_that_knows_no_chunks_only_the_data_goes_on(pieces, trailers, behind, cuts):
    found = relay(CHUNKED, CLOSE, encoded(pieces, trailers) + behind, cuts)

    assert found == (OK, b"".join(pieces), behind, True)


@given(st.binary(max_size=200), CUTS)
def test_a_body_up_to_the_end_of_the_connection_is_chunked(raw, cuts):
    verdict, wire, behind, ended = relay(CLOSE, CHUNKED, raw, cuts)
    again = chunked(wire)

    assert (verdict, behind, ended) == (OK, b"", True)
    assert (again.data, again.rest, again.ended) == (raw, b"\r\n", True)


@pytest.mark.parametrize("n", [1, 34816 - 13, 34816, 34817, 300_000, 500_000])
def test_large_chunks_are_framed_anew(n):
    raw = encoded([b"x" * n])
    verdict, wire, _, ended = relay(CHUNKED, CHUNKED, raw, range(0, n, 100_000))

    assert (verdict, ended, chunked(wire).data) == (OK, True, b"x" * n)


@pytest.mark.parametrize(
    "raw",
    [
        b"x\r\n",
        b"1\r\nab\r\n",
        b"0\r\n A: b\r\n\r\n",
        b"0\r\nA : b\r\n\r\n",
        b"0\r\nA: b\nC: d\r\n\r\n",
        b"0\r\nA: " + b"x" * 8192 + b"\r\n\r\n",
        b"0\r\n" + b"A: b\r\n" * 101 + b"\r\n",
    ],
)
@pytest.mark.parametrize("step", [1, 7, 100_000])
@pytest.mark.parametrize("out", [CHUNKED, CLOSE])
def test_what_is_malformed_ends_the_stream_and_loses_no_buffer(raw, step, out):
    verdict, _, _, ended = relay(CHUNKED, out, raw, range(0, len(raw), step))

    assert (verdict, ended) == (MALFORMED, False)


@given(st.text("0123abc\r\n;: A\0", max_size=60), CUTS)
def test_any_bytes_get_one_verdict_whatever_the_pieces(text, cuts):
    raw = text.encode()
    whole, pieces = relay(CHUNKED, CLOSE, raw), relay(CHUNKED, CLOSE, raw, cuts)

    assert (whole[0], whole[3]) == (pieces[0], pieces[3])
    if whole[0] == OK:
        assert whole == pieces
