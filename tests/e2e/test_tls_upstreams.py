"""TLS with endpoints: verification, names, sessions, client certificates, bodies, ends."""

from __future__ import annotations

import datetime
import ssl
import threading

import pytest
from fakes import documents
from fakes.certs import Authority
from fakes.engine_process import eventually
from fakes.origin import Blackhole, Origin, Refusing, answering
from fakes.wire import chunks, request, response

CA = Authority()
SITE = CA.leaf("backend.test")
ADDRESS = CA.leaf("127.0.0.1")
EXPIRED = CA.leaf("backend.test", ends=datetime.timedelta(days=-2))
FUTURE = CA.leaf("backend.test", starts=datetime.timedelta(days=3))
FOREIGN = Authority("Somebody else").leaf("backend.test")
FOR_CLIENTS = CA.leaf("backend.test", client=True)
PROXY_CA = Authority("Proxy CA")
PROXY = PROXY_CA.leaf(common="turnout", client=True)
MEGABYTE = bytes(range(256)) * 4096
NO_RETRY = {"retry": documents.retry(attempts=0)}
DAY = datetime.timedelta(days=1)


def serving(tmp_path, leaf=SITE, **options) -> ssl.SSLContext:
    out = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    out.load_cert_chain(*leaf.write(tmp_path, "backend"))
    for name, value in options.items():
        setattr(out, name, value)
    return out


@pytest.fixture
def backend(tmp_path):
    with Origin(tls=serving(tmp_path)) as out:
        yield out


def trust(proxy, origin, name: str = "backend.test", *, service=None, **changes):
    """Serve this origin over TLS, verified by the test's authority."""
    row = {"tls": documents.client_tls(verify=True, ca=CA.pem, **changes)} | NO_RETRY | (service or {})
    return proxy.serve((origin, {"tls": name}), service=row)


def handshakes(proxy):
    totals = proxy.board.tls_totals()["endpoint"]
    return sum(totals["full"].values()), sum(totals["resumed"].values())


@pytest.mark.parametrize("version", ["TLSv1_2", "TLSv1_3"])
def test_a_verified_endpoint_serves_over_both_versions(proxy, tmp_path, version):
    context = serving(tmp_path, maximum_version=ssl.TLSVersion[version])
    with Origin(answering("hello"), tls=context) as origin:
        trust(proxy, origin)
        client = proxy.client()
        assert [client.ask("/").body for _ in range(3)] == [b"hello"] * 3
        assert len(origin.connections) == 1
        assert origin.connections[0].sock.version() == version.replace("_", ".")
    assert proxy.record()["reused"] is True


def test_the_endpoint_is_asked_for_its_name_and_for_http_1(proxy, tmp_path):
    asked = []
    context = serving(tmp_path, sni_callback=lambda _sock, name, _context: asked.append(name))
    context.set_alpn_protocols(["http/1.1", "h2"])
    with Origin(answering("hello"), tls=context) as origin:
        trust(proxy, origin)
        assert proxy.client().ask("/").status == 200
        assert origin.connections[0].sock.selected_alpn_protocol() == "http/1.1"
    assert asked == ["backend.test"]


def test_an_address_is_verified_as_an_address(proxy, tmp_path):
    with Origin(answering("hello"), tls=serving(tmp_path, ADDRESS)) as origin:
        trust(proxy, origin, "127.0.0.1")
        assert proxy.client().ask("/").status == 200
        trust(proxy, origin, "127.0.0.2")
        assert b"for another name" in proxy.client().ask("/").body


@pytest.mark.parametrize(
    ("leaf", "name", "why"),
    [
        (EXPIRED, "backend.test", "the endpoint's certificate has expired"),
        (FUTURE, "backend.test", "the endpoint's certificate is not valid yet"),
        (SITE, "other.test", "the endpoint's certificate is for another name"),
        (
            FOREIGN,
            "backend.test",
            "the endpoint's certificate is not signed by a CA that this service trusts",
        ),
        (FOR_CLIENTS, "backend.test", "the endpoint's certificate is not meant for servers"),
    ],
)
def test_a_bad_certificate_is_refused_and_said_to_be(proxy, tmp_path, leaf, name, why):
    before = proxy.board.tls_totals()["endpoint"]["failures"]["certificate"]
    log = []
    with Origin(answering("hello", log=log), tls=serving(tmp_path, leaf)) as origin:
        served = trust(proxy, origin, name)
        answer = proxy.client().ask("/")
        record = proxy.record()
        assert served.endpoint()["outcomes"]["connect"] == 1

    assert (answer.status, answer.body.decode()) == (502, f"502 Bad Gateway: {why}\n")
    assert (record["cause"], record["reason"]) == ("connect", why)
    assert log == []
    assert proxy.board.tls_totals()["endpoint"]["failures"]["certificate"] == before + 1


def test_without_verification_anything_goes(proxy, tmp_path):
    with Origin(answering("hello"), tls=serving(tmp_path, FOREIGN)) as origin:
        row = {"tls": documents.client_tls(), **NO_RETRY}
        proxy.serve((origin, {"tls": "backend.test"}), service=row)
        assert proxy.client().ask("/").status == 200


def test_a_refused_certificate_sends_the_request_elsewhere(proxy, tmp_path):
    with (
        Origin(answering("bad"), tls=serving(tmp_path, EXPIRED)) as bad,
        Origin(answering("good"), tls=serving(tmp_path)) as good,
    ):
        row = {"tls": documents.client_tls(verify=True, ca=CA.pem)}
        proxy.serve(*((origin, {"tls": "backend.test"}) for origin in (bad, good)), service=row)
        client = proxy.client()
        assert [client.ask("/", method="POST").body for _ in range(4)] == [b"good"] * 4


def test_an_endpoint_without_tls_is_told_apart(proxy):
    with Origin(lambda conn: conn.send(b"HTTP/1.1 400 What\r\n\r\n")) as origin:
        trust(proxy, origin)
        answer = proxy.client().ask("/")
    assert (answer.status, answer.body) == (502, b"502 Bad Gateway: the endpoint does not speak TLS\n")


def test_an_endpoint_that_leaves_during_the_handshake_is_told_apart(proxy):
    with Origin(lambda conn: conn.sock.recv(10)) as origin:
        trust(proxy, origin)
        answer = proxy.client().ask("/")
    assert b"closed the connection during the TLS handshake" in answer.body


def test_a_refused_connection_is_no_tls_failure(proxy):
    before = proxy.board.tls_totals()["endpoint"]["failures"]
    with Refusing() as origin:
        trust(proxy, origin)
        answer = proxy.client().ask("/")
    assert b"could not be reached" in answer.body
    assert proxy.board.tls_totals()["endpoint"]["failures"] == before


def test_the_connect_timeout_covers_tcp_and_the_handshake(proxy):
    before = proxy.board.tls_totals()["endpoint"]["failures"]["timeout"]
    with Blackhole() as origin:
        trust(proxy, origin, service={"connect_ms": 100})
        assert proxy.client().ask("/").status == 504
    assert proxy.board.tls_totals()["endpoint"]["failures"]["timeout"] == before
    with Origin() as origin:
        trust(proxy, origin, service={"connect_ms": 100})
        assert proxy.client().ask("/").status == 504
    assert proxy.board.tls_totals()["endpoint"]["failures"]["timeout"] == before + 1


def test_without_a_common_version_the_reason_is_given(proxy, tmp_path):
    context = serving(tmp_path, maximum_version=ssl.TLSVersion.TLSv1_2)
    with Origin(answering("hello"), tls=context) as origin:
        trust(proxy, origin, min="1.3")
        answer = proxy.client().ask("/")
    assert answer.status == 502
    assert b"TLS" in answer.body


def test_a_client_certificate_is_shown_to_who_asks(proxy, tmp_path):
    context = serving(tmp_path, verify_mode=ssl.CERT_REQUIRED)
    context.load_verify_locations(cadata=PROXY_CA.pem)
    with Origin(answering("hello"), tls=context) as origin:
        trust(proxy, origin, chain=PROXY.chain, key=PROXY.key)
        assert proxy.client().ask("/").status == 200
        subject = origin.connections[0].sock.getpeercert()["subject"]
        trust(proxy, origin)
        answer = proxy.client().ask("/")
    assert subject == ((("commonName", "turnout"),),)
    assert answer.status == 502
    # With TLS 1.3 the endpoint refuses after our handshake; its reset may overtake its alert.
    assert b"refused the TLS connection" in answer.body or b"closed the connection" in answer.body


@pytest.mark.parametrize("version", ["TLSv1_2", "TLSv1_3"])
def test_new_connections_resume_the_session_of_former_ones(proxy, tmp_path, version):
    closing = response(200, "Connection: close", body=b"hello")

    def once(conn) -> None:
        conn.request()
        conn.send(closing)

    context = serving(tmp_path, maximum_version=ssl.TLSVersion[version])
    with Origin(once, tls=context) as origin:
        trust(proxy, origin)
        full, resumed = handshakes(proxy)
        client = proxy.client()
        assert [client.ask("/").status for _ in range(5)] == [200] * 5
        assert handshakes(proxy) == (full + 1, resumed + 4)


def test_another_trust_means_another_handshake(proxy, tmp_path):
    """Connections and sessions made under the former settings are not used under new ones."""
    with Origin(answering("hello"), tls=serving(tmp_path)) as origin:
        trust(proxy, origin)
        assert proxy.client().ask("/").status == 200
        proxy.serve(
            (origin, {"tls": "backend.test"}),
            service={"tls": documents.client_tls(verify=True, ca=PROXY_CA.pem), **NO_RETRY},
        )
        assert proxy.client().ask("/").status == 502


def test_large_bodies_go_both_ways(proxy, backend):
    trust(proxy, backend)
    client = proxy.client()
    client.send(request("/", method="POST", body=MEGABYTE))
    upstream = backend.accept()
    assert upstream.request().body == MEGABYTE
    upstream.send(response(body=MEGABYTE[::-1]))
    assert client.answer().body == MEGABYTE[::-1]

    client.send(request("/", "Transfer-Encoding: chunked", method="POST") + chunks(MEGABYTE, b"x"))
    assert upstream.request().body == MEGABYTE + b"x"
    upstream.send(response(200, "Transfer-Encoding: chunked", body=None) + chunks(b"y", MEGABYTE))
    assert client.answer().body == b"y" + MEGABYTE


def test_an_answer_in_single_bytes_arrives(proxy, backend):
    trust(proxy, backend)
    client = proxy.client()
    client.send(request("/"))
    upstream = backend.accept()
    upstream.request()
    for byte in response(body=b"hello"):
        upstream.send(bytes([byte]))
    assert client.answer().body == b"hello"


def test_a_body_to_the_end_of_the_connection_is_whole_only_with_close_notify(proxy, tmp_path):
    def whole(conn) -> None:
        conn.request()
        conn.send(response(body=None) + b"everything")
        conn.sock.unwrap()

    def cut(conn) -> None:
        conn.request()
        conn.send(response(body=None) + b"half")
        assert conn.sock.fileno() >= 0

    with Origin(whole, tls=serving(tmp_path)) as origin:
        trust(proxy, origin)
        assert proxy.client().ask("/").body == b"everything"
    with Origin(cut, tls=serving(tmp_path)) as origin:
        trust(proxy, origin)
        client = proxy.client()
        client.send(request("/"))
        assert client.answer_head().status == 200
        assert client.chunk() == b"half"
        assert client.was_reset()


def test_a_pooled_connection_that_got_close_notify_is_not_used(proxy, backend):
    trust(proxy, backend)
    client = proxy.client()
    client.send(request("/"))
    upstream = backend.accept()
    upstream.request()
    upstream.send(response())
    client.answer()
    served = proxy.counts("upstreams")
    upstream.close()
    assert eventually(lambda: proxy.counts("upstreams") == served - 1)
    client.send(request("/again"))
    again = backend.accept()
    assert again.request().target == "/again"
    again.send(response())
    assert client.answer().status == 200


@pytest.mark.memory
def test_a_slow_endpoint_stops_a_fast_client(proxy, tmp_path):
    body = MEGABYTE * 16
    with Origin(tls=serving(tmp_path), receive_buffer=16384) as origin:
        trust(proxy, origin)
        client = proxy.client()
        before = proxy.memory()
        client.send(request("/", f"Content-Length: {len(body)}", method="POST"))
        upstream = origin.accept()
        head = upstream.request_head()
        client.sock.setblocking(False)
        sent = 0
        while True:
            try:
                sent += client.sock.send(body[sent:])
            except BlockingIOError:
                if client.unsent() and proxy.counts("buffers_large"):
                    break
        assert sent < len(body)
        assert proxy.memory() - before < 8 << 20
        client.sock.settimeout(10)
        rest = threading.Thread(target=client.send, args=(body[sent:],))
        rest.start()
        upstream.body(head, to_the_end=False)
        rest.join()
        assert head.body == body
        upstream.send(response())
        assert client.answer().status == 200
