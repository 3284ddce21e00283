"""`turnout demo`: a proxy in front of three sample backends, all on this machine and gone afterwards."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from turnout.control.serve import serve
from turnout.proxy.config import load

if TYPE_CHECKING:
    from turnout.proxy.supervisor import Supervisor

HOST = "127.0.0.1"
WEB_PORT, API_PORT = 8080, 9900
"""Taken when they are free."""
BACKENDS = (("ada", "v1"), ("ben", "v1"), ("cleo", "v2"))
READY_POLL_S = 0.02
END_S = 5.0

CONFIGURATION = """\
[proxy]
workers = 2
grace = "5s"
state = "{state}"

[control]
listen = "{api}"

[listeners.web]
bind = "{web}"

[services.shop]
balance = "least_connections"
endpoints = [
{endpoints}
]
split = {{ v1 = 80, v2 = 20 }}
sticky = {{ cookie = "turnout", ttl = "10m" }}
breaker = {{ failures = 5, open = "10s" }}

[[routes]]
path = "/"
service = "shop"
"""

TEXT = """
Turnout stands on http://{web} in front of three backends: {backends}.
New sessions go to v1 and v2 as 80 to 20; a cookie keeps each where it began. Things to try:

  # Who answers? Again and again: 80 to 20. With the cookie: always the same one.
  curl http://{web}/
  curl -c jar -b jar http://{web}/

  # Move traffic; take an endpoint out of it and back.
  turnout split shop v1=50 v2=50{api}
  turnout drain shop/{first}{api}
  turnout ready shop/{first}{api}

  # See it happen: something slow, a stream, and failures until a circuit breaker opens.
  turnout status --watch{api}
  curl "http://{web}/slow?ms=3000"
  curl -N http://{web}/events
  for i in $(seq 20); do curl http://{web}/fail; done

  # For Prometheus. And after a change of {file}:
  curl http://{listen}/metrics
  turnout reload{api}

{end}
"""


def demo(seconds: float | None) -> int:
    """Run until Ctrl-C, or for so long; returns the exit code. Raises StartError."""
    with tempfile.TemporaryDirectory(prefix="turnout-demo-") as folder, backends() as addresses:
        places = Places(
            Path(folder), f"{HOST}:{free_port(WEB_PORT)}", f"{HOST}:{free_port(API_PORT)}", addresses
        )
        places.file.write_text(places.configuration())

        async def beside(supervisor: Supervisor) -> None:
            while not supervisor.ready():
                await asyncio.sleep(READY_POLL_S)
            typer.echo(places.what_to_try(seconds))
            if seconds is not None:
                await asyncio.sleep(seconds)
                supervisor.stop()

        return serve(places.file, load(places.file), beside)


class Places:
    """Where everything of a demo is."""

    def __init__(self, folder: Path, web: str, api: str, backends: list[str]) -> None:
        self.folder = folder
        self.file = folder / "turnout.toml"
        self.web = web
        self.api = api
        self.backends = backends

    def configuration(self) -> str:
        endpoints = "\n".join(
            f'  {{ address = "{address}", version = "{version}" }},'
            for address, (_, version) in zip(self.backends, BACKENDS, strict=True)
        )
        return CONFIGURATION.format(
            state=self.folder / "state", api=self.api, web=self.web, endpoints=endpoints
        )

    def what_to_try(self, seconds: float | None) -> str:
        named = (
            f"{name} ({version}, {address})"
            for address, (name, version) in zip(self.backends, BACKENDS, strict=True)
        )
        standard = self.api == f"{HOST}:{API_PORT}"
        return TEXT.format(
            web=self.web,
            backends=", ".join(named),
            api="" if standard else f" --api http://{self.api}",
            listen=self.api,
            first=self.backends[0],
            file=self.file,
            end="Ctrl-C ends it." if seconds is None else f"It ends after {seconds:g} seconds.",
        )


def free_port(preferred: int) -> int:
    """That one, or one that the kernel picks."""
    for port in (preferred, 0):
        with contextlib.suppress(OSError), socket.create_server((HOST, port)) as sock:
            return int(sock.getsockname()[1])
    raise OSError(f"no free port on {HOST}")


@contextlib.contextmanager
def backends() -> Iterator[list[str]]:
    """The sample backends in a process of their own; their addresses, in the order of BACKENDS."""
    sockets = [socket.create_server((HOST, 0)) for _ in BACKENDS]
    words = [
        f"{sock.fileno()}:{name}:{version}" for sock, (name, version) in zip(sockets, BACKENDS, strict=True)
    ]
    process = subprocess.Popen(
        [sys.executable, "-m", "turnout.control.sample", *words],
        stdin=subprocess.PIPE,
        pass_fds=[sock.fileno() for sock in sockets],
    )
    try:
        addresses = [f"{HOST}:{sock.getsockname()[1]}" for sock in sockets]
        for sock in sockets:
            sock.close()
        yield addresses
    finally:
        if process.stdin is not None:
            process.stdin.close()
        try:
            process.wait(END_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
