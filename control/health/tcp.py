"""TCP: a connection, and if wanted what is sent and what has to come back."""

from __future__ import annotations

import asyncio
import socket

from turnout.control.health.check import Base
from turnout.control.health.outcome import Outcome, failed, passed
from turnout.control.health.target import Target
from turnout.control.health.tls import Contexts, connect, judge_expiry
from turnout.proxy.checks import parse_bytes

SEEN = 4096
"""Bytes of an answer that are looked at."""
HEADERS = {
    "v1": b"PROXY UNKNOWN\r\n",
    "v2": b"\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00",
}
"""PROXY headers that name nobody: what a connection that the proxy makes for itself begins with."""


def announced(target: Target) -> bytes:
    """What has to be sent before anything else."""
    return HEADERS.get(target.manner.proxy_protocol or "", b"")


class TcpCheck(Base):
    def __init__(self, target: Target, contexts: Contexts) -> None:
        super().__init__(target)
        self._contexts = contexts
        self._send = announced(target) + parse_bytes(target.health.send or "")
        self._expect = parse_bytes(target.health.expect or "")

    async def probe(self) -> Outcome:
        if not (self.target.secure or self._send or self._expect):
            return await self._connect()
        context = self._contexts.of(self.target) if self.target.secure else None
        reader, writer = await connect(self.target, context)
        try:
            return await self._talk(reader, writer)
        finally:
            writer.close()

    async def _connect(self) -> Outcome:
        """A connection is all there is: no streams for it."""
        target = self.target
        family = socket.AF_UNIX if target.unix else socket.AF_INET6 if ":" in target.host else socket.AF_INET
        with socket.socket(family, socket.SOCK_STREAM) as sock:
            sock.setblocking(False)
            place = target.unix or (target.host, target.port)
            await asyncio.get_running_loop().sock_connect(sock, place)
        return passed("connected")

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Outcome:
        certificate = (writer.get_extra_info("peercert") or {}) if self.target.secure else {}
        expiry = judge_expiry(self.target, certificate.get("notAfter"))
        if isinstance(expiry, Outcome):
            return expiry
        if self._send:
            writer.write(self._send)
            await writer.drain()
        found = await self._answer(reader) if self._expect else passed("connected")
        return passed(f"{found.reason}; {expiry}") if found.ok and expiry else found

    async def _answer(self, reader: asyncio.StreamReader) -> Outcome:
        got = bytearray()
        while self._expect not in got:
            more = await reader.read(SEEN - len(got))
            got += more
            if not more:
                return failed(
                    f"closed the connection after {shown(bytes(got))}, expected {shown(self._expect)}"
                )
            if len(got) >= SEEN and self._expect not in got:
                return failed(f"answered {shown(bytes(got))}, expected {shown(self._expect)}")
        return passed(f"answered {shown(self._expect)}")


def shown(data: bytes) -> str:
    """Bytes as a person can read them, cut short."""
    if not data:
        return "nothing"
    text = data[:40].decode("ascii", "backslashreplace")
    return (
        '"'
        + "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)
        + ('..."' if len(data) > 40 else '"')
    )
