"""Endpoints of a service: registered, changed, kept by a lease, deregistered."""

from __future__ import annotations

import time
from dataclasses import replace
from urllib.parse import quote

from turnout.control.api import lookup, pages
from turnout.control.api.call import Call, Reply
from turnout.control.api.models import (
    EndpointChange,
    EndpointChanged,
    EndpointQuery,
    EndpointRow,
    Endpoints,
    EndpointSpec,
    Lease,
    Removed,
)
from turnout.control.api.problems import ProblemError, invalid
from turnout.control.api.routes import Route
from turnout.control.api.rows import endpoint_row
from turnout.control.registry.checks import valid
from turnout.control.registry.entries import Applied, EndpointEntry
from turnout.control.registry.errors import RefusedError
from turnout.proxy.model import Endpoint

ENDPOINTS = "/v1/services/{service}/endpoints"
ENDPOINT = f"{ENDPOINTS}/{{address}}"


async def listing(call: Call) -> Reply:
    service, query = lookup.service_of(call), call.query

    def row(address: str) -> EndpointRow | None:
        entry = service.endpoints.get(address)
        if entry is None or not matches(entry, query):
            return None
        found = endpoint_row(call, entry)
        return found if query.health in {None, found["health"]} else None

    items, following = await pages.page(service.endpoints, query, row)
    return Reply(Endpoints(items=items, next=following), revision=service.revision)


def matches(entry: EndpointEntry, query: EndpointQuery) -> bool:
    return (
        query.source in {None, entry.source}
        and query.version in {None, entry.version}
        and query.admin in {None, entry.admin}
        and (query.tag is None or query.tag in entry.tags)
    )


async def get(call: Call) -> Reply:
    entry = lookup.endpoint_of(call)
    return Reply(endpoint_row(call, entry), revision=entry.revision)


async def register(call: Call) -> Reply:
    service, endpoint = lookup.service_of(call), endpoint_of(call.body)
    before = service.endpoints.get(endpoint.address)
    call.before = summary(before)
    applied = await call.parts.registry.register(
        call.service,
        endpoint,
        by=call.by,
        lease_ttl=call.body.lease_ttl,
        if_revision=call.if_revision,
        also=call.api.trail.within(call, summary),
    )
    reply = changed(call, applied)
    reply.status = 201 if before is None else 200
    place = quote(endpoint.address, safe="")
    reply.headers["Location"] = f"/v1/services/{quote(call.service)}/endpoints/{place}"
    return reply


def endpoint_of(spec: EndpointSpec) -> Endpoint:
    """What is asked to be registered. No unix socket, in whatever form it is written: whoever may register
    could reach any socket of this machine, that of a container engine, say. Raises RefusedError.
    """
    endpoint = valid(Endpoint, spec.model_dump(exclude={"lease_ttl"}, exclude_unset=True))
    if endpoint.address.startswith("unix:"):
        raise RefusedError("a unix socket can only be named in the file; register host:port")
    return endpoint


async def change(call: Call) -> Reply:
    """Weight and state; a call that names neither changes nothing."""
    entry, body = lookup.endpoint_of(call), call.body
    check_change(body)
    lookup.check_revision(call, f"endpoint {call.address}", entry.revision)
    call.before = summary(entry)
    registry, applied, revision = call.parts.registry, None, call.if_revision
    also = call.api.trail.within(call, summary)  # with the last change
    if body.weight is not None:
        applied = await registry.set_weight(
            call.service,
            call.address,
            body.weight,
            by=call.by,
            if_revision=revision,
            also=also if body.admin is None else None,
        )
        revision = None
    if body.admin is not None:
        applied = await registry.set_admin(
            call.service,
            call.address,
            body.admin,
            reason=body.reason,
            until=body.until,
            by=call.by,
            if_revision=revision,
            also=also,
        )
    return changed(call, applied or Applied(entry.revision, call.parts.supervisor.version, entry))


def check_change(body: EndpointChange) -> None:
    if body.admin in {None, "ready"} and (body.reason or body.until is not None):
        raise invalid([{"where": "admin", "what": "reason and until go with drain or maint"}])
    if body.until is not None and body.until <= time.time():
        raise invalid(
            [{"where": "until", "what": f"{body.until:g} is in the past; it is Unix time in seconds"}]
        )


async def deregister(call: Call) -> Reply:
    entry = lookup.endpoint_of(call)
    call.before = summary(entry)
    applied = await call.parts.registry.deregister(
        call.service,
        call.address,
        by=call.by,
        if_revision=call.if_revision,
        also=call.api.trail.within(call, lambda _: None),
    )
    return Reply(Removed(snapshot=applied.snapshot, revision=applied.revision))


async def renew(call: Call) -> Reply:
    lookup.endpoint_of(call)
    try:
        return Reply(Lease(expires=await call.parts.registry.renew(call.service, call.address, by=call.by)))
    except KeyError:
        raise ProblemError(
            404, f'endpoint "{call.address}" of "{call.service}" has no lease (any more); register it again'
        ) from None


def changed(call: Call, applied: Applied) -> Reply:
    entry = applied.entry
    assert isinstance(entry, EndpointEntry)
    now: EndpointRow = endpoint_row(call, entry)
    body: EndpointChanged = {**now, "snapshot": applied.snapshot}
    return Reply(body, revision=entry.revision, after=summary(entry))


def summary(entry: EndpointEntry | None) -> dict[str, object] | None:
    """For the audit log."""
    if entry is None:
        return None
    return {
        "weight": entry.weight,
        "version": entry.version,
        "priority": entry.priority,
        "tags": list(entry.tags),
        "metadata": dict(entry.metadata),
        "lease_ttl": None if entry.lease_ttl is None else f"{entry.lease_ttl:g}s",
        "admin": entry.admin,
        "reason": entry.admin_reason,
        "until": None if entry.admin_until is None else int(entry.admin_until),
    }


CHANGE = Route(
    "PATCH",
    ENDPOINT,
    "Change its weight or take it out: drain, maint, ready",
    change,
    "endpoint.change",
    output=EndpointChanged,
    input=EndpointChange,
    errors=(422, 503),
    changes=True,
    conditional=True,
)

ROUTES = (
    Route(
        "GET",
        ENDPOINTS,
        "Endpoints of a service, by address",
        listing,
        "endpoint.read",
        output=Endpoints,
        query=EndpointQuery,
        conditional=True,
    ),
    Route(
        "POST",
        ENDPOINTS,
        "Register an endpoint, or replace what was registered of it",
        register,
        "endpoint.register",
        output=EndpointChanged,
        input=EndpointSpec,
        status=201,
        also=(200,),
        errors=(422, 503),
        changes=True,
        conditional=True,
    ),
    Route(
        "PUT",
        f"{ENDPOINT}/lease",
        "Renew a lease: it ends a whole `lease_ttl` from now",
        renew,
        "endpoint.renew",
        output=Lease,
        errors=(503,),
        changes=True,
        audited=False,
    ),
    Route("GET", ENDPOINT, "One endpoint", get, "endpoint.read", output=EndpointRow, conditional=True),
    CHANGE,
    replace(CHANGE, method="PUT", summary="As PATCH", deprecated=True),
    Route(
        "DELETE",
        ENDPOINT,
        "Deregister an endpoint that was registered here",
        deregister,
        "endpoint.deregister",
        output=Removed,
        errors=(422, 503),
        changes=True,
        conditional=True,
    ),
)
