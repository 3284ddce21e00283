"""Turnout: a reverse proxy and load balancer with progressive delivery inside the proxy.

`Client` and `AsyncClient` talk to the API of one that runs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from turnout.control.client import AsyncClient, Client

__version__ = "0.1.0"
__all__ = ["AsyncClient", "Client", "__version__"]


def __getattr__(name: str) -> object:
    if name in {"AsyncClient", "Client"}:
        from turnout.control import client  # noqa: PLC0415 - workers need none

        return getattr(client, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
