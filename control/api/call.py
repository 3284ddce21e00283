"""One request on its way through a route, and what comes of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from turnout.control.access.namespaces import namespace_of

if TYPE_CHECKING:
    from aiohttp import web

    from turnout.control.api.app import Api
    from turnout.control.api.parts import Parts
    from turnout.control.api.routes import Route


@dataclass
class Call:
    """What a handler gets. `query` and `body` are instances of what the route declares."""

    route: Route
    api: Api
    request: web.Request
    actor: Any
    path: Mapping[str, str]
    query: Any = None
    body: Any = None
    if_revision: int | None = None
    """From If-Match."""
    before: Any = None
    """For the audit log: how what is changed was before."""
    recorded: bool = False
    """Whether its entry is in the audit log already."""

    @property
    def parts(self) -> Parts:
        return self.api.parts

    def sees(self, service: str) -> bool:
        """Whether the caller may know of a service, by its full name."""
        return bool(self.actor.sees(namespace_of(service)))

    @property
    def subject(self) -> str:
        """What is acted on, for the audit log."""
        return subject_of(self.route, self.path)

    @property
    def is_dry(self) -> bool:
        return bool(getattr(self.query, "dry_run", False))

    @property
    def service(self) -> str:
        return self.path["service"]

    @property
    def address(self) -> str:
        return self.path["address"]

    @property
    def by(self) -> str:
        return str(self.actor.name or self.actor.title)


@dataclass
class Reply:
    """What a handler returns. `body` is what the route's `output` describes; bytes are sent as they are."""

    body: Any = None
    status: int | None = None
    revision: int | None = None
    """Becomes the ETag."""
    after: Any = None
    """For the audit log, when that is not the body."""
    headers: dict[str, str] = field(default_factory=dict)
    stream: web.StreamResponse | None = None
    """An answer that has been given already."""


def subject_of(route: Route, path: Mapping[str, str]) -> str:
    """Like "orders/10.0.0.1:8000", or the path of a route without parameters."""
    return "/".join(path[name] for name in route.parameters) or route.path
