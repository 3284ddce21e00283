"""ttl: the endpoint says itself how it is, at least once every ttl. Only silence is checked."""

from __future__ import annotations

import time

from turnout.control.health.check import Base
from turnout.control.health.outcome import Outcome, Verdict, failed
from turnout.control.health.target import Target
from turnout.control.health.words import seconds

NOTE_MAX = 4096
WORDS: dict[str, Verdict] = {"pass": "pass", "warn": "degraded", "fail": "fail"}
"""What a heartbeat may say."""


class HeartbeatCheck(Base):
    def __init__(self, target: Target) -> None:
        super().__init__(target)
        self._ttl_s = (target.health.ttl or 0) / 1000
        self._deadline = time.monotonic() + self._ttl_s

    @property
    def left_s(self) -> float:
        """Until silence has lasted too long."""
        return self._deadline - time.monotonic()

    def beat(self, status: str, note: str) -> Outcome:
        """Raises ValueError for a status that is none."""
        if status not in WORDS:
            raise ValueError(f'"{status}" is not a status of a heartbeat; say one of {", ".join(WORDS)}')
        self._deadline = time.monotonic() + self._ttl_s
        return Outcome(WORDS[status], note[:NOTE_MAX] or f"heartbeat says {status}")

    async def probe(self) -> Outcome:
        if self.left_s > 0:
            return Outcome("unknown", "waiting for the next heartbeat")
        self._deadline = time.monotonic() + self._ttl_s
        return failed(f"no heartbeat for {seconds(self.target.health.ttl or 0)}")
