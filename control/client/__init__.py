"""A client of the API of a running proxy, for scripts and for services that register themselves:

    from turnout import Client

    client = Client()
    with client.registered("orders", "10.0.0.1:8000", version="v2", ttl=15):
        serve()

`AsyncClient` has the same methods, to be awaited. Errors: control/client/errors.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from turnout.control.client.errors import (
    BadUrlError,
    ChangedError,
    ClientError,
    ForbiddenError,
    GoneError,
    LimitedError,
    NobodyAnswersError,
    NotFoundError,
    RefusedError,
    UnauthorizedError,
)
from turnout.control.client.place import Tls
from turnout.control.client.sync import Client

if TYPE_CHECKING:
    from turnout.control.client.aio import AsyncClient

__all__ = [
    "AsyncClient",
    "BadUrlError",
    "ChangedError",
    "Client",
    "ClientError",
    "ForbiddenError",
    "GoneError",
    "LimitedError",
    "NobodyAnswersError",
    "NotFoundError",
    "RefusedError",
    "Tls",
    "UnauthorizedError",
]


def __getattr__(name: str) -> object:
    if name == "AsyncClient":
        from turnout.control.client.aio import AsyncClient  # noqa: PLC0415 - aiohttp only for those who use it

        return AsyncClient
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
