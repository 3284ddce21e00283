"""What the registry has of services and endpoints. Entries are values: a change makes a new one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from turnout.ext.scoreboard import Admin
from turnout.proxy.model import Endpoint, Kind, Service, split_name

Source = Literal["file", "api", "dns"]
SOURCES: tuple[Source, ...] = ("file", "api", "dns")
"""Of two that have the same address, the first says its settings."""
Key = tuple[str, str]
"""Full name of the service, address as written."""


@dataclass(frozen=True)
class Override:
    """Set at run time. `weight` counts until the endpoint's source says another one than `weight_said`."""

    weight: int | None = None
    weight_said: int | None = None
    admin: Admin = "ready"
    reason: str = ""
    by: str = ""
    until: float | None = None
    revision: int = 0

    @property
    def empty(self) -> bool:
        return self.weight is None and self.admin == "ready"


@dataclass(frozen=True)
class SplitSet:
    """Set at run time; counts until the service's source says another split than `said`."""

    shares: dict[str, float]
    said: dict[str, float]
    by: str = ""
    revision: int = 0


@dataclass
class Lease:
    """`expires` moves with each renewal, and is shared by all entries of the endpoint. `ending`: it is being
    taken out, and cannot be renewed any more.
    """

    ttl: float
    expires: float
    ending: bool = False


@dataclass(frozen=True)
class EndpointEntry:
    """`endpoint` is what its source says, `effective` what is in force. Times: seconds since the epoch.

    `unfit` says why it is left out of what is in force, "" when it is not.
    """

    service: str
    endpoint: Endpoint
    source: Source
    registered: float = 0.0
    registered_by: str = ""
    revision: int = 0
    lease: Lease | None = None
    override: Override = Override()
    unfit: str = ""
    effective: Endpoint = field(init=False)

    def __post_init__(self) -> None:
        weight = self.override.weight
        changed = weight is not None and weight != self.endpoint.weight
        effective = self.endpoint.model_copy(update={"weight": weight}) if changed else self.endpoint
        object.__setattr__(self, "effective", effective)

    @property
    def key(self) -> Key:
        return self.service, self.endpoint.address

    @property
    def address(self) -> str:
        return self.endpoint.address

    @property
    def weight(self) -> int:
        return self.effective.weight

    @property
    def version(self) -> str:
        return self.endpoint.version

    @property
    def priority(self) -> int:
        return self.endpoint.priority

    @property
    def tags(self) -> tuple[str, ...]:
        return self.endpoint.tags

    @property
    def metadata(self) -> dict[str, str]:
        return self.endpoint.metadata

    @property
    def lease_ttl(self) -> float | None:
        return None if self.lease is None else self.lease.ttl

    @property
    def expires(self) -> float | None:
        return None if self.lease is None else self.lease.expires

    @property
    def admin(self) -> Admin:
        return self.override.admin

    @property
    def admin_reason(self) -> str:
        return self.override.reason

    @property
    def admin_by(self) -> str:
        return self.override.by

    @property
    def admin_until(self) -> float | None:
        return self.override.until

    def is_made_of(self, entry: EndpointEntry) -> bool:
        """Whether this is that entry, but for what was set at run time."""
        return self.endpoint is entry.endpoint and self.lease is entry.lease and self.unfit == entry.unfit

    def overridden(self, override: Override) -> EndpointEntry:
        return replace(self, override=override, revision=max(self.revision, override.revision))


@dataclass(frozen=True)
class ServiceEntry:
    """`settings` are in force, without endpoints; `revision` is that of the last change of the service or any
    of its endpoints through the registry.
    """

    full_name: str
    source: Source
    settings: Service
    endpoints: Mapping[str, EndpointEntry]
    revision: int = 0

    @property
    def namespace(self) -> str:
        return split_name(self.full_name)[0]

    @property
    def name(self) -> str:
        return split_name(self.full_name)[1]

    @property
    def kind(self) -> Kind:
        return self.settings.kind


@dataclass(frozen=True)
class Applied:
    """A change that is durable and in force: every worker has the snapshot."""

    revision: int
    snapshot: int
    entry: EndpointEntry | ServiceEntry | None = None
