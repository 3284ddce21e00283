"""What the commands that need no running proxy say and return."""

import json
import re
from pathlib import Path

import pytest

from turnout.control import starter
from turnout.proxy.config import parse

GOOD = '[listeners.web]\nbind = "127.0.0.1:8080"\n[[routes]]\npath = "/"\nrespond = {}\n'


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "turnout.toml"


def test_init_writes_a_file_that_check_accepts(turnout, file):
    assert turnout("init", file)[0] == 0
    assert turnout("check", file)[0] == 0


@pytest.mark.parametrize("preset", list(starter.Preset))
def test_the_file_of_a_preset_is_accepted_too(turnout, file, preset):
    assert turnout("init", file, "--preset", preset)[0] == 0
    code, out, _ = turnout("check", file)
    assert (code, out) == (0, f"{file}: ok (2 listeners, 6 services, 9 endpoints, 6 routes)\n")


def test_the_trading_preset_has_the_five_services_and_a_balancer_with_their_defaults():
    services = parse(starter.text(starter.Preset.TRADING), "preset").services
    balancer = services["default-balancer"]

    assert set(services) == {
        "trading-system", "api-gateway", "ai-models", "market-data", "database", "default-balancer",
    }  # fmt: skip
    assert len(services["trading-system"].endpoints) == 2
    assert {service.balance for service in services.values()} == {"round_robin"}
    assert {(service.breaker.failures, service.breaker.open) for service in services.values()} == {
        (5, 60_000)
    }
    assert len({endpoint.weight for endpoint in balancer.endpoints}) == len(balancer.endpoints) == 3
    assert len({endpoint.priority for endpoint in balancer.endpoints}) > 1
    checks = {name: service.health for name, service in services.items()}
    assert {name for name, check in checks.items() if check and check.path == "/health"} == set(services) - {
        "database"
    }
    assert checks["database"]
    assert checks["database"].type == "tcp"
    assert balancer.sticky
    assert balancer.sticky.cookie


def test_an_unknown_preset_is_a_usage_error_that_names_those_there_are(turnout, file):
    code, _, err = turnout("init", file, "--preset", "tradin")

    assert (code, "trading" in err.replace("tradin'", ""), file.exists()) == (2, True, False)


def test_init_leaves_a_file_that_is_there_alone(turnout, file):
    file.write_text("mine")
    code, _, err = turnout("init", file)

    assert (code, file.read_text()) == (1, "mine")
    assert "--force" in err


def test_init_replaces_a_file_when_forced(turnout, file):
    file.write_text("mine" * 10000)

    assert turnout("init", file, "--force")[0] == 0
    assert file.read_text() == starter.TEXT


def test_init_says_in_one_line_why_it_cannot_write(turnout, file):
    code, _, err = turnout("init", file / "below")

    assert (code, err.count("\n")) == (1, 1)


def test_every_setting_of_the_starter_that_is_switched_off_can_be_switched_on():
    text = re.sub(r"^#(?! )", "", starter.TEXT, flags=re.MULTILINE)
    text = text.replace("#  {", "  {")

    config = parse(text, "starter")

    assert config.services["app"].split == {"v1": 95, "v2": 5}
    assert len(config.routes) == 4


def test_check_names_every_problem_with_its_line_and_exits_2(turnout, file):
    file.write_text(GOOD.replace("bind", "bnd") + "[services.app]\nendpoints = 1\n")
    code, out, err = turnout("check", file)

    assert (code, out) == (2, "")
    assert f"{file}:2: [listeners.web] bnd: unknown key" in err
    assert f"{file}:1: [listeners.web] bind: is missing" in err
    assert f"{file}:7: [services.app] endpoints: 1 is not a list" in err


def test_check_lists_problems_as_json(turnout, file):
    file.write_text(GOOD.replace("bind", "bnd"))
    code, out, _ = turnout("check", file, "--json")

    problems = json.loads(out)["problems"]
    assert (code, json.loads(out)["ok"]) == (2, False)
    assert {(row["where"], row["line"]) for row in problems} == {
        ("[listeners.web] bnd", 2),
        ("[listeners.web] bind", 1),
    }


def test_check_finds_a_name_that_does_not_resolve_when_asked(turnout, file):
    file.write_text(GOOD + '[services.app]\nendpoints = ["nobody.invalid:80"]\n')

    assert turnout("check", file)[0] == 0
    code, _, err = turnout("check", file, "--resolve")
    assert code == 2
    assert "nobody.invalid:80" in err


@pytest.mark.parametrize("command", ["check", "run"])
def test_a_file_that_is_not_there_is_said_without_a_traceback(turnout, command):
    code, _, err = turnout(command, "/nowhere/turnout.toml")

    assert code == 2
    assert "/nowhere/turnout.toml: cannot be read: No such file or directory" in err
    assert "Traceback" not in err


def test_an_unknown_command_is_a_usage_error(turnout):
    assert turnout("frobnicate")[0] == 2


def test_version_is_printed(turnout):
    code, out, _ = turnout("--version")

    assert (code, out.startswith("turnout ")) == (0, True)


@pytest.mark.parametrize(("command", "words"), [("stop", "[proxy] grace"), ("status", "[control]")])
def test_help_names_tables_of_the_file_in_their_brackets(turnout, command, words):
    code, out, _ = turnout(command, "--help")

    assert code == 0
    assert words in out
