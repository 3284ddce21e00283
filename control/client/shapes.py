"""What the API gives, for type checkers. Times are Unix epoch in seconds unless said otherwise. An API that
is newer than this client may give more.
"""

from __future__ import annotations

from typing import Any, Literal, TypedDict

Admin = Literal["ready", "drain", "maint"]


class Applied(TypedDict, total=False):
    """A change that is in force at every worker, with the configuration `snapshot`."""

    revision: int
    snapshot: int


class Lease(TypedDict):
    expires: float


class Event(TypedDict):
    revision: int
    time: float
    kind: str
    service: str | None
    address: str | None
    by: str
    data: dict[str, Any]
