"""A supervisor with its control listener, run to its end."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import Awaitable, Callable
from pathlib import Path

import uvloop

from turnout.control.plane import Plane
from turnout.proxy import logs
from turnout.proxy.model import Config
from turnout.proxy.supervisor import Supervisor

GARBAGE = 20_000, 20, 20
"""Thresholds of the collector. What the supervisor has lives long; at Python's own thresholds it would be
looked through so often that the loop stood still for 0.4 s every few seconds with 5 000 checked endpoints.
"""
Beside = Callable[[Supervisor], Awaitable[None]]
"""Runs in the supervisor's loop while that serves."""


def serve(file: Path, config: Config, beside: Beside | None = None) -> int:
    """Returns the exit code. Raises StartError before anything serves."""
    logs.configure("supervisor")
    gc.set_threshold(*GARBAGE)
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
