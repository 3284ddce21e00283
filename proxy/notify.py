"""What a service manager is told (sd_notify), and the sockets it passes (LISTEN_FDS)."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import MutableMapping

from turnout.proxy.sockets import Listening, Offers, key_of_socket

FIRST_FD = 3
SEND_S = 0.5
"""For a manager whose queue is full; a datagram socket holds no more than a few."""


class Notifier:
    """Speaks to $NOTIFY_SOCKET; silent without one. A manager that cannot be reached is no error."""

    def __init__(self, environ: MutableMapping[str, str] = os.environ) -> None:
        path = environ.get("NOTIFY_SOCKET", "")
        self.address = "\0" + path[1:] if path.startswith("@") else path
        self.watchdog_s = _watchdog(environ)

    def send(self, *lines: str) -> None:
        if not self.address:
            return
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.settimeout(SEND_S)
            sock.sendto("\n".join(lines).encode(), self.address)

    def ready(self, status: str) -> None:
        self.send("READY=1", f"MAINPID={os.getpid()}", f"STATUS={status}")

    def reloading(self) -> None:
        self.send("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self, status: str) -> None:
        self.send("STOPPING=1", f"STATUS={status}")

    def main_process(self, pid: int) -> None:
        self.send(f"MAINPID={pid}")

    def alive(self) -> None:
        self.send("WATCHDOG=1")


def _watchdog(environ: MutableMapping[str, str]) -> float:
    """Seconds between two signs of life, half of what is allowed; 0: none are wanted from this process."""
    with contextlib.suppress(ValueError):
        if environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid()):
            return int(environ.get("WATCHDOG_USEC", "0")) / 2_000_000
    return 0.0


def passed_sockets(environ: MutableMapping[str, str] = os.environ) -> Offers:
    """Listening stream sockets of a .socket unit. Takes the variables out, so that no child believes them."""
    pid, count = environ.pop("LISTEN_PID", ""), environ.pop("LISTEN_FDS", "")
    environ.pop("LISTEN_FDNAMES", None)
    offers: Offers = {}
    if pid != str(os.getpid()) or not count.isdigit():
        return offers
    for fd in range(FIRST_FD, FIRST_FD + int(count)):
        os.set_inheritable(fd, False)
        sock = socket.socket(fileno=fd)
        sock.setblocking(False)
        key = key_of_socket(sock)
        offers.setdefault(key, []).append(Listening(key, sock, shared=True))
    return offers
