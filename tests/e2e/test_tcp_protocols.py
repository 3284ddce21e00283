"""What real programs speak over TCP listeners: TLS that is not taken off, gRPC, and sessions that count."""

import contextlib
import shutil
import socket
import ssl
import subprocess
import threading
from concurrent import futures

import grpc
import pytest
from fakes.engine_process import Proxy, eventually
from fakes.origin import Origin, Refusing
from harness.certificate import self_signed
from harness.programs import plain_environment

TCP = {"protocol": "tcp"}


# ---- by server name --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    folder = tmp_path_factory.mktemp("certificates")
    return {name: self_signed(folder, name) for name in ("a.example", "b.example")}


def tls_origin(certificates, name):
    """Says its name over TLS, then echoes."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificates[name])

    def handle(conn):
        with contextlib.suppress(ssl.SSLError), context.wrap_socket(conn.sock, server_side=True) as tls:
            tls.sendall(name.encode())
            while data := tls.recv(65536):
                tls.sendall(data)

    return Origin(handle)


def talk_to(proxy, server_name, certificates):
    """The name that the endpoint behind `server_name` says; its certificate is verified."""
    context = ssl.create_default_context(cafile=certificates[server_name][0])
    with (
        socket.create_connection(("127.0.0.1", proxy.port), 10) as sock,
        context.wrap_socket(sock, server_hostname=server_name) as tls,
    ):
        said = tls.recv(100)
        tls.sendall(b"x" * 50_000)
        left = 50_000
        while left:
            left -= len(tls.recv(65536))
        return said.decode()


@contextlib.contextmanager
def by_name(proxy, certificates, *more):
    with tls_origin(certificates, "a.example") as one, tls_origin(certificates, "b.example") as other:
        yield proxy.serve_many(
            {"one": ([one], {}), "other": ([other], {}), **{name: ([origin], {}) for name, origin in more}},
            [
                {"service": "one", "hosts": ["a.example"]},
                {"service": "other", "hosts": ["b.example", "*.b.example"]},
                *({"service": name} for name, _ in more),
            ],
            listener=TCP,
        )


def test_tls_goes_undecrypted_to_the_service_of_its_server_name(proxy, certificates):
    with by_name(proxy, certificates):
        for name in ("a.example", "b.example"):
            assert talk_to(proxy, name, certificates) == name
            assert proxy.record()["server_name"] == name


@pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl command here")
@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_openssl_s_client_reaches_the_service_of_its_server_name(proxy, certificates, version):
    with by_name(proxy, certificates):
        run = subprocess.run(
            [
                "openssl", "s_client", version, "-connect", f"127.0.0.1:{proxy.port}",
                "-servername", "b.example", "-CAfile", certificates["b.example"][0], "-verify_return_error",
            ],
            input=b"", capture_output=True, env=plain_environment(), timeout=20, check=False,
        )  # fmt: skip
        assert b"CN = b.example" in run.stdout or b"CN=b.example" in run.stdout
        assert b"Verify return code: 0 (ok)" in run.stdout


def test_a_server_name_that_no_route_has_is_cut_off_and_logged(proxy, certificates):
    with by_name(proxy, certificates):
        context = ssl.create_default_context()
        with (
            socket.create_connection(("127.0.0.1", proxy.port), 10) as sock,
            pytest.raises((ssl.SSLError, ConnectionResetError)),
        ):
            context.wrap_socket(sock, server_hostname="c.example").close()
        record = proxy.record()
    assert (record["cause"], record["server_name"]) == ("proxy", "c.example")
    assert record["reason"] == "no route for this server name"


def test_what_is_no_tls_goes_to_the_route_without_a_name(proxy, certificates, origin):
    with by_name(proxy, certificates, ("rest", origin)):
        client = proxy.client()
        client.send(b"SSH-2.0-x\r\n")
        upstream = origin.accept()
        assert upstream.exactly(11) == b"SSH-2.0-x\r\n"
        client.finish()
        upstream.finish()
        assert client.at_end()
        assert "server_name" not in proxy.record()


def test_a_hello_that_comes_byte_by_byte_finds_its_way_over_a_dead_endpoint(proxy, origin):
    context = ssl.create_default_context()
    out = ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), out, server_hostname="a.example").do_handshake()
    hello = out.read()
    with Refusing() as dead:
        proxy.serve(dead, origin, listener=TCP, route={"hosts": ["a.example"]})
        for _ in range(2):
            client = proxy.client()
            for at in range(len(hello)):
                client.send(hello[at : at + 1])
            assert origin.accept().exactly(len(hello)) == hello


def test_half_a_hello_is_waited_for_no_longer_than_a_head(proxy, origin):
    proxy.serve(origin, listener=TCP | {"header_ms": 60}, route={"hosts": ["a.example"]})
    client = proxy.client()
    client.send(b"\x16\x03\x01\x02\0\x01\0")
    assert client.is_cut()
    assert not origin.asked()
    assert eventually(lambda: proxy.counts("buffers_small") == 0)


# ---- gRPC ------------------------------------------------------------------------------------------------


class Echo(grpc.GenericRpcHandler):
    def service(self, details):
        if details.method.endswith("/Once"):
            return grpc.unary_unary_rpc_method_handler(lambda request, _: request)
        return grpc.stream_stream_rpc_method_handler(lambda requests, _: requests)


@contextlib.contextmanager
def grpc_server():
    server = grpc.server(futures.ThreadPoolExecutor(4), options=[("grpc.so_reuseport", 0)])
    server.add_generic_rpc_handlers((Echo(),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(0).wait()


def test_grpc_calls_and_streams_pass(proxy):
    with grpc_server() as address, grpc_server() as other:
        served = proxy.serve(address, other, listener=TCP)
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0)]
        for _ in range(2):
            with grpc.insecure_channel(f"127.0.0.1:{proxy.port}", options=options) as channel:
                once = channel.unary_unary("/test.Echo/Once")
                for number in range(20):
                    assert once(b"%d" % number, timeout=10) == b"%d" % number
                big = bytes(1 << 20)
                assert once(big, timeout=10) == big
                stream = channel.stream_stream("/test.Echo/Stream")
                parts = [b"%d" % number * 1000 for number in range(50)]
                assert list(stream(iter(parts), timeout=10)) == parts
        assert eventually(lambda: [served.endpoint(n)["connects"] for n in (0, 1)] == [1, 1])


# ---- sessions that count ---------------------------------------------------------------------------------


class Gateway:
    """The far end of sessions like FIX: every message has a number, and each is answered with the same."""

    def __init__(self):
        self.origin = Origin(self.session)
        self.address = self.origin.address
        self.gaps = []

    def session(self, conn):
        expected = 1
        while True:
            kind, number = conn.until(b"\x01").split(b"=")
            if int(number) != expected:
                self.gaps.append((expected, number))
            expected += 1
            conn.send(b"%b=%d\x01" % (b"ack" if kind == b"order" else b"alive", int(number)))
            if kind == b"logout":
                conn.finish()
                return


class Session(threading.Thread):
    """A client that logs on once and stays: orders and heartbeats, each with the next number."""

    def __init__(self, proxy):
        super().__init__()
        self.wire = proxy.client()
        self.sent = self.answered = 0
        self.failure = None
        self.stop = threading.Event()

    def say(self, kind):
        self.sent += 1
        self.wire.send(b"%b=%d\x01" % (kind, self.sent))
        answer = self.wire.until(b"\x01")
        if int(answer.split(b"=")[1]) != self.sent:
            raise AssertionError(f"{answer!r} to number {self.sent}")
        self.answered += 1

    def run(self):
        try:
            while not self.stop.wait(0.002):
                self.say(b"order" if self.sent % 3 else b"heartbeat")
            self.say(b"logout")
            self.wire.finish()
            assert self.wire.rest() == b""
        except BaseException as error:
            self.failure = error


def heard_from_all(sessions):
    """Wait until each has had five more answers."""
    goals = [session.answered + 5 for session in sessions]
    assert eventually(lambda: all(s.answered >= n or s.failure for s, n in zip(sessions, goals, strict=True)))


def test_sessions_lose_no_message_through_reloads_and_log_out_during_a_drain():
    gateways = [Gateway(), Gateway()]
    with Proxy(workers=2) as proxy, gateways[0].origin, gateways[1].origin:
        proxy.serve(
            *gateways, listener=TCP, service={"strategy": "least_connections", "tunnel_drain_ms": 20_000}
        )
        sessions = [Session(proxy) for _ in range(8)]
        for session in sessions:
            session.start()
        for _ in range(20):
            proxy.again()
            heard_from_all(sessions)
        proxy.drain()
        heard_from_all(sessions)
        assert proxy.counts("tunnels") == 8
        for session in sessions:
            session.stop.set()
        for session in sessions:
            session.join()
            assert session.failure is None
            assert session.sent == session.answered
        assert gateways[0].gaps == gateways[1].gaps == []
        proxy.rest()
