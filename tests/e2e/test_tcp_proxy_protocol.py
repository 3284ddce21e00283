"""PROXY headers: from a proxy in front, and to endpoints behind."""

import socket

import pytest
from fakes.documents import sticky
from fakes.engine_process import eventually
from fakes.origin import Origin, Refusing, answering
from fakes.wire import request, response

from turnout.ext.proxyproto import _write

TRUSTED = {"proxied": True, "trusted": ["127.0.0.1/32"]}
HTTP = TRUSTED
TCP = TRUSTED | {"protocol": "tcp"}
OUTSIDER = "127.0.0.9"
V1 = b"PROXY TCP4 203.0.113.7 192.0.2.1 56324 443\r\n"
MAPPED = b"\0" * 10 + b"\xff\xff"
V2 = _write(2, (MAPPED + bytes([203, 0, 113, 7]), 56324, MAPPED + bytes([192, 0, 2, 1]), 443))
LOCAL = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0"
headers = pytest.mark.parametrize("header", [V1, V2], ids=["v1", "v2"])


def echo(conn):
    while data := conn.more():
        conn.send(data)
    conn.finish()


# ---- in --------------------------------------------------------------------------------------------------


@headers
def test_a_request_is_its_clients_whom_the_proxy_in_front_names(proxy, origin, header):
    proxy.serve(origin, listener=HTTP)
    client = proxy.client()
    client.send(header + request("/"))
    upstream = origin.accept()
    assert upstream.request().get("x-forwarded-for") == "203.0.113.7"
    upstream.send(response())
    assert client.answer().status == 200
    assert proxy.record()["client"] == "203.0.113.7"
    client.send(request("/next"))
    assert upstream.request().get("x-forwarded-for") == "203.0.113.7"
    upstream.send(response())
    assert client.answer().status == 200


def test_what_the_named_client_says_of_itself_is_not_believed(proxy, origin):
    proxy.serve(origin, listener=HTTP)
    client = proxy.client()
    client.send(V1 + request("/", "X-Forwarded-For: 10.9.9.9"))
    assert origin.accept().request().get("x-forwarded-for") == "203.0.113.7"


@headers
def test_a_connections_bytes_start_behind_the_header(proxy, origin, header):
    proxy.serve(origin, listener=TCP)
    client = proxy.client()
    client.send(header + b"hello")
    upstream = origin.accept()
    assert upstream.exactly(5) == b"hello"
    client.finish()
    upstream.finish()
    assert client.at_end()
    record = proxy.record()
    assert (record["client"], record["bytes_in"]) == ("203.0.113.7", 5)


@headers
@pytest.mark.parametrize("listener", [HTTP, TCP], ids=["http", "tcp"])
def test_a_header_may_come_byte_by_byte(proxy, listener, header):
    with Origin(echo if listener is TCP else answering()) as origin:
        proxy.serve(origin, listener=listener)
        client = proxy.client()
        for at in range(len(header)):
            client.send(header[at : at + 1])
        client.send(request("/"))
        assert client.more()


def test_a_local_header_leaves_the_peer_the_client(proxy, origin):
    proxy.serve(origin, listener=HTTP)
    client = proxy.client()
    client.send(LOCAL + request("/"))
    assert origin.accept().request().get("x-forwarded-for") == "127.0.0.1"


@pytest.mark.parametrize(
    ("listener", "said"),
    [
        (HTTP, request("/")),
        (TCP, b"hello, I am here"),
        (HTTP, V1.replace(b"TCP4", b"TCP5") + request("/")),
        (TCP, V2[:13] + b"\x55" + V2[14:]),
        (TCP, b"PROXY TCP4 " + b"1" * 200),
    ],
)
def test_a_trusted_peer_without_a_whole_header_is_refused(proxy, origin, listener, said):
    proxy.serve(origin, listener=listener)
    client = proxy.client()
    client.send(said)
    assert client.was_reset()
    record = proxy.record()
    assert record["cause"] == "client"
    assert "did not start with a PROXY header" in record["reason"]
    assert not origin.asked()


def test_a_trusted_peer_that_says_nothing_is_let_go_after_the_header_time(proxy, origin):
    proxy.serve(origin, listener=TCP | {"header_ms": 60})
    client = proxy.client()
    client.send(V1[:20])
    assert client.is_cut()
    assert not origin.asked()


@headers
def test_a_request_behind_an_outsiders_header_is_refused(proxy, origin, header):
    proxy.serve(origin, listener=HTTP)
    client = proxy.client(source=OUTSIDER)
    client.send(header + request("/"))
    assert client.was_reset()
    record = proxy.record()
    assert (record["cause"], record["client"]) == ("client", OUTSIDER)
    assert record["reason"] == "a PROXY header came from a peer that is not trusted"
    assert proxy.listener()["requests"][0]["client"] >= 1
    assert not origin.asked()


@headers
def test_a_connection_with_an_outsiders_header_is_refused_before_a_byte_of_it_passes(proxy, origin, header):
    proxy.serve(origin, listener=TCP)
    client = proxy.client(source=OUTSIDER)
    upstream = origin.accept()
    for at in range(len(header)):
        try:
            client.send(header[at : at + 1])
        except ConnectionError:
            break
    assert client.is_cut()
    with pytest.raises(ConnectionResetError):
        assert upstream.more() == b""
    assert proxy.record()["reason"] == "a PROXY header came from a peer that is not trusted"


def test_an_outsider_without_a_header_is_served_as_itself(proxy, origin):
    proxy.serve(origin, listener=HTTP)
    client = proxy.client(source=OUTSIDER)
    client.send(request("/"))
    assert origin.accept().request().get("x-forwarded-for") == OUTSIDER


def test_an_outsider_may_wait_for_the_endpoint_to_speak_first(proxy, origin):
    proxy.serve(origin, listener=TCP)
    client = proxy.client(source=OUTSIDER)
    upstream = origin.accept()
    upstream.send(b"220 ready")
    assert client.exactly(9) == b"220 ready"
    client.send(b"PR")
    assert upstream.silent()
    client.send(b"IVMSG")
    assert upstream.exactly(7) == b"PRIVMSG"
    client.send(b"P")
    assert upstream.exactly(1) == b"P"
    client.finish()
    assert upstream.at_end()


def test_an_outsider_whose_few_bytes_start_like_a_header_is_heard_out_at_its_end(proxy, origin):
    proxy.serve(origin, listener=TCP)
    client = proxy.client(source=OUTSIDER)
    client.send(b"PRO")
    client.finish()
    assert origin.accept().rest() == b"PRO"


def test_sessions_stick_to_the_named_client(proxy):
    with Origin(echo) as one, Origin(echo) as other:
        served = proxy.serve(one, other, listener=TCP, service={"sticky": sticky(kind="source", ttl_s=60)})
        for last in range(1, 7):
            header = b"PROXY TCP4 203.0.113.%d 192.0.2.1 1 443\r\n" % last
            before = [served.endpoint(n)["connects"] for n in (0, 1)]
            for _ in range(3):
                client = proxy.client()
                client.send(header + b"x")
                assert client.exactly(1) == b"x"
                client.finish()
                assert client.at_end()
            assert eventually(proxy.at_rest)
            assert 3 in [served.endpoint(n)["connects"] - was for n, was in enumerate(before)]


# ---- out -------------------------------------------------------------------------------------------------


def expected(version, client, proxy):
    source = MAPPED + socket.inet_aton("127.0.0.1"), client.sock.getsockname()[1]
    target = MAPPED + socket.inet_aton("127.0.0.1"), proxy.port
    return _write(version, (*source, *target))


@pytest.mark.parametrize("version", [1, 2])
def test_an_endpoint_is_told_whose_connection_it_gets(proxy, origin, version):
    proxy.serve(origin, listener={"protocol": "tcp"}, service={"proxy_version": version})
    client = proxy.client()
    header = expected(version, client, proxy)
    upstream = origin.accept()
    assert upstream.exactly(len(header)) == header
    client.send(b"hello")
    assert upstream.exactly(5) == b"hello"
    client.finish()
    upstream.finish()
    assert client.at_end()
    assert proxy.record()["bytes_in"] == 5


@pytest.mark.parametrize("version", [1, 2])
def test_each_request_gets_a_connection_of_its_own_that_starts_with_its_client(proxy, origin, version):
    served = proxy.serve(origin, service={"proxy_version": version})
    client = proxy.client()
    header = expected(version, client, proxy)
    for number in range(2):
        client.send(request(f"/{number}"))
        upstream = origin.accept()
        assert upstream.exactly(len(header)) == header
        assert upstream.request().target == f"/{number}"
        upstream.send(response())
        assert client.answer().status == 200
        assert upstream.at_end()
    assert served.endpoint()["reused"] == 0


def test_a_retry_starts_with_the_header_too(proxy, origin):
    with Refusing() as dead:
        proxy.serve(dead, origin, service={"proxy_version": 1})
        for _ in range(2):
            client = proxy.client()
            client.send(request("/"))
            upstream = origin.accept()
            assert upstream.until(b"\r\n").startswith(b"PROXY TCP4 127.0.0.1 127.0.0.1 ")
            assert upstream.request().target == "/"
            upstream.send(response())
            assert client.answer().status == 200


def test_what_a_proxy_in_front_said_is_passed_on(proxy, origin):
    proxy.serve(origin, listener=TCP, service={"proxy_version": 1})
    client = proxy.client()
    client.send(V1 + b"x")
    line = origin.accept().until(b"\r\n")
    assert line == b"PROXY TCP4 203.0.113.7 127.0.0.1 56324 %d" % proxy.port


def test_a_clients_address_from_a_trusted_field_is_passed_on_without_a_port(proxy, origin):
    proxy.serve(origin, listener={"trusted": ["127.0.0.1/32"]}, service={"proxy_version": 1})
    client = proxy.client()
    client.send(request("/", "X-Forwarded-For: 198.51.100.4"))
    line = origin.accept().until(b"\r\n")
    assert line == b"PROXY TCP4 198.51.100.4 127.0.0.1 0 %d" % proxy.port
