"""The store: numbered, durable transactions on SQLite or PostgreSQL, none of which blocks the event loop.

One process writes at a time: whoever last called `claim`. After an upgrade the former program's changes fail
with FencedError instead of being made behind the back of the new one.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import URL, Connection, Row, Table, insert, make_url, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError
from sqlalchemy.sql import Executable

from turnout.control.storage import schema
from turnout.control.storage.database import Database, Transaction, database, to_its_end

T = TypeVar("T")
Rows = Sequence[dict[str, Any]]
DRIVERS = {"sqlite": "sqlite+pysqlite", "postgresql": "postgresql+asyncpg"}
INSERTS: dict[str, Callable[[Table], sqlite.Insert | postgresql.Insert]] = {
    "sqlite": sqlite.Insert,
    "postgresql": postgresql.Insert,
}
FILE = "control.db"


class StoreError(Exception):
    """The database cannot be used; the text says which and why."""


class FencedError(StoreError):
    """Another process has claimed the store; nothing has been changed."""


class OvertakenError(StoreError):
    """Another process has written meanwhile: the change's number is taken. Nothing has been changed; made
    anew, the change has another number.
    """

    def __init__(self, revision: int) -> None:
        super().__init__(f"another process has written revision {revision} meanwhile")
        self.revision = revision


def store_url(configured: str, directory: Path) -> str:
    """Of `[control] state`; "sqlite" is a file in the state directory."""
    return f"sqlite:///{directory / FILE}" if configured == "sqlite" else configured


@dataclass(frozen=True)
class Fence:
    """`epoch` None: whoever writes by now."""

    name: str
    epoch: int | None

    def check(self, epoch: int) -> None:
        if self.epoch not in (None, epoch):
            raise FencedError(f"{self.name} is another process's by now")


class Change:
    """One transaction. Its statements wait for the commit or for a `fetch`: then all are executed at once."""

    def __init__(self, transaction: Transaction, dialect: str, fence: Fence, revision: int) -> None:
        self.done: list[Callable[[], object]] = []
        self.ended: list[Callable[[], object]] = []
        self._transaction = transaction
        self._dialect = dialect
        self._fence = fence
        self._revision = revision
        self._told = False  # whether somebody goes by the number
        self._numbered = False
        self._over = False
        self._waiting: list[tuple[Executable, Rows | None]] = []

    @property
    def revision(self) -> int:
        """Its number. Who asks for it learns by OvertakenError, at the latest from the commit, when that has
        been taken by another process.
        """
        self._told = True
        return self._revision

    async def execute(self, statement: Executable, rows: Rows | None = None) -> None:
        """At the latest with the commit. `rows`: once for each of them."""
        self._waiting.append((statement, rows))

    async def fetch(self, statement: Executable) -> list[Row[Any]]:
        """At once, after all that waits."""

        def work(connection: Connection) -> list[Row[Any]]:
            self._flush(connection)
            return list(connection.execute(statement).all())

        return await self._run(work)

    async def commit(self) -> None:
        """For the store."""
        await self._run(self._flush, commit=True)

    async def _run(self, work: Callable[[Connection], T], *, commit: bool = False) -> T:
        if self._over:
            raise StoreError("a part of this change has failed; nothing of it is made")
        self._over = True
        out = await to_its_end(self._transaction.run(work, commit=commit))
        self._over = commit
        return out

    def _flush(self, connection: Connection) -> None:
        if not self._numbered:
            self._number(connection)
        waiting, self._waiting = self._waiting, []
        for statement, rows in waiting:
            connection.execute(statement, rows)

    def _number(self, connection: Connection) -> None:
        """The number was given in advance: another process may have taken it, or the store."""
        state = schema.state.c
        while not self._numbered:
            mine = update(schema.state).where(state.revision == self._revision - 1)
            if self._fence.epoch is not None:
                mine = mine.where(state.epoch == self._fence.epoch)
            if connection.execute(mine.values(revision=self._revision)).rowcount:
                self._numbered = True
                return
            row = connection.execute(select(state.revision, state.epoch)).one()
            self._fence.check(row.epoch)
            if self._told:
                raise OvertakenError(row.revision)
            self._revision = row.revision + 1

    def insert(self, table: Table) -> sqlite.Insert | postgresql.Insert:
        """One that can say what happens when the row is there already."""
        return INSERTS[self._dialect](table)

    def then(self, callback: Callable[[], object]) -> None:
        """Call it once this change is durable, before the next one begins."""
        self.done.append(callback)

    def at_end(self, callback: Callable[[], object]) -> None:
        """Call it whatever becomes of this change."""
        self.ended.append(callback)


class Store:
    """Made by `open`. `revision` is that of the last change this process made or has read; `others` counts
    how often that was found to be another process's.
    """

    def __init__(self, opened: Database, name: str) -> None:
        self.revision = 0
        self.others = 0
        self.name = name
        self._database = opened
        self._epoch = 0
        self._writing = asyncio.Lock()

    @classmethod
    async def open(cls, url: str) -> Store:
        """Connect, and make what tables are missing. Raises StoreError."""
        parts = parsed(url)
        name = make_url(url).render_as_string(hide_password=True)
        try:
            opened = database(parts)
        except OSError as error:
            raise StoreError(f"{parts.database} cannot be opened: {error.strerror}") from None
        store = cls(opened, name)
        try:
            await store._prepare()
        except BaseException:
            await store.close()
            raise
        return store

    async def _prepare(self) -> None:
        def make(connection: Connection) -> None:
            schema.metadata.create_all(connection)
            row = connection.execute(select(schema.state)).first()
            if row is None:
                first = {"id": 1, "schema_version": schema.VERSION, "revision": 0, "epoch": 0}
                connection.execute(insert(schema.state).values(first))
            elif row.schema_version > schema.VERSION:
                raise StoreError(
                    f"{self.name} was written by a newer Turnout (schema {row.schema_version}, this one "
                    f"knows {schema.VERSION}); run that one, or name another database in [control] state"
                )

        with self._explained():
            await self._database.transaction().run(make, commit=True)
        await self.refresh()

    async def close(self) -> None:
        await self._database.close()

    async def refresh(self) -> int:
        """Read the revision anew: another process may have written."""
        (row,) = await self.read(select(schema.state.c.revision, schema.state.c.epoch))
        if row.revision > self.revision:  # or a change has come meanwhile
            self._found(row.revision)
        self._epoch = self._epoch or row.epoch
        return self.revision

    async def claim(self) -> int:
        """Be the one that writes from here on. Returns the revision."""
        state = schema.state.c

        def take(connection: Connection) -> Row[Any]:
            taking = update(schema.state).values(epoch=state.epoch + 1)
            return connection.execute(taking.returning(state.epoch, state.revision)).one()

        async with self._writing:
            with self._explained():
                row = await self._database.transaction().run(take, commit=True)
            self._epoch = row.epoch
            self._found(row.revision)
            return self.revision

    def _found(self, revision: int) -> None:
        if revision != self.revision:
            self.revision = revision
            self.others += 1

    @contextlib.asynccontextmanager
    async def change(self, *, fenced: bool = True) -> AsyncIterator[Change]:
        """One transaction, durable when the block has been left; nothing of it is when the block raises. They
        come one after the other. Raises StoreError, after which it may have been made or not when the
        connection broke in the last moment: read again. `fenced` False is for what a process may write that
        another one has replaced: what it adds, without knowing what is there.
        """
        async with self._writing:
            with self._explained():
                transaction = self._database.transaction()
                fence = Fence(self.name, self._epoch if fenced else None)
                change = Change(transaction, self._database.dialect, fence, self.revision + 1)
                try:
                    yield change
                    await to_its_end(self._commit(change))
                except BaseException as error:
                    await to_its_end(transaction.end())
                    if isinstance(error, OvertakenError):
                        self._found(error.revision)
                    raise
                finally:
                    for callback in change.ended:
                        callback()

    async def _commit(self, change: Change) -> None:
        expected = self.revision + 1
        await change.commit()
        self.revision = change.revision  # though `refresh` has seen a later one: the next one is overtaken
        self.others += change.revision != expected
        for callback in change.done:
            callback()

    async def made(self, make: Callable[[Change], Awaitable[T]], *, fenced: bool = True) -> tuple[Change, T]:
        """`change`, whose block is `make`: called again when another process had written meanwhile."""
        while True:
            try:
                async with self.change(fenced=fenced) as change:
                    out = await make(change)
            except OvertakenError:
                continue
            return change, out

    async def read(self, statement: Executable) -> list[Row[Any]]:
        """Raises StoreError."""
        with self._explained():
            return await self._database.read(lambda connection: list(connection.execute(statement).all()))
        raise AssertionError  # for the type checker: _explained raises

    @contextlib.contextmanager
    def _explained(self) -> Any:
        try:
            yield
        except (SQLAlchemyError, OSError) as error:
            raise StoreError(f"{self.name}: {reason(error)}") from error


def parsed(url: str) -> URL:
    """With the driver. Raises StoreError."""
    try:
        parts = make_url(url)
    except ArgumentError:
        raise StoreError(f'"{url}" is no URL of a database') from None
    if parts.drivername not in DRIVERS:
        raise StoreError(f'"{parts.drivername}" is no database known here; use sqlite or postgresql')
    return parts.set(drivername=DRIVERS[parts.drivername])


def reason(error: Exception) -> str:
    """In the database's own words, on one line."""
    inner = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    text = getattr(inner, "strerror", None) or str(inner) or type(inner).__name__
    return " ".join(text.split("\n")[0].rpartition(">: ")[2].split())
