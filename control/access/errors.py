"""Why somebody is not let in. Each says what would be right, and what a caller over HTTP is told."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from turnout.control.access.actor import Actor

REALM = 'Bearer realm="turnout"'


class AccessError(Exception):
    """`record`: whether it is for the audit log. `actor` is None for one who is not known."""

    status: ClassVar[int]

    def __init__(
        self, detail: str, *, source: str = "", actor: Actor | None = None, record: bool = True
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.source = source
        self.actor = actor
        self.record = record

    @property
    def headers(self) -> dict[str, str]:
        return {}


class UnauthenticatedError(AccessError):
    status = 401

    @property
    def headers(self) -> dict[str, str]:
        return {"WWW-Authenticate": REALM}


class ForbiddenError(AccessError):
    status = 403


class LimitedError(AccessError):
    status = 429

    def __init__(self, wait_s: float, *, source: str, record: bool) -> None:
        self.retry_after = max(1, math.ceil(wait_s))
        detail = f"too many failed attempts from {source}; try again in {self.retry_after} s"
        super().__init__(detail, source=source, record=record)

    @property
    def headers(self) -> dict[str, str]:
        return {"Retry-After": str(self.retry_after)}
