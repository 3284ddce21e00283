"""The process: is it there, how is it, its configuration in short, and its life."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from turnout.control import hidden
from turnout.control.api.call import Call, Reply
from turnout.control.api.models import (
    Certificate,
    Certificates,
    Draining,
    InForce,
    Listeners,
    RouteRow,
    Routes,
    Stop,
    Upgraded,
    Workers,
)
from turnout.control.api.routes import Nothing, Route
from turnout.control.health.metrics import HealthMetrics
from turnout.control.status import Status
from turnout.proxy import model
from turnout.proxy.metrics import Metrics, exposition

QUIT_DELAY_S = 0.05
"""Between the answer to a stop and the stop, so that the answer gets out."""
DAY_S = 24 * 3600


async def healthz(_call: Call) -> Reply:
    return Reply(b"ok\n")


async def readyz(call: Call) -> Reply:
    if call.parts.supervisor.ready():
        return Reply(b"ready\n")
    return Reply(f"not ready: {call.parts.supervisor.state}\n".encode(), status=503)


async def metrics(call: Call) -> Reply:
    accept = call.request.headers.get("Accept", "")
    async with call.api.scraping:
        scrape = Metrics(call.parts.supervisor, [HealthMetrics(call.parts.prober.watched())])
        body, content_type = await asyncio.to_thread(exposition, scrape, accept)
    return Reply(body, headers={"Content-Type": content_type})


async def status(call: Call) -> Reply:
    return Reply(await call.api.status.read(call.sees))


async def workers(call: Call) -> Reply:
    return Reply(Workers(items=call.parts.supervisor.worker_rows()))


async def listeners(call: Call) -> Reply:
    return Reply(Listeners(items=call.api.status.listeners()))


async def routes(call: Call) -> Reply:
    config = call.parts.supervisor.config
    return Reply(
        Routes(
            items=[
                route_row(route)
                for route in config.routes
                if route.service is None or call.sees(route.service)
            ]
        )
    )


def route_row(route: model.Route) -> RouteRow:
    row: Any = {"title": route.title, **route.model_dump(mode="json")}
    for key in ("request_headers", "response_headers"):
        row[key] = hidden.header_edits(getattr(route, key))
    out: RouteRow = row
    return out


async def certificates(call: Call) -> Reply:
    now = time.time()
    return Reply(
        Certificates(
            items=[
                Certificate(
                    place=place,
                    file=found.path,
                    names=list(found.names),
                    expires=found.expires.timestamp(),
                    days_left=round((found.expires.timestamp() - now) / DAY_S, 1),
                )
                for place, found in call.parts.supervisor.freezer.tls.certificates
            ]
        )
    )


async def reload(call: Call) -> Reply:
    return Reply(InForce(snapshot=await call.parts.supervisor.reload()))


async def stop(call: Call) -> Reply:
    supervisor, times = call.parts.supervisor, 2 if call.body.now else 1

    def end() -> None:
        for _ in range(times):
            supervisor.stop()

    asyncio.get_running_loop().call_later(QUIT_DELAY_S, end)
    return Reply(Draining(state="draining"))


async def upgrade(call: Call) -> Reply:
    return Reply(Upgraded(pid=await call.parts.supervisor.upgrade()))


ROUTES = (
    Route("GET", "/healthz", "Whether the supervisor lives", healthz, None, produces="text/plain"),
    Route(
        "GET",
        "/readyz",
        "Whether every worker serves the configuration in force",
        readyz,
        None,
        produces="text/plain",
        also=(503,),
    ),
    Route("GET", "/metrics", "Metrics for Prometheus", metrics, None, produces="text/plain"),
    Route(
        "GET",
        "/v1/status",
        "Workers, listeners, services and endpoints with what they did",
        status,
        "status.read",
        output=Status,
    ),
    Route("GET", "/v1/workers", "Worker processes", workers, "worker.read", output=Workers),
    Route("GET", "/v1/listeners", "Listeners and what came in", listeners, "listener.read", output=Listeners),
    Route("GET", "/v1/routes", "Routes in the order of the file", routes, "route.read", output=Routes),
    Route(
        "GET",
        "/v1/certificates",
        "Certificates that are served, their names and days to expiry",
        certificates,
        "certificate.read",
        output=Certificates,
    ),
    Route(
        "POST",
        "/v1/reload",
        "Read the configuration file again",
        reload,
        "proxy.reload",
        input=Nothing,
        output=InForce,
        errors=(422,),
        changes=True,
    ),
    Route(
        "POST",
        "/v1/stop",
        "Drain, then end; with `now` end at once",
        stop,
        "proxy.stop",
        input=Stop,
        output=Draining,
        status=202,
        changes=True,
    ),
    Route(
        "POST",
        "/v1/upgrade",
        "Put the program that is installed now in the place of the running one",
        upgrade,
        "proxy.upgrade",
        input=Nothing,
        output=Upgraded,
        errors=(500,),
        changes=True,
        recorded_first=True,
    ),
)
