"""One way to give a body's bytes to the decoder: in any pieces, each at the edge of an unreadable page."""

from __future__ import annotations

import ctypes
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

from harness.edge import EDGE

from turnout.ext.framing import _Body

if TYPE_CHECKING:
    from collections.abc import Iterable

NONE, LENGTH, CHUNKED, CLOSE = range(4)
MALFORMED, MORE, END = -1, 0, 1


class Fed(NamedTuple):
    data: bytes
    rest: bytes  # what stands behind the body
    ended: bool


def body(kind: int, raw: bytes, cuts: Iterable[int] = (), left: int = 0) -> Fed | None:
    """None: malformed."""
    decoder = _Body(kind, left)
    data = b""
    inside = sorted({min(cut, len(raw)) for cut in cuts} - {0, len(raw)})
    for start, stop in pairwise([0, *inside, len(raw)]):
        address = EDGE.last(raw[start:stop])
        verdict, plain, used = decoder.feed(address, stop - start)
        assert plain <= used <= stop - start
        if verdict == MALFORMED:
            return None
        data += ctypes.string_at(address, plain)
        if verdict == END:
            return Fed(data, raw[start + used :], ended=True)
        assert used == stop - start
    return Fed(data, b"", ended=False)


def chunked(raw: bytes, cuts: Iterable[int] = ()) -> Fed | None:
    """A chunked body up to its trailer section."""
    return body(CHUNKED, raw, cuts)


def chunked_any_way(raw: bytes) -> Fed | None:
    """As `chunked`, and checked: byte by byte and in two pieces it is the same; no prefix ends."""
    whole = chunked(raw)
    assert chunked(raw, range(len(raw))) == whole
    assert all(chunked(raw, [cut]) == whole for cut in range(len(raw)))
    end = len(raw) - len(whole.rest) if whole is not None and whole.ended else len(raw)
    for n in range(1, end):
        part = chunked(raw[:n])
        assert part is None if whole is None and part is None else part is not None and not part.ended
    return whole
