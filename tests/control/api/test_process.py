"""The control listener over a real socket."""

import http.client
import json
import socket
import threading
from urllib.parse import urlsplit

import pytest

from turnout.control.client import Client, NobodyAnswersError, RefusedError
from turnout.proxy.config import ConfigError, Problem
from turnout.proxy.errors import UpgradeError


def get(served, path: str, method: str = "GET", body: bytes | None = None, **headers: str):
    """Status, headers and body of the answer."""
    to = http.client.HTTPConnection(urlsplit(served.url).netloc, timeout=10)
    to.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
    answer = to.getresponse()
    out = answer.status, answer.headers, answer.read()
    to.close()
    return out


def test_healthz_answers_while_the_supervisor_lives(served):
    served.supervisor.is_ready = False

    assert get(served, "/healthz")[0] == 200


@pytest.mark.parametrize(("ready", "status"), [(True, 200), (False, 503)])
def test_readyz_says_whether_the_proxy_serves(served, ready, status):
    served.supervisor.is_ready = ready

    assert get(served, "/readyz")[0] == status


def test_metrics_are_served_in_the_format_that_is_asked_for(served):
    status, headers, body = get(served, "/metrics")
    _, open_headers, open_body = get(served, "/metrics", Accept="application/openmetrics-text; version=1.0.0")

    assert status == 200
    assert headers["Content-Type"].startswith("text/plain; version=0.0.4")
    assert b"\nturnout_ready 1.0\n" in body
    assert open_headers["Content-Type"].startswith("application/openmetrics-text")
    assert open_body.endswith(b"# EOF\n")


def test_metrics_are_open_to_a_scraper_that_uses_any_name(served):
    assert get(served, "/metrics", Host="proxy.internal:9900")[0] == 200


def test_status_has_the_endpoints_of_the_file_in_their_order(served):
    app = served.api.status()["services"][0]

    assert [row["address"] for row in app["endpoints"]] == [
        "10.0.0.1:80",
        "10.0.0.2:80",
        "unix:/run/app.sock",
    ]
    assert [(row["version"], row["share"]) for row in app["split"]] == [("v1", 0.75), ("v2", 0.25)]


def test_reload_returns_the_version_in_force(served):
    assert served.api.reload() == served.supervisor.version == 2


def test_a_file_that_does_not_validate_is_reported_problem_by_problem(served):
    served.supervisor.fails = ConfigError([Problem("a.toml", "[proxy] grace", "30: is wrong", 3)])
    with pytest.raises(RefusedError) as refused:
        served.api.reload()

    assert refused.value.status == 422
    assert "a.toml:3: [proxy] grace: 30: is wrong" in str(refused.value)
    assert refused.value.problem["problems"][0]["line"] == 3


def test_upgrade_returns_the_new_pid(served):
    assert served.api.upgrade() == 4711


def test_an_upgrade_that_fails_says_why(served):
    served.supervisor.fails = UpgradeError("the new program exited with 1")
    with pytest.raises(RefusedError, match="the new program exited with 1"):
        served.api.upgrade()


def test_shares_are_set_and_returned_as_parts_of_one(served):
    assert served.api.split("app", {"v1": 9, "v2": 1}) == {"v1": 0.9, "v2": 0.1}
    assert [row["share"] for row in served.api.status()["services"][0]["split"]] == [0.9, 0.1]


@pytest.mark.parametrize(
    ("service", "shares", "status", "word"),
    [
        ("ap", {"v1": 1}, 404, 'no service is named "ap"'),
        ("app", {"v3": 1}, 404, '"v3"'),
        ("app", {"v1": 0}, 422, "shares"),
        ("app", {"v1": -1, "v2": 2}, 422, "shares"),
        ("plain", {"v1": 1}, 422, "no split"),
        ("app", {"v1": "much"}, 400, "shares.v1"),
        ("app", {}, 400, "shares"),
    ],
)
def test_shares_that_make_no_sense_change_nothing(served, service, shares, status, word):
    with pytest.raises(RefusedError) as refused:
        served.api.split(service, shares)

    assert (refused.value.status, word in str(refused.value)) == (status, True)
    assert [row["share"] for row in served.api.status()["services"][0]["split"]] == [0.75, 0.25]


def test_an_endpoint_on_a_unix_socket_is_addressed_like_any_other(served):
    row = served.api.endpoint("app", "unix:/run/app.sock", {"weight": 7, "admin": "drain"})

    assert (row["address"], row["weight"], row["admin"]) == ("unix:/run/app.sock", 7, "drain")


@pytest.mark.parametrize(
    ("address", "change", "status"),
    [
        ("10.9.9.9:80", {"weight": 1}, 404),
        ("10.0.0.1:80", {"weight": 70000}, 400),
        ("10.0.0.1:80", {"admin": "gone"}, 400),
        ("10.0.0.1:80", {"wieght": 1}, 400),
    ],
)
def test_a_change_of_an_endpoint_that_makes_no_sense_is_refused(served, address, change, status):
    with pytest.raises(RefusedError) as refused:
        served.api.endpoint("app", address, change)

    assert refused.value.status == status
    assert served.supervisor.told == []


def test_errors_are_problem_details(served):
    for path, method, status in (
        ("/v1/nothing", "GET", 404),
        ("/v1/status", "POST", 405),
        ("/nothing", "GET", 404),
    ):
        got, headers, body = get(served, path, method, Content_Type="application/json")
        assert got == json.loads(body)["status"] == status
        assert headers["Content-Type"].startswith("application/problem+json")


def test_a_change_that_a_foreign_page_sends_is_refused_before_anything_happens(served):
    status, _, _ = get(
        served, "/v1/stop", "POST", b"{}", Content_Type="application/json", Origin="http://evil.example"
    )

    assert (status, served.supervisor.told) == (403, [])


def test_a_body_that_is_too_large_is_refused(served):
    status, _, _ = get(served, "/v1/stop", "POST", b"{" + b" " * (1 << 20), Content_Type="application/json")

    assert (status, served.supervisor.told) == (413, [])


def test_nobody_answers_once_it_is_closed(served):
    served.stop()
    with pytest.raises(NobodyAnswersError, match=served.url):
        served.api.status()


def test_an_answer_that_is_not_ours_is_said():
    with socket.create_server(("127.0.0.1", 0)) as other:

        def answer() -> None:
            to, _ = other.accept()
            to.recv(4096)
            to.sendall(b"HTTP/1.0 200 OK\r\n\r\n<html>")
            to.close()

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(RefusedError, match="is not Turnout"):
            Client(f"http://127.0.0.1:{other.getsockname()[1]}").status()
        thread.join()
