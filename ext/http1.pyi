"""Heads for tests. The product parses inside the engine."""

from typing import Literal, TypedDict

Kind = Literal["request", "response", "trailers"]

class Head(TypedDict):
    length: int
    method: bytes
    target: bytes  # response: the reason phrase
    path: bytes
    query: bytes | None
    authority: bytes
    minor: int
    status: int
    content_length: int  # -1: none
    flags: int
    fields: list[tuple[bytes, bytes, bool]]  # name, value, not forwarded as it stands

def _parse(
    kind: Kind, raw: bytes, seen: int = 0, *, line: int = 8192, head: int = 32768, fields: int = 100
) -> Head | int | str: ...
def _parse_at(
    kind: Kind,
    address: int,
    n: int,
    seen: int = 0,
    *,
    line: int = 8192,
    head: int = 32768,
    fields: int = 100,
) -> Head | int | str: ...
def _bench(kind: Literal["request", "response"], raw: bytes, times: int) -> float:
    """Nanoseconds per parse. ValueError when `raw` is not exactly one head."""
