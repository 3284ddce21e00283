"""The source "dns": what the DNS says of the services that have `discover`, for as long as it says so.

A pool that had endpoints is never emptied by an answer, be it a failure or a name that is gone: whoever wants
it empty says so in the file. The last good answers are in the store, for a start at which no server answers.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
from dataclasses import astuple
from typing import TYPE_CHECKING

from sqlalchemy import delete, insert, select

from turnout.control.registry.lookup import RETRY_MAX_S, Found, Lookup, Question
from turnout.control.storage import schema
from turnout.control.storage.store import Store, StoreError
from turnout.proxy.model import Config, Discover, Endpoint

if TYPE_CHECKING:
    from turnout.control.events.events import Events
    from turnout.control.registry.registry import Registry

log = logging.getLogger("turnout.dns")

FIRST_S = 2.0
"""So long a start waits for names that no store knows."""
BY = "dns"


def question_of(discover: Discover) -> Question:
    if discover.srv is not None:
        return Question(discover.srv, None, discover.server)
    host, _, port = (discover.dns or "").rpartition(":")
    return Question(host, int(port), discover.server)


class Followed:
    """One service: its question, and what is known of it. `since` is when the DNS last said so (Unix), `due`
    when it is asked again (monotonic), `failure` why it does not say it now.
    """

    def __init__(self, service: str, question: Question) -> None:
        self.service = service
        self.question = question
        self.lookup = Lookup(question)
        self.version = "v1"
        self.known: tuple[Found, ...] = ()
        self.since = 0.0
        self.due = 0.0
        self.failure: str | None = None
        self.task: asyncio.Task[None] | None = None

    def endpoints(self) -> dict[str, Endpoint]:
        return {
            found.address: Endpoint(
                address=found.address, weight=found.weight, priority=found.priority, version=self.version
            )
            for found in self.known
        }


class DnsSource:
    """Offers its findings to the registry."""

    def __init__(self, registry: Registry, store: Store, events: Events) -> None:
        self.registry = registry
        self.store = store
        self.events = events
        self._followed: dict[str, Followed] = {}

    async def open(self, config: Config) -> None:
        """Before the first snapshot: the last good answers, and for what there is none a first look."""
        self._take(config)
        await self._restore()
        unknown = [one for one in self._followed.values() if not one.known]
        if unknown:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(FIRST_S):
                    await asyncio.gather(*(self._look(one) for one in unknown))

    async def follow(self, config: Config) -> None:
        """From now on ask what this configuration asks, each question when its time has come."""
        for name in self._take(config):
            await self.registry.offer("dns", name, None)
        for one in self._followed.values():
            if one.known:
                await self._offer(one)  # they may be of another version now
            if one.task is None:
                one.task = asyncio.create_task(self._keep_asking(one))

    async def close(self) -> None:
        tasks = [one.task for one in self._followed.values() if one.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # ---- what is asked -----------------------------------------------------------------------------------

    def _take(self, config: Config) -> list[str]:
        """A service whose question stays the same keeps what is known; those that are not asked for any more
        are returned.
        """
        wanted = {
            name: question_of(service.discover)
            for name, service in config.services.items()
            if service.discover is not None
        }
        gone = [name for name, one in self._followed.items() if wanted.get(name) != one.question]
        for name in gone:
            one = self._followed.pop(name)
            if one.task is not None:
                one.task.cancel()
        for name, service in config.services.items():
            if service.discover is not None:
                one = self._followed.setdefault(name, Followed(name, wanted[name]))
                one.version = service.discover.version
        return gone

    async def _keep_asking(self, one: Followed) -> None:
        """What was asked for the start need not be asked again before its time."""
        while True:
            await asyncio.sleep(one.due - time.monotonic())
            try:
                await self._look(one)
            except Exception:
                log.exception("a look at the DNS failed", extra={"fields": {"service": one.service}})
                one.due = time.monotonic() + RETRY_MAX_S

    async def _look(self, one: Followed) -> None:
        answer = await one.lookup.ask()
        one.due = time.monotonic() + answer.ttl
        failure = answer.failure
        if not answer.found and one.known and failure is None:
            failure = f"{one.question} has no addresses any more"
        self._say(one, failure)
        if answer.found:
            one.since = time.time()
            if set(answer.found) != set(one.known):
                one.known = answer.found
                await self._keep(one)
                await self._offer(one)

    def _say(self, one: Followed, failure: str | None) -> None:
        """Once for each turn to the worse or the better."""
        before, one.failure = one.failure, failure
        if (before is None) == (failure is None):
            return
        fields = {"service": one.service, "question": str(one.question), "known": len(one.known)}
        if failure is not None:
            log.warning("what is known of a name stays: %s", failure, extra={"fields": fields})
            self.events.publish("discovery.failed", by=BY, service=one.service, data={"reason": failure})
        else:
            log.info("a name is answered again", extra={"fields": fields})
            self.events.publish("discovery.recovered", by=BY, service=one.service, data={})

    async def _offer(self, one: Followed) -> None:
        await self.registry.offer("dns", one.service, one.endpoints(), reason=str(one.question))

    # ---- last good answers -------------------------------------------------------------------------------

    async def _restore(self) -> None:
        for row in await self.store.read(select(schema.discovered)):
            one = self._followed.get(row.service)
            if one is not None and row.question == str(one.question):
                one.known = tuple(Found(*item) for item in json.loads(row.found))
                one.since = row.time
                await self._offer(one)

    async def _keep(self, one: Followed) -> None:
        """What cannot be kept is asked again after the next start."""
        row = {
            "service": one.service,
            "question": str(one.question),
            "found": json.dumps([astuple(found) for found in one.known]),
            "time": one.since,
        }
        table = schema.discovered
        try:
            async with self.store.change() as change:
                await change.execute(delete(table).where(table.c.service == one.service))
                await change.execute(insert(table).values(row))
        except StoreError as error:
            log.warning("the answer for %s is not kept: %s", one.question, error)
