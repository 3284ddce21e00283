"""Idempotency-Key: who repeats a POST gets the first answer again. Answers are kept in the store, so also
over a restart; what failed is not kept, since it changed nothing and may be tried again.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

from aiohttp import web
from sqlalchemy import delete, insert, select

from turnout.control.api.problems import ProblemError
from turnout.control.storage.schema import idempotency as table
from turnout.control.storage.store import Store, StoreError

if TYPE_CHECKING:
    from turnout.control.api.call import Call

log = logging.getLogger("turnout.api")

KEPT_S = 24 * 3600.0
KEPT_HEADERS = ("ETag", "Location")
CALLER_MAX = 255
REPLAYED = "Idempotency-Replayed"


class Replays:
    def __init__(self, store: Store, clock: Callable[[], float] = time.time) -> None:
        self._store = store
        self._clock = clock
        self._busy: WeakValueDictionary[tuple[str, str], asyncio.Lock] = WeakValueDictionary()

    async def once(
        self, call: Call, key: str, raw: bytes, act: Callable[[], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        """What `act` returns, or what it returned the first time. A key belongs to whoever used it. Raises
        ProblemError when it was used for something else.
        """
        place = call.actor.title[:CALLER_MAX], key
        lock = self._busy.setdefault(place, asyncio.Lock())
        async with lock:
            return await self._kept(place, call, raw) or await self._act(place, call, raw, act)

    async def _kept(self, place: tuple[str, str], call: Call, raw: bytes) -> web.Response | None:
        rows = await self._store.read(
            select(table).where(
                table.c.caller == place[0],
                table.c.key == place[1],
                table.c.created > self._clock() - KEPT_S,
            )
        )
        if not rows:
            return None
        row = rows[0]
        if row.fingerprint != fingerprint(call, raw):
            raise ProblemError(
                422,
                f'"{place[1]}" was used for another request; take a new Idempotency-Key for each change',
                kind="idempotency-key-reused",
            )
        headers = {**json.loads(row.headers), REPLAYED: "true"}
        return web.Response(
            body=row.body.encode(), status=row.status, content_type="application/json", headers=headers
        )

    async def _act(
        self,
        place: tuple[str, str],
        call: Call,
        raw: bytes,
        act: Callable[[], Awaitable[web.StreamResponse]],
    ) -> web.StreamResponse:
        response = await act()
        if isinstance(response, web.Response) and isinstance(response.body, bytes):
            try:
                await self._keep(place, call, raw, response, response.body)
            except StoreError as error:  # it is done all the same: who hears so need not ask again
                log.warning("an answer is not kept for its Idempotency-Key: %s", error)
        return response

    async def _keep(
        self, place: tuple[str, str], call: Call, raw: bytes, response: web.Response, body: bytes
    ) -> None:
        now = self._clock()
        row: dict[str, Any] = {
            "caller": place[0],
            "key": place[1],
            "fingerprint": fingerprint(call, raw),
            "status": response.status,
            "headers": json.dumps(
                {name: response.headers[name] for name in KEPT_HEADERS if name in response.headers}
            ),
            "body": body.decode(),
            "created": now,
        }
        mine = (table.c.caller == place[0]) & (table.c.key == place[1])
        async with self._store.change(fenced=False) as change:  # the answer to an upgrade too
            await change.execute(delete(table).where(mine | (table.c.created <= now - KEPT_S)))
            await change.execute(insert(table).values(row))


def fingerprint(call: Call, raw: bytes) -> str:
    """Of what is asked for."""
    asked = f"{call.request.method} {call.request.path_qs}\n".encode()
    return hashlib.sha256(asked + raw).hexdigest()
