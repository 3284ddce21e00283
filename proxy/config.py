"""From a TOML file to a model: every mistake at once, each with its place, value and what would be right."""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from turnout.proxy.model import Config, Route
from turnout.proxy.paths import canonical_path

Location = tuple[int | str, ...]

NOT_YET = {
    ("listeners", "tls"): "TLS listeners are not available yet; terminate TLS in front of this listener",
    (
        "services",
        "health",
    ): "active health checks are not available yet; the breaker and retries act on what requests meet",
}
"""Keys of the design whose part does not exist yet: said plainly instead of as a typing error."""


@dataclass(frozen=True)
class Problem:
    """One mistake. `where` is the table and key as written in the file, `line` 1-based or None."""

    file: str
    where: str
    what: str
    line: int | None = None

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        return f"{place}: {self.where}: {self.what}" if self.where else f"{place}: {self.what}"


class ConfigError(Exception):
    """The file cannot be used; `problems` says why, all at once."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


def load(path: str | Path) -> Config:
    """Read and check a configuration file. Raises ConfigError."""
    name = str(path)
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError([Problem(name, "", f"cannot be read: {error.strerror}")]) from None
    except UnicodeDecodeError as error:
        raise ConfigError([Problem(name, "", f"is not UTF-8 at byte {error.start}")]) from None
    return parse(text, name)


def parse(text: str, filename: str) -> Config:
    """Check the text of a configuration file. Raises ConfigError."""
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        line = re.search(r"line (\d+)", str(error))
        problem = Problem(filename, "", f"is not TOML: {error}", int(line[1]) if line else None)
        raise ConfigError([problem]) from None
    found = list(_problems_of_form(raw, text, filename))
    if found:
        raise ConfigError(found)
    config = Config.model_validate(raw)
    found = [_problem(text, filename, where, what) for where, what in _problems_of_sense(config)]
    if found:
        raise ConfigError(found)
    return config


def _problems_of_form(raw: dict[str, Any], text: str, filename: str) -> Iterator[Problem]:
    try:
        Config.model_validate(raw)
    except ValidationError as error:
        for item in error.errors(include_url=False):
            where = _without_tags(item["loc"], raw)
            what = NOT_YET.get((str(where[0]), str(where[-1]))) if where else None
            yield _problem(text, filename, where, what or _explain(item, where))


def _without_tags(loc: Location, raw: object) -> Location:
    """The location without the names that pydantic adds for the members of a union."""
    kept: list[int | str] = []
    at: Any = raw
    for part in loc:
        if isinstance(at, dict | list):
            kept.append(part)
            at = _item(at, part)
    return tuple(kept)


def _item(table: Any, key: int | str) -> Any:
    try:
        return table[key]
    except (KeyError, IndexError, TypeError):
        return None


def _explain(item: Any, where: Location) -> str:
    kind, value = item["type"], item.get("input")
    if kind == "extra_forbidden":
        known = _known_keys(where[:-1])
        near = difflib.get_close_matches(str(where[-1]), known, n=1)
        hint = f'; did you mean "{near[0]}"?' if near else f"; known here: {', '.join(known)}"
        return f"unknown key{hint}"
    if kind == "missing":
        return "is missing"
    message = item["msg"].removeprefix("Value error, ")
    if kind == "literal_error":
        return _one_of(value, item["ctx"]["expected"])
    if isinstance(value, (dict, list, tuple)) or _toml(value) in message:
        return str(message)
    return f"{_toml(value)}: {message}"


def _one_of(value: object, expected: str) -> str:
    known = re.findall(r"'([^']*)'|(\d+)", expected)
    words = [word or number for word, number in known]
    near = difflib.get_close_matches(str(value), words, n=1)
    hint = f'; did you mean "{near[0]}"?' if near else ""
    return f"{_toml(value)} is not one of {', '.join(words)}{hint}"


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f'"{value}"' if isinstance(value, str) else str(value)


def _known_keys(where: Location) -> list[str]:
    """Keys of the table at a location of the model."""
    model: type[BaseModel] | None = Config
    for part in where:
        if model is None:
            return []
        field = model.model_fields.get(str(part))
        if field is None:
            continue
        model = _model_in(field.annotation)
    return sorted(model.model_fields) if model else []


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in getattr(annotation, "__args__", ()):
        found = _model_in(argument)
        if found:
            return found
    return None


def _problem(text: str, filename: str, where: Location, what: str) -> Problem:
    return Problem(filename, _written(where), what, _line_of(text, where))


def _written(where: Location) -> str:
    """As a person would name the place: [services.orders] timeouts.connect, [[routes]] 2 path."""
    parts = list(where)
    if not parts:
        return ""
    if parts[0] == "routes":
        number = f" {int(parts[1]) + 1}" if len(parts) > 1 and isinstance(parts[1], int) else ""
        return f"[[routes]]{number} {_dotted(parts[2:])}".strip()
    depth = 2 if parts[0] in {"listeners", "services"} else 1
    table = ".".join(str(part) for part in parts[:depth])
    return f"[{table}] {_dotted(parts[depth:])}".strip()


def _dotted(parts: list[int | str]) -> str:
    out = ""
    for part in parts:
        out += f"[{part + 1}]" if isinstance(part, int) else f".{part}" if out else str(part)
    return out


def _line_of(text: str, where: Location) -> int | None:
    """The line where the deepest part of a location that can be found is written. A look at the text, not a
    parser: good enough to point at, and None when unsure.
    """
    lines = text.splitlines()
    start, names = _table_line(lines, where)
    if start is None:
        return None
    for name in names:
        pattern = re.compile(rf'(^|[\s{{,.])"?{re.escape(str(name))}"?\s*[=.]')
        for number in range(start, len(lines)):
            if number > start and lines[number].lstrip().startswith("["):
                break
            if pattern.search(lines[number]):
                start = number
                break
    return start + 1


def _table_line(lines: list[str], where: Location) -> tuple[int | None, list[str]]:
    """The line of the header of the table that a location is in, and the keys below it."""
    parts = [part for part in where if not isinstance(part, int)]
    if where and where[0] == "routes":
        headers = [n for n, line in enumerate(lines) if line.strip().startswith("[[routes]]")]
        index = where[1] if len(where) > 1 and isinstance(where[1], int) else 0
        return (headers[index], [str(p) for p in parts[1:]]) if index < len(headers) else (None, [])
    for depth in range(len(parts), 0, -1):
        header = re.compile(
            r"\[\s*" + r"\s*\.\s*".join(rf'"?{re.escape(str(p))}"?' for p in parts[:depth]) + r"\s*\]"
        )
        for number, line in enumerate(lines):
            if header.match(line.strip()):
                return number, [str(p) for p in parts[depth:]]
    return None, []


def _problems_of_sense(config: Config) -> Iterator[tuple[Location, str]]:
    """What is wrong between tables."""
    if not config.listeners:
        yield ("listeners",), 'no listener; write a table [listeners.web] with bind = "0.0.0.0:8080"'
    if not config.routes:
        yield ("routes",), "no route; write a table [[routes]] with a path and a service"
    yield from _same_binds(config)
    for index, route in enumerate(config.routes):
        yield from _dangling(config, index, route)
    yield from _same_routes(config)


def _same_binds(config: Config) -> Iterator[tuple[Location, str]]:
    binds = {config.control.listen: "[control]"}
    for name, listener in config.listeners.items():
        other = binds.setdefault(listener.bind, f"[listeners.{name}]")
        if other != f"[listeners.{name}]":
            yield ("listeners", name, "bind"), f'"{listener.bind}" is bound by {other} already'


def _dangling(config: Config, index: int, route: Route) -> Iterator[tuple[Location, str]]:
    for key, known in (("service", config.services), ("listener", config.listeners)):
        name = getattr(route, key)
        if name is not None and name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f'; did you mean "{near[0]}"?' if near else f"; there are {', '.join(known) or 'none'}"
            yield ("routes", index, key), f'no {key} is named "{name}"{hint}'


def _same_routes(config: Config) -> Iterator[tuple[Location, str]]:
    seen: dict[object, int] = {}
    for index, route in enumerate(config.routes):
        path = canonical_path(route.path)
        key = (route.listener, route.host, path, frozenset(route.methods), frozenset(route.headers.items()))
        first = seen.setdefault(key, index)
        if first != index:
            yield ("routes", index), f"matches exactly what route {first + 1} matches"
        first = seen.setdefault(route.name, index) if route.name is not None else index
        if first != index:
            yield ("routes", index, "name"), f'"{route.name}" is the name of route {first + 1}'
