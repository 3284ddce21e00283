"""The test access of sticky sessions; the engine uses them through sticky.pxd."""

from typing import Literal

def _siphash128(key: bytes, data: bytes) -> bytes: ...

class _Cookies:
    """One service's cookies. key: 16 bytes."""

    def __init__(
        self,
        *,
        kind: Literal["none", "cookie", "source"] = "cookie",
        name: str = "turnout",
        key: bytes = ...,
        service: str = "shop",
        path: str = "/",
        domain: str = "",
        http_only: bool = True,
        secure: bool = False,
        same_site: Literal["unset", "lax", "strict", "none"] = "lax",
    ) -> None: ...
    def read(self, value: bytes, wall_s: int) -> tuple[Literal["none", "bound", "bad"], int, int]:
        """Verdict, identity, expiry."""

    def write(self, identity: int, version: str, expires_s: int, wall_s: int, *, cap: int = 1536) -> bytes:
        """A Set-Cookie value; b"" when it does not fit into `cap` bytes."""

class _Sources:
    """The table of sources of the scoreboard behind a descriptor, which stays the caller's."""

    def __init__(self, fd: int) -> None: ...
    def get(self, source: int, now_ms: int) -> tuple[int, int] | None:
        """Slot and generation."""

    def put(self, source: int, slot: int, generation: int, expires_ms: int) -> None: ...
    def entry(self, i: int) -> tuple[int, int, int, int]:
        """The fields of sb_sticky_t."""

    def set_entry(self, i: int, key: int, endpoint: int, generation: int, expires_ms: int) -> None: ...
    def hammer(self, seed: int, sources: int, times: int) -> tuple[int, int]:
        """Bind and look up `sources` sources at random, each to a slot that only it has: how many were found,
        and how many of them with another's slot.
        """
