"""Endpoints from the command line: registered, taken out with a reason and an end, listed."""

import json
import time

import pytest

from turnout.control.client.shapes import Endpoint

REGISTER = ("register", "plain/10.0.0.9:80")


def said(text: str) -> str:
    """Without the frame of a usage error."""
    return " ".join(text.replace("│", " ").split())


def listed(call, *words) -> list[Endpoint]:
    code, out, err = call("endpoints", *words, "--json")
    assert code == 0, err
    return json.loads(out)


def test_an_endpoint_is_registered_listed_and_deregistered(call):
    code, out, err = call(
        *REGISTER,
        "--weight",
        3,
        "--version",
        "v2",
        "--tag",
        "a",
        "--tag",
        "b",
        "--meta",
        "zone=x",
        "--ttl",
        "30s",
    )
    assert (code, err) == (0, "")
    assert all(word in out for word in ("plain/10.0.0.9:80", "v2", "api", "30 s", "a b"))

    (row,) = (row for row in listed(call, "plain") if row["address"] == "10.0.0.9:80")
    assert (row["weight"], row["version"], row["tags"]) == (3, "v2", ["a", "b"])
    assert (row["metadata"], row["lease_ttl"], row["source"]) == ({"zone": "x"}, 30.0, "api")

    assert call("deregister", "plain/10.0.0.9:80") == (0, "plain/10.0.0.9:80 is deregistered\n", "")
    assert [row["address"] for row in listed(call, "plain")] == ["10.0.0.3:80"]


def test_endpoints_of_all_services_are_listed_and_chosen_from(call):
    call(*REGISTER, "--tag", "spare")

    assert {row["service"] for row in listed(call)} == {"app", "plain"}
    assert [row["address"] for row in listed(call, "--tag", "spare")] == ["10.0.0.9:80"]
    assert [row["address"] for row in listed(call, "--version", "v2")] == ["10.0.0.2:80"]
    assert {row["source"] for row in listed(call, "plain", "--source", "file")} == {"file"}


def test_what_a_shape_of_the_client_has_is_what_the_api_gives(call):
    assert set(listed(call, "app")[0]) == set(Endpoint.__annotations__)


@pytest.mark.parametrize("command", ["drain", "maint"])
def test_an_endpoint_is_taken_out_with_a_reason_and_an_end(call, command):
    code, out, _ = call(command, "plain/10.0.0.3:80", "--reason", "new disk", "--for", "2h", "--json")
    row = json.loads(out)

    assert (code, row["admin"], row["admin_reason"]) == (0, command, "new disk")
    assert 7100 < row["admin_until"] - time.time() <= 7200
    shown = call("endpoints", "plain")[1]
    assert "new disk" in shown
    assert "until" in shown


def test_ready_forgets_the_reason(call):
    call("maint", "plain/10.0.0.3:80", "--reason", "new disk")
    row = json.loads(call("ready", "plain/10.0.0.3:80", "--json")[1])

    assert (row["admin"], row["admin_reason"], row["admin_until"]) == ("ready", "", None)


def test_waiting_for_an_idle_endpoint_returns_at_once(call):
    assert call("drain", "plain/10.0.0.3:80", "--wait", "60s")[0] == 0


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("drain", "plain/10.0.0.3:80", "--for", "2"), "30s"),
        (("drain", "plain/10.0.0.3:80", "--until", "soon"), '"18:30"'),
        (("drain", "plain/10.0.0.3:80", "--until", "18:30", "--for", "1h"), "not both"),
        ((*REGISTER, "--meta", "zone"), "NAME=VALUE"),
        ((*REGISTER, "--ttl", "off"), "30s"),
        (("drain", "plain/10.0.0.4:80"), 'did you mean "plain/10.0.0.3:80"?'),
    ],
)
def test_what_makes_no_sense_exits_2_and_says_why(call, words, why):
    code, _, err = call(*words)

    assert (code, why in said(err)) == (2, True), err


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("register", "plan/10.0.0.9:80"), 'did you mean "plain"?'),
        (("deregister", "plain/10.0.0.4:80"), 'did you mean "10.0.0.3:80"?'),
        (("deregister", "plain/10.0.0.3:80"), "file"),
        (("endpoints", "plan"), 'did you mean "plain"?'),
        (("register", "plain/unix:/run/a.sock"), "only be named in the file"),
    ],
)
def test_what_the_api_refuses_exits_1_in_one_line(call, words, why):
    code, out, err = call(*words)

    assert (code, out, err.count("\n")) == (1, "", 1)
    assert why in err
