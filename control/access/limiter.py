"""How often somebody may fail: a token bucket for each source address."""

from __future__ import annotations

import ipaddress
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

BURST = 10
PER_S = 0.2
SOURCES = 4096
"""That are remembered; the one that failed longest ago makes room."""
V6_PREFIX = 64
"""Bits that one subscriber has at least."""


@dataclass
class Bucket:
    tokens: float
    at: float
    told: bool = False  # that it is empty, since it last had a token


class Limiter:
    """Counts failures alone: who succeeds is never held up by somebody behind the same address."""

    def __init__(
        self, burst: int = BURST, per_s: float = PER_S, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._burst = burst
        self._per_s = per_s
        self._clock = clock
        self._buckets: OrderedDict[str, Bucket] = OrderedDict()

    def failed(self, source: str) -> tuple[float, bool]:
        """Note a failure. How many seconds to wait, 0 when it was one of those that are free; and whether it
        is the first beyond them.
        """
        bucket = self._bucket(source)
        if bucket.tokens >= 1:
            bucket.tokens -= 1
            bucket.told = False
            return 0.0, False
        first, bucket.told = not bucket.told, True
        return (1 - bucket.tokens) / self._per_s, first

    def _bucket(self, source: str) -> Bucket:
        key, now = network(source), self._clock()
        bucket = self._buckets.pop(key, None) or Bucket(self._burst, now)
        bucket.tokens = min(self._burst, bucket.tokens + (now - bucket.at) * self._per_s)
        bucket.at = now
        self._buckets[key] = bucket
        if len(self._buckets) > SOURCES:
            self._buckets.popitem(last=False)
        return bucket


def network(source: str) -> str:
    """What counts as one source: an IPv4 address, an IPv6 network, else the text as it is."""
    try:
        address = ipaddress.ip_address(source.partition("%")[0])
    except ValueError:
        return source
    if address.version == 4:
        return source
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.ip_network((int(address), V6_PREFIX), strict=False))
