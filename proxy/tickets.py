"""Keys under which session tickets are sealed: made here, in the memory of the supervisor, and the same at
every worker. A ticket lives for a day; the keys of the last two turns still open what they sealed.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Sequence

KEY_BYTES = 80
"""A name of 16 bytes, and two keys of 32."""
KEPT = 3
TURN_S = 12 * 3600


class TicketKeys:
    """`keys` in hexadecimal, the newest first. `keys` of a former supervisor are taken over."""

    def __init__(self, keys: Sequence[str] = (), clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.keys = [key for key in keys if len(key) == 2 * KEY_BYTES][:KEPT] or [_new()]
        self._turned = clock()

    @property
    def due(self) -> bool:
        return self._clock() - self._turned >= TURN_S

    def turn(self) -> None:
        """A new key seals from the next snapshot on."""
        self.keys = [_new(), *self.keys][:KEPT]
        self._turned = self._clock()


def _new() -> str:
    return secrets.token_hex(KEY_BYTES)
