"""A small HTTP/1.1 origin on the running loop, for tests of what the proxy's processes do."""

from __future__ import annotations

import asyncio
import contextlib


class Origin:
    """GET /anything answers at once, /slow/MS after so many milliseconds, /hold once `release` is set.
    `requests` counts those that have arrived.
    """

    def __init__(self) -> None:
        self.requests = 0
        self.release = asyncio.Event()
        self.connections: set[asyncio.StreamWriter] = set()

    async def __aenter__(self) -> Origin:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, backlog=1024)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for writer in list(self.connections):
            writer.close()
        await self._server.wait_closed()
        await asyncio.sleep(0)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections.add(writer)
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
                while await self._one(reader, writer):
                    pass
        finally:
            self.connections.discard(writer)
            writer.close()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = await reader.readuntil(b"\r\n\r\n")
        self.requests += 1
        path = head.split(b" ", 2)[1].decode()
        if path.startswith("/slow/"):
            await asyncio.sleep(int(path.rpartition("/")[2]) / 1000)
        if path == "/hold":
            await self.release.wait()
        body = f"origin {self.port}".encode()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
        await writer.drain()
        return b"connection: close" not in head.lower()
