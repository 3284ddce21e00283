"""An API that is played by the test, and both clients behind one face."""

import asyncio
import contextlib
import http.server
import json
import socket
import socketserver
import threading
from dataclasses import dataclass, field

import pytest

from turnout import AsyncClient, Client


@dataclass
class Request:
    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self):
        return json.loads(self.body)


@dataclass
class Answer:
    body: object = None
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)


class Played:
    """Answers what `answer` says for "METHOD /path": an Answer, or a function of the Request that gives one;
    a list is used up one by one. `came` has all requests in their order.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.came: list[Request] = []
        self.answer: dict[str, object] = {}
        self.changed = threading.Condition()

    def take(self, request: Request) -> Answer:
        with self.changed:
            self.came.append(request)
            self.changed.notify_all()
            found = self.answer.get(f"{request.method} {request.path.partition('?')[0]}", Answer({}, 404))
            if isinstance(found, list):
                found = found.pop(0) if len(found) > 1 else found[0]
        return found(request) if callable(found) else found

    def until(self, holds) -> None:
        with self.changed:
            assert self.changed.wait_for(holds, 20)

    def asked(self, what: str = "") -> list[str]:
        lines = [f"{request.method} {request.path}" for request in self.came]
        return [line for line in lines if line.startswith(what)]


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: "Server"

    def do_any(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        answer = self.server.played.take(Request(self.command, self.path, dict(self.headers), body))
        content = answer.body if isinstance(answer.body, bytes) else json.dumps(answer.body).encode()
        self.send_response(answer.status)
        for name, value in ({"Content-Length": str(len(content))} | answer.headers).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_any

    def log_message(self, *_words) -> None:
        pass

    def address_string(self) -> str:
        return "test"


class Server(socketserver.ThreadingMixIn, socketserver.BaseServer):
    """On any listening socket."""

    daemon_threads = True

    def __init__(self, sock: socket.socket, url: str, context=None) -> None:
        self.socket = sock
        self.context = context
        self.played = Played(url)
        super().__init__(sock.getsockname(), Handler)

    def fileno(self) -> int:
        return self.socket.fileno()

    def get_request(self):
        to, where = self.socket.accept()
        to.settimeout(20)
        if self.context:  # the handshake is done by the thread that reads
            to = self.context.wrap_socket(to, server_side=True, do_handshake_on_connect=False)
        return to, where

    def finish_request(self, request, client_address) -> None:
        with contextlib.suppress(OSError):
            super().finish_request(request, client_address or ("unix", 0))

    def shutdown_request(self, request) -> None:
        request.close()

    def handle_error(self, *_where) -> None:
        pass


@pytest.fixture
def play():
    """Play an API on a listening socket."""
    servers: list[tuple[Server, threading.Thread]] = []

    def start(sock: socket.socket, url: str, context=None) -> Played:
        server = Server(sock, url, context)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        servers.append((server, thread))
        return server.played

    yield start
    for server, thread in servers:
        server.shutdown()
        thread.join()
        server.socket.close()


@pytest.fixture
def api(play) -> Played:
    sock = socket.create_server(("127.0.0.1", 0))
    return play(sock, f"http://127.0.0.1:{sock.getsockname()[1]}")


class InLoop:
    """An AsyncClient with the face of a Client: in a loop of its own, in a thread."""

    def __init__(self, *arguments, **options) -> None:
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever)
        self.thread.start()
        self.client = AsyncClient(*arguments, **options)

    def do(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(30)

    def __getattr__(self, name: str):
        return lambda *words, **options: self.do(getattr(self.client, name)(*words, **options))

    def registered(self, *words, **options):
        return Entered(self, self.client.registered(*words, **options))

    def events(self, *words, **options):
        events = self.client.events(*words, **options)

        async def following():
            return await anext(events)

        try:
            while True:
                yield self.do(following())
        finally:
            self.do(events.aclose())

    def close(self) -> None:
        self.do(self.client.close())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()


class Entered:
    def __init__(self, owner: InLoop, registration) -> None:
        self.owner = owner
        self.registration = registration

    def __enter__(self):
        return self.owner.do(self.registration.__aenter__())

    def __exit__(self, *what) -> None:
        self.owner.do(self.registration.__aexit__(*what))


@pytest.fixture(params=[Client, InLoop], ids=["sync", "async"])
def client_of(request, monkeypatch):
    """Make a client of either kind."""
    monkeypatch.delenv("TURNOUT_API", raising=False)
    monkeypatch.delenv("TURNOUT_TOKEN", raising=False)
    made = []

    def make(*arguments, **options):
        made.append(request.param(*arguments, **options))
        return made[-1]

    yield make
    for client in made:
        client.close()


@pytest.fixture
def client(client_of, api):
    return client_of(api.url)
