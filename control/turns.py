"""Long work in the event loop, in turns: whatever else is due gets its turn too."""

from __future__ import annotations

import asyncio
import time

TURN_S = 0.002


class Turns:
    """Await `turn` between two pieces of work."""

    def __init__(self) -> None:
        self._since = time.perf_counter()

    async def turn(self) -> None:
        """Let the loop go on when this turn has lasted long enough."""
        if time.perf_counter() - self._since >= TURN_S:
            await asyncio.sleep(0)
            self._since = time.perf_counter()
