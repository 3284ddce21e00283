"""The configuration: read, tried, applied, its history, back to an earlier version in one step."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from typing import Any

from pydantic import Field
from typing_extensions import TypedDict

from turnout.control.api import lookup
from turnout.control.api.call import Call, Reply
from turnout.control.api.pages import LIMIT_MAX
from turnout.control.api.problems import ProblemError
from turnout.control.api.routes import Body, Query, Route

TOML = "application/toml"
TEXT_MAX = 4 << 20
"""Bytes of a configuration."""
DIGITS = 18
"""Of a version at most."""


class ConfigText(TypedDict):
    """The text in force; the file may hold another one that could not be applied."""

    version: int
    text: str


class VersionRow(TypedDict):
    """`size` in bytes, `digest` SHA-256 of the text."""

    version: int
    time: float
    by: str
    note: str
    digest: str
    size: int


class VersionText(VersionRow):
    text: str


class Versions(TypedDict):
    """Newest first. `next`: what to ask for with `before` to go on; null at the end."""

    items: list[VersionRow]
    next: int | None


class ConfigApplied(TypedDict):
    """In force: every worker has this snapshot. With dry_run: what would be, and `applied` is false."""

    version: int
    snapshot: int
    diff: str
    applied: bool


class ConfigChange(Query):
    dry_run: bool = Field(default=False, description="Check it and show the difference; change nothing.")
    note: str = Field(default="", max_length=500, description="For the history: why.")


class DryRun(Query):
    dry_run: bool = Field(default=False, description="Check it and show the difference; change nothing.")


class HistoryQuery(Query):
    before: int | None = Field(default=None, ge=1, le=10**DIGITS, description="Older than this version.")
    limit: int = Field(default=50, ge=1, le=LIMIT_MAX, description="At most so many.")


class Rewind(Body):
    version: int = Field(ge=1, le=10**DIGITS, description="One of the history.")


async def get(call: Call) -> Reply:
    version, text = call.parts.history.current()
    return Reply(ConfigText(version=version, text=text), revision=version)


async def put(call: Call) -> Reply:
    history, text = call.parts.history, call.body
    call.before = {"version": history.version}
    if call.is_dry:
        return await tried(call, text)
    outcome = await history.apply(text, by=call.by, note=call.query.note, if_version=call.if_revision)
    return applied(outcome)


async def rewind(call: Call) -> Reply:
    history, version = call.parts.history, call.body.version
    call.before = {"version": history.version}
    if call.is_dry:
        _, text = await history.get(version)
        return await tried(call, text)
    return applied(await history.rewind(version, by=call.by, if_version=call.if_revision))


async def tried(call: Call, text: str) -> Reply:
    """In a thread: a large configuration takes its time."""
    history = call.parts.history
    lookup.check_revision(call, "the configuration", history.version)
    diff = await asyncio.to_thread(history.validate, text)
    version, snapshot = history.version, call.parts.supervisor.version
    return Reply(ConfigApplied(version=version, snapshot=snapshot, diff=diff, applied=False))


def applied(outcome: Any) -> Reply:
    body = ConfigApplied(version=outcome.version, snapshot=outcome.snapshot, diff=outcome.diff, applied=True)
    after = {"version": outcome.version, "digest": outcome.digest}
    return Reply(body, revision=outcome.version, after=after)


async def versions(call: Call) -> Reply:
    asked: HistoryQuery = call.query
    found = await call.parts.history.versions(before=asked.before, limit=asked.limit)
    more = len(found) == asked.limit
    items: Any = [asdict(version) for version in found]
    return Reply(Versions(items=items, next=found[-1].version if more else None))


async def version(call: Call) -> Reply:
    number = call.path["version"]
    if not (number.isascii() and number.isdigit() and len(number) <= DIGITS):
        raise ProblemError(404, f'"{number}" is no version; a version is a number')
    found, text = await call.parts.history.get(int(number))
    body: Any = {**asdict(found), "text": text}
    return Reply(body)


ROUTES = (
    Route(
        "GET",
        "/v1/config",
        "The configuration in force",
        get,
        "config.read",
        output=ConfigText,
        conditional=True,
    ),
    Route(
        "PUT",
        "/v1/config",
        "Put another configuration in force and into the file",
        put,
        "config.write",
        output=ConfigApplied,
        query=ConfigChange,
        consumes=TOML,
        body_max=TEXT_MAX,
        errors=(422, 503),
        changes=True,
        conditional=True,
        notes="The body is the whole file. One that does not validate changes nothing: 422 names them.",
    ),
    Route(
        "GET",
        "/v1/config/history",
        "Versions of the configuration, newest first",
        versions,
        "config.read",
        output=Versions,
        query=HistoryQuery,
    ),
    Route(
        "GET",
        "/v1/config/history/{version}",
        "A version with its text",
        version,
        "config.read",
        output=VersionText,
    ),
    Route(
        "POST",
        "/v1/config/rewind",
        "Put an earlier version in force again, as a new one",
        rewind,
        "config.rewind",
        output=ConfigApplied,
        input=Rewind,
        query=DryRun,
        errors=(404, 422, 503),
        changes=True,
        conditional=True,
    ),
)
