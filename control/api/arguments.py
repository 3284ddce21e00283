"""What a request brings, checked against what its route declares."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from aiohttp import web
from pydantic import BaseModel, ValidationError

from turnout.control.api.problems import Place, ProblemError, invalid, places
from turnout.control.api.routes import JSON, Query, Route

if TYPE_CHECKING:
    from multidict import MultiMapping

KEY = re.compile(r"[\x21-\x7e]{1,255}")


def query_of(route: Route, given: MultiMapping[str]) -> Query:
    """Raises ProblemError for a parameter that is unknown, wrong or there twice."""
    if not given and not route.has_query:
        return route.query()
    twice = [name for name in dict.fromkeys(given) if len(given.getall(name)) > 1]
    if twice:
        raise invalid(Place(where=f"?{name}", what="is there more than once") for name in twice)
    try:
        return route.query.model_validate(dict(given.items()))
    except ValidationError as error:
        raise invalid(places(error, "?")) from None


async def content_of(route: Route, request: web.Request) -> bytes:
    """The whole body; b"" without one. Raises ProblemError for one that is too long or of another kind."""
    if (request.content_length or 0) > route.body_max:
        raise _too_long(route)
    if route.takes_body:
        _check_kind(route, request)
    raw = bytearray()
    try:
        while not request.content.at_eof():
            raw += await request.content.readany()
            if len(raw) > route.body_max:
                raise _too_long(route)
    except web.RequestPayloadError as error:
        raise invalid([Place(where="", what=f"the body cannot be read: {error}")]) from None
    if not route.takes_body and bytes(raw).strip() not in {b"", b"{}"}:
        raise invalid([Place(where="", what=f"{route.method} {route.path} takes no body")])
    return bytes(raw)


def _check_kind(route: Route, request: web.Request) -> None:
    """A page of another site cannot send these kinds without asking first."""
    kind = request.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if kind != route.consumes:
        raise ProblemError(415, f'send "Content-Type: {route.consumes}"', headers={"Accept": route.consumes})
    if request.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise ProblemError(415, "send the body as it is, without Content-Encoding")


def _too_long(route: Route) -> ProblemError:
    return ProblemError(
        413, f"the body is longer than {route.body_max} bytes", headers={"Connection": "close"}
    )


def body_of(route: Route, raw: bytes) -> Any:
    """An empty body is {}; what is no JSON stays text. Raises ProblemError."""
    if route.consumes != JSON:
        return _text(raw)
    if route.input is None:
        return None
    return _model(route.input, raw)


def _model(kind: type[BaseModel], raw: bytes) -> BaseModel:
    try:
        return kind.model_validate_json(raw or b"{}")
    except ValidationError as error:
        raise invalid(places(error)) from None


def _text(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise invalid([Place(where="", what=f"is not UTF-8 at byte {error.start}")]) from None


def key_of(route: Route, headers: Mapping[str, str]) -> str | None:
    """The idempotency key, where it means something."""
    key = headers.get("Idempotency-Key")
    if key is None or not route.idempotent_by_key:
        return None
    if not KEY.fullmatch(key):
        what = "is 1 to 255 printable ASCII characters without blanks"
        raise invalid([Place(where="Idempotency-Key", what=what)])
    return key
