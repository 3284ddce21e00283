"""Tests and measurements only."""

from collections.abc import Sequence
from typing import Any

from turnout.ext.snapshot import Snapshot

RESULTS: tuple[str, ...]
FLAGS: dict[str, int]

def _hash(data: bytes) -> int: ...

class _Selector:
    """The selection of one worker. `scoreboard_fd` stays the caller's."""

    def __init__(self, scoreboard_fd: int, worker: int, seed: int = 1) -> None: ...
    def adopt(self, snapshot: Snapshot, now_ms: int = 1000) -> None: ...
    def pick(
        self,
        service: int,
        *,
        key: int = 0,
        bound: int = 0,
        source: int = 0,
        now_ms: int = 1000,
        tried: Sequence[int] = (),
        snapshot: Snapshot | None = None,
    ) -> dict[str, Any]:
        """For the service with this index. `result` (RESULTS); when it is "ok" also slot, generation, group
        (slot), name, FLAGS as bools, and `open`, which `release` closes.
        """

    def release(
        self,
        pick: dict[str, Any],
        outcome: str = "2xx",
        status: int = 200,
        first_us: int = 1000,
        now_us: int = 1_000_000,
    ) -> None:
        """ValueError when it is closed already."""

    def lag(self, group: int) -> int:
        """Millionths of a request that the group is owed."""

    def bench(self, service: int, times: int, now_ms: int = 1000) -> float:
        """Nanoseconds per pick and release. RuntimeError when a pick found nobody."""
