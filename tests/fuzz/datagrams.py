"""What is fuzzed of UDP: the table of sessions beside a dict, and an engine between both of its ends.

The bytes of an input are orders: who sends what, what the endpoint does, what changes meanwhile.
"""

from __future__ import annotations

import contextlib
import os
import random
import socket
import time
from typing import TYPE_CHECKING

from fakes.documents import breaker, document, listener, member, service
from fakes.engine_process import bound_datagrams

from turnout.ext.engine import Engine
from turnout.ext.scoreboard import Scoreboard
from turnout.ext.sessions import _Sessions
from turnout.ext.snapshot import Snapshot

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator

ORDERS = 80  # of an input; the rest of it is not looked at
PAUSES = 3  # in which sessions end
CLIENTS = 6
LARGEST = 65507
# Addresses that nobody else uses: what strays to a port of 127.0.0.1 from other programs is none of this.
PROXY, FAR, NEAR = "127.77.0.1", "127.77.0.2", "127.77.1."
LOOKS = 6  # turns until everything at hand has passed


def orders_of(raw: bytes, most: int) -> Iterator[tuple[int, int, int]]:
    """Three numbers each: what, who, how much."""
    for at in range(0, min(len(raw) - 3, 4 * most), 4):
        yield raw[at], raw[at + 1], int.from_bytes(raw[at + 2 : at + 4], "big")


# ---- the table ---------------------------------------------------------------------------------------------


def sessions(_rng: random.Random, raw: bytes) -> Hashable:
    room = 3000
    table, model = _Sessions(room), {}
    for what, who, number in orders_of(raw, 16384):
        # Few addresses and many ports, or the other way round.
        address = bytes(14) + (bytes([0, who & 7]) if what & 4 else number.to_bytes(2, "big"))
        key = (who >> 3 & 3, address, who >> 5 & 1, number if what & 4 else who & 7)
        found = table.find(*key)
        assert found == model.get(key)
        if found is not None and what & 3 == 0:
            table.drop(found)
            del model[key]
        elif found is None and len(model) < room:
            model[key] = table.add(*key)
        assert len(table) == len(model)
    for key, found in model.items():
        assert table.find(*key) == found
    return table.places, min(len(model), 8)


# ---- the engine --------------------------------------------------------------------------------------------


def keeper(host: str) -> socket.socket:
    """Keeps a port from all others, and hears nothing: it is connected to where nobody is."""
    sock = bound_datagrams(host, 0)
    sock.connect((host, 1))
    return sock


class Far:
    """An endpoint that may be there or not. Datagrams begin with who sent them."""

    def __init__(self) -> None:
        self.keeper = keeper(FAR)
        self.port = self.keeper.getsockname()[1]
        self.sock = self._open(self.port)
        self.there = True
        self.whose: dict[tuple[str, int], set[bytes]] = {}

    @staticmethod
    def _open(port: int) -> socket.socket:
        sock = bound_datagrams(FAR, port)
        sock.setblocking(False)
        return sock

    def come_or_go(self) -> None:
        if self.there:
            self.sock.close()
        else:
            self.sock = self._open(self.port)
        self.there = not self.there

    def answer(self, size: int, times: int) -> None:
        """What has come is answered so many times; the answers say whose they are. Nothing goes to a port
        that two clients had one after the other: a late answer would find the wrong one, as ever in UDP.
        """
        for data, peer in list(self._come()):
            for _ in range(times if len(self.whose[peer]) < 2 else 0):
                with contextlib.suppress(BlockingIOError):
                    self.sock.sendto(data[:1] * size, peer)

    def _come(self) -> Iterator[tuple[bytes, tuple[str, int]]]:
        while self.there:
            try:
                data, peer = self.sock.recvfrom(LARGEST)
            except BlockingIOError:
                return
            assert data == data[:1] * len(data), "a datagram came in pieces of others"
            self.whose.setdefault(peer, set()).update([data[:1]] if data else [])
            yield data, peer


class World:
    """An engine with one worker's everything, and both ends of it."""

    def __init__(self) -> None:
        self.board = Scoreboard.create(1, endpoints=8, groups=8, services=8, routes=8, listeners=4)
        self.board.attach(0, os.getpid())
        self.fars = [Far(), Far()]
        self.generations = [self.board.use_endpoint(slot, slow_start=False) for slot in range(2)]
        self.board.renew_service(0)
        self.board.renew_route(0)
        self.board.renew_listener(0)
        self.engine = Engine(self.board.fd, 0)
        # A turn lasts as long as something watched is not readable: here it is always.
        self.wake = os.eventfd(1)
        self.engine.watch(self.wake)
        self.keeper = keeper(PROXY)
        self.port = self.keeper.getsockname()[1]
        self.version = 0
        self.gone = False
        self.pauses = 0
        self.load(0, 0)
        self.engine.listen(0, bound_datagrams(PROXY, self.port).detach())
        self.clients = [self._client(n) for n in range(CLIENTS)]

    @staticmethod
    def _client(number: int) -> socket.socket:
        sock = bound_datagrams(f"{NEAR}{1 + number}", 0)
        sock.setblocking(False)
        return sock

    def load(self, what: int, number: int) -> None:
        self.version += 1
        row = listener(
            0,
            protocol="udp",
            port=self.port,
            sessions=what & 16 == 0,
            responses=number & 3,
            connections=number >> 2 & 3,
        )
        members = [
            member(n, "app", f"{FAR}:{far.port}", generation=self.generations[n])
            for n, far in enumerate(self.fars)
        ]
        table = document(members=members, version=self.version)
        table["listeners"] = [row]
        table["services"] = [
            service(
                0,
                "app",
                [0, 1],
                session_ms=10 if number & 16 else 60_000,
                tunnel_drain_ms=10 if number & 32 else 30_000,
                breaker=breaker(failures=number >> 6 & 3, open_ms=10),
            )
        ]
        self.engine.load(Snapshot(table))  # type: ignore[arg-type]

    def obey(self, what: int, who: int, number: int) -> None:
        kind = what & 15
        if kind < 6:
            self.send(
                who % CLIENTS,
                number % (LARGEST + 1) if kind == 0 else number % 1500,
                1 + (kind & 1) * (who >> 4),
            )
        elif kind < 9:
            self.fars[who & 1].answer(number % (LARGEST + 1) if kind == 6 else number % 100, who >> 1 & 3)
        elif kind == 9:
            self.fars[who & 1].come_or_go()
        elif kind == 10:
            self.load(what, number)
        elif kind == 11 and self.pauses < PAUSES:
            self.pauses += 1
            time.sleep(0.02)
        elif kind == 12:
            self.remove(last=who & 1 == 0)
        elif kind == 13:
            self.clients[who % CLIENTS].close()
            self.clients[who % CLIENTS] = self._client(who % CLIENTS)
        elif kind == 14 and who & 15 == 0:
            self.engine.abort()
        elif kind == 15 and who & 15 == 0:
            self.gone = True
            self.engine.drain()

    def remove(self, *, last: bool) -> None:
        """The listener goes, and comes back at the same address."""
        self.engine.unlisten(0, last=last)
        self.engine.retire(0)
        if not self.gone:
            self.engine.listen(0, bound_datagrams(PROXY, self.port).detach())

    def send(self, number: int, size: int, times: int) -> None:
        for _ in range(times):
            with contextlib.suppress(BlockingIOError):
                self.clients[number].sendto(bytes([number]) * size, (PROXY, self.port))

    def look(self) -> None:
        self.engine.turn()
        counts = self.board.worker(0)
        clients = self.engine.open_clients
        flights = [self.board.endpoint(slot)["inflight"] for slot in range(2)]
        assert counts["clients"] == clients == self.board.listener_totals(0)["open"] == sum(flights), flights
        assert counts["datagrams_dropped"] >= 0
        for number, client in enumerate(self.clients):
            with contextlib.suppress(BlockingIOError):
                while True:
                    data = client.recv(LARGEST)
                    assert data == bytes([number]) * len(data), f"client {number} got an answer of another"

    def end(self) -> tuple[int, int, int]:
        for _ in range(LOOKS):
            self.look()
        seen = self.board.worker(0)
        self.engine.drain()
        self.engine.abort()
        assert self.engine.open_clients == 0
        self.engine.close()
        return seen["datagrams_in"], seen["datagrams_out"], seen["datagrams_dropped"]

    def close(self) -> None:
        for far in self.fars:
            far.sock.close()
            far.keeper.close()
        for sock in (*self.clients, self.keeper):
            sock.close()
        with contextlib.suppress(AssertionError):
            self.engine.close()
        os.close(self.wake)
        self.board.close()


def datagrams(_rng: random.Random, raw: bytes) -> Hashable:
    world = World()
    try:
        for what, who, number in orders_of(raw, ORDERS):
            world.obey(what, who, number)
            if number & 1:
                world.look()
        return tuple(min(seen, 4) for seen in world.end())
    finally:
        world.close()


def orders() -> list[bytes]:
    """Every kind of order once, and some that go together."""
    each = [bytes([what, who, 0, size]) for what in range(16) for who in (0, 1) for size in (0, 1, 65)]
    talk = bytes([1, 0xF0, 0, 65, 7, 2, 0, 65, 3, 0x41, 0, 1, 7, 3, 0, 65])
    together = [talk, talk + bytes([9, 0, 0, 1]) + talk, talk + bytes([12, 0, 0, 1]) + talk, talk * 8]
    return [*each, *together, *(random.Random(n).randbytes(4 * ORDERS) for n in range(8))]
