"""WebSocket: the upgrade is granted and a ping comes back."""

from __future__ import annotations

import aiohttp

from turnout.control.health.check import Base
from turnout.control.health.http import told, url_of
from turnout.control.health.outcome import Outcome, failed, passed
from turnout.control.health.sessions import Sessions
from turnout.control.health.target import Target
from turnout.control.health.tcp import SEEN
from turnout.control.health.tls import Contexts

PING = b"turnout"


class WebSocketCheck(Base):
    def __init__(self, target: Target, sessions: Sessions, contexts: Contexts) -> None:
        super().__init__(target)
        self._sessions = sessions
        self._contexts = contexts
        self._url = url_of(target, "https" if target.secure else "http")
        self._headers = {"Host": target.authority, **target.health.headers}
        self._stands = False

    async def probe(self) -> Outcome:
        self._stands = False
        try:
            return await self._ask()
        except aiohttp.WSServerHandshakeError as error:
            expected = "101" if error.status != 101 else "a handshake in order"
            return failed(f"status {error.status}, expected {expected}")
        except aiohttp.ClientError as error:
            return told(error)

    async def _ask(self) -> Outcome:
        target = self.target
        async with self._sessions.of(target).ws_connect(
            self._url,
            headers=self._headers,
            autoping=False,
            max_msg_size=SEEN,
            timeout=aiohttp.ClientWSTimeout(ws_close=0.1),
            ssl=self._contexts.of(target) if target.secure else True,
            server_hostname=target.name if target.secure else None,
        ) as socket:
            self._stands = True
            await socket.ping(PING)
            return await self._pong(socket)

    async def _pong(self, socket: aiohttp.ClientWebSocketResponse) -> Outcome:
        """What the endpoint has to say meanwhile is not ours."""
        while True:
            message = await socket.receive()
            if message.type is aiohttp.WSMsgType.PONG and message.data == PING:
                return passed("answered a ping")
            if message.type in {aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.CLOSING}:
                return failed("closed the WebSocket instead of answering a ping")
            if message.type is aiohttp.WSMsgType.ERROR:
                return failed(f"sent what is no WebSocket: {message.data}")

    def late(self, limit: str) -> Outcome:
        return failed(f"ping not answered within {limit}" if self._stands else f"no answer within {limit}")
