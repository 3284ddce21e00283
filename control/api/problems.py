"""Errors of the API as problem details (RFC 9457)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any, NotRequired

from aiohttp import web
from pydantic import ValidationError
from pydantic_core import to_json
from typing_extensions import TypedDict

from turnout.control.access.errors import AccessError
from turnout.control.events.events import GoneError
from turnout.control.registry.errors import ConflictError, NotFoundError, RefusedError, UnavailableError
from turnout.control.storage.store import StoreError
from turnout.proxy.config import ConfigError
from turnout.proxy.errors import UpgradeError

CONTENT_TYPE = "application/problem+json"
URN = "urn:turnout:problem:"
SHOWN = 60
"""Characters of a wrong value that are said."""


class Place(TypedDict):
    """One thing that is wrong: where it stands, and what is the matter with it."""

    where: str
    what: str
    file: NotRequired[str]
    line: NotRequired[int | None]


class Problem(TypedDict):
    """Problem details. `type` is stable and for programs, `detail` for people."""

    type: str
    title: str
    status: int
    detail: str
    instance: str
    problems: NotRequired[list[Place]]
    revision: NotRequired[int]


class ProblemError(Exception):
    """What is wrong with a request, in words for its sender; `more` are members of their own."""

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        kind: str = "",
        headers: Mapping[str, str] | None = None,
        **more: Any,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.kind = kind
        self.headers = dict(headers or {})
        self.more = more

    def body(self, instance: str = "") -> dict[str, Any]:
        title = HTTPStatus(self.status).phrase
        return {
            "type": URN + (self.kind or title.lower().replace(" ", "-")),
            "title": title,
            "status": self.status,
            "detail": self.detail,
            "instance": instance,
            **self.more,
        }

    def response(self, instance: str = "") -> web.Response:
        return web.Response(
            body=to_json(self.body(instance)),
            status=self.status,
            content_type=CONTENT_TYPE,
            headers=self.headers,
        )


def invalid(problems: Iterable[Place]) -> ProblemError:
    """A request whose form is wrong, in one or several places."""
    places = list(problems)
    said = "; ".join(
        f"{place['where']}: {place['what']}" if place["where"] else place["what"] for place in places
    )
    return ProblemError(400, said, kind="validation", problems=places)


def places(error: ValidationError, prefix: str = "") -> list[Place]:
    """What pydantic found, in words; `prefix` says of what the locations are: "?" for the query."""
    return [
        {"where": prefix + ".".join(map(str, item["loc"])) if item["loc"] else prefix, "what": _said(item)}
        for item in error.errors(include_url=False)
    ]


def _said(item: Any) -> str:
    kind, message = item["type"], str(item["msg"])
    if kind == "extra_forbidden":
        return "is not known here"
    if kind == "missing":
        return "is missing"
    if kind == "json_invalid":
        return message
    if kind == "value_error":
        return message.removeprefix("Value error, ")
    value = item["input"]
    shown = "" if isinstance(value, (dict, list)) else f", not {_shown(value)}"
    return message[:1].lower() + message[1:] + shown


def _shown(value: object) -> str:
    text = to_json(value, fallback=str, inf_nan_mode="constants").decode()
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


def of(error: Exception) -> ProblemError | None:  # noqa: PLR0911 - a table
    """What an exception of any part means to who called; None for one that nobody expected."""
    match error:
        case ProblemError():
            return error
        case AccessError():
            return ProblemError(error.status, error.detail, headers=error.headers)
        case ConfigError():
            found = [Place(where=p.where, what=p.what, file=p.file, line=p.line) for p in error.problems]
            return ProblemError(422, f"nothing has changed:\n{error}", kind="configuration", problems=found)
        case UpgradeError():
            return ProblemError(500, f"the running program goes on: {error}", kind="upgrade-failed")
        case NotFoundError():
            return ProblemError(404, str(error))
        case ConflictError():
            return ProblemError(412, str(error), kind="changed", revision=error.revision)
        case RefusedError():
            return ProblemError(422, str(error), kind="refused")
        case UnavailableError() | StoreError():
            return ProblemError(503, str(error), headers={"Retry-After": "1"})
        case GoneError():
            return ProblemError(410, str(error))
    return None
