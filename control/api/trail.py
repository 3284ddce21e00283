"""What the API writes into the audit log: every change with its end, and every refusal."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from turnout.control.api import problems
from turnout.control.api.call import Call, subject_of
from turnout.control.api.problems import ProblemError
from turnout.control.storage.store import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from turnout.control.access.audit import Audit
    from turnout.control.access.errors import AccessError
    from turnout.control.api.routes import Route
    from turnout.control.registry.entries import EndpointEntry
    from turnout.control.registry.registry import Also
    from turnout.control.storage.store import Change

log = logging.getLogger("turnout.api")


class Trail:
    def __init__(self, audit: Audit) -> None:
        self._audit = audit

    async def begun(self, call: Call) -> None:
        """Of a change after which nothing more can be written here."""
        if call.route.is_audited and call.route.recorded_first:
            await self._write(call, detail="begun")

    def within(self, call: Call, after: Callable[[EndpointEntry | None], Any]) -> Also:
        """For the registry: the entry is a part of the change, and costs no transaction of its own. When the
        change is taken back, because it cannot be put in force, one that says so follows.
        """

        async def write(change: Change, entry: EndpointEntry | None) -> None:
            await self._audit.add(
                change,
                call.actor,
                action_of(call.route),
                call.subject,
                before=call.before,
                after=after(entry),
            )
            change.then(recorded)

        def recorded() -> None:
            call.recorded = True

        return write

    async def done(self, call: Call, after: Any) -> None:
        """Raises ProblemError when it cannot be written: somebody has to know."""
        if not call.route.is_audited or call.route.recorded_first or call.is_dry or call.recorded:
            return
        try:
            await self._write(call, after=after)
        except StoreError as error:
            raise ProblemError(503, f"it is done, but the audit log cannot be written: {error}") from None

    async def failed(self, call: Call, error: Exception) -> None:
        if not call.route.is_audited:
            return
        try:
            await self._write(call, result="failed", detail=str(problems.of(error) or type(error).__name__))
        except StoreError as why:
            log.error("a failed change is not in the audit log: %s", why)  # noqa: TRY400

    async def refused(self, route: Route, path: Mapping[str, str], error: AccessError) -> None:
        if not error.record:
            return
        try:
            await self._audit.record(
                error.actor,
                action_of(route),
                subject_of(route, path),
                result="refused",
                detail=error.detail,
                source=error.source,
            )
        except StoreError as why:
            log.error("a refusal is not in the audit log: %s", why)  # noqa: TRY400

    async def _write(self, call: Call, **more: Any) -> None:
        await self._audit.record(call.actor, action_of(call.route), call.subject, before=call.before, **more)


def action_of(route: Route) -> str:
    return route.action or route.path
