"""Events: a page of what has happened, or followed as server-sent events.

A reader has no queue of its own: it goes through what is kept for all. So it costs nothing while it waits,
and one that falls too far behind, or takes nothing for a while, is dropped and told why.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from aiohttp import web
from pydantic import Field
from pydantic_core import to_json
from typing_extensions import TypedDict

from turnout.control.access.errors import AccessError
from turnout.control.access.namespaces import namespace_of
from turnout.control.api.call import Call, Reply
from turnout.control.api.problems import Place, ProblemError, invalid
from turnout.control.api.routes import Query, Route
from turnout.control.events.events import KEPT, GoneError
from turnout.control.storage.store import StoreError

if TYPE_CHECKING:
    from turnout.control.events.events import Event

STREAM = "text/event-stream"
STREAMS_MAX = 256
STREAMS_EACH = 64
"""Of one caller: none takes all there are."""
KEEP_ALIVE_S = 15.0
STALL_S = 30.0
"""A client that has taken nothing for so long is dropped."""
RETRY_MS = 1000
"""After which a browser connects again."""


class EventQuery(Query):
    from_: int | None = Field(
        default=None,
        alias="from",
        ge=0,
        le=(1 << 63) - 1,
        description="After this revision; Last-Event-ID counts more. Without: from now on, or the newest.",
    )
    follow: bool = Field(default=True, description="false: a page of what is kept, as JSON, not a stream.")
    limit: int = Field(default=100, ge=1, le=1000, description="At most so many in a page.")
    service: str | None = Field(default=None, description="Of this service.")
    namespace: str | None = Field(default=None, description="Of services of this namespace.")
    kind: str | None = Field(
        default=None, description='Of this kind: "endpoint.health", or "endpoint" for all of endpoints.'
    )


class EventRow(TypedDict):
    """What happened; `data` depends on the kind."""

    revision: int
    time: float
    kind: str
    service: str | None
    address: str | None
    by: str
    data: dict[str, Any]


class EventPage(TypedDict):
    """Oldest first. `next`: from which revision to ask for more."""

    items: list[EventRow]
    next: int


def row(event: Event) -> EventRow:
    out = asdict(event)
    del out["last"]
    return out  # type: ignore[return-value]


def wants(call: Call, event: Event) -> bool:
    """What is said of the configuration quotes it, and so is for those who may read it."""
    query: EventQuery = call.query
    if event.service is None:
        return (
            query.service is None
            and query.namespace is None
            and _is_kind(event, query.kind)
            and (not event.kind.startswith("config.") or call.actor.may("config.read", None))
        )
    return (
        call.sees(event.service)
        and query.service in {None, event.service}
        and query.namespace in {None, namespace_of(event.service)}
        and _is_kind(event, query.kind)
    )


def _is_kind(event: Event, kind: str | None) -> bool:
    return kind is None or event.kind == kind or event.kind.startswith(f"{kind}.")


async def events(call: Call) -> Reply:
    if not call.query.follow:
        return Reply(past(call))
    return Reply(stream=await Stream(call).run())


def past(call: Call) -> EventPage:
    """From a revision on; without one the newest."""
    source, asked = call.parts.events, call.query.from_
    kept = [event for event in source.recent(KEPT, asked or 0) if wants(call, event)]
    some = kept[-call.query.limit :] if asked is None else whole_revisions(kept, call.query.limit)
    return EventPage(items=[row(event) for event in some], next=some[-1].revision if some else asked or 0)


def whole_revisions(kept: list[Event], limit: int) -> list[Event]:
    """The first ones; a page does not end inside a revision, since the next one begins after it."""
    some = kept[:limit]
    return some + [event for event in kept[limit:] if some and event.revision == some[-1].revision]


def _too_many(count: int, who: str) -> ProblemError:
    return ProblemError(503, f"{count} {who} events already", headers={"Retry-After": "10"})


class Stream:
    """One client that follows."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self._at: int = start_of(call)
        self._noted = self._at
        """The newest id that the client has."""
        self._asked = time.monotonic()
        self._out = web.StreamResponse(
            headers={"Content-Type": STREAM, "Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        )

    async def run(self) -> web.StreamResponse:
        api = self._call.api
        who = self._call.actor.title
        if len(api.streams) >= STREAMS_MAX:
            raise _too_many(STREAMS_MAX, "clients follow")
        if list(api.streams.values()).count(who) >= STREAMS_EACH:
            raise _too_many(STREAMS_EACH, f"clients of {who} follow")
        news = self._call.parts.events.watch(self._at)
        first = await self._first(news)
        await self._out.prepare(self._call.request)
        task = asyncio.current_task()
        api.streams[task] = who
        try:
            await self._send(f"retry: {RETRY_MS}\nid: {self._at}\n\n")
            await self._follow(news, first)
        except TimeoutError:
            self._drop()
        except ConnectionResetError:
            pass  # it is gone
        finally:
            api.streams.pop(task, None)
        return self._out

    async def _is_to_come(self) -> bool:
        """A revision that is not there yet is of a store that was put back, or that is no more: whoever
        waited for it would miss all up to it.
        """
        store = self._call.parts.store
        return self._at > store.revision and self._at > await store.refresh()

    async def _first(self, news: AsyncIterator[Event]) -> asyncio.Task[Event]:
        """Whether it can be followed from there. Raises GoneError."""
        task = asyncio.ensure_future(anext(news))
        await asyncio.sleep(0)
        if task.done() and isinstance(task.exception(), GoneError):
            task.result()
        if await self._is_to_come():
            task.cancel()
            raise GoneError(self._call.parts.store.revision)
        return task

    async def _follow(self, news: AsyncIterator[Event], waiting: asyncio.Task[Event]) -> None:
        closing = asyncio.ensure_future(self._call.api.closing.wait())
        try:
            while True:
                await asyncio.wait(
                    {waiting, closing}, timeout=KEEP_ALIVE_S, return_when=asyncio.FIRST_COMPLETED
                )
                if closing.done() or not await self._may_go_on():
                    return
                if not waiting.done():
                    await self._keep_alive()
                    continue
                try:
                    event = waiting.result()
                except StopAsyncIteration:
                    return
                except GoneError as error:
                    await self._send(
                        message("dropped", {"reason": f"too slow: {error}", "oldest": error.oldest})
                    )
                    return
                waiting = asyncio.ensure_future(anext(news))
                await self._tell(event)
        finally:
            closing.cancel()
            waiting.cancel()
            with contextlib.suppress(asyncio.CancelledError, GoneError, StopAsyncIteration):
                await waiting

    async def _may_go_on(self) -> bool:
        """A token that is revoked or has expired meanwhile opens nothing any more, nor does it keep open."""
        if time.monotonic() - self._asked < KEEP_ALIVE_S:
            return True
        call, self._asked = self._call, time.monotonic()
        gate = call.parts.gate
        try:
            call.actor = await gate.identify(call.request)
            gate.allow(call.actor, call.route.action or "")
        except AccessError as error:
            await self._send(message("dropped", {"reason": error.detail}))
            return False
        except StoreError:
            pass  # nobody can say so now
        return True

    async def _tell(self, event: Event) -> None:
        """An id goes with the last event of a revision: whoever resumes there has missed nothing."""
        if event.last:
            self._at = event.revision
        if wants(self._call, event):
            mark = f"id: {event.revision}\n" if event.last else ""
            self._noted = event.revision if event.last else self._noted
            await self._send(mark + message(event.kind, row(event)))

    async def _keep_alive(self) -> None:
        """With how far it has got, so that what it did not want to see is not looked through again."""
        await self._send(f"id: {self._at}\n\n" if self._at > self._noted else ": still here\n\n")
        self._noted = self._at

    async def _send(self, text: str) -> None:
        """Raises TimeoutError for a client that takes nothing."""
        async with asyncio.timeout(STALL_S):
            await self._out.write(text.encode())

    def _drop(self) -> None:
        """It would not read the reason either."""
        transport = self._call.request.transport
        if transport is not None:
            transport.abort()


def start_of(call: Call) -> int:
    text = call.request.headers.get("Last-Event-ID")
    if text is not None:
        if not text.isascii() or not text.isdigit() or len(text) > 18:
            raise invalid([Place(where="Last-Event-ID", what="is a revision, the id of an event")])
        return int(text)
    asked: int | None = call.query.from_
    return call.parts.store.revision if asked is None else asked


def message(kind: str, data: Any) -> str:
    """One event of the stream; JSON has no line breaks."""
    return f"event: {kind}\ndata: {to_json(data).decode()}\n\n"


ROUTES = (
    Route(
        "GET",
        "/v1/events",
        "What happens, as server-sent events",
        events,
        "events.read",
        output=EventPage,
        query=EventQuery,
        produces=STREAM,
        errors=(410, 503),
        notes="Each event has its revision as id: a client that comes back with Last-Event-ID misses "
        "nothing, also over a restart of the proxy. 410: that is too long ago; read the state, then follow.",
    ),
)
