"""The proxy as its users run it: `python -m turnout run FILE` in a process of its own."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import functools
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import psutil
from harness.client import until

RUN = (sys.executable, "-m", "turnout", "run")


def free_port() -> int:
    """A port that is kept, at every address, from everybody who does not ask for just this one, outgoing
    connections included: a socket that does not listen stays bound to it.
    """
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    sock.bind(("", 0))
    atexit.register(sock.close)
    return sock.getsockname()[1]


def listens(pid: int) -> bool:
    """Whether a process still has a listening TCP socket."""
    with contextlib.suppress(psutil.Error):
        connections = psutil.Process(pid).net_connections("tcp")
        return any(connection.status == psutil.CONN_LISTEN for connection in connections)
    return False


def config(
    port: int,
    origin: str,
    *,
    workers: int = 2,
    grace: str = "5s",
    control: int = 0,
    access: str = 'auth = "none"\nsocket = "off"\nwatch = false',
    more: str = "",
) -> str:
    return f"""
[proxy]
workers = {workers}
grace = "{grace}"
state = "state"
[control]
listen = "127.0.0.1:{control or free_port()}"
{access}
[listeners.web]
bind = "127.0.0.1:{port}"
[services.app]
endpoints = ["{origin}"]
[[routes]]
service = "app"
{more}
"""


class Turnout:
    """One run of a configuration file. `lines` is what it, its workers and its heirs have said."""

    def __init__(self, file: Path, **options: object) -> None:
        self.file = file
        self.lines: list[str] = []
        self.options = options
        self.child: asyncio.subprocess.Process | None = None  # the one started last
        self.started: list[tuple[asyncio.subprocess.Process, asyncio.Task[None]]] = []

    async def start(self, command: Sequence[str] = RUN) -> None:
        self.child = await asyncio.create_subprocess_exec(
            *command, str(self.file), stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, **self.options
        )
        self.started.append((self.child, asyncio.create_task(self._read(self.child))))

    async def _read(self, child: asyncio.subprocess.Process) -> None:
        assert child.stderr
        async for line in child.stderr:
            self.lines.append(line.decode().rstrip())

    def said(self, text: str) -> list[str]:
        return [line for line in self.lines if text in line]

    async def serving(self, times: int = 1) -> None:
        """Wait until that has been said so many times, heirs and later starts included."""
        await until(lambda: len(self.said(" serving file=")) >= times or self.failed)
        assert len(self.said(" serving file=")) >= times, self.text

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    @property
    def failed(self) -> bool:
        return self.child is not None and self.child.returncode not in {None, 0}

    async def exit_code(self) -> int:
        """Of the process that was started. `wait` would wait for heirs and orphans too, which hold stderr."""
        assert self.child
        child = self.child
        await until(lambda: child.returncode is not None)
        assert child.returncode is not None
        return child.returncode

    async def kill_supervisor(self) -> None:
        os.kill(self.supervisor, signal.SIGKILL)
        await self.exit_code()

    def signal(self, number: signal.Signals) -> None:
        """To the supervisor in charge."""
        os.kill(self.supervisor, number)

    @property
    def run(self) -> dict:
        (path,) = self.file.parent.glob("state/*/run.json")
        return json.loads(path.read_text())

    @property
    def supervisor(self) -> int:
        return self.run["supervisor"]["pid"]

    @property
    def workers(self) -> list[int]:
        return [process["pid"] for process, _ in self.run["workers"]]

    def processes(self) -> list[psutil.Process]:
        """All that belong to this file: supervisors by their command, workers by their run files."""
        found = []
        for process in psutil.process_iter(["cmdline", "environ"]):
            environ = process.info["environ"] or {}
            if environ.get("TURNOUT_TEST") == str(self.file) and process.pid != os.getpid():
                found.append(process)
        return found

    async def reload(self) -> None:
        """SIGHUP, and wait for its outcome."""
        before = len(self.said(" reload"))
        self.signal(signal.SIGHUP)
        await until(lambda: len(self.said(" reload")) > before)

    async def stop(self) -> int:
        self.signal(signal.SIGTERM)
        return await self.exit_code()

    async def clean_up(self) -> None:
        """Nothing of this run is left."""
        for process in self.processes():
            with contextlib.suppress(psutil.Error):
                process.kill()
        for child, reading in self.started:
            await asyncio.wait_for(asyncio.gather(child.wait(), reading), 10)


@contextlib.asynccontextmanager
async def turnout(folder: Path, text: str, **environment: str) -> AsyncIterator[Turnout]:
    """Started and serving; whatever is left at the end is killed. A unix socket is in the folder too."""
    file = folder / "turnout.toml"
    file.write_text(text)
    own = {"TURNOUT_TEST": str(file), "RUNTIME_DIRECTORY": str(folder)}
    proxy = Turnout(file, env={**os.environ, **own, **environment})
    try:
        await proxy.start()
        await proxy.serving()
        yield proxy
    finally:
        await proxy.clean_up()
        print(proxy.text)
    assert not proxy.said("ended badly"), proxy.text
    assert not proxy.said(" critical "), proxy.text


def scenario(test):
    """A test that is a coroutine."""

    @functools.wraps(test)
    def run(*args, **kwargs):
        asyncio.run(test(*args, **kwargs))

    return run
