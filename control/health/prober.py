"""The prober: follows the endpoints in force, has them checked, and says who is up.

One for the process group. Endpoints that are new are down until a check has passed; those known from before a
restart, and those whose checks have just been configured, are as they were until a check fails.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import defaultdict
from collections.abc import Collection, Container, Iterator
from typing import Any, Literal, Protocol

from turnout.control.health.board import Board
from turnout.control.health.collapse import Pool
from turnout.control.health.heartbeat import HeartbeatCheck
from turnout.control.health.judge import Start
from turnout.control.health.kinds import Checks
from turnout.control.health.outcome import Result
from turnout.control.health.remembered import Known, Remembered
from turnout.control.health.schedule import Scheduler
from turnout.control.health.state import HealthState, status_of
from turnout.control.health.target import Key, Manner, Target, manner_of, target_of
from turnout.control.health.watched import Watched, heard
from turnout.proxy.model import Config, Endpoint, Service

log = logging.getLogger("turnout.health")

BY = "health"
FIRST_APART_S = 0.002
"""First checks of many new endpoints are spread at random over so much time each, an interval at most: one
alone is checked at once.
"""
UNCLAIMED_S = 600.0
"""How long after the start endpoints are remembered that are not there."""


class Publish(Protocol):
    """Of Events."""

    def __call__(
        self,
        kind: str,
        *,
        by: str,
        service: str | None = None,
        address: str | None = None,
        data: dict[str, Any] | None = None,
    ) -> None: ...


class Prober:
    def __init__(self, board: Board, checks: Checks, remembered: Remembered, publish: Publish) -> None:
        self._board = board
        self._checks = checks
        self._remembered = remembered
        self._publish = publish
        self._scheduler = Scheduler()
        self._watched: dict[Key, Watched] = {}
        self._services: dict[str, Service] = {}
        self._keys: defaultdict[str, set[Key]] = defaultdict(set)
        self._sources: dict[Key, tuple[Endpoint, str]] = {}
        self._manners: dict[str, Manner] = {}
        self._pools: dict[str, Pool] = {}
        self._started = False
        self._sweeping: asyncio.TimerHandle | None = None

    # ---- from start to end -------------------------------------------------------------------------------

    async def open(self) -> None:
        """Before the first snapshot: read what is known of endpoints."""
        await self._remembered.open()

    async def start(self) -> None:
        await self._remembered.start()
        self._started = True
        self._schedule(list(self._watched.values()))
        self._sweeping = asyncio.get_running_loop().call_later(UNCLAIMED_S, self._sweep)

    async def close(self) -> None:
        if self._sweeping is not None:
            self._sweeping.cancel()
        await self._scheduler.close()
        for watched in self._watched.values():
            watched.check.close()
        await self._checks.close()
        await self._remembered.close()

    def _sweep(self) -> None:
        for key in self._remembered.all():
            if key not in self._watched:
                self._remembered.forget(key)

    # ---- what is asked -----------------------------------------------------------------------------------

    def health_of(self, service: str, address: str, *, checked: bool) -> Literal["up", "down"]:
        """Of an endpoint that is about to be in force; `checked`: its service has checks."""
        if not checked:
            return "up"
        key = Key(service, address)
        watched, known = self._watched.get(key), self._remembered.get(key)
        up = watched.judge.up if watched is not None else known is not None and known.up
        return "up" if up else "down"

    def state(self, service: str, address: str) -> HealthState | None:
        """None for an endpoint that is not checked."""
        watched = self._watched.get(Key(service, address))
        return watched.state if watched is not None else None

    def watched(self) -> Iterator[Watched]:
        yield from self._watched.values()

    @property
    def lag(self) -> float:
        """How late the newest check was, seconds."""
        return self._scheduler.lag

    def heartbeat(self, service: str, address: str, status: str, note: str = "") -> HealthState:
        """An endpoint says how it is: "pass", "warn" or "fail". KeyError for one that is not checked,
        ValueError when its check is not one of type ttl, or for another status.
        """
        watched = self._watched[Key(service, address)]
        if not isinstance(watched.check, HeartbeatCheck):
            raise ValueError(  # noqa: TRY004 - the value of an argument, not its type
                f'"{address}" of "{service}" is checked by {watched.target.kind} and takes no heartbeats'
            )
        watched.take(heard(watched.check.beat(status, note)))
        return watched.state

    # ---- following what is in force ----------------------------------------------------------------------

    def in_force(self, config: Config) -> None:
        """Watch its endpoints, each as its service says; forget all others. Never raises: what is in force is
        so whether or not it can be checked.
        """
        for name in [name for name in self._keys if name not in config.services]:
            self._leave(name, frozenset())
            del self._keys[name]
            self._manners.pop(name, None)
            self._pools.pop(name, None)
        former, self._services = self._services, dict(config.services)
        changed = [name for name in config.services if config.services[name] is not former.get(name)]
        for name in changed:
            try:
                self._follow(name, config.services[name])
            except Exception:
                log.exception("the checks of %s do not follow what is in force", name)
                del self._services[name]  # try again with the next snapshot
        if self._started:
            some = [self._watched[key] for name in changed for key in self._keys[name]]
            self._schedule([watched for watched in some if watched not in self._scheduler])

    def _follow(self, name: str, service: Service) -> None:
        manner = manner_of(service)
        if manner is None:
            self._unwatch(name, service)
            return
        same = self._manners.get(name) == manner
        self._leave(name, {endpoint.address for endpoint in service.endpoints})
        self._pools.setdefault(name, Pool()).window_s = 2 * manner.health.interval / 1000
        resolved = self._board.resolved(name)
        for endpoint in service.endpoints:
            source = endpoint, resolved[endpoint.address]
            key = Key(name, endpoint.address)
            watched = self._watched.get(key)
            if watched is not None and same and self._sources.get(key) == source:
                continue
            target = target_of(key, manner, service, *source)
            if watched is None or is_another(watched.target, target):
                self._watch(target)
            elif watched.target != target:
                self._retarget(watched, target)
            self._sources[key] = source
        self._manners[name] = manner

    def _watch(self, target: Target) -> None:
        """From now on; in the place of what was watched under this name."""
        key = target.key
        if key in self._watched:
            self._forget(key)
            self._board.set_health(*key, "down")
        known = self._remembered.get(key)
        start: Start = "new"
        if known is not None:
            start = "up" if known.up else "down"
        elif self._board.health_in_force(*key) == "up":
            start = "up"  # it was there before its checks were
        watched = Watched(self._checks.make(target), self, start)
        self._watched[key] = watched
        self._keys[key.service].add(key)
        if known is not None:
            watched.memory.since = known.since

    def _retarget(self, watched: Watched, target: Target) -> None:
        """The same endpoint, checked in another way; or at another place, and then what was known of it is
        only assumed.
        """
        moved = (watched.target.host, watched.target.version) != (target.host, target.version)
        check = self._checks.make(target)
        self._unschedule(watched)
        watched.retarget(check, afresh=moved)

    def _leave(self, name: str, staying: Container[str]) -> None:
        """Forget the endpoints of a service that are not `staying`."""
        for key in [key for key in self._keys[name] if key.address not in staying]:
            self._forget(key)

    def _unwatch(self, name: str, service: Service) -> None:
        """Nobody checks its endpoints any more: they count as up."""
        self._leave(name, frozenset())
        if self._manners.pop(name, None) is not None:
            for endpoint in service.endpoints:
                self._board.set_health(name, endpoint.address, "up")

    def _forget(self, key: Key) -> None:
        watched = self._watched.pop(key)
        self._keys[key.service].discard(key)
        self._sources.pop(key, None)
        self._unschedule(watched)
        watched.check.close()
        self._remembered.forget(key)
        self._pools[key.service].left(key.address)

    # ---- in time -----------------------------------------------------------------------------------------

    def _schedule(self, some: Collection[Watched]) -> None:
        """First checks, at random over a time that is longer the more there are."""
        for watched in some:
            interval = watched.target.health.interval / 1000
            self._scheduler.add(watched, random.uniform(0, min(len(some) * FIRST_APART_S, interval)))

    def _unschedule(self, watched: Watched) -> None:
        if watched in self._scheduler:
            self._scheduler.remove(watched)

    # ---- what is found -----------------------------------------------------------------------------------

    def is_disabled(self, watched: Watched) -> bool:
        try:
            return self._board.admin_in_force(*watched.target.key) == "maint"
        except KeyError:
            return True

    def found(self, watched: Watched, result: Result, *, turned: bool) -> None:
        key, up = watched.target.key, watched.judge.up
        if turned:
            try:
                self._board.set_health(*key, "up" if up else "down")
            except KeyError:
                return  # it is on its way out
            self._tell(watched, result)
        if turned or (self._remembered.get(key) is None and watched.judge.proven):
            self._remembered.put(key, Known(up, watched.memory.since, result.outcome.reason))

    def _tell(self, watched: Watched, result: Result) -> None:
        (service, address), up = watched.target.key, watched.judge.up
        status, reason = status_of(watched.judge, result), result.outcome.reason
        facts = {"service": service, "endpoint": address, "status": status, "reason": reason}
        log.log(logging.INFO if up else logging.WARNING, "endpoint is %s", status, extra={"fields": facts})
        self._publish(
            "endpoint.health",
            by=BY,
            service=service,
            address=address,
            data={"status": status, "up": up, "reason": reason, "ms": round(result.ms, 3)},
        )
        size = len(self._keys[service])
        down = self._pools[service].turned(address, up=up, now=time.monotonic(), size=size)
        if down:
            fields = {"service": service, "down": down, "of": size}
            log.error("more than half of a service went down at once", extra={"fields": fields})
            data = {"down": down, "of": size, "within_s": self._pools[service].window_s}
            self._publish("service.collapse", by=BY, service=service, data=data)


def is_another(former: Target, target: Target) -> bool:
    """Does the endpoint claim to be something else now, in a way that checks can prove?"""
    return former.version != target.version and target.health.identity is not None
