"""From a TOML file to a model: every mistake at once, each with its place, value and what would be right."""

from __future__ import annotations

import difflib
import json
import re
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from turnout.proxy.model import Config
from turnout.proxy.paths import canonical_path
from turnout.proxy.sense import Location, without_http
from turnout.proxy.units import format_size

NOT_YET: dict[tuple[str, ...], str] = {
    ("listeners", "protocol", "tcp"): "TCP listeners are not available yet",
}
"""Keys (and values) whose part does not exist yet: said plainly instead of as a typing error."""
GONE = {
    (
        "control",
        "allow_remote",
    ): 'is gone: listen may be any address, because auth = "tokens" is the default and '
    "asks everybody for one; docs/access.md",
}
"""Keys that there were."""
KINDS = {
    "string_type": 'is not a string; write it in quotes, like "text"',
    "int_type": "is not a whole number",
    "float_type": "is not a number",
    "finite_number": "is not a finite number",
    "bool_type": "is not true or false",
    "tuple_type": "is not a list; write [ ... ]",
    "dict_type": "is not a table; write { key = value }",
    "model_type": "is not a table; write { key = value }",
}
"""What a value is not, by pydantic's type of error."""
SHOWN = 80
"""Characters of a value that are shown."""
BOUNDS = {"greater_than_equal": ("ge", "at least"), "less_than_equal": ("le", "at most")}


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
    found = [*_problems_of_form(raw), *_dangling(raw)]
    if found:
        raise _error(text, filename, found)
    config = Config.model_validate(raw)
    found = list(_problems_of_sense(config))
    if found:
        raise _error(text, filename, found)
    return config


def _error(text: str, filename: str, found: Iterable[tuple[Location, str]]) -> ConfigError:
    """With the problems in the order of the file; those without a line last."""
    problems = [_problem(text, filename, where, what) for where, what in dict.fromkeys(found)]
    return ConfigError(sorted(problems, key=lambda problem: problem.line or len(text)))


def _problems_of_form(raw: dict[str, Any]) -> Iterator[tuple[Location, str]]:
    try:
        Config.model_validate(raw)
    except ValidationError as error:
        for item in error.errors(include_url=False):
            loc = item["loc"][:-1] if item["loc"][-1:] == ("[key]",) else item["loc"]
            where = _without_tags(loc, raw)
            yield where, _not_yet(where, raw) or _explain(item, where, _value(raw, where))


def _not_yet(where: Location, raw: dict[str, Any]) -> str | None:
    if len(where) < 3:
        return None
    kind, key = str(where[0]), str(where[2])
    return NOT_YET.get((kind, key)) or NOT_YET.get((kind, key, str(_value(raw, where))))


def _value(raw: object, where: Location) -> Any:
    """What is written there; None for nothing."""
    for part in where:
        raw = _item(raw, part)
    return raw


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


def _explain(item: Any, where: Location, value: object) -> str:
    """`item` is pydantic's account of an error, `value` what is written there."""
    match item["type"]:
        case "extra_forbidden" if where in GONE:
            what = GONE[where]
        case "extra_forbidden":
            known = _known_keys(where[:-1])
            what = f"unknown key{_hint(str(where[-1]), known, 'known here:')}"
        case "missing":
            what = "is missing"
        case _ if where == ("routes",):
            what = "is not a list of tables; write [[routes]], in double brackets, above each route"
        case _ if where == ("proxy", "workers"):
            what = f'{_toml(value)}: workers is "auto" (one per CPU) or a number from 1 to 64'
        case kind if kind in KINDS:
            what = f"{_toml(value)} {KINDS[kind]}"
        case kind if kind in BOUNDS:
            what = f"{_toml(value)} must be {_bound(kind, item['ctx'], value)}"
        case "literal_error":
            what = _one_of(value, item["ctx"]["expected"])
        case _:
            what = _own_words(item["msg"].removeprefix("Value error, "), value)
    return what


def _bound(kind: str, context: dict[str, Any], value: object) -> str:
    """A bounded value that is written as a string is a size."""
    key, words = BOUNDS[kind]
    limit = context[key]
    if isinstance(value, str):
        return f"{words} {format_size(limit)}"
    return f"{words} {limit:g}" if isinstance(limit, float) else f"{words} {limit}"


def _own_words(message: str, value: object) -> str:
    """What a validator of the model says, with the value in front unless it is in there."""
    if isinstance(value, (dict, list)) or f'"{value}"' in message:
        return message
    return f"{_toml(value)}: {message}"


def _hint(word: str, known: Iterable[str], otherwise: str) -> str:
    """The nearest known word, or all of them."""
    words = sorted(known)
    near = difflib.get_close_matches(word, words, n=1)
    return f'; did you mean "{near[0]}"?' if near else f"; {otherwise} {', '.join(words) or 'none'}"


def _one_of(value: object, expected: str) -> str:
    known = re.findall(r"'([^']*)'|(\d+)", expected)
    words = [word or number for word, number in known]
    near = difflib.get_close_matches(str(value), words, n=1)
    hint = f'; did you mean "{near[0]}"?' if near else ""
    return f"{_toml(value)} is not one of {', '.join(words)}{hint}"


def _toml(value: object) -> str:
    """As it might be written in the file, cut short."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "{ ... }" if value else "{}"
    if isinstance(value, list):
        return "[ ... ]" if value else "[]"
    text = str(value) if len(str(value)) <= SHOWN else f"{str(value)[:SHOWN]}..."
    return json.dumps(text, ensure_ascii=False) if isinstance(value, str) else text


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
    table = ".".join(_as_key(str(part)) for part in parts[:depth])
    return f"[{table}] {_dotted(parts[depth:])}".strip()


def _as_key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else json.dumps(name, ensure_ascii=False)


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
        return _top_line(lines, str(where[0])) if where else None
    for name in names:
        pattern = _key(name)
        for number in range(start, len(lines)):
            if number > start and lines[number].lstrip().startswith("["):
                break
            if pattern.search(lines[number]):
                start = number
                break
    return start + 1


def _key(name: str) -> re.Pattern[str]:
    return re.compile(rf'(^|[\s{{,.])"?{re.escape(name)}"?\s*[=.]')


def _header(names: Iterable[object], end: str) -> re.Pattern[str]:
    """Of a table or an array of tables."""
    return re.compile(
        r"\[{1,2}\s*" + r"\s*\.\s*".join(rf'"?{re.escape(str(name))}"?' for name in names) + end
    )


def _top_line(lines: list[str], name: str) -> int | None:
    """Of what has no table header of its own: a key above all tables, or the first table inside it."""
    inside, key = _header([name], r"\s*[.\]]"), _key(name)
    for number, line in enumerate(lines, 1):
        if inside.match(line.strip()) or key.match(line.strip()):
            return number
    return None


def _table_line(lines: list[str], where: Location) -> tuple[int | None, list[str]]:
    """The line of the header of the table that a location is in, and the keys below it."""
    parts = [part for part in where if not isinstance(part, int)]
    if where and where[0] == "routes":
        headers = [n for n, line in enumerate(lines) if _header(["routes"], r"\s*\]\]").match(line.strip())]
        index = where[1] if len(where) > 1 and isinstance(where[1], int) else 0
        return (headers[index], [str(p) for p in parts[1:]]) if index < len(headers) else (None, [])
    for depth in range(len(parts), 0, -1):
        header = _header(parts[:depth], r"\s*\]")
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
    yield from _same_routes(config)
    yield from without_http(config)


def _same_binds(config: Config) -> Iterator[tuple[Location, str]]:
    binds = {config.control.listen: "[control]", config.control.socket: "[control] socket"}
    for name, listener in config.listeners.items():
        bind = f"udp:{listener.bind}" if listener.protocol == "udp" else listener.bind
        other = binds.setdefault(bind, f"[listeners.{name}]")
        if other != f"[listeners.{name}]":
            yield ("listeners", name, "bind"), f'"{listener.bind}" is bound by {other} already'


def _dangling(raw: dict[str, Any]) -> Iterator[tuple[Location, str]]:
    """Routes to services and listeners that are not there; `raw` may be wrong in any other way."""
    routes = raw.get("routes")
    for index, route in enumerate(routes if isinstance(routes, list) else ()):
        for key in ("service", "listener"):
            name, known = _item(route, key), raw.get(f"{key}s", {})
            if isinstance(name, str) and isinstance(known, dict) and name not in known:
                yield ("routes", index, key), f'no {key} is named "{name}"{_hint(name, known, "there are")}'


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
