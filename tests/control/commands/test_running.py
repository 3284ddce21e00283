"""The commands that talk to a proxy, against a control listener over a stand-in supervisor."""

import json

import pytest
from fakes.served import Served

from turnout.proxy.config import ConfigError, Problem


@pytest.fixture
def call(turnout, served):
    """A command with the address of the API."""
    return lambda *words: turnout(*words, "--api", served.url)


def test_status_shows_every_worker_listener_and_endpoint(call):
    code, out, _ = call("status")

    assert code == 0
    for word in ("serving", "127.0.0.1:8080", "10.0.0.1:80", "unix:/run/app.sock", "v1=75% v2=25%", "plain"):
        assert word in out


@pytest.mark.parametrize(
    "words", [("status",), ("services",), ("split", "app"), ("drain", "app/10.0.0.1:80")]
)
def test_a_listing_is_json_when_asked_for(call, words):
    code, out, _ = call(*words, "--json")

    assert code == 0
    assert json.loads(out)


def test_services_counts_the_endpoints_that_take_sessions(call):
    call("maint", "app/10.0.0.1:80")

    assert "2/3" in call("services")[1]


@pytest.mark.parametrize("state", ["drain", "ready", "maint"])
def test_an_endpoint_is_set_to_a_state(call, served, state):
    code, out, _ = call(state, "app/10.0.0.2:80")

    assert (code, state in out) == (0, True)
    assert ("admin", "app", "10.0.0.2:80", state) in served.supervisor.told


def test_an_endpoint_that_only_one_service_has_needs_no_service(call, served):
    assert call("drain", "unix:/run/app.sock")[0] == 0
    assert ("admin", "app", "unix:/run/app.sock", "drain") in served.supervisor.told


def test_an_endpoint_of_two_services_needs_one(call, served):
    served.supervisor.freeze(
        '[listeners.web]\nbind = "127.0.0.1:1"\n[services.a]\nendpoints = ["10.0.0.1:80"]\n'
        '[services.b]\nendpoints = ["10.0.0.1:80"]\n[[routes]]\nservice = "a"\n'
    )
    code, _, err = call("drain", "10.0.0.1:80")

    assert code == 2
    assert "a/10.0.0.1:80, b/10.0.0.1:80" in " ".join(err.replace("│", " ").split())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("drain", "app/10.0.0.1:81"), 'did you mean "app/10.0.0.1:80"?'),
        (("split", "ap"), 'did you mean "app"?'),
        (("split", "app", "v1"), "VERSION=NUMBER"),
        (("split", "app", "v1=x"), "VERSION=NUMBER"),
        (("split", "app", "v1=-1"), "VERSION=NUMBER"),
        (("split", "app", "v1=1", "v1=2"), "two shares"),
        (("weight", "app/10.0.0.1:80", "70000"), "65535"),
    ],
)
def test_what_makes_no_sense_on_the_command_line_exits_2_and_says_why(call, served, words, said):
    code, _, err = call(*words)

    assert code == 2
    assert said in " ".join(err.replace("│", " ").split())
    assert served.supervisor.told == []


def test_split_sets_shares(call, served):
    code, out, _ = call("split", "app", "v1=3", "v2=1")

    assert (code, out.strip()) == (0, "v1=75% v2=25%")
    assert served.supervisor.told == [("split", "app", {"v1": 3.0, "v2": 1.0})]


def test_split_of_a_service_without_one_is_refused_in_words(call):
    for words in (("split", "plain"), ("split", "plain", "v1=1")):
        code, _, err = call(*words)
        assert (code, 'service "plain" has no split; give it one' in err) == (1, True)


def test_weight_sets_a_weight(call, served):
    assert call("weight", "app/10.0.0.1:80", "0")[0] == 0
    assert ("weight", "app", "10.0.0.1:80", 0) in served.supervisor.told


def test_reload_says_which_configuration_is_in_force(call):
    assert call("reload")[1] == "configuration 2 is in force\n"


def test_a_file_that_does_not_validate_exits_2_with_its_problems(call, served):
    served.supervisor.fails = ConfigError([Problem("a.toml", "[proxy] grace", "30: is wrong", 3)])
    code, _, err = call("reload")

    assert (code, "a.toml:3: [proxy] grace: 30: is wrong" in err) == (2, True)


def test_stop_without_waiting_returns_at_once(call):
    assert call("stop", "--no-wait")[:2] == (0, "stopping\n")


def test_the_environment_says_where_the_api_is(turnout, served, monkeypatch):
    monkeypatch.setenv("TURNOUT_API", served.url)

    assert turnout("services")[0] == 0


def test_the_api_may_be_on_a_unix_socket(turnout, supervisor, tmp_path):
    served = Served(supervisor, path=tmp_path / "api.sock")
    try:
        assert turnout("services", "--api", served.url)[0] == 0
    finally:
        served.stop()


def test_nobody_at_the_api_exits_4_in_one_line(turnout):
    code, _, err = turnout("status", "--api", "unix:/nowhere.sock")

    assert (code, err) == (4, "turnout: nobody answers at unix:/nowhere.sock: No such file or directory\n")


@pytest.mark.parametrize(
    "url", ["127.0.0.1:9900", "ftp://a", "http://", "http://a:x", "unix:a", "http://a/b", ""]
)
def test_an_address_that_is_none_is_a_usage_error(turnout, url):
    code, _, err = turnout("status", "--api", url)

    assert (code, 'write "http://host:port", "https://host:port" or "unix:/path"' in err) == (2, True)
