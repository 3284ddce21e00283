"""Tests and measurements only."""

from collections.abc import Sequence

def _murmur(data: bytes) -> tuple[int, int]: ...

class _Ring:
    def __init__(self, members: Sequence[tuple[int, int, int]]) -> None:
        """Members: identity, slot, points."""

    def build(self) -> None:
        """Again, from the same members."""

    def points(self) -> list[tuple[int, int, int]]:
        """Hash, slot, rank, in the order of the ring."""

    def find(self, key: int) -> int | None:
        """The slot that owns a key; None on an empty ring."""
