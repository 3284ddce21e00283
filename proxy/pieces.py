"""The pieces that a snapshot's document is put together from, each as JSON and made once: the row of an
endpoint, the settings of a service, the frame. A whole document and the changes from one to the next consist
of the same pieces; turnout/ext/snapshot.pyi has the shape of both.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from turnout.proxy.model import Endpoint


def dumped(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))


@dataclass(frozen=True, slots=True)
class Member:
    """An endpoint. `text` is its row."""

    endpoint: Endpoint
    address: str  # as resolved
    slot: int
    text: str


@dataclass(frozen=True, slots=True)
class Group:
    """A version; `places` of its members in the service."""

    version: str
    slot: int
    share: int
    places: tuple[int, ...]

    def row(self, first: int = 0) -> dict[str, Any]:
        return {
            "slot": self.slot,
            "version": self.version,
            "share": self.share,
            "members": [first + place for place in self.places] if first else self.places,
        }


@dataclass(frozen=True, slots=True)
class Piece:
    """A service. `settings` is its row without slot, members and groups; members by address as written."""

    slot: int
    settings: str
    members: Mapping[str, Member]
    groups: tuple[Group, ...]

    def same(self, other: Piece) -> bool:
        """Whether workers would see no difference."""
        return (
            self.slot == other.slot
            and self.settings == other.settings
            and self.groups == other.groups
            and len(self.members) == len(other.members)
            and [member.text for member in self.members.values()]
            == [member.text for member in other.members.values()]
        )

    def whole(self, first: int) -> str:
        """Its row, with members from the place `first` of all of them."""
        members = dumped(list(range(first, first + len(self.members))))
        groups = dumped([group.row(first) for group in self.groups])
        return f'{{"slot":{self.slot},"members":{members},"groups":{groups},{self.settings[1:]}'

    def changes(self, before: Piece | None) -> str:
        """What makes it of what it was."""
        kept = {} if before is None else before.members
        members = ",".join(
            [
                str(member.slot)
                if (old := kept.get(address)) is member or (old is not None and old.text == member.text)
                else member.text
                for address, member in self.members.items()
            ]
        )
        settings = "null" if before is not None and before.settings == self.settings else self.settings
        groups = dumped([group.row() for group in self.groups])
        return f'{{"slot":{self.slot},"settings":{settings},"members":[{members}],"groups":{groups}}}'


@dataclass(frozen=True, slots=True)
class Frame:
    """Listeners, routes and ticket keys. `made_of` is what else would have to be the same for it to be."""

    made_of: tuple[object, ...]
    text: str


@dataclass(frozen=True)
class Frozen:
    """A snapshot to be sent: whole, or as changes to the one before."""

    version: int
    frame: Frame
    pieces: Mapping[str, Piece]
    before: int  # version of the snapshot that `changes` are to; 0: there is none
    changes: bytes

    def body(self, has: int) -> tuple[int, bytes]:
        """For a worker that has been sent this version (0: none): the version that is changed, 0 for a whole
        document, and the text.
        """
        return (self.before, self.changes) if has and has == self.before else (0, self.whole)

    @cached_property
    def whole(self) -> bytes:
        members = ",".join(member.text for piece in self.pieces.values() for member in piece.members.values())
        services = ",".join(self._services())
        return (
            f'{{"version":{self.version},"members":[{members}],"services":[{services}],{self.frame.text[1:]}'
        ).encode()

    def _services(self) -> Iterator[str]:
        first = 0
        for piece in self.pieces.values():
            yield piece.whole(first)
            first += len(piece.members)


def frozen(version: int, frame: Frame, pieces: Mapping[str, Piece], before: Frozen | None) -> Frozen:
    if before is None:
        return Frozen(version, frame, pieces, 0, b"")
    text = "null" if frame.text == before.frame.text else frame.text
    services = ",".join(_changed(pieces.values(), {piece.slot: piece for piece in before.pieces.values()}))
    changes = f'{{"version":{version},"base":{before.version},"frame":{text},"services":[{services}]}}'
    return Frozen(version, frame, pieces, before.version, changes.encode())


def _changed(pieces: Iterable[Piece], before: Mapping[int, Piece]) -> Iterator[str]:
    for piece in pieces:
        old = before.get(piece.slot)
        same = old is piece or (old is not None and piece.same(old))
        yield str(piece.slot) if same else piece.changes(old)
