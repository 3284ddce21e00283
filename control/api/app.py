"""The control listener: takes a request through what its route declares, and answers."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Any

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from pydantic_core import to_json

from turnout.control import flow, guard
from turnout.control.access import tls
from turnout.control.access.errors import AccessError
from turnout.control.access.namespaces import namespace_of
from turnout.control.api import arguments, conditions, problems
from turnout.control.api.call import Call, Reply
from turnout.control.api.idempotency import Replays
from turnout.control.api.problems import ProblemError
from turnout.control.api.routes import JSON, Route
from turnout.control.api.site import BoundedSite
from turnout.control.api.table import ROUTES
from turnout.control.api.trail import Trail
from turnout.control.status import StatusReader

if TYPE_CHECKING:
    from turnout.control.api.parts import Parts

log = logging.getLogger("turnout.api")
http_log = logging.getLogger("turnout.api.http")
http_log.addFilter(lambda record: not _is_malformed(record))

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
LINGER_S = 1.0
"""What is under way when the API closes has so long to end."""

LINE_MAX = 64 * 1024
"""Bytes of a request line: cursors and filters are long, and what is longer is answered as plain text."""

IDLE_S = 75.0
"""A connection on which no request begins, or none comes to the end of its head, is closed."""


class Api:
    """Serves the parts of one supervisor on sockets."""

    def __init__(self, parts: Parts, routes: Iterable[Route] = ROUTES) -> None:
        """Raises ConfigError for a certificate that cannot be used."""
        self.parts = parts
        self.routes = tuple(routes)
        control, file = parts.supervisor.config.control, parts.supervisor.file
        self._tls = None if control.tls is None else tls.context(control.tls, file)
        certified = () if control.tls is None else tls.names(control.tls, file)
        self.names = guard.own_names(control.listen, certified)
        self.status = StatusReader(parts.supervisor, parts.prober.state)
        self.streams: dict[asyncio.Task[Any] | None, str] = {}
        """Of clients that follow something, and who they are."""
        self.closing = asyncio.Event()
        self.scraping = asyncio.Lock()
        """Metrics are open to all: one exposition at a time, whoever asks."""
        self._replays = Replays(parts.store)
        self.trail = Trail(parts.audit)
        app = web.Application(middlewares=[self._answer])
        for route in self.routes:
            self._add(app, route)
        self._runner = web.AppRunner(
            app,
            access_log=None,
            handle_signals=False,
            shutdown_timeout=LINGER_S,
            keepalive_timeout=IDLE_S,
            max_line_size=LINE_MAX,
            logger=http_log,
        )
        self._tasks: list[asyncio.Task[None]] = []

    def _add(self, app: web.Application, route: Route) -> None:
        if route.method == "GET":
            app.router.add_get(route.pattern, self._handler(route), allow_head=route.produces == JSON)
        else:
            app.router.add_route(route.method, route.pattern, self._handler(route))

    async def start(self, sock: socket.socket, local: socket.socket | None = None) -> None:
        """Serve on listening sockets, which it owns from here on. `local` is open to its users when others
        have taken all connections there are.
        """
        await self._runner.setup()
        await BoundedSite(self._runner, sock, ssl_context=self._tls).start()
        if local is not None:
            await web.SockSite(self._runner, local).start()
        self._tasks.append(asyncio.create_task(self._sample()))
        control = self.parts.supervisor.config.control
        if self._tls is not None and control.tls is not None:
            chain = tls.Chain(self._tls, control.tls, self.parts.supervisor.file)
            self._tasks.append(asyncio.create_task(chain.tend()))

    async def close(self) -> None:
        """Stop accepting; streams end, what else is under way is finished."""
        self.closing.set()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._runner.cleanup()

    async def _sample(self) -> None:
        while True:
            await self.status.sample()
            await asyncio.sleep(flow.SAMPLE_S)

    # ---- errors ------------------------------------------------------------------------------------------

    @web.middleware
    async def _answer(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            return await handler(request)
        except web.HTTPException as error:
            return _of_aiohttp(request, error).response(request.path)
        except Exception as error:
            problem = problems.of(error)
            if problem is None:
                log.exception(
                    "unexpected failure", extra={"fields": {"request": f"{request.method} {request.path}"}}
                )
                problem = ProblemError(500, "an unexpected failure, which the log describes")
            return problem.response(request.path)

    # ---- a request on its way ----------------------------------------------------------------------------

    def _handler(self, route: Route) -> Handler:
        async def open_to_all(request: web.Request) -> web.StreamResponse:
            call = Call(route, self, request, None, request.match_info)
            return _response(call, await route.handler(call))

        async def gated(request: web.Request) -> web.StreamResponse:
            guard.check(request.headers, self.names)
            call = await self._admitted(route, request)
            try:
                return await self._carried_out(call)
            except Exception as error:
                await self.trail.failed(call, error)
                raise

        return open_to_all if route.action is None else gated

    async def _admitted(self, route: Route, request: web.Request) -> Call:
        """Raises AccessError for one who is not known or may not do this."""
        service = request.match_info.get("service")
        namespace = None if service is None else namespace_of(service)
        action = route.action or ""
        try:
            actor = await self.parts.gate.identify(request)
            self.parts.gate.allow(actor, action, namespace)
        except AccessError as error:
            await self.trail.refused(route, request.match_info, error)
            raise
        return Call(route, self, request, actor, request.match_info)

    async def _carried_out(self, call: Call) -> web.StreamResponse:
        route, request = call.route, call.request
        call.query = arguments.query_of(route, request.query)
        raw = await arguments.content_of(route, request)
        call.body = arguments.body_of(route, raw)
        if route.conditional:
            call.if_revision = conditions.wanted_revision(request.headers)
        key = arguments.key_of(route, request.headers)
        if key is None or call.is_dry:
            return await self._done(call)
        return await self._replays.once(call, key, raw, lambda: self._done(call))

    async def _done(self, call: Call) -> web.StreamResponse:
        await self.trail.begun(call)
        reply = await call.route.handler(call)
        await self.trail.done(call, reply.after)
        return _response(call, reply)


def _response(call: Call, reply: Reply) -> web.StreamResponse:
    if reply.stream is not None:
        return reply.stream
    headers = dict(reply.headers)
    if reply.revision is not None:
        headers["ETag"] = conditions.etag(reply.revision)
        if not call.route.changes and conditions.is_known(call.request.headers, reply.revision):
            return web.Response(status=304, headers=headers)
    status = reply.status or call.route.status
    if isinstance(reply.body, bytes):
        headers.setdefault("Content-Type", call.route.produces)
        return web.Response(body=reply.body, status=status, headers=headers)
    return web.Response(body=to_json(reply.body), status=status, content_type=JSON, headers=headers)


def _of_aiohttp(request: web.Request, error: web.HTTPException) -> ProblemError:
    """No such path, or no such method."""
    allow = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else {}
    if error.status == 404:
        detail = f"there is nothing at {request.path}; /docs lists what there is"
    elif error.status == 405:
        detail = f"{request.method} means nothing at {request.path}; it takes {allow.get('Allow', '')}"
    else:
        detail = error.reason
    return ProblemError(error.status, detail, headers=allow)


def _is_malformed(record: logging.LogRecord) -> bool:
    """Of what is no HTTP: who sent it has been told, and the log would quote it, a token included."""
    return record.exc_info is not None and isinstance(record.exc_info[1], HttpProcessingError)
