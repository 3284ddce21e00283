"""When leases end. Losing many at once more likely means that the way to here is broken than that all have
died, so no more than half of a pool goes within the time of one lease; what is held back is held once.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

from turnout.control.registry.entries import EndpointEntry, Key

POOL_MIN = 3
"""Smaller pools are not guarded."""
GUARD = 0.5


@dataclass
class Verdict:
    """Of one look: who goes, who is held back."""

    expired: list[EndpointEntry] = field(default_factory=list)
    held: list[EndpointEntry] = field(default_factory=list)


class Leases:
    """Remembers who was held and who went of late."""

    def __init__(self) -> None:
        self._held: set[Key] = set()
        self._gone: dict[str, list[float]] = defaultdict(list)

    def renewed(self, key: Key) -> None:
        """Also of one that begins or ends in another way."""
        self._held.discard(key)

    def judge(self, entries: Iterable[EndpointEntry], now: float) -> Verdict:
        """`entries`: all that have a lease."""
        pools: dict[str, list[EndpointEntry]] = defaultdict(list)
        for entry in entries:
            pools[entry.service].append(entry)
        out = Verdict()
        for service, pool in pools.items():
            ended = [entry for entry in pool if entry.expires is not None and entry.expires <= now]
            if ended:
                self._judge_pool(service, pool, ended, now, out)
        return out

    def _judge_pool(
        self, service: str, pool: list[EndpointEntry], ended: list[EndpointEntry], now: float, out: Verdict
    ) -> None:
        window = max(entry.lease_ttl or 0.0 for entry in pool)
        recent = [when for when in self._gone[service] if when > now - window]
        whole = len(pool) + len(recent)
        guarded = whole >= POOL_MIN and len(recent) + len(ended) > GUARD * whole
        for entry in ended:
            if guarded and entry.key not in self._held:
                self._held.add(entry.key)
                out.held.append(entry)
            else:
                self._held.discard(entry.key)
                out.expired.append(entry)
                recent.append(now)
        self._gone[service] = recent
