"""UDP ends for tests: clients, and servers that answer in a thread."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

from fakes.wire import PATIENCE

Answer = Callable[[bytes], "list[bytes]"]


class Talker:
    """A client's socket. `ask` sends and waits for one answer."""

    def __init__(self, port: int, *, source: str = "127.0.0.1", to: str = "127.0.0.1") -> None:
        self.sock = socket.socket(socket.AF_INET6 if ":" in to else socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.bind((source, 0))
        self.sock.settimeout(PATIENCE)
        self.peer = (to, port)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self.sock.close()

    def send(self, data: bytes) -> None:
        self.sock.sendto(data, self.peer)

    def receive(self) -> bytes:
        """The next answer, which must come from where the questions go."""
        data, peer = self.sock.recvfrom(65536)
        assert peer[:2] == self.peer
        return data

    def ask(self, data: bytes) -> bytes:
        self.send(data)
        return self.receive()


class Echo:
    """A server that says its name and what it got; `answer` makes other answers of a datagram."""

    def __init__(self, answer: Answer | None = None, *, host: str = "127.0.0.1") -> None:
        self.answer = answer or (lambda data: [data])
        self.sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        self.sock.bind((host, 0))
        port = self.sock.getsockname()[1]
        self.address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self.got: list[bytes] = []
        self.peers: list[tuple[str, int]] = []
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)
        self.thread.join(PATIENCE)
        self.sock.close()

    def _serve(self) -> None:
        while True:
            try:
                data, peer = self.sock.recvfrom(65536)
            except OSError:
                return
            if not peer or not peer[1]:  # shut down
                return
            self.got.append(data)
            self.peers.append(peer[:2])
            for out in self.answer(data):
                self.sock.sendto(out, peer)
