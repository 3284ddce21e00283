"""Sample backends of `turnout demo`, in one process: `python -m turnout.control.sample FD:NAME:VERSION ...`

Each serves on a listening socket that it inherits. They end when standard input does, so they never outlive
whoever started them.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
from dataclasses import dataclass

from aiohttp import web

SLOW_MAX_MS = 60_000


@dataclass(frozen=True)
class Backend:
    """Says who it is; can be slow, fail or stream when asked to."""

    name: str
    version: str

    def application(self) -> web.Application:
        app = web.Application()
        app.add_routes(
            [
                web.get("/slow", self.slow),
                web.get("/fail", self.fail),
                web.get("/events", self.events),
                web.route("*", "/{path:.*}", self.hello),
            ]
        )
        return app

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
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        with contextlib.suppress(ConnectionError):
            for number in range(3600):
                await response.write(f"data: event {number} of {self.name}\n\n".encode())
                await asyncio.sleep(1)
        return response


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
    runners: list[web.AppRunner] = []
    for word in words:
        fd, name, version = word.split(":")
        runner = web.AppRunner(Backend(name, version).application(), access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        await web.SockSite(runner, socket.socket(fileno=int(fd))).start()
        runners.append(runner)
    await until_input_ends()
    for runner in runners:
        await runner.cleanup()


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the proxy, which drains into these
    asyncio.run(serve(sys.argv[1:]))
