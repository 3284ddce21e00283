"""The control listener: health, metrics and the API that the commands use. docs/commands.md lists it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from turnout.control import flow, guard
from turnout.control.access import tls
from turnout.control.access.errors import AccessError
from turnout.control.access.gate import Gate
from turnout.control.access.namespaces import namespace_of
from turnout.control.access.tokens import BadTokenError, Token
from turnout.control.problem import ProblemError
from turnout.control.registry.errors import NotFoundError, RegistryError
from turnout.control.status import StatusReader
from turnout.ext.scoreboard import SHARE
from turnout.proxy.config import ConfigError
from turnout.proxy.errors import UpgradeError
from turnout.proxy.metrics import Metrics, exposition

if TYPE_CHECKING:
    from turnout.control.registry.registry import Registry
    from turnout.proxy.supervisor import Supervisor

BY = "api"
BODY_MAX = 64 * 1024
QUIT_DELAY_S = 0.05
"""Between the answer to a stop and the stop, so that the answer gets out."""
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Nothing(Body):
    pass


class Stop(Body):
    now: bool = False


class Split(Body):
    shares: dict[str, float] = Field(min_length=1)


class EndpointChange(Body):
    weight: int | None = Field(default=None, ge=0, le=65535)
    admin: Literal["ready", "drain", "maint"] | None = None


B = TypeVar("B", bound=Body)


ACTIONS_OF = {
    "/v1/status": "status.read",
    "/v1/reload": "proxy.reload",
    "/v1/stop": "proxy.stop",
    "/v1/upgrade": "proxy.upgrade",
    "/v1/services/": "split.change",
}


class NoTokens:
    """While there is no store that has any."""

    async def check(self, _text: str) -> Token:
        raise BadTokenError("this token is not valid")


class ControlServer:
    """Serves one supervisor on one socket."""

    def __init__(self, supervisor: Supervisor, registry: Registry | None = None) -> None:
        self.supervisor = supervisor
        self.registry = registry
        self.status = StatusReader(supervisor)
        control = supervisor.config.control
        self.tls = None if control.tls is None else tls.context(control.tls, supervisor.file)
        certified = () if control.tls is None else tls.names(control.tls, supervisor.file)
        self.names = guard.own_names(control.listen, certified)
        self.gate = Gate(NoTokens(), auth=control.auth, clients=control.clients)
        app = web.Application(middlewares=[self._answer], client_max_size=BODY_MAX)
        app.add_routes(self._routes())
        self._runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=1.0)
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self, sock: socket.socket, local: socket.socket | None = None) -> None:
        """Serve on listening sockets, which it owns from here on."""
        await self._runner.setup()
        await web.SockSite(self._runner, sock, ssl_context=self.tls).start()
        if local is not None:
            await web.SockSite(self._runner, local).start()
        self._tasks.append(asyncio.create_task(self._sample()))
        control = self.supervisor.config.control
        if self.tls is not None and control.tls is not None:
            chain = tls.Chain(self.tls, control.tls, self.supervisor.file)
            self._tasks.append(asyncio.create_task(chain.tend()))

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._runner.cleanup()

    async def _sample(self) -> None:
        while True:
            self.status.sample()
            await asyncio.sleep(flow.SAMPLE_S)

    # ---- requests ----------------------------------------------------------------------------------------

    def _routes(self) -> list[web.RouteDef]:
        return [
            web.get("/healthz", self._healthz),
            web.get("/readyz", self._readyz),
            web.get("/metrics", self._metrics),
            web.get("/v1/status", self._status),
            web.post("/v1/reload", self._reload),
            web.post("/v1/stop", self._stop),
            web.post("/v1/upgrade", self._upgrade),
            web.put("/v1/services/{service}/split", self._split),
            web.put("/v1/services/{service}/endpoints/{address:.+}", self._endpoint),
        ]

    @web.middleware
    async def _answer(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            if request.path.startswith("/v1/"):
                guard.check(request.method, request.headers, self.names)
                await self._admit(request)
            return await handler(request)
        except AccessError as error:
            answer = ProblemError(error.status, error.detail).response()
            answer.headers.update(error.headers)
            return answer
        except ProblemError as problem:
            return problem.response()
        except web.HTTPException as error:
            return ProblemError(error.status, f"{request.method} {request.path}: {error.reason}").response()

    async def _admit(self, request: web.Request) -> None:
        """Raises AccessError."""
        actor = await self.gate.identify(request)
        service = request.match_info.get("service")
        namespace = None if service is None else namespace_of(service)
        for path, action in ACTIONS_OF.items():
            if request.path.startswith(path):
                self.gate.allow(actor, action, namespace)

    async def _body(self, request: web.Request, kind: type[B]) -> B:
        """An empty body is {}."""
        try:
            return kind.model_validate_json(await request.read() or b"{}")
        except ValidationError as error:
            raise ProblemError(400, "; ".join(_said(item) for item in error.errors())) from None

    async def _healthz(self, _request: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def _readyz(self, _request: web.Request) -> web.Response:
        if self.supervisor.ready():
            return web.Response(text="ready\n")
        return web.Response(status=503, text=f"not ready: {self.supervisor.state}\n")

    async def _metrics(self, request: web.Request) -> web.Response:
        accept = request.headers.get("Accept", "")
        body, content_type = await asyncio.to_thread(exposition, Metrics(self.supervisor), accept)
        return web.Response(body=body, headers={"Content-Type": content_type})

    async def _status(self, _request: web.Request) -> web.Response:
        return web.json_response(self.status.read())

    async def _reload(self, request: web.Request) -> web.Response:
        await self._body(request, Nothing)
        try:
            return web.json_response({"snapshot": await self.supervisor.reload()})
        except ConfigError as error:
            problems = [vars(problem) for problem in error.problems]
            raise ProblemError(422, f"nothing has changed:\n{error}", problems=problems) from None

    async def _stop(self, request: web.Request) -> web.Response:
        body = await self._body(request, Stop)
        asyncio.get_running_loop().call_later(QUIT_DELAY_S, self._quit, 2 if body.now else 1)
        return web.json_response({"state": "draining"}, status=202)

    def _quit(self, times: int) -> None:
        for _ in range(times):
            self.supervisor.stop()

    async def _upgrade(self, request: web.Request) -> web.Response:
        await self._body(request, Nothing)
        try:
            return web.json_response({"pid": await self.supervisor.upgrade()})
        except UpgradeError as error:
            raise ProblemError(500, f"the running program goes on: {error}") from None

    async def _split(self, request: web.Request) -> web.Response:
        service = request.match_info["service"]
        body = await self._body(request, Split)
        self._known_service(service)
        try:
            if self.registry is not None:
                await self.registry.set_split(service, body.shares, by=BY)
                return web.json_response({"shares": self.status.shares(service)})
            shares = await self.supervisor.set_split(service, body.shares)
        except RegistryError as error:
            raise problem_of(error) from None
        except KeyError as error:
            raise ProblemError(404, f'service "{service}" has no version "{error.args[0]}"') from None
        except ValueError as error:
            raise ProblemError(422, str(error)) from None
        return web.json_response({"shares": {version: share / SHARE for version, share in shares.items()}})

    async def _endpoint(self, request: web.Request) -> web.Response:
        service, address = request.match_info["service"], request.match_info["address"]
        body = await self._body(request, EndpointChange)
        self._known_service(service)
        if address not in self.supervisor.freezer.endpoint_slots(service):
            raise ProblemError(404, f'service "{service}" has no endpoint "{address}"')
        try:
            await self._change_endpoint(service, address, body)
        except RegistryError as error:
            raise problem_of(error) from None
        return web.json_response(self.status.endpoint(service, address))

    async def _change_endpoint(self, service: str, address: str, body: EndpointChange) -> None:
        if body.weight is not None and self.registry is not None:
            await self.registry.set_weight(service, address, body.weight, by=BY)
        elif body.weight is not None:
            self.supervisor.set_weight(service, address, body.weight)
        if body.admin is not None and self.registry is not None:
            await self.registry.set_admin(service, address, body.admin, by=BY)
        elif body.admin is not None:
            self.supervisor.set_admin(service, address, body.admin)

    def _known_service(self, name: str) -> None:
        services = self.supervisor.freezer.config.services
        if name not in services:
            raise ProblemError(
                404, f'no service is named "{name}"; there are {", ".join(services) or "none"}'
            )


def problem_of(error: RegistryError) -> ProblemError:
    return ProblemError(404 if isinstance(error, NotFoundError) else 422, str(error))


def _said(item: Any) -> str:
    where = ".".join(str(part) for part in item["loc"])
    return f"{where}: {item['msg']}" if where else str(item["msg"])
