"""What GET /v1/status returns and `turnout status` shows: the scoreboard with the names of the file."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Hashable, Mapping
from typing import TYPE_CHECKING, Any

from typing_extensions import TypedDict

from turnout import __version__
from turnout.control import flow
from turnout.control.flow import Flow, Flows, Recent, Window
from turnout.control.health.state import HealthState
from turnout.control.health.state import Status as HealthStatus
from turnout.control.turns import Turns
from turnout.ext.scoreboard import SHARE, EndpointInfo, EndpointTotals
from turnout.proxy.crew import WorkerRow
from turnout.proxy.freeze import groups_of, route_key
from turnout.proxy.model import Endpoint, Listener, Service

if TYPE_CHECKING:
    from turnout.proxy.supervisor import Supervisor


class ListenerStatus(Recent):
    name: str
    bind: str
    connections: int
    sessions: int  # TCP sessions and upgraded connections that stand
    requests: int


class EndpointStatus(Recent):
    address: str
    version: str
    admin: str
    health: str
    check: HealthStatus | None  # what its checks say; None: it has none
    check_reason: str
    breaker: str
    breaker_trips: int
    weight: int
    in_flight: int
    connections: int
    idle: int
    requests: int
    errors: int
    reuse: float | None  # share of requests over pooled connections


class VersionStatus(TypedDict):
    version: str
    share: float  # of new sessions, 0 to 1
    in_flight: int


class VersionTraffic(Recent):
    """Attempts at the endpoints of a version."""

    version: str
    requests: int
    errors: int
    in_flight: int


class ServiceStatus(Recent):
    name: str
    balance: str
    requests: int
    errors: int
    in_flight: int
    queued: int
    retries: int
    retries_denied: int
    retry_budget: float
    sticky_broken: int
    no_endpoint: int
    split: list[VersionStatus]  # empty without split
    versions: list[VersionTraffic]  # of all endpoints, with or without split
    endpoints: list[EndpointStatus]


class Status(TypedDict):
    program: str
    pid: int
    file: str
    state: str
    ready: bool
    started: float  # Unix epoch, seconds
    uptime_s: float
    snapshot: int
    restarts: int
    workers: list[WorkerRow]
    listeners: list[ListenerStatus]
    services: list[ServiceStatus]


States = Callable[[str, str], HealthState | None]
"""What checks say of an endpoint; None when it has none."""


class StatusReader:
    """Reads a supervisor's scoreboard; call `sample` every flow.SAMPLE_S. What takes long lets the loop turn
    in between: a service that goes meanwhile is left out.
    """

    def __init__(self, supervisor: Supervisor, states: States = lambda _service, _address: None) -> None:
        self.supervisor = supervisor
        self.states = states
        self.board = supervisor.scoreboard
        self.freezer = supervisor.freezer
        self.window = Window()

    async def sample(self) -> None:
        """Remember how things stand, for the rates of later reads."""
        flows: dict[Hashable, Flow] = {}
        turns = Turns()
        for name in self.freezer.listeners.held:
            flows |= self._listener_flow(name)
        for name in list(self.freezer.config.services):
            if name in self.freezer.config.services:
                flows |= self._route_flows(name)
                flows |= await self._endpoint_flows(name, turns)
        self.window.add(time.monotonic(), flows)

    async def read(self, sees: Callable[[str], bool] = lambda _service: True) -> Status:
        """`sees` says of which services."""
        supervisor = self.supervisor
        config = self.freezer.config
        names, turns = [name for name in config.services if sees(name)], Turns()
        services = [row for name in names if (row := await self._service(name, turns)) is not None]
        return {
            "program": __version__,
            "pid": os.getpid(),
            "file": str(supervisor.file),
            "state": supervisor.state,
            "ready": supervisor.ready(),
            "started": supervisor.started,
            "uptime_s": round(time.time() - supervisor.started, 1),
            "snapshot": supervisor.version,
            "restarts": supervisor.restarts,
            "workers": supervisor.worker_rows(),
            "listeners": self.listeners(),
            "services": services,
        }

    def listeners(self) -> list[ListenerStatus]:
        return [self._listener(name, listener) for name, listener in self.freezer.config.listeners.items()]

    def endpoint(self, service: str, endpoint: Endpoint) -> EndpointStatus | None:
        """None for one that is not in force."""
        slot = self.slot(service, endpoint.address)
        return None if slot is None else self._endpoint(service, endpoint, slot)

    def is_available(self, service: str, address: str) -> bool:
        """Does it take new sessions, as far as the scoreboard says?"""
        slot = self.slot(service, address)
        if slot is None:
            return False
        info = self.board.endpoint(slot)
        return takes_sessions({**info, "breaker": self.board.breaker(slot)["state"]})

    def shares(self, service: str) -> dict[str, float]:
        """Version -> share of new sessions, 0 to 1; empty without split or service."""
        config = self.freezer.config.services.get(service)
        return (
            {}
            if config is None
            else {row["version"]: row["share"] for row in self._versions(service, config)}
        )

    def slot(self, service: str, address: str) -> int | None:
        try:
            return self.freezer.endpoint_slot(service, address)
        except KeyError:
            return None

    # ---- flows -------------------------------------------------------------------------------------------

    def _listener_flow(self, name: str) -> Flows:
        totals = self.board.listener_totals(self.freezer.listeners.held[name])
        return {("listener", name): flow.of_requests(totals)}

    def _route_flows(self, service: str) -> Flows:
        """What clients of a service got, route by route."""
        slots = {
            route_key(route): self.freezer.routes.held[route_key(route)]
            for route in self.freezer.config.routes
            if route.service == service
        }
        return {
            ("route", key): flow.of_requests(self.board.route_totals(slot)) for key, slot in slots.items()
        }

    async def _endpoint_flows(self, service: str, turns: Turns) -> Flows:
        out: dict[Hashable, Flow] = {}
        for slot in list(self.freezer.endpoint_slots(service).values()):
            out |= _endpoint_flow(self.board.endpoint(slot), self.board.endpoint_totals(slot))
            await turns.turn()
        return out

    def _recent(self, flows: Flows) -> Recent:
        return self.window.recent(time.monotonic(), flows)

    # ---- rows --------------------------------------------------------------------------------------------

    def _listener(self, name: str, listener: Listener) -> ListenerStatus:
        flows = self._listener_flow(name)
        totals = self.board.listener_totals(self.freezer.listeners.held[name])
        return {
            "name": name,
            "bind": listener.bind,
            "connections": totals["open"],
            "sessions": totals["tunnels"],
            "requests": flow.added_up(flows.values()).requests,
            **self._recent(flows),
        }

    async def _service(self, name: str, turns: Turns) -> ServiceStatus | None:
        endpoints, by_version = await self._endpoints(name, turns)
        service = self.freezer.config.services.get(name)
        if service is None:
            return None
        totals = self.board.service_totals(self.freezer.services.held[name])
        flows = self._route_flows(name)
        total = flow.added_up(flows.values())
        return {
            "name": name,
            "balance": service.balance,
            "requests": total.requests,
            "errors": total.errors,
            "in_flight": sum(row["in_flight"] for row in endpoints),
            "queued": totals["queued"],
            "retries": sum(totals["retries"].values()),
            "retries_denied": totals["retries_denied"],
            "retry_budget": round(totals["budget"], 2),
            "sticky_broken": totals["sticky_broken"],
            "no_endpoint": totals["no_endpoint"],
            "split": self._versions(name, service),
            "versions": [self._traffic(version, endpoints, by_version[version]) for version in by_version],
            "endpoints": endpoints,
            **self._recent(flows),
        }

    async def _endpoints(
        self, service: str, turns: Turns
    ) -> tuple[list[EndpointStatus], dict[str, dict[Hashable, Flow]]]:
        """Their rows, and their flows by version."""
        config = self.freezer.config.services.get(service)
        rows: list[EndpointStatus] = []
        flows: dict[str, dict[Hashable, Flow]] = {}
        for endpoint in config.endpoints if config is not None else ():
            slot = self.slot(service, endpoint.address)
            if slot is not None:
                info, totals = self.board.endpoint(slot), self.board.endpoint_totals(slot)
                own = _endpoint_flow(info, totals)
                rows.append(self._row(service, endpoint, info, totals, own))
                of_version = flows.setdefault(endpoint.version, {})
                if rows[-1]["requests"]:  # adding up takes its time
                    of_version.update(own)
            await turns.turn()
        return rows, flows

    def _traffic(self, version: str, endpoints: list[EndpointStatus], flows: Flows) -> VersionTraffic:
        total = flow.added_up(flows.values())
        return {
            "version": version,
            "requests": total.requests,
            "errors": total.errors,
            "in_flight": sum(row["in_flight"] for row in endpoints if row["version"] == version),
            **self._recent(flows),
        }

    def _versions(self, name: str, service: Service) -> list[VersionStatus]:
        if service.split is None:
            return []
        groups = {
            version: self.board.group(self.freezer.groups.held[name, version])
            for version in groups_of(service)
        }
        return [
            {"version": version, "share": group["share"] / SHARE, "in_flight": group["inflight"]}
            for version, group in groups.items()
        ]

    def _endpoint(self, service: str, endpoint: Endpoint, slot: int) -> EndpointStatus:
        info, totals = self.board.endpoint(slot), self.board.endpoint_totals(slot)
        return self._row(service, endpoint, info, totals, _endpoint_flow(info, totals))

    def _row(
        self, service: str, endpoint: Endpoint, info: EndpointInfo, totals: EndpointTotals, flows: Flows
    ) -> EndpointStatus:
        state = self.states(service, endpoint.address)
        breaker = self.board.breaker(info["slot"])
        total = flow.added_up(flows.values())
        return {
            "address": endpoint.address,
            "version": endpoint.version,
            "admin": info["admin"],
            "health": info["health"],
            "check": None if state is None else state.status,
            "check_reason": "" if state is None else state.reason,
            "breaker": breaker["state"],
            "breaker_trips": breaker["trips"],
            "weight": info["weight"],
            "in_flight": info["inflight"],
            "connections": totals["open"],
            "idle": totals["idle"],
            "requests": total.requests,
            "errors": total.errors,
            "reuse": _reuse(totals),
            **self._recent(flows),
        }


def takes_sessions(row: Mapping[str, Any]) -> bool:
    """Does an endpoint take new sessions, as far as the scoreboard says? A row of EndpointStatus."""
    return bool(
        row["admin"] == "ready" and row["health"] == "up" and row["breaker"] != "open" and row["weight"] > 0
    )


def _endpoint_flow(info: EndpointInfo, totals: EndpointTotals) -> Flows:
    """Attempts; a slot that goes to another endpoint has another generation."""
    return {("endpoint", info["slot"], info["generation"]): flow.of_endpoint(totals)}


def _reuse(totals: EndpointTotals) -> float | None:
    """Share of requests that went over a pooled connection."""
    requests = totals["connects"] + totals["reused"]
    return round(totals["reused"] / requests, 4) if requests else None
