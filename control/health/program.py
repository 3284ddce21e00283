"""exec: a program of this machine says how an endpoint is. Exit code 0: well, 1: degraded, other: down."""

from __future__ import annotations

import asyncio
import os
import signal

from turnout.control.health.check import Base
from turnout.control.health.outcome import Outcome, failed, passed
from turnout.control.health.target import Target
from turnout.control.health.tcp import SEEN

STARTS = 8
"""Programs at a time, over all endpoints: each costs a fork."""


class ExecCheck(Base):
    """No shell; a process group of its own, that is killed as a whole when it takes too long."""

    def __init__(self, target: Target, starts: asyncio.Semaphore) -> None:
        super().__init__(target)
        self._starts = starts
        place = {"address": target.key.address, "host": target.host or target.unix, "port": str(target.port)}
        self._argv = [_filled(argument, place) for argument in target.health.exec or ()]
        self._environment = {
            "TURNOUT_SERVICE": target.key.service,
            "TURNOUT_VERSION": target.version,
            **{f"TURNOUT_{key.upper()}": value for key, value in place.items()},
        }

    async def probe(self) -> Outcome:
        async with self._starts:
            return await self._run()

    async def _run(self) -> Outcome:
        try:
            process = await asyncio.create_subprocess_exec(
                *self._argv,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                env={**os.environ, **self._environment},
                start_new_session=True,
            )
        except OSError as error:
            return failed(f"{self._argv[0]} cannot be started: {(error.strerror or str(error)).lower()}")
        try:
            said = await _output(process)
            code = await process.wait()
        finally:
            _kill(process.pid)
            await process.wait()
        return _of_exit(code, said)

    def late(self, limit: str) -> Outcome:
        return failed(f"{self._argv[0]} did not end within {limit} and was killed")


def _filled(argument: str, place: dict[str, str]) -> str:
    for key, value in place.items():
        argument = argument.replace(f"{{{key}}}", value)
    return argument


async def _output(process: asyncio.subprocess.Process) -> str:
    """The first SEEN bytes; the rest is read and dropped, so that the program can end."""
    assert process.stdout is not None
    got = bytearray()
    while more := await process.stdout.read(SEEN):
        got += more[: SEEN - len(got)]
    return got.decode("utf-8", "replace").strip()


def _kill(group: int) -> None:
    """Whatever is left of it, children that it left behind included."""
    try:
        os.killpg(group, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return


def _of_exit(code: int, said: str) -> Outcome:
    last = said.splitlines()[-1][:200] if said else ""
    how = f"exit code {code}" if code >= 0 else f"ended by signal {-code}"
    reason = f"{how}: {last}" if last else how
    if code == 0:
        return passed(last or "exit code 0")
    return Outcome("degraded", reason) if code == 1 else failed(reason)
