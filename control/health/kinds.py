"""Which kind of check is which class."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from turnout.control.health.check import Check
from turnout.control.health.grpc import GrpcCheck
from turnout.control.health.heartbeat import HeartbeatCheck
from turnout.control.health.http import HttpCheck
from turnout.control.health.program import STARTS, ExecCheck
from turnout.control.health.sessions import Sessions
from turnout.control.health.target import Target
from turnout.control.health.tcp import TcpCheck
from turnout.control.health.tls import Contexts
from turnout.control.health.udp import UdpCheck
from turnout.control.health.websocket import WebSocketCheck
from turnout.proxy.model import CheckType


class Checks:
    """Makes checks, which share what can be shared. `folder` is that of the configuration file."""

    def __init__(self, folder: Path) -> None:
        self._sessions = Sessions()
        self._contexts = Contexts(folder)
        starts = asyncio.Semaphore(STARTS)
        self._makers: dict[CheckType, Callable[[Target], Check]] = {
            "http": lambda target: HttpCheck(target, self._sessions, self._contexts),
            "https": lambda target: HttpCheck(target, self._sessions, self._contexts),
            "websocket": lambda target: WebSocketCheck(target, self._sessions, self._contexts),
            "tcp": lambda target: TcpCheck(target, self._contexts),
            "udp": UdpCheck,
            "grpc": lambda target: GrpcCheck(target, self._contexts),
            "exec": lambda target: ExecCheck(target, starts),
            "ttl": HeartbeatCheck,
        }

    def make(self, target: Target) -> Check:
        return self._makers[target.kind](target)

    async def close(self) -> None:
        await self._sessions.close()
        await asyncio.sleep(0)  # connections that were just closed are gone then
