"""What time does to the registry: leases end, endpoints are ready again, names get addresses."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time

from turnout.control.registry.errors import RegistryError
from turnout.control.registry.registry import Registry
from turnout.control.storage.store import StoreError
from turnout.proxy.config import ConfigError

log = logging.getLogger("turnout.registry")

SWEEP_S = 0.5
JUMP_S = 1.0
"""By so much the clock may be corrected between two sweeps without a word."""
NAMES_EVERY = 20
"""Sweeps."""
BY = "turnout"
HELD = "more than half of the leases ended at once; held for one more ttl"


class Keeper:
    """Looks at one registry again and again."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._ahead = registry.clock() - time.monotonic()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._task = asyncio.create_task(self._sweep())

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _sweep(self) -> None:
        sweeps = 0
        while True:
            await asyncio.sleep(SWEEP_S)
            sweeps += 1
            self.follow_clock(time.monotonic())
            try:
                await self.sweep()
                if sweeps % NAMES_EVERY == 0 and await self._registry.ledger.look_again():
                    await self._registry.refresh()
            except (RegistryError, StoreError, ConfigError) as error:
                log.warning("leases and states with an end wait: %s", error)
            except Exception:
                log.exception("unexpected failure")

    def follow_clock(self, steady: float) -> None:
        """A clock that is set, or a machine that has slept, ends no lease and makes none last longer: nobody
        could have renewed one in that time.
        """
        ahead = self._registry.clock() - steady
        jump, self._ahead = ahead - self._ahead, ahead
        if abs(jump) < JUMP_S:
            return
        log.warning("the clock was set by %+.1f s; leases end that much later", jump)
        for one in self._registry.ledger.registered.values():
            for entry in one.sources.get("api", {}).values():
                if entry.lease is not None:
                    entry.lease.expires += jump

    async def sweep(self) -> None:
        """What has come to its end by now."""
        await self._registry.forget_overruled(by=BY)
        await self._end_states()
        await self._end_leases()

    async def _end_leases(self) -> None:
        registry = self._registry
        verdict = registry.leases.judge(
            (
                entry
                for one in registry.ledger.registered.values()
                for entry in one.sources.get("api", {}).values()
                if entry.lease is not None
            ),
            registry.clock(),
        )
        for entry in verdict.held:
            assert entry.lease is not None
            entry.lease.expires = registry.clock() + entry.lease.ttl
            registry.events.publish(
                "endpoint.held", by=BY, service=entry.service, address=entry.address, data={"reason": HELD}
            )
        if verdict.expired:
            await registry.expire(verdict.expired, by=BY)

    async def _end_states(self) -> None:
        registry, now = self._registry, self._registry.clock()
        ended = [
            entry
            for service in registry.services.values()
            for entry in service.endpoints.values()
            if entry.admin_until is not None and entry.admin_until <= now
        ]
        for entry in ended:
            await registry.set_admin(*entry.key, "ready", by=BY, reason="its time is over")
