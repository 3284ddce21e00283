"""How a command ends: exit codes, and what is said on stderr."""

from __future__ import annotations

from enum import IntEnum

import typer

from turnout.control.client import (
    BadUrlError,
    ClientError,
    ForbiddenError,
    LimitedError,
    NobodyAnswersError,
    RefusedError,
    UnauthorizedError,
)
from turnout.control.discover import SeveralError
from turnout.proxy.config import ConfigError
from turnout.proxy.errors import StartError


class Exit(IntEnum):
    """Described in docs/commands.md."""

    OK = 0
    FAILED = 1
    USAGE = 2
    CUT_OFF = 3
    NOBODY = 4
    DENIED = 5


def complain(text: str) -> None:
    typer.echo(f"turnout: {text}", err=True)


def failure(error: Exception) -> Exit | None:
    """Say what went wrong; None for an error that is the program's own mistake."""
    match error:
        case ConfigError():
            number = len(error.problems)
            complain(f"the configuration has {number} problem{'' if number == 1 else 's'}:\n{error}")
            return Exit.USAGE
        case StartError():
            complain(f"cannot start:\n{error}")
            return Exit.FAILED
        case ClientError() | SeveralError():
            complain(str(error))
            return of_client(error)
    return None


def of_client(error: ClientError | SeveralError) -> Exit:
    match error:
        case BadUrlError() | SeveralError():
            return Exit.USAGE
        case NobodyAnswersError():
            return Exit.NOBODY
        case UnauthorizedError() | ForbiddenError() | LimitedError():
            return Exit.DENIED
        case RefusedError() if "problems" in error.problem:
            return Exit.USAGE
    return Exit.FAILED
