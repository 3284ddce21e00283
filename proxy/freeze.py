"""From the configuration to a snapshot's document, and to what the supervisor writes into the scoreboard.

Names become indices and scoreboard slots. An endpoint is (service, address as written, address as resolved):
the same three keep slot, counters, breaker and run-time state over any reload. Weights and shares set at run
time stay until the file says something new about them: its value counts when it differs from what the file
said before.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import mmh3

from turnout.ext.scoreboard import SHARE, Admin, Health, Scoreboard
from turnout.ext.snapshot import Snapshot
from turnout.proxy.certs import TlsFiles, TlsRows, name_for
from turnout.proxy.config import ConfigError, Problem
from turnout.proxy.keys import KeyFileError, kept_secret, signing_key
from turnout.proxy.model import Config, Redirect, Route, Service
from turnout.proxy.paths import canonical_path
from turnout.proxy.resolve import Resolver, resolve, system_resolver
from turnout.proxy.rows import listener_row, route_row, service_row
from turnout.proxy.slots import Plan, SlotsError, SlotTable
from turnout.proxy.tickets import TicketKeys

if TYPE_CHECKING:
    from turnout.ext.snapshot import Document

EndpointKey = tuple[str, str, str]
"""service, address as written, address as resolved"""
GroupKey = tuple[str, str]
"""service, version; "" for the one group of a service without split"""
RouteKey = tuple[object, ...]
K = TypeVar("K")
Addresses = dict[str, str]
"""address as written -> address as resolved"""


def identity(service: str, address: str) -> int:
    """What an endpoint is called in cookies and on rings: MurmurHash3 of "service/address", never 0."""
    return mmh3.hash64(f"{service}/{address}", signed=False)[0] or 1


def route_key(route: Route) -> RouteKey:
    """A route is the same route for as long as its name is, or what it matches."""
    if route.name is not None:
        return (route.name,)
    conditions = (frozenset(route.methods), frozenset(route.headers.items()))
    return (route.listener, route.host, canonical_path(route.path), *conditions)


def routes_of(config: Config) -> list[Route]:
    """Those of the file, and one for each listener that sends everybody to HTTPS; routes of the file that
    name such a listener come before it where they are more specific.
    """
    return [*config.routes] + [
        Route(name=f"{name}: to HTTPS", listener=name, redirect=Redirect(to=listener.redirects))
        for name, listener in config.listeners.items()
        if listener.redirects is not None
    ]


def shares_of(split: dict[str, float]) -> dict[str, int]:
    """Shares in millionths that add up to SHARE exactly: what rounding leaves goes to the largest remainders.
    Raises ValueError when a share is negative or all are 0.
    """
    total = sum(split.values())
    if not 0 < total < float("inf") or min(split.values()) < 0:
        raise ValueError("shares are numbers from 0 up, one of them above 0")
    exact = {version: share / total * SHARE for version, share in split.items()}
    out = {version: int(share) for version, share in exact.items()}
    order = sorted(out, key=lambda version: out[version] - exact[version])
    for version in order[: SHARE - sum(out.values())]:
        out[version] += 1
    return out


def groups_of(service: Service) -> dict[str, list[int]]:
    """Version -> places in the service's endpoints. One group, "", when there is no split."""
    if service.split is None:
        return {"": list(range(len(service.endpoints)))}
    out: dict[str, list[int]] = {}
    for place, endpoint in enumerate(service.endpoints):
        out.setdefault(endpoint.version, []).append(place)
    return out


def file_shares(service: Service) -> dict[str, int]:
    """Shares of all its groups as the file has them; a version that split does not name has 0."""
    if service.split is None:
        return {"": SHARE}
    named = shares_of(service.split)
    return {version: named.get(version, 0) for version in groups_of(service)}


def endpoint_keys(config: Config, addresses: Addresses) -> dict[EndpointKey, int]:
    """Every endpoint in the order of the file, with its weight."""
    return {
        (name, endpoint.address, addresses[endpoint.address]): endpoint.weight
        for name, service in config.services.items()
        for endpoint in service.endpoints
    }


@dataclass(frozen=True)
class _Plans:
    """Slots for everything in the next snapshot."""

    listeners: Plan[str]
    services: Plan[str]
    groups: Plan[GroupKey]
    endpoints: Plan[EndpointKey]
    routes: Plan[RouteKey]


class Freezer:
    """Makes documents, and keeps slots and the supervisor's part of the scoreboard in step with them.

    `state` is where a made signing key is kept, `file` the configuration's name for messages. `document` is
    the newest document, `config` what it was made from.
    """

    def __init__(
        self,
        scoreboard: Scoreboard,
        state: Path,
        *,
        file: str = "configuration",
        resolver: Resolver = system_resolver,
    ) -> None:
        self.scoreboard = scoreboard
        self.state = state
        self.file = file
        self.resolver = resolver
        self.document: Document | None = None
        self.config = Config()
        self.listeners: SlotTable[str] = SlotTable(scoreboard.listeners)
        self.services: SlotTable[str] = SlotTable(scoreboard.services)
        self.groups: SlotTable[GroupKey] = SlotTable(scoreboard.groups)
        self.endpoints: SlotTable[EndpointKey] = SlotTable(scoreboard.endpoints)
        self.routes: SlotTable[RouteKey] = SlotTable(scoreboard.routes)
        self.files = TlsFiles(file)
        self.tls = TlsRows()
        self.tickets = TicketKeys()
        self.health_of: Callable[[str, str], Health] = lambda _service, _address: "up"
        self.admin_of: Callable[[str, str], Admin] = lambda _service, _address: "ready"
        """Of endpoints that are new in the scoreboard, by service and address as written."""
        self._weights: dict[EndpointKey, int] = {}
        self._acknowledged = 0

    # ---- snapshots ---------------------------------------------------------------------------------------

    def freeze(self, config: Config, version: int) -> bytes:
        """The document of the next snapshot as JSON. What is new in it is in the scoreboard when this
        returns; what is gone leaves with `release`. Raises ConfigError (a name that does not resolve, no slot
        left, no signing key, a certificate that cannot be used); nothing has changed then.
        """
        self.release(self._acknowledged)
        addresses = self._addresses(config)
        tls = self.files.read(config)
        plans = self._plan(config, addresses)
        document = self._document(config, version, addresses, plans, tls)
        self._try(document)
        self._enter(config, endpoint_keys(config, addresses), plans, version)
        self.config, self.document, self.tls = config, document, tls
        return json.dumps(document, separators=(",", ":")).encode()

    def release(self, version: int) -> None:
        """Every worker has acknowledged `version`: what left with it or before loses its slot. The slot is
        given to another owner once no request is under way on it.
        """
        board = self.scoreboard
        self._acknowledged = max(self._acknowledged, version)
        for slot in self.endpoints.release(
            version, lambda slot: board.endpoint(slot)["inflight"] <= 0
        ).values():
            board.release_endpoint(slot)
        for slot in self.groups.release(version, lambda slot: board.group(slot)["inflight"] <= 0).values():
            board.release_group(slot)
        self.listeners.release(version, lambda slot: board.listener_totals(slot)["open"] == 0)
        self.services.release(version)
        self.routes.release(version)
        self._weights = {key: weight for key, weight in self._weights.items() if key in self.endpoints}

    # ---- what the supervisor asks ------------------------------------------------------------------------

    def listener_slot(self, name: str) -> int:
        """Also of a listener that is on its way out. KeyError for one that never was."""
        return self.listeners.slot(name)

    def endpoint_slots(self, service: str) -> dict[str, int]:
        """Address as written -> slot. KeyError for a service that is not in the configuration."""
        if service not in self.config.services:
            raise KeyError(service)
        return {key[1]: slot for key, slot in self.endpoints.held.items() if key[0] == service}

    def set_split(self, service: str, shares: dict[str, float]) -> dict[str, int]:
        """Give the versions of a service these shares, in force at every worker's next pick; versions not
        named get 0. Returns them in millionths. KeyError for a service or version that does not exist,
        ValueError for shares that make no sense or a service without split.
        """
        conf = self.config.services[service]
        if conf.split is None:
            raise ValueError(f'service "{service}" has no split; give it one in the file')
        versions = groups_of(conf)
        for version in shares:
            if version not in versions:
                raise KeyError(version)
        stored = shares_of({version: shares.get(version, 0.0) for version in versions})
        self._store_shares(service, stored)
        return stored

    def apply_shares(self, shares: dict[str, dict[str, float]]) -> None:
        """After a reload: drop from `shares`, which were set at run time, those that the file has overruled.
        The others are still in force.
        """
        for service in list(shares):
            if service not in self.config.services or self._in_force(service) == file_shares(
                self.config.services[service]
            ):
                del shares[service]

    def _in_force(self, service: str) -> dict[str, int]:
        versions = groups_of(self.config.services[service])
        return {v: self.scoreboard.group(self.groups.held[service, v])["share"] for v in versions}

    def _store_shares(self, service: str, shares: dict[str, int]) -> None:
        self.scoreboard.set_shares(
            {self.groups.held[service, version]: share for version, share in shares.items()}
        )

    # ---- names to numbers --------------------------------------------------------------------------------

    def _fail(self, where: str, what: str) -> ConfigError:
        return ConfigError([Problem(self.file, where, what)])

    def _addresses(self, config: Config) -> Addresses:
        """Raises ConfigError that names every endpoint without an address."""
        wanted = [endpoint.address for service in config.services.values() for endpoint in service.endpoints]
        found = resolve(wanted, self.resolver)
        problems = [
            Problem(
                self.file,
                f"[services.{name}] endpoints[{place}]",
                f'"{endpoint.address}" cannot be looked up: {why.strerror or why}',
            )
            for name, service in config.services.items()
            for place, endpoint in enumerate(service.endpoints, 1)
            if isinstance(why := found[endpoint.address], OSError)
        ]
        if problems:
            raise ConfigError(problems)
        return {address: str(number) for address, number in found.items()}

    def _plan(self, config: Config, addresses: Addresses) -> _Plans:
        groups = [
            (name, version) for name, service in config.services.items() for version in groups_of(service)
        ]
        return _Plans(
            self._slots("listeners", lambda: self.listeners.plan(config.listeners)),
            self._slots("services", lambda: self.services.plan(config.services)),
            self._slots("services", lambda: self.groups.plan(groups)),
            self._slots(
                "[proxy] max_endpoints", lambda: self.endpoints.plan(endpoint_keys(config, addresses))
            ),
            self._slots(
                "routes", lambda: self.routes.plan([route_key(route) for route in routes_of(config)])
            ),
        )

    def _try(self, document: Document) -> None:
        """What workers will do with it, before any of them sees it."""
        try:
            Snapshot(document)
        except ValueError as error:
            raise self._fail("", f"cannot be made a snapshot: {error}") from None

    def _slots(self, where: str, plan: Callable[[], Plan[K]]) -> Plan[K]:
        try:
            return plan()
        except SlotsError as error:
            hint = "raise it and" if where == "[proxy] max_endpoints" else "to make room"
            raise self._fail(
                where, f"{error}, those still in use after a reload included; {hint} run turnout upgrade"
            ) from None

    # ---- the document ------------------------------------------------------------------------------------

    def _document(
        self, config: Config, version: int, addresses: Addresses, plans: _Plans, tls: TlsRows
    ) -> Document:
        document: Any = {
            "version": version,
            "ticket_keys": self.tickets.keys if tls.serving else [],
            "listeners": [
                {
                    "slot": plans.listeners.slots[name],
                    "name": name,
                    **listener_row(listener, tls.listeners[name]),
                }
                for name, listener in config.listeners.items()
            ],
            "members": list(self._members(config, addresses, plans.endpoints)),
            "services": list(self._services(config, plans, tls)),
            "routes": list(_routes(config, plans.routes)),
        }
        return document  # type: ignore[no-any-return]

    def _members(
        self, config: Config, addresses: Addresses, plan: Plan[EndpointKey]
    ) -> Iterator[dict[str, Any]]:
        for name, service in config.services.items():
            for endpoint in service.endpoints:
                key = (name, endpoint.address, addresses[endpoint.address])
                slot = plan.slots[key]
                yield {
                    "slot": slot,
                    "generation": self.scoreboard.endpoint(slot)["generation"] + (key in plan.new),
                    "weight": endpoint.weight,
                    "priority": endpoint.priority,
                    "identity": identity(name, endpoint.address),
                    "name": endpoint.address,
                    "version": endpoint.version,
                    "address": addresses[endpoint.address],
                    "tls": name_for(service, endpoint.address) if service.over_tls(endpoint) else None,
                }

    def _services(self, config: Config, plans: _Plans, tls: TlsRows) -> Iterator[dict[str, Any]]:
        first = 0
        for name, service in config.services.items():
            shares = file_shares(service)
            yield {
                "slot": plans.services.slots[name],
                "name": name,
                **service_row(service, self._key(name, service), config.proxy.grace, tls.services[name]),
                "members": list(range(first, first + len(service.endpoints))),
                "groups": [
                    {
                        "slot": plans.groups.slots[name, version],
                        "version": version,
                        "share": shares[version],
                        "members": [first + place for place in places],
                    }
                    for version, places in groups_of(service).items()
                ],
            }
            first += len(service.endpoints)

    def _key(self, name: str, service: Service) -> str:
        if service.sticky is None or service.sticky.cookie is None:
            return ""
        if service.sticky.key is not None:
            return signing_key(service.sticky.key.encode(), name)
        try:
            return signing_key(kept_secret(self.state), name)
        except KeyFileError as error:
            raise self._fail(f"[services.{name}] sticky", f"no signing key: {error}") from None

    # ---- the scoreboard ----------------------------------------------------------------------------------

    def _enter(self, config: Config, weights: dict[EndpointKey, int], plans: _Plans, version: int) -> None:
        """Write what is new, before any worker can look for it."""
        board = self.scoreboard
        self._enter_endpoints(weights, plans.endpoints)
        for slot in plans.groups.new.values():
            board.use_group(slot)
        for slot in plans.listeners.new.values():
            board.renew_listener(slot)
        for slot in plans.services.new.values():
            board.renew_service(slot)
        for slot in plans.routes.new.values():
            board.renew_route(slot)
        self.listeners.commit(plans.listeners, version)
        self.services.commit(plans.services, version)
        self.groups.commit(plans.groups, version)
        self.endpoints.commit(plans.endpoints, version)
        self.routes.commit(plans.routes, version)
        for name, service in config.services.items():
            before = self.config.services.get(name)
            if before is None or file_shares(before) != file_shares(service):
                self._store_shares(name, file_shares(service))

    def _enter_endpoints(self, weights: dict[EndpointKey, int], plan: Plan[EndpointKey]) -> None:
        """A newcomer to a service that runs ramps up; when all are new there is nobody to spare it."""
        running = {key[0] for key in plan.slots if key not in plan.new}
        for key, slot in plan.slots.items():
            if key in plan.new:
                self.scoreboard.use_endpoint(
                    slot,
                    weight=weights[key],
                    health=self.health_of(key[0], key[1]),
                    admin=self.admin_of(key[0], key[1]),
                    slow_start=key[0] in running,
                )
            elif self._weights[key] != weights[key]:
                self.scoreboard.set_weight(slot, weights[key])
        self._weights |= weights


def _routes(config: Config, plan: Plan[RouteKey]) -> Iterator[dict[str, Any]]:
    listeners = {name: place for place, name in enumerate(config.listeners)}
    served = [place for name, place in listeners.items() if config.listeners[name].redirects is None]
    services = {name: place for place, name in enumerate(config.services)}
    spoken = [place for place in served if list(config.listeners.values())[place].protocol == "http"]
    for route in routes_of(config):
        yield {
            "slot": plan.slots[route_key(route)],
            "listeners": spoken if route.listener is None else [listeners[route.listener]],
            "service": None if route.service is None else services[route.service],
            **route_row(route, config.proxy.access_log),
        }
