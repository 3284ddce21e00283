"""Why a supervisor cannot do what it is asked; configuration errors have their own class in config.py."""

from __future__ import annotations

from collections.abc import Iterable


class StartError(Exception):
    """The proxy cannot start; `reasons` says why, all at once, a line each."""

    def __init__(self, reasons: Iterable[str]) -> None:
        self.reasons = tuple(reasons)
        super().__init__("\n".join(self.reasons))


class UpgradeError(Exception):
    """The new program did not come up; the running one goes on. The text says why."""
