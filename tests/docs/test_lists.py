"""The lists in docs/ are complete: commands, exit codes, the API, metrics, fields of the access log."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
import typer.main
from fakes.supervisor import StandIn
from prometheus_client.parser import text_string_to_metric_families

from turnout.control.api.table import ROUTES
from turnout.control.cli import app
from turnout.control.health.heartbeat import HeartbeatCheck
from turnout.control.health.metrics import HealthMetrics
from turnout.control.health.target import Key, manner_of, target_of
from turnout.control.health.watched import Watched
from turnout.control.outcome import Exit
from turnout.ext.scoreboard import CAUSES
from turnout.proxy import metrics
from turnout.proxy.families import Histogram
from turnout.proxy.metrics import Metrics, exposition
from turnout.proxy.model import Service

ROOT = Path(__file__).parents[2]


def doc(name: str) -> str:
    return (ROOT / "docs" / name).read_text()


@pytest.fixture(scope="module")
def supervisor():
    stand_in = StandIn()
    yield stand_in
    stand_in.close()


def commands(group, *before: str) -> dict[str, set[str]]:
    """Words of each command -> its options, without those that are the same everywhere."""
    out = {}
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            out |= commands(command, *before, name)
        else:
            options = {word for it in command.params for word in it.opts if word.startswith("--")}
            out[" ".join((*before, name))] = options - {"--json", "--api", "--help"}
    return out


def test_every_command_is_documented_with_its_options():
    rows = dict(re.findall(r"^\| `turnout ([a-z]+(?: [a-z]+)*)([^\n]*)$", doc("commands.md"), re.MULTILINE))
    there = commands(typer.main.get_command(app))

    assert set(rows) == set(there)
    missing = {
        (name, option)
        for name, options in there.items()
        for option in options
        if option not in rows[name] and option.replace("--", "--no-") not in rows[name]
    }
    assert missing == set()


def test_every_option_that_stands_before_the_command_is_documented():
    text = doc("commands.md")
    options = {word for it in typer.main.get_command(app).params for word in it.opts if word.startswith("--")}

    assert {
        word for word in options - {"--help"} if f"`{word}`" not in text and f"`turnout {word}" not in text
    } == set()


def test_every_exit_code_is_documented():
    assert set(map(int, re.findall(r"^\| (\d) \|", doc("commands.md"), re.MULTILINE))) == set(Exit)


def test_every_route_of_the_api_is_documented_with_its_right():
    listed = re.findall(r"^\| `([A-Z]+) (/[^`]*)` \| ([\w.]+) \| (.*) \|$", doc("api.md"), re.MULTILINE)

    assert listed == [(route.method, route.path, route.action or "open", route.summary) for route in ROUTES]


def watched() -> Watched:
    """An endpoint that is checked."""
    service = Service.model_validate({"endpoints": ["a:1"], "health": {"ttl": "1s"}})
    target = target_of(Key("app", "a:1"), manner_of(service), service, service.endpoints[0], "10.0.0.1:1")
    return Watched(HeartbeatCheck(target), None, "new")


def documented_metrics() -> dict[str, tuple[str, set[str]]]:
    """Name as exposed -> type and labels."""
    rows = re.findall(r"^\| `(turnout_\w+)` \| (\w+) \| ([^|]*)\|", doc("metrics.md"), re.MULTILINE)
    everywhere = {"service", "version", "endpoint"}
    return {
        name: (
            kind,
            set(re.findall(r"\w+", labels)) | (everywhere if name.startswith("turnout_endpoint_") else set()),
        )
        for name, kind, labels in rows
    }


def test_every_metric_is_documented_with_its_type_and_labels(supervisor, monkeypatch):
    every = [replace(it, sparse=False) if isinstance(it, Histogram) else it for it in metrics.ENDPOINT]
    monkeypatch.setattr(metrics, "ENDPOINT", every)
    scrape = Metrics(supervisor, [HealthMetrics([watched()])])
    exposed = {}
    for family in text_string_to_metric_families(exposition(scrape)[0].decode()):
        name = f"{family.name}_total" if family.type == "counter" else family.name
        labels = {label for sample in family.samples for label in sample.labels} - {"le"}
        exposed[name] = (family.type, labels)

    assert documented_metrics() == exposed


def test_every_field_of_the_access_log_is_documented_in_its_order():
    source = (ROOT / "ext" / "logline.pyx").read_text()
    written = re.findall(r'put_(?:string|number|ms|bool|key)\(o?&?o?, b"(\w+)"', source)
    listed = re.findall(r"^\| `(\w+)` \| [^|]+ \| [^|]+ \| ", doc("access-log.md"), re.MULTILINE)

    assert sorted(listed) == sorted({"time", *written})


def test_every_cause_is_documented():
    assert tuple(re.findall(r"^\| `(\w+)` \| [^|]+ \|$", doc("access-log.md"), re.MULTILINE)) == CAUSES
