"""Where everything of a demo is: its folder, its ports, its sample backends in a process of their own."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from turnout.control import discover
from turnout.proxy.runtimedir import candidates

HOST = "127.0.0.1"
END_S = 5.0


@dataclass(frozen=True)
class Sample:
    """A backend; `kind` is one of sample.KINDS."""

    name: str
    version: str = "v1"
    kind: str = "http"


@dataclass(frozen=True)
class Places:
    folder: Path
    ports: Mapping[str, str]  # what for -> host:port; "api" is the control listener
    backends: Sequence[str]  # host:port of each Sample, in their order

    @property
    def option(self) -> str:
        """What a command needs to find this demo while it runs, with a blank before it."""
        live = discover.find().live
        ours = [path for path in live if path in map(Path.resolve, candidates(file_of(self.folder)))]
        if len(live) == 1 and ours:
            return ""
        return f" --api unix:{ours[0]}" if ours else f" --api http://{self.ports['api']}"


def file_of(folder: Path) -> Path:
    return folder / "turnout.toml"


def free_ports(preferred: Mapping[str, int]) -> dict[str, str]:
    """Those, or where one is taken another that the kernel picks; all of them different."""
    with contextlib.ExitStack() as taken:
        return {name: taken.enter_context(_free_port(port)) for name, port in preferred.items()}


@contextlib.contextmanager
def _free_port(preferred: int) -> Iterator[str]:
    for port in (preferred, 0):
        with contextlib.suppress(OSError):
            sock = socket.create_server((HOST, port))
            break
    else:
        raise OSError(f"no free port on {HOST}")
    with sock:
        yield f"{HOST}:{sock.getsockname()[1]}"


@contextlib.contextmanager
def backends(samples: Sequence[Sample]) -> Iterator[list[str]]:
    """The sample backends; their addresses, in the same order."""
    sockets = [socket.create_server((HOST, 0)) for _ in samples]
    words = [
        f"{sample.kind}:{sock.fileno()}:{sample.name}:{sample.version}"
        for sock, sample in zip(sockets, samples, strict=True)
    ]
    process = subprocess.Popen(
        [sys.executable, "-m", "turnout.control.demo.sample", *words],
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
