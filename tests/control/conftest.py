"""A stand-in supervisor, its control listener in a thread of its own, and the commands."""

import asyncio
import socket
import threading

import pytest
from fakes.supervisor import StandIn
from harness.databases import cluster

from turnout.control import cli
from turnout.control.client import Api
from turnout.control.server import ControlServer


@pytest.fixture(scope="session")
def postgresql():
    """A cluster for all tests of a process."""
    with cluster() as found:
        yield found


@pytest.fixture(params=["sqlite", "postgresql"])
def store_url(request, tmp_path):
    """Of an empty database; tests that have it run once on each."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/control.db"
    found = request.getfixturevalue("postgresql")
    if found is None:
        pytest.skip("PostgreSQL is not installed (Debian: apt install postgresql)")
    return found.fresh()


@pytest.fixture
def supervisor():
    stand_in = StandIn()
    yield stand_in
    stand_in.close()


class Served:
    """A control listener on a port of its own."""

    def __init__(self, supervisor: StandIn, sock: socket.socket, url: str) -> None:
        self.supervisor = supervisor
        self.url = url
        self.api = Api(url)
        self._sock = sock
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.server = self._do(self._start())

    async def _start(self) -> ControlServer:
        server = ControlServer(self.supervisor)
        await server.start(self._sock)
        return server

    def _do(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(10)

    def stop(self) -> None:
        if not self._loop.is_closed():
            self._do(self.server.close())
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()


@pytest.fixture
def served(supervisor):
    sock = socket.create_server(("127.0.0.1", 0))
    out = Served(supervisor, sock, f"http://127.0.0.1:{sock.getsockname()[1]}")
    yield out
    out.stop()


@pytest.fixture
def turnout(monkeypatch, capsys):
    """Call `turnout` with arguments: exit code, stdout, stderr."""
    monkeypatch.delenv("TURNOUT_API", raising=False)

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["turnout", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), out, err

    return call
