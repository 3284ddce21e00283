"""The one table: what the file says, what is registered and what was set at run time, merged.

Merging is pure and waits for nothing. Of two sources with the same endpoint the first of SOURCES says its
settings; a service that the file has is as the file says. What was set at run time counts until the source
says something new. An endpoint that does not fit its service is left out, with the reason.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from turnout.control.registry.entries import EndpointEntry, Key, Override, ServiceEntry, SplitSet
from turnout.proxy.model import Config, Service
from turnout.proxy.sense import without_http

Endpoints = dict[str, EndpointEntry]


@dataclass(frozen=True)
class Registered:
    """Of one service: what is in no file. Values; a change makes a new one, and so tells that there was one.

    `settings` are those of a service registered through the API. `sources` are ordered as SOURCES.
    """

    settings: Service | None = None
    sources: Mapping[str, Endpoints] = field(default_factory=dict)
    overrides: Mapping[str, Override] = field(default_factory=dict)
    split: SplitSet | None = None
    revision: int = 0

    @property
    def empty(self) -> bool:
        return not (self.settings or any(self.sources.values()) or self.overrides or self.split)


NOTHING = Registered()


@dataclass(frozen=True)
class Table:
    """`config` is the file's with everything merged in, `stale` what was set at run time and is overruled."""

    file: Config
    config: Config
    services: Mapping[str, ServiceEntry]
    stale: tuple[Key, ...]
    stale_splits: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class _Merged:
    """One service, and what it was made of."""

    said: Service | None
    registered: Registered
    own: Endpoints
    entry: ServiceEntry
    service: Service
    stale: tuple[Key, ...]
    stale_split: bool


class Merger:
    """Merges again and again; what has not changed is not made anew."""

    def __init__(self) -> None:
        self._merged: dict[str, _Merged] = {}
        self._table: Table | None = None

    def merge(self, file: Config, registered: Mapping[str, Registered]) -> Table:
        merged: dict[str, _Merged] = {}
        for name in (*file.services, *(name for name in registered if name not in file.services)):
            said, more = file.services.get(name), registered.get(name, NOTHING)
            if said is None and more.settings is None:
                continue
            before = self._merged.get(name)
            if before is not None and before.said is not said:
                before = None
            if before is not None and before.registered is more:
                merged[name] = before
            else:
                merged[name] = merge_service(file, name, more, before)
        table, same = self._table, list(self._merged.items()) == list(merged.items())
        if table is not None and table.file is file and same:
            return table
        self._merged = merged
        services = {name: one.service for name, one in merged.items()}
        self._table = Table(
            file,
            file.model_copy(update={"services": services}),
            {name: one.entry for name, one in merged.items()},
            tuple(key for one in merged.values() for key in one.stale),
            tuple(name for name, one in merged.items() if one.stale_split),
        )
        return self._table


def merge_service(file: Config, name: str, more: Registered, before: _Merged | None) -> _Merged:
    """`before` is what was made of it when the file said the same."""
    said = file.services.get(name)
    settings = said if said is not None else more.settings
    assert settings is not None
    own = before.own if before is not None else of_file(name, said)
    former = before.entry.endpoints if before is not None else {}
    split, stale_split = split_in_force(settings, more)
    entries = dict(own)
    for source in more.sources.values():
        for address, entry in source.items():
            entries.setdefault(address, entry)
    stale = tuple(overridden(name, entries, more.overrides, former))
    if any(more.sources.values()):
        mark_unfit(file, name, settings, entries)
    bare = settings.model_copy(update={"endpoints": (), "split": split})
    endpoints = tuple(entry.effective for entry in entries.values() if not entry.unfit)
    service = bare.model_copy(update={"endpoints": endpoints})
    service_entry = ServiceEntry(name, "file" if said is not None else "api", bare, entries, more.revision)
    return _Merged(said, more, own, service_entry, service, stale, stale_split)


def of_file(name: str, said: Service | None) -> Endpoints:
    endpoints = said.endpoints if said is not None else ()
    return {endpoint.address: EndpointEntry(name, endpoint, "file") for endpoint in endpoints}


def split_in_force(settings: Service, more: Registered) -> tuple[dict[str, float] | None, bool]:
    """And whether what was set at run time is overruled."""
    if more.split is None:
        return settings.split, False
    if more.split.said != settings.split:
        return settings.split, True
    return {**dict.fromkeys(settings.split, 0.0), **more.split.shares}, False


def overridden(
    name: str,
    entries: Endpoints,
    overrides: Mapping[str, Override],
    former: Mapping[str, EndpointEntry],
) -> Iterator[Key]:
    """Put overrides into `entries`; yields those that have nothing to say any more. The state of an endpoint
    that is gone for a while stays: it comes back as it was left.
    """
    for address, override in overrides.items():
        entry = entries.get(address)
        if entry is None:
            continue
        counts = what_counts(override, entry)
        if counts is not override:
            override = counts
            yield name, address
        before = former.get(address)
        made = before is not None and before.override is override and before.is_made_of(entry)
        entries[address] = before if made and before is not None else entry.overridden(override)


def what_counts(override: Override, entry: EndpointEntry) -> Override:
    """A weight does until the endpoint's source says another one than it did then."""
    if override.weight is not None and override.weight_said != entry.endpoint.weight:
        return replace(override, weight=None, weight_said=None)
    return override


def mark_unfit(file: Config, name: str, settings: Service, entries: Endpoints) -> None:
    """Endpoints that are in no file may stop to fit when the file changes."""
    world = World(file, name, settings)
    for address, entry in entries.items():
        if entry.source != "file" and (why := world.refuses(entry)) is not None:
            entries[address] = replace(entry, unfit=why)


class World:
    """A service with the listeners and routes around it."""

    def __init__(self, file: Config, name: str, settings: Service) -> None:
        self._name = name
        self._settings = settings
        self._strict = settings.host == "endpoint" or settings.proxy_protocol is not None
        routes = tuple(route for route in file.routes if route.service == name)
        protocols = {file.listeners[route.listener].protocol for route in routes if route.listener}
        self._around = file.model_copy(update={"routes": routes}) if protocols & {"tcp", "udp"} else None

    def refuses(self, entry: EndpointEntry) -> str | None:
        """Why an endpoint cannot be one of the service here."""
        why = entry.unfit or None
        if why is None and (self._strict or entry.address.startswith("unix:")):
            why = self._settings.refuses(entry.endpoint)
        if why is not None or self._around is None:
            return why
        alone = self._settings.model_copy(update={"endpoints": (entry.endpoint,)})
        config = self._around.model_copy(update={"services": {self._name: alone}})
        for where, what in without_http(config):
            if where[:2] == ("services", self._name):
                return f'"{entry.address}": {what}'
        return None
