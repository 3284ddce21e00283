"""HTTP upgrades, byte by byte: what is asked for, what is granted, and the tunnel between."""

import pytest
from fakes.documents import retry
from fakes.engine_process import Proxy, eventually
from fakes.origin import Origin
from fakes.wire import request, response

ASK = ("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Key: abc", "Sec-WebSocket-Version: 13")
GRANT = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: x\r\n\r\n"
)
NO_RETRY = retry(attempts=0, on=[])


def upgraded(proxy, origin, *fields, **more):
    """A client and an endpoint with a tunnel between them."""
    client = proxy.client()
    client.send(request("/chat?room=1", *(fields or ASK), **more))
    upstream = origin.accept()
    asked = upstream.request_head()
    upstream.send(GRANT)
    answer = client.interim()
    assert answer.line == "HTTP/1.1 101 Switching Protocols"
    return client, upstream, asked, answer


def test_an_upgrade_is_asked_for_and_granted_with_the_fields_of_both_ends(proxy, origin):
    proxy.serve(origin)
    client, upstream, asked, answer = upgraded(proxy, origin)
    assert asked.get("connection").lower() == "upgrade"
    assert (asked.get("upgrade"), asked.get("sec-websocket-key")) == ("websocket", "abc")
    assert (answer.get("connection").lower(), answer.get("upgrade")) == ("upgrade", "websocket")
    assert answer.get("sec-websocket-accept") == "x"
    client.send(b"\x81\x85....hello")
    assert upstream.exactly(11) == b"\x81\x85....hello"
    upstream.send(b"\x81\x05hello")
    assert client.exactly(7) == b"\x81\x05hello"


def test_what_the_endpoint_sends_with_its_101_arrives_behind_it(proxy, origin):
    proxy.serve(origin)
    client = proxy.client()
    client.send(request("/", *ASK))
    upstream = origin.accept()
    upstream.request_head()
    upstream.send(GRANT + b"early")
    client.interim()
    assert client.exactly(5) == b"early"


def test_what_the_client_sends_before_the_101_is_held_back_until_then(proxy, origin):
    proxy.serve(origin)
    client = proxy.client()
    client.send(request("/", *ASK) + b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n")
    upstream = origin.accept()
    upstream.request_head()
    client.send(b"and more")
    assert upstream.silent()
    upstream.send(GRANT)
    client.interim()
    assert upstream.exactly(43) == b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\nand more"


def test_an_endpoint_that_grants_nothing_answers_as_ever(proxy, origin):
    proxy.serve(origin)
    client = proxy.client()
    client.send(request("/", *ASK) + request("/next"))
    upstream = origin.accept()
    upstream.request_head()
    upstream.send(response(426, "Upgrade: other", body=b"no"))
    answer = client.answer()
    assert (answer.status, answer.body) == (426, b"no")
    assert upstream.request().target == "/next"
    upstream.send(response(200, body=b"ok"))
    assert client.answer().body == b"ok"


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
    ],
)
def test_a_101_that_nobody_asked_for_is_no_answer(proxy, origin, answer):
    proxy.serve(origin, service={"retry": NO_RETRY})
    client = proxy.client()
    client.send(request("/"))
    upstream = origin.accept()
    upstream.request_head()
    upstream.send(answer + b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    assert client.answer().status == 502


@pytest.mark.parametrize(
    "answer",
    [
        GRANT.replace(b"websocket", b"other"),
        GRANT.replace(b"websocket", b"websocket, other"),
        GRANT.replace(b"Upgrade: websocket\r\n", b""),
        GRANT.replace(b"Connection: Upgrade\r\n", b""),
    ],
)
def test_a_101_for_another_protocol_than_the_one_asked_for_is_no_answer(proxy, origin, answer):
    proxy.serve(origin, service={"retry": NO_RETRY})
    client = proxy.client()
    client.send(request("/", *ASK))
    upstream = origin.accept()
    upstream.request_head()
    upstream.send(answer)
    assert client.answer().status == 502


@pytest.mark.parametrize(
    ("fields", "route"),
    [
        (("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: x"), {}),
        (("Connection: Upgrade", "Upgrade: TLS/1.0"), {}),
        (("Connection: Upgrade", "Upgrade: websocket, h2c"), {}),
        (("Upgrade: websocket",), {}),
        (("Connection: Upgrade",), {}),
        (ASK, {"upgrades": []}),
        (ASK, {"upgrades": ["other"]}),
    ],
)
def test_an_upgrade_that_the_route_does_not_pass_on_is_asked_of_nobody(proxy, origin, fields, route):
    proxy.serve(origin, route=route)
    client = proxy.client()
    client.send(request("/", *fields))
    upstream = origin.accept()
    asked = upstream.request()
    assert not {"upgrade", "connection", "http2-settings"} & set(asked.names)
    upstream.send(response(200, body=b"plain"))
    assert client.answer().body == b"plain"


@pytest.mark.parametrize("body", [b"body", b""])
def test_an_upgrade_with_a_body_is_served_as_a_plain_request(proxy, origin, body):
    proxy.serve(origin)
    client = proxy.client()
    client.send(request("/", *ASK, method="POST", body=body))
    upstream = origin.accept()
    asked = upstream.request()
    assert asked.body == body
    assert (asked.get("upgrade") is None) == bool(body)
    upstream.send(response(200, body=b"plain"))
    assert client.answer().body == b"plain"


def test_an_upgrade_with_a_body_that_comes_later_is_served_as_a_plain_request(proxy, origin):
    proxy.serve(origin)
    client = proxy.client()
    client.send(request("/", *ASK, "Transfer-Encoding: chunked", method="POST"))
    upstream = origin.accept()
    assert upstream.request_head().get("upgrade") is None
    client.send(b"2\r\nok\r\n0\r\n\r\n")
    assert upstream.chunked() == (b"ok", [])
    upstream.send(response(200, body=b"plain"))
    assert client.answer().body == b"plain"


def test_an_http_1_0_client_upgrades_nothing(proxy, origin):
    proxy.serve(origin)
    client = proxy.client()
    client.send(request("/", *ASK, version="1.0"))
    upstream = origin.accept()
    assert upstream.request().get("upgrade") is None
    upstream.send(response(200, body=b"plain"))
    assert client.answer().body == b"plain"


def test_protocols_are_compared_without_case(proxy, origin):
    proxy.serve(origin, route={"upgrades": ["websocket", "acme/2"]})
    client = proxy.client()
    client.send(request("/", "Connection: upgrade", "Upgrade: ACME/2"))
    upstream = origin.accept()
    assert upstream.request_head().get("upgrade") == "ACME/2"
    upstream.send(GRANT.replace(b"websocket", b"acme/2"))
    assert client.interim().get("upgrade") == "acme/2"


def test_each_end_of_an_upgraded_connection_closes_on_its_own(proxy, origin):
    proxy.serve(origin)
    client, upstream, _, _ = upgraded(proxy, origin)
    client.finish()
    assert upstream.at_end()
    upstream.send(b"last words")
    upstream.finish()
    assert client.rest() == b"last words"


def test_an_upgraded_connection_is_logged_as_the_request_it_was(proxy, origin):
    served = proxy.serve(origin)
    client, upstream, _, _ = upgraded(proxy, origin)
    assert proxy.board.endpoint(served.slot())["inflight"] == 1
    assert proxy.listener()["tunnels"] == 1
    client.send(b"12345")
    assert upstream.exactly(5) == b"12345"
    upstream.send(b"123")
    assert client.exactly(3) == b"123"
    upstream.finish()
    client.finish()
    assert client.at_end()
    record = proxy.record()
    assert (record["method"], record["host"], record["path"], record["query"]) == (
        "GET",
        "test",
        "/chat",
        "room=1",
    )
    assert (record["status"], record["cause"]) == (101, "none")
    assert record["reason"].startswith("closed by the ")
    assert record["bytes_in"] > 5
    assert served.endpoint()["outcomes"]["1xx"] == 1
    assert eventually(lambda: proxy.listener()["tunnels"] == 0)


def test_an_idle_upgraded_connection_ends_after_its_own_idle_time(proxy, origin):
    proxy.serve(origin, service={"tunnel_ms": 80, "idle_ms": 10, "response_ms": 10_000})
    client, upstream, _, _ = upgraded(proxy, origin)
    assert client.silent(0.04)
    client.send(b"x")
    assert upstream.exactly(1) == b"x"
    assert client.at_end()
    assert upstream.ended()
    assert proxy.record()["cause"] == "timeout"


def test_an_upgraded_connection_stands_through_reloads_and_keeps_no_snapshot_alive(proxy, origin):
    proxy.serve(origin)
    client, upstream, _, _ = upgraded(proxy, origin)
    for _ in range(20):
        proxy.again()
        client.send(b"x")
        assert upstream.exactly(1) == b"x"
    assert proxy.snapshots() == 1


def test_a_reload_without_its_route_ends_an_upgraded_connection_and_leaves_others(proxy, origin):
    proxy.serve_many({"app": ([origin], {"tunnel_drain_ms": 40})}, [{"path": "/a"}, {"path": "/b"}])
    both = []
    for path in ("/a", "/b"):
        client = proxy.client()
        client.send(request(path, *ASK))
        upstream = origin.accept()
        upstream.request_head()
        upstream.send(GRANT)
        client.interim()
        both.append((client, upstream))
    document = proxy.document
    proxy.load({**document, "version": next(proxy.versions), "routes": document["routes"][1:]})
    assert both[0][0].at_end()
    assert both[0][1].ended()
    both[1][0].send(b"still here")
    assert both[1][1].exactly(10) == b"still here"


def test_an_upgrade_during_a_drain_is_closed_with_the_others():
    with Proxy() as proxy, Origin() as origin:
        proxy.serve(origin, service={"tunnel_drain_ms": 60})
        early = upgraded(proxy, origin)
        late = proxy.client()
        late.send(request("/", *ASK))
        upstream = origin.accept()
        upstream.request_head()
        proxy.drain()
        upstream.send(GRANT)
        late.interim()
        assert late.at_end()
        assert early[0].at_end()
        proxy.rest()


def test_an_abort_resets_upgraded_connections():
    with Proxy() as proxy, Origin() as origin:
        proxy.serve(origin)
        client, upstream, _, _ = upgraded(proxy, origin)
        assert proxy.workers[0].ask("abort") == 1
        assert client.was_reset()
        assert upstream.is_cut()
        assert proxy.record()["reason"] == "the proxy is stopping"
        proxy.rest()
