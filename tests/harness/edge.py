"""Bytes at the edge of an unreadable page: a read one byte too far, or one too early, is a crash."""

from __future__ import annotations

import ctypes
import mmap

PAGE = mmap.PAGESIZE
PROT_NONE = 0

_mprotect = ctypes.CDLL(None, use_errno=True).mprotect
_mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]


class Edge:
    """Room for up to `size` bytes between two unreadable pages."""

    def __init__(self, size: int = 1 << 20) -> None:
        inner = -(-size // PAGE) * PAGE
        self._map = mmap.mmap(-1, inner + 2 * PAGE)
        start = ctypes.addressof(ctypes.c_char.from_buffer(self._map))
        self._first = start + PAGE
        self._past = self._first + inner
        for page in (start, self._past):
            if _mprotect(page, PAGE, PROT_NONE):
                raise OSError(ctypes.get_errno(), "mprotect")

    def last(self, raw: bytes) -> int:
        """The address of a copy whose last byte is the last readable one."""
        assert len(raw) <= self._past - self._first
        address = self._past - len(raw)
        ctypes.memmove(address, raw, len(raw))
        return address

    def first(self, raw: bytes) -> int:
        """The address of a copy whose first byte is the first readable one."""
        assert len(raw) <= self._past - self._first
        ctypes.memmove(self._first, raw, len(raw))
        return self._first


EDGE = Edge()
