"""The document of a snapshot, and the snapshot made from it.

All keys are needed and no others are allowed. Times in milliseconds unless the name says otherwise; 0 stands
for "no bound" or "off" where snapshot.pxd says so. Text is UTF-8; what may stand in a head holds no control
character but a tab.
"""

from typing import Literal, TypedDict, overload

Failure = Literal["connect", "timeout", "reset", "5xx"]
RetryOn = Literal["connect", "stale", "reset", "timeout", "status"]

class EditRow(TypedDict):
    kind: Literal["set", "remove"]
    name: str
    value: str  # "" with remove

class ProtocolRow(TypedDict):
    min: Literal["1.2", "1.3"]
    max: Literal["1.2", "1.3"]
    ciphers: str  # as OpenSSL names them, with colons; up to TLS 1.2
    ciphersuites: str  # TLS 1.3
    curves: str

class CertificateRow(TypedDict):
    chain: str  # PEM, the leaf first
    key: str  # PEM
    ocsp: str  # a response, hexadecimal; "" for none

class ListenerTlsRow(ProtocolRow):
    certificates: list[CertificateRow]
    contexts: list[list[int]]  # indices of certificates, one for each kind of key; the first is the default
    names: list[list[str | int]]  # a name in lower case or "*.suffix", and the index of its context
    strict_sni: bool  # refuse names that are not there, and clients without one
    client: Literal["off", "optional", "required"]
    client_ca: str  # PEM; "" with client off
    client_header: str  # "" for none

class ServiceTlsRow(ProtocolRow):
    verify: bool
    ca: str  # PEM, "" without verification
    chain: str  # the proxy's own certificate, "" for none
    key: str

class ListenerRow(TypedDict):
    slot: int
    name: str
    protocol: Literal["http", "tcp", "udp"]
    port: int
    header_ms: int
    body_idle_ms: int
    body_rate: int
    half_close_ms: int
    keepalive_ms: int
    keepalive_requests: int
    line_max: int
    head_max: int
    fields_max: int
    body_max: int
    connections: int
    proxied: bool
    sessions: bool  # UDP
    responses: int  # UDP
    forwarded: list[Literal["x", "rfc7239"]]
    trusted: list[str]  # networks
    tls: ListenerTlsRow | None
    hsts: str  # value of Strict-Transport-Security; "" for none

class MemberRow(TypedDict):
    slot: int
    generation: int
    weight: int
    priority: int
    identity: int  # MurmurHash3 of "service/address", never 0
    name: str  # as the user wrote it
    version: str
    address: str  # numeric: "10.0.0.1:80", "[::1]:80", "unix:/path"
    tls: str | None  # the name or address it has to prove over TLS; None: plain

class BreakerRow(TypedDict):
    failures: int
    open_ms: int
    open_max_ms: int
    jitter_pct: int
    probes: int
    successes: int
    on: list[Failure]
    statuses: list[int]
    last: bool

class StickyRow(TypedDict):
    kind: Literal["none", "cookie", "source"]
    sliding: bool
    secure: bool
    http_only: bool
    same_site: Literal["unset", "lax", "strict", "none"]
    name: str
    path: str
    domain: str
    ttl_s: int
    key: str  # 32 hexadecimal digits with a cookie, else ""

class RetryRow(TypedDict):
    attempts: int
    on: list[RetryOn]
    methods: list[str]
    budget: float
    floor_per_s: float
    statuses: list[int]

class GroupRow(TypedDict):
    slot: int
    version: str
    share: int  # millionths; those of a service add up to a million or are all 0
    members: list[int]  # indices into Document.members

class ServiceRow(TypedDict):
    slot: int
    name: str
    strategy: str
    key_source: Literal["source_ip", "header", "cookie", "query", "path"]
    key_name: str
    host_mode: Literal["preserve", "endpoint", "literal"]
    host: str
    proxy_version: int  # of the PROXY header sent to endpoints; 0: none
    split: bool
    load_pct: int
    slow_start_ms: int
    panic_pct: int
    connections: int
    queue: int
    queue_ms: int
    connect_ms: int
    response_ms: int
    idle_ms: int
    tunnel_ms: int
    session_ms: int
    tunnel_drain_ms: int
    pool_idle_ms: int
    pool_max: int
    pool_requests: int
    breaker: BreakerRow
    sticky: StickyRow
    retry: RetryRow
    tls: ServiceTlsRow | None  # needed when a member has it
    members: list[int]  # in the order of the file
    groups: list[GroupRow]  # each member in exactly one; just one group without split

class HeaderRow(TypedDict):
    name: str
    value: str | None  # None: any

class RouteRow(TypedDict):
    slot: int
    name: str
    listeners: list[int]  # indices
    hosts: list[str]  # lower case, no port; "*.suffix"; [] for any
    path: str  # canonical: router.pxd
    methods: list[str]  # [] for any
    headers: list[HeaderRow]
    action: Literal["service", "respond", "redirect"]
    service: int | None  # index
    prefix_to: str | None  # None: the path stays
    status: int
    body: str
    content_type: str
    location: str
    upgrades: list[str]
    request: list[EditRow]
    response: list[EditRow]
    log_per_million: int
    slow_ms: int
    log_errors: bool

class Document(TypedDict):
    version: int
    ticket_keys: list[str]  # at most 3 of 160 hexadecimal digits, the first one seals
    listeners: list[ListenerRow]
    members: list[MemberRow]  # each in exactly one service
    services: list[ServiceRow]
    routes: list[RouteRow]

class SettingsRow(TypedDict):
    """A ServiceRow without slot, members and groups."""

class ChangeRow(TypedDict):
    slot: int
    settings: SettingsRow | None  # None: as before
    members: list[int | MemberRow]  # int: the slot of one that the service had before, unchanged
    groups: list[GroupRow]  # members: places in the list above

class FrameRow(TypedDict):
    ticket_keys: list[str]
    listeners: list[ListenerRow]
    routes: list[RouteRow]

class Changes(TypedDict):
    """From one snapshot to a newer one."""

    version: int
    base: int  # the version that is changed
    frame: FrameRow | None  # None: as before
    services: list[int | ChangeRow]  # all, in order; int: the slot of one that is as before

class Snapshot:
    """A document (JSON, or the tables themselves) checked and frozen; or changes to another snapshot, with
    which it shares what has not changed. ValueError names the place and what is wrong.
    """

    version: int
    @overload
    def __init__(self, document: bytes | Document) -> None: ...
    @overload
    def __init__(self, document: bytes | Changes, base: Snapshot) -> None: ...
    @property
    def slots(self) -> dict[str, int]:
        """Scoreboard slots needed: listeners, services, groups, endpoints, routes."""

    def _route(self, listener: int, head: bytes) -> dict[str, object]:
        """The route of a request head at the listener with this slot: name or None, cut, location, doubtful
        (router.pxd).
        """

    def _route_ns(self, listener: int, head: bytes, times: int) -> float:
        """Nanoseconds per look-up; 0.0 when no route is found."""

    def _member(self, index: int) -> dict[str, object]: ...
    def _shares(self, slot: int, other: Snapshot) -> bool:
        """Whether both have one and the same service in this slot."""
