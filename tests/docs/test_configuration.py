"""docs/configuration.md and proxy/model.py name the same keys and defaults; TOML examples are valid files."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from turnout.control import starter
from turnout.proxy import model
from turnout.proxy.config import parse

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "configuration.md").read_text()
WHOLE = {
    "listeners": '[listeners.web]\nbind = "127.0.0.1:1"\n',
    "routes": '[[routes]]\npath = "/nobody"\nrespond = {}\n',
}

SECTIONS: dict[str, type[BaseModel]] = {
    "[proxy]": model.Proxy,
    "[proxy] access_log": model.AccessLog,
    "[control]": model.Control,
    "[control] tls": model.ControlTls,
    "[control.clients.NAME]": model.ControlClient,
    "[listeners.NAME]": model.Listener,
    "[listeners.NAME] tls": model.ListenerTls,
    "[listeners.NAME] tls.certificates": model.TlsCertificate,
    "[listeners.NAME] tls.client": model.ClientCertificates,
    "[listeners.NAME] timeouts": model.ListenerTimeouts,
    "[listeners.NAME] limits": model.ListenerLimits,
    "[listeners.NAME] udp": model.Datagrams,
    "[services.NAME]": model.Service,
    "[services.NAME] endpoints": model.Endpoint,
    "[services.NAME] discover": model.Discover,
    "[services.NAME] tls": model.ServiceTls,
    "[services.NAME] sticky": model.Sticky,
    "[services.NAME] hash": model.Hash,
    "[services.NAME] breaker": model.Breaker,
    "[services.NAME] health": model.Health,
    "[services.NAME] health.tls": model.HealthTls,
    "[services.NAME] timeouts": model.ServiceTimeouts,
    "[services.NAME] retries": model.Retries,
    "[services.NAME] limits": model.ServiceLimits,
    "[[routes]]": model.Route,
    "[[routes]] respond": model.Respond,
    "[[routes]] redirect": model.Redirect,
    "[[routes]] request_headers": model.HeaderEdits,
    "[[routes]] log": model.RouteLog,
}
NEEDED: dict[type[BaseModel], dict[str, Any]] = {
    model.ControlTls: {"cert": "a", "key": "a"},
    model.ControlClient: {"role": "viewer"},
    model.Listener: {"bind": "a:1"},
    model.ListenerTls: {"cert": "a", "key": "a"},
    model.ClientCertificates: {"ca": "a"},
    model.Endpoint: {"address": "a:1"},
    model.Discover: {"dns": "a:1"},
    model.Sticky: {"cookie": "a"},
    model.Route: {"service": "a"},
    model.Redirect: {"to": "/"},
}
"""What each table cannot do without."""


def documented() -> dict[str, dict[str, str]]:
    """Section -> key -> default as written."""
    out: dict[str, dict[str, str]] = {}
    for part in re.split(r"^#{2,3} ", TEXT, flags=re.MULTILINE)[1:]:
        title = re.match(r"`(.*)`", part)
        if title:
            rows = re.findall(r"^\| `(\w+)` \| [^|]+ \| ([^|]+) \|", part, flags=re.MULTILINE)
            out[title[1]] = {key: default.strip() for key, default in rows}
    return out


def models(kind: type[BaseModel] = model.Config) -> set[type[BaseModel]]:
    """Every table of the configuration."""
    inner = {m for field in kind.model_fields.values() for m in named(field.annotation)}
    return {kind}.union(*(models(m) for m in inner))


def named(annotation: Any) -> set[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return {annotation}
    return {m for part in getattr(annotation, "__args__", ()) for m in named(part)}


def test_every_table_has_a_section():
    assert set(SECTIONS.values()) == models() - {model.Config}
    assert documented().keys() == SECTIONS.keys()


@pytest.mark.parametrize("section", SECTIONS)
def test_a_section_names_the_keys_of_its_table_in_their_order(section):
    assert list(documented()[section]) == list(SECTIONS[section].model_fields)


@pytest.mark.parametrize(
    ("section", "key", "said"),
    [(section, key, said) for section, rows in documented().items() for key, said in rows.items()],
)
def test_a_default_is_what_the_model_has(section, key, said):
    table = SECTIONS[section]
    field = table.model_fields[key]
    if said == "required":
        assert field.default is PydanticUndefined
    elif said == "see below":
        assert named(field.annotation)
        assert field.default == next(iter(named(field.annotation)))()
    elif said == "none":
        assert field.default is None
    else:
        needed = NEEDED.get(table, {})
        written = tomllib.loads(f"value = {said.strip('`')}")["value"]
        given = table.model_validate({**needed, key: written})
        assert getattr(given, key) == getattr(table.model_validate(needed), key)
        assert field.default is not None


def examples() -> list[Any]:
    files = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    blocks = [
        (file.name, block)
        for file in files
        for block in re.findall(r"```toml\n(.*?)```", file.read_text(), re.DOTALL)
    ]
    return [pytest.param(block, id=f"{name}-{number}") for number, (name, block) in enumerate(blocks)]


def completed(text: str) -> str:
    """An example that shows some tables only, with the others that a file needs."""
    raw = tomllib.loads(text)
    return text + "\n" + "".join(table for key, table in WHOLE.items() if key not in raw)


@pytest.mark.parametrize("text", examples())
def test_an_example_is_a_valid_file(text):
    assert parse(completed(text), "example")


def test_there_are_examples():
    assert len(examples()) >= 3


def test_the_starter_is_a_valid_file():
    assert parse(starter.TEXT, "starter")
