"""What GET /v1/status returns and `turnout status` shows: the scoreboard with the names of the file."""

from __future__ import annotations

import os
import time
from collections.abc import Hashable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, TypedDict

from turnout import __version__
from turnout.control import flow
from turnout.control.flow import Flow, Flows, Recent, Window
from turnout.ext.scoreboard import SHARE, EndpointTotals
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
    workers: list[dict[str, Any]]  # fields of supervisor.WorkerRow
    listeners: list[ListenerStatus]
    services: list[ServiceStatus]


class StatusReader:
    """Reads a supervisor's scoreboard; call `sample` every flow.SAMPLE_S."""

    def __init__(self, supervisor: Supervisor) -> None:
        self.supervisor = supervisor
        self.board = supervisor.scoreboard
        self.freezer = supervisor.freezer
        self.window = Window()

    def sample(self) -> None:
        """Remember how things stand, for the rates of later reads."""
        flows: dict[Hashable, Flow] = {}
        for name in self.freezer.listeners.held:
            flows |= self._listener_flow(name)
        for name in self.freezer.config.services:
            flows |= self._route_flows(name)
            for slot in self.freezer.endpoint_slots(name).values():
                flows |= self._endpoint_flow(slot)
        self.window.add(time.monotonic(), flows)

    def read(self) -> Status:
        supervisor = self.supervisor
        config = self.freezer.config
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
            "workers": [asdict(row) for row in supervisor.worker_rows()],
            "listeners": [self._listener(name, listener) for name, listener in config.listeners.items()],
            "services": [self._service(name, service) for name, service in config.services.items()],
        }

    def endpoint(self, service: str, address: str) -> EndpointStatus:
        """KeyError for one that does not exist."""
        endpoints = {row.address: row for row in self.freezer.config.services[service].endpoints}
        return self._endpoint(endpoints[address], self.freezer.endpoint_slots(service)[address])

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

    def _endpoint_flow(self, slot: int) -> Flows:
        """Attempts; a slot that goes to another endpoint has another generation."""
        key = ("endpoint", slot, self.board.endpoint(slot)["generation"])
        return {key: flow.of_endpoint(self.board.endpoint_totals(slot))}

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

    def _service(self, name: str, service: Service) -> ServiceStatus:
        totals = self.board.service_totals(self.freezer.services.held[name])
        flows = self._route_flows(name)
        total = flow.added_up(flows.values())
        slots = self.freezer.endpoint_slots(name)
        endpoints = [self._endpoint(endpoint, slots[endpoint.address]) for endpoint in service.endpoints]
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
            "endpoints": endpoints,
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

    def shares(self, service: str) -> dict[str, float]:
        """Of its versions now, 0 to 1. KeyError for a service that does not exist."""
        rows = self._versions(service, self.freezer.config.services[service])
        return {row["version"]: row["share"] for row in rows}

    def _endpoint(self, endpoint: Endpoint, slot: int) -> EndpointStatus:
        info, totals = self.board.endpoint(slot), self.board.endpoint_totals(slot)
        breaker = self.board.breaker(slot)
        flows = self._endpoint_flow(slot)
        total = flow.added_up(flows.values())
        return {
            "address": endpoint.address,
            "version": endpoint.version,
            "admin": info["admin"],
            "health": info["health"],
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


def _reuse(totals: EndpointTotals) -> float | None:
    """Share of requests that went over a pooled connection."""
    requests = totals["connects"] + totals["reused"]
    return round(totals["reused"] / requests, 4) if requests else None
