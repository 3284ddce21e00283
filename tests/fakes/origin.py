"""An origin server that does exactly what a test wants done.

By hand: the test accepts a connection and plays the server itself, line by line, so that the order of events
is the test's own. By itself: `Origin(handler)` serves every connection in a thread.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

from fakes.wire import PATIENCE, Closed, Request, Wire, response

Handler = Callable[["Upstream"], None]


class Upstream(Wire):
    """The origin's end of a connection from the proxy."""

    def request(self) -> Request:
        """The next request with its body."""
        out = self.request_head()
        self.body(out, to_the_end=False)
        return out

    def request_head(self) -> Request:
        return Request(*self.head())

    def ended(self) -> bool:
        """Whether the proxy has closed, in whatever way. Waits for it."""
        return self.is_cut()


class Origin:
    def __init__(
        self,
        handler: Handler | None = None,
        *,
        backlog: int = 128,
        receive_buffer: int | None = None,
        path: str | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.tls = tls
        self.handler = handler
        self.family = socket.AF_UNIX if path else socket.AF_INET
        self.listener = socket.socket(self.family)
        if receive_buffer is not None:
            self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.listener.bind(path or ("127.0.0.1", 0))
        self.listener.listen(backlog)
        self.listener.settimeout(PATIENCE)
        self.address = f"unix:{path}" if path else f"127.0.0.1:{self.listener.getsockname()[1]}"
        self.connections: list[Upstream] = []
        self.requests: list[Request] = []
        self.failures: list[BaseException] = []
        self.open = True
        if handler is not None:
            threading.Thread(target=self._serve, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
        if kind is None and self.failures:
            raise self.failures[0]

    def accept(self) -> Upstream:
        """The next connection of the proxy."""
        sock, _ = self.listener.accept()
        if self.family != socket.AF_UNIX:
            with contextlib.suppress(OSError):  # it may be gone already
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self.tls is not None:  # the first read makes the handshake
            sock = self.tls.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
        conn = Upstream(sock)
        self.connections.append(conn)
        return conn

    def asked(self) -> bool:
        """Whether a connection waits to be accepted."""
        self.listener.settimeout(0.05)
        try:
            self.accept()
        except TimeoutError:
            return False
        finally:
            self.listener.settimeout(PATIENCE)
        return True

    def close(self) -> None:
        """Refuse from now on, and end what is open."""
        self.open = False
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for conn in self.connections:
            with contextlib.suppress(OSError):
                conn.sock.shutdown(socket.SHUT_RDWR)
            conn.close()

    def _serve(self) -> None:
        while self.open:
            try:
                conn = self.accept()
            except TimeoutError:
                continue
            except OSError:
                return
            threading.Thread(target=self._connection, args=(conn,), daemon=True).start()

    def _connection(self, conn: Upstream) -> None:
        assert self.handler is not None
        try:
            conn.sock.settimeout(60)
            self.handler(conn)
        except (Closed, OSError):
            pass
        except BaseException as error:  # the test must fail, not the thread alone
            if self.open:
                self.failures.append(error)
        finally:
            conn.close()


def answering(
    body: bytes | str = b"hello", *fields: str, status: int = 200, log: list[Request] | None = None
) -> Handler:
    """A handler that gives every request the same answer."""
    whole = response(status, *fields, body=body.encode() if isinstance(body, str) else body)

    def handle(conn: Upstream) -> None:
        while True:
            asked = conn.request()
            if log is not None:
                log.append(asked)
            conn.send(whole if asked.method != "HEAD" else whole.split(b"\r\n\r\n")[0] + b"\r\n\r\n")

    return handle


class Refusing:
    """An address at which nobody listens, kept so."""

    def __init__(self) -> None:
        self.sock = socket.socket()
        self.sock.bind(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self.sock.getsockname()[1]}"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.sock.close()


class Blackhole:
    """An address that never answers a SYN: its accept queue is full and stays so."""

    def __init__(self) -> None:
        self.listener = socket.socket()
        self.listener.bind(("127.0.0.1", 0))
        self.listener.listen(0)
        self.address = f"127.0.0.1:{self.listener.getsockname()[1]}"
        self.fillers: list[socket.socket] = []
        while self._fill():
            pass

    def _fill(self) -> bool:
        sock = socket.socket()
        sock.settimeout(0.1)
        self.fillers.append(sock)
        try:
            sock.connect(self.listener.getsockname())
        except TimeoutError:
            return False
        return True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for sock in [self.listener, *self.fillers]:
            sock.close()


SERVER = """
import socket, sys
listener = socket.socket(fileno=int(sys.argv[1]))
kept = []
while True:
    sock, _ = listener.accept()
    kept.append(sock)
    data = b""
    while True:
        while b"\\r\\n\\r\\n" not in data:
            got = sock.recv(65536)
            if not got:
                break
            data += got
        else:
            data = data.split(b"\\r\\n\\r\\n", 1)[1]
            sock.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\n\\r\\nok")
            continue
        break
"""


class OriginProcess:
    """An origin in a process of its own, to be stopped and killed. One connection at a time."""

    def __init__(self) -> None:
        self.listener = socket.socket()
        self.listener.bind(("127.0.0.1", 0))
        self.listener.listen(16)
        self.address = f"127.0.0.1:{self.listener.getsockname()[1]}"
        fd = self.listener.fileno()
        self.process = subprocess.Popen([sys.executable, "-c", SERVER, str(fd)], pass_fds=[fd])
        self.listener.close()

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.process.pid, number)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.kill()
        self.process.wait()
