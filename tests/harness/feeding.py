"""One way to give bytes to a head parser: whole, piece by piece, with bytes behind, and every prefix.

Whatever the way, the verdict must be the same; that is checked here, for every test that feeds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from harness.edge import EDGE

from turnout.ext.http1 import _parse_at

if TYPE_CHECKING:
    from turnout.ext.http1 import Head, Kind

MALFORMED, NEED_MORE, LINE_TOO_LONG, TOO_LARGE, BAD_VERSION = -1, -2, -3, -4, -5
Verdict: TypeAlias = "Head | int | str"

WHAT_MAY_FOLLOW = (b"\r", b"\r\n\r\n", b"\0", b"X", b" folded\r\n\r\n", b"GET / HTTP/1.1\r\nHost: b\r\n\r\n")


def at_the_edge(kind: Kind, raw: bytes, seen: int = 0, **limits: int) -> Verdict:
    return _parse_at(kind, EDGE.last(raw), len(raw), seen, **limits)


def fed(kind: Kind, raw: bytes, **limits: int) -> Verdict:
    """The verdict on `raw`: a parsed head, the phrase of a malformed one, or a negative number."""
    whole = at_the_edge(kind, raw, **limits)
    assert _parse_at(kind, EDGE.first(raw), len(raw), 0, **limits) == whole
    grow(kind, raw, whole, **limits)
    if isinstance(whole, dict):
        for behind in WHAT_MAY_FOLLOW:
            assert at_the_edge(kind, raw[: whole["length"]] + behind, **limits) == whole, behind
    return whole


def grow(kind: Kind, raw: bytes, whole: Verdict, **limits: int) -> None:
    """Every prefix needs more or gets the whole's refusal, and once refused stays refused; so with `seen`."""
    end = whole["length"] if isinstance(whole, dict) else len(raw)
    refused = False
    for n in range(end):
        verdict = at_the_edge(kind, raw[:n], **limits)
        assert verdict == whole if refused else verdict in (NEED_MORE, whole), (n, verdict, whole)
        refused = verdict == whole != NEED_MORE
        if n and kind != "trailers":
            verdict = at_the_edge(kind, raw[:n], n - 1, **limits)
            assert verdict in (NEED_MORE, whole), (n, verdict, whole)
    if kind != "trailers" and isinstance(whole, dict):
        for seen in range(1, end):
            assert at_the_edge(kind, raw[:end], seen, **limits) == whole, seen


def head(kind: Kind, raw: bytes, **limits: int) -> Head:
    """Like `fed`, for what must be accepted."""
    verdict = fed(kind, raw, **limits)
    assert isinstance(verdict, dict), verdict
    return verdict
