"""A listening socket of the API that takes so many connections at a time and no more: whoever holds them,
the process keeps its descriptors for what it is there for.
"""

from __future__ import annotations

import asyncio

from aiohttp import web

CONNECTIONS_MAX = 1024
HANDSHAKE_S = 10.0
"""For TLS; only then is a connection one that counts."""


class Refused(asyncio.Protocol):
    """Of a connection that is one too many."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.close()


class BoundedSite(web.SockSite):
    """As SockSite. Connections of all sites of its runner count."""

    async def start(self) -> None:
        await web.BaseSite.start(self)
        server = self._runner.server
        assert server is not None

        def taken() -> asyncio.BaseProtocol:
            return server() if len(server.connections) < CONNECTIONS_MAX else Refused()

        self._server = await asyncio.get_running_loop().create_server(
            taken,
            sock=self._sock,
            ssl=self._ssl_context,
            ssl_handshake_timeout=HANDSHAKE_S if self._ssl_context is not None else None,
            backlog=self._backlog,
        )
