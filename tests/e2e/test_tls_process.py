"""TLS as its users configure it: files beside the configuration, replaced while the proxy runs."""

import asyncio
import signal
import socket
import ssl
import subprocess
import sys

from fakes.certs import Authority
from fakes.origin import Origin, answering
from harness.client import Connection, get, load, until
from harness.turnout import free_port, scenario, turnout

CA = Authority()
BACKEND = CA.leaf("backend.test")


def config(port: int, endpoint: str, *, plain: int = 0, service: str = "", more: str = "") -> str:
    redirect = f'[listeners.plain]\nbind = "127.0.0.1:{plain}"\nredirect_https = {port}\n' if plain else ""
    return f"""
[proxy]
workers = 2
grace = "5s"
state = "state"
[control]
listen = "127.0.0.1:{free_port()}"
socket = "off"
[listeners.web]
bind = "127.0.0.1:{port}"
tls = {{ cert = "site.pem", key = "site.key" {more} }}
{redirect}
[services.app]
endpoints = ["{endpoint}"]
{service}
[[routes]]
service = "app"
"""


def trusting() -> ssl.SSLContext:
    return ssl.create_default_context(cadata=CA.pem)


def common_name(connection: Connection) -> str:
    subject = connection.writer.get_extra_info("peercert")["subject"]
    return dict(pair[0] for pair in subject)["commonName"]


def visit(port: int, context: ssl.SSLContext, session: ssl.SSLSession | None = None):
    """The session of one request, and whether it was a former one."""
    with (
        socket.create_connection(("127.0.0.1", port), 10) as sock,
        context.wrap_socket(sock, server_hostname="site.test", session=session) as tls,
    ):
        tls.sendall(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n")
        assert tls.recv(65536).startswith(b"HTTP/1.1 200 ")
        return tls.session, tls.session_reused


@scenario
async def test_https_on_both_sides_and_a_redirect_to_it(tmp_path):
    CA.leaf("site.test").write(tmp_path)
    certificate, key = BACKEND.write(tmp_path, "backend")
    (tmp_path / "ca.pem").write_text(CA.pem)
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(certificate, key)
    port, plain = free_port(), free_port()
    with Origin(answering("hello"), tls=serving) as origin:
        trust = 'tls = { ca = "ca.pem", name = "backend.test" }'
        text = config(port, f"https://{origin.address}", plain=plain, service=trust, more=", hsts = true")
        async with turnout(tmp_path, text) as proxy:
            answer = await get(port, tls=trusting())
            redirected = await get(plain, "/a?b")
            assert await proxy.stop() == 0

    assert (answer.status, answer.body) == (200, b"hello")
    assert answer.headers["strict-transport-security"] == "max-age=63072000"
    assert (redirected.status, redirected.headers["location"]) == (308, f"https://test:{port}/a?b")


@scenario
async def test_replaced_files_are_served_and_bad_ones_are_not(tmp_path):
    CA.leaf("site.test", common="first").write(tmp_path)
    port = free_port()

    async def served() -> str:
        connection = await Connection.open(port, trusting())
        try:
            assert (await connection.get()).status == 200
            return common_name(connection)
        finally:
            connection.close()

    with Origin(answering("hello")) as origin:
        async with (
            turnout(tmp_path, config(port, origin.address)) as proxy,
            load(port, tls=trusting()) as running,
        ):
            await running.more(20)
            kept = await Connection.open(port, trusting())
            assert await served() == "first"

            CA.leaf("site.test", common="second").write(tmp_path)
            await until(lambda: proxy.said("certificates renewed"))
            assert await served() == "second"
            await running.more(20)

            (tmp_path / "site.pem").write_text(CA.leaf("site.test", common="third").chain)
            await until(lambda: proxy.said("certificates not renewed"))
            assert "the key does not match the certificate" in proxy.text
            assert await served() == "second"
            await running.more(20)

            CA.leaf("site.test", common="fourth").write(tmp_path)
            await until(lambda: len(proxy.said("certificates renewed")) == 2)
            assert await served() == "fourth"
            assert (await kept.get()).status == 200
            kept.close()
    assert running.failures == []


@scenario
async def test_sessions_outlive_an_upgrade(tmp_path):
    CA.leaf("site.test").write(tmp_path)
    port = free_port()
    context = trusting()
    with Origin(answering("hello")) as origin:
        async with turnout(tmp_path, config(port, origin.address)) as proxy:
            session, resumed = await asyncio.to_thread(visit, port, context)
            assert not resumed
            proxy.signal(signal.SIGUSR2)
            await proxy.serving(2)
            for _ in range(4):
                _, resumed = await asyncio.to_thread(visit, port, context, session)
                assert resumed
            assert "BEGIN" not in proxy.text


def test_check_tells_what_is_wrong_with_certificates(tmp_path):
    CA.leaf("site.test").write(tmp_path)
    BACKEND.write(tmp_path, "backend")
    (tmp_path / "site.key").write_text(BACKEND.key)
    file = tmp_path / "turnout.toml"
    file.write_text(config(8443, "10.0.0.1:80"))
    told = subprocess.run(
        [sys.executable, "-m", "turnout", "check", file], capture_output=True, timeout=30, check=False
    )
    assert told.returncode == 2
    assert b'[listeners.web] tls: the key does not match the certificate "site.pem"' in told.stderr
