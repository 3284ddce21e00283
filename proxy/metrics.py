"""What /metrics says: the scoreboard, read at the moment of the scrape.

Nothing is counted here and nothing is registered: the workers keep the sums. Each table below names the
families of one kind of thing; docs/metrics.md lists them all. Counters stand without the "_total" they get.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from turnout import __version__
from turnout.ext.scoreboard import (
    SHARE,
    BreakerInfo,
    EndpointInfo,
    EndpointTotals,
    GroupInfo,
    ListenerTotals,
    RequestTotals,
    Scoreboard,
    ServiceTotals,
    TlsTotals,
    WorkerInfo,
)
from turnout.proxy.buckets import COARSE, MICROSECOND, OVERHEAD
from turnout.proxy.families import Column, Histogram, Labels, families, one_of
from turnout.proxy.freeze import Freezer, groups_of, route_key

if TYPE_CHECKING:
    from turnout.proxy.pem import Certificate

STATUSES = ("none", "1xx", "2xx", "3xx", "4xx", "5xx")
Slots = list[tuple[Labels, int]]
ENDPOINT_LABELS = ("service", "version", "endpoint")
EXPECTED = ("2xx", "3xx", "4xx", "5xx")
"""Statuses whose series exist before the first such answer."""


class Source(Protocol):
    """What is read of the supervisor."""

    @property
    def scoreboard(self) -> Scoreboard: ...
    @property
    def freezer(self) -> Freezer: ...
    @property
    def version(self) -> int: ...
    @property
    def started(self) -> float: ...
    @property
    def restarts(self) -> int: ...
    def ready(self) -> bool: ...


@dataclass(frozen=True)
class Program:
    started: float
    ready: bool
    version: int
    restarts: int


@dataclass(frozen=True)
class EndpointRow:
    info: EndpointInfo
    totals: EndpointTotals
    breaker: BreakerInfo


def by_status(totals: RequestTotals) -> dict[Labels, float]:
    """By class of status and cause; what never happened is left out unless it is to be expected."""
    return {
        (status, cause): number
        for status, by_cause in zip(STATUSES, totals["requests"], strict=True)
        for cause, number in by_cause.items()
        if number or (status in EXPECTED and cause == "none")
    }


def by_version(totals: TlsTotals) -> dict[Labels, float]:
    """Handshakes by TLS version and whether a session was resumed."""
    kinds = (("false", totals["full"]), ("true", totals["resumed"]))
    return {(version, resumed): number for resumed, row in kinds for version, number in row.items()}


PROGRAM: tuple[Column[Program], ...] = (
    Column("build_info", "Version of the program.", lambda _: {__version__: 1}, ("version",), gauge=True),
    Column("start_time_seconds", "When the supervisor started, Unix epoch.", lambda p: p.started, gauge=True),
    Column("ready", "1 while /readyz answers 200.", lambda p: float(p.ready), gauge=True),
    Column("snapshot_version", "Version of the configuration in force.", lambda p: p.version, gauge=True),
    Column("worker_restarts", "Workers that died and were replaced.", lambda p: p.restarts),
)

WORKER: tuple[Column[WorkerInfo], ...] = (
    Column(
        "state",
        "What the worker does.",
        lambda w: one_of(("starting", "serving", "draining"), w["state"]),
        ("state",),
        gauge=True,
    ),
    Column(
        "snapshot_version",
        "Version of the configuration that the worker has.",
        lambda w: w["snapshot"],
        gauge=True,
    ),
    Column("client_connections", "Open client connections.", lambda w: w["clients"], gauge=True),
    Column(
        "active_client_connections",
        "Client connections with a request.",
        lambda w: w["clients_active"],
        gauge=True,
    ),
    Column(
        "tunnels", "TCP sessions and upgraded connections that stand.", lambda w: w["tunnels"], gauge=True
    ),
    Column("upstream_connections", "Open connections to endpoints.", lambda w: w["upstreams"], gauge=True),
    Column(
        "buffers",
        "Buffers in use.",
        lambda w: {"small": w["buffers_small"], "large": w["buffers_large"]},
        ("size",),
        gauge=True,
    ),
    Column("accepted_connections", "Client connections accepted.", lambda w: w["accepted"]),
    Column("loop_turns", "Turns of the event loop.", lambda w: w["turns"]),
    Column("stale_events", "Events for a connection that was closed before.", lambda w: w["stale_events"]),
    Column(
        "datagrams",
        "Datagrams of UDP listeners: from clients, to clients, and dropped either way.",
        lambda w: {"in": w["datagrams_in"], "out": w["datagrams_out"], "dropped": w["datagrams_dropped"]},
        ("direction",),
    ),
    Column("log_dropped_records", "Access-log records that were lost.", lambda w: w["log_dropped"]),
)

OVERHEAD_OF_WORKER: tuple[Histogram[WorkerInfo], ...] = (
    Histogram(
        "duration_seconds",
        "Time that a request spent in the proxy itself, of a sample of requests.",
        lambda w: (w["proxy_us"], w["proxy_us_sum"]),
        OVERHEAD,
    ),
)

REQUESTS: tuple[Column[RequestTotals] | Histogram[RequestTotals], ...] = (
    Column("requests", "By class of status and who caused the answer.", by_status, ("status", "cause")),
    Column("received_bytes", "Bytes from clients.", lambda t: t["bytes_in"]),
    Column("sent_bytes", "Bytes to clients.", lambda t: t["bytes_out"]),
    Histogram(
        "request_duration_seconds",
        "From the first byte of the request to the last byte of the answer.",
        lambda t: (t["total_us"], t["total_us_sum"]),
    ),
)

LISTENER: tuple[Column[ListenerTotals], ...] = (
    Column("connections", "Open client connections.", lambda t: t["open"], gauge=True),
    Column(
        "tunnels", "TCP sessions and upgraded connections that stand.", lambda t: t["tunnels"], gauge=True
    ),
)

SERVICE: tuple[Column[ServiceTotals], ...] = (
    Column(
        "retries",
        "Attempts made again, by what happened to the one before.",
        lambda t: t["retries"],
        ("reason",),
    ),
    Column("retries_denied", "Retries that the budget did not allow.", lambda t: t["retries_denied"]),
    Column("retry_budget", "Retries that the budget allows at once now.", lambda t: t["budget"], gauge=True),
    Column(
        "sticky_requests",
        "Requests with a session that was kept, begun, or broken because its endpoint could not take it.",
        lambda t: {"kept": t["sticky_hits"], "new": t["sticky_new"], "broken": t["sticky_broken"]},
        ("result",),
    ),
    Column("panic_picks", "Picks made in panic mode.", lambda t: t["panics"]),
    Column("no_endpoint", "Picks that found no eligible endpoint.", lambda t: t["no_endpoint"]),
    Column("queue_length", "Requests that wait for an endpoint now.", lambda t: t["queued"], gauge=True),
    Column("queue_waits", "Requests that had to wait for an endpoint.", lambda t: t["queue_waits"]),
    Column("queue_wait_seconds", "Time they waited, in all.", lambda t: t["queue_wait_us"] * MICROSECOND),
    Column(
        "queue_rejections",
        "Requests refused because the queue was full or the wait too long.",
        lambda t: {"full": t["queue_full"], "timeout": t["queue_timeouts"]},
        ("reason",),
    ),
)

VERSION: tuple[Column[GroupInfo], ...] = (
    Column("share_ratio", "Share of new sessions, 0 to 1.", lambda g: g["share"] / SHARE, gauge=True),
    Column("in_flight_requests", "Requests under way.", lambda g: g["inflight"], gauge=True),
)

ENDPOINT: tuple[Column[EndpointRow] | Histogram[EndpointRow], ...] = (
    Column("up", "0 when known to be down.", lambda e: float(e.info["health"] == "up"), gauge=True),
    Column(
        "admin_state",
        "What operators set.",
        lambda e: one_of(("ready", "drain", "maint"), e.info["admin"]),
        ("state",),
        gauge=True,
    ),
    Column("weight", "Its weight now.", lambda e: e.info["weight"], gauge=True),
    Column("in_flight_requests", "Requests under way.", lambda e: e.info["inflight"], gauge=True),
    Column(
        "breaker_state",
        "State of its circuit breaker.",
        lambda e: one_of(("closed", "open", "half_open"), e.breaker["state"]),
        ("state",),
        gauge=True,
    ),
    Column("breaker_failures", "Failures in a row.", lambda e: e.breaker["failures"], gauge=True),
    Column("breaker_trips", "Times its circuit breaker opened.", lambda e: e.breaker["trips"]),
    Column("attempts", "Requests sent to it, by outcome.", lambda e: e.totals["outcomes"], ("outcome",)),
    Column(
        "connections",
        "Open connections to it.",
        lambda e: {"busy": e.totals["open"] - e.totals["idle"], "idle": e.totals["idle"]},
        ("state",),
        gauge=True,
    ),
    Column("connects", "Connections opened.", lambda e: e.totals["connects"]),
    Column("reuses", "Requests that went over a pooled connection.", lambda e: e.totals["reused"]),
    Column("sent_bytes", "Bytes to the endpoint.", lambda e: e.totals["bytes_up"]),
    Column("received_bytes", "Bytes from the endpoint.", lambda e: e.totals["bytes_down"]),
    Column(
        "latency_ewma_seconds",
        "Time to its first byte as least_response_time sees it: a mean that follows peaks at once.",
        lambda e: e.totals["ewma_us"] * MICROSECOND,
        gauge=True,
    ),
    Histogram(
        "connect_duration_seconds",
        "Opening a connection.",
        lambda e: (e.totals["connect_us"], e.totals["connect_us_sum"]),
        COARSE,
        sparse=True,
    ),
    Histogram(
        "first_byte_duration_seconds",
        "From the pick to the first byte of the answer.",
        lambda e: (e.totals["first_us"], e.totals["first_us_sum"]),
        COARSE,
        sparse=True,
    ),
    Histogram(
        "response_duration_seconds",
        "From the pick to the last byte of the answer.",
        lambda e: (e.totals["total_us"], e.totals["total_us_sum"]),
        COARSE,
        sparse=True,
    ),
)


TLS: tuple[Column[TlsTotals], ...] = (
    Column("handshakes", "TLS handshakes that were completed.", by_version, ("tls", "resumed")),
    Column("handshake_failures", "TLS handshakes that failed.", lambda t: t["failures"], ("reason",)),
)

CERTIFICATE: tuple[Column[Certificate], ...] = (
    Column(
        "expiry_timestamp_seconds",
        "When the certificate expires, Unix epoch.",
        lambda c: c.expires.timestamp(),
        gauge=True,
    ),
)


class Metrics(Collector):
    """One scrape. What belongs to whom is taken down when it is made, in the supervisor's loop; numbers are
    read by `collect`, which may run in a thread: with a thousand endpoints it takes its time.
    """

    def __init__(self, source: Source, more: Iterable[Collector] = ()) -> None:
        self.more = tuple(more)
        self.board = source.scoreboard
        freezer = source.freezer
        config = freezer.config
        self.program = Program(source.started, source.ready(), source.version, source.restarts)
        self.listeners: Slots = [((name,), slot) for name, slot in freezer.listeners.held.items()]
        self.services: Slots = [((name,), slot) for name, slot in freezer.services.held.items()]
        self.routes: Slots = [
            ((route.title, route.service or ""), freezer.routes.held[route_key(route)])
            for route in config.routes
        ]
        self.versions: Slots = [
            ((name, version), freezer.groups.held[name, version])
            for name, service in config.services.items()
            if service.split is not None
            for version in groups_of(service)
        ]
        self.endpoints: Slots = [
            ((name, endpoint.version, endpoint.address), slots[endpoint.address])
            for name, service in config.services.items()
            if (slots := freezer.endpoint_slots(name))
            for endpoint in service.endpoints
        ]

        self.certificates: list[tuple[Labels, Certificate]] = [
            ((place, certificate.path), certificate) for place, certificate in freezer.tls.certificates
        ]

    def collect(self) -> Iterator[Metric]:
        board = self.board
        workers = [board.worker(number) for number in range(board.workers)]
        alive = [((str(worker["worker"]),), worker) for worker in workers if worker["pid"]]
        listeners = [(labels, board.listener_totals(slot)) for labels, slot in self.listeners]
        routes = [(labels, board.route_totals(slot)) for labels, slot in self.routes]
        services = [(labels, board.service_totals(slot)) for labels, slot in self.services]
        versions = [(labels, board.group(slot)) for labels, slot in self.versions]
        endpoints = [(labels, self._endpoint(slot)) for labels, slot in self.endpoints]
        tls = [((peer,), totals) for peer, totals in board.tls_totals().items()]
        yield from families("turnout_", PROGRAM, (), [((), self.program)])
        yield from families("turnout_worker_", WORKER, ("worker",), alive)
        yield from families("turnout_proxy_", OVERHEAD_OF_WORKER, (), [((), worker) for worker in workers])
        yield from families("turnout_listener_", LISTENER, ("listener",), listeners)
        yield from families("turnout_listener_", REQUESTS, ("listener",), listeners)
        yield from families("turnout_route_", REQUESTS, ("route", "service"), routes)
        yield from families("turnout_tls_", TLS, ("peer",), tls)
        yield from families("turnout_certificate_", CERTIFICATE, ("place", "certificate"), self.certificates)
        yield from families("turnout_service_", SERVICE, ("service",), services)
        yield from families("turnout_version_", VERSION, ("service", "version"), versions)
        yield from families("turnout_endpoint_", ENDPOINT, ENDPOINT_LABELS, endpoints)
        for others in self.more:
            yield from others.collect()

    def _endpoint(self, slot: int) -> EndpointRow:
        board = self.board
        return EndpointRow(board.endpoint(slot), board.endpoint_totals(slot), board.breaker(slot))


def exposition(metrics: Metrics, accept: str = "") -> tuple[bytes, str]:
    """The body of /metrics in the format that an Accept field asks for, and its content type."""
    encode, content_type = choose_encoder(accept)
    return encode(metrics), content_type
