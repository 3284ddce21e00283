"""What is registered, in memory as in the store: every change is durable before it is seen here."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any, Protocol, TypeVar

from turnout.control.registry import records
from turnout.control.registry.entries import SOURCES, EndpointEntry, Key, Override
from turnout.control.registry.errors import UnavailableError
from turnout.control.registry.table import NOTHING, Registered
from turnout.control.storage.store import Change, FencedError, Store, StoreError

T = TypeVar("T")
Make = Callable[[Change], Awaitable[T]]


class Holder(Protocol):
    """Whoever may lose the store to another program."""

    @property
    def handed_over(self) -> bool: ...

    async def upgraded(self) -> None: ...

    async def look_up(self, addresses: Iterable[str]) -> dict[str, str | OSError]: ...


class Ledger:
    """`registered`: by full name of the service; values that are never changed in place."""

    def __init__(self, holder: Holder, store: Store, clock: Callable[[], float]) -> None:
        self.registered: dict[str, Registered] = {}
        self.changes = 0
        """Of `registered`, counted: whether it is as it was can be told without looking through it."""
        self.revision = 0
        self._holder = holder
        self._store = store
        self._clock = clock
        self._alone = asyncio.Lock()
        self._unread = False  # the store may have what is not here

    # ---- to read -----------------------------------------------------------------------------------------

    def of(self, service: str) -> Registered:
        return self.registered.get(service, NOTHING)

    def of_api(self, service: str) -> Mapping[str, EndpointEntry]:
        return self.of(service).sources.get("api", {})

    def override(self, key: Key) -> Override | None:
        return self.of(key[0]).overrides.get(key[1])

    async def read(self) -> None:
        """What the store has; what other sources have offered stays. Raises StoreError."""
        await self._store.refresh()
        stored = await records.read(self._store, self._clock())
        names = [*stored.services, *stored.endpoints, *stored.overrides, *stored.splits]
        registered = {name: self._of_records(stored, name) for name in names}
        await self._find_addresses(registered)
        for name, one in self.registered.items():  # as it is by now: looking for addresses takes its time
            offered = {source: some for source, some in one.sources.items() if source != "api"}
            if offered:
                own = registered.get(name, NOTHING)
                registered[name] = replace(own, sources=in_order({**own.sources, **offered}))
        self.registered = {name: one for name, one in registered.items() if not one.empty}
        self.changes += 1
        self.revision = max([self.revision, *(one.revision for one in self.registered.values())])
        self._unread = False

    def _of_records(self, stored: records.Records, name: str) -> Registered:
        settings, revision = stored.services.get(name, (None, 0))
        api, overrides, split = stored.endpoints[name], stored.overrides[name], stored.splits.get(name)
        revisions = [entry.revision for entry in api.values()] + [one.revision for one in overrides.values()]
        newest = max([revision, *revisions, split.revision if split is not None else 0])
        return Registered(settings, in_order({"api": api}), overrides, split, newest)

    async def _find_addresses(self, registered: dict[str, Registered]) -> None:
        """Endpoints whose name has no address now are left out until it has one."""
        entries = [
            entry for one in registered.values() for some in one.sources.values() for entry in some.values()
        ]
        found = await self._holder.look_up([entry.address for entry in entries])
        for name, one in registered.items():
            if any(isinstance(found[address], OSError) for some in one.sources.values() for address in some):
                registered[name] = with_addresses(one, found)

    async def look_again(self) -> bool:
        """For addresses of what was left out; whether there are some now."""
        addresses = [
            entry.address
            for one in self.registered.values()
            for some in one.sources.values()
            for entry in some.values()
            if entry.unfit
        ]
        found = await self._holder.look_up(addresses)
        good = {address for address, number in found.items() if not isinstance(number, OSError)}
        for name, one in list(self.registered.items()):
            if any(good & some.keys() for some in one.sources.values()):
                self.keep(name, with_addresses(one, found))
        return bool(good)

    # ---- to write ----------------------------------------------------------------------------------------

    async def claim(self) -> bool:
        """Be the one that writes; whether another one has written since `read`. Raises StoreError."""
        async with self._alone:
            before = self._store.revision
            if await self._store.claim() == before:
                return False
            await self.read()
            return True

    async def change(self, make: Make[T]) -> tuple[Change, T]:
        """One durable change, alone; `make` is called again when another process had written meanwhile.
        Raises UnavailableError, and what `make` raises: nothing has changed then.
        """
        async with self._alone:
            try:
                return await self._change_or_take_back(make)
            except StoreError as error:
                self._unread = True
                raise UnavailableError(str(error)) from None

    async def _change_or_take_back(self, make: Make[T]) -> tuple[Change, T]:
        try:
            return await self._change(make)
        except FencedError:
            await self._take_back()
            return await self._change(make)

    async def _change(self, make: Make[T]) -> tuple[Change, T]:
        if self._unread:
            await self.read()
        return await self._store.made(make)

    async def _take_back(self) -> None:
        """The heir of an upgrade had claimed the store. Either it serves by now, or it has failed."""
        await self._holder.upgraded()
        if self._holder.handed_over:
            raise UnavailableError("another program has taken over meanwhile; ask again, it will answer")
        await self._store.claim()
        await self.read()

    def update(self, change: Change, service: str, **fields: Any) -> None:
        """Fields of Registered, once the change is durable."""
        self._then(change, service, lambda _: fields)

    def update_api(self, change: Change, service: str, entries: Mapping[str, EndpointEntry]) -> None:
        """All endpoints that the API has registered, once the change is durable."""
        self._then(change, service, lambda one: {"sources": in_order({**one.sources, "api": entries})})

    def update_override(self, change: Change, key: Key, override: Override) -> None:
        """Once the change is durable; an empty one is none."""
        service, address = key

        def fields(one: Registered) -> dict[str, Any]:
            overrides = {there: item for there, item in one.overrides.items() if there != address}
            if not override.empty:
                overrides[address] = override
            return {"overrides": overrides}

        self._then(change, service, fields)

    def _then(self, change: Change, service: str, fields: Callable[[Registered], dict[str, Any]]) -> None:
        """`fields` are asked for when the change is durable: others may have come before it."""

        def done() -> None:
            one = self.of(service)
            self.keep(service, replace(one, revision=change.revision, **fields(one)))
            self.revision = change.revision

        change.then(done)

    def keep(self, service: str, one: Registered) -> None:
        """In memory only."""
        self.changes += 1
        if one.empty:
            self.registered.pop(service, None)
        else:
            self.registered[service] = one


def in_order(sources: Mapping[str, Mapping[str, EndpointEntry]]) -> dict[str, dict[str, EndpointEntry]]:
    """As SOURCES; those that have nothing are left out."""
    return {source: dict(sources[source]) for source in SOURCES if sources.get(source)}


def with_addresses(one: Registered, found: Mapping[str, str | OSError]) -> Registered:
    """With what is wrong with the addresses of its endpoints, as far as that was found out."""
    sources = {
        source: {
            address: replace(entry, unfit=unfit(found[address])) if address in found else entry
            for address, entry in some.items()
        }
        for source, some in one.sources.items()
    }
    return replace(one, sources=sources)


def unfit(found: str | OSError) -> str:
    return f"cannot be looked up: {found.strerror or found}" if isinstance(found, OSError) else ""
