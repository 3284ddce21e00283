"""What a route is: everything that is to be known of it, declared once."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, TypeAdapter

if TYPE_CHECKING:
    from turnout.control.api.call import Call, Reply

JSON = "application/json"
BODY_MAX = 64 * 1024
"""Bytes of a request's body, unless a route says otherwise."""
Method = Literal["GET", "POST", "PUT", "PATCH", "DELETE"]

PATTERNS = {"address": "unix:/.+|[^/]+"}
"""Path parameters that are more than one segment: the path of a unix socket may be sent as it is."""


class Body(BaseModel):
    """What a request brings: JSON types are taken as they are, unknown members are errors."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class Query(BaseModel):
    """Parameters behind the "?"."""

    model_config = ConfigDict(extra="forbid")


class Nothing(Body):
    """No member."""


class NoQuery(Query):
    """No parameter."""


@dataclass(frozen=True)
class Route:
    """`action` is what the gate is asked for, None for routes that are open to all who reach the listener.
    `errors` are statuses that the handler itself may answer, besides those that follow from the rest.
    """

    method: Method
    path: str
    summary: str
    handler: Callable[[Call], Awaitable[Reply]]
    action: str | None
    output: Any = None
    """A model or TypedDict; None when the answer has no JSON."""
    input: type[BaseModel] | None = None
    query: type[Query] = NoQuery
    status: int = 200
    also: tuple[int, ...] = ()
    """Other good statuses with the same body."""
    errors: tuple[int, ...] = ()
    changes: bool = False
    audited: bool | None = None
    """Whether each call goes to the audit log; by default every change does."""
    recorded_first: bool = False
    """In the audit log before it is done: another program has the store afterwards."""
    replayed: bool = True
    """Whether a POST takes an Idempotency-Key; not where the answer holds a secret."""
    conditional: bool = False
    """A GET has an ETag, a change takes If-Match."""
    produces: str = JSON
    consumes: str = JSON
    body_max: int = BODY_MAX
    deprecated: bool = False
    tag: str = ""
    notes: str = field(default="", repr=False)

    @property
    def key(self) -> str:
        return f"{self.method} {self.path}"

    @property
    def parameters(self) -> list[str]:
        """Names in the path."""
        return re.findall(r"\{(\w+)\}", self.path)

    @property
    def pattern(self) -> str:
        """The path as aiohttp wants it."""
        return re.sub(
            r"\{(\w+)\}", lambda m: f"{{{m[1]}:{PATTERNS[m[1]]}}}" if m[1] in PATTERNS else m[0], self.path
        )

    @property
    def takes_body(self) -> bool:
        return self.input is not None or self.consumes != JSON

    @property
    def idempotent_by_key(self) -> bool:
        return self.method == "POST" and self.changes and self.replayed

    @property
    def is_audited(self) -> bool:
        return self.changes if self.audited is None else self.audited

    @cached_property
    def has_query(self) -> bool:
        return bool(self.query.model_fields)

    @property
    def dry(self) -> bool:
        """Whether it can be tried without changing anything."""
        return "dry_run" in self.query.model_fields

    @cached_property
    def adapter(self) -> TypeAdapter[Any]:
        """Of the output."""
        return TypeAdapter(self.output)

    def statuses(self) -> list[int]:
        """All errors that it may answer."""
        out = set(self.errors)
        if self.has_query or self.takes_body or self.conditional:
            out.add(400)
        if self.action is not None:
            out |= {401, 403, 429}
        if self.parameters:
            out.add(404)
        if self.takes_body:
            out |= {413, 415}
        if self.conditional and self.changes:
            out.add(412)
        if self.idempotent_by_key:
            out |= {400, 422}
        return sorted(out)
