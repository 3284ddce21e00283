"""A client that says exactly what a test wants said."""

from __future__ import annotations

import socket
import ssl

from fakes.wire import PATIENCE, Response, Wire, request


class Client(Wire):
    def __init__(
        self,
        port: int,
        *,
        host: str = "127.0.0.1",
        source: str | None = None,
        receive_buffer: int | None = None,
        tls: ssl.SSLContext | None = None,
        name: str = "",
        session: ssl.SSLSession | None = None,
    ) -> None:
        """`tls`: over TLS, asking for `name` and resuming `session`."""
        sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        if receive_buffer is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        if source is not None:
            sock.bind((source, 0))
        sock.settimeout(PATIENCE)
        sock.connect((host, port))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if tls is not None:
            try:
                sock = tls.wrap_socket(
                    sock, server_hostname=name or None, session=session, suppress_ragged_eofs=False
                )
            except BaseException:
                sock.close()
                raise
        super().__init__(sock)

    def ask(self, *args: str, method: str = "GET", **more: object) -> Response:
        """Send one request (arguments of `wire.request`) and read its answer."""
        self.send(request(*args, method=method, **more))  # type: ignore[arg-type]
        return self.answer(method)

    def answer(self, method: str = "GET") -> Response:
        """Interim answers and the final one with its body."""
        out = self.answer_head()
        if method != "HEAD" and out.status not in (204, 304):
            self.body(out, to_the_end=True)
        return out

    def answer_head(self) -> Response:
        """Interim answers and the head of the final one."""
        interim: list[Response] = []
        while True:
            out = Response(*self.head())
            if out.status >= 200:
                out.interim = list(interim)
                return out
            interim.append(out)

    def interim(self) -> Response:
        """One interim answer."""
        out = Response(*self.head())
        assert 100 <= out.status < 200
        return out
