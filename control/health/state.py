"""What is known of an endpoint's health, and what was."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Literal

from turnout.control.health.judge import Judge
from turnout.control.health.outcome import Result
from turnout.proxy.model import CheckType

Status = Literal["up", "down", "degraded", "assumed", "unknown", "flapping", "unchecked"]
"""assumed: as it was before a restart. unknown: never proven, so down. flapping: kept down by damping.
unchecked: its service has no checks, so up.
"""
KEPT = 32
"""Turns that are remembered of each endpoint."""
WEIGHT_OF_NEWEST = 0.2
"""In the mean of response times."""


@dataclass(frozen=True, slots=True)
class Turn:
    """From one state to another; `time` is Unix epoch."""

    time: float
    status: Status
    reason: str


@dataclass(frozen=True)
class HealthState:
    """As shown. Times are Unix epoch, `successes` and `failures` those in a row, `history` newest first."""

    service: str
    address: str
    status: Status
    up: bool
    kind: CheckType
    since: float | None
    reason: str
    checked: float | None
    ms: float | None
    ewma_ms: float | None
    successes: int
    failures: int
    score: float
    history: tuple[Turn, ...]


@dataclass(slots=True)
class Memory:
    """What the prober keeps of an endpoint."""

    since: float
    last: Result | None = None
    ewma_ms: float | None = None
    history: deque[Turn] = field(default_factory=lambda: deque(maxlen=KEPT))
    counted: dict[str, int] = field(default_factory=dict)  # by verdict

    def note(self, result: Result) -> None:
        verdict = result.outcome.verdict
        self.counted[verdict] = self.counted.get(verdict, 0) + 1
        if verdict != "unknown" or self.last is None:
            self.last = result
        if result.outcome.ok:
            former = result.ms if self.ewma_ms is None else self.ewma_ms
            self.ewma_ms = former + WEIGHT_OF_NEWEST * (result.ms - former)

    def turn(self, status: Status, reason: str, when: float) -> None:
        self.since = when
        self.history.appendleft(Turn(when, status, reason))


def status_of(judge: Judge, last: Result | None) -> Status:
    if judge.flapping:
        return "flapping"
    if judge.assumed:
        return "assumed"
    if not judge.proven:
        return "unknown"
    if not judge.up:
        return "down"
    return "degraded" if last is not None and last.outcome.verdict == "degraded" else "up"
