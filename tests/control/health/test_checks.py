"""Each kind of check against real servers."""

import asyncio
import contextlib
import datetime
import json
import ssl
import sys
import time
from concurrent import futures
from pathlib import Path

import grpc
import pytest
import websockets
from fakes.certs import DAY, Authority

from turnout.control.health.check import Check, run
from turnout.control.health.kinds import Checks
from turnout.control.health.outcome import Outcome
from turnout.control.health.target import Key, manner_of, target_of
from turnout.proxy.model import Service


def make(checks: Checks, health: dict, address: str, *, version: str = "v1", **service: object) -> Check:
    endpoint = {"address": address, "version": version}
    parsed = Service.model_validate({"endpoints": [endpoint], "health": health, **service})
    manner = manner_of(parsed)
    assert manner is not None
    return checks.make(target_of(Key("app", address), manner, parsed, parsed.endpoints[0], address))


async def once(health: dict, address: str, times: int = 1, folder: Path = Path(), **more: object) -> Outcome:
    checks = Checks(folder)
    check = make(checks, health, address, **more)
    try:
        for _ in range(times):
            out = (await run(check)).outcome
        return out
    finally:
        check.close()
        await checks.close()


@contextlib.asynccontextmanager
async def serving(handler, tls=None, path=None):
    """A server of raw bytes; its address. `handler(reader, writer)`."""
    tasks: set[asyncio.Task[None]] = set()

    async def handle(reader, writer):
        tasks.add(asyncio.current_task())
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
                await handler(reader, writer)
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    server = await (
        asyncio.start_unix_server(handle, path, ssl=tls)
        if path
        else asyncio.start_server(handle, "127.0.0.1", 0, ssl=tls)
    )
    address = f"unix:{path}" if path else f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield address
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


HOUR = datetime.timedelta(hours=1)


class Web:
    """Answers every request with the same bytes; keeps what was asked."""

    def __init__(self, answer: bytes, *, close: bool = False, trickle: float = 0) -> None:
        self.answer, self.close, self.trickle = answer, close, trickle
        self.heads: list[bytes] = []
        self.connections = 0
        self.begun: list[bytes] = []

    async def __call__(self, reader, writer):
        self.connections += 1
        while True:
            self.heads.append(await reader.readuntil(b"\r\n\r\n"))
            if self.trickle:
                for place in range(len(self.answer)):
                    writer.write(self.answer[place : place + 1])
                    await writer.drain()
                    await asyncio.sleep(self.trickle)
            writer.write(self.answer)
            await writer.drain()
            if self.close:
                return


def answer(status: int = 200, body: bytes = b"ok", **fields: str) -> bytes:
    lines = [
        f"HTTP/1.1 {status} x",
        f"Content-Length: {len(body)}",
        *(f"{k}: {v}" for k, v in fields.items()),
    ]
    return "\r\n".join(lines).replace("_", "-").encode() + b"\r\n\r\n" + body


def web(health: dict, reply: bytes, **more: object) -> Outcome:
    async def go() -> Outcome:
        async with serving(Web(reply)) as address:
            return await once(health, address, **more)

    return asyncio.run(go())


# ---- HTTP ------------------------------------------------------------------------------------------------

JSON = {"status": "UP", "checks": [{"n": 1, "ok": True}], "a/b": None, "load": 1.5}


@pytest.mark.parametrize(
    ("health", "reply", "verdict", "reason"),
    [
        ({}, answer(), "pass", "status 200"),
        ({}, answer(204, b""), "pass", "status 204"),
        ({}, answer(503), "fail", "status 503, expected 200-299"),
        ({}, answer(302, Location="/login"), "fail", "status 302, expected 200-299"),
        ({}, answer(429), "degraded", "status 429"),
        ({"degraded": []}, answer(429), "fail", "status 429, expected 200-299"),
        ({"status": ["2xx", "401"]}, answer(401), "pass", "status 401"),
        ({"status": ["204", "301-302"]}, answer(200), "fail", "status 200, expected 204, 301-302"),
        ({"body": "alive"}, answer(body=b"we are alive"), "pass", "status 200"),
        ({"body": "alive"}, answer(body=b"we are dead"), "fail", 'body has no "alive" in it'),
        ({"body": "alive"}, answer(body=b"x" * 5000 + b"alive"), "fail", 'body has no "alive" in it'),
        ({"pattern": "^up( |$)"}, answer(body=b"up to date"), "pass", "status 200"),
        ({"pattern": "^up$"}, answer(body=b"upper"), "fail", "body does not match ^up$"),
        (
            {"values": {"/status": "UP", "/checks/0/ok": True}},
            answer(body=json.dumps(JSON).encode()),
            "pass",
            "s",
        ),
        (
            {"values": {"/status": "DOWN"}},
            answer(body=json.dumps(JSON).encode()),
            "fail",
            '/status is "UP", expected "DOWN"',
        ),
        (
            {"values": {"/checks/0/ok": 1}},
            answer(body=json.dumps(JSON).encode()),
            "fail",
            "/checks/0/ok is true, expected 1",
        ),
        (
            {"values": {"/a~1b": "x"}},
            answer(body=json.dumps(JSON).encode()),
            "fail",
            '/a~1b is null, expected "x"',
        ),
        (
            {"values": {"/checks/7": 1}},
            answer(body=json.dumps(JSON).encode()),
            "fail",
            "body has no /checks/7",
        ),
        ({"values": {"/x": 1}}, answer(body=b"<html>"), "fail", "body is not JSON"),
        ({"values": {"/x": 1}}, answer(body=b"[" * 4000), "fail", "body is not JSON"),
        ({"identity": "X-Version"}, answer(X_Version="v2"), "fail", "X-Version says v2, expected v1"),
        ({"identity": "X-Version"}, answer(X_Version="v1"), "pass", "status 200"),
        ({"identity": "X-Version"}, answer(), "fail", "has no field X-Version, expected v1 in it"),
        ({}, b"SSH-2.0-OpenSSH\r\n", "fail", "its answer is not HTTP"),
        ({}, b"HTTP/1.1 200 OK\r\nContent-Length: nine\r\n\r\n", "fail", "its answer is not HTTP"),
    ],
)
def test_an_answer_is_held_against_what_is_expected(health, reply, verdict, reason):
    outcome = web({"path": "/health", **health}, reply)

    assert outcome.verdict == verdict
    assert outcome.reason.startswith(reason)


def test_the_request_is_as_configured():
    async def go() -> list[bytes]:
        server = Web(answer())
        async with serving(server) as address:
            health = {"path": "/h?deep=1", "method": "POST", "headers": {"X-Key": "k"}, "host": "app.example"}
            await once(health, address)
            await once({"path": "/"}, address)
            await once({"path": "/"}, address, host="literal:inner.example")
            return [*server.heads, address.encode()]

    post, plain, literal, address = asyncio.run(go())

    assert post.startswith(b"POST /h?deep=1 HTTP/1.1\r\n")
    assert b"\r\nHost: app.example\r\n" in post
    assert b"\r\nX-Key: k\r\n" in post
    assert b"\r\nUser-Agent: turnout-health/" in post
    assert plain.startswith(b"GET / HTTP/1.1\r\n")
    assert b"\r\nHost: " + address + b"\r\n" in plain
    assert b"\r\nHost: inner.example\r\n" in literal


def test_connections_are_used_again():
    async def go() -> int:
        server = Web(answer())
        async with serving(server) as address:
            outcome = await once({"path": "/"}, address, times=10)
            assert outcome.ok
            return server.connections

    assert asyncio.run(go()) == 1


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_connection_that_was_closed_meanwhile_says_nothing_about_the_endpoint(method):
    async def go() -> None:
        server = Web(answer(), close=True)
        async with serving(server) as address:
            assert (await once({"path": "/", "method": method}, address, times=5)).ok

    asyncio.run(go())


def test_of_a_huge_body_only_the_beginning_is_read():
    async def go() -> int:
        sent = 0

        async def endless(reader, writer):
            nonlocal sent
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
            while True:
                writer.write(b"x" * 65536)
                await writer.drain()
                sent += 65536

        async with serving(endless) as address:
            outcome = await once({"path": "/", "body": "xxx", "timeout": "2s"}, address, times=2)
            assert outcome.reason == "status 200"
        return sent

    assert asyncio.run(go()) < 50_000_000


@pytest.mark.parametrize(
    ("server", "reason", "counts"),
    [
        (Web(answer(), trickle=0.01), "no answer within 100 ms", 1),
        (Web(b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\nabc"), "answer not complete within 100 ms", 1),
        (
            Web(b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nabc", close=True),
            "closed the connection in the middle of its answer",
            1,
        ),
        (Web(b"", close=True), "closed the connection before it answered", 1),
    ],
)
def test_what_a_server_does_wrong_is_said(server, reason, counts):
    async def go() -> Outcome:
        async with serving(server) as address:
            return await once({"path": "/", "timeout": "100ms"}, address)

    outcome = asyncio.run(go())

    assert (outcome.verdict, outcome.reason, outcome.counts) == ("fail", reason, counts)


@pytest.fixture
def nobody():
    """An address where nobody listens."""

    async def go() -> str:
        async with serving(Web(b"")) as address:
            return address

    return asyncio.run(go())


@pytest.mark.parametrize(
    "health", [{"path": "/"}, {}, {"expect": "x"}, {"grpc": ""}, {"type": "websocket"}, {"type": "https"}]
)
def test_a_refused_connection_counts_twice(health, nobody):
    assert asyncio.run(once(health, nobody)) == Outcome("fail", "refused", 2)


@pytest.mark.parametrize("health", [{"path": "/"}, {}, {"grpc": ""}])
def test_a_missing_unix_socket_counts_twice(health, tmp_path):
    outcome = asyncio.run(once(health, f"unix:{tmp_path}/none"))

    assert outcome == Outcome("fail", "there is no such socket", 2)


def test_a_unix_socket_is_checked(tmp_path):
    async def go() -> tuple[Outcome, Outcome]:
        async with serving(Web(answer()), path=f"{tmp_path}/s") as address:
            return await once({"path": "/"}, address), await once({}, address)

    http, tcp = asyncio.run(go())

    assert http.reason == "status 200"
    assert tcp.reason == "connected"


def test_another_port_can_be_checked(nobody):
    async def go() -> Outcome:
        async with serving(Web(answer())) as address:
            return await once({"path": "/", "port": int(address.rpartition(":")[2])}, nobody)

    assert asyncio.run(go()).ok


@pytest.mark.parametrize(
    ("version", "header"), [("v1", b"PROXY UNKNOWN\r\n"), ("v2", b"\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00")]
)
@pytest.mark.parametrize("unix", [False, True])
def test_a_service_with_proxy_headers_is_checked_with_one(version, header, unix, tmp_path):
    async def go() -> Outcome:
        async def strict(reader, writer):
            assert await reader.readexactly(len(header)) == header
            await Web(answer())(reader, writer)

        async with serving(strict, path=f"{tmp_path}/s" if unix else None) as address:
            return await once({"path": "/"}, address, times=3, proxy_protocol=version)

    assert asyncio.run(go()).reason == "status 200"


# ---- TLS -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def authority():
    return Authority()


def tls_server(leaf, folder: Path, alpn: str = "http/1.1") -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*leaf.write(folder, f"leaf{id(leaf)}"))
    context.set_alpn_protocols([alpn])
    return context


def over_tls(authority, folder: Path, leaf, health: dict | None = None) -> Outcome:
    """Of an HTTPS check that trusts the authority and wants app.example."""
    (folder / "ca.pem").write_text(authority.pem)
    tls = {"ca": "ca.pem", "name": "app.example"}

    async def go() -> Outcome:
        async with serving(Web(answer()), tls_server(leaf, folder)) as address:
            return await once({"path": "/", **(health or {})}, address, times=2, folder=folder, tls=tls)

    return asyncio.run(go())


@pytest.mark.parametrize(
    ("names", "ends", "verdict", "reason"),
    [
        (["app.example"], 100 * DAY, "pass", ""),
        (["app.example"], 5 * DAY + HOUR, "pass", "; certificate expires in 5 days"),
        (["app.example"], -3 * DAY - HOUR, "fail", "certificate expired 3 days ago"),
        (["other.example"], 100 * DAY, "fail", "certificate is for other.example, not for app.example"),
    ],
)
def test_a_certificate_has_to_be_good(authority, tmp_path, names, ends, verdict, reason):
    leaf = authority.leaf(*names, ends=ends)
    http, tcp = over_tls(authority, tmp_path, leaf), tcp_over_tls(authority, tmp_path, leaf)

    assert http.verdict == tcp.verdict == verdict
    assert http.reason == ("status 200" if verdict == "pass" else "") + reason
    assert tcp.reason == ("connected" if verdict == "pass" else "") + reason


def tcp_over_tls(authority, folder: Path, leaf) -> Outcome:
    (folder / "ca.pem").write_text(authority.pem)

    async def go() -> Outcome:
        async with serving(Web(answer()), tls_server(leaf, folder)) as address:
            return await once({}, address, folder=folder, tls={"ca": "ca.pem", "name": "app.example"})

    return asyncio.run(go())


def test_a_certificate_that_runs_out_while_its_connection_stands_is_noticed(authority, tmp_path, monkeypatch):
    (tmp_path / "ca.pem").write_text(authority.pem)

    async def go() -> Outcome:
        leaf = authority.leaf("app.example", ends=2 * DAY)
        checks = Checks(tmp_path)
        async with serving(Web(answer()), tls_server(leaf, tmp_path)) as address:
            check = make(checks, {"path": "/"}, address, tls={"ca": "ca.pem", "name": "app.example"})
            assert (await run(check)).outcome.ok
            later = time.time() + 3 * DAY.total_seconds()
            monkeypatch.setattr("turnout.control.health.tls.time.time", lambda: later)
            out = (await run(check)).outcome
            await checks.close()
            return out

    assert asyncio.run(go()).reason.startswith("certificate expired")


def test_an_authority_that_nobody_knows_is_said(authority, tmp_path):
    stranger = Authority("Stranger").leaf("app.example")

    assert over_tls(authority, tmp_path, stranger).reason == "certificate is signed by nobody who is trusted"


def test_verification_can_be_left_out_for_checks_alone(authority, tmp_path):
    stranger = Authority("Stranger").leaf("other.example", ends=-DAY)

    assert over_tls(authority, tmp_path, stranger, {"tls": {"verify": False}}).ok


def test_an_endpoint_without_tls_is_said(authority, tmp_path):
    async def go() -> Outcome:
        async def plain(reader, writer):
            await reader.read(10)
            writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
            await writer.drain()

        async with serving(plain) as address:
            return await once({"path": "/"}, address, tls={"verify": False})

    assert asyncio.run(go()).reason == "does not speak TLS"


def test_a_file_that_is_not_there_is_said(authority, tmp_path):
    outcome = over_tls(authority, tmp_path, authority.leaf("app.example"), {"tls": {"ca": "gone.pem"}})

    assert outcome.verdict == "fail"
    assert "gone.pem of the check's tls cannot be used: No such file" in outcome.reason


# ---- TCP -------------------------------------------------------------------------------------------------


def talk(health: dict, *said: bytes, **more: object) -> Outcome:
    async def go() -> Outcome:
        async def server(reader, writer):
            if "send" in health:
                await reader.readexactly(len(health["send"].encode()))
            for part in said:
                writer.write(part)
                await writer.drain()
                await asyncio.sleep(0.01)
            if not more.get("close"):
                await reader.read()

        async with serving(server) as address:
            return await once({"timeout": "300ms", **health}, address)

    return asyncio.run(go())


def test_a_connection_is_enough_when_nothing_else_is_asked():
    assert talk({}).reason == "connected"


def test_what_is_expected_may_come_in_pieces():
    assert talk({"send": "PING\r\n", "expect": "+PONG"}, b"+PO", b"NG\r\n").reason == 'answered "+PONG"'
    assert talk({"expect": "hex:0a0bff"}, b"\x0a", b"\x0b\xff").ok


@pytest.mark.parametrize(
    ("said", "more", "reason"),
    [
        ([b"-ERR\r\n"], {"close": True}, 'closed the connection after "-ERR\\x0d\\x0a", expected "+PONG"'),
        ([], {"close": True}, 'closed the connection after nothing, expected "+PONG"'),
        ([b"x" * 5000], {}, 'answered "' + "x" * 40 + '...", expected "+PONG"'),
        ([b"-ERR"], {}, "no answer within 300 ms"),
    ],
)
def test_what_is_not_what_was_expected_is_said(said, more, reason):
    assert talk({"send": "PING\r\n", "expect": "+PONG"}, *said, **more).reason == reason


# ---- UDP -------------------------------------------------------------------------------------------------


class Datagrams(asyncio.DatagramProtocol):
    def __init__(self, reply: bytes | None) -> None:
        self.reply = reply

    def connection_made(self, transport):
        self.transport = transport

    def datagram_received(self, data, peer):
        if self.reply is not None:
            self.transport.sendto(self.reply, peer)


def udp(health: dict, reply: bytes | None, *, closed: bool = False) -> Outcome:
    async def go() -> Outcome:
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_datagram_endpoint(lambda: Datagrams(reply), ("127.0.0.1", 0))
        address = "127.0.0.1:{}".format(transport.get_extra_info("sockname")[1])
        if closed:
            transport.close()
            await asyncio.sleep(0)
        try:
            return await once({"type": "udp", "send": "ping", "timeout": "100ms", **health}, address)
        finally:
            transport.close()

    return asyncio.run(go())


def test_a_datagram_that_is_answered_passes():
    assert udp({}, b"x") == Outcome("pass", "answered")
    assert udp({"expect": "pong"}, b"a pong") == Outcome("pass", "answered")


def test_another_answer_than_the_expected_one_fails():
    assert udp({"expect": "pong"}, b"no") == Outcome("fail", 'answered "no", expected "pong"')


def test_silence_says_nothing_unless_an_answer_was_expected():
    assert udp({}, None) == Outcome("unknown", "no answer within 100 ms")
    assert udp({"expect": "pong"}, None) == Outcome("fail", "no answer within 100 ms")


def test_a_closed_port_is_refused():
    assert udp({}, None, closed=True) == Outcome("fail", "refused", 2)


# ---- gRPC ------------------------------------------------------------------------------------------------


class HealthService(grpc.GenericRpcHandler):
    """grpc.health.v1.Health without generated code: bytes in, bytes out."""

    def __init__(self) -> None:
        self.asked: list[bytes] = []
        self.statuses = {b"": 1, b"\x0a\x06orders": 2, b"\x0a\x04none": 3, b"\x0a\x03odd": 0}
        self.delay = 0.0
        self.peers: set[str] = set()

    def service(self, details):
        if details.method != "/grpc.health.v1.Health/Check":
            return None
        return grpc.unary_unary_rpc_method_handler(self.check)

    def check(self, request, context):
        self.asked.append(request)
        self.peers.add(context.peer())
        time.sleep(self.delay)
        if request not in self.statuses:
            context.abort(grpc.StatusCode.NOT_FOUND, "no such service")
        status = self.statuses[request]
        return b"\x08" + bytes([status]) if status else b""


@contextlib.contextmanager
def grpc_server(*handlers, credentials=None):
    server = grpc.server(futures.ThreadPoolExecutor(2), handlers=handlers)
    port = (
        server.add_secure_port("127.0.0.1:0", credentials)
        if credentials
        else server.add_insecure_port("127.0.0.1:0")
    )
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(None).wait()


@pytest.mark.parametrize(
    ("service", "verdict", "reason"),
    [
        ("", "pass", "SERVING"),
        ("orders", "fail", "NOT_SERVING, expected SERVING"),
        ("none", "fail", "SERVICE_UNKNOWN, expected SERVING"),
        ("odd", "fail", "UNKNOWN, expected SERVING"),
        ("stranger", "fail", "NOT_FOUND: no such service"),
        ("s" * 200, "fail", "NOT_FOUND: no such service"),
    ],
)
def test_a_grpc_server_says_how_it_is(service, verdict, reason):
    with grpc_server(HealthService()) as address:
        outcome = asyncio.run(once({"grpc": service}, address))

    assert (outcome.verdict, outcome.reason) == (verdict, reason)


def test_a_grpc_server_without_health_is_down():
    with grpc_server() as address:
        assert asyncio.run(once({"grpc": ""}, address)).reason.startswith("UNIMPLEMENTED")


def test_a_grpc_connection_is_used_again_and_made_anew_when_it_has_ended():
    async def go() -> int:
        checks, service = Checks(Path()), HealthService()
        with grpc_server(service) as address:
            check = make(checks, {"grpc": ""}, address)
            for _ in range(5):
                assert (await run(check)).outcome.reason == "SERVING"
            assert len(service.peers) == 1
            port = int(address.rpartition(":")[2])
        second = grpc.server(futures.ThreadPoolExecutor(1), handlers=[service])
        second.add_insecure_port(f"127.0.0.1:{port}")
        second.start()
        assert (await run(check)).outcome.reason == "SERVING"
        check.close()
        await checks.close()
        second.stop(None).wait()
        return len(service.peers)

    assert asyncio.run(go()) == 2


def test_a_slow_grpc_server_is_late():
    service = HealthService()
    service.delay = 0.3
    with grpc_server(service) as address:
        outcome = asyncio.run(once({"grpc": "", "timeout": "100ms"}, address))

    assert outcome.verdict == "fail"
    assert outcome.reason in {"no answer within 100 ms", "DEADLINE_EXCEEDED: Deadline Exceeded"}


def test_grpc_goes_over_tls(authority, tmp_path):
    leaf = authority.leaf("app.example")
    (tmp_path / "ca.pem").write_text(authority.pem)
    credentials = grpc.ssl_server_credentials([(leaf.key.encode(), leaf.chain.encode())])
    with grpc_server(HealthService(), credentials=credentials) as address:
        tls = {"ca": "ca.pem", "name": "app.example"}
        outcome = asyncio.run(once({"grpc": ""}, address, times=2, folder=tmp_path, tls=tls))

    assert outcome.reason == "SERVING"


def test_a_server_of_something_else_is_no_grpc_server():
    async def go() -> Outcome:
        async def other(reader, writer):
            await reader.read(10)
            writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            await writer.drain()
            await reader.read()

        async with serving(other) as address:
            return await once({"grpc": ""}, address)

    assert asyncio.run(go()).reason.startswith("does not speak HTTP/2")


# ---- WebSocket -------------------------------------------------------------------------------------------


def test_a_websocket_server_answers_a_ping():
    async def go() -> Outcome:
        async def chatty(socket):
            await socket.send("hello")
            await socket.wait_closed()

        async with websockets.serve(chatty, "127.0.0.1", 0) as server:
            address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
            return await once({"type": "websocket", "path": "/feed"}, address, times=3)

    assert asyncio.run(go()) == Outcome("pass", "answered a ping")


def test_a_web_server_that_grants_no_upgrade_is_down():
    assert web({"type": "websocket"}, answer(404)).reason == "status 404, expected 101"


def test_a_websocket_that_is_closed_at_once_is_down():
    async def go() -> Outcome:
        async def unwilling(socket):
            await socket.close(1013)

        async with websockets.serve(unwilling, "127.0.0.1", 0) as server:
            address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
            return await once({"type": "websocket"}, address)

    assert asyncio.run(go()).reason in {"answered a ping", "closed the WebSocket instead of answering a ping"}


# ---- exec ------------------------------------------------------------------------------------------------


def script(code: str, **more: object) -> Outcome:
    health = {"exec": [sys.executable, "-S", "-c", code, "{host}", "{port}"], "timeout": "2s", **more}
    return asyncio.run(once(health, "127.0.0.1:5432"))


@pytest.mark.parametrize(
    ("code", "verdict", "reason"),
    [
        ("print('all well')", "pass", "all well"),
        ("pass", "pass", "exit code 0"),
        ("import sys; print('slow'); sys.exit(1)", "degraded", "exit code 1: slow"),
        ("import sys; sys.stderr.write('a\\nno disk\\n'); sys.exit(3)", "fail", "exit code 3: no disk"),
        ("import os; os.kill(os.getpid(), 9)", "fail", "ended by signal 9"),
        ("import sys; print(' '.join(sys.argv[1:]))", "pass", "127.0.0.1 5432"),
        ("import os; print(os.environ['TURNOUT_ENDPOINT' if 0 else 'TURNOUT_SERVICE'])", "pass", "app"),
        ("print('x' * 1000000)", "pass", "x" * 200),
    ],
)
def test_a_program_says_by_its_exit_code_how_an_endpoint_is(code, verdict, reason):
    outcome = script(code)

    assert (outcome.verdict, outcome.reason) == (verdict, reason)


def test_a_program_that_takes_too_long_is_killed_with_its_children(tmp_path):
    pids = tmp_path / "pids"
    code = (
        "import os, time; child = os.fork(); "
        f"f = open({str(pids)!r}, 'a'); f.write(str(os.getpid()) + '\\n'); f.close(); time.sleep(60)"
    )
    outcome = script(code, interval="10s", timeout="1s")

    assert outcome.reason.endswith("did not end within 1 s and was killed")
    for pid in pids.read_text().split():
        wait_until_gone(int(pid))


def wait_until_gone(pid: int) -> None:
    stat = Path(f"/proc/{pid}/stat")
    while stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z":
        time.sleep(0.01)


def test_a_program_that_is_not_there_is_said():
    outcome = asyncio.run(once({"exec": ["/nowhere/check"]}, "127.0.0.1:1"))

    assert outcome.reason == "/nowhere/check cannot be started: no such file or directory"


# ---- ttl -------------------------------------------------------------------------------------------------


def test_silence_longer_than_the_ttl_fails_and_a_heartbeat_ends_it():
    async def go() -> None:
        checks = Checks(Path())
        check = make(checks, {"ttl": "50ms"}, "127.0.0.1:1")
        assert (await run(check)).outcome.verdict == "unknown"
        await asyncio.sleep(0.06)
        assert (await run(check)).outcome == Outcome("fail", "no heartbeat for 50 ms")
        assert check.beat("warn", "queue is long") == Outcome("degraded", "queue is long")
        assert (await run(check)).outcome.verdict == "unknown"
        with pytest.raises(
            ValueError, match='"fine" is not a status of a heartbeat; say one of pass, warn, fail'
        ):
            check.beat("fine", "")
        await checks.close()

    asyncio.run(go())
