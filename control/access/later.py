"""Work that is done once for many that ask for it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

log = logging.getLogger("turnout.access")


class Later:
    """Does `work` when the first `soon` is `period` seconds old; never twice at a time."""

    def __init__(self, period: float, work: Callable[[], Awaitable[None]]) -> None:
        self._period = period
        self._work = work
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None
        self._lock = asyncio.Lock()

    def soon(self) -> None:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._period, self._start)

    async def now(self) -> None:
        """Do it, whether somebody asked or not, and wait for it."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        async with self._lock:
            await self._work()

    def _start(self) -> None:
        self._timer = None
        self._task = asyncio.create_task(self._logged())

    async def _logged(self) -> None:
        try:
            async with self._lock:
                await self._work()
        except Exception:
            log.exception("unexpected failure")
