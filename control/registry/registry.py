"""The registry: services and endpoints of all sources, and what was set at run time.

A change is durable first, then in force: it returns once every worker has the snapshot. What is in force is
always `merge` of the file and of what is registered; table.py says which source counts. Methods raise
NotFoundError, ConflictError (`if_revision`; 0: it must not exist), RefusedError and UnavailableError, and
nothing has changed then. `by` is who asked; `also` writes something more in the same transaction.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from dataclasses import replace
from typing import Any, Protocol, TypeVar

from turnout.control import hidden
from turnout.control.access.canonical import storable
from turnout.control.events.events import Events
from turnout.control.registry import records
from turnout.control.registry.checks import check_is_remote, check_revision, near, valid
from turnout.control.registry.entries import (
    Applied,
    EndpointEntry,
    Key,
    Lease,
    Override,
    ServiceEntry,
    Source,
    SplitSet,
)
from turnout.control.registry.errors import NotFoundError, RefusedError
from turnout.control.registry.leases import Leases
from turnout.control.registry.ledger import Holder, Ledger, in_order
from turnout.control.registry.table import Merger, Registered, Table, World, what_counts
from turnout.control.storage import schema
from turnout.control.storage.store import Change, Store
from turnout.ext.scoreboard import Admin
from turnout.proxy.config import ConfigError
from turnout.proxy.freeze import shares_of
from turnout.proxy.model import Config, Endpoint, Service, check_service_name

LEASE_MIN_S, LEASE_MAX_S = 1.0, 7 * 86400.0
T = TypeVar("T")
Also = Callable[[Change, EndpointEntry | None], Awaitable[None]]
"""What is written together with a change of an endpoint, which is passed as it will be."""


class Supervisor(Holder, Protocol):
    """What the registry needs of it."""

    file_config: Config
    config: Config
    version: int

    @property
    def serving(self) -> bool: ...
    async def refresh(self) -> int: ...
    async def set_split(self, service: str, shares: dict[str, float]) -> dict[str, int]: ...
    def set_weight(self, service: str, address: str, weight: int) -> None: ...
    def set_admin(self, service: str, address: str, admin: Admin) -> None: ...


class Registry:
    """Of one supervisor and one store. `clock` gives seconds since the epoch."""

    def __init__(
        self, supervisor: Supervisor, store: Store, events: Events, clock: Callable[[], float] = time.time
    ) -> None:
        self.events = events
        self.clock = clock
        self.ledger = Ledger(supervisor, store, clock)
        self.leases = Leases()
        self._supervisor = supervisor
        self._merger = Merger()
        self._table: tuple[int, Table] | None = None
        self._tasks: set[asyncio.Task[Any]] = set()

    async def open(self) -> None:
        """Read what is stored, before the first snapshot. Raises StoreError."""
        await self.ledger.read()

    async def start(self) -> None:
        """Workers serve: from here on this process is the one that writes. What a former one has written
        since `open`, and what sources have found since then, is put in force. Raises StoreError.
        """
        await self.ledger.claim()
        if self.table.config is not self._supervisor.config:
            await self._supervisor.refresh()

    async def close(self) -> None:
        """Changes that are under way come to their end."""
        if self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)

    # ---- what there is -----------------------------------------------------------------------------------

    @property
    def revision(self) -> int:
        """Of the last change of anything registered."""
        return self.ledger.revision

    @property
    def table(self) -> Table:
        return self._merge(self._supervisor.file_config)

    @property
    def services(self) -> Mapping[str, ServiceEntry]:
        """Of all sources, by full name."""
        return self.table.services

    def merge(self, file: Config) -> Config:
        """What a file says together with what is registered."""
        return self._merge(file).config

    def _merge(self, file: Config) -> Table:
        """Asked for again and again, for each row of a listing: without a change there is nothing to do."""
        made = self._table
        if made is not None and made[0] == self.ledger.changes and made[1].file is file:
            return made[1]
        table = self._merger.merge(file, self.ledger.registered)
        self._table = self.ledger.changes, table
        return table

    def service(self, name: str) -> ServiceEntry:
        """Raises NotFoundError."""
        services = self.services
        if name not in services:
            raise NotFoundError(f'no service is named "{name}"{near(name, services)}')
        return services[name]

    def endpoint(self, service: str, address: str) -> EndpointEntry:
        """Raises NotFoundError."""
        endpoints = self.service(service).endpoints
        if address not in endpoints:
            raise NotFoundError(f'service "{service}" has no endpoint "{address}"{near(address, endpoints)}')
        return endpoints[address]

    def admin_of(self, service: str, address: str) -> Admin:
        override = self.ledger.override((service, address))
        return override.admin if override is not None else "ready"

    # ---- endpoints ---------------------------------------------------------------------------------------

    async def register(
        self,
        service: str,
        spec: Endpoint | Mapping[str, Any],
        *,
        by: str,
        lease_ttl: float | None = None,
        if_revision: int | None = None,
        also: Also | None = None,
    ) -> Applied:
        """Add an endpoint, or say anew what it is like. With a lease it stays for `lease_ttl` seconds from
        now and from each `renew`.
        """
        endpoint = valid(Endpoint, spec)
        if lease_ttl is not None and not LEASE_MIN_S <= lease_ttl <= LEASE_MAX_S:
            raise RefusedError(f"a lease is {LEASE_MIN_S:g} to {LEASE_MAX_S:g} seconds, not {lease_ttl:g}")
        found = (await self._supervisor.look_up([endpoint.address]))[endpoint.address]
        if isinstance(found, OSError):
            raise RefusedError(f'"{endpoint.address}" cannot be looked up: {found.strerror or found}')
        key = (service, endpoint.address)
        former = self.ledger.of(service)

        async def make(change: Change) -> None:
            nonlocal former
            former = self.ledger.of(service)
            now = self.clock()
            lease = None if lease_ttl is None else Lease(lease_ttl, now + lease_ttl)
            entry = EndpointEntry(service, endpoint, "api", now, by, change.revision, lease)
            await self._register(change, entry, if_revision, also)

        async def make_and_apply() -> Applied:
            change, _ = await self.ledger.change(make)
            self.leases.renewed(key)
            return await self._in_force(change, key, former)

        return await self._whole(make_and_apply())

    async def _register(
        self, change: Change, entry: EndpointEntry, if_revision: int | None, also: Also | None
    ) -> None:
        service, address, by = entry.service, entry.address, entry.registered_by
        known, mine = self.service(service), self.ledger.of_api(service)
        there, before = known.endpoints.get(address), mine.get(address)
        check_revision(f'endpoint "{address}"', there, if_revision)
        self._check(known, entry, new=there is None)
        if before is not None:
            entry = replace(entry, registered=before.registered)
        await records.put_endpoint(change, entry)
        kind = "endpoint.registered" if before is None else "endpoint.changed"
        data = entry.endpoint.model_dump(mode="json", exclude={"address"}) | {"lease_ttl": entry.lease_ttl}
        await self.events.add(change, kind, by=by, service=service, address=address, data=data)
        self.ledger.update_api(change, service, {**mine, address: entry})
        if also is not None:
            hidden = there is not None and there.source == "file"
            await also(change, there if hidden else self._overridden(entry))

    def _overridden(self, entry: EndpointEntry) -> EndpointEntry:
        override = self.ledger.override(entry.key)
        return entry if override is None else entry.overridden(what_counts(override, entry))

    def _check(self, service: ServiceEntry, entry: EndpointEntry, *, new: bool) -> None:
        """Raises RefusedError for what could not be put in force."""
        file = self._supervisor.file_config
        if (why := World(file, service.full_name, service.settings).refuses(entry)) is not None:
            raise RefusedError(why)
        if new and sum(len(one.endpoints) for one in self.services.values()) >= file.proxy.max_endpoints:
            raise RefusedError(
                f"there is room for {file.proxy.max_endpoints} endpoints; raise [proxy] max_endpoints and "
                "run turnout upgrade"
            )

    async def renew(self, service: str, address: str, *, by: str) -> float:  # noqa: ARG002 - for who audits
        """Prolong a lease; returns when it ends now. KeyError when there is none any more. Kept in memory
        only: a restart gives every lease its whole time.
        """
        entry = self.ledger.of_api(service)[address]
        if entry.lease is not None and entry.lease.ending:
            raise KeyError(address)
        if entry.lease is None:
            raise RefusedError(
                f'endpoint "{address}" of "{service}" has no lease: it stays until deregistered'
            )
        entry.lease.expires = self.clock() + entry.lease.ttl
        self.leases.renewed(entry.key)
        return entry.lease.expires

    async def deregister(
        self,
        service: str,
        address: str,
        *,
        by: str,
        if_revision: int | None = None,
        also: Also | None = None,
    ) -> Applied:
        """Take an endpoint out, and forget what was set for it at run time."""
        key = (service, address)

        async def make(change: Change) -> None:
            entry, mine = self.endpoint(service, address), self.ledger.of_api(service)
            check_revision(f'endpoint "{address}"', entry, if_revision)
            if address not in mine:
                where = "stands in the file; take it out there" if entry.source == "file" else "is discovered"
                raise RefusedError(f'endpoint "{address}" of "{service}" {where}')
            await records.remove(change, schema.endpoints, records.of_endpoint(key))
            await self.events.add(change, "endpoint.deregistered", by=by, service=service, address=address)
            if entry.source == "api":
                await records.put_override(change, key, Override())
                self.ledger.update_override(change, key, Override())
            left = {one: other for one, other in mine.items() if one != address}
            self.ledger.update_api(change, service, left)
            if also is not None:
                await also(change, None)

        async def make_and_apply() -> Applied:
            change, _ = await self.ledger.change(make)
            self.leases.renewed(key)
            return await self._in_force(change, key)

        return await self._whole(make_and_apply())

    async def expire(self, entries: list[EndpointEntry], *, by: str) -> None:
        """Take out endpoints whose leases have ended; what was set for them at run time stays: they may come
        back.
        """
        gone: list[EndpointEntry] = []

        async def make(change: Change) -> None:
            gone[:] = filter(self._has_ended, entries)
            mark_ending(gone, ending=True)
            for entry in gone:
                await records.remove(change, schema.endpoints, records.of_endpoint(entry.key))
                data = {"lease_ttl": entry.lease_ttl}
                await self.events.add(
                    change, "endpoint.expired", by=by, service=entry.service, address=entry.address, data=data
                )
            for service in dict.fromkeys(entry.service for entry in gone):
                lost = {entry.address for entry in gone if entry.service == service}
                mine = self.ledger.of_api(service)
                left = {one: other for one, other in mine.items() if one not in lost}
                self.ledger.update_api(change, service, left)

        try:
            await self.ledger.change(make)
        finally:
            mark_ending(gone, ending=False)
        if gone:
            await self.refresh()

    def _has_ended(self, entry: EndpointEntry) -> bool:
        """Still: it may have been renewed, or made anew, while this waited for its turn."""
        there = self.ledger.of_api(entry.service).get(entry.address)
        return there is entry and entry.expires is not None and entry.expires <= self.clock()

    # ---- services ----------------------------------------------------------------------------------------

    async def put_service(
        self,
        full_name: str,
        settings: Service | Mapping[str, Any],
        *,
        by: str,
        if_revision: int | None = None,
    ) -> Applied:
        """Make a service, or say anew what it is like. Endpoints are registered one by one. A service that
        the file has is changed there.
        """
        service = valid(Service, settings)
        try:
            check_service_name(full_name)
        except ValueError as error:
            raise RefusedError(str(error)) from None
        if service.endpoints:
            raise RefusedError("endpoints do not stand in a service here; register them one by one")
        check_is_remote(service)
        former = self.ledger.of(full_name)

        async def make(change: Change) -> None:
            nonlocal former
            former = self.ledger.of(full_name)
            await self._put_service(change, full_name, service, by, if_revision)

        async def make_and_apply() -> Applied:
            change, _ = await self.ledger.change(make)
            return await self._in_force(change, full_name, former)

        return await self._whole(make_and_apply())

    async def _put_service(
        self, change: Change, name: str, service: Service, by: str, if_revision: int | None
    ) -> None:
        there = self.services.get(name)
        check_revision(f'service "{name}"', there, if_revision)
        if there is not None and there.source == "file":
            raise RefusedError(f'service "{name}" stands in the file; change it there')
        for entry in there.endpoints.values() if there is not None else ():
            if (why := service.refuses(entry.endpoint)) is not None:
                raise RefusedError(why)
        await records.put_service(change, name, service, by)
        kind = "service.registered" if there is None else "service.changed"
        data = hidden.service_settings(service)
        await self.events.add(change, kind, by=by, service=name, data=data)
        self.ledger.update(change, name, settings=service)

    async def delete_service(self, full_name: str, *, by: str, if_revision: int | None = None) -> Applied:
        """With all its endpoints; also what is left of one that has been taken out of the file."""

        async def make(change: Change) -> None:
            left = self.ledger.of(full_name)
            there = self.services.get(full_name) if not left.empty else self.service(full_name)
            check_revision(f'service "{full_name}"', there, if_revision)
            if there is not None and there.source == "file":
                raise RefusedError(f'service "{full_name}" stands in the file; take it out there')
            for table in (schema.services, schema.endpoints, schema.overrides, schema.splits):
                await records.remove(change, table, records.of_service(full_name))
            data = {"endpoints": len(left.sources.get("api", {}))}
            await self.events.add(change, "service.removed", by=by, service=full_name, data=data)
            self.ledger.update(change, full_name, settings=None, sources={}, overrides={}, split=None)

        async def make_and_apply() -> Applied:
            change, _ = await self.ledger.change(make)
            return await self._in_force(change, full_name)

        return await self._whole(make_and_apply())

    # ---- at run time -------------------------------------------------------------------------------------

    async def set_weight(
        self,
        service: str,
        address: str,
        weight: int | None,
        *,
        by: str,
        if_revision: int | None = None,
        also: Also | None = None,
    ) -> Applied:
        """Until the endpoint's source says another one than it does now; None: what that says."""
        if weight is not None and not 0 <= weight <= 65535:
            raise RefusedError(f"a weight is 0 to 65535, not {weight}")

        def changed(entry: EndpointEntry) -> Override:
            said = entry.endpoint.weight
            if weight is None or weight == said:
                return replace(entry.override, weight=None, weight_said=None)
            return replace(entry.override, weight=weight, weight_said=said)

        return await self._override(
            (service, address), changed, "endpoint.weight", by=by, if_revision=if_revision, also=also
        )

    async def set_admin(
        self,
        service: str,
        address: str,
        admin: Admin,
        *,
        by: str,
        reason: str = "",
        until: float | None = None,
        if_revision: int | None = None,
        also: Also | None = None,
    ) -> Applied:
        """To "drain": bound sessions only, or "maint": nothing; "ready" again by itself at `until` (seconds
        since the epoch). It outlives an expired lease: an endpoint comes back as it was left.
        """
        if until is not None and (admin == "ready" or until <= self.clock()):
            raise RefusedError('"until" is a time to come, and goes with drain or maint')

        reason = storable(reason)

        def changed(entry: EndpointEntry) -> Override:
            if admin == "ready":
                return replace(entry.override, admin="ready", reason="", by="", until=None)
            return replace(entry.override, admin=admin, reason=reason, by=by, until=until)

        return await self._override(
            (service, address),
            changed,
            "endpoint.admin",
            by=by,
            if_revision=if_revision,
            reason=reason,
            also=also,
        )

    async def _override(
        self,
        key: Key,
        changed: Callable[[EndpointEntry], Override],
        kind: str,
        *,
        by: str,
        if_revision: int | None,
        reason: str = "",
        also: Also | None = None,
    ) -> Applied:
        async def make(change: Change) -> None:
            entry = self.endpoint(*key)
            check_revision(f'endpoint "{key[1]}"', entry, if_revision)
            override = replace(changed(entry), revision=change.revision)
            after = entry.overridden(override)
            data = {
                "weight": after.weight,
                "admin": after.admin,
                "reason": reason,
                "until": after.admin_until,
                "before": {"weight": entry.weight, "admin": entry.admin},
            }
            await records.put_override(change, key, override)
            await self.events.add(change, kind, by=by, service=key[0], address=key[1], data=data)
            self.ledger.update_override(change, key, override)
            if also is not None:
                await also(change, after)

        async def make_and_store() -> Applied:
            change, _ = await self.ledger.change(make)
            entry = self.endpoint(*key)
            if self._supervisor.serving and not entry.unfit:
                with contextlib.suppress(KeyError):  # not in force yet: it will begin so
                    self._supervisor.set_admin(*key, entry.admin)
                    self._supervisor.set_weight(*key, entry.weight)
            return Applied(change.revision, self._supervisor.version, entry)

        return await self._whole(make_and_store())

    async def set_split(
        self, service: str, shares: Mapping[str, float], *, by: str, if_revision: int | None = None
    ) -> Applied:
        """Of new sessions for each version, in any unit; versions left out get 0. Until the service's source
        says another split than it does now.
        """

        async def make(change: Change) -> None:
            entry = self.service(service)
            check_revision(f'service "{service}"', entry, if_revision)
            said = self._said(service).split
            if said is None:
                raise RefusedError(f'service "{service}" has no split; give it one where it is made')
            self._check_shares(entry, said, shares)
            split = SplitSet(dict(shares), dict(said), by, change.revision)
            await records.put_split(change, service, split)
            data = {"shares": dict(shares), "before": entry.settings.split}
            await self.events.add(change, "split.changed", by=by, service=service, data=data)
            self.ledger.update(change, service, split=split)

        async def make_and_store() -> Applied:
            change, _ = await self.ledger.change(make)
            if self._supervisor.serving:
                await self._supervisor.set_split(service, dict(shares))
            return Applied(change.revision, self._supervisor.version, self.service(service))

        return await self._whole(make_and_store())

    def _said(self, service: str) -> Service:
        """What the service's source says."""
        settings = self._supervisor.file_config.services.get(service) or self.ledger.of(service).settings
        assert settings is not None
        return settings

    def _check_shares(
        self, service: ServiceEntry, said: Mapping[str, float], shares: Mapping[str, float]
    ) -> None:
        versions = {*said, *(one.version for one in service.endpoints.values())}
        for version in shares:
            if version not in versions:
                hint = near(version, versions)
                raise NotFoundError(f'service "{service.full_name}" has no version "{version}"{hint}')
        try:
            shares_of(dict(shares))
        except ValueError as error:
            raise RefusedError(str(error)) from None

    async def forget_overruled(self, *, by: str) -> None:
        """What was set at run time and is overruled must not come back when the source says once more what
        it said then.
        """
        table = self.table
        if not (table.stale or table.stale_splits):
            return

        async def make(change: Change) -> None:
            for key in self.table.stale:
                override = self.ledger.override(key)
                if override is not None:
                    left = replace(override, weight=None, weight_said=None)
                    await records.put_override(change, key, left)
                    self.ledger.update_override(change, key, left)
            for name in self.table.stale_splits:
                await records.remove(change, schema.splits, records.of_service(name))
                self.ledger.update(change, name, split=None)
            await self.events.add(change, "config.overruled", by=by)

        await self.ledger.change(make)

    # ---- other sources -----------------------------------------------------------------------------------

    async def offer(
        self, source: Source, service: str, endpoints: Mapping[str, Endpoint] | None, *, reason: str = ""
    ) -> None:
        """What a source such as "dns" knows of a service now; None: nothing any more. In memory only; in
        force when this returns, or once workers serve.
        """
        one = self.ledger.of(service)
        before, now = one.sources.get(source, {}), self.clock()
        entries = {
            address: before[address]
            if address in before and before[address].endpoint == endpoint
            else EndpointEntry(service, endpoint, source, now, reason or source)
            for address, endpoint in (endpoints or {}).items()
        }
        if entries == before:
            return
        self.ledger.keep(service, replace(one, sources=in_order({**one.sources, source: entries})))
        kinds = {
            "endpoint.registered": entries.keys() - before,
            "endpoint.deregistered": before.keys() - entries,
        }
        for kind, addresses in kinds.items():
            for address in sorted(addresses):
                self.events.publish(
                    kind, by=source, service=service, address=address, data={"reason": reason}
                )
        await self.refresh()

    # ---- in force ----------------------------------------------------------------------------------------

    async def refresh(self) -> int:
        """Put in force what is here. Before workers serve there is nothing to do."""
        return await self._supervisor.refresh() if self._supervisor.serving else 0

    async def _in_force(self, change: Change, what: Key | str, former: Registered | None = None) -> Applied:
        """`former`: what is put back when no snapshot can be made of this change; then RefusedError."""
        try:
            snapshot = await self.refresh()
        except ConfigError as error:
            if former is None:
                raise
            await self._undo(what, former)
            raise RefusedError(f"it cannot be put in force: {error}") from None
        service = self.services.get(what if isinstance(what, str) else what[0])
        if isinstance(what, str) or service is None:
            return Applied(change.revision, snapshot, service)
        return Applied(change.revision, snapshot, service.endpoints.get(what[1]))

    async def _undo(self, what: Key | str, former: Registered) -> None:
        async def make(change: Change) -> None:
            if isinstance(what, str):
                if former.settings is None:
                    await records.remove(change, schema.services, records.of_service(what))
                else:
                    await records.put_service(change, what, former.settings, "turnout")
                self.ledger.update(change, what, settings=former.settings)
                return
            service, address = what
            before = former.sources.get("api", {}).get(address)
            now = {one: other for one, other in self.ledger.of_api(service).items() if one != address}
            if before is None:
                await records.remove(change, schema.endpoints, records.of_endpoint(what))
            else:
                await records.put_endpoint(change, before)
                now[address] = before
            self.ledger.update_api(change, service, now)

        await self.ledger.change(make)

    async def _whole(self, work: Coroutine[Any, Any, T]) -> T:
        """To its end, whatever becomes of the caller."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return await asyncio.shield(task)


def mark_ending(entries: Iterable[EndpointEntry], *, ending: bool) -> None:
    """Nobody is told that a lease goes on while it is being taken out."""
    for entry in entries:
        assert entry.lease is not None
        entry.lease.ending = ending
