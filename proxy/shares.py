"""Which part of a service's new sessions each of its versions gets: what was asked for, and what is in force.

A version without endpoints keeps its place: what it was to have goes to the others in proportion, until it
has some. The scoreboard holds what is in force.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from turnout.ext.scoreboard import SHARE, Scoreboard
from turnout.proxy.model import Service


def shares_of(split: Mapping[str, float]) -> dict[str, int]:
    """Shares in millionths that add up to SHARE exactly: what rounding leaves goes to the largest remainders.
    Raises ValueError when a share is negative or all are 0.
    """
    total = sum(split.values())
    if not 0 < total < float("inf") or min(split.values()) < 0:
        raise ValueError("shares are numbers from 0 up, one of them above 0")
    exact = {version: share / total * SHARE for version, share in split.items()}
    out = {version: int(share) for version, share in exact.items()}
    order = sorted(out, key=lambda version: out[version] - exact[version])
    for version in order[: SHARE - sum(out.values())]:
        out[version] += 1
    return out


def groups_of(service: Service) -> dict[str, list[int]]:
    """Version -> places in the service's endpoints. One group, "", when there is no split; a version that the
    split names is there also without endpoints.
    """
    if service.split is None:
        return {"": list(range(len(service.endpoints)))}
    out: dict[str, list[int]] = {}
    for place, endpoint in enumerate(service.endpoints):
        out.setdefault(endpoint.version, []).append(place)
    for version in service.split:
        out.setdefault(version, [])
    return out


def asked_of(service: Service) -> dict[str, int]:
    """What the configuration asks for: shares of the versions that it names, of the one group without
    split. Versions that are not there have 0.
    """
    return {"": SHARE} if service.split is None else shares_of(service.split)


def effective(asked: Mapping[str, int], able: Mapping[str, bool]) -> dict[str, int]:
    """Shares in force of all versions in `able`, which says whether they have endpoints. All are 0 when none
    that has endpoints was to have anything.
    """
    part = {version: asked.get(version, 0) if has else 0 for version, has in able.items()}
    return shares_of(part) if any(part.values()) else part


class Shares:
    """Of all services with a split. `slot_of` finds the slot of a service's version."""

    def __init__(self, board: Scoreboard, slot_of: Callable[[str, str], int]) -> None:
        self.asked: dict[str, dict[str, int]] = {}
        self._board = board
        self._slot_of = slot_of
        self._said: dict[str, dict[str, int]] = {}  # by the configuration
        self._able: dict[str, dict[str, bool]] = {}
        self._stored: dict[str, dict[str, int]] = {}

    def enter(self, name: str, service: Service, groups: Mapping[str, list[int]]) -> None:
        """A service is new, or has changed. What was asked for at run time counts until the configuration
        asks for something new.
        """
        said = asked_of(service)
        if self._said.get(name) != said:
            self._said[name] = self.asked[name] = said
            self._stored.pop(name, None)
        self._able[name] = {
            version: bool(places) or service.split is None for version, places in groups.items()
        }
        self._store(name)

    def ask(self, name: str, asked: dict[str, int]) -> None:
        self.asked[name] = asked
        self._store(name)

    def leave(self, name: str) -> None:
        for table in (self.asked, self._said, self._able, self._stored):
            table.pop(name, None)

    def as_configured(self, name: str) -> bool:
        return self.asked[name] == self._said[name]

    def _store(self, name: str) -> None:
        shares = effective(self.asked[name], self._able[name])
        if self._stored.get(name) != shares:
            self._board.set_shares({self._slot_of(name, version): share for version, share in shares.items()})
            self._stored[name] = shares
