"""The store: numbered, durable transactions on SQLite or PostgreSQL, none of which blocks the event loop.

One process writes at a time: whoever last called `claim`. After an upgrade the former program's changes fail
with FencedError instead of being made behind the back of the new one.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Row, Table, event, insert, make_url, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.sql import Executable

from turnout.control.storage import schema

DRIVERS = {"sqlite": "sqlite+aiosqlite", "postgresql": "postgresql+asyncpg"}
INSERTS: dict[str, Callable[[Table], sqlite.Insert | postgresql.Insert]] = {
    "sqlite": sqlite.Insert,
    "postgresql": postgresql.Insert,
}
BUSY_S = 10
"""How long another process may hold the database, and a server may take, before a change fails."""
CONNECT_S = 5
"""How long a server may take to answer; one that is cut off from here never says so."""
FILE = "control.db"
WRITES = "turnout_writes"


class StoreError(Exception):
    """The database cannot be used; the text says which and why."""


class FencedError(StoreError):
    """Another process has claimed the store; nothing has been changed."""


def store_url(configured: str, directory: Path) -> str:
    """Of `[control] state`; "sqlite" is a file in the state directory."""
    return f"sqlite:///{directory / FILE}" if configured == "sqlite" else configured


class Change:
    """One transaction; `revision` is its number."""

    def __init__(self, connection: AsyncConnection, revision: int) -> None:
        self.revision = revision
        self.done: list[Callable[[], object]] = []
        self.ended: list[Callable[[], object]] = []
        self._connection = connection

    async def execute(self, statement: Executable, rows: Sequence[dict[str, Any]] | None = None) -> Any:
        """`rows`: once for each of them."""
        return await self._connection.execute(statement, rows)

    def insert(self, table: Table) -> sqlite.Insert | postgresql.Insert:
        """One that can say what happens when the row is there already."""
        return INSERTS[self._connection.dialect.name](table)

    def then(self, callback: Callable[[], object]) -> None:
        """Call it once this change is durable, before the next one begins."""
        self.done.append(callback)

    def at_end(self, callback: Callable[[], object]) -> None:
        """Call it whatever becomes of this change."""
        self.ended.append(callback)


class Store:
    """Made by `open`. `revision` is that of the last change this process made or has read."""

    def __init__(self, engine: AsyncEngine, name: str) -> None:
        self.revision = 0
        self.name = name
        self._engine = engine
        self._epoch = 0
        self._writing = asyncio.Lock()

    @classmethod
    async def open(cls, url: str) -> Store:
        """Connect, and make what tables are missing. Raises StoreError."""
        parts = parsed(url)
        name = make_url(url).render_as_string(hide_password=True)
        if parts.get_backend_name() == "sqlite":
            make_private(Path(parts.database or ""))
        store = cls(make_engine(parts), name)
        try:
            await store._prepare()
        except BaseException:
            await store.close()
            raise
        return store

    async def _prepare(self) -> None:
        with self._explained():
            async with self._engine.connect() as connection, writing(connection):
                await connection.run_sync(schema.metadata.create_all)
                row = (await connection.execute(select(schema.state))).first()
                if row is None:
                    first = {"id": 1, "schema_version": schema.VERSION, "revision": 0, "epoch": 0}
                    await connection.execute(insert(schema.state).values(first))
                elif row.schema_version > schema.VERSION:
                    raise StoreError(
                        f"{self.name} was written by a newer Turnout (schema {row.schema_version}, this one "
                        f"knows {schema.VERSION}); run that one, or name another database in [control] state"
                    )
                await connection.commit()
        await self.refresh()

    async def close(self) -> None:
        await self._engine.dispose()

    async def refresh(self) -> int:
        """Read the revision anew: another process may have written."""
        (row,) = await self.read(select(schema.state.c.revision, schema.state.c.epoch))
        self.revision = max(self.revision, row.revision)  # a change may have come meanwhile
        self._epoch = self._epoch or row.epoch
        return self.revision

    async def claim(self) -> int:
        """Be the one that writes from here on. Returns the revision."""
        async with self._writing:
            with self._explained():
                async with self._engine.connect() as connection, writing(connection):
                    statement = (
                        update(schema.state)
                        .values(epoch=schema.state.c.epoch + 1)
                        .returning(schema.state.c.epoch, schema.state.c.revision)
                    )
                    row = (await connection.execute(statement)).one()
                    await connection.commit()
            self._epoch, self.revision = row.epoch, row.revision
            return self.revision

    @contextlib.asynccontextmanager
    async def change(self, *, fenced: bool = True) -> AsyncIterator[Change]:
        """One transaction, durable when the block has been left; nothing of it is when the block raises. They
        come one after the other. Raises StoreError, after which it may have been made or not when the
        connection broke in the last moment: read again. `fenced` False is for what a process may write that
        another one has replaced: what it adds, without knowing what is there.
        """
        async with self._writing:
            with self._explained():
                async with self._engine.connect() as connection, writing(connection):
                    change = Change(connection, await self._number(connection, fenced))
                    try:
                        yield change
                        await connection.commit()
                        self.revision = change.revision
                        for callback in change.done:
                            callback()
                    finally:
                        for callback in change.ended:
                            callback()

    async def _number(self, connection: AsyncConnection, fenced: bool) -> int:
        following = update(schema.state).values(revision=schema.state.c.revision + 1)
        if fenced:
            following = following.where(schema.state.c.epoch == self._epoch)
        row = (await connection.execute(following.returning(schema.state.c.revision))).first()
        if row is None:
            raise FencedError(f"{self.name} is another process's by now")
        return int(row.revision)

    async def read(self, statement: Executable) -> list[Row[Any]]:
        """Raises StoreError."""
        with self._explained():
            async with self._engine.connect() as connection:
                return list((await connection.execute(statement)).all())
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


def make_private(file: Path) -> None:
    """The database's file, readable by its owner only from the beginning. Raises StoreError."""
    try:
        os.close(os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise StoreError(f"{file} cannot be opened: {error.strerror}") from None


def make_engine(url: URL) -> AsyncEngine:
    if url.get_backend_name() != "sqlite":
        limits = {"timeout": CONNECT_S, "command_timeout": BUSY_S}
        return create_async_engine(url, pool_pre_ping=True, connect_args=limits)
    # A connection comes back with its transaction at an end: there is nothing left to roll back.
    engine = create_async_engine(url, connect_args={"timeout": BUSY_S}, pool_reset_on_return=None)

    @event.listens_for(engine.sync_engine, "connect")
    def connected(connection: Any, _record: Any) -> None:
        """Durable, readers beside one writer; transactions begin where `begin` says."""
        connection.isolation_level = None
        cursor = connection.cursor()
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @event.listens_for(engine.sync_engine, "begin")
    def begin(connection: Any) -> None:
        """A writer waits for others at its beginning, where that can be waited for."""
        writes = connection.get_execution_options().get(WRITES)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


@contextlib.asynccontextmanager
async def writing(connection: AsyncConnection) -> AsyncIterator[None]:
    await connection.execution_options(**{WRITES: True})
    yield


def reason(error: Exception) -> str:
    """In the database's own words, on one line."""
    inner = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    text = getattr(inner, "strerror", None) or str(inner) or type(inner).__name__
    return " ".join(text.split("\n")[0].rpartition(">: ")[2].split())
