"""What the API says of checks, and takes of heartbeats."""

import pytest
from fakes.served import Served, endpoint_path
from fakes.supervisor import StandIn

BEATING, PLAIN = "10.0.0.1:80", "10.0.0.2:80"
TEXT = f"""
[control]
auth = "none"
[listeners.web]
bind = "127.0.0.1:8080"
[services.beating]
endpoints = ["{BEATING}"]
health = {{ ttl = "1h" }}
[services.plain]
endpoints = ["{PLAIN}"]
[[routes]]
service = "beating"
"""


@pytest.fixture
def served():
    stand_in = StandIn(TEXT)
    out = Served(stand_in)

    async def in_force() -> None:
        out.plane.in_force(stand_in.config)

    out.do(in_force())
    yield out
    out.stop()
    stand_in.close()


HEALTH = endpoint_path("beating", BEATING) + "/health"


def test_an_endpoint_says_how_it_is(served):
    assert served.get(HEALTH).body["status"] == "assumed"

    said = served.call("PUT", HEALTH, {"status": "fail", "note": "stopping"})

    assert said.status == 200
    assert (said.body["status"], said.body["up"], said.body["reason"]) == ("down", False, "stopping")
    assert said.body["check"] == "ttl"
    assert [(turn["status"], turn["reason"]) for turn in said.body["history"]] == [("down", "stopping")]
    assert served.get(endpoint_path("beating", BEATING)).body["health"] == "down"
    assert served.call("PUT", HEALTH, {"status": "warn", "note": "slow"}).body["status"] == "degraded"
    assert served.get(endpoint_path("beating", BEATING)).body["health"] == "up"


def test_status_says_what_checks_say(served):
    served.call("PUT", HEALTH, {"status": "fail", "note": "no disk"})
    services = {row["name"]: row["endpoints"][0] for row in served.get("/v1/status").body["services"]}

    assert (services["beating"]["check"], services["beating"]["check_reason"]) == ("down", "no disk")
    assert (services["plain"]["check"], services["plain"]["health"]) == (None, "up")


def test_metrics_count_checks(served):
    served.call("PUT", HEALTH, {})
    text = served.get("/metrics").raw.decode()

    labels = f'endpoint="{BEATING}",result="pass",service="beating",version="v1"'
    assert f"turnout_endpoint_checks_total{{{labels}}} 1.0" in text
    labels = f'endpoint="{BEATING}",service="beating",state="up",version="v1"'
    assert f"turnout_endpoint_health{{{labels}}} 1.0" in text


def test_an_endpoint_without_checks_is_unchecked_and_takes_no_heartbeat(served):
    path = endpoint_path("plain", PLAIN) + "/health"

    assert served.get(path).body["status"] == "unchecked"
    refused = served.call("PUT", path, {})
    assert refused.status == 422
    assert 'service "plain" has no checks' in refused.body["detail"]


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        (endpoint_path("beating", "10.0.0.9:80") + "/health", {}, 404),
        (endpoint_path("none", BEATING) + "/health", {}, 404),
        (HEALTH, {"status": "fine"}, 400),
    ],
)
def test_what_is_not_there_or_makes_no_sense_is_said(served, path, body, status):
    assert served.call("PUT", path, body).status == status
