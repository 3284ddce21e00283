"""What a call may raise. All are ClientError."""

from __future__ import annotations

from typing import Any


class ClientError(Exception):
    """The text says what is wrong."""


class BadUrlError(ClientError, ValueError):
    """What was given as the API's address is none."""


class NobodyAnswersError(ClientError):
    """Nothing listens at the address, or it went away."""


class RefusedError(ClientError):
    """The API answered with an error: `problem` is its problem details (RFC 9457)."""

    def __init__(self, status: int, problem: dict[str, Any]) -> None:
        super().__init__(str(problem.get("detail") or f"status {status}"))
        self.status = status
        self.problem = problem


class UnauthorizedError(RefusedError):
    """401: no token, or one that is unknown, expired or revoked."""


class ForbiddenError(RefusedError):
    """403: the token's role or namespaces do not allow this."""


class NotFoundError(RefusedError):
    """404: there is no such service, endpoint or version; a lease that has run out is one."""


class GoneError(RefusedError):
    """410: events from so long ago are not kept any more."""


class ChangedError(RefusedError):
    """412: it has changed since the revision that the change was for."""


class LimitedError(RefusedError):
    """429: too many failed attempts; `retry_after` is in seconds."""

    retry_after: float = 0


KINDS: dict[int, type[RefusedError]] = {
    401: UnauthorizedError,
    403: ForbiddenError,
    404: NotFoundError,
    410: GoneError,
    412: ChangedError,
    429: LimitedError,
}


def refused(status: int, problem: dict[str, Any], retry_after: str | None = None) -> RefusedError:
    error = KINDS.get(status, RefusedError)(status, problem)
    if isinstance(error, LimitedError) and retry_after is not None and retry_after.isdecimal():
        error.retry_after = int(retry_after)
    return error
