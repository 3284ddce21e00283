"""HTTP/1.x on a blocking socket, byte by byte: what the fake client and the fake origin share.

Written apart from the engine's own parsers, and strict: a line that does not end with CRLF or a chunk that is
not framed as it should be fails the test.
"""

from __future__ import annotations

import fcntl
import socket
import ssl
import struct
import termios
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

PATIENCE = 10.0  # seconds until a test that waits for bytes has failed


@dataclass
class Head:
    line: str
    fields: list[tuple[str, str]]
    interim: list[Head] = field(default_factory=list)

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.fields if key.lower() == name.lower()]

    def get(self, name: str) -> str | None:
        """The field's value, None without it; a repeated field fails."""
        values = self.all(name)
        assert len(values) <= 1, f"{name} stands there {len(values)} times"
        return values[0] if values else None

    @property
    def names(self) -> list[str]:
        return [key.lower() for key, _ in self.fields]


@dataclass
class Request(Head):
    body: bytes = b""
    trailers: list[tuple[str, str]] = field(default_factory=list)

    @property
    def method(self) -> str:
        return self.line.split(" ")[0]

    @property
    def target(self) -> str:
        return self.line.split(" ")[1]


@dataclass
class Response(Request):
    @property
    def status(self) -> int:
        return int(self.line.split(" ")[1])

    @property
    def reason(self) -> str:
        return self.line.split(" ", 2)[2]


class Closed(AssertionError):
    """The other side ended the connection where more was expected."""


class Wire:
    def __init__(self, sock: socket.socket) -> None:
        sock.settimeout(PATIENCE)
        self.sock = sock
        self.held = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # ---- out

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def unsent(self) -> int:
        """Bytes that the other side's kernel has not taken yet."""
        return struct.unpack("i", fcntl.ioctl(self.sock, termios.TIOCOUTQ, b"\0" * 4))[0]

    def finish(self) -> None:
        """Send FIN; reading goes on."""
        self.sock.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """Close with RST."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def close(self) -> None:
        self.sock.close()

    # ---- in

    def more(self) -> bytes:
        """What comes next, whatever its length; b"" at the end."""
        if self.held:
            out, self.held = self.held, b""
            return out
        return self.sock.recv(1 << 20)

    def fill(self) -> None:
        data = self.sock.recv(1 << 16)
        if not data:
            raise Closed(f"connection ended behind {self.held[-200:]!r}")
        self.held += data

    def until(self, end: bytes) -> bytes:
        while end not in self.held:
            self.fill()
        out, self.held = self.held.split(end, 1)
        return out

    def exactly(self, n: int) -> bytes:
        parts, left = [self.held[:n]], n - len(self.held)
        self.held = self.held[n:]
        while left > 0:
            data = self.sock.recv(min(left, 1 << 20))
            if not data:
                raise Closed(f"connection ended with {left} of {n} bytes missing")
            parts.append(data)
            left -= len(data)
        return b"".join(parts)

    def rest(self) -> bytes:
        """Everything up to a clean end."""
        parts = [self.held]
        self.held = b""
        while data := self.sock.recv(1 << 20):
            parts.append(data)
        return b"".join(parts)

    def head(self) -> tuple[str, list[tuple[str, str]]]:
        raw = self.until(b"\r\n\r\n").decode("latin-1")
        line, *lines = raw.split("\r\n")
        return line, [self.field(text) for text in lines]

    @staticmethod
    def field(text: str) -> tuple[str, str]:
        assert "\n" not in text
        assert "\r" not in text
        name, colon, value = text.partition(": ")
        assert colon, f"not a field: {text!r}"
        return name, value

    def chunk(self) -> bytes:
        """The data of one chunk; b"" is the last one, and its trailers come next."""
        size = int(self.until(b"\r\n"), 16)
        data = self.exactly(size)
        if size:
            assert self.exactly(2) == b"\r\n"
        return data

    def trailers(self) -> list[tuple[str, str]]:
        out = []
        while line := self.until(b"\r\n"):
            out.append(self.field(line.decode("latin-1")))
        return out

    def chunked(self) -> tuple[bytes, list[tuple[str, str]]]:
        parts = []
        while data := self.chunk():
            parts.append(data)
        return b"".join(parts), self.trailers()

    def body(self, head: Request, *, to_the_end: bool) -> None:
        """Read what `head` announces into it. to_the_end: what a message without a length means."""
        length = head.get("content-length")
        if head.get("transfer-encoding") is not None:
            assert head.get("transfer-encoding") == "chunked"
            assert length is None
            head.body, head.trailers = self.chunked()
        elif length is not None:
            head.body = self.exactly(int(length))
        elif to_the_end:
            head.body = self.rest()

    def at_end(self) -> bool:
        """Whether the other side closed cleanly, with nothing left to read."""
        return self.rest() == b""

    def is_cut(self) -> bool:
        """Whether the other side is gone, in whatever way. Waits for it."""
        try:
            while self.sock.recv(1 << 20):
                pass
        except ConnectionError:
            return True
        return True

    def was_reset(self) -> bool:
        """Whether the connection ended with RST. Waits for its end. Over TLS
        Python cannot tell it from an end without close_notify.
        """
        try:
            while self.sock.recv(1 << 20):
                pass
        except (ConnectionResetError, ssl.SSLEOFError):
            return True
        return False

    def silent(self, seconds: float = 0.05) -> bool:
        """Whether nothing at all comes for a moment."""
        if self.held:
            return False
        self.sock.settimeout(seconds)
        try:
            return self.sock.recv(1, socket.MSG_PEEK) is None
        except TimeoutError:
            return True
        finally:
            self.sock.settimeout(PATIENCE)


def chunks(*parts: bytes, trailers: bytes = b"") -> bytes:
    """A whole chunked body."""
    framed = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts)
    return framed + b"0\r\n" + trailers + b"\r\n"


def request(
    target: str = "/",
    *fields: str,
    method: str = "GET",
    body: bytes | None = None,
    host: str | None = "test",
    version: str = "1.1",
) -> bytes:
    """A request as bytes; `body` gets its Content-Length."""
    lines = [f"{method} {target} HTTP/{version}"]
    lines += [] if host is None else [f"Host: {host}"]
    lines += fields
    lines += [] if body is None else [f"Content-Length: {len(body)}"]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + (body or b"")


def response(status: int = 200, *fields: str, body: bytes | None = b"", version: str = "1.1") -> bytes:
    """A response as bytes; `body` None: no Content-Length."""
    lines = [f"HTTP/{version} {status} Reason", *fields]
    lines += [] if body is None else [f"Content-Length: {len(body)}"]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + (body or b"")
