"""What the API shows of services and endpoints: entries of the registry with what the scoreboard says."""

from __future__ import annotations

from typing import TYPE_CHECKING

from turnout.control import hidden
from turnout.control.api.models import EndpointRow, Health, ServiceDetail, ServiceRow

if TYPE_CHECKING:
    from turnout.control.api.call import Call
    from turnout.control.registry.entries import EndpointEntry, ServiceEntry
    from turnout.control.status import EndpointStatus


def endpoint_row(call: Call, entry: EndpointEntry) -> EndpointRow:
    live = call.api.status.endpoint(entry.service, entry.effective) or _nothing(entry)
    return {
        **live,
        "weight": entry.weight,
        "admin": entry.admin,
        "service": entry.service,
        "source": entry.source,
        "priority": entry.priority,
        "tags": list(entry.tags),
        "metadata": dict(entry.metadata),
        "registered": entry.registered,
        "registered_by": entry.registered_by,
        "revision": entry.revision,
        "lease_ttl": entry.lease_ttl,
        "expires": entry.expires,
        "admin_reason": entry.admin_reason,
        "admin_by": entry.admin_by,
        "admin_until": entry.admin_until,
        "unfit": entry.unfit,
    }


def _nothing(entry: EndpointEntry) -> EndpointStatus:
    """Of one that is not in force."""
    return {
        "address": entry.address,
        "version": entry.version,
        "admin": entry.admin,
        "health": "down",
        "check": None,
        "check_reason": "",
        "breaker": "closed",
        "breaker_trips": 0,
        "weight": entry.weight,
        "in_flight": 0,
        "connections": 0,
        "idle": 0,
        "requests": 0,
        "errors": 0,
        "reuse": None,
        "requests_per_s": 0.0,
        "errors_per_s": 0.0,
        "p50_ms": None,
        "p99_ms": None,
    }


def service_row(call: Call, entry: ServiceEntry) -> ServiceRow:
    entries = entry.endpoints.values()
    status = call.api.status
    available = sum(status.is_available(entry.full_name, endpoint.address) for endpoint in entries)
    return {
        "name": entry.full_name,
        "namespace": entry.namespace,
        "kind": entry.kind,
        "source": entry.source,
        "revision": entry.revision,
        "balance": entry.settings.balance,
        "health": _health(available, len(entry.endpoints)),
        "endpoints": len(entry.endpoints),
        "available": available,
        "versions": sorted({endpoint.version for endpoint in entries}),
        "split": status.shares(entry.full_name),
    }


def _health(available: int, of: int) -> Health:
    if available == 0:
        return "down"
    return "up" if available == of else "degraded"


def service_detail(call: Call, entry: ServiceEntry) -> ServiceDetail:
    return {**service_row(call, entry), "settings": hidden.service_settings(entry.settings)}
