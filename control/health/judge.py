"""From outcomes to up and down: thresholds, doubt about what was only remembered, and damping of endpoints
that go up and down again and again. Pure: time is handed in (seconds, any origin, never going back).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from turnout.control.health.outcome import Outcome

HALF_LIFE_S = 60.0
SUPPRESS, RELEASE, HIGHEST = 5.0, 2.0, 10.0
"""Score of turns above which an endpoint is kept down, below which it may come back, and which it never
exceeds: the longest wait after the last turn is HALF_LIFE_S * log2(HIGHEST / RELEASE), 140 s.
"""

Start = Literal["new", "up", "down"]


@dataclass(frozen=True, slots=True)
class Thresholds:
    rise: int = 2
    fall: int = 3


class Judge:
    """Of one endpoint. `up` is what counts; `assumed` while it is only what was remembered, `flapping` while
    damping keeps an endpoint down whose checks pass. `successes` and `failures` are those in a row.
    """

    __slots__ = (
        "_score",
        "_scored",
        "_sound",
        "assumed",
        "failures",
        "flapping",
        "proven",
        "successes",
        "thresholds",
    )

    def __init__(self, thresholds: Thresholds, start: Start = "new") -> None:
        self.thresholds = thresholds
        self.successes = self.failures = 0
        self.assumed = start != "new"
        self.proven = start != "new"
        self.flapping = False
        self._sound = start == "up"
        self._score, self._scored = 0.0, 0.0

    @property
    def up(self) -> bool:
        return self._sound and not self.flapping

    @property
    def doubtful(self) -> bool:
        """Is it on its way from one state to the other, or not proven yet?"""
        if self.assumed or not self.proven:
            return True
        return self.failures > 0 if self._sound else self.successes > 0

    def score(self, now: float) -> float:
        """Of turns, as it has decayed until now."""
        return self._score * math.exp2((self._scored - now) / HALF_LIFE_S)

    def take(self, outcome: Outcome, now: float) -> bool:
        """Whether `up` has changed."""
        before = self.up
        if outcome.verdict == "unknown":
            return False
        if outcome.ok:
            self._success(now)
        else:
            self._failure(outcome.counts, now)
        if self.flapping and self.score(now) < RELEASE:
            self.flapping = False
        return self.up != before

    def _success(self, now: float) -> None:
        self.failures, self.successes = 0, self.successes + 1
        if self._sound:
            self.assumed = False
        elif not self.proven:
            self._sound, self.proven = True, True
        elif self.successes >= self.thresholds.rise:
            self._turn(now)

    def _failure(self, counts: int, now: float) -> None:
        self.successes, self.failures = 0, self.failures + counts
        if not self._sound:
            self.assumed = False
        elif self.assumed or self.failures >= self.thresholds.fall:
            self._turn(now)

    def _turn(self, now: float) -> None:
        """Assumptions that were wrong are no turns."""
        self._sound = not self._sound
        if not self.assumed:
            self._score, self._scored = min(self.score(now) + 1, HIGHEST), now
            self.flapping = self.flapping or self._score > SUPPRESS
        self.assumed = False
