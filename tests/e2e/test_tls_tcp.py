"""TCP listeners that end TLS, and TCP sessions that are put into TLS towards their endpoint."""

from __future__ import annotations

import contextlib
import random
import socket
import ssl
import threading
from hashlib import sha256

import pytest
from fakes import documents
from fakes.certs import Authority
from fakes.engine_process import eventually
from fakes.origin import Blackhole, Origin
from fakes.wire import PATIENCE

CA = Authority()
SITE, OTHER = CA.leaf("site.test"), CA.leaf("other.test")
BACKEND = CA.leaf("backend.test")
FOREIGN = Authority("Somebody else").leaf("backend.test")
CLIENT = CA.leaf(common="trader", client=True)
NO_RETRY = {"retry": documents.retry(attempts=0, on=[])}
BLOB = random.Random(3).randbytes(3 << 20)


def listening(*leaves, **changes):
    """A TCP listener's row with TLS."""
    return {"protocol": "tcp", "tls": documents.server_tls(*(leaves or (SITE,)), **changes)}


def trusting(**options) -> ssl.SSLContext:
    out = ssl.create_default_context(cadata=CA.pem)
    for name, value in options.items():
        setattr(out, name, value)
    return out


def over_tls(proxy, name="site.test", **options):
    return proxy.client(tls=trusting(**options), name=name)


def backend(tmp_path, leaf=BACKEND, **options) -> Origin:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*leaf.write(tmp_path, "backend"))
    for name, value in options.items():
        getattr(context, name)(value)
    return Origin(tls=context)


def verified(origin, name="backend.test"):
    """An endpoint to be spoken to over TLS, with its service's part of it."""
    return (origin, {"tls": name}), {"tls": documents.client_tls(verify=True, ca=CA.pem)}


def same(got, sent):
    return sha256(got).digest() == sha256(sent).digest()


def passes(client, upstream, blob=b"some bytes"):
    """Bytes both ways."""
    for one, other in ((client, upstream), (upstream, client)):
        sender = threading.Thread(target=one.send, args=(blob,))
        sender.start()
        assert same(other.exactly(len(blob)), blob)
        sender.join()


def end(wire):
    """Say that nothing more comes; over TLS by close_notify, without waiting for the other's."""
    if isinstance(wire.sock, ssl.SSLSocket):
        wire.sock.settimeout(0)
        with contextlib.suppress(ssl.SSLWantReadError):
            wire.sock.unwrap()
        wire.sock.settimeout(PATIENCE)
    else:
        wire.finish()


def see_none(origin):
    """Take a connection that ends without having brought anything."""
    with contextlib.suppress(OSError, AssertionError):
        assert origin.accept().more() == b""


@pytest.mark.parametrize("version", ["TLSv1_2", "TLSv1_3"])
def test_what_clients_send_over_tls_reaches_the_endpoint_in_plain_and_back(proxy, origin, version):
    proxy.serve(origin, listener=listening())
    number = ssl.TLSVersion[version]
    client = over_tls(proxy, minimum_version=number, maximum_version=number)
    upstream = origin.accept()
    passes(client, upstream)
    passes(client, upstream, BLOB)
    upstream.send(b"goodbye")
    upstream.finish()
    assert client.rest() == b"goodbye"  # with close_notify: anything else is an error
    end(client)
    assert upstream.at_end()
    client.close()
    record = proxy.record()
    assert (record["tls"], record["sni"]) == (version.replace("_", "."), "site.test")
    assert (record["bytes_in"], record["bytes_out"]) == (10 + len(BLOB), 17 + len(BLOB))


def test_an_endpoint_that_speaks_first_is_heard(proxy, origin):
    proxy.serve(origin, listener=listening())
    client = over_tls(proxy)
    origin.accept().send(b"220 ready\r\n")
    assert client.exactly(11) == b"220 ready\r\n"


def test_routes_go_by_the_name_of_the_handshake(proxy):
    with Origin() as first, Origin() as second:
        proxy.serve_many(
            {"app": ([first], {}), "other": ([second], {})},
            [{"service": "app"}, {"service": "other", "hosts": ["other.test"]}],
            listener=listening(SITE, OTHER, names=[["other.test", 1]], contexts=[[0], [1]]),
        )
        passes(over_tls(proxy), first.accept())
        passes(over_tls(proxy, "other.test"), second.accept())


def test_a_client_without_a_handshake_reaches_nobody(proxy, origin):
    proxy.serve(origin, listener=listening() | {"header_ms": 200})
    for first in (b"GET / HTTP/1.1\r\n\r\n", b"\0garbage", b"\x16\x03\x01"):
        with socket.create_connection(("127.0.0.1", proxy.port), 5) as sock:
            sock.sendall(first)
            with contextlib.suppress(ConnectionError):
                while sock.recv(100):
                    pass
    assert not origin.asked()


def test_a_client_without_a_certificate_is_refused_where_one_is_required(proxy, origin, tmp_path):
    proxy.serve(origin, listener=listening(client="required", client_ca=CA.pem))
    with pytest.raises(OSError), over_tls(proxy) as client:  # noqa: PT011
        client.exactly(1)
    assert not origin.asked()
    mine = trusting()
    mine.load_cert_chain(*CLIENT.write(tmp_path, "client"))
    client = proxy.client(tls=mine, name="site.test")
    passes(client, origin.accept())


def test_no_application_protocol_is_chosen(proxy, tmp_path):
    with backend(tmp_path, set_alpn_protocols=["h2", "http/1.1"]) as origin:
        endpoint, service = verified(origin)
        proxy.serve(endpoint, service=service, listener=listening())
        mine = trusting()
        mine.set_alpn_protocols(["h2"])
        client = proxy.client(tls=mine, name="site.test")
        upstream = origin.accept()
        passes(client, upstream)
        assert client.sock.selected_alpn_protocol() is None
        assert upstream.sock.selected_alpn_protocol() is None


@pytest.mark.parametrize("plain", [True, False], ids=["plain client", "TLS client"])
def test_sessions_are_put_into_tls_towards_the_endpoint(proxy, tmp_path, plain):
    with backend(tmp_path) as origin:
        endpoint, service = verified(origin)
        listener = {"protocol": "tcp"} if plain else listening()
        served = proxy.serve(endpoint, service=service, listener=listener)
        for _ in range(2):
            client = proxy.client() if plain else over_tls(proxy)
            upstream = origin.accept()
            passes(client, upstream)
            passes(client, upstream, BLOB)
            end(upstream)
            assert client.rest() == b""
            end(client)
            upstream.close()
            assert eventually(lambda: served.endpoint()["inflight"] == 0)
        assert served.endpoint()["outcomes"]["reset"] == 0


def test_an_endpoint_that_cannot_prove_its_name_gets_nothing_and_the_log_says_why(proxy, tmp_path):
    with backend(tmp_path, FOREIGN) as origin:
        endpoint, service = verified(origin)
        served = proxy.serve(endpoint, service=service | NO_RETRY, listener={"protocol": "tcp"})
        client = proxy.client()
        client.send(b"secret")
        upstream = origin.accept()
        with pytest.raises(OSError):  # noqa: PT011
            upstream.exactly(1)
        assert client.is_cut()
        record = proxy.record()
    assert record["reason"] == "the endpoint's certificate is not signed by a CA that this service trusts"
    assert served.endpoint()["outcomes"]["connect"] == 1


def test_after_a_failed_handshake_another_endpoint_is_tried(proxy, tmp_path):
    (tmp_path / "good").mkdir()
    with backend(tmp_path, FOREIGN) as bad, backend(tmp_path / "good") as good:
        refused = threading.Thread(target=see_none, args=(bad,))
        refused.start()
        (first, service), (second, _) = verified(bad), verified(good)
        proxy.serve(first, second, service=service, listener={"protocol": "tcp"})
        for _ in range(2):
            client = proxy.client()
            client.send(b"hello")
            assert good.accept().exactly(5) == b"hello"
        refused.join()


def test_the_connect_timeout_covers_the_handshake_with_the_endpoint(proxy):
    with Origin(lambda conn: conn.rest()) as mute:
        endpoint, service = verified(mute)
        proxy.serve(endpoint, service=service | NO_RETRY | {"connect_ms": 200}, listener={"protocol": "tcp"})
        assert proxy.client().is_cut()
        assert proxy.record()["cause"] == "connect"


def test_an_endpoint_where_nobody_listens_is_no_failure_of_tls(proxy):
    with Blackhole() as gone:
        endpoint, service = verified(gone)
        before = sum(proxy.board.tls_totals()["endpoint"]["failures"].values())
        proxy.serve(endpoint, service=service | NO_RETRY | {"connect_ms": 100}, listener={"protocol": "tcp"})
        assert proxy.client().is_cut()
        assert sum(proxy.board.tls_totals()["endpoint"]["failures"].values()) == before
