"""Both clients against an API that is played."""

import inspect
import socket
import ssl

import pytest
from fakes.certs import Authority

import turnout
from turnout.control.client import (
    BadUrlError,
    ChangedError,
    ForbiddenError,
    GoneError,
    LimitedError,
    NobodyAnswersError,
    NotFoundError,
    RefusedError,
    Tls,
    UnauthorizedError,
)

from .conftest import Answer

ENDPOINT = "/v1/services/trading%3Aorders/endpoints/unix%3A%2Frun%2Fa.sock"
HERE = ("trading:orders", "unix:/run/a.sock")


def methods(kind: type) -> dict[str, list[str]]:
    return {
        name: list(inspect.signature(member).parameters)
        for name, member in vars(kind).items()
        if inspect.isfunction(member) and not name.startswith("_")
    }


def test_both_clients_have_the_same_methods_with_the_same_parameters():
    assert methods(turnout.Client) == methods(turnout.AsyncClient)


@pytest.mark.parametrize(
    ("do", "asked", "body"),
    [
        (lambda c: c.status(), "GET /v1/status", None),
        (lambda c: c.stop(now=True), "POST /v1/stop", {"now": True}),
        (lambda c: c.weight(*HERE, 3), f"PATCH {ENDPOINT}", {"weight": 3}),
        (lambda c: c.admin(*HERE, "drain"), f"PATCH {ENDPOINT}", {"admin": "drain"}),
        (
            lambda c: c.admin(*HERE, "maint", reason="disk", until=5.0),
            f"PATCH {ENDPOINT}",
            {"admin": "maint", "reason": "disk", "until": 5.0},
        ),
        (
            lambda c: c.register("orders", "10.0.0.1:80", ttl=9, version="v2", tags=["a"]),
            "POST /v1/services/orders/endpoints",
            {"address": "10.0.0.1:80", "lease_ttl": 9, "version": "v2", "tags": ["a"]},
        ),
        (
            lambda c: c.endpoint(*HERE, {"weight": 1, "admin": "ready"}),
            f"PATCH {ENDPOINT}",
            {"weight": 1, "admin": "ready"},
        ),
        (lambda c: c.endpoint(*HERE), f"GET {ENDPOINT}", None),
        (lambda c: c.split("app"), "GET /v1/services/app/split", None),
        (lambda c: c.put_service("app", {"kind": "http"}), "PUT /v1/services/app", {"kind": "http"}),
        (lambda c: c.delete_service("app"), "DELETE /v1/services/app", None),
        (lambda c: c.services(kind="tcp"), "GET /v1/services?kind=tcp&limit=1000", None),
        (
            lambda c: c.past_events(7, kind="split"),
            "GET /v1/events?kind=split&from=7&follow=false&limit=100",
            None,
        ),
        (
            lambda c: c.create_token("ci", "viewer", ttl_s=60),
            "POST /v1/tokens",
            {"name": "ci", "role": "viewer", "namespaces": ["*"], "ttl_s": 60},
        ),
        (lambda c: c.audit(actor="ci", newest="true"), "GET /v1/audit?actor=ci&newest=true", None),
        (
            lambda c: c.heartbeat(*HERE, "warn", "slow"),
            f"PUT {ENDPOINT}/health",
            {"status": "warn", "note": "slow"},
        ),
        (lambda c: c.renew(*HERE), f"PUT {ENDPOINT}/lease", {}),
        (lambda c: c.deregister(*HERE), f"DELETE {ENDPOINT}", None),
        (lambda c: c.call("GET", "/v1/workers"), "GET /v1/workers", None),
    ],
)
def test_a_call_is_one_request(client, api, do, asked, body):
    api.answer[asked.partition("?")[0]] = Answer({"expires": 1.0, "items": [], "next": None, "shares": {}})
    do(client)

    assert api.asked() == [asked]
    assert (api.came[0].json if api.came[0].body else None) == body


def test_what_is_asked_is_read_out_of_the_answer(client, api):
    api.answer["POST /v1/reload"] = Answer({"snapshot": 7})
    api.answer["POST /v1/upgrade"] = Answer({"pid": 4711})
    api.answer["PUT /v1/services/a/split"] = Answer({"shares": {"v1": 1.0}})

    assert (client.reload(), client.upgrade(), client.split("a", {"v1": 9})) == (7, 4711, {"v1": 1.0})


def test_all_pages_of_a_list_are_read(client, api):
    api.answer["GET /v1/services/a/endpoints"] = [
        Answer({"items": [1, 2], "next": "x y"}),
        Answer({"items": [3], "next": None}),
    ]

    assert client.endpoints("a") == [1, 2, 3]
    assert api.asked()[1].endswith("cursor=x+y")


def test_a_revision_is_what_the_change_is_for(client, api):
    api.answer[f"DELETE {ENDPOINT}"] = Answer(
        {"title": "Precondition Failed", "detail": "it has changed"}, 412
    )
    with pytest.raises(ChangedError, match="it has changed"):
        client.deregister(*HERE, if_revision=12)

    assert api.came[0].headers["If-Match"] == '"12"'


def test_the_token_goes_with_every_call(client_of, api, monkeypatch):
    api.answer["GET /v1/status"] = Answer({})
    monkeypatch.setenv("TURNOUT_TOKEN", "of-the-environment")
    client_of(api.url).status()
    client_of(api.url, token="given").status()

    assert [request.headers["Authorization"] for request in api.came] == [
        "Bearer of-the-environment",
        "Bearer given",
    ]


def test_the_environment_says_where_the_api_is(client_of, api, monkeypatch):
    api.answer["GET /v1/status"] = Answer({"pid": 1})
    monkeypatch.setenv("TURNOUT_API", api.url)

    assert client_of().status() == {"pid": 1}


def test_a_unix_socket_is_spoken_to(client_of, play, tmp_path):
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(str(tmp_path / "s"))
    sock.listen()
    played = play(sock, f"unix:{tmp_path}/s")
    played.answer["GET /v1/status"] = Answer({"pid": 1})

    assert client_of(played.url).status() == {"pid": 1}


def test_tls_is_verified_and_a_certificate_of_ones_own_is_shown(client_of, play, tmp_path):
    ca = Authority()
    (tmp_path / "ca.pem").write_text(ca.pem)
    cert, key = ca.leaf("localhost").write(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    context.load_verify_locations(tmp_path / "ca.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    sock = socket.create_server(("127.0.0.1", 0))
    played = play(sock, f"https://localhost:{sock.getsockname()[1]}", context)
    played.answer["GET /v1/status"] = Answer({"pid": 1})
    own = ca.leaf("me", client=True).write(tmp_path, "me")
    tls = Tls(str(tmp_path / "ca.pem"), *own)

    assert client_of(played.url, tls=tls).status() == {"pid": 1}
    with pytest.raises(NobodyAnswersError, match="certificate"):
        client_of(played.url).status()


def test_files_that_are_no_certificates_are_named(client_of, tmp_path):
    with pytest.raises(BadUrlError, match=r"nothing\.pem"):
        client_of("https://localhost:1", tls=Tls(ca=str(tmp_path / "nothing.pem"))).status()


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (401, UnauthorizedError),
        (403, ForbiddenError),
        (404, NotFoundError),
        (409, RefusedError),
        (410, GoneError),
        (412, ChangedError),
        (422, RefusedError),
        (500, RefusedError),
    ],
)
def test_an_error_has_the_problem_that_the_api_describes(client, api, status, kind):
    api.answer["GET /v1/status"] = Answer({"detail": "that is why", "more": [1]}, status)
    with pytest.raises(RefusedError, match="that is why") as refused:
        client.status()

    assert type(refused.value) is kind
    assert (refused.value.status, refused.value.problem["more"]) == (status, [1])


def test_too_many_attempts_say_when_to_try_again(client, api):
    api.answer["GET /v1/status"] = Answer({"detail": "slowly"}, 429, {"Retry-After": "7"})
    with pytest.raises(LimitedError) as limited:
        client.status()

    assert limited.value.retry_after == 7


def test_what_is_not_turnout_is_said(client, api):
    api.answer["GET /v1/status"] = Answer(b"<html>")
    with pytest.raises(RefusedError, match="is not Turnout"):
        client.status()


def test_nobody_there_is_said_with_the_address(client_of):
    with pytest.raises(
        NobodyAnswersError, match="nobody answers at unix:/nowhere: No such file or directory"
    ):
        client_of("unix:/nowhere").status()


def test_one_that_does_not_answer_in_time_is_nobody(client_of):
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        pytest.raises(NobodyAnswersError, match="timed out"),
    ):
        client_of(f"http://127.0.0.1:{silent.getsockname()[1]}", timeout=0.05).status()


@pytest.mark.parametrize("url", ["localhost:1", "ftp://a", "http://a/b", "unix:a", "http://a:x", ""])
def test_an_address_that_is_none_is_refused_at_once(client_of, url):
    with pytest.raises(BadUrlError):
        client_of(url)
