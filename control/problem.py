"""Errors of the API as problem details (RFC 9457)."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from aiohttp import web

CONTENT_TYPE = "application/problem+json"


class ProblemError(Exception):
    """What is wrong with a request, in words for its sender; `more` are members of their own."""

    def __init__(self, status: int, detail: str, **more: Any) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.more = more

    def response(self) -> web.Response:
        body = {"title": HTTPStatus(self.status).phrase, "status": self.status, "detail": self.detail}
        return web.json_response(body | self.more, status=self.status, content_type=CONTENT_TYPE)
