"""Every call of the API, written once for both clients: what is sent, and what is read out of the answer."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar
from urllib.parse import quote, urlencode

from turnout.control.client.errors import RefusedError, refused
from turnout.control.client.shapes import (
    Admin,
    AuditEntry,
    Beat,
    Changed,
    ConfigApplied,
    ConfigText,
    Endpoint,
    Event,
    Health,
    NewToken,
    Page,
    Role,
    Service,
    ServiceDetail,
    Token,
    Verdict,
    Version,
    VersionText,
)

T = TypeVar("T")
JSON = "application/json"
TOML = "application/toml"
PATIENCE_S = 120.0
"""For what waits until new workers serve."""


def as_it_is(answer: Any) -> Any:
    return answer


def items(answer: Any) -> Any:
    """Of a list that comes whole."""
    return answer["items"]


def without_none(body: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in body.items() if value is not None}


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

PAGE = 1000
"""Items that are asked for at a time."""


def services(filters: Mapping[str, str | None], cursor: str | None) -> Call[Page[Service]]:
    return Call("GET", path("services"), as_it_is, query={**filters, "limit": PAGE, "cursor": cursor})


def service(name: str) -> Call[ServiceDetail]:
    return Call("GET", path("services", name), as_it_is)


def put_service(name: str, settings: Mapping[str, Any], if_revision: int | None) -> Call[ServiceDetail]:
    return Call("PUT", path("services", name), as_it_is, dict(settings), headers=if_match(if_revision))


def delete_service(name: str, if_revision: int | None) -> Call[Changed]:
    return Call("DELETE", path("services", name), as_it_is, headers=if_match(if_revision))


def split(service: str) -> Call[dict[str, float]]:
    return Call("GET", path("services", service, "split"), lambda answer: dict(answer["shares"]))


def set_split(service: str, shares: Mapping[str, float]) -> Call[dict[str, float]]:
    body = {"shares": dict(shares)}
    return Call("PUT", path("services", service, "split"), lambda answer: dict(answer["shares"]), body)


def endpoints(service: str, filters: Mapping[str, str | None], cursor: str | None) -> Call[Page[Endpoint]]:
    query = {**filters, "limit": PAGE, "cursor": cursor}
    return Call("GET", path("services", service, "endpoints"), as_it_is, query=query)


def endpoint(service: str, address: str) -> Call[Endpoint]:
    return Call("GET", path("services", service, "endpoints", address), as_it_is)


def change(
    service: str, address: str, what: Mapping[str, Any], if_revision: int | None = None
) -> Call[Endpoint]:
    where = path("services", service, "endpoints", address)
    return Call("PATCH", where, as_it_is, without_none(what), headers=if_match(if_revision))


def set_admin(
    service: str, address: str, admin: Admin, reason: str | None = None, until: float | None = None
) -> Call[Endpoint]:
    return change(service, address, {"admin": admin, "reason": reason, "until": until})


def register(service: str, body: Mapping[str, Any]) -> Call[Endpoint]:
    return Call("POST", path("services", service, "endpoints"), as_it_is, dict(body))


def renew(service: str, address: str) -> Call[float]:
    where = path("services", service, "endpoints", address, "lease")
    return Call("PUT", where, lambda answer: float(answer["expires"]), {})


def deregister(service: str, address: str, if_revision: int | None = None) -> Call[Changed]:
    where = path("services", service, "endpoints", address)
    return Call("DELETE", where, as_it_is, headers=if_match(if_revision))


def health(service: str, address: str) -> Call[Health]:
    return Call("GET", path("services", service, "endpoints", address, "health"), as_it_is)


def healths(service: str) -> Call[list[Health]]:
    return Call("GET", path("services", service, "health"), items)


def heartbeat(service: str, address: str, status: Beat, note: str) -> Call[Health]:
    where = path("services", service, "endpoints", address, "health")
    return Call("PUT", where, as_it_is, {"status": status, "note": note})


# ---- events ------------------------------------------------------------------------------------------------


def events(filters: Mapping[str, str | None], since: int | None, headers: Mapping[str, str]) -> Call[Any]:
    return Call("GET", path("events"), as_it_is, query={**filters, "from": since}, headers=headers)


def past_events(filters: Mapping[str, str | None], since: int | None, limit: int) -> Call[list[Event]]:
    query = {**filters, "from": since, "follow": "false", "limit": limit}
    return Call("GET", path("events"), items, query=query)


# ---- the configuration -------------------------------------------------------------------------------------


def config() -> Call[ConfigText]:
    return Call("GET", path("config"), as_it_is)


def apply(text: str, dry_run: bool, note: str | None, if_version: int | None) -> Call[ConfigApplied]:
    query = {"dry_run": "true" if dry_run else None, "note": note}
    return Call(
        "PUT",
        path("config"),
        as_it_is,
        text,
        TOML,
        query=query,
        headers=if_match(if_version),
        patience=PATIENCE_S,
    )


def history(before: int | None, limit: int) -> Call[list[Version]]:
    return Call("GET", path("config", "history"), items, query={"before": before, "limit": limit})


def version(number: int) -> Call[VersionText]:
    return Call("GET", path("config", "history", str(number)), as_it_is)


def rewind(number: int, dry_run: bool, if_version: int | None) -> Call[ConfigApplied]:
    query = {"dry_run": "true" if dry_run else None}
    headers = if_match(if_version)
    return Call(
        "POST",
        path("config", "rewind"),
        as_it_is,
        {"version": number},
        query=query,
        headers=headers,
        patience=PATIENCE_S,
    )


# ---- access ------------------------------------------------------------------------------------------------


def tokens() -> Call[list[Token]]:
    return Call("GET", path("tokens"), items)


def create_token(name: str, role: Role, namespaces: Sequence[str], ttl_s: float | None) -> Call[NewToken]:
    body = {"name": name, "role": role, "namespaces": list(namespaces), "ttl_s": ttl_s}
    return Call("POST", path("tokens"), as_it_is, without_none(body))


def revoke_token(token: str) -> Call[Token]:
    return Call("DELETE", path("tokens", token), as_it_is)


def audit(query: Mapping[str, str | int | None]) -> Call[list[AuditEntry]]:
    return Call("GET", path("audit"), items, query=query)


def verify_audit() -> Call[Verdict]:
    return Call("GET", path("audit", "verify"), as_it_is, patience=PATIENCE_S)
