"""Services and their splits."""

from __future__ import annotations

from typing import Any

from pydantic_core import to_json

from turnout.control import hidden
from turnout.control.api import lookup, pages
from turnout.control.api.call import Call, Reply
from turnout.control.api.models import (
    Removed,
    ServiceChanged,
    ServiceDetail,
    ServiceQuery,
    ServiceRow,
    Services,
    ServiceSpec,
    Shares,
    SharesChanged,
    Split,
)
from turnout.control.api.problems import ProblemError
from turnout.control.api.routes import Route
from turnout.control.api.rows import service_detail, service_row
from turnout.control.registry.entries import ServiceEntry

SERVICE = "/v1/services/{service}"
LOCAL = (
    ("tls", "ca"),
    ("tls", "cert"),
    ("tls", "key"),
    ("health", "exec"),
    ("health", "pattern"),
    ("health", "tls", "ca"),
)
"""Settings that reach for what is this machine's own."""


async def listing(call: Call) -> Reply:
    registry, query = call.parts.registry, call.query

    def row(name: str) -> ServiceRow | None:
        entry = registry.services.get(name)
        if entry is None or not call.sees(name) or not matches(entry, query):
            return None
        found = service_row(call, entry)
        return found if query.health in {None, found["health"]} else None

    items, following = await pages.page(registry.services, query, row)
    return Reply(Services(items=items, next=following))


def matches(entry: ServiceEntry, query: ServiceQuery) -> bool:
    return (
        query.namespace in {None, entry.namespace}
        and query.kind in {None, entry.kind}
        and query.source in {None, entry.source}
        and (query.tag is None or any(query.tag in row.tags for row in entry.endpoints.values()))
        and (query.version is None or any(query.version == row.version for row in entry.endpoints.values()))
    )


async def get(call: Call) -> Reply:
    entry = lookup.service_of(call)
    return Reply(service_detail(call, entry), revision=entry.revision)


async def put(call: Call) -> Reply:
    registry = call.parts.registry
    check_settings(call.body.root)
    before = registry.services.get(call.service)
    call.before = None if before is None else settings_of(before)
    applied = await registry.put_service(
        call.service, call.body.root, by=call.by, if_revision=call.if_revision
    )
    entry = applied.entry
    assert isinstance(entry, ServiceEntry)
    body: ServiceChanged = {**service_detail(call, entry), "snapshot": applied.snapshot}
    return Reply(body, 201 if before is None else 200, revision=entry.revision, after=settings_of(entry))


def check_settings(settings: dict[str, Any]) -> None:
    """What names files or runs programs of this machine stands in its file alone: who writes services here
    need not be one who may read or run all that the proxy may.
    """
    found = [".".join(path) for path in LOCAL if _is_there(settings, path)]
    if found:
        raise ProblemError(
            422, f"{', '.join(found)}: files and programs are named in the file only", kind="refused"
        )


def _is_there(settings: Any, path: tuple[str, ...]) -> bool:
    for key in path:
        settings = settings.get(key) if isinstance(settings, dict) else None
    return settings is not None


async def remove(call: Call) -> Reply:
    call.before = settings_of(lookup.service_of(call))
    applied = await call.parts.registry.delete_service(call.service, by=call.by, if_revision=call.if_revision)
    return Reply(Removed(snapshot=applied.snapshot, revision=applied.revision))


async def get_split(call: Call) -> Reply:
    entry = lookup.service_of(call)
    return Reply(Shares(shares=call.api.status.shares(call.service)), revision=entry.revision)


async def put_split(call: Call) -> Reply:
    lookup.service_of(call)
    call.before = texts(call.api.status.shares(call.service))
    applied = await call.parts.registry.set_split(
        call.service, call.body.shares, by=call.by, if_revision=call.if_revision
    )
    shares = call.api.status.shares(call.service)
    body = SharesChanged(shares=shares, snapshot=applied.snapshot, revision=applied.revision)
    return Reply(body, revision=applied.revision, after=texts(shares))


def texts(shares: dict[str, float]) -> dict[str, str]:
    """For the audit log, which has no broken numbers."""
    return {version: f"{share:.6g}" for version, share in shares.items()}


def settings_of(entry: ServiceEntry) -> dict[str, Any]:
    """For the audit log."""
    return {"settings": to_json(hidden.service_settings(entry.settings)).decode()}


ROUTES = (
    Route(
        "GET",
        "/v1/services",
        "Services, by name",
        listing,
        "service.read",
        output=Services,
        query=ServiceQuery,
    ),
    Route("GET", SERVICE, "One service", get, "service.read", output=ServiceDetail, conditional=True),
    Route(
        "PUT",
        SERVICE,
        "Make a service, or say anew what it is like",
        put,
        "service.write",
        output=ServiceChanged,
        input=ServiceSpec,
        also=(201,),
        errors=(422, 503),
        changes=True,
        conditional=True,
        notes="Its endpoints are registered one by one. A service that stands in the file is changed there.",
    ),
    Route(
        "DELETE",
        SERVICE,
        "Take out a service that was made here, with its endpoints",
        remove,
        "service.write",
        output=Removed,
        errors=(422, 503),
        changes=True,
        conditional=True,
    ),
    Route(
        "GET",
        f"{SERVICE}/split",
        "Shares of new sessions by version",
        get_split,
        "split.read",
        output=Shares,
        conditional=True,
    ),
    Route(
        "PUT",
        f"{SERVICE}/split",
        "Give the versions other shares",
        put_split,
        "split.change",
        output=SharesChanged,
        input=Split,
        errors=(422, 503),
        changes=True,
        conditional=True,
    ),
)
