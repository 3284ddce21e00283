"""The audit log: who did what, and with what result. It is only ever added to.

Each entry's hash covers the hash of the one before it, so none can be changed, left out or slipped in without
all later ones being wrong; where the log ends is kept in the same database and in a file (anchor.py), so that
none can be cut off. Nothing is removed from it by itself.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import Row, Select, desc, insert, select, union_all

from turnout.control.access import anchor
from turnout.control.access.anchor import Head
from turnout.control.access.canonical import bounded, canonical, storable
from turnout.control.access.later import Later
from turnout.control.storage.schema import audit as table
from turnout.control.storage.schema import audit_head

if TYPE_CHECKING:
    from turnout.control.access.actor import Actor
    from turnout.control.storage.store import Change, Store

log = logging.getLogger("turnout.audit")

START = "0" * 64
"""What stands for the hash before the first entry."""
LAST = (
    union_all(
        select(select(table.c.n, table.c.hash).order_by(table.c.n.desc()).limit(1).subquery()),
        select(audit_head.c.n, audit_head.c.hash),
    )
    .order_by(desc("n"))
    .limit(1)
)
"""What the next entry follows: the last one, also when it is gone."""
PAGE = 1000
ANCHOR_S = 0.2
"""The file follows the database by so much at most: one write of it for many entries."""


@dataclass(frozen=True)
class AuditEntry:
    """`time` in milliseconds since 1970. `before` and `after` are JSON, "null" for nothing. `hash` covers all
    other fields and the entry before.
    """

    n: int
    time: int
    kind: str
    actor: str
    role: str
    source: str
    action: str
    subject: str
    before: str
    after: str
    result: str
    detail: str
    hash: str


@dataclass(frozen=True)
class Broken:
    """The first entry that is not what was written, or is missing."""

    n: int
    why: str


@dataclass(frozen=True)
class Verdict:
    entries: int
    head: Head
    broken: Broken | None

    @property
    def ok(self) -> bool:
        return self.broken is None


Pending = tuple[dict[str, Any], "asyncio.Future[int]"]


class Audit:
    """`directory` is the state directory, for the anchor."""

    def __init__(self, store: Store, directory: Path, clock: Callable[[], float] = time.time) -> None:
        self._store = store
        self._directory = directory
        self._clock = clock
        self._floor = 0
        self._head: Head | None = None  # not yet in the file
        self._last: tuple[int, Head] | None = None  # with the store's `others` of that moment
        self._pending: list[Pending] = []
        self._writing: asyncio.Task[None] | None = None
        self._anchoring = Later(ANCHOR_S, self._write_anchor)

    async def open(self) -> None:
        """Compare the end of the log with what is known of it. What is found wrong becomes an entry; numbers
        of entries that are gone are not used again.
        """
        noted, last, wrong = self._in_file(), head_of(next(iter(await self._store.read(LAST)), None)), None
        if isinstance(noted, str):
            wrong = noted
        elif noted is None:
            wrong = f"there is no {anchor.NAME} in the state directory" if last.n else None
        elif last.n < noted.n:
            self._floor = noted.n
            wrong = f"the log ends with entry {last.n}, {anchor.NAME} says {noted.n}"
        if wrong is not None:
            log.error("the audit log is not as it was left: %s", wrong)
            await self.record(None, "audit.open", "audit log", result="failed", detail=wrong)

    async def record(
        self,
        actor: Actor | None,
        action: str,
        subject: str,
        *,
        before: Any = None,
        after: Any = None,
        result: str = "ok",
        detail: str = "",
        source: str = "",
    ) -> int:
        """Add an entry; returns its number once it is on disk. `result` is "ok", "refused" or "failed";
        `actor` None is one who is not known, or the proxy itself. `before` and `after` are what JSON can say,
        without secrets.
        """
        row = self._row(
            actor,
            action,
            subject,
            before=before,
            after=after,
            result=result,
            detail=detail,
            source=source,
        )
        written: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._pending.append((row, written))
        if self._writing is None:
            self._writing = asyncio.create_task(self._write())
        return await asyncio.shield(written)

    async def add(
        self,
        change: Change,
        actor: Actor,
        action: str,
        subject: str,
        *,
        before: Any = None,
        after: Any = None,
    ) -> None:
        """As `record`, as a part of what is changed: both are on disk, or neither is."""
        await self._append([self._row(actor, action, subject, before=before, after=after)], change)

    def _row(
        self,
        actor: Actor | None,
        action: str,
        subject: str,
        *,
        before: Any,
        after: Any,
        result: str = "ok",
        detail: str = "",
        source: str = "",
    ) -> dict[str, Any]:
        fields = {
            "time": int(self._clock() * 1000),
            "kind": actor.kind if actor else "",
            "actor": actor.name if actor else "",
            "role": str(actor.role) if actor else "",
            "source": actor.source if actor else source,
            "action": action,
            "subject": subject,
            "before": bounded(before),
            "after": bounded(after),
            "result": result,
            "detail": detail,
        }
        return {key: storable(value) if isinstance(value, str) else value for key, value in fields.items()}

    async def entries(
        self,
        *,
        after: int = 0,
        limit: int = 100,
        newest: bool = False,
        action: str | None = None,
        actor: str | None = None,
        subject: str | None = None,
        result: str | None = None,
    ) -> list[AuditEntry]:
        """In their order, from behind entry `after`; with `newest` the last ones instead of the first."""
        wanted = {"action": action, "actor": actor, "subject": subject, "result": result}
        query = select(table).where(table.c.n > after)
        for column, value in wanted.items():
            if value is not None:
                query = query.where(table.c[column] == value)
        order = table.c.n.desc() if newest else table.c.n
        found = await self._read(query.order_by(order).limit(limit))
        return found[::-1] if newest else found

    async def verify(self) -> Verdict:
        """Go through all of it. Stops at the first entry that is wrong."""
        noted = self._in_file()
        ends = {anchor.NAME: noted} if isinstance(noted, Head) else {}
        if (counted := await self._counted()) is not None:
            ends["the database"] = counted
        head = Head(0, START)
        async for entry in self._all():
            broken = mistake(head, entry) or contradiction(entry, ends)
            if broken is not None:
                return Verdict(head.n, head, broken)
            head = Head(entry.n, entry.hash)
        return Verdict(
            head.n, head, cut(head, ends) or (Broken(head.n, noted) if isinstance(noted, str) else None)
        )

    async def close(self) -> None:
        """What is recorded is written, its end noted."""
        if self._writing is not None:
            await self._writing
        await self._anchoring.now()

    # ---- writing -----------------------------------------------------------------------------------------

    async def _write(self) -> None:
        """All that waits, in one transaction; again while more has come meanwhile."""
        while self._pending:
            batch, self._pending = self._pending, []
            try:
                rows = [row for row, _ in batch]
                _, head = await self._store.made(partial(self._append, rows), fenced=False)
            except Exception as error:  # it is the callers'
                for _, written in batch:
                    if not written.done():
                        written.set_exception(error)
                continue
            first = head.n - len(batch) + 1
            for number, (_, written) in enumerate(batch, first):
                if not written.done():
                    written.set_result(number)
        self._writing = None

    async def _append(self, rows: list[dict[str, Any]], change: Change) -> Head:
        """At the end of the log, which is known as long as no other process writes."""
        known, self._last = self._last, None
        if known is not None and known[0] == self._store.others:
            last = known[1]
            assert change.revision  # who asks for it is told when another process has written meanwhile
        else:
            last = head_of(next(iter(await change.fetch(LAST)), None))
        n, before = max(last.n, self._floor), last.hash
        for row in rows:
            n += 1
            row["n"] = n
            before = row["hash"] = chained(before, row)
        await change.execute(insert(table), rows)
        noted = change.insert(audit_head).values(id=1, n=n, hash=before)
        after = {"n": n, "hash": before}
        await change.execute(noted.on_conflict_do_update(index_elements=["id"], set_=after))
        head = Head(n, before)
        change.then(lambda: self._written(head))
        return head

    def _written(self, head: Head) -> None:
        self._last, self._head = (self._store.others, head), head
        self._anchoring.soon()

    async def _write_anchor(self) -> None:
        head, self._head = self._head, None
        if head is None:
            return
        try:
            await asyncio.to_thread(anchor.write, self._directory, head)
        except OSError as error:
            log.error("%s cannot be written: %s", self._directory / anchor.NAME, error.strerror)  # noqa: TRY400

    # ---- reading -----------------------------------------------------------------------------------------

    def _in_file(self) -> Head | str | None:
        """What the anchor says, or what is wrong with it."""
        try:
            return anchor.read(self._directory)
        except OSError as error:
            return f"{self._directory / anchor.NAME} cannot be read: {error.strerror}"
        except ValueError as error:
            return str(error)

    async def _counted(self) -> Head | None:
        """What the database says is the last entry."""
        rows = await self._store.read(select(audit_head))
        return Head(rows[0].n, rows[0].hash) if rows else None

    async def _read(self, query: Select[Any]) -> list[AuditEntry]:
        return [AuditEntry(**row._mapping) for row in await self._store.read(query)]

    async def _all(self) -> AsyncIterator[AuditEntry]:
        page = await self.entries(limit=PAGE)
        while page:
            for entry in page:
                yield entry
            page = await self.entries(after=page[-1].n, limit=PAGE)


# ---- the chain -------------------------------------------------------------------------------------------


def head_of(row: Row[Any] | None) -> Head:
    return Head(0, START) if row is None else Head(row.n, row.hash)


def chained(before: str, content: Mapping[str, Any]) -> str:
    """The hash of an entry that follows one with the hash `before`."""
    text = canonical({key: value for key, value in content.items() if key != "hash"})
    return hashlib.sha256(f"{before}{text}".encode()).hexdigest()


def mistake(before: Head, entry: AuditEntry) -> Broken | None:
    if entry.n != before.n + 1:
        missing = f"to {entry.n - 1} are missing" if entry.n > before.n + 2 else "is missing"
        return Broken(before.n + 1, missing)
    if entry.hash != chained(before.hash, asdict(entry)):
        return Broken(entry.n, "is not what was written, or the one before it is gone")
    return None


def contradiction(entry: AuditEntry, ends: Mapping[str, Head]) -> Broken | None:
    """An entry that was the last one once, and is another now: all of the log was written anew."""
    for who, end in ends.items():
        if entry.n == end.n and entry.hash != end.hash:
            return Broken(entry.n, f"is another one than {who} remembers")
    return None


def cut(head: Head, ends: Mapping[str, Head]) -> Broken | None:
    for who, end in ends.items():
        if end.n > head.n:
            return Broken(head.n + 1, f"is missing, and all up to {end.n}, the last one that {who} remembers")
    return None
