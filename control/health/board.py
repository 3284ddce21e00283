"""Where the prober learns which endpoints there are, and says how they are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from turnout.ext.scoreboard import Admin, EndpointInfo, Health

if TYPE_CHECKING:
    from turnout.proxy.supervisor import Supervisor


class Board(Protocol):
    """A supervisor, seen from here. Services by full name, addresses as written; KeyError for what is not in
    force.
    """

    def resolved(self, service: str) -> dict[str, str]:
        """Address as written -> with a number for its name, of every endpoint in force."""

    def health_in_force(self, service: str, address: str) -> Health: ...
    def admin_in_force(self, service: str, address: str) -> Admin: ...
    def set_health(self, service: str, address: str, health: Health) -> None: ...


class SupervisorBoard:
    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor

    def resolved(self, service: str) -> dict[str, str]:
        return self._supervisor.freezer.resolved(service)

    def health_in_force(self, service: str, address: str) -> Health:
        return self._info(service, address)["health"]

    def admin_in_force(self, service: str, address: str) -> Admin:
        return self._info(service, address)["admin"]

    def set_health(self, service: str, address: str, health: Health) -> None:
        self._supervisor.set_health(service, address, health)

    def _info(self, service: str, address: str) -> EndpointInfo:
        slot = self._supervisor.freezer.endpoint_slot(service, address)
        return self._supervisor.scoreboard.endpoint(slot)
