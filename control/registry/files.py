"""The configuration file, watched: an edit takes effect by itself, once it is whole."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

LOOK_S = 1.0

Stamp = tuple[int, int, int]
"""Inode, time of the last write, size."""


class FileWatch:
    """Calls `changed` when the file has become another one and was the same at two looks: an editor does not
    write in one stroke. A file that is not there is no change; a link that points elsewhere is one.
    """

    def __init__(self, path: Path, changed: Callable[[], Awaitable[object]], every: float = LOOK_S) -> None:
        self.path = path
        self._changed = changed
        self._every = every
        self._seen = self._last = stamp(path)

    def seen(self) -> None:
        """What the file is now is known: whoever calls has read or written it."""
        self._seen = self._last = stamp(self.path)

    def read(self) -> str:
        """The text, known from here on. Raises OSError and UnicodeDecodeError."""
        before = stamp(self.path)
        text = self.path.read_text("utf-8")
        self._seen = self._last = before
        return text

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(self._every)
            await self.look()

    async def look(self) -> None:
        now = await asyncio.to_thread(stamp, self.path)
        same, self._last = now == self._last, now
        if same and now is not None and now != self._seen:
            self._seen = now
            await self._changed()


def stamp(path: Path) -> Stamp | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size
