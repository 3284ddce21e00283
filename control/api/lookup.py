"""Finds what a path names. Raises ProblemError that says what there is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from turnout.control.api.problems import ProblemError
from turnout.control.hints import hint

if TYPE_CHECKING:
    from turnout.control.api.call import Call
    from turnout.control.registry.entries import EndpointEntry, ServiceEntry


def service_of(call: Call) -> ServiceEntry:
    services = call.parts.registry.services
    found: ServiceEntry | None = services.get(call.service)
    if found is None:
        known = filter(call.sees, services)
        raise ProblemError(404, f'no service is named "{call.service}"{hint(call.service, known)}')
    return found


def endpoint_of(call: Call) -> EndpointEntry:
    service = service_of(call)
    found = service.endpoints.get(call.address)
    if found is None:
        near = hint(call.address, service.endpoints)
        raise ProblemError(404, f'service "{call.service}" has no endpoint "{call.address}"{near}')
    return found


def check_revision(call: Call, what: str, revision: int) -> None:
    """If-Match."""
    if call.if_revision is not None and call.if_revision != revision:
        raise ProblemError(412, f"{what} has revision {revision} by now; read it again", kind="changed")
