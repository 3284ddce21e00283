"""A worker's process as its supervisor sees it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable

from turnout.proxy import signals
from turnout.proxy.channel import Channel, Message
from turnout.proxy.pieces import Frozen
from turnout.proxy.sockets import Listening

COMMAND = (sys.executable, "-m", "turnout.proxy.worker")


class WorkerProcess:
    """A process, its end of the channel, and what it is known to have. It has a task once it is assigned a
    slab of the scoreboard (`worker`).

    `on_message` and `on_end` are called with this object; the latter once, when the process is gone, with its
    exit code (negative: the signal; None: it was not our child). OSError when there is no such process.
    """

    def __init__(
        self,
        pid: int,
        sock: socket.socket,
        *,
        on_message: Callable[[WorkerProcess, Message], None],
        on_end: Callable[[WorkerProcess, int | None], None],
        child: subprocess.Popen[bytes] | None = None,
    ) -> None:
        self.pid = pid
        self._pidfd = os.pidfd_open(pid)
        self.worker = -1
        self.heirs = ""  # name of the socket at which it waits for the next supervisor
        self.sent = 0  # version of the snapshot it was sent last
        self.acked = 0
        self.known: dict[int, int] = {}  # sockets it has: our id -> the id in its messages
        self.deadline = 0.0  # for what it has to acknowledge, loop time; 0: nothing
        self.turn_ms = -1
        self.still = 0  # looks at the scoreboard since it last moved
        self.draining = False
        self.cut: int | None = None  # exchanges cut at the end of its drain
        self.offered: list[Listening] = []  # by the worker of a supervisor that is gone
        self.offers_whole = False
        self._child = child
        self._on_end = on_end
        self._loop = asyncio.get_running_loop()
        self.born = self._loop.time()
        self.channel = Channel(sock, lambda message: on_message(self, message), lambda _why: None)
        self._loop.add_reader(self._pidfd, self._ended)

    @classmethod
    def spawn(
        cls,
        on_message: Callable[[WorkerProcess, Message], None],
        on_end: Callable[[WorkerProcess, int | None], None],
    ) -> WorkerProcess:
        """Start one without a task. A session of its own keeps a terminal's Ctrl-C with the supervisor."""
        ours, theirs = socket.socketpair()
        with theirs, signals.blocked():
            child = subprocess.Popen(
                [*COMMAND, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
            )
        return cls(child.pid, ours, on_message=on_message, on_end=on_end, child=child)

    def send_sockets(self, kind: str, items: list[tuple[int, Listening]], **fields: object) -> None:
        """A message that says all the sockets to accept on (with the listener's slot), and brings those that
        the worker does not have yet.
        """
        body = fields.pop("body", b"")
        new = [item for _, item in items if item.id not in self.known]
        self.known = {item.id: item.id for _, item in items}
        fields |= {
            "sockets": [[item.id, slot, item.key] for slot, item in items],
            "new": [item.id for item in new],
        }
        assert isinstance(body, bytes)
        self.channel.send(Message(kind, fields, body, tuple(item.fd for item in new)))

    def send_snapshot(self, snapshot: Frozen, items: list[tuple[int, Listening]], *, grace_ms: int) -> None:
        """As changes, if it was sent the one before."""
        base, body = snapshot.body(self.sent)
        self.sent = snapshot.version
        self.send_sockets("snapshot", items, body=body, base=base, grace_ms=grace_ms)

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    def let_go(self) -> None:
        """Know nothing of it any more; it goes on."""
        self._loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        self.channel.close()

    def _ended(self) -> None:
        self._loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        code = self._child.wait() if self._child else None
        self.channel.drain()
        self.channel.close()
        self._on_end(self, code)
