"""What a restart has to know of health: whether each endpoint was up, since when and why."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import NamedTuple, Protocol

from sqlalchemy import bindparam, delete, insert, select

from turnout.control.access.canonical import storable
from turnout.control.health.target import Key
from turnout.control.storage import schema
from turnout.control.storage.store import Store, StoreError

log = logging.getLogger("turnout.health")

WRITE_S = 0.25
"""Turns of this time are written together."""
RETRY_S = 5.0


class Known(NamedTuple):
    up: bool
    since: float
    reason: str


class Shelf(Protocol):
    """Where it is kept."""

    async def read(self) -> dict[Key, Known]: ...
    async def write(self, known: dict[Key, Known | None]) -> None:
        """None: forget it. Raises StoreError, nothing is written then."""


class HealthTable:
    """The shelf of a store."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def read(self) -> dict[Key, Known]:
        rows = await self._store.read(select(schema.health))
        return {Key(row.service, row.address): Known(bool(row.up), row.since, row.reason) for row in rows}

    async def write(self, known: dict[Key, Known | None]) -> None:
        table = schema.health
        keys = [{"a_service": key.service, "a_address": key.address} for key in known]
        rows = [
            {
                "service": key.service,
                "address": key.address,
                "up": int(value.up),
                "since": value.since,
                "reason": storable(value.reason),
            }
            for key, value in known.items()
            if value is not None
        ]
        this = (table.c.service == bindparam("a_service")) & (table.c.address == bindparam("a_address"))
        async with self._store.change() as change:
            await change.execute(delete(table).where(this), keys)
            if rows:
                await change.execute(insert(table), rows)


class Remembered:
    """Read once; written soon after it has changed. A shelf that takes nothing is tried again: health does
    not wait for it.
    """

    def __init__(self, shelf: Shelf | None) -> None:
        self._shelf = shelf
        self._known: dict[Key, Known] = {}
        self._news: dict[Key, Known | None] = {}
        self._wanted = asyncio.Event()
        self._ending = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def open(self) -> None:
        if self._shelf is not None:
            self._known = await self._shelf.read()

    async def start(self) -> None:
        self._task = asyncio.create_task(self._keep_writing())

    async def close(self) -> None:
        self._ending.set()
        self._wanted.set()
        task, self._task = self._task, None
        if task is not None:
            await task

    def get(self, key: Key) -> Known | None:
        return self._known.get(key)

    def all(self) -> list[Key]:
        return list(self._known)

    def put(self, key: Key, known: Known) -> None:
        self._known[key] = self._news[key] = known
        self._wanted.set()

    def forget(self, key: Key) -> None:
        if self._known.pop(key, None) is not None:
            self._news[key] = None
            self._wanted.set()

    async def _keep_writing(self) -> None:
        failed = False
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            news, self._news = self._news, {}
            try:
                if news and self._shelf is not None:
                    await self._shelf.write(news)
                failed = False
            except StoreError as error:
                if not failed:
                    log.warning("health is not remembered: %s", error)
                failed = True
                self._news = news | self._news
                self._wanted.set()
            if self._ending.is_set():
                return
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._ending.wait(), RETRY_S if failed else WRITE_S)
