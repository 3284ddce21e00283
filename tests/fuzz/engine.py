"""A bounded fuzzer: damage to samples, from a seed, so that a run can be repeated.

What is being tried stands in a file all the time: after a crash of the process it is the input that did it.
"""

from __future__ import annotations

import mmap
import random
import time
from pathlib import Path
from typing import TYPE_CHECKING

from fuzz.targets import TARGETS
from harness.mutation import damaged

if TYPE_CHECKING:
    from collections.abc import Hashable

FOLDER = Path(__file__).parents[2] / "build" / "fuzz"
LONGEST = 1 << 16
KEPT = 256  # inputs with a new outcome that are damaged further


class LastInput:
    """The input being tried, in a file."""

    def __init__(self, name: str) -> None:
        FOLDER.mkdir(parents=True, exist_ok=True)
        self.path = FOLDER / f"{name}.last"
        self.path.write_bytes(bytes(LONGEST + 8))
        with self.path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), 0)

    def note(self, raw: bytes) -> None:
        self._map[:8] = len(raw).to_bytes(8, "little")
        self._map[8 : 8 + len(raw)] = raw


def last_input(name: str) -> bytes:
    noted = (FOLDER / f"{name}.last").read_bytes()
    return noted[8 : 8 + int.from_bytes(noted[:8], "little")]


def fuzz(name: str, seed: int, *, times: int | None = None, seconds: float | None = None) -> int:
    """Try damaged inputs, a number of times or for a time; how many. AssertionError if one fails."""
    target = TARGETS[name]
    rng = random.Random(f"{name} {seed}")
    samples = list(target.samples())
    pool = list(samples)
    seen: set[Hashable] = set()
    last = LastInput(name)
    stop = time.monotonic() + seconds if seconds is not None else None
    done = 0
    while done != times and (stop is None or done % 64 or time.monotonic() < stop):
        raw = samples[done] if done < len(samples) else damaged(rng, pool, target.ways)[:LONGEST]
        last.note(raw)
        try:
            outcome = target.check(rng, raw)
        except Exception as error:
            raise AssertionError(f"{name}: {raw!r}") from error
        if outcome not in seen and len(pool) < KEPT and len(raw) < 4096:
            seen.add(outcome)
            pool.append(raw)
        done += 1
    return done
