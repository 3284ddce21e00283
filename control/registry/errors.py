"""Why a change of the registry was not made. The texts say what would be right."""

from __future__ import annotations


class RegistryError(Exception):
    """Nothing has changed."""


class NotFoundError(RegistryError):
    """There is no such service or endpoint."""


class ConflictError(RegistryError):
    """It is not as the caller thinks it is; `revision` is what it has now, 0: it does not exist."""

    def __init__(self, text: str, revision: int) -> None:
        super().__init__(text)
        self.revision = revision


class RefusedError(RegistryError):
    """It makes no sense, or there is no room for it."""


class UnavailableError(RegistryError):
    """Not here, or not now: another program has taken over, or the store cannot be written. Try again."""
