"""Histograms of the scoreboard, read: as the classic buckets of Prometheus, and as quantiles.

Counts stand in log-linear buckets of whole microseconds (ext/scoreboard.pxd). Every bound used here is a
power of two microseconds and so the edge of one of them: cumulative counts are exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

from turnout.ext.scoreboard import hist_bounds

MICROSECOND = 1e-6
EDGES = tuple(hist_bounds())
"""Upper bound of each log-linear bucket, exclusive, microseconds."""

LATENCY = tuple(float(1 << power) for power in (*range(7, 22), 24, 26))
"""128 us to 67 s, for what a request waits for."""
COARSE = tuple(float(1 << power) for power in range(8, 27, 2))
"""256 us to 67 s by fours, for what there are thousands of."""
OVERHEAD = tuple(float(1 << power) for power in range(2, 17))
"""4 us to 66 ms, for what the proxy itself takes."""

_PLACES = {edge: place for place, edge in enumerate(EDGES)}


def classic(counts: Sequence[int], bounds: Sequence[float]) -> list[tuple[str, float]]:
    """Cumulative counts at `bounds` (microseconds, out of EDGES) as (upper bound in seconds, count), and at
    infinity.
    """
    sums = list(accumulate(counts))
    rows = [(repr(bound * MICROSECOND), float(sums[_PLACES[bound]])) for bound in bounds]
    return [*rows, ("+Inf", float(sums[-1]))]


def quantile(counts: Sequence[int], share: float) -> float | None:
    """The time in microseconds that `share` of all counts did not exceed, linear within its bucket; None
    without counts.
    """
    total = sum(counts)
    if total <= 0:
        return None
    rank, seen = share * total, 0
    for place, count in enumerate(counts):
        if count and seen + count >= rank:
            low = EDGES[place - 1] if place else 0.0
            high = EDGES[place] if place < len(EDGES) - 1 else low
            return low + (high - low) * (rank - seen) / count
        seen += count
    return EDGES[-2]
