"""UDP: a datagram is sent and answered. Silence without an expected answer says nothing either way."""

from __future__ import annotations

import asyncio
import socket

from turnout.control.health.check import Base
from turnout.control.health.outcome import Outcome, failed, passed
from turnout.control.health.target import Target
from turnout.control.health.tcp import shown
from turnout.proxy.checks import parse_bytes

LARGEST = 65_535


class UdpCheck(Base):
    def __init__(self, target: Target) -> None:
        super().__init__(target)
        self._send = parse_bytes(target.health.send or "")
        self._expect = parse_bytes(target.health.expect or "")

    async def probe(self) -> Outcome:
        loop, target = asyncio.get_running_loop(), self.target
        family = socket.AF_INET6 if ":" in target.host else socket.AF_INET
        with socket.socket(family, socket.SOCK_DGRAM) as sock:
            sock.setblocking(False)
            sock.connect((target.host, target.port))
            sock.send(self._send)
            got = await loop.sock_recv(sock, LARGEST)
        if self._expect in got:
            return passed("answered")
        return failed(f"answered {shown(got)}, expected {shown(self._expect)}")

    def late(self, limit: str) -> Outcome:
        """Whoever expects an answer has it or not."""
        return Outcome("fail" if self._expect else "unknown", f"no answer within {limit}")
