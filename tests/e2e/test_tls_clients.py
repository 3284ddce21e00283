"""TLS with clients: versions, names, certificates, sessions, bodies, and those who do not behave."""

from __future__ import annotations

import datetime
import os
import random
import socket
import ssl
import subprocess
import threading

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp
from fakes import documents
from fakes.certs import NOW, Authority
from fakes.engine_process import Proxy, eventually
from fakes.origin import Origin, answering
from fakes.wire import chunks, request, response
from harness.programs import plain_environment

CA = Authority()
SITE = CA.leaf("site.test", "*.wild.test")
OTHER = CA.leaf("other.test", common="other")
SITE_RSA = CA.leaf("site.test", kind="rsa", common="site rsa")
CLIENT_CA = Authority("Client CA")
TRADER = CLIENT_CA.leaf(common="trader 7", organization="Floor", client=True)
STRANGER = Authority("Nobody").leaf(common="stranger", client=True)
MEGABYTE = bytes(range(256)) * 4096


def trusting(**options) -> ssl.SSLContext:
    out = ssl.create_default_context(cadata=CA.pem)
    for name, value in options.items():
        setattr(out, name, value)
    return out


def showing(tmp_path, leaf, **options) -> ssl.SSLContext:
    out = trusting(**options)
    out.load_cert_chain(*leaf.write(tmp_path, "client"))
    return out


@pytest.fixture(scope="module")
def engine_options():
    tls = {"tls": documents.server_tls(SITE)}
    return {"listener": tls, "client": {"tls": trusting(), "name": "site.test"}}


def tls(*leaves, **changes):
    """What `serve` needs to give its listener this TLS."""
    return {"tls": documents.server_tls(*(leaves or (SITE,)), **changes)}


def refused(proxy, kind: str, **client) -> ssl.SSLError:
    """A handshake that fails, and is counted as a failure of this kind."""
    before = failures(proxy, kind)
    with pytest.raises((ssl.SSLError, ConnectionResetError)) as caught:
        proxy.client(**client).ask()
    assert eventually(lambda: failures(proxy, kind) == before + 1), proxy.board.tls_totals()
    return caught.value


def failures(proxy, kind: str) -> int:
    return proxy.board.tls_totals()["client"]["failures"][kind]


def common_name(client) -> str:
    return dict(pair[0] for pair in client.sock.getpeercert()["subject"])["commonName"]


# ---- handshakes


@pytest.mark.parametrize("version", ["TLSv1.2", "TLSv1.3"])
def test_both_versions_serve_and_are_logged(proxy, version):
    with Origin(answering("hello")) as origin:
        proxy.serve(origin)
        before = proxy.board.tls_totals()["client"]["full"][version[4:]]
        number = ssl.TLSVersion[version.replace(".", "_")]
        client = proxy.client(tls=trusting(maximum_version=number, minimum_version=number))

        assert client.ask("/").body == b"hello"
        record = proxy.record()

    assert (client.sock.version(), record["tls"], record["sni"]) == (version, version, "site.test")
    assert record["cipher"] in {"TLS_AES_128_GCM_SHA256", "ECDHE-ECDSA-AES128-GCM-SHA256"}
    assert proxy.board.tls_totals()["client"]["full"][version[4:]] == before + 1


def test_a_version_below_the_lowest_is_refused(proxy):
    proxy.serve("127.0.0.1:9", listener=tls(min="1.3"))
    refused(proxy, "version", tls=trusting(maximum_version=ssl.TLSVersion.TLSv1_2))


def test_a_version_above_the_highest_is_not_spoken(proxy):
    proxy.serve("127.0.0.1:9", listener=tls(max="1.2"))
    assert proxy.client().sock.version() == "TLSv1.2"


def test_without_a_common_cipher_the_handshake_fails(proxy):
    proxy.serve("127.0.0.1:9", listener=tls(max="1.2", ciphers="ECDHE-ECDSA-AES128-GCM-SHA256"))
    mine = trusting()
    mine.set_ciphers("ECDHE-ECDSA-AES256-GCM-SHA384")
    refused(proxy, "cipher", tls=mine)


AES_128, AES_256, CHACHA = (
    f"ECDHE-ECDSA-{name}" for name in ("AES128-GCM-SHA256", "AES256-GCM-SHA384", "CHACHA20-POLY1305")
)


def test_a_client_that_says_nothing_is_closed_when_its_time_is_over(proxy):
    """The kernel hands it over a second late."""
    proxy.serve("127.0.0.1:9", listener=tls() | {"header_ms": 100})
    with socket.create_connection(("127.0.0.1", proxy.port)) as silent:
        silent.settimeout(5)
        assert silent.recv(1) == b""


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [([AES_256, AES_128], AES_128), ([AES_256, CHACHA], AES_256), ([CHACHA, AES_128], CHACHA)],
)
def test_the_cipher_is_the_configurations_first_unless_the_client_puts_chacha_first(proxy, offered, chosen):
    proxy.serve("127.0.0.1:9")
    mine = trusting(maximum_version=ssl.TLSVersion.TLSv1_2)
    mine.set_ciphers(":".join(offered))
    assert proxy.client(tls=mine).sock.cipher()[0] == chosen


@pytest.mark.parametrize(
    ("offered", "chosen"), [(["h2", "http/1.1"], "http/1.1"), (["http/1.0"], "http/1.0"), ([], None)]
)
def test_alpn_is_http_1(proxy, offered, chosen):
    mine = trusting()
    if offered:
        mine.set_alpn_protocols(offered)
    assert proxy.client(tls=mine).sock.selected_alpn_protocol() == chosen


def test_a_client_that_speaks_no_http_1_is_refused(proxy):
    mine = trusting()
    mine.set_alpn_protocols(["h2"])
    assert "no application protocol" in str(refused(proxy, "alpn", tls=mine))


def test_renegotiation_is_refused(proxy):
    asked = subprocess.run(
        ["openssl", "s_client", "-connect", f"127.0.0.1:{proxy.port}", "-tls1_2", "-legacy_renegotiation"],
        input=b"R\n",
        capture_output=True,
        env=plain_environment(),
        timeout=20,
        check=False,
    )
    assert b"no renegotiation" in asked.stderr


# ---- names and certificates


@pytest.mark.parametrize(
    ("asked", "answered"),
    [
        ("site.test", "site.test"),
        ("OTHER.test", "other"),
        ("a.wild.test", "site.test"),
        ("a.b.wild.test", "other"),
        ("wild.test", "other"),
        ("nobody.test", "other"),
        ("", "other"),
    ],
)
def test_the_name_asked_for_chooses_the_certificate(proxy, asked, answered):
    names = [["other.test", 0], ["site.test", 1], ["*.wild.test", 1]]
    proxy.serve("127.0.0.1:9", listener=tls(OTHER, SITE, names=names))
    client = proxy.client(tls=trusting(check_hostname=False), name=asked)
    assert common_name(client) == answered


@pytest.mark.parametrize("asked", ["nobody.test", "", "x" * 60 + ".test"])
def test_strict_names_refuse_what_no_certificate_is_for(proxy, asked):
    proxy.serve("127.0.0.1:9", listener=tls(names=[["site.test", 0]], strict_sni=True))
    refused(proxy, "name", tls=trusting(check_hostname=False), name=asked)
    assert common_name(proxy.client()) == "site.test"


@pytest.mark.parametrize(("kind", "answered"), [("RSA", "site rsa"), ("ECDSA", "site.test")])
def test_the_client_gets_the_kind_of_key_it_can_verify(proxy, kind, answered):
    proxy.serve("127.0.0.1:9", listener=tls(SITE, SITE_RSA, contexts=[[0, 1]]))
    mine = trusting(maximum_version=ssl.TLSVersion.TLSv1_2)
    mine.set_ciphers(f"ECDHE-{kind}-AES128-GCM-SHA256")
    assert common_name(proxy.client(tls=mine)) == answered


def test_an_ocsp_response_is_stapled(proxy):
    built = ocsp.OCSPResponseBuilder().add_response(
        cert=SITE.certificate,
        issuer=CA.certificate,
        algorithm=hashes.SHA256(),
        cert_status=ocsp.OCSPCertStatus.GOOD,
        this_update=NOW,
        next_update=NOW + datetime.timedelta(days=1),
        revocation_time=None,
        revocation_reason=None,
    )
    key = CA.key
    answer = built.responder_id(ocsp.OCSPResponderEncoding.NAME, CA.certificate).sign(key, hashes.SHA256())
    row = {"chain": SITE.chain, "key": SITE.key, "ocsp": answer.public_bytes(Encoding.DER).hex()}
    proxy.serve("127.0.0.1:9", listener=tls(certificates=[row]))

    seen = subprocess.run(
        ["openssl", "s_client", "-connect", f"127.0.0.1:{proxy.port}", "-status"],
        input=b"",
        capture_output=True,
        env=plain_environment(),
        timeout=20,
        check=False,
    ).stdout

    assert b"OCSP Response Status: successful" in seen
    assert b"Cert Status: good" in seen


def test_certificates_are_swapped_under_load_without_a_failed_handshake(proxy):
    common = set()
    stop = threading.Event()
    broken: list[BaseException] = []

    def connect() -> None:
        while not stop.is_set():
            try:
                with proxy.client() as client:
                    common.add(common_name(client))
                    assert client.ask("/").status == 200
                    assert client.ask("/").status == 200
            except BaseException as error:  # the test reports it
                broken.append(error)
                return

    with Origin(answering("hello")) as origin:
        proxy.serve(origin)
        kept = proxy.client()
        threads = [threading.Thread(target=connect) for _ in range(4)]
        for thread in threads:
            thread.start()
        for number in range(20):
            proxy.serve(origin, listener=tls(CA.leaf("site.test", common=f"certificate {number}")))
            assert eventually(lambda number=number: f"certificate {number}" in common or broken)
        stop.set()
        for thread in threads:
            thread.join()
        assert kept.ask("/").status == 200

    assert broken == []
    assert common_name(kept) == "site.test"


# ---- sessions


def ticket_key() -> str:
    return os.urandom(80).hex()


def visit(proxy, context, session=None):
    """One request on a connection of its own: the session for the next one, and whether this one
    was resumed.
    """
    with proxy.client(tls=context, session=session) as client:
        assert client.ask("/").status == 200
        return client.sock.session, client.sock.session_reused


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_sessions_resume_at_any_worker_and_over_two_rotations_of_the_keys(version):
    context = trusting(maximum_version=version)
    rows = {"listener": tls(), "client": {"name": "site.test"}}
    with Origin(answering("hello")) as origin, Proxy(workers=2, **rows) as proxy:
        keys = [ticket_key()]
        proxy.ticket_keys = keys
        proxy.serve(origin)
        session, resumed = visit(proxy, context)
        assert not resumed
        for _ in range(16):  # the kernel spreads them: sooner or later both workers have resumed
            assert visit(proxy, context, session)[1]
        for _ in range(2):
            keys.insert(0, ticket_key())
            proxy.serve(origin)
            assert visit(proxy, context, session)[1]
        keys.insert(0, ticket_key())
        del keys[3:]
        proxy.serve(origin)
        assert not visit(proxy, context, session)[1]
        assert proxy.board.tls_totals()["client"]["resumed"][f"1.{version.value - 0x0301}"] == 18
        proxy.rest()


def test_the_end_of_a_handshake_is_answered_at_once(proxy):
    """A client that waits for that before it sends more (Nagle) would else wait for the kernel's 40 ms."""
    proxy.ticket_keys = [ticket_key()]
    proxy.serve("127.0.0.1:9")
    client = Handmade(proxy, trusting())
    client.step(client.tls.do_handshake)
    assert client.sock.recv(65536)
    client.sock.close()
    proxy.ticket_keys = []


def test_without_ticket_keys_nothing_is_resumed(proxy):
    with Origin(answering("hello")) as origin:
        proxy.serve(origin)
        context = trusting()
        session, _ = visit(proxy, context)
        assert not visit(proxy, context, session)[1]


# ---- client certificates


def mutual(mode: str, **changes):
    return tls(client=mode, client_ca=CLIENT_CA.pem, client_header="X-Client-Subject", **changes)


@pytest.mark.parametrize("mode", ["optional", "required"])
def test_a_verified_client_is_named_to_the_origin(proxy, origin, tmp_path, mode):
    proxy.serve(origin, listener=mutual(mode))
    client = proxy.client(tls=showing(tmp_path, TRADER))
    client.send(request("/", "X-Client-Subject: CN=root", "x-client-subject: CN=admin"))
    upstream = origin.accept()
    asked = upstream.request()
    upstream.send(response())
    client.answer()
    assert asked.all("x-client-subject") == ["O=Floor,CN=trader 7"]
    assert proxy.record()["client_subject"] == "O=Floor,CN=trader 7"


def test_a_client_without_certificate_is_nobody_where_it_is_optional(proxy, origin):
    proxy.serve(origin, listener=mutual("optional"))
    client = proxy.client()
    client.send(request("/", "X-Client-Subject: CN=root"))
    upstream = origin.accept()
    asked = upstream.request()
    upstream.send(response())
    client.answer()
    assert asked.all("x-client-subject") == []


def test_the_field_cannot_be_forged_over_another_listener(tmp_path):
    with Proxy(listeners=2) as proxy, Origin() as origin:
        proxy.serve_many({"app": ([origin], {})}, [{}], listeners=[mutual("required"), {}])
        client = proxy.client(1)
        client.send(request("/", "X-Client-Subject: CN=root"))
        upstream = origin.accept()
        asked = upstream.request()
        upstream.send(response())
        client.answer()
        assert asked.all("x-client-subject") == []
        proxy.rest()


@pytest.mark.parametrize("who", [None, STRANGER])
def test_who_has_no_good_certificate_is_refused_where_it_is_required(proxy, tmp_path, who):
    proxy.serve("127.0.0.1:9", listener=mutual("required"))
    refused(proxy, "certificate", tls=trusting() if who is None else showing(tmp_path, who))


def test_a_bad_certificate_is_refused_even_where_none_is_needed(proxy, tmp_path):
    proxy.serve("127.0.0.1:9", listener=mutual("optional"))
    refused(proxy, "certificate", tls=showing(tmp_path, STRANGER))


def test_a_resumed_session_keeps_its_verified_client(tmp_path, proxy):
    proxy.ticket_keys = [ticket_key()]
    log = []
    with Origin(answering("hello", log=log)) as origin:
        proxy.serve(origin, listener=mutual("required"))
        context = showing(tmp_path, TRADER)
        session, _ = visit(proxy, context)
        assert visit(proxy, context, session)[1]
    proxy.ticket_keys = []
    assert [asked.get("x-client-subject") for asked in log] == ["O=Floor,CN=trader 7"] * 2


def test_a_session_from_where_nobody_is_verified_does_not_open_where_one_must_be(proxy):
    proxy.ticket_keys = [ticket_key()]
    context = trusting()
    with Origin(answering("hello")) as origin:
        proxy.serve(origin)
        session, _ = visit(proxy, context)
        proxy.serve(origin, listener=mutual("required"))
        refused(proxy, "certificate", tls=context, session=session)
    proxy.ticket_keys = []


# ---- requests


def test_forwarded_fields_say_https(proxy, origin):
    proxy.serve(origin, listener=tls() | {"forwarded": ["x", "rfc7239"]})
    client = proxy.client()
    client.send(request("/"))
    upstream = origin.accept()
    asked = upstream.request()
    upstream.send(response())
    client.answer()
    assert asked.get("x-forwarded-proto") == "https"
    assert asked.get("forwarded").endswith(";proto=https")


def test_redirects_of_routes_know_the_scheme(proxy):
    proxy.serve(route={"action": "redirect", "status": 308, "location": "{scheme}://{host}/new"})
    assert proxy.client().ask("/old").get("location") == "https://test/new"


@pytest.mark.parametrize(
    ("row", "status"),
    [({}, 200), ({"action": "respond", "status": 204}, 204), ({"path": "/elsewhere"}, 404)],
)
def test_every_answer_says_to_come_by_https_only(proxy, row, status):
    with Origin(answering("hello")) as origin:
        proxy.serve(origin, route=row, listener=tls() | {"hsts": "max-age=63072000"})
        answer = proxy.client().ask("/")
    assert (answer.status, answer.get("strict-transport-security")) == (status, "max-age=63072000")


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_megabyte_goes_both_ways_framed_in_either_way(proxy, origin, version):
    proxy.serve(origin)
    client = proxy.client(tls=trusting(maximum_version=version))
    client.send(request("/", method="POST", body=MEGABYTE))
    upstream = origin.accept()
    assert upstream.request().body == MEGABYTE
    upstream.send(response(body=MEGABYTE[::-1]))
    assert client.answer().body == MEGABYTE[::-1]

    parts = [MEGABYTE[:1], MEGABYTE[1:100_000], MEGABYTE[100_000:]]
    client.send(request("/", "Transfer-Encoding: chunked", method="POST") + chunks(*parts))
    assert upstream.request().body == MEGABYTE
    upstream.send(response(200, "Transfer-Encoding: chunked", body=None) + chunks(*parts))
    assert client.answer().body == MEGABYTE


def test_pipelined_requests_are_answered_in_order(proxy):
    log = []
    with Origin(answering("hello", log=log)) as origin:
        proxy.serve(origin)
        client = proxy.client()
        client.send(b"".join(request(f"/{number}") for number in range(50)))
        assert [client.answer().status for _ in range(50)] == [200] * 50
    assert [asked.target for asked in log] == [f"/{number}" for number in range(50)]


def test_a_request_in_single_bytes_is_a_request(proxy):
    with Origin(answering("hello")) as origin:
        proxy.serve(origin)
        client = proxy.client()
        for byte in request("/"):
            client.send(bytes([byte]))
        assert client.answer().body == b"hello"


@pytest.mark.memory
def test_a_slow_reader_gets_everything_and_holds_no_more_than_a_buffer(proxy):
    body = MEGABYTE * 16
    with Origin(answering(body)) as origin:
        proxy.serve(origin)
        client = proxy.client(receive_buffer=16384)
        client.send(request("/"))
        assert eventually(lambda: proxy.counts("buffers_large") == 1)
        head = client.answer_head()
        before = proxy.memory()
        client.body(head, to_the_end=False)
        assert head.body == body
        assert proxy.memory() - before < 4 << 20


class Handmade:
    """A client whose TLS is made step by step."""

    def __init__(self, proxy, context: ssl.SSLContext) -> None:
        self.sock = socket.create_connection(("127.0.0.1", proxy.port))
        self.sock.settimeout(10)
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_hostname="site.test")

    def step(self, call, *args):
        """Until the call has what it needs."""
        while True:
            try:
                return call(*args)
            except ssl.SSLWantReadError:
                self.flush()
                data = self.sock.recv(65536)
                if data:
                    self.incoming.write(data)
                else:
                    self.incoming.write_eof()
            finally:
                self.flush()

    def flush(self) -> None:
        if data := self.outgoing.read():
            self.sock.sendall(data)


def test_a_client_that_ends_its_side_still_gets_its_answer(proxy, origin):
    proxy.serve(origin, listener=tls() | {"half_close_ms": 5000})
    client = Handmade(proxy, trusting())
    client.step(client.tls.do_handshake)
    client.tls.write(request("/"))
    with pytest.raises(ssl.SSLWantReadError):
        client.tls.unwrap()  # close_notify is on its way
    client.flush()
    client.sock.shutdown(socket.SHUT_WR)
    upstream = origin.accept()
    upstream.request()
    upstream.send(response(body=b"still there"))
    client.incoming.write(client.sock.recv(65536))
    assert b"still there" in client.tls.read(65536)
    client.sock.close()


def test_an_answer_that_is_cut_off_does_not_look_complete(proxy, origin):
    proxy.serve(origin)
    client = proxy.client()
    client.send(request("/", version="1.0"))
    upstream = origin.accept()
    upstream.request()
    upstream.send(response(body=None) + b"half of it")
    client.answer_head()
    assert client.exactly(10) == b"half of it"
    upstream.reset()
    with pytest.raises((ssl.SSLError, ConnectionResetError)):
        client.rest()


def test_an_answer_that_ends_with_the_connection_ends_with_close_notify(proxy, origin):
    proxy.serve(origin)
    client = proxy.client()
    client.send(request("/", version="1.0"))
    upstream = origin.accept()
    upstream.request()
    upstream.send(response(body=None) + b"all of it")
    upstream.close()
    client.answer_head()
    assert client.rest() == b"all of it"  # Python raises for an end without close_notify


def test_an_upgraded_connection_is_a_tunnel_over_tls(proxy, origin):
    proxy.serve(origin, route={"upgrades": ["websocket"]})
    client = proxy.client()
    client.send(request("/", "Connection: Upgrade", "Upgrade: websocket"))
    upstream = origin.accept()
    upstream.request()
    upstream.send(response(101, "Connection: Upgrade", "Upgrade: websocket", body=None))
    assert client.interim().status == 101
    client.send(MEGABYTE)
    assert upstream.exactly(len(MEGABYTE)) == MEGABYTE
    upstream.send(MEGABYTE)
    assert client.exactly(len(MEGABYTE)) == MEGABYTE
    upstream.finish()
    assert client.rest() == b""  # close_notify: Python raises without


def test_a_proxy_header_comes_before_the_handshake(proxy):
    log = []
    with Origin(answering("hello", log=log)) as origin:
        proxy.serve(origin, listener=tls() | {"proxied": True, "trusted": ["127.0.0.0/8"]})
        client = Handmade(proxy, trusting())
        client.sock.sendall(b"PROXY TCP4 192.0.2.7 192.0.2.8 4711 443\r\n")
        client.step(client.tls.do_handshake)
        client.tls.write(request("/"))
        client.flush()
        assert b"hello" in client.step(client.tls.read, 65536)
        client.sock.close()
        proxy.serve(origin)
    assert log[0].get("x-forwarded-for") == "192.0.2.7"


# ---- those who do not behave


@pytest.mark.parametrize("method", ["GET", "POST", "HEAD", "PUT"])
def test_plain_http_is_told_that_this_is_https(proxy, method):
    before = failures(proxy, "plain")
    client = proxy.client(tls=None)
    client.send(request("/", method=method))
    answer = client.answer()
    assert answer.status == 400
    assert b"HTTPS" in answer.body
    assert client.at_end()
    assert eventually(lambda: failures(proxy, "plain") == before + 1)


@pytest.mark.parametrize(
    "garbage",
    [b"\0" * 100, random.Random(7).randbytes(3000), b"\x16\x03\x01\xff\xff" + b"\1" * 3000, b"SSH-2.0-x\r\n"],
)
def test_garbage_ends_the_connection(proxy, garbage):
    before = failures(proxy, "protocol")
    client = proxy.client(tls=None)
    client.send(garbage)
    assert client.is_cut()
    assert eventually(lambda: failures(proxy, "protocol") == before + 1)


def test_a_half_handshake_ends_with_the_header_timeout(proxy):
    proxy.serve("127.0.0.1:9", listener=tls() | {"header_ms": 200})
    before = failures(proxy, "timeout")
    client = Handmade(proxy, trusting())
    with pytest.raises(ssl.SSLWantReadError):
        client.tls.do_handshake()
    client.sock.sendall(client.outgoing.read()[:100])
    assert client.sock.recv(1) == b""
    client.sock.close()
    assert eventually(lambda: failures(proxy, "timeout") == before + 1)


@pytest.mark.memory
def test_half_handshakes_cost_little_and_leave_nothing_behind(proxy):
    proxy.serve("127.0.0.1:9", listener=tls() | {"header_ms": 60000})
    hellos = []
    for _ in range(300):
        client = Handmade(proxy, trusting())
        with pytest.raises(ssl.SSLWantReadError):
            client.tls.do_handshake()
        hellos.append(client)
    before = proxy.memory()
    for client in hellos:
        client.sock.sendall(client.outgoing.read()[:200])
    assert eventually(lambda: proxy.counts("clients") == 300)
    assert proxy.memory() - before < 300 * 65536
    for client in hellos:
        client.sock.close()


def test_whoever_leaves_during_the_handshake_is_counted_so(proxy):
    before = failures(proxy, "closed")
    proxy.client(tls=None).close()
    assert eventually(lambda: failures(proxy, "closed") == before + 1)


# ---- other people's clients


def test_curl_is_served(proxy, tmp_path):
    (tmp_path / "ca.pem").write_text(CA.pem)
    url = f"https://site.test:{proxy.port}/"
    with Origin(answering(MEGABYTE)) as origin:
        proxy.serve(origin)
        outputs = ["-o", tmp_path / "1", "-o", tmp_path / "2", "-w", "%{http_code} %{num_connects}\n"]
        resolve = f"site.test:{proxy.port}:127.0.0.1"
        told = subprocess.run(
            ["curl", "-sS", "--cacert", tmp_path / "ca.pem", "--resolve", resolve, *outputs, url, url],
            capture_output=True,
            env=plain_environment(),
            timeout=20,
            check=False,
        )
    assert told.stdout.split() == [b"200", b"1", b"200", b"0"], told.stderr
    assert (tmp_path / "2").read_bytes() == MEGABYTE
