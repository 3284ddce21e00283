"""The scoreboard: shared memory in which the supervisor tells workers what may be picked and workers count
what they did.

Times named `_ms` are milliseconds of CLOCK_MONOTONIC unless said otherwise, `_us` microseconds. Slots are
numbers below the capacities given to `create`; IndexError names the slot that is not. Readers add up all
workers and subtract what former owners of the slot counted. Histograms are lists of counts by bucket, bounds
in `hist_bounds()`.
"""

from collections.abc import Mapping
from typing import Literal, TypedDict

Health = Literal["up", "down"]
Admin = Literal["ready", "drain", "maint"]
WorkerState = Literal["starting", "serving", "draining", "gone"]

SHARE: int
"""The whole of a split: shares are millionths."""
OUTCOMES: tuple[str, ...]
CAUSES: tuple[str, ...]
RETRY_REASONS: tuple[str, ...]
TLS_FAILURE_NAMES: tuple[str, ...]

class EndpointInfo(TypedDict):
    slot: int
    generation: int
    in_use: bool
    health: Health
    admin: Admin
    weight: int
    slow_start_ms: int
    inflight: int

class EndpointTotals(TypedDict):
    outcomes: dict[str, int]  # by OUTCOMES
    bytes_up: int
    bytes_down: int
    connects: int
    reused: int
    connect_us_sum: int
    first_us_sum: int
    total_us_sum: int
    open: int
    idle: int
    inflight: int
    queued: int
    ewma_us: float  # mean over workers with samples, 0.0 without
    connect_us: list[int]
    first_us: list[int]
    total_us: list[int]

class GroupInfo(TypedDict):
    slot: int
    generation: int
    in_use: bool
    share: int
    inflight: int

class RequestTotals(TypedDict):
    requests: list[dict[str, int]]  # by status class (0: no answer, 1 to 5), then by CAUSES
    bytes_in: int
    bytes_out: int
    total_us_sum: int
    total_us: list[int]

class ListenerTotals(RequestTotals):
    open: int
    tunnels: int  # standing

class ServiceTotals(TypedDict):
    retries: dict[str, int]  # by RETRY_REASONS
    retries_denied: int
    sticky_hits: int
    sticky_new: int
    sticky_broken: int
    panics: int
    no_endpoint: int
    queue_waits: int
    queue_wait_us: int
    queue_timeouts: int
    queue_full: int
    queued: int  # waiting now
    budget: float  # retry tokens left

class WorkerInfo(TypedDict):
    worker: int
    pid: int  # 0: slab free
    state: WorkerState
    snapshot: int
    turn_ms: int
    accepted: int
    turns: int
    stale_events: int
    clients: int
    clients_active: int
    upstreams: int
    tunnels: int  # standing
    buffers_small: int
    buffers_large: int
    proxy_us_sum: int
    proxy_n: int
    proxy_us: list[int]
    datagrams_in: int
    datagrams_out: int
    datagrams_dropped: int
    log_dropped: int

class TlsTotals(TypedDict):
    """Handshakes with one kind of peer, over all workers; by version "1.2" and "1.3"."""

    full: dict[str, int]
    resumed: dict[str, int]
    failures: dict[str, int]  # by TLS_FAILURE_NAMES

class BreakerInfo(TypedDict):
    state: Literal["closed", "open", "half_open"]
    failures: int  # in a row
    streak: int  # trips in a row
    probes: int  # in flight
    successes: int  # of probes, since half-open
    trips: int  # since the endpoint came
    changed_ms: int

def hist_bounds() -> list[float]:
    """Upper bound (exclusive, microseconds) of each histogram bucket; the last one is infinite."""

def _hist_bucket(us: int) -> int: ...

class Scoreboard:
    """A mapping of the scoreboard. Use `create` in the supervisor, `open` elsewhere."""

    fd: int
    @staticmethod
    def create(
        workers: int,
        *,
        endpoints: int = 1024,
        groups: int = 512,
        services: int = 256,
        routes: int = 512,
        listeners: int = 32,
        sticky: int = 65536,
    ) -> Scoreboard:
        """A new one in a memfd (`fd`, close-on-exec; pages exist once they are written). `sticky` is the
        number of entries for sticky-by-source, a power of two. ValueError for a size that makes no sense.
        """

    @staticmethod
    def open(fd: int, worker: int = -1) -> Scoreboard:
        """Map an existing one; `close` closes `fd`. ValueError when it is none, or of another layout."""

    def close(self) -> None:
        """Unmap and close the descriptor. Dropping the last reference unmaps and leaves it open."""

    @property
    def workers(self) -> int: ...
    @property
    def endpoints(self) -> int: ...
    @property
    def groups(self) -> int: ...
    @property
    def services(self) -> int: ...
    @property
    def routes(self) -> int: ...
    @property
    def listeners(self) -> int: ...
    @property
    def sticky(self) -> int: ...
    @property
    def size(self) -> int:
        """Of the mapping, bytes."""

    @property
    def started_ms(self) -> int:
        """When it was created, Unix epoch."""

    @property
    def snapshot(self) -> int:
        """Version that workers should have."""

    def set_snapshot(self, version: int) -> None: ...
    @property
    def changes(self) -> int:
        """Raised with every change of an endpoint, a group or a breaker's state."""

    def use_endpoint(
        self,
        slot: int,
        *,
        weight: int = 1,
        health: Health = "up",
        admin: Admin = "ready",
        slow_start: bool = True,
    ) -> int:
        """Give a free slot to an endpoint; returns its generation (odd). Breaker and totals start anew.
        `slow_start`: it ramps up from now on, if its service does that.
        """

    def claim_endpoint(
        self, *, weight: int = 1, health: Health = "up", admin: Admin = "ready", slow_start: bool = True
    ) -> tuple[int, int]:
        """`use_endpoint` on the free slot that is best rested; returns slot and generation."""

    def release_endpoint(self, slot: int) -> None:
        """The endpoint is gone: nobody picks the slot any more. Requests in flight finish under it."""

    def set_health(self, slot: int, health: Health, *, slow_start: bool = False) -> None:
        """`slow_start`: the ramp begins now, too."""

    def set_admin(self, slot: int, admin: Admin) -> None:
        """drain: bound sessions only. maint: nothing."""

    def set_weight(self, slot: int, weight: int) -> None:
        """0 to 65535; 0: no new sessions."""

    def set_slow_start(self, slot: int, since_ms: int | None = None) -> None:
        """Begin the ramp (None: now), or end it (0)."""

    def endpoint(self, slot: int) -> EndpointInfo: ...
    def endpoint_totals(self, slot: int) -> EndpointTotals: ...
    def breaker(self, slot: int) -> BreakerInfo: ...
    def use_group(self, slot: int, share: int = 0) -> int:
        """Give a free slot to a version group; returns its generation (odd)."""

    def release_group(self, slot: int) -> None: ...
    def set_shares(self, shares: Mapping[int, int]) -> None:
        """Shares by group slot for all groups of one service, in force at every worker's next pick. They add
        up to SHARE or are all 0.
        """

    def group(self, slot: int) -> GroupInfo: ...
    def route_totals(self, slot: int) -> RequestTotals: ...
    def listener_totals(self, slot: int) -> ListenerTotals: ...
    def service_totals(self, slot: int) -> ServiceTotals: ...
    def renew_route(self, slot: int) -> None:
        """The slot goes to another route: totals start anew. Likewise the next two."""

    def renew_listener(self, slot: int) -> None: ...
    def renew_service(self, slot: int) -> None: ...
    def attach(self, worker: int, pid: int) -> None:
        """Give a slab to a process; its totals go on."""

    def set_worker_state(self, worker: int, state: WorkerState) -> None: ...
    def settle(self, worker: int) -> None:
        """A worker is dead: what it had open, in flight and queued counts no more; its totals stay."""

    def tls_totals(self) -> dict[Literal["client", "endpoint"], TlsTotals]: ...
    def worker(self, worker: int) -> WorkerInfo: ...
