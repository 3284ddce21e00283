"""Every call of the API, written once for both clients: what is sent, and what is read out of the answer."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar
from urllib.parse import quote, urlencode

from turnout.control.client.errors import NotFoundError, RefusedError, refused
from turnout.control.client.shapes import Admin

T = TypeVar("T")
JSON = "application/json"
TOML = "application/toml"
PATIENCE_S = 120.0
"""For what waits until new workers serve."""


def as_it_is(answer: Any) -> Any:
    return answer


@dataclass(frozen=True)
class Call(Generic[T]):
    """`body`: JSON, or text of another kind. `patience`: seconds it may take at least."""

    method: str
    path: str
    read: Callable[[Any], T]
    body: Any = None
    kind: str = JSON
    query: Mapping[str, str | int | None] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    patience: float = 0

    @property
    def target(self) -> str:
        """Path and query."""
        query = urlencode({name: value for name, value in self.query.items() if value is not None})
        return f"{self.path}?{query}" if query else self.path

    @property
    def content(self) -> bytes | None:
        if self.body is None:
            return None
        return self.body.encode() if isinstance(self.body, str) else json.dumps(self.body).encode()

    @property
    def all_headers(self) -> dict[str, str]:
        kind = {} if self.body is None else {"Content-Type": self.kind}
        return {"Accept": JSON, **kind, **self.headers}

    def result(self, url: str, status: int, content: bytes, retry_after: str | None) -> T:
        """Of the answer of `url`. Raises RefusedError."""
        try:
            answer = json.loads(content) if content or status != 204 else None
        except ValueError:
            raise RefusedError(status, {"detail": f"what answers at {url} is not Turnout"}) from None
        if status >= 400:
            raise refused(status, answer if isinstance(answer, dict) else {}, retry_after)
        return self.read(answer)


def path(*parts: str) -> str:
    """Below /v1, each part one segment."""
    return "/".join(("/v1", *(quote(part, safe="") for part in parts)))


def if_match(revision: int | None) -> dict[str, str]:
    return {} if revision is None else {"If-Match": f'"{revision}"'}


def any_call(method: str, path: str, body: Any = None) -> Call[Any]:
    return Call(method, path, as_it_is, body)


# ---- the process -------------------------------------------------------------------------------------------


def status() -> Call[Any]:
    return Call("GET", path("status"), as_it_is)


def reload() -> Call[int]:
    return Call("POST", path("reload"), lambda answer: int(answer["snapshot"]), {}, patience=PATIENCE_S)


def stop(now: bool) -> Call[None]:
    return Call("POST", path("stop"), lambda _: None, {"now": now})


def upgrade() -> Call[int]:
    return Call("POST", path("upgrade"), lambda answer: int(answer["pid"]), {}, patience=PATIENCE_S)


# ---- services and endpoints --------------------------------------------------------------------------------


def set_split(service: str, shares: Mapping[str, float]) -> Call[dict[str, float]]:
    body = {"shares": dict(shares)}
    return Call("PUT", path("services", service, "split"), lambda answer: dict(answer["shares"]), body)


def change(service: str, address: str, what: Mapping[str, Any]) -> Call[Any]:
    return Call("PUT", path("services", service, "endpoints", address), as_it_is, dict(what))


def set_weight(service: str, address: str, weight: int) -> Call[Any]:
    return change(service, address, {"weight": weight})


def set_admin(
    service: str, address: str, admin: Admin, reason: str | None = None, until: float | None = None
) -> Call[Any]:
    said = {"admin": admin, "reason": reason, "until": until}
    return change(service, address, {name: value for name, value in said.items() if value is not None})


def register(service: str, body: Mapping[str, Any]) -> Call[Any]:
    return Call("POST", path("services", service, "endpoints"), as_it_is, dict(body))


def renew(service: str, address: str) -> Call[Any]:
    return Call("PUT", path("services", service, "endpoints", address, "lease"), as_it_is, {})


def deregister(service: str, address: str, if_revision: int | None = None) -> Call[Any]:
    where = path("services", service, "endpoints", address)
    return Call("DELETE", where, as_it_is, headers=if_match(if_revision))


def events(headers: Mapping[str, str]) -> Call[Any]:
    return Call("GET", path("events"), as_it_is, headers=headers)


def shares_of(status: Any, service: str) -> dict[str, float]:
    """Out of the status. Raises NotFoundError."""
    for row in status["services"]:
        if row["name"] == service:
            return {version["version"]: version["share"] for version in row["split"]}
    names = ", ".join(row["name"] for row in status["services"]) or "none"
    raise NotFoundError(404, {"detail": f'no service is named "{service}"; there are {names}'})
