"""When which check runs: each at its time, no more than a few at a time, never one twice at a time.

A check that could not start in time starts as soon as there is room and nothing is made up for: too many
checks for this machine make intervals longer, never a storm.
"""

from __future__ import annotations

import asyncio
import functools
import heapq
import itertools
from collections import deque
from dataclasses import dataclass, field
from typing import Protocol

AT_A_TIME = 64
PER_MACHINE = 4
SHARE_OF_MACHINE = 16
"""A machine with many endpoints may have one check at a time for so many of them."""

AFTER_BREAK_S = 30.0
"""Until a check is run again whose task somebody else cancelled."""


class Job(Protocol):
    @property
    def machine(self) -> str:
        """Whom it burdens."""

    async def run(self) -> float:
        """Do it; returns in how many seconds it has to be done again. Never raises."""


@dataclass(eq=False, slots=True)
class _Entry:
    job: Job
    due: float
    task: asyncio.Task[float] | None = None
    gone: bool = False


@dataclass(eq=False, slots=True)
class _Machine:
    jobs: int = 0
    running: int = 0
    waiting: deque[_Entry] = field(default_factory=deque)

    @property
    def is_full(self) -> bool:
        return self.running >= max(PER_MACHINE, self.jobs // SHARE_OF_MACHINE)


class Scheduler:
    """Lives in the running loop. `lag` is how late the newest start was, seconds."""

    def __init__(self, at_a_time: int = AT_A_TIME) -> None:
        self.lag = 0.0
        self.running = 0
        self._at_a_time = at_a_time
        self._loop = asyncio.get_running_loop()
        self._entries: dict[Job, _Entry] = {}
        self._machines: dict[str, _Machine] = {}
        self._heap: list[tuple[float, int, _Entry]] = []
        self._ready: deque[_Entry] = deque()
        self._number = itertools.count()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_due = 0.0  # uvloop's timers that are due at once do not say when

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, job: Job) -> bool:
        return job in self._entries

    def add(self, job: Job, delay: float) -> None:
        """Run it first after `delay` seconds."""
        entry = self._entries[job] = _Entry(job, self._loop.time() + delay)
        self._machines.setdefault(job.machine, _Machine()).jobs += 1
        self._push(entry)

    def remove(self, job: Job) -> None:
        """It is not run again, and what is under way is cancelled."""
        entry = self._entries.pop(job)
        entry.gone = True
        machine = self._machines[job.machine]
        machine.jobs -= 1
        if entry.task is not None:
            entry.task.cancel()
        elif not machine.jobs:
            self._machines.pop(job.machine)

    async def close(self) -> None:
        tasks = [entry.task for entry in self._entries.values() if entry.task is not None]
        for job in list(self._entries):
            self.remove(job)
        if self._timer is not None:
            self._timer.cancel()
        if tasks:
            await asyncio.wait(tasks)

    # ---- in time -----------------------------------------------------------------------------------------

    def _push(self, entry: _Entry) -> None:
        heapq.heappush(self._heap, (entry.due, next(self._number), entry))
        if self._timer is None or entry.due < self._timer_due:
            self._set_timer()

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None
        if self._heap:
            self._timer_due = self._heap[0][0]
            self._timer = self._loop.call_at(self._timer_due, self._tick)

    def _tick(self) -> None:
        now = self._loop.time()
        while self._heap and self._heap[0][0] <= now:
            self._ready.append(heapq.heappop(self._heap)[2])
        self._timer = None
        self._set_timer()
        self._start_ready()

    # ---- in bounds ---------------------------------------------------------------------------------------

    def _start_ready(self) -> None:
        while self._ready and self.running < self._at_a_time:
            entry = self._ready.popleft()
            if entry.gone:
                continue
            machine = self._machines[entry.job.machine]
            if machine.is_full:
                machine.waiting.append(entry)
            else:
                self._start(entry, machine)

    def _start(self, entry: _Entry, machine: _Machine) -> None:
        self.lag = max(0.0, self._loop.time() - entry.due)
        self.running += 1
        machine.running += 1
        entry.task = self._loop.create_task(entry.job.run())
        entry.task.add_done_callback(functools.partial(self._ended, entry, machine))

    def _ended(self, entry: _Entry, machine: _Machine, task: asyncio.Task[float]) -> None:
        """Also of a task that was cancelled before it began."""
        entry.task = None
        self.running -= 1
        machine.running -= 1
        if not entry.gone:
            entry.due = self._loop.time() + (AFTER_BREAK_S if task.cancelled() else task.result())
            self._push(entry)
        if machine.waiting:
            self._ready.append(machine.waiting.popleft())
        if not (machine.jobs or machine.running) and self._machines.get(entry.job.machine) is machine:
            del self._machines[entry.job.machine]
        self._start_ready()
