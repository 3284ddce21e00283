"""The engine in processes of its own, without supervisor and configuration: what the end-to-end tests of
the data plane talk to.

`Proxy` makes the scoreboard and the listening sockets, starts one child per worker (engine_child.py), and
tells the children over a socketpair what to load. What an engine still holds when it is closed, and every
crash, fails the test with the child's stderr.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import resource
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from fakes import documents
from fakes.client import Client

from turnout.ext.scoreboard import Scoreboard

PATIENCE = 10.0
LARGE_BYTES = 134217728
CHILD = Path(__file__).with_name("engine_child.py")


def eventually(look: Callable[[], Any], *, seconds: float = PATIENCE) -> Any:
    """The first true value of `look`, the last value when time is over: for what another process does."""
    end = time.monotonic() + seconds
    while not (value := look()) and time.monotonic() < end:
        time.sleep(0.002)
    return value


def bound_datagrams(host: str, port: int) -> socket.socket:
    family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
    sock = socket.socket(family, kind)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, int(port != 0))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
    sock.bind(address)
    # Only now: the kernel would pick a port that another such socket has already.
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    return sock


class Worker:
    def __init__(
        self,
        number: int,
        board_fd: int,
        log_fd: int,
        listeners: Iterable[int],
        large_bytes: int,
        nofile: int | None,
    ) -> None:
        ours, theirs = socket.socketpair()
        ours.settimeout(PATIENCE * 3)
        self.control = ours
        self.lines = ours.makefile("rb")
        self.stderr = tempfile.TemporaryFile()  # noqa: SIM115
        args = {
            "board": board_fd,
            "worker": number,
            "log": log_fd,
            "control": theirs.fileno(),
            "large_bytes": large_bytes,
            "nofile": nofile,
        }
        self.process = subprocess.Popen(
            [sys.executable, CHILD, json.dumps(args)],
            pass_fds=[board_fd, log_fd, theirs.fileno(), *listeners],
            stderr=self.stderr,
        )
        theirs.close()

    def ask(self, *command: Any) -> Any:
        with contextlib.suppress(BrokenPipeError):
            self.control.sendall(json.dumps(command).encode() + b"\n")
        line = self.lines.readline()
        if not line:
            raise AssertionError(f"the engine's process is gone:\n{self.said()}")
        reply = json.loads(line)
        if "error" in reply:
            raise ValueError(reply["error"])
        return reply["value"]

    def said(self) -> str:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(5)
        self.stderr.seek(0)
        return f"exit code {self.process.returncode}\n{self.stderr.read().decode(errors='replace')}"

    def check_alive(self) -> None:
        if self.process.poll() is not None:
            raise AssertionError(f"the engine's process is gone:\n{self.said()}")

    def close(self) -> None:
        """End the child, which frees its engine; fails when something was not given back."""
        self.control.shutdown(socket.SHUT_WR)
        try:
            self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise AssertionError(f"the engine does not come to an end:\n{self.said()}") from None
        said = self.said()
        self.lines.close()
        self.control.close()
        self.stderr.close()
        assert self.process.returncode == 0, said

    def memory(self) -> int:
        """Resident bytes."""
        return int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * resource.getpagesize()


@dataclass
class Served:
    """What a call of `Proxy.serve` put in force: scoreboard slots, in the order of the arguments.

    Counters are read when every worker has ended its turn: who has seen an answer finds it counted.
    """

    proxy: Proxy
    services: dict[str, int]
    endpoints: dict[str, list[int]]
    routes: list[int]

    def endpoint(self, index: int = 0, service: str = "app") -> Mapping[str, Any]:
        return self.proxy.settled().endpoint_totals(self.endpoints[service][index])

    def slot(self, index: int = 0, service: str = "app") -> int:
        return self.endpoints[service][index]

    def service(self, name: str = "app") -> Mapping[str, Any]:
        return self.proxy.settled().service_totals(self.services[name])

    def breaker(self, index: int = 0, service: str = "app") -> Mapping[str, Any]:
        return self.proxy.settled().breaker(self.endpoints[service][index])

    def route(self, index: int = 0) -> Mapping[str, Any]:
        return self.proxy.settled().route_totals(self.routes[index])


class Proxy:
    """One or more workers on the same listening sockets and scoreboard."""

    ENDPOINTS, SERVICES, ROUTES = 2048, 1024, 1024

    def __init__(
        self,
        *,
        workers: int = 1,
        listeners: int = 1,
        host: str = "127.0.0.1",
        backlog: int = 1024,
        large_bytes: int = LARGE_BYTES,
        nofile: int | None = None,
        listener: Mapping[str, Any] | None = None,
        client: Mapping[str, Any] | None = None,
        udp: str | None = None,
    ) -> None:
        """`listener` and `client`: what all listener rows and clients have unless a call says otherwise."""
        self.udp = udp  # the address that UDP listeners are bound to, of TCP ones otherwise
        self.listener_row = dict(listener or {})
        self.client_options = dict(client or {})
        self.ticket_keys: list[str] = []
        self.board = Scoreboard.create(
            workers, endpoints=self.ENDPOINTS, groups=1024, services=self.SERVICES, routes=self.ROUTES
        )
        self.log = tempfile.NamedTemporaryFile(prefix="turnout-log-")  # noqa: SIM115
        self.host = host
        self.ports: list[int] = []
        self.sockets = [self.bind(workers, backlog) for _ in range(listeners)]
        self.versions = itertools.count(1)
        self.slots = {"endpoint": itertools.count(), "service": itertools.count(), "route": itertools.count()}
        self.used: list[int] = []
        self.opened: list[Any] = []
        self.read_to = 0
        self.workers = [
            Worker(
                n,
                self.board.fd,
                self.log.fileno(),
                [group[n].fileno() for group in self.sockets],
                large_bytes,
                nofile,
            )
            for n in range(workers)
        ]
        for n, worker in enumerate(self.workers):
            self.board.attach(n, worker.process.pid)
        self.listening = False
        self.serve("127.0.0.1:9", listener={"protocol": "udp" if udp else "http"})

    def bind(self, workers: int, backlog: int) -> list[socket.socket]:
        """A listener: one socket for each worker, all on the same port."""
        group: list[socket.socket] = []
        for _ in range(workers):
            port = group[0].getsockname()[1] if group else 0
            if self.udp:
                group.append(bound_datagrams(self.udp, port))
                continue
            family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
            sock = socket.create_server((self.host, port), family=family, backlog=backlog, reuse_port=True)
            group.append(sock)
        self.ports.append(group[0].getsockname()[1])
        return group

    # ---- configuration

    def slot(self, kind: str) -> int:
        most = {"endpoint": self.ENDPOINTS, "service": self.SERVICES, "route": self.ROUTES}[kind]
        return next(self.slots[kind]) % most

    def serve(
        self,
        *endpoints: Any,
        service: Mapping[str, Any] | None = None,
        route: Mapping[str, Any] | None = None,
        listener: Mapping[str, Any] | None = None,
    ) -> Served:
        """One service "app" with these endpoints (addresses or origins, or one of these with changes of its
        row) behind one route for everything.
        The mappings change rows of documents.py.
        """
        return self.serve_many({"app": (endpoints, service or {})}, [route or {}], listener=listener)

    def serve_many(
        self,
        services: Mapping[str, tuple[Iterable[Any], Mapping[str, Any]]],
        routes: Iterable[Mapping[str, Any]],
        *,
        listener: Mapping[str, Any] | None = None,
        listeners: Iterable[Mapping[str, Any]] | None = None,
    ) -> Served:
        """Services by name with endpoints and changes. A route names its `service` or means the first."""
        names = list(services)
        former, self.used = self.used, []
        served = Served(self, {}, {}, [])
        members: list[dict[str, Any]] = []
        rows: list[dict[str, Any]] = []
        for name, (endpoints, changes) in services.items():
            first = len(members)
            served.endpoints[name] = []
            for endpoint in endpoints:
                slot = self.slot("endpoint")
                generation = self.board.use_endpoint(slot, slow_start=False)
                self.used.append(slot)
                served.endpoints[name].append(slot)
                target, more = endpoint if isinstance(endpoint, tuple) else (endpoint, {})
                address = target if isinstance(target, str) else target.address
                members.append(documents.member(slot, name, address, generation=generation, **more))
            served.services[name] = self.slot("service")
            self.board.renew_service(served.services[name])
            indices = list(range(first, len(members)))
            rows.append(documents.service(served.services[name], name, indices, **changes))
        route_rows = []
        for changes in routes:
            slot = self.slot("route")
            self.board.renew_route(slot)
            served.routes.append(slot)
            row = documents.route(slot, **({"log_per_million": 1_000_000} | dict(changes)))
            if row["action"] == "service":
                row["service"] = names.index(changes.get("service", names[0]))
            row["listeners"] = changes.get("listeners", list(range(len(self.sockets))))
            route_rows.append(row)
        changed = [dict(listener or {}) for _ in self.sockets] if listeners is None else [*listeners]
        listener_rows = [
            documents.listener(slot, **({"port": self.ports[slot]} | self.listener_row | dict(changes)))
            for slot, changes in enumerate(changed)
        ]
        for slot in range(len(self.sockets)):
            self.board.renew_listener(slot)
        self.load(
            {
                "version": next(self.versions),
                "ticket_keys": self.ticket_keys,
                "listeners": listener_rows,
                "members": members,
                "services": rows,
                "routes": route_rows,
            }
        )
        for slot in former:
            self.board.release_endpoint(slot)
        return served

    def again(self) -> None:
        """The configuration in force under a new version: a reload that changes nothing."""
        self.load({**self.document, "version": next(self.versions)})

    def load(self, document: Mapping[str, Any]) -> None:
        self.document = document
        for worker in self.workers:
            worker.ask("load", document)
        if not self.listening:
            self.listening = True
            for n, worker in enumerate(self.workers):
                for slot, group in enumerate(self.sockets):
                    worker.ask("listen", slot, group[n].fileno())

    def change(self, *services: Any) -> None:
        """A snapshot with the same frame; `services` as in turnout/ext/snapshot.pyi. `document` stays."""
        version = next(self.versions)
        for worker in self.workers:
            worker.ask("change", {"version": version, "frame": None, "services": services})

    # ---- traffic

    @property
    def port(self) -> int:
        return self.ports[0]

    def client(self, slot: int = 0, **more: Any) -> Any:
        """A connection to the proxy; closed by `rest`."""
        out = Client(self.ports[slot], **({"host": self.host} | self.client_options | more))
        self.opened.append(out)
        return out

    # ---- what it did

    def records(self) -> list[dict[str, Any]]:
        """Access-log records written since the last call."""
        for worker in self.workers:
            worker.ask("flush")
        raw = os.pread(self.log.fileno(), 1 << 26, self.read_to)
        self.read_to += len(raw)
        return [json.loads(line) for line in raw.splitlines()]

    def record(self) -> dict[str, Any]:
        """The last record, waited for."""
        found: list[dict[str, Any]] = []

        def look() -> bool:
            found.extend(self.records())
            return bool(found)

        assert eventually(look), "no access-log record"
        return found[-1]

    def listener(self, slot: int = 0) -> Mapping[str, Any]:
        return self.settled().listener_totals(slot)

    def settled(self) -> Scoreboard:
        """The scoreboard, when every worker has ended the turn it was in."""
        for worker in self.workers:
            worker.ask("open")
        return self.board

    def snapshots(self) -> int:
        """How many the workers hold, each at least the one in force."""
        return max(worker.ask("snapshots") for worker in self.workers)

    def drain(self) -> None:
        for worker in self.workers:
            worker.ask("drain")

    def counts(self, field: str) -> int:
        """A field of the workers' slabs, summed."""
        return sum(self.settled().worker(n)[field] for n in range(len(self.workers)))

    def memory(self) -> int:
        return sum(worker.memory() for worker in self.workers)

    def at_rest(self) -> bool:
        """No client and nothing in flight."""
        return (
            self.counts("clients") == 0
            and self.counts("clients_active") == 0
            and all(self.board.endpoint(slot)["inflight"] == 0 for slot in self.used)
        )

    def rest(self) -> None:
        """After a test: close its clients; everything must have been given back and no worker be gone."""
        for client in self.opened:
            client.close()
        self.opened.clear()
        quiet = eventually(self.at_rest)
        for worker in self.workers:
            worker.check_alive()
        assert quiet, {
            "clients": self.counts("clients"),
            "active": self.counts("clients_active"),
            "in flight": [self.board.endpoint(slot)["inflight"] for slot in self.used],
        }
        assert sum(worker.ask("open")[1] for worker in self.workers) == 0, "exchanges are still open"
        self.records()

    def close(self) -> None:
        for client in self.opened:
            client.close()
        for group in self.sockets:
            for sock in group:
                sock.close()
        try:
            for worker in self.workers:
                worker.close()
        finally:
            for worker in self.workers:
                if worker.process.poll() is None:
                    worker.process.kill()
                    worker.process.wait()
            self.board.close()
            self.log.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
