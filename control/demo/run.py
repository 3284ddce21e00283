"""A demo from its start to its end."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import typer

from turnout.control.demo import shop, trading
from turnout.control.demo.places import Places, Sample, backends, file_of, free_ports
from turnout.control.serve import serve
from turnout.control.starter import Preset
from turnout.proxy.config import load

if TYPE_CHECKING:
    from turnout.proxy.supervisor import Supervisor

READY_POLL_S = 0.02
WELL_S = 15.0


async def until_served(supervisor: Supervisor) -> None:
    """Until it is ready and checks have found the backends well, or have had the time for it."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(WELL_S):
            while not (supervisor.ready() and all_are_up(supervisor)):
                await asyncio.sleep(READY_POLL_S)


def all_are_up(supervisor: Supervisor) -> bool:
    slots = (
        slot
        for name in supervisor.config.services
        for slot in supervisor.freezer.endpoint_slots(name).values()
    )
    return all(supervisor.scoreboard.endpoint(slot)["health"] == "up" for slot in slots)


class Show(Protocol):
    """What a demo shows: a module of this package."""

    SAMPLES: Sequence[Sample]
    PORTS: Mapping[str, int]  # what for -> the one to have when it is free; "api" is the control listener

    def configuration(self, places: Places) -> str: ...
    def what_to_try(self, places: Places) -> str: ...


def demo(seconds: float | None, preset: Preset | None = None) -> int:
    """Run until Ctrl-C, or for so long; returns the exit code. Raises StartError."""
    show: Show = shop if preset is None else trading
    with tempfile.TemporaryDirectory(prefix="turnout-demo-") as folder, backends(show.SAMPLES) as addresses:
        places = Places(Path(folder), free_ports(show.PORTS), addresses)
        file = file_of(places.folder)
        file.write_text(show.configuration(places))

        async def beside(supervisor: Supervisor) -> None:
            await until_served(supervisor)
            typer.echo(show.what_to_try(places))
            typer.echo("Ctrl-C ends it." if seconds is None else f"It ends after {seconds:g} seconds.")
            if seconds is not None:
                await asyncio.sleep(seconds)
                supervisor.stop()

        return serve(file, load(file), beside)
