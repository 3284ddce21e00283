"""A supervisor with its control listener, run to its end."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from pathlib import Path

import uvloop

from turnout.control.plane import Plane
from turnout.proxy import logs
from turnout.proxy.model import Config
from turnout.proxy.supervisor import Supervisor

Beside = Callable[[Supervisor], Awaitable[None]]
"""Runs in the supervisor's loop while that serves."""


def serve(file: Path, config: Config, beside: Beside | None = None) -> int:
    """Returns the exit code. Raises StartError before anything serves."""
    logs.configure("supervisor")
    return uvloop.run(_serve(Supervisor(file, config, control=Plane), beside))


async def _serve(supervisor: Supervisor, beside: Beside | None) -> int:
    task = asyncio.ensure_future(beside(supervisor)) if beside is not None else None
    try:
        return await supervisor.run()
    finally:
        if task is not None:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
