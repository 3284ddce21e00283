"""Who is let in, over real sockets: tokens, users of a unix socket, client certificates."""

import asyncio
import contextlib
import json
import os
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from cryptography import x509
from fakes.certs import Authority, Leaf

from turnout.control.access import tls
from turnout.control.access.errors import AccessError
from turnout.control.access.gate import Gate
from turnout.control.access.limiter import Limiter
from turnout.control.access.roles import Role
from turnout.control.access.tokens import BadTokenError, Token
from turnout.proxy.config import ConfigError
from turnout.proxy.model import ControlClient, ControlTls

GOOD = {"Authorization": "Bearer good"}
NOBODY = 65534
ASK = """
import http.client, os, socket, sys
if sys.argv[2]:
    os.setuid(int(sys.argv[2]))  # once it has imported all: another user may not read the interpreter's files
to = http.client.HTTPConnection("localhost")
to.sock = socket.socket(socket.AF_UNIX)
to.sock.connect(sys.argv[1])
to.request("GET", "/", headers={"Authorization": sys.argv[3]} if len(sys.argv) > 3 else {})
answer = to.getresponse()
print(answer.status, answer.read().decode())
"""
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")


class OneToken:
    async def check(self, text: str) -> Token:
        if text != "good":
            raise BadTokenError("this token is not valid")
        return Token("1", "ci", Role.OPERATOR, ("trading",), 0, "root", None, None, None, None)


@contextlib.asynccontextmanager
async def served(gate: Gate, sock: socket.socket, context: ssl.SSLContext | None = None):
    """Says who asks, or why he is not let in."""

    async def who(request: web.Request) -> web.Response:
        try:
            actor = await gate.identify(request)
        except AccessError as error:
            return web.json_response(
                {"detail": error.detail, "source": error.source, "record": error.record},
                status=error.status,
                headers=error.headers,
            )
        return web.json_response(
            [actor.kind, actor.name, str(actor.role), list(actor.namespaces), actor.source]
        )

    app = web.Application()
    app.router.add_get("/", who)
    runner = web.AppRunner(app, handle_signals=False, shutdown_timeout=1.0)
    await runner.setup()
    await web.SockSite(runner, sock, ssl_context=context).start()
    try:
        yield
    finally:
        await runner.cleanup()


def ask(gate: Gate, *requests: dict[str, str]) -> list[tuple[int, object, dict[str, str]]]:
    """Status, body and headers of the answers, over TCP."""

    async def whole():
        sock = socket.create_server(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{sock.getsockname()[1]}/"
        out = []
        async with served(gate, sock), aiohttp.ClientSession() as session:
            for headers in requests:
                async with session.get(url, headers=headers) as answer:
                    out.append((answer.status, await answer.json(), dict(answer.headers)))
        return out

    return asyncio.run(whole())


# ---- over TCP --------------------------------------------------------------------------------------------


def test_a_token_says_who_asks():
    assert ask(Gate(OneToken()), GOOD)[0][:2] == (200, ["token", "ci", "operator", ["trading"], "127.0.0.1"])


def test_nobody_is_told_how_to_be_somebody():
    ((status, body, headers),) = ask(Gate(OneToken()), {})

    assert status == 401
    assert "Authorization: Bearer" in body["detail"]
    assert headers["WWW-Authenticate"].startswith("Bearer")


@pytest.mark.parametrize("shown", ["Bearer bad", "Bearer", "Basic cm9vdDo=", "good", ""])
def test_what_is_no_good_token_is_refused(shown):
    assert ask(Gate(OneToken()), {"Authorization": shown})[0][0] == 401


def test_without_authentication_everybody_is_an_administrator():
    assert ask(Gate(OneToken(), auth="none"), {})[0][:2] == (200, ["open", "", "admin", ["*"], "127.0.0.1"])


def test_who_shows_a_token_is_what_the_token_says_even_where_none_is_needed():
    gate = Gate(OneToken(), auth="none")

    assert [status for status, _, _ in ask(gate, GOOD, {"Authorization": "Bearer bad"})] == [200, 401]
    assert ask(gate, GOOD)[0][1][2] == "operator"


def test_many_wrong_tokens_have_to_wait_and_only_the_first_of_them_is_recorded():
    gate = Gate(OneToken(), limiter=Limiter(burst=2, per_s=0.01))
    answers = ask(gate, *[{"Authorization": "Bearer bad"}] * 5)

    assert [status for status, _, _ in answers] == [401, 401, 429, 429, 429]
    assert [body["record"] for _, body, _ in answers] == [True, True, True, False, False]
    assert int(answers[2][2]["Retry-After"]) == 100


def test_a_good_token_gets_through_from_where_others_fail():
    gate = Gate(OneToken(), limiter=Limiter(burst=1, per_s=0.01))
    bad = {"Authorization": "Bearer bad"}

    assert [status for status, _, _ in ask(gate, bad, bad, GOOD)] == [401, 429, 200]


# ---- over a unix socket ----------------------------------------------------------------------------------


@pytest.fixture
def open_place():
    """A folder that every user can look into."""
    with tempfile.TemporaryDirectory(prefix="turnout-test-") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def ask_as(uid: int | None, gate: Gate, place: Path, *more: str) -> tuple[int, object]:
    """Status and body of the answer to a process of that user."""

    async def whole():
        sock = socket.socket(socket.AF_UNIX)
        sock.bind(str(place / "a.sock"))
        (place / "a.sock").chmod(0o666)
        sock.listen()
        async with served(gate, sock):
            child = await asyncio.create_subprocess_exec(
                sys.executable,
                "-c",
                ASK,
                str(place / "a.sock"),
                "" if uid is None else str(uid),
                *more,
                stdout=subprocess.PIPE,
            )
            said, _ = await child.communicate()
            return said.decode()

    status, _, body = asyncio.run(whole()).partition(" ")
    return int(status), json.loads(body)


def test_the_user_of_the_proxy_is_an_administrator_at_its_unix_socket(open_place):
    status, body = ask_as(None, Gate(OneToken()), open_place)

    assert (status, body[0], body[2:4]) == (200, "socket", ["admin", ["*"]])


@as_root
def test_another_user_is_nobody_there(open_place):
    status, body = ask_as(NOBODY, Gate(OneToken()), open_place)

    assert status == 401
    assert body["source"] == "unix:nobody"
    assert "for root and the user of the proxy, you are nobody" in body["detail"]


@as_root
def test_another_user_with_a_token_is_what_it_says(open_place):
    assert ask_as(NOBODY, Gate(OneToken()), open_place, "Bearer good")[1][:3] == ["token", "ci", "operator"]


@as_root
def test_the_owner_and_root_are_let_in_whoever_the_owner_is(open_place):
    assert ask_as(NOBODY, Gate(OneToken(), owner=NOBODY), open_place)[0] == 200
    (open_place / "a.sock").unlink()
    assert ask_as(0, Gate(OneToken(), owner=NOBODY), open_place)[0] == 200
    (open_place / "a.sock").unlink()
    assert ask_as(1, Gate(OneToken(), owner=NOBODY), open_place)[0] == 401


# ---- over TLS --------------------------------------------------------------------------------------------


CLIENTS = {
    "deploy.example": ControlClient(role="deployer", namespaces=("trading",)),
    "Ann Operator": ControlClient(role="operator"),
}


@pytest.fixture
def authority():
    return Authority()


def ask_tls(
    folder: Path,
    authority: Authority,
    shown: Leaf | None,
    *,
    headers: dict[str, str] | None = None,
    client: str = "optional",
) -> tuple[int, object]:
    """Status and body; ssl.SSLError or a broken connection when there is no handshake."""
    authority.leaf("127.0.0.1", "proxy.example").write(folder)
    (folder / "clients.pem").write_text(authority.pem)
    wanted = ControlTls(cert="site.pem", key="site.key", client_ca="clients.pem", client=client)
    server = tls.context(wanted, folder / "turnout.toml")
    trust = ssl.create_default_context(cadata=authority.pem)
    if shown is not None:
        trust.load_cert_chain(*shown.write(folder, "client"))

    async def whole():
        sock = socket.create_server(("127.0.0.1", 0))
        url = f"https://127.0.0.1:{sock.getsockname()[1]}/"
        gate = Gate(OneToken(), clients=CLIENTS)
        async with (
            served(gate, sock, server),
            aiohttp.ClientSession() as session,
            session.get(url, ssl=trust, headers=headers) as answer,
        ):
            return answer.status, await answer.json()

    return asyncio.run(whole())


def test_a_client_certificate_says_who_asks(tmp_path, authority):
    leaf = authority.leaf("deploy.example", client=True)

    assert ask_tls(tmp_path, authority, leaf) == (
        200,
        ["mtls", "deploy.example", "deployer", ["trading"], "127.0.0.1"],
    )


def test_the_common_name_counts_for_a_certificate_without_other_names(tmp_path, authority):
    assert (
        ask_tls(tmp_path, authority, authority.leaf(common="Ann Operator", client=True))[1][1]
        == "Ann Operator"
    )


def test_the_common_name_does_not_count_beside_other_names(tmp_path, authority):
    leaf = authority.leaf("other.example", common="Ann Operator", client=True)
    status, body = ask_tls(tmp_path, authority, leaf)

    assert status == 401
    assert "the certificate names other.example, and [control.clients] has no such entry" in body["detail"]


def test_over_tls_without_a_certificate_a_token_counts(tmp_path, authority):
    assert ask_tls(tmp_path, authority, None)[0] == 401
    assert ask_tls(tmp_path, authority, None, headers=GOOD)[1][1] == "ci"


def test_a_certificate_of_another_authority_is_refused_in_the_handshake(tmp_path, authority):
    leaf = Authority("Another CA").leaf("deploy.example", client=True)
    with pytest.raises((aiohttp.ClientError, ssl.SSLError, ConnectionError)):
        ask_tls(tmp_path, authority, leaf)


def test_without_a_certificate_there_is_no_handshake_where_one_is_required(tmp_path, authority):
    with pytest.raises((aiohttp.ClientError, ssl.SSLError, ConnectionError)):
        ask_tls(tmp_path, authority, None, client="required")

    assert (
        ask_tls(tmp_path, authority, authority.leaf("deploy.example", client=True), client="required")[0]
        == 200
    )


def test_the_names_of_the_certificate_are_those_the_listener_is_called_by(tmp_path, authority):
    authority.leaf("127.0.0.1", "Proxy.example", "other.example").write(tmp_path)
    wanted = ControlTls(cert="site.pem", key="site.key")

    assert tls.names(wanted, tmp_path / "turnout.toml") == {"proxy.example", "other.example"}


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"cert": "none.pem"}, "tls.cert: none.pem cannot be used: No such file"),
        ({"key": "none.pem"}, "tls.key: none.pem cannot be used: No such file"),
        ({"key": "other.key"}, "tls.cert: site.pem with key other.key cannot be used: KEY_VALUES_MISMATCH"),
        ({"client_ca": "none.pem"}, "tls.client_ca: none.pem cannot be used: No such file"),
        ({"client_ca": "site.key"}, "tls.client_ca: site.key cannot be used: "),
    ],
)
def test_a_file_that_cannot_be_used_is_named(tmp_path, authority, wrong, said):
    authority.leaf("127.0.0.1").write(tmp_path)
    authority.leaf("127.0.0.1").write(tmp_path, "other")
    with pytest.raises(ConfigError) as refused:
        tls.context(ControlTls(**{"cert": "site.pem", "key": "site.key", **wrong}), tmp_path / "turnout.toml")

    assert said in str(refused.value)


def shown(context: ssl.SSLContext, authority: Authority) -> int:
    """The serial number of the certificate in a handshake with this context."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        client = ssl.create_default_context(cadata=authority.pem)
        thread = threading.Thread(target=lambda: context.wrap_socket(theirs, server_side=True).close())
        thread.start()
        with client.wrap_socket(ours, server_hostname="proxy.example") as tls_socket:
            raw = tls_socket.getpeercert(binary_form=True)
        thread.join()
    return x509.load_der_x509_certificate(raw).serial_number


def test_a_renewed_certificate_is_shown_and_a_bad_one_is_not(tmp_path, authority, caplog):
    first, second = authority.leaf("proxy.example"), authority.leaf("proxy.example")
    first.write(tmp_path)
    wanted, file = ControlTls(cert="site.pem", key="site.key"), tmp_path / "turnout.toml"
    context = tls.context(wanted, file)
    chain = tls.Chain(context, wanted, file)
    assert shown(context, authority) == first.certificate.serial_number

    (tmp_path / "site.pem").write_text(second.chain)
    chain.look()
    chain.look()
    assert "is not renewed" in caplog.text
    assert shown(context, authority) == first.certificate.serial_number

    (tmp_path / "site.key").write_text(second.key)
    chain.look()
    assert shown(context, authority) == first.certificate.serial_number, "it may still be written"
    chain.look()
    assert shown(context, authority) == second.certificate.serial_number
