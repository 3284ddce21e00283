"""Damage to messages, from a seed: what a careless or hostile peer might send instead of a plain one."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Sequence

LINES = [
    b"Content-Length: 5", b"Content-Length: 0", b"Content-Length:5,5", b"Content-Length: +5",
    b"Content-Length: 05", b"Content-Length : 5", b"Content-Length: 5 ", b"Content-Length: 5\t",
    b"content-length: 18446744073709551621", b"Content-Length: 0x5", b"Transfer-Encoding: chunked\t",
    b"Transfer-Encoding: chunked", b"Transfer-Encoding: Chunked", b"Transfer-Encoding: gzip, chunked",
    b"Transfer-Encoding: identity", b"Transfer-Encoding : chunked", b"Transfer-Encoding: chunked, chunked",
    b"Transfer-Encoding: xchunked", b"Transfer-Encoding:\tchunked", b"Transfer-Encoding: chunked\x0b",
    b"Transfer_Encoding: chunked", b"X: y\r\n Transfer-Encoding: chunked", b"Host: b", b"Host:",
    b"Host: a, b", b"host: a:80", b"Host: a@b", b"Connection: close", b"Connection: keep-alive",
    b"Connection: Upgrade",
    b"Connection: close, Keep-Alive", b"Connection: content-length", b"Connection: host", b"Connection:",
    b"Connection: closed", b"Connection: close;x", b"Proxy-Connection: close", b"Keep-Alive: timeout=5",
    b"Upgrade: websocket", b"Expect: 100-continue", b"TE: trailers", b"Trailer: X", b"Cookie: a=b; c=d",
    b"X:", b":", b": x", b"X", b" X: y", b"\tX: y", b"X\t: y", b"X: \x80\xff", b"X: \x00", b"",
    b"X: y\n", b"X: y\rZ: y",
]  # fmt: skip
BYTES = [
    b"\r",
    b"\n",
    b"\r\n",
    b"\0",
    b" ",
    b"\t",
    b":",
    b",",
    b";",
    b"\x0b",
    b"\x0c",
    b"\x7f",
    b"\x80",
    b"\xff",
    b"#",
    b"\r\n ",
]
VERSIONS = [
    b"HTTP/1.0", b"HTTP/1.1", b"HTTP/1.2", b"HTTP/2.0", b"HTTP/0.9", b"http/1.1", b"HTTP/1.", b"HTTP/1.01",
    b"HTTP/01.1", b"HTTP/1.1 ", b" HTTP/1.1", b"HTTP /1.1", b"HTTP/1,1", b"",
]  # fmt: skip
NUMBERS = [
    b"0",
    b"00",
    b"1",
    b"5",
    b"-1",
    b"+1",
    b"0x1",
    b" 1",
    b"1 ",
    b"fffffffffffffff",
    b"10000000000000000",
    b"g",
]


def flip(rng: random.Random, raw: bytes) -> bytes:
    at = rng.randrange(len(raw))
    return raw[:at] + bytes([raw[at] ^ (1 << rng.randrange(8))]) + raw[at + 1 :]


def change(rng: random.Random, raw: bytes) -> bytes:
    at = rng.randrange(len(raw))
    return raw[:at] + rng.choice(BYTES) + raw[at + 1 :]


def insert(rng: random.Random, raw: bytes) -> bytes:
    at = rng.randrange(len(raw) + 1)
    return raw[:at] + rng.choice(BYTES) + raw[at:]


def delete(rng: random.Random, raw: bytes) -> bytes:
    at = rng.randrange(len(raw))
    return raw[:at] + raw[at + rng.choice((1, 1, 1, 2, 8)) :]


def repeat(rng: random.Random, raw: bytes) -> bytes:
    at = rng.randrange(len(raw))
    n = rng.choice((1, 2, 8, 32))
    return raw[: at + n] * rng.choice((1, 2)) + raw[at:]


def case(rng: random.Random, raw: bytes) -> bytes:
    at = rng.randrange(len(raw))
    stop = at + rng.randrange(1, 24)
    return raw[:at] + raw[at:stop].swapcase() + raw[stop:]


def line_in(rng: random.Random, raw: bytes) -> bytes:
    lines = raw.split(b"\r\n")
    lines.insert(rng.randrange(1, len(lines) + 1), rng.choice(LINES))
    return b"\r\n".join(lines)


def line_changed(rng: random.Random, raw: bytes) -> bytes:
    lines = raw.split(b"\r\n")
    lines[rng.randrange(len(lines))] = rng.choice(LINES)
    return b"\r\n".join(lines)


def line_twice(rng: random.Random, raw: bytes) -> bytes:
    lines = raw.split(b"\r\n")
    lines.insert(rng.randrange(len(lines)), rng.choice(lines))
    return b"\r\n".join(lines)


def end_of_line(rng: random.Random, raw: bytes) -> bytes:
    lines = raw.split(b"\r\n")
    at = rng.randrange(len(lines))
    lines[at : at + 2] = [
        rng.choice((b"\n", b"\r", b"\r\r\n", b"\n\r", b"\r\n ", b" \r\n")).join(lines[at : at + 2])
    ]
    return b"\r\n".join(lines)


def version(rng: random.Random, raw: bytes) -> bytes:
    first, end, rest = raw.partition(b"\r\n")
    old = b"HTTP/1.0" if b"HTTP/1.0" in first else b"HTTP/1.1"
    return first.replace(old, rng.choice(VERSIONS)) + end + rest


def number(rng: random.Random, raw: bytes) -> bytes:
    digits = [i for i, c in enumerate(raw) if c in b"0123456789"]
    if not digits:
        return raw
    at = rng.choice(digits)
    return raw[:at] + rng.choice(NUMBERS) + raw[at + 1 :]


ANYWHERE = [flip, change, insert, delete, repeat, number]
IN_A_HEAD = [*ANYWHERE, case, line_in, line_in, line_changed, line_twice, end_of_line, version]


def damaged(
    rng: random.Random,
    samples: Sequence[bytes],
    ways: Sequence[Callable[[random.Random, bytes], bytes]] = IN_A_HEAD,
) -> bytes:
    """One sample, with none to five kinds of damage."""
    raw = rng.choice(samples)
    for _ in range(rng.choice((0, 1, 1, 1, 2, 2, 3, 5))):
        if raw:
            raw = rng.choice(ways)(rng, raw)
    return raw
