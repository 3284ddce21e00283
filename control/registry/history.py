"""Configurations as they were put in force: shown, tried, applied, and any earlier one brought back.

The file stays what a start reads: applying one writes it. Its text is kept whenever it takes effect, whoever
wrote it.
"""

from __future__ import annotations

import asyncio
import contextlib
import difflib
import hashlib
import logging
import os
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import delete, insert, select

from turnout.control.access.canonical import storable
from turnout.control.registry.checks import new_programs
from turnout.control.registry.errors import ConflictError, NotFoundError, UnavailableError
from turnout.control.registry.files import FileWatch
from turnout.control.storage import schema
from turnout.control.storage.store import Change, Store, StoreError
from turnout.proxy.config import ConfigError, Problem, parse

if TYPE_CHECKING:
    from turnout.control.events.events import Events
    from turnout.proxy.model import Config
    from turnout.proxy.supervisor import Supervisor

log = logging.getLogger("turnout.config")

BY = "file"
KEPT = 200
"""Versions; the oldest go."""
AGAIN_S = 5.0
Make = Callable[[Change], Awaitable[None]]
Write = Callable[[Make], Awaitable[tuple[Change, None]]]


@dataclass(frozen=True)
class Version:
    """`version` is the revision at which it took effect; `digest` is of the text."""

    version: int
    time: float
    by: str
    note: str
    digest: str
    size: int


@dataclass(frozen=True)
class Outcome:
    """Of an apply or a rewind: what is in force on every worker. `diff` is unified, "" without a change."""

    version: int
    snapshot: int
    digest: str
    diff: str


def digest_of(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class Configurations:
    """Of one supervisor's file. With `[control] watch` an edit takes effect by itself."""

    def __init__(
        self, supervisor: Supervisor, store: Store, events: Events, write: Write | None = None
    ) -> None:
        """`write` is the ledger's `change`, which takes the store back from an heir that has failed."""
        self.supervisor = supervisor
        self.store = store
        self.events = events
        self._write = write or self._change
        self._again: asyncio.Task[None] | None = None
        self.watch = FileWatch(supervisor.file, self._edited)
        self._watching: asyncio.Task[None] | None = None
        self.version = 0
        """Of the text that is in force."""
        self._text = ""
        self._changing = asyncio.Lock()

    async def start(self) -> None:
        self._watching = asyncio.create_task(self.watch.run())

    async def close(self) -> None:
        tasks = [task for task in (self._watching, self._again) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _edited(self) -> None:
        supervisor = self.supervisor
        if not supervisor.file_config.control.watch or not supervisor.serving:
            return
        try:
            await supervisor.reload()
        except ConfigError as error:
            data = {"problems": [str(problem) for problem in error.problems]}
            self.events.publish("config.refused", by=BY, data=data)

    # ---- reading -----------------------------------------------------------------------------------------

    def current(self) -> tuple[int, str]:
        """The version in force and its text; the file may hold another one that could not be applied."""
        return self.version, self._text

    async def versions(self, *, before: int | None = None, limit: int = 50) -> list[Version]:
        """Newest first."""
        table = schema.configurations
        statement = select(table).order_by(table.c.version.desc()).limit(limit)
        if before is not None:
            statement = statement.where(table.c.version < before)
        return [_version(row) for row in await self.store.read(statement)]

    async def get(self, version: int) -> tuple[Version, str]:
        """With its text. Raises NotFoundError."""
        table = schema.configurations
        rows = await self.store.read(select(table).where(table.c.version == version))
        if not rows:
            raise NotFoundError(f"there is no version {version} of the configuration; the history lists them")
        return _version(rows[0]), rows[0].text

    def diff(self, text: str) -> str:
        """From what is in force to `text`, unified; "" when they are the same."""
        lines = difflib.unified_diff(
            self._text.splitlines(keepends=True),
            text.splitlines(keepends=True),
            f"version {self.version}",
            "new",
        )
        return "".join(line if line.endswith("\n") else f"{line}\n\\ no newline\n" for line in lines)

    def validate(self, text: str) -> str:
        """What applying it would change, as `diff`. Raises ConfigError with all that is wrong."""
        config = parse(text, str(self.supervisor.file))
        self._check_programs(config)
        self.supervisor.check(config)
        return self.diff(text)

    # ---- changing ----------------------------------------------------------------------------------------

    async def apply(
        self, text: str, *, by: str, note: str = "", if_version: int | None = None, kept: bool = False
    ) -> Outcome:
        """Put a text in force and into the file. Raises ConfigError, ConflictError when another version is in
        force than `if_version`, UnavailableError when the file cannot be written; nothing has changed then.
        `kept`: the text is one of the history, so that its programs have been this machine's before.
        """
        async with self._changing:
            if if_version is not None and if_version != self.version:
                raise ConflictError(
                    f"the configuration was changed meanwhile: it has version {self.version}, not "
                    f"{if_version}; read it again",
                    self.version,
                )
            config = await asyncio.to_thread(parse, text, str(self.supervisor.file))
            if not kept:
                self._check_programs(config)
            return await self._apply(text, config, by, note)

    def _check_programs(self, config: Config) -> None:
        """Whoever may change the configuration through the API may not run programs by it."""
        names = new_programs(self.supervisor.file_config, config)
        what = "a program is taken from the file on this machine only: write it there and reload"
        if names:
            raise ConfigError(
                Problem(str(self.supervisor.file), f"[services.{name}] health.exec", what) for name in names
            )

    async def rewind(self, version: int, *, by: str, if_version: int | None = None) -> Outcome:
        """Apply the text of an earlier version, as a new one. Raises as `apply`, and NotFoundError."""
        _, text = await self.get(version)
        note = f"rewind to version {version}"
        return await self.apply(text, by=by, note=note, if_version=if_version, kept=True)

    async def _apply(self, text: str, config: Config, by: str, note: str) -> Outcome:
        diff = await asyncio.to_thread(self.diff, text)
        await self._write(nothing)  # a store that cannot be written is found out before anything changes
        place = self.supervisor.file.resolve()
        try:
            temporary = await asyncio.to_thread(_write_beside, place, text)
        except OSError as error:
            raise UnavailableError(f"{place} cannot be written: {error.strerror}") from None
        former = self.supervisor.file_config
        try:
            snapshot = await self.supervisor.reload(config)
            try:
                await asyncio.to_thread(_rename, temporary, place)
            except OSError as error:
                await self.supervisor.reload(former)
                raise UnavailableError(f"{place} cannot be replaced: {error.strerror}") from None
        finally:
            temporary.unlink(missing_ok=True)
        self.watch.seen()
        try:
            version = await self._record(text, by, note)
        except (StoreError, UnavailableError) as error:
            self._record_later()
            raise UnavailableError(
                f"it is in force and in the file, but not in the history yet: {error}"
            ) from None
        return Outcome(version, snapshot, digest_of(text), diff)

    async def noticed(self) -> None:
        """The file took effect by a start, a reload or an edit: keep its text, if it is another one; later,
        when the store cannot be written now.
        """
        try:
            await self._noticed()
        except (StoreError, UnavailableError) as error:
            log.warning("what is in force is not in the history yet: %s", error)
            self._record_later()

    def _record_later(self) -> None:
        if self._again is None or self._again.done():
            self._again = asyncio.create_task(self._record_at_last())

    async def _record_at_last(self) -> None:
        while True:
            await asyncio.sleep(AGAIN_S)
            with contextlib.suppress(StoreError, UnavailableError):
                return await self._noticed()

    async def _noticed(self) -> None:
        async with self._changing:
            try:
                text = await asyncio.to_thread(self.watch.read)
            except (OSError, UnicodeDecodeError):
                return  # it was another one a moment ago; the watch will see what it is now
            if self.version == 0:
                latest = await self.versions(limit=1)
                if latest and latest[0].digest == digest_of(text):
                    self.version, self._text = latest[0].version, text
            if self.version == 0 or text != self._text:
                await self._record(text, BY, "")

    async def _record(self, text: str, by: str, note: str) -> int:
        table, note = schema.configurations, storable(note)

        async def make(change: Change) -> None:
            row = {"time": time.time(), "by": by, "note": note, "digest": digest_of(text), "text": text}
            await change.execute(insert(table).values(version=change.revision, **row))
            kept = select(table.c.version).order_by(table.c.version.desc()).limit(KEPT)
            await change.execute(delete(table).where(table.c.version.not_in(kept)))
            await self.events.add(
                change, "config.applied", by=by, data={"note": note, "digest": digest_of(text)}
            )

        change, _ = await self._write(make)
        self.version, self._text = change.revision, text
        return change.revision

    async def _change(self, make: Make) -> tuple[Change, None]:
        return await self.store.made(make)


async def nothing(_change: Change) -> None:
    pass


def _version(row: Any) -> Version:
    return Version(row.version, row.time, row.by, row.note, row.digest, len(row.text.encode()))


def _write_beside(place: Path, text: str) -> Path:
    """On disk, with the mode of the file that it will replace. Leaves nothing when it fails."""
    temporary = place.with_name(f".{place.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    try:
        # Keys stand in it: nobody else reads it before it has the mode of the file.
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            former = place.stat()
            if (former.st_uid, former.st_gid) != (os.geteuid(), os.getegid()):
                os.fchown(fd, former.st_uid, former.st_gid)
            os.fchmod(fd, former.st_mode & 0o7777)
            os.fsync(fd)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    return temporary


def _rename(temporary: Path, place: Path) -> None:
    temporary.replace(place)
    folder = os.open(place.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
