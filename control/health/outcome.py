"""What one check of one endpoint found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

Verdict = Literal["pass", "degraded", "fail", "unknown"]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)
"""degraded: up, but it says itself that it is not well. unknown: says nothing either way."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """`reason`: in words. `counts`: as how many failures it counts."""

    verdict: Verdict
    reason: str
    counts: int = 1

    @property
    def ok(self) -> bool:
        return self.verdict in {"pass", "degraded"}


def passed(reason: str) -> Outcome:
    return Outcome("pass", reason)


def failed(reason: str, counts: int = 1) -> Outcome:
    return Outcome("fail", reason, counts)


@dataclass(frozen=True, slots=True)
class Result:
    """An outcome with how long it took and when it was there (Unix epoch)."""

    outcome: Outcome
    ms: float
    time: float
