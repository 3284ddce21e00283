"""A store of its own for each test."""

import asyncio
import contextlib

import pytest
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from turnout.control.access.tables import metadata


class Kept:
    """What access asks of a store, over SQLite."""

    def __init__(self, path) -> None:
        self._engine = create_async_engine(f"sqlite+aiosqlite:///{path}", poolclass=NullPool)
        self._one = asyncio.Lock()

    async def make(self) -> None:
        async with self._engine.begin() as connection:
            await connection.run_sync(metadata.create_all)

    @contextlib.asynccontextmanager
    async def change(self):
        async with self._one, self._engine.begin() as connection:
            yield connection

    async def read(self, statement):
        async with self._engine.connect() as connection:
            return list(await connection.execute(statement))


@pytest.fixture
def with_store(tmp_path):
    """Run a coroutine function with a store."""

    def run(work):
        async def whole():
            store = Kept(tmp_path / "control.db")
            await store.make()
            return await asyncio.wait_for(work(store), 30)

        return asyncio.run(whole())

    return run
