"""Events: kept in the store, newest first to go; followed live from any revision that is still kept.

An event that belongs to a change is part of its transaction (`add`). Others (`publish`) come too often for a
transaction each: those of one moment share one.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import delete, func, insert, select

from turnout.control.storage import schema
from turnout.control.storage.store import Change, Store, StoreError

log = logging.getLogger("turnout.events")

KEPT = 10_000
TRIMMED_EVERY = 500
"""So many more than KEPT may be in the table."""
BATCH_S = 0.05
RETRY_S = 1.0
WAITING_MAX = 20_000
"""Events that wait for a store that takes none; more are dropped, and that is said."""


@dataclass(frozen=True)
class Event:
    """`last`: no more of the same revision follow, so that a reader may go on after it."""

    revision: int
    time: float
    kind: str
    service: str | None
    address: str | None
    by: str
    data: dict[str, Any] = field(default_factory=dict)
    last: bool = True


class GoneError(Exception):
    """What was asked for is not kept any more; `oldest` is the first revision that can be followed."""

    def __init__(self, oldest: int) -> None:
        super().__init__(
            f"events before revision {oldest} are not kept any more; read the state, then follow"
        )
        self.oldest = oldest


@dataclass(frozen=True)
class _Said:
    """An event that has no revision yet."""

    kind: str
    service: str | None
    address: str | None
    by: str
    data: dict[str, Any]
    time: float

    def event(self, revision: int, *, last: bool) -> Event:
        return Event(revision, self.time, self.kind, self.service, self.address, self.by, self.data, last)


class Events:
    """Of one store. `clock` gives seconds since the epoch."""

    def __init__(self, store: Store, *, kept: int = KEPT, clock: Callable[[], float] = time.time) -> None:
        self._store = store
        self._kept_max = kept
        self._clock = clock
        self._kept: deque[Event] = deque()
        self._dropped_to = 0  # revision of the newest event that is not in _kept
        self._changes: dict[Change, list[_Said]] = {}
        self._waiting: list[_Said] = []
        self._news = asyncio.Event()
        self._wanted = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._closed = False
        self._ending = asyncio.Event()
        self._written = 0

    async def open(self) -> None:
        """Read what is kept. Raises StoreError."""
        table = schema.events
        newest = select(table).order_by(table.c.id.desc()).limit(self._kept_max)
        rows = (await self._store.read(newest))[::-1]
        self._kept.clear()
        if len(rows) == self._kept_max:
            self._dropped_to = rows[0].revision
        following = [row.revision for row in rows[1:]] + [0]
        for row, after in zip(rows, following, strict=False):
            said = _Said(row.kind, row.service, row.address, row.by, json.loads(row.data), row.time)
            self._kept.append(said.event(row.revision, last=after != row.revision))
        self._wake()

    async def start(self) -> None:
        """Write what is published."""
        self._task = asyncio.create_task(self._write_published())

    async def close(self) -> None:
        """Those that were published are written; watchers come to their end."""
        self._closed = True
        self._ending.set()
        self._wake()
        task, self._task = self._task, None
        if task is not None:
            self._wanted.set()
            await task

    # ---- to say something --------------------------------------------------------------------------------

    async def add(
        self,
        change: Change,
        kind: str,
        *,
        by: str,
        service: str | None = None,
        address: str | None = None,
        data: dict[str, Any] | None = None,
    ) -> None:
        """As part of a change; seen when that is durable. Raises StoreError."""
        said = _Said(kind, service, address, by, data or {}, self._clock())
        await self._insert(change, [said])

    def publish(
        self,
        kind: str,
        *,
        by: str,
        service: str | None = None,
        address: str | None = None,
        data: dict[str, Any] | None = None,
    ) -> None:
        """Soon, in a change of its own together with others."""
        if len(self._waiting) >= WAITING_MAX:
            log.error("an event is dropped: too many wait for the store", extra={"fields": {"kind": kind}})
            return
        self._waiting.append(_Said(kind, service, address, by, data or {}, self._clock()))
        self._wanted.set()

    async def _write_published(self) -> None:
        pause = BATCH_S
        while not self._closed:
            await self._wanted.wait()
            self._wanted.clear()
            try:
                await self._write()
                pause = BATCH_S
            except StoreError as error:
                if pause != RETRY_S:
                    log.warning("events wait for the store: %s", error)
                pause = RETRY_S
                self._wanted.set()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._ending.wait(), pause)
        try:
            await self._write()
        except StoreError as error:
            log.warning("%d events are lost: %s", len(self._waiting), error)

    async def _write(self) -> None:
        waiting, self._waiting = self._waiting, []
        if not waiting:
            return
        try:
            # After an upgrade too: they are only added.
            await self._store.made(lambda change: self._insert(change, waiting), fenced=False)
        except BaseException:
            self._waiting = waiting + self._waiting
            raise

    async def _insert(self, change: Change, said: list[_Said]) -> None:
        if change not in self._changes:
            self._changes[change] = []
            change.then(lambda: self._keep(change))
            change.at_end(lambda: self._changes.pop(change, None))
        self._changes[change] += said
        rows = [
            {
                "revision": change.revision,
                "time": one.time,
                "kind": one.kind,
                "service": one.service,
                "address": one.address,
                "by": one.by,
                "data": json.dumps(one.data),
            }
            for one in said
        ]
        await change.execute(insert(schema.events), rows)
        self._written += len(rows)
        if self._written >= TRIMMED_EVERY:
            self._written = 0
            newest = select(func.max(schema.events.c.id)).scalar_subquery()
            await change.execute(delete(schema.events).where(schema.events.c.id <= newest - self._kept_max))

    def _keep(self, change: Change) -> None:
        """It is durable: tell those that follow."""
        said = self._changes.pop(change)
        for number, one in enumerate(said, 1):
            self._kept.append(one.event(change.revision, last=number == len(said)))
        while len(self._kept) > self._kept_max:
            self._dropped_to = self._kept.popleft().revision
        self._wake()

    # ---- to read -----------------------------------------------------------------------------------------

    def recent(self, limit: int = 100, from_revision: int = 0) -> list[Event]:
        """The newest, oldest first."""
        some = [event for event in self._kept if event.revision > from_revision]
        return some[-limit:]

    async def watch(self, from_revision: int | None = None) -> AsyncIterator[Event]:
        """Every event after a revision (None: from now on), those to come included, until `close`. Raises
        GoneError, also when the reader falls behind what is kept.
        """
        at = self._store.revision if from_revision is None else from_revision
        while True:
            if at < self._dropped_to:
                raise GoneError(self._dropped_to)
            some = self._after(at)
            for event in some:
                yield event
            if some:
                at = some[-1].revision
            elif self._closed:
                return
            else:
                await self._news.wait()

    def _after(self, revision: int) -> list[Event]:
        """All of a revision are kept at once, so none is torn apart."""
        out = []
        for event in reversed(self._kept):
            if event.revision <= revision:
                break
            out.append(event)
        return out[::-1]

    def _wake(self) -> None:
        """Everybody who waits now."""
        self._news.set()
        self._news = asyncio.Event()
        if self._closed:
            self._news.set()
