"""The workers: started, led, replaced when they die or hang, and sent away.

One process is kept ready without a task, so that a dead worker has its successor within milliseconds. A
worker that dies again soon after it was replaced is started after a pause that doubles each time; meanwhile
the others accept on its sockets.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import os
import secrets
import signal
import socket
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from turnout.ext.scoreboard import Scoreboard, WorkerState
from turnout.proxy.channel import Message
from turnout.proxy.errors import StartError
from turnout.proxy.pieces import Frozen
from turnout.proxy.process import WorkerProcess
from turnout.proxy.sockets import Listening, shares

log = logging.getLogger("turnout.supervisor")


@dataclass(frozen=True)
class Pace:
    """Bounds in seconds."""

    acknowledge: float = 10.0  # a worker that has not taken a snapshot by then is killed
    look: float = 1.0  # between two looks at the workers
    hung_looks: int = 10  # a worker that did not move in as many is killed
    healthy: float = 10.0  # a worker that lived as long begins anew when it dies
    backoff: float = 0.1  # the first pause, doubled from death to death
    backoff_max: float = 10.0
    spare: float = 0.3  # after a replacement, before another process is made ready
    quit: float = 1.0  # for a worker that is told to quit, before it is killed
    settle: float = 0.25  # for handshakes under way when a listener goes
    finish: float = 10.0  # for accept queues to come to an end
    retire: float = 2.5  # for idle connections of a listener that goes
    upgrade: float = 60.0  # for the new program to be ready
    tell: float = 2.0  # between two words on what a drain waits for
    certificates: float = 1.0  # between two looks at the files of certificates


@dataclass
class Orders:
    """What every worker should be doing. `listeners` pairs a listener's slot with the sockets of one address;
    a listener that moves has two.
    """

    version: int
    snapshot: Frozen
    grace_ms: int
    large_bytes: int
    listeners: list[tuple[int, list[Listening]]] = field(default_factory=list)
    log_fd: int = -1


@dataclass(frozen=True)
class WorkerRow:
    """One worker process. `worker` is its slab of the scoreboard, `restarts` how often it was replaced."""

    worker: int
    pid: int
    state: WorkerState
    snapshot: int
    restarts: int
    clients: int
    active: int
    sessions: int  # TCP sessions and upgraded connections that stand
    upstreams: int


@dataclass
class Seat:
    """One of the workers that there should be, and who it is now."""

    worker: int
    process: WorkerProcess | None = None
    failures: int = 0  # deaths in a row, each soon after the start
    restarts: int = 0
    down: bool = False  # it pauses, others accept for it
    timer: asyncio.TimerHandle | None = None


class Crew:
    """`heirs` is the folder of the sockets at which workers without a supervisor wait for the next one;
    `on_change` is called when another process has become a worker or one has gone.
    """

    def __init__(
        self, board: Scoreboard, heirs: Path, pace: Pace, on_change: Callable[[], None] = lambda: None
    ) -> None:
        self.board = board
        self.pace = pace
        self.seats: list[Seat] = []
        self.leaving: set[WorkerProcess] = set()
        self.cut = 0  # exchanges that workers cut at the end of their drains
        self.closing = False  # nobody is replaced any more
        self.keep = False  # workers go on when this process dies
        self._orders: Orders | None = None
        self._heirs = os.open(heirs, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._on_change = on_change
        self._loop = asyncio.get_running_loop()
        self._spare: WorkerProcess | None = None
        self._spare_timer: asyncio.TimerHandle | None = None
        self._changed = self._loop.create_future()
        self._finishing: dict[int, set[WorkerProcess]] = {}
        self._tokens = itertools.count(1)
        self._looked = self._loop.time()
        self._watch = self._loop.call_later(pace.look, self._look)

    # ---- what the supervisor orders ----------------------------------------------------------------------

    @property
    def has_orders(self) -> bool:
        return self._orders is not None

    @property
    def orders(self) -> Orders:
        assert self._orders is not None
        return self._orders

    async def start(self, workers: int, orders: Orders) -> None:
        """Returns when all serve. Raises StartError when one cannot."""
        self._orders = orders
        self.seats = [Seat(worker) for worker in range(workers)]
        for seat in self.seats:
            self._fill(seat)
        await self.until(lambda: self.all_at(orders.version) or any(seat.failures for seat in self.seats))
        if any(seat.failures for seat in self.seats):
            raise StartError(["a worker ended before it served; its last words are above"])
        self._make_spare()

    def give(self, orders: Orders) -> None:
        """New orders for everybody."""
        log_changed = self._orders is None or orders.log_fd != self._orders.log_fd
        self._orders = orders
        for seat in self.seats:
            if seat.process is not None:
                if log_changed:
                    self._send_log(seat.process)
                self._send_snapshot(seat, seat.process)
        for process in self._own_leaving():
            process.deadline = self._loop.time() + self.pace.acknowledge
            process.send_snapshot(orders.snapshot, [], grace_ms=orders.grace_ms)

    def _own_leaving(self) -> list[WorkerProcess]:
        """Of those on their way out, the ones that share our scoreboard."""
        return [process for process in self.leaving if process.worker >= 0]

    def establish(self) -> None:
        """From now on workers go on when this process dies. Before, another supervisor may be serving, whose
        workers these must not stay beside.
        """
        self.keep = True
        for process in self.processes():
            process.channel.send(Message("keep"))

    def give_log(self, fd: int) -> None:
        self.orders.log_fd = fd
        for process in self.processes():
            self._send_log(process)

    def resize(self, workers: int) -> None:
        """As many workers from now on; those that are too many drain."""
        for seat in self.seats[workers:]:
            if seat.timer is not None:
                seat.timer.cancel()
            if seat.process is not None:
                self._send_away(seat.process, self.orders.grace_ms)
        del self.seats[workers:]
        for worker in range(len(self.seats), workers):
            self.seats.append(Seat(worker))
            self._fill(self.seats[-1])
        self._share_out()

    def all_at(self, version: int) -> bool:
        """Whether everybody has this snapshot or a newer one. Who pauses gets it when it starts, and at the
        end nobody needs one.
        """
        if self.closing:
            return True
        seated = all(
            seat.down or (seat.process is not None and seat.process.acked >= version) for seat in self.seats
        )
        return seated and all(process.acked >= version for process in self._own_leaving())

    def all_serve(self) -> bool:
        return all(
            seat.process is not None and seat.process.acked >= self.orders.version for seat in self.seats
        )

    async def finish(self, items: list[Listening], retire: Sequence[int] = ()) -> None:
        """Workers accept who waits at these sockets, nobody new gets in, and close them; connections of the
        listeners with the slots to `retire` end with what they have begun. `orders` must not name them any
        more.
        """
        token, numbers = next(self._tokens), {item.id for item in items}
        waiting = self._finishing[token] = set()
        for process in self.processes():
            theirs = [process.known.pop(number) for number in numbers & set(process.known)]
            if theirs or (retire and process.worker >= 0):
                waiting.add(process)
                fields = {"sockets": theirs, "retire": retire, "token": token}
                process.channel.send(Message("finish", fields))
        await self.until(lambda: not waiting, self.pace.finish)
        del self._finishing[token]

    async def drain(self, grace_ms: int) -> None:
        """Everybody finishes what is under way, for `grace_ms` at most; returns when all are gone."""
        self.close()
        for process in self.processes():
            self._send_away(process, grace_ms)
        await self.until(lambda: not self.leaving, grace_ms / 1000 + self.pace.quit)
        await self.quit()

    def adopt(self, pid: int, sock: socket.socket, heirs: str) -> WorkerProcess:
        """A worker of a supervisor that is gone, to be sent away. Raises OSError when it is gone itself."""
        process = WorkerProcess(pid, sock, on_message=self._heard, on_end=self._ended)
        process.heirs, process.acked = heirs, 1
        self.leaving.add(process)
        process.channel.send(Message("hand_over"))
        return process

    def let_go(self, process: WorkerProcess) -> None:
        """Leave an adopted worker to itself: it waits for another supervisor."""
        self.leaving.discard(process)
        process.let_go()

    def send_away(self, processes: Iterable[WorkerProcess]) -> None:
        for process in processes:
            self._send_away(process, self.orders.grace_ms)

    async def quit(self) -> None:
        """Everybody cuts what is under way; returns when all are gone."""
        self.close()
        for process in self.processes():
            self.leaving.add(process)
            process.channel.send(Message("quit"))
        for seat in self.seats:
            seat.process = None
        await self.until(lambda: not self.leaving, self.pace.quit)
        for process in self.leaving:
            log.warning("killing a worker that does not end", extra=_fields(process))
            process.kill()
        await self.until(lambda: not self.leaving)

    def close(self) -> None:
        """No more replacements."""
        if self.closing:
            return
        self.closing = True
        self._watch.cancel()
        for timer in (self._spare_timer, *(seat.timer for seat in self.seats)):
            if timer is not None:
                timer.cancel()
        if self._spare is not None:
            self.leaving.add(self._spare)
            self._spare.channel.send(Message("quit"))
            self._spare = None

    def put_away(self) -> None:
        """After the last process is gone."""
        os.close(self._heirs)

    def processes(self) -> list[WorkerProcess]:
        """All that have a task, those on their way out included."""
        return [seat.process for seat in self.seats if seat.process is not None] + list(self.leaving)

    def rows(self) -> list[WorkerRow]:
        restarts = {seat.worker: seat.restarts for seat in self.seats}
        return sorted(
            (
                WorkerRow(
                    worker=process.worker,
                    pid=process.pid,
                    state=info["state"],
                    snapshot=info["snapshot"],
                    restarts=restarts.get(process.worker, 0),
                    clients=info["clients"],
                    active=info["clients_active"],
                    sessions=info["tunnels"],
                    upstreams=info["upstreams"],
                )
                for process in self.processes()
                if process.worker >= 0
                for info in [self.board.worker(process.worker)]
            ),
            key=lambda row: row.worker,
        )

    @property
    def restarts(self) -> int:
        return sum(seat.restarts for seat in self.seats)

    async def until(self, condition: Callable[[], bool], timeout: float | None = None) -> bool:
        """Whether it came true in time. It is looked at whenever a worker has said something or has gone."""
        deadline = None if timeout is None else self._loop.time() + timeout
        while not condition():
            left = None if deadline is None else deadline - self._loop.time()
            if left is not None and left <= 0:
                return False
            await asyncio.wait([self._changed], timeout=left)
        return True

    def _notify(self) -> None:
        self._changed.set_result(None)
        self._changed = self._loop.create_future()

    # ---- starting ----------------------------------------------------------------------------------------

    def _spawn(self) -> WorkerProcess:
        return WorkerProcess.spawn(self._heard, self._ended)

    def _fill(self, seat: Seat) -> None:
        """Give a seat a process, the one that is ready if there is one."""
        seat.timer = None
        if self.closing:
            return
        if any(process.worker == seat.worker for process in self.leaving):
            return  # its slab is still in use: _ended comes back here
        try:
            process, self._spare = self._spare or self._spawn(), None
            self._assign(process, seat.worker)
        except OSError:
            log.exception("no process for a worker", extra={"fields": {"worker": seat.worker}})
            seat.failures += 1
            seat.down = True
            seat.timer = self._loop.call_later(self._pause(seat), self._fill, seat)
            self._notify()
            return
        seat.process = process
        process.born = self._loop.time()
        self.board.attach(seat.worker, process.pid)
        self._send_log(process)
        self._send_snapshot(seat, process)
        self._on_change()

    def _pause(self, seat: Seat) -> float:
        """Before the next start, after so many failures."""
        if seat.failures < 2:
            return 0.0
        return min(self.pace.backoff * 2.0 ** (seat.failures - 2), self.pace.backoff_max)

    def _assign(self, process: WorkerProcess, worker: int) -> None:
        """The worker alone keeps the socket at which it waits for a next supervisor; the path through /proc
        has room for any folder.
        """
        process.heirs = f"worker-{os.getpid()}-{secrets.token_hex(4)}.sock"
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            sock.bind(f"/proc/self/fd/{self._heirs}/{process.heirs}")
            sock.listen(4)
            fields = {"worker": worker, "large_bytes": self.orders.large_bytes, "keep": self.keep}
            process.worker = worker
            process.channel.send(Message("assign", fields, fds=(self.board.fd, sock.fileno())))

    def _send_log(self, process: WorkerProcess) -> None:
        fd = self.orders.log_fd
        process.channel.send(Message("log", fds=() if fd < 0 else (fd,)))

    def _send_snapshot(self, seat: Seat, process: WorkerProcess) -> None:
        process.deadline = self._loop.time() + self.pace.acknowledge
        process.send_snapshot(self.orders.snapshot, self._sockets_of(seat), grace_ms=self.orders.grace_ms)

    def _sockets_of(self, seat: Seat) -> list[tuple[int, Listening]]:
        present = [other.worker for other in self.seats if not other.down or other is seat]
        return [
            (slot, item)
            for slot, items in self.orders.listeners
            for item in shares(items, present).get(seat.worker, [])
        ]

    def _share_out(self) -> None:
        """Tell everybody which sockets are theirs, after somebody has come or gone."""
        for seat in self.seats:
            if seat.process is not None and not seat.down:
                seat.process.send_sockets("listen", self._sockets_of(seat))

    def _make_spare(self) -> None:
        self._spare_timer = None
        if self._spare is None and not self.closing:
            try:
                self._spare = self._spawn()
            except OSError as error:
                log.warning("no process can be kept ready: %s", error)
                self._spare_soon(self.pace.backoff_max)

    def _spare_soon(self, delay: float) -> None:
        if self._spare is None and self._spare_timer is None and not self.closing:
            self._spare_timer = self._loop.call_later(delay, self._make_spare)

    # ---- what workers say --------------------------------------------------------------------------------

    def _heard(self, process: WorkerProcess, message: Message) -> None:
        if message.kind == "ack":
            self._acknowledged(process, message.fields["version"])
        elif message.kind == "finished":
            self._finishing.get(message.fields["token"], set()).discard(process)
        elif message.kind == "sockets":
            self._offered(process, message)
        elif message.kind == "drained":
            process.cut = message.fields["cut"]
        self._notify()

    def _acknowledged(self, process: WorkerProcess, version: int) -> None:
        first = process.acked == 0
        process.acked = version
        if version >= self.orders.version:
            process.deadline = 0.0
        if not first:
            return
        self.board.set_worker_state(process.worker, "serving")
        seat = self._seat_of(process)
        if seat is not None and seat.restarts:
            took = round((self._loop.time() - process.born) * 1000)
            log.info("worker serves", extra=_fields(process, ms=took))
            self._spare_soon(self.pace.spare)
        if seat is not None and seat.down:
            seat.down = False
            self._share_out()

    def _offered(self, process: WorkerProcess, message: Message) -> None:
        """A worker of a supervisor that is gone hands over its listening sockets."""
        for (number, key), fd in zip(message.fields["sockets"], message.fds, strict=True):
            item = Listening(key, socket.socket(fileno=fd))
            process.known[item.id] = number
            process.offered.append(item)
        process.offers_whole = len(process.offered) >= message.fields["all"]

    def _seat_of(self, process: WorkerProcess) -> Seat | None:
        return next((seat for seat in self.seats if seat.process is process), None)

    # ---- leaving -----------------------------------------------------------------------------------------

    def _send_away(self, process: WorkerProcess, grace_ms: int) -> None:
        seat = self._seat_of(process)
        if seat is not None:
            seat.process = None
        self.leaving.add(process)
        if not process.draining:
            process.draining = True
            if process.worker >= 0:
                self.board.set_worker_state(process.worker, "draining")
            process.channel.send(Message("drain", {"grace_ms": grace_ms}))

    def _ended(self, process: WorkerProcess, code: int | None) -> None:
        if process.heirs:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(process.heirs, dir_fd=self._heirs)
        for waiting in self._finishing.values():
            waiting.discard(process)
        if process is self._spare:
            self._spare = None
            log.warning("the process kept ready ended", extra=_fields(process, code=code))
            self._spare_soon(self.pace.backoff_max)
            return
        if process.worker >= 0:
            active = self.board.worker(process.worker)["clients_active"] if process.draining else 0
            self.cut += active if process.cut is None else process.cut
            self.board.settle(process.worker)
        seat = self._seat_of(process)
        if seat is not None:
            self._replace(seat, process, code)
        elif code:
            log.warning("worker ended badly on its way out", extra=_fields(process, how=_how(code)))
        self.leaving.discard(process)
        for other in self.seats:
            if other.worker == process.worker and other.process is None and other.timer is None:
                self._fill(other)
        self._on_change()
        self._notify()

    def _replace(self, seat: Seat, process: WorkerProcess, code: int | None) -> None:
        seat.process = None
        if self.closing:
            return
        if process.acked and self._loop.time() - process.born >= self.pace.healthy:
            seat.failures = 0
        seat.failures += 1
        seat.restarts += 1
        delay = self._pause(seat)
        log.error("worker ended", extra=_fields(process, how=_how(code), restart_in_ms=round(delay * 1000)))
        seat.timer = self._loop.call_later(delay, self._fill, seat)
        if delay:
            seat.down = True
            self._share_out()

    # ---- watching ----------------------------------------------------------------------------------------

    def _look(self) -> None:
        """Kill who has not acknowledged in time, and who does not move. A look that comes late says that this
        process, or the machine, stood still: it counts for nothing.
        """
        now = self._loop.time()
        late = now - self._looked > 2 * self.pace.look
        self._looked = now
        self._watch = self._loop.call_later(self.pace.look, self._look)
        for process in self.processes():
            if process.worker < 0 or late:
                continue
            if process.deadline and now > process.deadline:
                log.error("killing a worker that took no snapshot in time", extra=_fields(process))
                process.kill()
            elif process.acked and self._hangs(process):
                log.error("killing a worker that hangs", extra=_fields(process))
                process.kill()

    def _hangs(self, process: WorkerProcess) -> bool:
        turn_ms = self.board.worker(process.worker)["turn_ms"]
        process.still = process.still + 1 if turn_ms == process.turn_ms else 0
        process.turn_ms = turn_ms
        return process.still >= self.pace.hung_looks


def _how(code: int | None) -> str:
    if code is None:
        return "gone"
    return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


def _fields(process: WorkerProcess, **more: Any) -> dict[str, Any]:
    return {"fields": {"worker": process.worker, "worker_pid": process.pid, **more}}
