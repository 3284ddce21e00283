"""A worker process: the engine under uvloop, led by messages of the supervisor.

It starts without a task, with its end of the channel as the only argument, and takes one by message: so that
one can be kept ready, and take the place of a dead worker at once.

From the supervisor: assign, keep, snapshot, listen, log, finish, drain, quit. To it: ack, finished, drained.
When the supervisor dies after it has said keep, the worker goes on with what it has, and waits at its own
unix socket for the next supervisor, which speaks the same protocol and first of all says hand_over: it gets
the listening sockets.
"""

from __future__ import annotations

import asyncio
import logging
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import uvloop

from turnout.ext.engine import Engine
from turnout.ext.snapshot import Snapshot
from turnout.proxy import logs, signals
from turnout.proxy.channel import FDS_MAX, Channel, Message

log = logging.getLogger("turnout.worker")

BEAT_S = 1.0
"""Between two turns of an idle engine: the watchdog looks at the time of the last one."""
DRAIN_LOOK_S = 0.02
FINISH_LOOK_S = 0.005
FINISH_S = 5.0
"""The longest that an accept queue may take to come to an end."""


@dataclass
class Open:
    """A listening socket of this worker: its own descriptor, and the engine's copy while it accepts."""

    fd: int
    key: str
    slot: int = -1
    engine_fd: int = -1


class Worker:
    """`stop` is called once, with the exit code."""

    def __init__(self, sock: socket.socket, stop: Callable[[int], None]) -> None:
        self.loop = asyncio.get_running_loop()
        self.stop = stop
        self.engine: Engine | None = None
        self.snapshot: Snapshot | None = None
        self.sockets: dict[int, Open] = {}
        self.heirs: socket.socket | None = None
        self.orphaned = False
        self.keep = False  # serve without a supervisor
        self.grace_ms = 30_000
        self.draining = False
        self.watched = -1
        self.channel = Channel(sock, self._message, self._channel_ended)
        for number in (signal.SIGTERM, signal.SIGINT):
            self.loop.add_signal_handler(number, self._terminated)
        for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
            self.loop.add_signal_handler(number, lambda: None)
        signals.unblock()

    # ---- messages ----------------------------------------------------------------------------------------

    def _message(self, message: Message) -> None:
        handler = getattr(self, f"_on_{message.kind}", None)
        if handler is None:
            raise ValueError(f'unknown message "{message.kind}"')
        handler(message)

    @property
    def _running(self) -> Engine:
        if self.engine is None:
            raise RuntimeError("not assigned yet")
        return self.engine

    def _on_assign(self, message: Message) -> None:
        scoreboard_fd, heirs_fd = message.fds
        worker = message.fields["worker"]
        self.keep = message.fields["keep"]
        self.engine = Engine(scoreboard_fd, worker, large_bytes=message.fields["large_bytes"])
        os.close(scoreboard_fd)
        self.heirs = socket.socket(fileno=heirs_fd)
        self.heirs.setblocking(False)
        self.loop.add_reader(self.engine.fileno(), self.engine.turn)
        self._watch(self.channel.fd)
        self._beat()

    def _on_keep(self, _message: Message) -> None:
        self.keep = True

    def _on_snapshot(self, message: Message) -> None:
        self.grace_ms = message.fields["grace_ms"]
        if message.fields["base"]:
            assert self.snapshot is not None
            self.snapshot = Snapshot(message.body, self.snapshot)
        else:
            self.snapshot = Snapshot(message.body)
        version = self._running.load(self.snapshot)
        self._listen(message)
        self.channel.send(Message("ack", {"version": version}))

    def _on_listen(self, message: Message) -> None:
        self._listen(message)

    def _on_log(self, message: Message) -> None:
        self._running.log_to(message.fds[0] if message.fds else -1)

    def _on_finish(self, message: Message) -> None:
        wanted = set(message.fields["sockets"]) & set(self.sockets)
        self._finish(wanted, self.loop.time() + FINISH_S, message)

    def _on_drain(self, message: Message) -> None:
        self._drain(message.fields["grace_ms"])

    def _on_quit(self, _message: Message) -> None:
        self._quit()

    def _on_hand_over(self, _message: Message) -> None:
        items = list(self.sockets.items())
        for some in [items[at : at + FDS_MAX] for at in range(0, len(items), FDS_MAX)] or [[]]:
            fields = {"sockets": [[number, item.key] for number, item in some], "all": len(items)}
            self.channel.send(Message("sockets", fields, fds=tuple(item.fd for _, item in some)))

    # ---- listening sockets -------------------------------------------------------------------------------

    def _listen(self, message: Message) -> None:
        """The whole list of sockets to accept on: (id, listener slot, key); descriptors come for `new`."""
        arrived = dict(zip(message.fields["new"], message.fds, strict=True))
        wanted = {number: (slot, key) for number, slot, key in message.fields["sockets"]}
        for number, fd in arrived.items():
            self.sockets[number] = Open(fd, wanted[number][1])
        for number in set(self.sockets) - set(wanted):
            self._close(number)
        for number, (slot, _) in wanted.items():
            item = self.sockets[number]
            if item.slot != slot:
                self._unlisten(item)
                item.slot, item.engine_fd = slot, os.dup(item.fd)
                self._running.listen(slot, item.engine_fd)

    def _unlisten(self, item: Open, *, last: bool = False) -> None:
        if item.slot >= 0:
            self._running.unlisten(item.slot, item.engine_fd, last=last)
            item.slot = -1

    def _close(self, number: int, *, last: bool = False) -> None:
        item = self.sockets.pop(number)
        self._unlisten(item, last=last)
        os.close(item.fd)

    def _finish(self, numbers: set[int], deadline: float, message: Message) -> None:
        """Close each as soon as nobody waits in its accept queue; nobody new gets in any more."""
        if self.draining:
            return
        for number in list(numbers):
            if not _readable(self.sockets[number].fd) or self.loop.time() >= deadline:
                numbers.discard(number)
                self._close(number, last=True)
        if numbers:
            self.loop.call_later(FINISH_LOOK_S, self._finish, numbers, deadline, message)
            return
        for slot in message.fields["retire"]:
            self._running.retire(slot)
        self.channel.send(Message("finished", {"token": message.fields["token"]}))

    # ---- the end -----------------------------------------------------------------------------------------

    def _drain(self, grace_ms: int) -> None:
        if self.draining:
            return
        self.draining = True
        if self.engine is None:
            self.stop(0)
            return
        self.engine.drain()
        self._close_sockets()
        self._drained(time.monotonic() + grace_ms / 1000)

    def _close_sockets(self) -> None:
        for item in self.sockets.values():
            os.close(item.fd)
        self.sockets.clear()

    def _drained(self, deadline: float) -> None:
        engine = self._running
        engine.turn()
        if engine.open_clients and time.monotonic() < deadline:
            self.loop.call_later(DRAIN_LOOK_S, self._drained, deadline)
        else:
            self._quit()

    def _quit(self) -> None:
        """Cut what is still open, say how much that was, and end."""
        if self.engine is not None:
            self.channel.send(Message("drained", {"cut": self.engine.abort()}))
            self.loop.remove_reader(self.engine.fileno())
            engine, self.engine = self.engine, None
            engine.close()  # a debug build raises when something was not given back
        self.stop(0)

    def _terminated(self) -> None:
        """The supervisor decides when to go; without one, whoever sends the signal does."""
        if self.draining and self.orphaned:
            self._quit()
        elif self.orphaned:
            self._drain(self.grace_ms)

    # ---- without a supervisor ----------------------------------------------------------------------------

    def _channel_ended(self, why: str) -> None:
        if self.engine is None or self.heirs is None:
            self.stop(0)
            return
        self.orphaned = True
        if not self.keep:
            self._drain(self.grace_ms)
            return
        log.warning("the supervisor %s; serving goes on, turnout run of the same file takes over", why)
        self._await_heir()

    def _await_heir(self) -> None:
        if self.heirs is not None:
            self._watch(self.heirs.fileno())
            self.loop.add_reader(self.heirs.fileno(), self._heir_came, self.heirs)

    def _heir_came(self, heirs: socket.socket) -> None:
        try:
            sock, _ = heirs.accept()
        except (BlockingIOError, ConnectionError):
            return
        self.loop.remove_reader(heirs.fileno())
        self.channel = Channel(sock, self._message, self._channel_ended)
        self._watch(self.channel.fd)

    def _watch(self, fd: int) -> None:
        """Have the engine leave its turn when this one descriptor is readable, and no former one."""
        if self.watched >= 0:
            self._running.unwatch(self.watched)
        self._running.watch(fd)
        self.watched = fd

    def _beat(self) -> None:
        if self.engine is not None:
            self.engine.turn()
            self.loop.call_later(BEAT_S, self._beat)


def _readable(fd: int) -> bool:
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(0))


async def run(sock: socket.socket) -> int:
    loop = asyncio.get_running_loop()
    done: asyncio.Future[int] = loop.create_future()

    def stop(code: int) -> None:
        if not done.done():
            done.set_result(code)

    def failed(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Whatever was not foreseen ends the process: the supervisor starts a new one."""
        log.critical("%s", context["message"], exc_info=context.get("exception"))
        stop(1)

    loop.set_exception_handler(failed)
    Worker(sock, stop)
    return await done


def main(arguments: list[str]) -> int:
    logs.configure("worker")
    return uvloop.run(run(socket.socket(fileno=int(arguments[0]))))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
