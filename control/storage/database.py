"""Connections to SQLite and PostgreSQL: synchronous work on one, done beside the event loop.

SQLite writes in a thread of its own, reads in others; each piece of work is one way there and back, however
many statements it has. PostgreSQL goes over asyncpg.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol, TypeVar

from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

T = TypeVar("T")
Work = Callable[[Connection], T]
BUSY_S = 10
"""How long another process may hold the database, and a server may take, before a change fails."""
CONNECT_S = 5
"""How long a server may take to answer; one that is cut off from here never says so."""
READERS = 2
WRITES = "turnout_writes"


class Transaction(Protocol):
    """Begun by the first `run`; over when that raises or commits."""

    async def run(self, work: Work[T], *, commit: bool = False) -> T: ...

    async def end(self) -> None:
        """Nothing of it is made, unless it has been committed."""


class Database(Protocol):
    """One transaction at a time, any number of readers beside it."""

    dialect: str

    def transaction(self) -> Transaction: ...

    async def read(self, work: Work[T]) -> T: ...

    async def close(self) -> None: ...


def database(url: URL) -> Database:
    """Raises OSError for a file that cannot be opened."""
    return Sqlite(url) if url.get_backend_name() == "sqlite" else Postgresql(url)


# ---- SQLite ----------------------------------------------------------------------------------------------


class Sqlite:
    """`url` names a file, which is made."""

    dialect = "sqlite"

    def __init__(self, url: URL) -> None:
        make_private(Path(url.database or ""))
        self._engine = sqlite_engine(url)
        self._connection: Connection | None = None  # used in the writer's thread only
        self._writer = ThreadPoolExecutor(1, "store-writer")
        self._readers = ThreadPoolExecutor(READERS, "store-reader")

    def transaction(self) -> SqliteTransaction:
        return SqliteTransaction(self)

    async def read(self, work: Work[T]) -> T:
        def whole() -> T:
            with self._engine.connect() as connection:
                return work(connection)

        return await asyncio.get_running_loop().run_in_executor(self._readers, whole)

    async def write(self, work: Work[T], *, commit: bool) -> T:
        def whole() -> T:
            try:
                connection = self._connected()
                out = work(connection)
                if commit:
                    connection.commit()
            except BaseException:
                self.give_up()
                raise
            return out

        return await asyncio.get_running_loop().run_in_executor(self._writer, whole)

    async def abandon(self) -> None:
        await asyncio.get_running_loop().run_in_executor(self._writer, self.give_up)

    def _connected(self) -> Connection:
        if self._connection is None:
            self._connection = self._engine.connect().execution_options(**{WRITES: True})
        return self._connection

    def give_up(self) -> None:
        """In the writer's thread: the transaction goes with its connection."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    async def close(self) -> None:
        await self.abandon()
        self._engine.dispose()
        self._writer.shutdown()
        self._readers.shutdown()


class SqliteTransaction:
    def __init__(self, file: Sqlite) -> None:
        self._file = file
        self._open = False

    async def run(self, work: Work[T], *, commit: bool = False) -> T:
        self._open = False  # when it fails, it is over
        out = await self._file.write(work, commit=commit)
        self._open = not commit
        return out

    async def end(self) -> None:
        if self._open:
            self._open = False
            await self._file.abandon()


def make_private(file: Path) -> None:
    """The database's file, readable by its owner only from the beginning. Raises OSError."""
    os.close(os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))


def sqlite_engine(url: URL) -> Engine:
    # A connection comes back with its transaction at an end: there is nothing left to roll back.
    engine = create_engine(url, connect_args={"timeout": BUSY_S}, pool_reset_on_return=None)

    @event.listens_for(engine, "connect")
    def connected(connection: Any, _record: Any) -> None:
        """Durable, readers beside one writer; transactions begin where `begin` says."""
        connection.isolation_level = None
        cursor = connection.cursor()
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        """A writer waits for others at its beginning, where that can be waited for."""
        writes = connection.get_execution_options().get(WRITES)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


# ---- PostgreSQL ------------------------------------------------------------------------------------------


class Postgresql:
    dialect = "postgresql"

    def __init__(self, url: URL) -> None:
        limits = {"timeout": CONNECT_S, "command_timeout": BUSY_S}
        self._engine: AsyncEngine = create_async_engine(url, pool_pre_ping=True, connect_args=limits)

    def transaction(self) -> PostgresqlTransaction:
        return PostgresqlTransaction(self._engine)

    async def read(self, work: Work[T]) -> T:
        async with self._engine.connect() as connection:
            return await connection.run_sync(work)

    async def close(self) -> None:
        await self._engine.dispose()


class PostgresqlTransaction:
    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._connection: AsyncConnection | None = None

    async def run(self, work: Work[T], *, commit: bool = False) -> T:
        if self._connection is None:
            self._connection = await self._engine.connect()
        try:
            out = await self._connection.run_sync(work)
            if commit:
                await self._connection.commit()
        except BaseException:
            await self.end()
            raise
        if commit:
            await self.end()
        return out

    async def end(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()


async def to_its_end(work: Coroutine[Any, Any, T]) -> T:
    """Whoever is cancelled while waiting goes on only when it is done."""
    task = asyncio.create_task(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        while not task.done():
            try:
                await asyncio.wait([task])
            except asyncio.CancelledError:
                continue
        if not task.cancelled():
            task.exception()  # seen: who is cancelled does not ask for it
        raise
