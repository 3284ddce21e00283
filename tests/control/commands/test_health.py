"""`turnout health`: what checks say, and what is said in an endpoint's name."""

import json

import pytest
from fakes.served import Served
from fakes.supervisor import StandIn

TEXT = """
[control]
auth = "none"
[listeners.web]
bind = "127.0.0.1:8080"
[services.beating]
endpoints = ["10.0.0.1:80"]
health = { ttl = "1h" }
[services.plain]
endpoints = ["10.0.0.2:80"]
[[routes]]
service = "beating"
"""


@pytest.fixture
def supervisor():
    stand_in = StandIn(TEXT)
    yield stand_in
    stand_in.close()


@pytest.fixture
def served(supervisor):
    out = Served(supervisor)
    out.do(supervisor.refresh())
    yield out
    out.stop()


def test_an_endpoint_is_shown_with_its_reason_and_its_turns(call):
    assert call("health", "beating/10.0.0.1:80", "--say", "fail", "--note", "no disk")[0] == 0
    code, out, err = call("health", "10.0.0.1:80")

    assert (code, err) == (0, "")
    assert all(word in out for word in ("beating/10.0.0.1:80  down  no disk", "check ttl", "reason"))
    state = json.loads(call("health", "10.0.0.1:80", "--json")[1])
    assert (state["status"], state["reason"], state["failures"]) == ("down", "no disk", 1)
    status = call("status")[1]
    assert "down no disk" in " ".join(status.split())


def test_endpoints_of_a_service_and_all_of_them_are_listed(call):
    call("health", "beating/10.0.0.1:80", "--say", "fail", "--note", "no disk")
    shown = call("health")[1]

    assert all(word in shown for word in ("beating/10.0.0.1:80", "no disk", "plain/10.0.0.2:80", "unchecked"))
    assert [row["address"] for row in json.loads(call("health", "plain", "--json")[1])] == ["10.0.0.2:80"]
    assert call("health", "--say", "pass")[0] == 2


def test_an_endpoint_without_checks_is_unchecked(call):
    assert "unchecked  the service has no checks" in call("health", "10.0.0.2:80")[1]


def test_what_cannot_be_said_is_said(call):
    code, _, err = call("health", "10.0.0.2:80", "--say", "pass")
    assert code == 1
    assert 'service "plain" has no checks' in err

    assert call("health", "10.0.0.1:80", "--note", "why")[0] == 2
    assert call("health", "10.0.0.1:80", "--say", "fine")[0] == 2
