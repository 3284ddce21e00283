"""How endpoints are, as their checks say, and what they say of themselves."""

from __future__ import annotations

from turnout.control.api import lookup
from turnout.control.api.call import Call, Reply
from turnout.control.api.endpoints import ENDPOINT
from turnout.control.api.models import HealthRow, Healths, Heartbeat
from turnout.control.api.problems import ProblemError
from turnout.control.api.routes import Route
from turnout.control.health.state import HealthState
from turnout.control.registry.entries import EndpointEntry


async def get(call: Call) -> Reply:
    return Reply(row_of(call, lookup.endpoint_of(call)))


async def of_service(call: Call) -> Reply:
    entries = lookup.service_of(call).endpoints
    return Reply(Healths(items=[row_of(call, entries[address]) for address in sorted(entries)]))


def row_of(call: Call, entry: EndpointEntry) -> HealthRow:
    state = call.parts.prober.state(entry.service, entry.address)
    return unchecked(call, entry) if state is None else row(state)


async def report(call: Call) -> Reply:
    lookup.endpoint_of(call)
    try:
        state = call.parts.prober.heartbeat(call.service, call.address, call.body.status, call.body.note)
    except KeyError:
        raise ProblemError(
            422, f'service "{call.service}" has no checks; give it health = {{ ttl = "15s" }}', kind="refused"
        ) from None
    except ValueError as error:
        raise ProblemError(422, str(error), kind="refused") from None
    return Reply(row(state))


def row(state: HealthState) -> HealthRow:
    return {
        "service": state.service,
        "address": state.address,
        "status": state.status,
        "up": state.up,
        "check": state.kind,
        "reason": state.reason,
        "since": state.since,
        "checked": state.checked,
        "ms": state.ms,
        "mean_ms": state.ewma_ms,
        "successes": state.successes,
        "failures": state.failures,
        "flaps": round(state.score, 2),
        "history": [
            {"time": turn.time, "status": turn.status, "reason": turn.reason} for turn in state.history
        ],
    }


def unchecked(call: Call, entry: EndpointEntry) -> HealthRow:
    """Of one that nobody checks: it counts as up when it is in force."""
    up = call.api.status.slot(entry.service, entry.address) is not None
    return {
        "service": entry.service,
        "address": entry.address,
        "status": "unchecked",
        "up": up,
        "check": None,
        "reason": "the service has no checks" if up else entry.unfit or "it is not in force",
        "since": None,
        "checked": None,
        "ms": None,
        "mean_ms": None,
        "successes": 0,
        "failures": 0,
        "flaps": 0.0,
        "history": [],
    }


ROUTES = (
    Route(
        "GET",
        "/v1/services/{service}/health",
        "How the endpoints of a service are",
        of_service,
        "health.read",
        output=Healths,
    ),
    Route(
        "GET",
        f"{ENDPOINT}/health",
        "How an endpoint is, and how it was",
        get,
        "health.read",
        output=HealthRow,
    ),
    Route(
        "PUT",
        f"{ENDPOINT}/health",
        "An endpoint says how it is, where the check of its service is a `ttl`",
        report,
        "health.report",
        output=HealthRow,
        input=Heartbeat,
        errors=(422,),
        changes=True,
        audited=False,
    ),
)
