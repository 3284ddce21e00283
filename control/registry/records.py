"""What the registry keeps in the store: rows to values and back, and the statements of its changes."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import delete, select

from turnout.control.registry.entries import EndpointEntry, Key, Lease, Override, SplitSet
from turnout.control.storage import schema
from turnout.control.storage.store import Change, Store
from turnout.proxy.model import Endpoint, Service


@dataclass
class Records:
    """All that is stored, by service."""

    services: dict[str, tuple[Service, int]] = field(default_factory=dict)  # with revision
    endpoints: dict[str, dict[str, EndpointEntry]] = field(default_factory=lambda: defaultdict(dict))
    overrides: dict[str, dict[str, Override]] = field(default_factory=lambda: defaultdict(dict))
    splits: dict[str, SplitSet] = field(default_factory=dict)


def as_json(model: Endpoint | Service) -> str:
    """What was said, without what is so by default: defaults may change. Durations are in milliseconds."""
    return model.model_dump_json(exclude_unset=True, exclude={"endpoints"})


async def read(store: Store, now: float) -> Records:
    """Leases begin anew: nobody could renew them while nobody was there. Raises StoreError."""
    out = Records()
    for row in await store.read(select(schema.services)):
        out.services[row.service] = Service.model_validate(json.loads(row.settings)), row.revision
    order = (schema.endpoints.c.service, schema.endpoints.c.registered, schema.endpoints.c.address)
    for row in await store.read(select(schema.endpoints).order_by(*order)):
        out.endpoints[row.service][row.address] = EndpointEntry(
            row.service,
            Endpoint.model_validate(json.loads(row.settings)),
            "api",
            row.registered,
            row.registered_by,
            row.revision,
            None if row.lease_ttl is None else Lease(row.lease_ttl, now + row.lease_ttl),
        )
    for row in await store.read(select(schema.overrides)):
        out.overrides[row.service][row.address] = Override(
            row.weight, row.weight_said, row.admin, row.reason, row.set_by, row.until, row.revision
        )
    for row in await store.read(select(schema.splits)):
        out.splits[row.service] = SplitSet(
            json.loads(row.shares), json.loads(row.said), row.set_by, row.revision
        )
    return out


async def put(change: Change, table: Any, key: dict[str, Any], values: dict[str, Any]) -> None:
    """One row in the place of the one that has this key, if any."""
    new = {**values, "revision": change.revision}
    statement = change.insert(table).values(**key, **new)
    await change.execute(statement.on_conflict_do_update(index_elements=list(key), set_=new))


async def remove(change: Change, table: Any, key: dict[str, Any]) -> None:
    await change.execute(delete(table).filter_by(**key))


def of_service(name: str) -> dict[str, Any]:
    return {"service": name}


def of_endpoint(key: Key) -> dict[str, Any]:
    return {"service": key[0], "address": key[1]}


async def put_service(change: Change, name: str, settings: Service, by: str) -> None:
    values = {"settings": as_json(settings), "created_by": by}
    await put(change, schema.services, of_service(name), values)


async def put_endpoint(change: Change, entry: EndpointEntry) -> None:
    values = {
        "settings": as_json(entry.endpoint),
        "lease_ttl": entry.lease_ttl,
        "registered": entry.registered,
        "registered_by": entry.registered_by,
    }
    await put(change, schema.endpoints, of_endpoint(entry.key), values)


async def put_override(change: Change, key: Key, override: Override) -> None:
    """An empty one is none."""
    if override.empty:
        await remove(change, schema.overrides, of_endpoint(key))
        return
    values = {
        "weight": override.weight,
        "weight_said": override.weight_said,
        "admin": override.admin,
        "reason": override.reason,
        "set_by": override.by,
        "until": override.until,
    }
    await put(change, schema.overrides, of_endpoint(key), values)


async def put_split(change: Change, name: str, split: SplitSet) -> None:
    values = {"shares": json.dumps(split.shares), "said": json.dumps(split.said), "set_by": split.by}
    await put(change, schema.splits, of_service(name), values)
