"""The control side of a stand-in supervisor, on a port of its own, its loop in a thread of its own."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import socket
import threading
from collections.abc import Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from fakes.supervisor import StandIn

from turnout.control.access.gate import Gate
from turnout.control.access.roles import Role
from turnout.control.client import Client
from turnout.control.plane import Plane

ENDPOINTS = "/v1/services/app/endpoints"
REGISTERED = "10.1.0.1:80"


@dataclass
class Answer:
    status: int
    headers: http.client.HTTPMessage
    raw: bytes

    @property
    def body(self) -> Any:
        return json.loads(self.raw)


class Served:
    """`token` goes with each request that says nothing else. `path` is for a unix socket, not a port."""

    def __init__(self, supervisor: StandIn, *, auth: str = "none", path: Path | None = None) -> None:
        self.supervisor = supervisor
        self.path = path
        self.auth = auth
        self.token: str | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.start()

    def start(self) -> None:
        """Also again, after `stop_serving`: with what the store has kept."""
        if self.path is None:
            sock = socket.create_server(("127.0.0.1", 0))
            self.url = f"http://127.0.0.1:{sock.getsockname()[1]}"
        else:
            sock = socket.socket(socket.AF_UNIX)
            sock.bind(str(self.path))
            sock.listen()
            self.url = f"unix:{self.path}"
        self.api = Client(self.url)
        self.plane = Plane(self.supervisor)  # type: ignore[arg-type]
        self.supervisor.control = self.plane
        self.do(self._start(sock))

    async def _start(self, sock: socket.socket) -> None:
        await self.plane.prepare(self.supervisor.file_config)
        self.supervisor.config = self.plane.merge(self.supervisor.file_config)
        self.plane.gate = Gate(self.plane.tokens, auth=self.auth)
        await self.plane.start(sock)

    def do(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """In the loop of the control side."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(30)

    def stop_serving(self) -> None:
        self.do(self.plane.close())

    def stop(self) -> None:
        if not self._loop.is_closed():
            with contextlib.suppress(Exception):
                self.do(self.plane.close())
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    def make_token(self, role: str, *namespaces: str) -> str:
        """Its text."""
        name = f"{role} {' '.join(namespaces)}".replace("*", "everywhere").strip()
        made = self.plane.tokens.create(name, Role.named(role), namespaces=namespaces or ("*",), by="test")
        return str(self.do(made)[1])

    def call(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        """`body` other than bytes is sent as JSON; "_" in names of headers is "-"."""
        fields = {name.replace("_", "-"): value for name, value in headers.items()}
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
        if method in {"POST", "PUT", "PATCH"}:
            fields.setdefault("Content-Type", "application/json")
        if self.token is not None:
            fields.setdefault("Authorization", f"Bearer {self.token}")
        to = http.client.HTTPConnection(urlsplit(self.url).netloc, timeout=10)
        try:
            to.request(method, path, body, fields)
            answer = to.getresponse()
            return Answer(answer.status, answer.headers, answer.read())
        finally:
            to.close()

    def get(self, path: str, **headers: str) -> Answer:
        return self.call("GET", path, **headers)


def endpoint_path(service: str, address: str) -> str:
    return f"/v1/services/{quote(service)}/endpoints/{quote(address, safe='')}"
