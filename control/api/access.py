"""Tokens and the audit log."""

from __future__ import annotations

import time
from typing import Any, Literal

from pydantic import Field
from typing_extensions import TypedDict

from turnout.control.access.audit import AuditEntry
from turnout.control.access.roles import Role
from turnout.control.access.tokens import NoTokenError, Token
from turnout.control.api.call import Call, Reply
from turnout.control.api.problems import ProblemError
from turnout.control.api.routes import Body, Query, Route

RoleName = Literal["viewer", "operator", "deployer", "admin"]
Result = Literal["ok", "refused", "failed"]


class TokenRow(TypedDict):
    """`state` is valid, expired or revoked."""

    id: str
    name: str
    role: RoleName
    namespaces: list[str]
    state: Literal["valid", "expired", "revoked"]
    created: float
    created_by: str
    expires: float | None
    revoked: float | None
    revoked_by: str | None
    last_used: float | None


class TokenMade(TokenRow):
    """`token` is shown here and never again."""

    token: str


class TokenRows(TypedDict):
    """Oldest first."""

    items: list[TokenRow]


class TokenSpec(Body):
    name: str = Field(min_length=1, max_length=64, description="No other valid token may have it.")
    role: RoleName
    namespaces: list[str] = Field(
        default=["*"], min_length=1, max_length=64, description='Names or patterns like "team-*"; "*" is all.'
    )
    ttl_s: float | None = Field(default=None, gt=0, description="Seconds; without it, valid until revoked.")


class AuditQuery(Query):
    after: int = Field(default=0, ge=0, le=(1 << 31) - 1, description="Behind this entry.")
    limit: int = Field(default=100, ge=1, le=1000, description="At most so many entries.")
    newest: bool = Field(default=False, description="The last ones instead of the first.")
    action: str | None = Field(default=None, description="With this action, like endpoint.change.")
    actor: str | None = Field(default=None, description="By this one.")
    subject: str | None = Field(default=None, description="About this.")
    result: Result | None = Field(default=None, description="With this result.")


class AuditRow(TypedDict):
    """`n` counts from 1, `time` is in milliseconds; `before` and `after` are JSON texts."""

    n: int
    time: int
    kind: str
    actor: str
    role: str
    source: str
    action: str
    subject: str
    before: str
    after: str
    result: str
    detail: str
    hash: str


class AuditRows(TypedDict):
    """`next`: what to ask for with `after` to go on; null at the end."""

    items: list[AuditRow]
    next: int | None


class Wrong(TypedDict):
    """The first entry that is not what was written, or is missing."""

    n: int
    why: str


class End(TypedDict):
    """The last entry that is right: noted elsewhere, its hash shows later that it is still the same."""

    n: int
    hash: str


class Verified(TypedDict):
    ok: bool
    entries: int
    head: End
    broken: Wrong | None


async def tokens(call: Call) -> Reply:
    return Reply(TokenRows(items=[token_row(token) for token in await call.parts.tokens.list()]))


async def make(call: Call) -> Reply:
    spec = call.body
    try:
        token, text = await call.parts.tokens.create(
            spec.name, Role.named(spec.role), namespaces=spec.namespaces, ttl_s=spec.ttl_s, by=call.by
        )
    except ValueError as error:
        raise ProblemError(422, str(error), kind="refused") from None
    row = token_row(token)
    made: TokenMade = {**row, "token": text}
    after = {key: row[key] for key in ("id", "name", "role", "namespaces")}
    return Reply(
        made, after=after, headers={"Location": f"/v1/tokens/{token.id}", "Cache-Control": "no-store"}
    )


async def revoke(call: Call) -> Reply:
    try:
        token = await call.parts.tokens.revoke(call.path["token"], by=call.by)
    except NoTokenError as error:
        raise ProblemError(404, str(error)) from None
    return Reply(token_row(token), after={"id": token.id, "name": token.name})


def token_row(token: Token) -> TokenRow:
    fields: Any = {key: getattr(token, key) for key in TokenRow.__annotations__ if hasattr(token, key)}
    fields |= {
        "role": str(token.role),
        "namespaces": list(token.namespaces),
        "state": token.state(time.time()),
    }
    row: TokenRow = fields
    return row


async def audit(call: Call) -> Reply:
    asked: AuditQuery = call.query
    found = await call.parts.audit.entries(**asked.model_dump())
    more = len(found) == asked.limit and not asked.newest
    return Reply(AuditRows(items=list(map(audit_row, found)), next=found[-1].n if more else None))


def audit_row(entry: AuditEntry) -> AuditRow:
    row: Any = vars(entry)
    out: AuditRow = row
    return out


async def verify(call: Call) -> Reply:
    verdict = await call.parts.audit.verify()
    broken = None if verdict.broken is None else Wrong(n=verdict.broken.n, why=verdict.broken.why)
    head = End(n=verdict.head.n, hash=verdict.head.hash)
    return Reply(Verified(ok=verdict.ok, entries=verdict.entries, head=head, broken=broken))


ROUTES = (
    Route(
        "GET",
        "/v1/tokens",
        "Tokens, those that are no longer valid included",
        tokens,
        "token.read",
        output=TokenRows,
    ),
    Route(
        "POST",
        "/v1/tokens",
        "Make a token",
        make,
        "token.write",
        output=TokenMade,
        input=TokenSpec,
        status=201,
        errors=(422, 503),
        changes=True,
        replayed=False,
    ),
    Route(
        "DELETE",
        "/v1/tokens/{token}",
        "Revoke a token, by its id",
        revoke,
        "token.write",
        output=TokenRow,
        errors=(503,),
        changes=True,
    ),
    Route("GET", "/v1/audit", "The audit log", audit, "audit.read", output=AuditRows, query=AuditQuery),
    Route(
        "GET",
        "/v1/audit/verify",
        "Whether the audit log is as it was written",
        verify,
        "audit.read",
        output=Verified,
    ),
)
