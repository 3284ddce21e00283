"""Who is at the other end of a unix socket, as the kernel says."""

from __future__ import annotations

import os
import pwd
import socket
import struct
from dataclasses import dataclass
from typing import Protocol

CREDENTIALS = struct.Struct("3i")


class HasOptions(Protocol):
    """A socket, or what a transport shows of one."""

    def getsockopt(self, level: int, option: int, size: int, /) -> bytes: ...


@dataclass(frozen=True)
class Peer:
    pid: int
    uid: int

    @property
    def name(self) -> str:
        """The user's, or the number where it has none."""
        try:
            return pwd.getpwuid(self.uid).pw_name
        except KeyError:
            return f"uid {self.uid}"

    def trusted(self, owner: int | None = None) -> bool:
        """Root, and whoever runs the proxy."""
        return self.uid in {0, os.geteuid() if owner is None else owner}


def peer_of(sock: HasOptions) -> Peer:
    pid, uid, _gid = CREDENTIALS.unpack(
        sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, CREDENTIALS.size)
    )
    return Peer(pid, uid)
