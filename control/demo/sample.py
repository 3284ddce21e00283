"""Sample backends of `turnout demo`, in one process: `python -m turnout.control.demo.sample WORD...` with a
word KIND:FD:NAME:VERSION for each.

Each serves on a listening socket that it inherits. They end when standard input does, so they never outlive
whoever started them.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web

SLOW_MAX_MS = 60_000
EVENT_S = 1.0
TICK_S = 0.5


@dataclass
class Backend:
    """Says who it is; can be slow, fail, stream or be unwell when asked to."""

    name: str
    version: str
    well: bool = True

    def application(self) -> web.Application:
        app = web.Application()
        app.add_routes(self.routes())
        return app

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/health", self.health),
            web.put("/health", self.be),
            web.get("/slow", self.slow),
            web.get("/fail", self.fail),
            web.get("/events", self.events),
            web.route("*", "/{path:.*}", self.hello),
        ]

    async def hello(self, request: web.Request) -> web.Response:
        body = await request.read()
        said = {
            "backend": self.name,
            "version": self.version,
            "request": f"{request.method} {request.path_qs}",
            "body_bytes": len(body),
            "x-forwarded-for": request.headers.get("X-Forwarded-For"),
            "x-request-id": request.headers.get("X-Request-ID"),
        }
        return web.json_response(said)

    async def health(self, _request: web.Request) -> web.Response:
        said = {"backend": self.name, "version": self.version, "status": "up" if self.well else "down"}
        return web.json_response(said, status=200 if self.well else 503)

    async def be(self, request: web.Request) -> web.Response:
        """PUT /health with "up" or "down": what it says from then on."""
        self.well = (await request.text()).strip() != "down"
        return await self.health(request)

    async def slow(self, request: web.Request) -> web.Response:
        """/slow?ms=500"""
        try:
            ms = min(int(request.query.get("ms", "500")), SLOW_MAX_MS)
        except ValueError:
            raise web.HTTPBadRequest(text="ms is a number\n") from None
        await asyncio.sleep(max(ms, 0) / 1000)
        return await self.hello(request)

    async def fail(self, _request: web.Request) -> web.Response:
        return web.Response(status=503, text=f"{self.name} fails as asked\n")

    async def events(self, request: web.Request) -> web.StreamResponse:
        """A stream of one event a second."""
        response = await event_stream(request)
        with contextlib.suppress(ConnectionError):
            for number in range(3600):
                await response.write(f"data: event {number} of {self.name}\n\n".encode())
                await asyncio.sleep(EVENT_S)
        return response


async def event_stream(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    return response


@dataclass
class Market(Backend):
    """Has prices too: GET /prices as events, or as a WebSocket."""

    prices: dict[str, float] = field(default_factory=lambda: {"AAPL": 190.0, "MSFT": 420.0, "SAP": 180.0})

    def routes(self) -> list[web.RouteDef]:
        return [web.get("/prices", self.stream), *super().routes()]

    def tick(self) -> str:
        """A new price, as JSON."""
        symbol = random.choice(list(self.prices))
        self.prices[symbol] = round(self.prices[symbol] * random.uniform(0.999, 1.001), 2)
        return f'{{"symbol": "{symbol}", "price": {self.prices[symbol]}}}'

    async def stream(self, request: web.Request) -> web.StreamResponse:
        is_websocket = request.headers.get("Upgrade", "").lower() == "websocket"
        return await (self.websocket(request) if is_websocket else self.event_source(request))

    async def websocket(self, request: web.Request) -> web.StreamResponse:
        to = web.WebSocketResponse()
        await to.prepare(request)
        with contextlib.suppress(ConnectionError):
            while not to.closed:
                await to.send_str(self.tick())
                with contextlib.suppress(TimeoutError):
                    await to.receive(TICK_S)  # what a client says is read, so that its close is seen
        return to

    async def event_source(self, request: web.Request) -> web.StreamResponse:
        response = await event_stream(request)
        with contextlib.suppress(ConnectionError):
            while True:
                await response.write(f"data: {self.tick()}\n\n".encode())
                await asyncio.sleep(TICK_S)
        return response


@asynccontextmanager
async def http(app: web.Application, sock: socket.socket) -> AsyncIterator[None]:
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.SockSite(runner, sock).start()
        yield
    finally:
        await runner.cleanup()


@asynccontextmanager
async def lines(name: str, sock: socket.socket) -> AsyncIterator[None]:
    """A database of a kind: answers each line with its name and the line."""
    ends: set[asyncio.StreamWriter] = set()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ends.add(writer)
        with contextlib.suppress(ConnectionError, ValueError):  # ValueError: a line without an end
            while line := await reader.readline():
                writer.write(f"{name}: ".encode() + line)
                await writer.drain()
        ends.discard(writer)
        writer.close()

    server = await asyncio.start_server(talk, sock=sock)
    try:
        yield
    finally:
        server.close()
        for writer in ends:
            writer.close()


KINDS: dict[str, Callable[[str, str, socket.socket], contextlib.AbstractAsyncContextManager[None]]] = {
    "http": lambda name, version, sock: http(Backend(name, version).application(), sock),
    "market": lambda name, version, sock: http(Market(name, version).application(), sock),
    "lines": lambda name, _version, sock: lines(name, sock),
}


async def until_input_ends() -> None:
    loop = asyncio.get_running_loop()
    fd, ended = sys.stdin.fileno(), asyncio.Event()

    def look() -> None:
        if not os.read(fd, 4096):
            ended.set()

    loop.add_reader(fd, look)
    await ended.wait()
    loop.remove_reader(fd)


async def serve(words: list[str]) -> None:
    """`words` as on the command line."""
    async with AsyncExitStack() as backends:
        for word in words:
            kind, fd, name, version = word.split(":")
            await backends.enter_async_context(KINDS[kind](name, version, socket.socket(fileno=int(fd))))
        await until_input_ends()


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the proxy, which drains into these
    asyncio.run(serve(sys.argv[1:]))
