"""How many connections the API takes at a time."""

import socket
from urllib.parse import urlsplit

from harness.client import until

from turnout.control.api import site


def test_a_connection_too_many_is_closed_and_one_that_goes_makes_room(served, monkeypatch):
    monkeypatch.setattr(site, "CONNECTIONS_MAX", 2)
    address = urlsplit(served.url)
    held = [socket.create_connection((address.hostname, address.port)) for _ in range(2)]
    server = served.plane._running[-1]._runner.server
    served.do(until(lambda: len(server.connections) == 2))

    with socket.create_connection((address.hostname, address.port), timeout=10) as extra:
        assert extra.recv(1) == b""

    held.pop().close()
    served.do(until(lambda: len(server.connections) == 1))
    assert served.get("/healthz").status == 200
    held.pop().close()
