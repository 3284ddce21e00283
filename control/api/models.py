"""What the API takes and gives. Inputs are pydantic models; outputs are typed dictionaries, which cost little
to make, and from which pydantic makes the schemas. Times are Unix epoch in seconds unless said otherwise.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, GetJsonSchemaHandler, RootModel
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema
from typing_extensions import TypedDict

from turnout.control.api.pages import Page
from turnout.control.api.routes import Body
from turnout.control.health.state import Status as HealthStatus
from turnout.control.status import EndpointStatus, ListenerStatus
from turnout.proxy.crew import WorkerRow
from turnout.proxy.model import CheckType, Service

# ---- the process -------------------------------------------------------------------------------------------


class Stop(Body):
    now: bool = Field(default=False, description="Do not wait for what is under way.")


class InForce(TypedDict):
    """What every worker has now."""

    snapshot: int


class Draining(TypedDict):
    state: Literal["draining"]


class Upgraded(TypedDict):
    """Process id of the new supervisor."""

    pid: int


class Workers(TypedDict):
    items: list[WorkerRow]


class Listeners(TypedDict):
    items: list[ListenerStatus]


class RouteRow(TypedDict):
    """A route as the file has it; times in milliseconds. `title` is its name in metrics and logs."""

    title: str
    name: str | None
    listener: str | None
    host: str | None
    path: str
    methods: list[str]
    headers: dict[str, str]
    service: str | None
    respond: dict[str, Any] | None
    redirect: dict[str, Any] | None
    strip_prefix: bool
    rewrite: str | None
    upgrade: list[str]
    request_headers: dict[str, Any]
    response_headers: dict[str, Any]
    log: dict[str, Any]


class Routes(TypedDict):
    items: list[RouteRow]


class Certificate(TypedDict):
    """`place` is the table that names it, `file` the path of its chain."""

    place: str
    file: str
    names: list[str]
    expires: float
    days_left: float


class Certificates(TypedDict):
    items: list[Certificate]


# ---- services ----------------------------------------------------------------------------------------------

Health = Literal["up", "degraded", "down"]
Kind = Literal["http", "https", "tcp", "udp", "grpc", "websocket"]
Source = Literal["file", "api", "dns"]
Admin = Literal["ready", "drain", "maint"]


class ServiceQuery(Page):
    namespace: str | None = Field(default=None, description="Of this namespace.")
    kind: Kind | None = Field(default=None, description="Of this kind.")
    source: Source | None = Field(default=None, description="From this source.")
    tag: str | None = Field(default=None, description="With an endpoint that has this tag.")
    version: str | None = Field(default=None, description="With an endpoint of this version.")
    health: Health | None = Field(
        default=None, description="up: every endpoint takes requests; degraded: some do; down: none does."
    )


class ServiceSpec(RootModel[dict[str, Any]]):
    """As a table [services.NAME] of the file, without endpoints."""

    @classmethod
    def __get_pydantic_json_schema__(
        cls, _schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        out = handler(Service.__pydantic_core_schema__)
        handler.resolve_ref_schema(out)["properties"].pop("endpoints")
        return out


class ServiceRow(TypedDict):
    """`name` is the full one. `endpoints` counts all, `available` those that take new sessions."""

    name: str
    namespace: str
    kind: Kind
    source: Source
    revision: int
    balance: str
    health: Health
    endpoints: int
    available: int
    versions: list[str]
    split: dict[str, float]


class Services(TypedDict):
    """A page; `next` is the cursor of the next one."""

    items: list[ServiceRow]
    next: str | None


class ServiceDetail(ServiceRow):
    """`settings` as in a table [services.NAME] of the file; what signs cookies is left out."""

    settings: dict[str, Any]


class ServiceChanged(ServiceDetail):
    """In force: every worker has this snapshot."""

    snapshot: int


class Removed(TypedDict):
    """Gone: every worker has this snapshot."""

    snapshot: int
    revision: int


class Split(Body):
    shares: dict[str, float] = Field(
        min_length=1, description="Of new sessions by version, in any unit; a version left out gets 0."
    )


class Shares(TypedDict):
    """Parts of one."""

    shares: dict[str, float]


class SharesChanged(Shares):
    snapshot: int
    revision: int


# ---- endpoints ---------------------------------------------------------------------------------------------


class EndpointQuery(Page):
    source: Source | None = Field(default=None, description="From this source.")
    tag: str | None = Field(default=None, description="With this tag.")
    version: str | None = Field(default=None, description="Of this version.")
    health: Literal["up", "down"] | None = Field(default=None, description="As the checks say.")
    admin: Admin | None = Field(default=None, description="In this state.")


class EndpointSpec(Body):
    """An endpoint to be registered. Checks are the service's; unix sockets stand in the file alone."""

    address: str = Field(max_length=320, description="host:port or [IPv6]:port.")
    weight: int = Field(default=1, ge=0, le=65535)
    version: str = Field(default="v1", max_length=64)
    priority: int = Field(default=0, ge=0, le=255, description="Lower ones are used first.")
    tls: bool | None = Field(default=None, description="By default what the service says.")
    tags: list[str] = Field(default=[], max_length=64)
    metadata: dict[str, str] = Field(default={}, max_length=64)
    lease_ttl: float | None = Field(
        default=None,
        ge=1,
        le=86400,
        description="Seconds after which it goes unless the lease is renewed; without it, it stays for good.",
    )


class EndpointChange(Body):
    weight: int | None = Field(default=None, ge=0, le=65535, description="0: no new sessions.")
    admin: Admin | None = Field(default=None, description="drain: no new sessions; maint: no request at all.")
    reason: str = Field(default="", max_length=500, description="Why it is taken out.")
    until: float | None = Field(default=None, description="Ready again by itself then; Unix epoch, seconds.")


class EndpointRow(EndpointStatus):
    """What is registered and how it goes. `unfit` says why it is not in force, "" when it is; `weight` is the
    one in force, `expires` when the lease ends.
    """

    service: str
    source: Source
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


class Endpoints(TypedDict):
    """A page; `next` is the cursor of the next one."""

    items: list[EndpointRow]
    next: str | None


class EndpointChanged(EndpointRow):
    """In force: every worker has this snapshot."""

    snapshot: int


class Lease(TypedDict):
    expires: float


# ---- health ------------------------------------------------------------------------------------------------


class Heartbeat(Body):
    status: Literal["pass", "warn", "fail"] = Field(default="pass", description="warn: up, but not well.")
    note: str = Field(default="", max_length=4096, description="Why, in words.")


class HealthTurn(TypedDict):
    time: float
    status: HealthStatus
    reason: str


class HealthRow(TypedDict):
    """`successes` and `failures` are those in a row, `flaps` a score of turns that halves in a minute,
    `history` the last turns, newest first. `since`: its last turn, `checked`: its last check.
    """

    service: str
    address: str
    status: HealthStatus
    up: bool
    check: CheckType | None
    reason: str
    since: float | None
    checked: float | None
    ms: float | None
    mean_ms: float | None
    successes: int
    failures: int
    flaps: float
    history: list[HealthTurn]


class Healths(TypedDict):
    """By address."""

    items: list[HealthRow]
