"""From the configuration to a snapshot's document, and to what the supervisor writes into the scoreboard.

Names become indices and scoreboard slots. An endpoint is (service, address as written, address as resolved):
the same three keep slot, counters, breaker and run-time state over any reload. Weights and shares set at run
time stay until the file says something new about them: its value counts when it differs from what the file
said before.

Pieces are made anew for services whose model is another object than before, and in them for endpoints that
are; so the change of one endpoint costs little, however many there are. Whoever makes one configuration out
of another keeps the objects of what has not changed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import mmh3

from turnout.ext.scoreboard import Admin, Health, Scoreboard
from turnout.ext.snapshot import Snapshot
from turnout.proxy.certs import TlsFiles, TlsRows, name_for
from turnout.proxy.config import ConfigError, Problem
from turnout.proxy.keys import KeyFileError, kept_secret, signing_key
from turnout.proxy.model import Config, Endpoint, Redirect, Route, Service
from turnout.proxy.paths import canonical_path
from turnout.proxy.pieces import Frame, Frozen, Group, Member, Piece, dumped, frozen
from turnout.proxy.resolve import Resolver, resolve, system_resolver
from turnout.proxy.rows import listener_row, route_row, service_row
from turnout.proxy.shares import Shares, asked_of, groups_of, shares_of
from turnout.proxy.slots import Plan, SlotsError, SlotTable
from turnout.proxy.tickets import TicketKeys

__all__ = ["Freezer", "groups_of", "identity", "route_key", "routes_of", "shares_of"]

EndpointKey = tuple[str, str, str]
"""service, address as written, address as resolved"""
GroupKey = tuple[str, str]
"""service, version; "" for the one group of a service without split"""
RouteKey = tuple[object, ...]
K = TypeVar("K")


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


@dataclass(frozen=True)
class _Plans:
    """Slots for everything that is new in the next snapshot. Listeners and routes: None while the frame is as
    it was.
    """

    listeners: Plan[str] | None
    services: Plan[str]
    groups: Plan[GroupKey]
    endpoints: Plan[EndpointKey]
    routes: Plan[RouteKey] | None


PENDING = Member(Endpoint(address="127.0.0.1:1"), "", 0, "")
"""Stands in a draft where a member is still to be made."""


@dataclass
class _Draft:
    """A service whose piece is to be made. `alike`: all but endpoints is as it was. `members` by address as
    written; `rest`, the places of those that are still to be made, and `addresses` of them, as resolved.
    `came` and `gone`: endpoints that are new under their key, and the members that are not there any more;
    `reweighed`: members whose configured weight has changed.
    """

    name: str
    service: Service
    before: Piece | None
    alike: bool
    grace: int  # the proxy's
    members: dict[str, Member] = field(default_factory=dict)
    rest: list[int] = field(default_factory=list)
    addresses: dict[str, str] = field(default_factory=dict)
    came: dict[EndpointKey, Endpoint] = field(default_factory=dict)
    gone: list[EndpointKey] = field(default_factory=list)
    groups: dict[str, list[int]] = field(default_factory=dict)
    reweighed: list[Member] = field(default_factory=list)

    @property
    def known(self) -> Mapping[str, Member]:
        """The members before."""
        return {} if self.before is None else self.before.members

    def keep(self, names: bool) -> None:
        """Take over the members that are the same, unless their names are looked up again."""
        known = self.known if self.alike and not names else {}
        for place, endpoint in enumerate(self.service.endpoints):
            old = known.get(endpoint.address)
            if old is not None and old.endpoint is endpoint:
                self.members[endpoint.address] = old
            else:
                self.members[endpoint.address] = PENDING
                self.rest.append(place)

    def locate(self, found: Mapping[str, str], names: bool) -> None:
        """Who is where, who came and who has gone. `found` has the addresses that were looked up; with
        `names` they count for all, else for those that are new.
        """
        known = self.known
        for endpoint in self.pending():
            old = known.get(endpoint.address)
            address = found[endpoint.address] if names or old is None else old.address
            self.addresses[endpoint.address] = address
            if old is None or old.address != address:
                self.came[self.name, endpoint.address, address] = endpoint
                if old is not None:
                    self.gone.append((self.name, endpoint.address, old.address))
        self.gone += [(self.name, at, known[at].address) for at in known.keys() - self.members.keys()]
        self.groups = groups_of(self.service)

    def pending(self) -> Iterator[Endpoint]:
        return (self.service.endpoints[place] for place in self.rest)


class Freezer:
    """Makes snapshots, and keeps slots and the supervisor's part of the scoreboard in step with them.

    `state` is where a made signing key is kept, `file` the configuration's name for messages. `config` is
    what the newest snapshot was made from, `tls` what its certificates are. `health_of` and `admin_of` tell
    of endpoints that are new in the scoreboard, by service and address as written.
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
        self._frozen: Frozen | None = None
        self._snapshot: Snapshot | None = None
        self._shares = Shares(scoreboard, lambda service, version: self.groups.held[service, version])
        self._left: dict[EndpointKey, int] = {}  # configured weights of those whose slots are leaving
        self._acknowledged = 0

    # ---- snapshots ---------------------------------------------------------------------------------------

    def freeze(self, config: Config, version: int, *, names: bool = False, files: bool = False) -> Frozen:
        """The next snapshot. What is new in it is in the scoreboard when this returns; what is gone leaves
        with `release`. `names` and `files`: ask for all names, and read all certificates, again; else what is
        known of them stays. Raises ConfigError (a name that does not resolve, no slot left, no signing key, a
        certificate that cannot be used); nothing has changed then.
        """
        self.release(self._acknowledged)
        drafts = self._drafts(config, names, everything=names or files)
        tls = self.files.read(config, self._over_tls(config, drafts), again=files)
        made_of = self._frame_made_of(config, tls)
        plans = self._plan(config, drafts, same_frame=made_of == self._frame_was)
        frame = self._frame(config, made_of, plans, tls)
        pieces = {
            name: self._piece(drafts[name], plans, tls) if name in drafts else self._pieces[name]
            for name in config.services
        }
        out = frozen(version, frame, pieces, self._frozen)
        self._snapshot = self._tried(out)
        self._enter(drafts.values(), config, plans, version)
        self.config, self.tls, self._frozen = config, tls, out
        return out

    def unknown(self, config: Config) -> list[str]:
        """Addresses of endpoints that the newest snapshot does not have: the names in them would have to be
        looked up.
        """
        out = []
        for name, service in config.services.items():
            if service is not self.config.services.get(name):
                known = self._pieces[name].members if name in self._pieces else {}
                out += [e.address for e in service.endpoints if e.address not in known]
        return out

    def release(self, version: int) -> None:
        """Every worker has acknowledged `version`: what left with it or before loses its slot. The slot is
        given to another owner once no request is under way on it.
        """
        board = self.scoreboard
        self._acknowledged = max(self._acknowledged, version)
        for key, slot in self.endpoints.release(
            version, lambda slot: board.endpoint(slot)["inflight"] <= 0
        ).items():
            board.release_endpoint(slot)
            self._left.pop(key, None)
        for slot in self.groups.release(version, lambda slot: board.group(slot)["inflight"] <= 0).values():
            board.release_group(slot)
        self.listeners.release(version, lambda slot: board.listener_totals(slot)["open"] == 0)
        self.services.release(version)
        self.routes.release(version)

    # ---- what the supervisor asks ------------------------------------------------------------------------

    def listener_slot(self, name: str) -> int:
        """Also of a listener that is on its way out. KeyError for one that never was."""
        return self.listeners.slot(name)

    def endpoint_slots(self, service: str) -> dict[str, int]:
        """Address as written -> slot. KeyError for a service that is not in the configuration."""
        return {address: member.slot for address, member in self._pieces[service].members.items()}

    def endpoint_slot(self, service: str, address: str) -> int:
        """KeyError for a service or an endpoint that is not in the configuration."""
        return self._pieces[service].members[address].slot

    def endpoint_weight(self, service: str, address: str) -> int | None:
        """As the configuration has it; None when it has no such endpoint."""
        piece = self._pieces.get(service)
        member = None if piece is None else piece.members.get(address)
        return None if member is None else member.endpoint.weight

    def resolved(self, service: str) -> dict[str, str]:
        """Addresses of its endpoints as written, and as resolved. KeyError as for endpoint_slot."""
        return {address: member.address for address, member in self._pieces[service].members.items()}

    def set_health(self, service: str, address: str, health: Health) -> None:
        """Seen at every worker's next pick. One that was down starts slowly if its service does. KeyError as
        for endpoint_slot.
        """
        slot = self.endpoint_slot(service, address)
        before = self.scoreboard.endpoint(slot)["health"]
        if health != before:
            ramps = self.config.services[service].slow_start_ms > 0
            self.scoreboard.set_health(slot, health, slow_start=health == "up" and ramps)

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
        asked = shares_of({version: shares.get(version, 0.0) for version in versions})
        self._shares.ask(service, asked)
        return asked

    def apply_shares(self, shares: dict[str, dict[str, float]]) -> None:
        """After a reload: drop from `shares`, which were set at run time, those that the file has overruled.
        The others are still in force.
        """
        for service in list(shares):
            if service not in self.config.services or self._shares.as_configured(service):
                del shares[service]

    # ---- what there was ----------------------------------------------------------------------------------

    @property
    def _pieces(self) -> Mapping[str, Piece]:
        return {} if self._frozen is None else self._frozen.pieces

    @property
    def _frame_was(self) -> tuple[object, ...] | None:
        return None if self._frozen is None else self._frozen.frame.made_of

    # ---- names to numbers --------------------------------------------------------------------------------

    def _fail(self, where: str, what: str) -> ConfigError:
        return ConfigError([Problem(self.file, where, what)])

    def _drafts(self, config: Config, names: bool, *, everything: bool) -> dict[str, _Draft]:
        """Of services that are new or may have changed. Raises ConfigError that names every endpoint without
        an address.
        """
        everything = everything or config.proxy.grace != self.config.proxy.grace
        out = {
            name: self._draft(name, service, config)
            for name, service in config.services.items()
            if everything or service is not self.config.services.get(name)
        }
        for draft in out.values():
            draft.keep(names)
        found = self._resolved(out.values(), names)
        for draft in out.values():
            draft.locate(found, names)
        return out

    def _draft(self, name: str, service: Service, config: Config) -> _Draft:
        before = self.config.services.get(name)
        alike = before is not None and _alike(before, service)
        grace = config.proxy.grace
        return _Draft(
            name, service, self._pieces.get(name), alike and grace == self.config.proxy.grace, grace
        )

    def _resolved(self, drafts: Iterable[_Draft], names: bool) -> dict[str, str]:
        """Addresses that were not known before, or all."""
        wanted = [
            (draft.name, place, endpoint.address)
            for draft in drafts
            for place, endpoint in zip(draft.rest, draft.pending(), strict=True)
            if names or endpoint.address not in draft.known
        ]
        if not wanted:
            return {}
        found = resolve([address for _, _, address in wanted], self.resolver)
        problems = [
            Problem(
                self.file,
                f"[services.{name}] endpoints[{place + 1}]",
                f'"{address}" cannot be looked up: {why.strerror or why}',
            )
            for name, place, address in wanted
            if isinstance(why := found[address], OSError)
        ]
        if problems:
            raise ConfigError(problems)
        return {address: str(number) for address, number in found.items()}

    def _over_tls(self, config: Config, drafts: Mapping[str, _Draft]) -> set[str]:
        """Services that speak TLS to any of their endpoints."""
        return {name for name in config.services if self._speaks_tls(name, drafts.get(name))}

    def _speaks_tls(self, name: str, draft: _Draft | None) -> bool:
        before = self.tls.services.get(name) is not None
        if draft is None:
            return before
        over_tls = draft.service.over_tls
        kept_plain = draft.alike and not before
        return any(map(over_tls, draft.pending() if kept_plain else draft.service.endpoints))

    def _plan(self, config: Config, drafts: Mapping[str, _Draft], *, same_frame: bool) -> _Plans:
        gone = [name for name in self.config.services if name not in config.services]
        come_groups = [
            (draft.name, version)
            for draft in drafts.values()
            for version in draft.groups
            if (draft.name, version) not in self.groups.held
        ]
        gone_groups = [
            (name, group.version)
            for name in (*drafts, *gone)
            if name in self._pieces
            for group in self._pieces[name].groups
            if name in gone or group.version not in drafts[name].groups
        ]
        come = [key for draft in drafts.values() for key in draft.came]
        leave = [key for draft in drafts.values() for key in draft.gone]
        leave += [
            (name, at, member.address) for name in gone for at, member in self._pieces[name].members.items()
        ]
        routes = [] if same_frame else [route_key(route) for route in routes_of(config)]
        return _Plans(
            None if same_frame else self._slots("listeners", lambda: self.listeners.plan(config.listeners)),
            self._slots("services", lambda: self.services.plan(config.services)),
            self._slots("services", lambda: self.groups.change(come_groups, gone_groups)),
            self._slots("[proxy] max_endpoints", lambda: self.endpoints.change(come, leave)),
            None if same_frame else self._slots("routes", lambda: self.routes.plan(routes)),
        )

    def _slots(self, where: str, plan: Callable[[], Plan[K]]) -> Plan[K]:
        try:
            return plan()
        except SlotsError as error:
            hint = "raise it and" if where == "[proxy] max_endpoints" else "to make room"
            raise self._fail(
                where, f"{error}, those still in use after a reload included; {hint} run turnout upgrade"
            ) from None

    # ---- the document ------------------------------------------------------------------------------------

    def _frame_made_of(self, config: Config, tls: TlsRows) -> tuple[object, ...]:
        """All that a frame depends on. Comparing it is quick where objects are the same."""
        keys = tuple(self.tickets.keys) if tls.serving else ()
        log = config.proxy.access_log
        return (config.listeners, tls.listeners, config.routes, log, tuple(config.services), keys)

    def _frame(self, config: Config, made_of: tuple[object, ...], plans: _Plans, tls: TlsRows) -> Frame:
        if plans.listeners is None or plans.routes is None:
            assert self._frozen is not None
            return self._frozen.frame
        rows = {
            "ticket_keys": self.tickets.keys if tls.serving else [],
            "listeners": [
                {
                    "slot": self.listeners.slot(name, plans.listeners),
                    "name": name,
                    **listener_row(listener, tls.listeners[name]),
                }
                for name, listener in config.listeners.items()
            ],
            "routes": list(_routes(config, self.routes, plans.routes)),
        }
        return Frame(made_of, dumped(rows))

    def _piece(self, draft: _Draft, plans: _Plans, tls: TlsRows) -> Piece:
        for endpoint in draft.pending():
            draft.members[endpoint.address] = self._member(draft, endpoint, plans.endpoints)
        asked = asked_of(draft.service)
        groups = tuple(
            Group(
                version,
                self.groups.slot((draft.name, version), plans.groups),
                asked.get(version, 0),
                tuple(places),
            )
            for version, places in draft.groups.items()
        )
        slot = self.services.slot(draft.name, plans.services)
        return Piece(slot, self._settings(draft, tls), draft.members, groups)

    def _member(self, draft: _Draft, endpoint: Endpoint, plan: Plan[EndpointKey]) -> Member:
        """As it was, with the newest object of its table, if that says the same."""
        before = draft.known.get(endpoint.address)
        key = (draft.name, endpoint.address, draft.addresses[endpoint.address])
        if before is None or key in draft.came:
            return self._new_member(key, draft.service, endpoint, plan)
        if draft.alike and before.endpoint == endpoint:
            return replace(before, endpoint=endpoint)
        made = self._new_member(key, draft.service, endpoint, plan)
        if before.endpoint.weight != endpoint.weight:
            draft.reweighed.append(made)
        return made

    def _new_member(
        self, key: EndpointKey, service: Service, endpoint: Endpoint, plan: Plan[EndpointKey]
    ) -> Member:
        name, written, address = key
        slot = self.endpoints.slot(key, plan)
        row = {
            "slot": slot,
            "generation": self.scoreboard.endpoint(slot)["generation"] + (key in plan.new),
            "weight": endpoint.weight,
            "priority": endpoint.priority,
            "identity": identity(name, written),
            "name": written,
            "version": endpoint.version,
            "address": address,
            "tls": name_for(service, written) if service.over_tls(endpoint) else None,
        }
        return Member(endpoint, address, slot, dumped(row))

    def _settings(self, draft: _Draft, tls: TlsRows) -> str:
        name, service = draft.name, draft.service
        row = tls.services[name]
        if draft.alike and draft.before is not None and row is self.tls.services.get(name):
            return draft.before.settings
        return dumped({"name": name, **service_row(service, self._key(name, service), draft.grace, row)})

    def _key(self, name: str, service: Service) -> str:
        if service.sticky is None or service.sticky.cookie is None:
            return ""
        if service.sticky.key is not None:
            return signing_key(service.sticky.key.encode(), name)
        try:
            return signing_key(kept_secret(self.state), name)
        except KeyFileError as error:
            raise self._fail(f"[services.{name}] sticky", f"no signing key: {error}") from None

    def _tried(self, new: Frozen) -> Snapshot:
        """What workers will do with it, before any of them sees it."""
        try:
            if self._snapshot is None:
                return Snapshot(new.whole)
            return Snapshot(new.changes, self._snapshot)
        except ValueError as error:
            raise self._fail("", f"cannot be made a snapshot: {error}") from None

    # ---- the scoreboard ----------------------------------------------------------------------------------

    def _enter(self, drafts: Iterable[_Draft], config: Config, plans: _Plans, version: int) -> None:
        """Write what is new, before any worker can look for it."""
        board = self.scoreboard
        drafts = list(drafts)
        for draft in drafts:
            self._enter_endpoints(draft, plans.endpoints)
        for slot in plans.groups.new.values():
            board.use_group(slot)
        for slot in plans.services.new.values():
            board.renew_service(slot)
        self.services.commit(plans.services, version)
        self.groups.commit(plans.groups, version)
        self._leave_endpoints(plans.endpoints)
        self.endpoints.commit(plans.endpoints, version)
        self._enter_frame(plans, version)
        for draft in drafts:
            self._shares.enter(draft.name, draft.service, draft.groups)
        for name in self.config.services.keys() - config.services.keys():
            self._shares.leave(name)

    def _enter_frame(self, plans: _Plans, version: int) -> None:
        if plans.listeners is not None:
            for slot in plans.listeners.new.values():
                self.scoreboard.renew_listener(slot)
            self.listeners.commit(plans.listeners, version)
        if plans.routes is not None:
            for slot in plans.routes.new.values():
                self.scoreboard.renew_route(slot)
            self.routes.commit(plans.routes, version)

    def _enter_endpoints(self, draft: _Draft, plan: Plan[EndpointKey]) -> None:
        """A newcomer to a service that runs ramps up; when all are new there is nobody to spare it."""
        new = [key for key in draft.came if key in plan.new]
        running = len(new) < len(draft.members)
        for key in new:
            self.scoreboard.use_endpoint(
                plan.new[key],
                weight=draft.came[key].weight,
                health=self.health_of(key[0], key[1]),
                admin=self.admin_of(key[0], key[1]),
                slow_start=running,
            )
        for key in draft.came:
            if key in plan.back:
                self._enter_again(key, plan.back[key], draft.came[key].weight)
        for member in draft.reweighed:
            self.scoreboard.set_weight(member.slot, member.endpoint.weight)

    def _enter_again(self, key: EndpointKey, slot: int, weight: int) -> None:
        """Of who comes back before all workers knew that it was gone, counters and health go on."""
        if self._left.pop(key) != weight:
            self.scoreboard.set_weight(slot, weight)
        admin = self.admin_of(key[0], key[1])
        if admin != self.scoreboard.endpoint(slot)["admin"]:
            self.scoreboard.set_admin(slot, admin)

    def _leave_endpoints(self, plan: Plan[EndpointKey]) -> None:
        for key in plan.gone:
            self._left[key] = self._pieces[key[0]].members[key[1]].endpoint.weight


def _alike(one: Service, other: Service) -> bool:
    """All but endpoints."""
    theirs = other.__dict__
    return all(
        value is theirs[name] or value == theirs[name]
        for name, value in one.__dict__.items()
        if name != "endpoints"
    )


def _routes(config: Config, table: SlotTable[RouteKey], plan: Plan[RouteKey]) -> Iterator[dict[str, Any]]:
    listeners = {name: place for place, name in enumerate(config.listeners)}
    served = [place for name, place in listeners.items() if config.listeners[name].redirects is None]
    services = {name: place for place, name in enumerate(config.services)}
    spoken = [place for place in served if list(config.listeners.values())[place].protocol == "http"]
    for route in routes_of(config):
        yield {
            "slot": table.slot(route_key(route), plan),
            "listeners": spoken if route.listener is None else [listeners[route.listener]],
            "service": None if route.service is None else services[route.service],
            **route_row(route, config.proxy.access_log),
        }
