"""What was set at run time and stands in no file: kept over reloads, handed on by an upgrade, and found again
after the supervisor was killed. A value counts until the file says something new about the same thing.
"""

from __future__ import annotations

from typing import Any

from turnout.ext.scoreboard import Admin, Scoreboard
from turnout.proxy.freeze import Freezer
from turnout.proxy.model import Config
from turnout.proxy.shares import asked_of

Endpoint = tuple[str, str]
"""Service and address, as in the file."""


class Runtime:
    """Sets, and remembers together with what the file said then."""

    def __init__(self, freezer: Freezer, board: Scoreboard) -> None:
        self.splits: dict[str, dict[str, float]] = {}
        self._weights: dict[Endpoint, tuple[int, int]] = {}  # value, the file's
        self._admin: dict[Endpoint, Admin] = {}
        self._freezer = freezer
        self._board = board

    def set_split(self, service: str, shares: dict[str, float]) -> dict[str, int]:
        stored = self._freezer.set_split(service, shares)
        self.splits[service] = dict(shares)
        return stored

    def set_weight(self, service: str, address: str, weight: int) -> None:
        slot = self._slot(service, address)
        self._board.set_weight(slot, weight)
        said = self._freezer.endpoint_weight(service, address)
        assert said is not None  # it has a slot
        self._weights[service, address] = weight, said

    def set_admin(self, service: str, address: str, admin: Admin) -> None:
        self._board.set_admin(self._slot(service, address), admin)
        self._admin[service, address] = admin

    def _slot(self, service: str, address: str) -> int:
        return self._freezer.endpoint_slot(service, address)

    def reloaded(self) -> None:
        """Forget what the newest file has overruled or no longer has."""
        self._freezer.apply_shares(self.splits)
        said = self._freezer.endpoint_weight
        self._weights = {key: pair for key, pair in self._weights.items() if said(*key) == pair[1]}
        self._admin = {key: admin for key, admin in self._admin.items() if said(*key) is not None}

    def export(self) -> dict[str, Any]:
        """As JSON."""
        services = self._freezer.config.services
        return {
            "splits": [[name, shares, asked_of(services[name])] for name, shares in self.splits.items()],
            "weights": [[*key, *pair] for key, pair in self._weights.items()],
            "admin": [[*key, admin] for key, admin in self._admin.items()],
        }

    def restore(self, raw: dict[str, Any]) -> None:
        """What another supervisor exported, as far as this one's file says the same about it."""
        services, weights = self._freezer.config.services, endpoint_weights(self._freezer.config)
        for service, shares, said in raw.get("splits", ()):
            if service in services and asked_of(services[service]) == said:
                self.set_split(service, shares)
        for service, address, weight, said in raw.get("weights", ()):
            if weights.get((service, address)) == said:
                self.set_weight(service, address, weight)
        for service, address, admin in raw.get("admin", ()):
            if (service, address) in weights:
                self.set_admin(service, address, admin)


def endpoint_weights(config: Config) -> dict[Endpoint, int]:
    return {
        (name, endpoint.address): endpoint.weight
        for name, service in config.services.items()
        for endpoint in service.endpoints
    }
