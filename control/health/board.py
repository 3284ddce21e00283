"""Where the prober learns which endpoints there are, and says how they are."""

from __future__ import annotations

from typing import Literal, Protocol

from turnout.ext.scoreboard import Admin


class Board(Protocol):
    """A supervisor, seen from here. Services by full name, addresses as written; KeyError for what is not in
    force.
    """

    def resolved(self, service: str) -> dict[str, str]:
        """Address as written -> with a number for its name, of every endpoint in force."""

    def health_in_force(self, service: str, address: str) -> Literal["up", "down"]: ...
    def admin_in_force(self, service: str, address: str) -> Admin: ...
    def set_health(self, service: str, address: str, health: Literal["up", "down"]) -> None: ...
