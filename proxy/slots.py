"""Who has which slot of the scoreboard: kept from snapshot to snapshot, given on only when nobody can use it
any more.

A slot's life: free -> held -> leaving (its owner is not in the newest snapshot; workers may still use an
older one) -> resting (every worker has a snapshot without it; requests that were under way still count on it)
-> free. An owner that comes back while its slot is leaving has it again, counters and all.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


class SlotsError(Exception):
    """`wanted` owners and those on their way out do not fit `capacity` slots."""

    def __init__(self, wanted: int, capacity: int) -> None:
        super().__init__(f"{wanted} do not fit {capacity} slots")
        self.wanted = wanted
        self.capacity = capacity


@dataclass(frozen=True)
class Plan(Generic[K]):
    """What the next snapshot changes: owners with slots that are new to them, those that have again what was
    about to leave them, and those that are gone.
    """

    new: dict[K, int]
    back: dict[K, int]
    gone: dict[K, int]


class SlotTable(Generic[K]):
    """The slots of one kind."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.held: dict[K, int] = {}
        self._leaving: dict[K, tuple[int, int]] = {}  # slot, version of the first snapshot without it
        self._resting: list[int] = []
        self._free: deque[int] = deque(range(capacity))  # longest free first

    def plan(self, owners: Iterable[K]) -> Plan[K]:
        """Slots for these owners and no others. Changes nothing; raises SlotsError."""
        wanted = dict.fromkeys(owners)
        come = [owner for owner in wanted if owner not in self.held]
        return self.change(come, [owner for owner in self.held if owner not in wanted])

    def change(self, come: Iterable[K], gone: Iterable[K]) -> Plan[K]:
        """Slots for those that come, each once and none of them held; what is not gone stays. Changes
        nothing; raises SlotsError.
        """
        back: dict[K, int] = {}
        missing: list[K] = []
        for owner in come:
            if owner in self._leaving:
                back[owner] = self._leaving[owner][0]
            else:
                missing.append(owner)
        leave = {owner: self.held[owner] for owner in gone}
        if len(missing) > len(self._free):
            wanted = len(self.held) - len(leave) + len(back) + len(missing)
            raise SlotsError(wanted, self.capacity)
        return Plan({owner: self._free[i] for i, owner in enumerate(missing)}, back, leave)

    def __contains__(self, owner: object) -> bool:
        return owner in self.held or owner in self._leaving

    def slot(self, owner: K, plan: Plan[K] | None = None) -> int:
        """The slot of an owner, one that is leaving included; under a plan also of one that is new in it.
        KeyError when it has none.
        """
        if plan is not None and owner in plan.new:
            return plan.new[owner]
        return self.held[owner] if owner in self.held else self._leaving[owner][0]

    def commit(self, plan: Plan[K], version: int) -> None:
        """Put a plan in force. It must be the outcome of the last `plan` or `change`, and `version` above all
        former ones.
        """
        for _ in plan.new:
            self._free.popleft()
        for owner in plan.back:
            del self._leaving[owner]
        for owner, slot in plan.gone.items():
            del self.held[owner]
            self._leaving[owner] = slot, version
        self.held |= plan.new
        self.held |= plan.back

    def release(self, version: int, idle: Callable[[int], bool] = lambda _slot: True) -> dict[K, int]:
        """Every worker has acknowledged `version`: owners that left with it or before, with their slots. A
        slot is free again from the first call on for which it is idle.
        """
        out = {owner: slot for owner, (slot, since) in self._leaving.items() if since <= version}
        for owner in out:
            del self._leaving[owner]
        self._resting += out.values()
        rested = {slot for slot in self._resting if idle(slot)}
        self._free.extend(slot for slot in self._resting if slot in rested)
        self._resting = [slot for slot in self._resting if slot not in rested]
        return out
