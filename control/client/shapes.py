"""What the API gives, for type checkers. Times are Unix epoch in seconds unless said otherwise. An API that
is newer than this client may give more.
"""

from __future__ import annotations

from typing import Any, Generic, Literal, TypedDict, TypeVar

T = TypeVar("T")
Admin = Literal["ready", "drain", "maint"]
Beat = Literal["pass", "warn", "fail"]
Role = Literal["viewer", "operator", "deployer", "admin"]


class Page(TypedDict, Generic[T]):
    """`next`: the cursor of the page behind it; null at the end."""

    items: list[T]
    next: str | None


class Recent(TypedDict):
    """Rates over the last seconds; times are null when there was no request."""

    requests_per_s: float
    errors_per_s: float
    p50_ms: float | None
    p99_ms: float | None


class Service(TypedDict):
    """`name` is the full one; `endpoints` counts all, `available` those that take new sessions."""

    name: str
    namespace: str
    kind: str
    source: str
    revision: int
    balance: str
    health: str
    endpoints: int
    available: int
    versions: list[str]
    split: dict[str, float]


class ServiceDetail(Service):
    """`settings` as in a table [services.NAME] of the file."""

    settings: dict[str, Any]


class Endpoint(Recent):
    """`unfit` says why it is not in force, "" when it is; `expires` is when the lease ends."""

    address: str
    version: str
    admin: Admin
    health: str
    check: str | None
    check_reason: str
    breaker: str
    breaker_trips: int
    weight: int
    in_flight: int
    connections: int
    idle: int
    requests: int
    errors: int
    reuse: float | None
    service: str
    source: str
    priority: int
    tags: list[str]
    metadata: dict[str, str]
    registered: float
    registered_by: str
    revision: int
    lease_ttl: float | None
    expires: float | None
    admin_reason: str
    admin_by: str
    admin_until: float | None
    unfit: str


class Turn(TypedDict):
    """A change of an endpoint's health, with the reason in words."""

    time: float
    status: str
    reason: str


class Health(TypedDict):
    """`status` is up, degraded, down, flapping, assumed, unknown or unchecked; `check` the kind of its check.
    `successes` and `failures` are those in a row.
    """

    service: str
    address: str
    status: str
    up: bool
    check: str | None
    reason: str
    since: float | None
    checked: float | None
    ms: float | None
    mean_ms: float | None
    successes: int
    failures: int
    flaps: float
    history: list[Turn]


class Changed(TypedDict):
    """In force: every worker has this snapshot."""

    snapshot: int
    revision: int


class Event(TypedDict):
    revision: int
    time: float
    kind: str
    service: str | None
    address: str | None
    by: str
    data: dict[str, Any]


class ConfigText(TypedDict):
    version: int
    text: str


class Version(TypedDict):
    version: int
    time: float
    by: str
    note: str
    digest: str
    size: int


class VersionText(Version):
    text: str


class ConfigApplied(TypedDict):
    """`diff` is unified; `applied` is false for what was only tried."""

    version: int
    snapshot: int
    diff: str
    applied: bool


class Token(TypedDict):
    """`state` is valid, expired or revoked."""

    id: str
    name: str
    role: Role
    namespaces: list[str]
    state: str
    created: float
    created_by: str
    expires: float | None
    revoked: float | None
    revoked_by: str | None
    last_used: float | None


class NewToken(Token):
    """`token` is shown once."""

    token: str


class AuditEntry(TypedDict):
    """`n` counts from 1, `time` is in milliseconds; `before` and `after` are JSON texts."""

    n: int
    time: int
    kind: str
    actor: str
    role: str
    source: str
    action: str
    subject: str
    before: str
    after: str
    result: str
    detail: str
    hash: str


class Broken(TypedDict):
    """The first entry that is not what was written, or is missing."""

    n: int
    why: str


class End(TypedDict):
    """The last entry that is right: noted elsewhere, its hash shows later that it is still the same."""

    n: int
    hash: str


class Verdict(TypedDict):
    ok: bool
    entries: int
    head: End
    broken: Broken | None
