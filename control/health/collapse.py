"""Many endpoints of one service down at once: that says more about the way there, or about the check, than
about the endpoints, and somebody should know. Routing goes on by the service's `panic`.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field


@dataclass
class Pool:
    """Of one service. Times are seconds of any one clock."""

    window_s: float = 0.0
    down: set[str] = field(default_factory=set)
    told: bool = False
    _recent: deque[tuple[float, str]] = field(default_factory=deque)

    def turned(self, address: str, *, up: bool, now: float, size: int) -> int:
        """An endpoint of `size` went up or down. How many went down within the window, if that is more than
        half of them and news; else 0.
        """
        if up:
            self.down.discard(address)
            self.told = self.told and len(self.down) * 2 > size
            return 0
        self.down.add(address)
        self._recent.append((now, address))
        while self._recent[0][0] < now - self.window_s:
            self._recent.popleft()
        gone = len({name for _, name in self._recent} & self.down)
        if self.told or gone < 2 or gone * 2 <= size:
            return 0
        self.told = True
        return gone

    def left(self, address: str) -> None:
        self.down.discard(address)
