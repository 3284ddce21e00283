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


def test_what_is_no_http_is_answered_and_not_quoted_in_the_log(served, caplog):
    address = urlsplit(served.url)
    with socket.create_connection((address.hostname, address.port), timeout=10) as to:
        to.sendall(b"GET /v1/status HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer s3cret\x01\r\n\r\n")
        assert to.recv(100).split()[1] == b"400"

    assert caplog.text == ""
