"""One endpoint under watch: its check, what is made of the outcomes, and when it is looked at again."""

from __future__ import annotations

import random
import time
from typing import Protocol

from turnout.control.health.check import Check, run
from turnout.control.health.heartbeat import HeartbeatCheck
from turnout.control.health.judge import Judge, Start, Thresholds
from turnout.control.health.outcome import Outcome, Result
from turnout.control.health.state import HealthState, Memory, status_of
from turnout.control.health.target import Target

EAGER = 20
"""Checks of an endpoint that never was up, before it is looked at as seldom as one that is down."""


class Listener(Protocol):
    """Hears of what is found."""

    def is_disabled(self, watched: Watched) -> bool:
        """Did an operator take the endpoint out, so that nobody need know?"""

    def found(self, watched: Watched, result: Result, *, turned: bool) -> None: ...


class Watched:
    """A job of the scheduler."""

    def __init__(self, check: Check, listener: Listener, start: Start) -> None:
        self.check = check
        self.judge = Judge(_thresholds(check.target), start)
        self.memory = Memory(time.time())
        self._listener = listener
        self._down_runs = 0

    @property
    def target(self) -> Target:
        return self.check.target

    @property
    def machine(self) -> str:
        return self.check.target.machine

    def retarget(self, check: Check, *, afresh: bool) -> None:
        """Check it like this from now on; `afresh`: what was known is only assumed."""
        self.check.close()
        self.check = check
        self.judge.thresholds = _thresholds(check.target)
        self.judge.assumed = self.judge.assumed or (afresh and self.judge.proven)

    async def run(self) -> float:
        if self._listener.is_disabled(self):
            self.judge.assumed = self.judge.proven
        elif not (isinstance(self.check, HeartbeatCheck) and self.check.left_s > 0):
            self.take(await run(self.check))
        return self._next()

    def take(self, result: Result) -> None:
        """What a check or a heartbeat found."""
        self.memory.note(result)
        turned = self.judge.take(result.outcome, time.monotonic())
        self._down_runs = 0 if self.judge.up else self._down_runs + 1
        if turned:
            self.memory.turn(status_of(self.judge, result), result.outcome.reason, result.time)
        self._listener.found(self, result, turned=turned)

    def _next(self) -> float:
        """Seconds."""
        if isinstance(self.check, HeartbeatCheck):
            return max(self.check.left_s, 0.001)
        health = self.target.health
        jitter = 1 + random.uniform(-health.jitter, health.jitter)
        return self._interval_ms() / 1000 * jitter

    def _interval_ms(self) -> int:
        health, judge = self.target.health, self.judge
        if judge.up:
            return health.fast_ms if judge.doubtful else health.interval
        if judge.flapping and not judge.doubtful:
            return health.interval
        if judge.successes > 0 or (not judge.proven and self._down_runs < EAGER):
            return health.fast_ms
        doublings = min(max(self._down_runs - 1, 0), 16)
        return min(health.slow_ms << doublings, health.slow_max_ms)

    @property
    def state(self) -> HealthState:
        judge, memory, last = self.judge, self.memory, self.memory.last
        return HealthState(
            service=self.target.key.service,
            address=self.target.key.address,
            status=status_of(judge, last),
            up=judge.up,
            kind=self.target.kind,
            since=memory.since,
            reason=last.outcome.reason if last is not None else "not checked yet",
            checked=last.time if last is not None else None,
            ms=last.ms if last is not None else None,
            ewma_ms=memory.ewma_ms,
            successes=judge.successes,
            failures=judge.failures,
            score=judge.score(time.monotonic()),
            history=tuple(memory.history),
        )


def _thresholds(target: Target) -> Thresholds:
    """A heartbeat is no sample of anything: each counts."""
    return Thresholds(1, 1) if target.kind == "ttl" else Thresholds(target.health.rise, target.health.fall)


def heard(outcome: Outcome) -> Result:
    """Of what needed no asking."""
    return Result(outcome, 0.0, time.time())
