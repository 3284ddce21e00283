"""One worker for the tests: an engine on uvloop that takes its orders as lines of JSON."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import socket
import sys
from pathlib import Path
from typing import Any

import uvloop

from turnout.ext import contexts
from turnout.ext.engine import Engine
from turnout.ext.snapshot import Snapshot


class Child:
    """One worker: an engine on uvloop, and commands as lines of JSON."""

    def __init__(self, args: dict[str, Any]) -> None:
        if args["nofile"]:
            resource.setrlimit(resource.RLIMIT_NOFILE, (args["nofile"], args["nofile"]))
        self.engine = Engine(args["board"], args["worker"], large_bytes=args["large_bytes"])
        self.engine.log_to(args["log"])
        self.loop = uvloop.new_event_loop()
        self.control = socket.socket(fileno=args["control"])
        self.control.setblocking(False)
        self.held = b""
        self.loop.add_reader(self.engine.fileno(), self.engine.turn)
        self.loop.add_reader(args["control"], self.commands)
        self.engine.watch(args["control"])

    def run(self) -> None:
        self.loop.run_forever()
        self.loop.remove_reader(self.engine.fileno())
        self.engine.close()
        self.__dict__.pop("snapshot", None)  # this process holds one, too
        assert contexts._contexts() == 0, f"{contexts._contexts()} SSL_CTX not given back"

    def commands(self) -> None:
        data = self.control.recv(1 << 20)
        if not data:
            self.loop.stop()
            return
        *lines, self.held = (self.held + data).split(b"\n")
        for line in lines:
            self.command(*json.loads(line))

    def command(self, name: str, *args: Any) -> None:
        try:
            reply = {"value": getattr(self, f"do_{name}")(*args)}
        except Exception as error:  # the test's side raises it
            reply = {"error": f"{type(error).__name__}: {error}"}
        self.control.sendall(json.dumps(reply).encode() + b"\n")

    def do_load(self, document: dict[str, Any]) -> int:
        self.snapshot = Snapshot(document)  # type: ignore[arg-type]
        return self.engine.load(self.snapshot)

    def do_change(self, changes: dict[str, Any]) -> int:
        """As a worker does with changes to what it was sent before."""
        self.snapshot = Snapshot(changes | {"base": self.snapshot.version}, self.snapshot)  # type: ignore[call-overload]
        return self.engine.load(self.snapshot)

    def do_listen(self, slot: int, fd: int) -> None:
        self.engine.listen(slot, fd)

    def do_remove(self, slot: int) -> None:
        """As a worker does with a listener that is gone from the file."""
        self.engine.unlisten(slot, last=True)
        self.engine.retire(slot)

    def do_log_to(self, path: str) -> None:
        self.engine.log_to(os.open(path, os.O_WRONLY | os.O_NONBLOCK))

    def do_flush(self) -> None:
        self.engine.flush()

    def do_drain(self) -> None:
        self.engine.drain()

    def do_abort(self) -> int:
        return self.engine.abort()

    def do_open(self) -> list[int]:
        return [self.engine.open_clients, self.engine.open_exchanges]

    def do_snapshots(self) -> int:
        return self.engine.held_snapshots

    def do_use_up_descriptors(self) -> None:
        """Leave none to open anything with."""
        before = resource.getrlimit(resource.RLIMIT_NOFILE)
        highest = max(int(path.name) for path in Path("/proc/self/fd").iterdir())
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 8, before[1]))
        self.limit = before
        self.fillers: list[int] = []
        with contextlib.suppress(OSError):
            while True:
                self.fillers.append(os.open("/dev/null", os.O_RDONLY))

    def do_free_descriptors(self) -> None:
        for fd in self.fillers:
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, self.limit)


if __name__ == "__main__":
    Child(json.loads(sys.argv[1])).run()
