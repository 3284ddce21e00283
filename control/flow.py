"""How requests went lately: what the scoreboard says now less what it said some seconds ago."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass

from typing_extensions import TypedDict

from turnout.ext.scoreboard import EndpointTotals, RequestTotals
from turnout.proxy.buckets import EDGES, quantile

SAMPLE_S = 5.0
"""How often the owner of a Window takes a sample."""
WINDOW_S = 10.0
ERRORS = ("5xx", "connect", "timeout", "reset")
"""Outcomes of an attempt that are the endpoint's failure."""


class Recent(TypedDict):
    """Rates over the last seconds; times are null when there was no request."""

    requests_per_s: float
    errors_per_s: float
    p50_ms: float | None
    p99_ms: float | None


IDLE: Recent = {"requests_per_s": 0.0, "errors_per_s": 0.0, "p50_ms": None, "p99_ms": None}


@dataclass(frozen=True)
class Flow:
    """Requests, those that failed, and how long they took, since the beginning."""

    requests: int
    errors: int
    total_us: tuple[int, ...]

    def __add__(self, other: Flow) -> Flow:
        times = tuple(a + b for a, b in zip(self.total_us, other.total_us, strict=True))
        return Flow(self.requests + other.requests, self.errors + other.errors, times)

    def since(self, before: Flow, seconds: float) -> Recent:
        """What came on top of `before`, which may have been of a former owner of a slot: never below 0."""
        if self.requests == before.requests:
            return IDLE.copy()
        times = [max(now - then, 0) for now, then in zip(self.total_us, before.total_us, strict=True)]
        return {
            "requests_per_s": round(max(self.requests - before.requests, 0) / seconds, 2),
            "errors_per_s": round(max(self.errors - before.errors, 0) / seconds, 2),
            "p50_ms": _ms(quantile(times, 0.50)),
            "p99_ms": _ms(quantile(times, 0.99)),
        }


def _ms(us: float | None) -> float | None:
    return None if us is None else round(us / 1000, 3)


def of_endpoint(totals: EndpointTotals) -> Flow:
    """Attempts at an endpoint."""
    outcomes = totals["outcomes"]
    failed = sum(outcomes[name] for name in ERRORS)
    return Flow(sum(outcomes.values()), failed, tuple(totals["total_us"]))


def of_requests(totals: RequestTotals) -> Flow:
    """What clients of a listener or a route got; a status of 5xx is an error."""
    by_status = [sum(row.values()) for row in totals["requests"]]
    return Flow(sum(by_status), by_status[5], tuple(totals["total_us"]))


NOTHING = Flow(0, 0, (0,) * len(EDGES))
Flows = Mapping[Hashable, Flow]
"""Key of what flowed (an endpoint, a route, a listener) -> its flow."""


class Window:
    """Samples of the last seconds. What was not there then is compared with its beginning."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, Flows]] = deque()

    def add(self, now: float, flows: Flows) -> None:
        """`now` in seconds of any clock that only moves forward."""
        self._samples.append((now, flows))
        while len(self._samples) > 1 and self._samples[1][0] <= now - WINDOW_S:
            self._samples.popleft()

    def recent(self, now: float, flows: Flows) -> Recent:
        """Of all of these together."""
        at, then = self._samples[0] if self._samples else (now, {})
        before = added_up(then.get(key, NOTHING) for key in flows)
        return added_up(flows.values()).since(before, max(now - at, 1.0))


def added_up(flows: Iterable[Flow]) -> Flow:
    first, *others = list(flows) or [NOTHING]
    return sum(others, first)
