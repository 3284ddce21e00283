"""The supervisor: owns the configuration, the sockets, the scoreboard and the workers' lives.

starting -> serving -> draining. SIGTERM and SIGINT drain, a second one quits at once; SIGHUP reloads, SIGUSR1
opens the access log anew, SIGUSR2 upgrades. Exit codes of `run`: 0 drained, 3 requests were cut off at the
end of the grace period or by a second signal; failures to start are exceptions.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import time
from collections.abc import Callable, Coroutine, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal, Protocol

from turnout.ext.scoreboard import Admin, Health, Scoreboard
from turnout.proxy import handover, limits, notify, runfile, statedir, takeover
from turnout.proxy.accesslog import open_log
from turnout.proxy.config import ConfigError, Problem, load
from turnout.proxy.controlsockets import ControlSockets
from turnout.proxy.crew import Crew, Orders, Pace, WorkerRow
from turnout.proxy.errors import StartError, UpgradeError
from turnout.proxy.freeze import Freezer
from turnout.proxy.heir import start_heir
from turnout.proxy.layout import binds_of, fixed_problems, make_scoreboard, workers_of
from turnout.proxy.model import Config
from turnout.proxy.names import Names
from turnout.proxy.pieces import Frozen
from turnout.proxy.process import WorkerProcess
from turnout.proxy.resolve import name_in
from turnout.proxy.runtime import Runtime
from turnout.proxy.sockets import (
    BindError,
    Failure,
    Listening,
    ListeningSet,
    Offers,
    Opening,
    close_all,
    refuse_new,
)
from turnout.proxy.tickets import TicketKeys

__all__ = ["Control", "StartError", "Supervisor", "UpgradeError", "WorkerRow"]

log = logging.getLogger("turnout.supervisor")

CUT_OFF = 3
"""Exit code: drained, but requests were cut off."""
LOOK_S = 0.05
NOTE_S = 0.1
LOOK_UPS = 8
"""At a time, of who registers. Threads of their own: a name server that does not answer holds up nobody who
reloads or reads metrics.
"""


class Control(Protocol):
    """The control side, as far as the supervisor needs it."""

    async def prepare(self, file: Config) -> None:
        """Before the first snapshot; the state directory is there and locked. Raises StartError."""

    def merge(self, file: Config) -> Config:
        """What the file says together with what is registered. Never fails, waits for nothing."""

    def health_of(self, service: str, address: str) -> Health:
        """Of an endpoint that is new in the scoreboard."""

    def admin_of(self, service: str, address: str) -> Admin:
        """As health_of."""

    def in_force(self, config: Config) -> None:
        """A snapshot of this configuration is in force, the first one too. Waits for nothing."""

    async def start(self, sock: socket.socket, local: socket.socket | None = None) -> None:
        """Workers serve: take over from a former process, then serve on `[control] listen`, and on the unix
        socket beside it.
        """

    async def close(self) -> None:
        """Stop accepting; what is under way is finished. Also after a `prepare` that failed."""


class Supervisor:
    """`control` makes the control side; it listens once workers serve. `pace` is for tests.

    `file_config` is what the file says, `config` what is in force: with what is registered.
    """

    scoreboard: Scoreboard
    freezer: Freezer
    directory: Path
    """Where state is kept; there from the beginning of the start."""

    def __init__(
        self,
        file: Path,
        config: Config,
        *,
        control: Callable[[Supervisor], Control] | None = None,
        pace: Pace | None = None,
    ) -> None:
        self.file = file
        self.file_config = config
        self.config = config
        self.version = 0
        self.state: Literal["starting", "serving", "draining"] = "starting"
        self.started = time.time()
        self.pace = pace or Pace()
        self._make_control = control
        self._control: Control | None = None
        self._next_refresh: asyncio.Task[int] | None = None
        self._control_sockets = ControlSockets()
        self._names = Names()
        self._looking_up = ThreadPoolExecutor(LOOK_UPS, "look-up")
        self._notifier = notify.Notifier()
        self._sockets = ListeningSet()
        self._keys: dict[str, str] = {}
        self._handed_over = self._upgrading = self._workers_serve = False
        self._log_fd = -1
        self._lock = -1
        self._noting: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[Any]] = set()

    # ---- from start to end -------------------------------------------------------------------------------

    async def run(self) -> int:
        """Serve until drained; returns the exit code. Raises StartError or ConfigError, with all reasons,
        before anything serves.
        """
        self._loop = asyncio.get_running_loop()
        self._changing = asyncio.Lock()
        self._stop, self._quit = asyncio.Event(), asyncio.Event()
        left = handover.take()
        self._install_signals()
        try:
            started = await self._start_unless_stopped(left)
        except (StartError, ConfigError) as error:
            if left is not None:
                left.answer(error=str(error))
            await self._give_up()
            raise
        if not started:
            await self._give_up()
            return 0
        self._serving(left)
        await self._stop.wait()
        return await self._end()

    def stop(self) -> None:
        """Begin the drain; called again: quit at once."""
        if self._stop.is_set():
            self._quit.set()
        self._stop.set()

    def _install_signals(self) -> None:
        actions: dict[signal.Signals, Callable[[], None]] = {
            signal.SIGTERM: self.stop,
            signal.SIGINT: self.stop,
            signal.SIGHUP: lambda: self._background(self.reload()),
            signal.SIGUSR1: self.reopen_logs,
            signal.SIGUSR2: lambda: self._background(self.upgrade()),
        }
        for number, action in actions.items():
            self._loop.add_signal_handler(number, action)

    def _background(self, work: Coroutine[Any, Any, object]) -> None:
        """For signals: whoever sent one reads the log."""

        async def logged() -> None:
            try:
                await work
            except (ConfigError, UpgradeError):
                pass  # said where it was found
            except Exception:
                log.exception("unexpected failure")

        task = asyncio.create_task(logged())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # ---- start -------------------------------------------------------------------------------------------

    async def _start_unless_stopped(self, left: handover.Handover | None) -> bool:
        start, stop = asyncio.create_task(self._start(left)), asyncio.create_task(self._stop.wait())
        await asyncio.wait({start, stop}, return_when=asyncio.FIRST_COMPLETED)
        stop.cancel()
        if start.done():
            start.result()
            return True
        start.cancel()
        await asyncio.wait({start})
        return False

    async def _start(self, left: handover.Handover | None) -> None:
        workers = workers_of(self.config)
        self._check_descriptors(workers)
        directory = statedir.state_directory(self.config.proxy.state, self.file)
        self.directory = directory
        self._lock = left.lock if left else self._take_lock(directory)
        self.scoreboard = make_scoreboard(self.config)
        self.freezer = Freezer(self.scoreboard, directory, file=str(self.file), resolver=self._names)
        await self._prepare_control()
        self.freezer.tickets = TicketKeys(left.runtime.get("ticket_keys", ()) if left else ())
        self.runtime = Runtime(self.freezer, self.scoreboard)
        former_run = runfile.read(directory)
        self.crew = Crew(self.scoreboard, directory, self.pace, self._note_run)
        former, offers = await self._offers(left, directory)
        self._sockets = ListeningSet(offers)
        opening = self._open_all(left, workers)
        await asyncio.to_thread(self._names.look_up, self.file_config, self.config)
        snapshot = self.freezer.freeze(self.config, 1)
        self._commit(opening)
        self._in_force(1, self.config, opening)
        if self._control is None and (left is not None or former):
            self.runtime.restore(left.runtime if left else former_run.runtime if former_run else {})
        await self.crew.start(workers, self._orders(snapshot))
        self.freezer.release(1)
        self._workers_serve = True
        await self._start_control()
        self._establish()
        self._dismiss(former, left)

    def _establish(self) -> None:
        """Workers serve and are to be found, before those of another supervisor are sent away."""
        self.state = "serving"
        self.crew.establish()
        self._note_run()

    def _check_descriptors(self, workers: int) -> None:
        errors, warnings = limits.complaints(self.config, workers, limits.raise_limit())
        if errors:
            raise StartError(errors)
        for warning in warnings:
            log.warning("%s", warning)

    def _take_lock(self, directory: Path) -> int:
        lock = statedir.take_lock(directory)
        if lock is None:
            run = runfile.read(directory)
            who = f"process {run.supervisor.pid}" if run and run.supervisor.alive() else "another process"
            raise StartError(
                [f"{self.file} is being run by {who} already; turnout reload or stop reaches it"]
            )
        return lock

    async def _offers(
        self, left: handover.Handover | None, directory: Path
    ) -> tuple[list[WorkerProcess], Offers]:
        """Workers of a killed supervisor, and sockets from whoever has some for us."""
        passed = notify.passed_sockets()
        if left is not None:
            return [], left.offers()
        former, offers = await takeover.take_over(self.crew, directory)
        return former, takeover.merged(passed, offers)

    def _open_all(self, left: handover.Handover | None, workers: int) -> Opening:
        """Listeners, control listener and access log. Raises StartError with all that fails."""
        opening, failures = self._sockets.prepare(binds_of(self.config), workers)
        reasons = [f"[listeners.{f.listener}] bind: {f.bind}: {f.why}" for f in failures]
        if self._make_control is not None:
            offers = self._sockets.offers
            reasons += self._control_sockets.open(self.config.control, self.file, left, offers)
        try:
            self._log_fd = open_log(self.config.proxy.access_log, self.file)
        except OSError as error:
            reasons.append(_log_problem(self.config, error))
        if reasons or opening is None:
            if opening is not None:
                opening.cancel()
            raise StartError(reasons)
        return opening

    def _commit(self, opening: Opening) -> None:
        try:
            self._sockets.commit(opening)
        except BindError as error:
            raise StartError([str(error)]) from None

    async def _prepare_control(self) -> None:
        if self._make_control is not None:
            self._control = self._make_control(self)
            await self._control.prepare(self.file_config)
            self.freezer.health_of = self._control.health_of
            self.freezer.admin_of = self._control.admin_of
            self.config = self._control.merge(self.file_config)

    async def _start_control(self) -> None:
        sock, local = self._control_sockets.sockets()
        if self._control is not None and sock is not None:
            await self._control.start(sock, local)

    def _dismiss(self, former: list[WorkerProcess], left: handover.Handover | None) -> None:
        """The workers of a killed supervisor go, and who waits at addresses that are no longer in the file is
        still served by them; after an upgrade the former supervisor sees to that.
        """
        unused, not_for_control = self._sockets.take_offers(), self._control_sockets.keep()
        if left is not None:
            left.answer(unused=[*(item.key for item in unused), *not_for_control])
            close_all(unused)
            return
        self._background(self._send_home(former, [item for item in unused if not item.shared]))
        for item in [item for item in unused if item.shared]:
            log.warning(
                "a socket of the service manager is used by no listener", extra={"fields": {"at": item.key}}
            )
            item.sock.close()

    async def _send_home(self, former: list[WorkerProcess], unused: list[Listening]) -> None:
        await self._finish(unused)
        self.crew.send_away(former)

    async def _give_up(self) -> None:
        """Nothing has served: put everything away."""
        await self._close_control()
        if hasattr(self, "crew"):
            for process in self.crew.leaving.copy():
                self.crew.let_go(process)
            await self.crew.quit()
        self._put_away()

    def _serving(self, left: handover.Handover | None) -> None:
        fields = {"file": self.file, "workers": len(self.crew.seats), "snapshot": self.version}
        log.info("serving", extra={"fields": fields | {"by": "upgrade" if left else "start"}})
        self._notifier.ready(f"serving, snapshot {self.version}")
        self._sign_of_life()
        self._background(self._tend_certificates())

    def _sign_of_life(self) -> None:
        if self._notifier.watchdog_s and self.state != "draining":
            self._notifier.alive()
            self._loop.call_later(self._notifier.watchdog_s, self._sign_of_life)

    def _note_run(self) -> None:
        """Who and what is to be found by the next supervisor."""
        if self._noting is not None:
            self._noting.cancel()
            self._noting = None
        if self.state == "serving" and not self._handed_over:
            workers = tuple((runfile.process(p.pid), p.heirs) for p in self.crew.processes() if p.heirs)
            run = runfile.Run(runfile.process(os.getpid()), workers, self.runtime.export())
            try:
                runfile.write(self.directory, run)
            except OSError as error:
                log.warning("%s cannot be written: %s", self.directory / runfile.NAME, error.strerror)

    def _note_run_soon(self) -> None:
        """Once for many changes that come together. What a control side is told, it keeps itself."""
        if self._noting is None and self._control is None:
            self._noting = self._loop.call_later(NOTE_S, self._note_run)

    # ---- configuration -----------------------------------------------------------------------------------

    async def reload(self, file: Config | None = None) -> int:
        """Read the file again, or put in force what is going to be in it. Returns the version of the new
        snapshot once every worker has it. Raises ConfigError, and changes nothing then.
        """
        async with self._changing:
            try:
                if self.state != "serving":
                    raise self._problem("", f"the proxy is {self.state}")
                version = await self._reload_announced(file)
            except ConfigError as error:
                for problem in error.problems:
                    log.error("reload refused, nothing has changed: %s", problem)  # noqa: TRY400
                raise
            log.info("reloaded", extra={"fields": {"snapshot": version}})
            return version

    async def _reload_announced(self, file: Config | None) -> int:
        self._notifier.reloading()
        try:
            return await self._reload(await asyncio.to_thread(load, self.file) if file is None else file)
        finally:
            self._notifier.ready(f"serving, snapshot {self.version}")

    def check(self, file: Config) -> None:
        """Raises ConfigError for what no reload can change."""
        problems = fixed_problems(self.file_config, file, self.scoreboard.workers, str(self.file))
        if problems:
            raise ConfigError(problems)

    async def _reload(self, file: Config) -> int:
        self.check(file)
        await asyncio.to_thread(self._names.look_up, file, self._merged(file))
        return await self._apply(file, names=True, files=True)

    def _merged(self, file: Config) -> Config:
        return file if self._control is None else self._control.merge(file)

    async def refresh(self) -> int:
        """Put in force what has been registered since. Returns the version of the snapshot once every worker
        has it. Calls that come while one is under way share the next one. Raises ConfigError, and changes
        nothing then. After an upgrade there is nothing to do: the new program has read what was registered.
        """
        if self._next_refresh is None:
            self._next_refresh = asyncio.create_task(self._refresh())
        return await asyncio.shield(self._next_refresh)

    async def _refresh(self) -> int:
        async with self._changing:
            self._next_refresh = None  # what is registered from here on may have come too late for this one
            if self._handed_over:
                return self.version
            if self.state == "draining":
                raise self._problem("", "the proxy is draining")
            return await self._apply(self.file_config)

    async def look_up(self, addresses: Iterable[str]) -> dict[str, str | OSError]:
        """Addresses as written in numeric form, or why there is none; names that are known already are not
        looked up again. What is found here is found by the next snapshot too.
        """
        addresses = list(addresses)
        if not any(map(name_in, addresses)):
            return self._names.ask(addresses)  # numbers: there is nothing to wait for
        return await asyncio.get_running_loop().run_in_executor(self._looking_up, self._names.ask, addresses)

    async def _apply(self, file: Config, *, names: bool = False, files: bool = False) -> int:
        """Make a snapshot of what a file says and of what is registered, and put it in force. Raises
        ConfigError, and changes nothing then.
        """
        config = self._merged(file)
        opening, failures = self._sockets.prepare(binds_of(config), workers_of(config))
        if opening is None:
            raise ConfigError(self._bind_problem(failure) for failure in failures)
        try:
            log_fd = self._log_of(config)
            snapshot = self.freezer.freeze(config, self.version + 1, names=names, files=files)
        except ConfigError:
            opening.cancel()
            raise
        self.file_config = file
        self.runtime.reloaded()
        await self._put_in_force(config, opening, snapshot, log_fd)
        return self.version

    async def _tend_certificates(self) -> None:
        """Renew the snapshot when files of certificates have changed, and when a new ticket key is due. Files
        are read once they are the same at two looks: a pair is not replaced in one stroke.
        """
        files = self.freezer.files
        before = files.seen
        while self.state == "serving":
            await asyncio.sleep(self.pace.certificates)
            now = await asyncio.to_thread(files.look)
            if self.freezer.tickets.due:
                self.freezer.tickets.turn()
                await self._renew("ticket keys")
            elif before == now != files.seen:
                await self._renew("certificates")
            before = now

    async def _renew(self, what: str) -> None:
        """The configuration in force, with what its files hold now."""
        async with self._changing:
            if self.state != "serving":
                return
            try:
                await self._apply(self.file_config, files=True)
            except ConfigError as error:
                for problem in error.problems:
                    log.error("%s not renewed, those in force stay: %s", what, problem)  # noqa: TRY400
            else:
                log.info("%s renewed", what, extra={"fields": {"snapshot": self.version}})

    async def _put_in_force(self, config: Config, opening: Opening, snapshot: Frozen, log_fd: int) -> None:
        """Nothing can fail from here on. A listener that goes is served to its end under the old snapshot,
        one that moves under the new one.
        """
        before = dict(self._keys)
        self._sockets.commit(opening)
        idle = set(before.values()) - set(opening.keys.values())
        await self._retire({name: key for name, key in before.items() if name not in opening.keys}, idle)
        former_log, self._log_fd = self._log_fd, log_fd
        self._in_force(self.version + 1, config, opening)
        moving = {name: key for name, key in before.items() if key in idle and name in opening.keys}
        self.crew.give(self._orders(snapshot, moving))
        self.crew.resize(workers_of(config))
        if former_log not in {-1, log_fd}:
            os.close(former_log)
        await self.crew.until(lambda: self.crew.all_at(self.version))
        await self._finish(self._sockets.remove(set(moving.values())))
        self.freezer.release(self.version)

    def _in_force(self, version: int, config: Config, opening: Opening) -> None:
        self.version, self.config, self._keys = version, config, opening.keys
        self.scoreboard.set_snapshot(version)
        if self._control is not None:
            self._control.in_force(config)

    def _orders(self, snapshot: Frozen, moving: dict[str, str] | None = None) -> Orders:
        keys = [*self._keys.items(), *(moving or {}).items()]
        return Orders(
            version=self.version,
            snapshot=snapshot,
            grace_ms=self.config.proxy.grace,
            large_bytes=self.config.proxy.buffers,
            listeners=[
                (self.freezer.listener_slot(name), list(self._sockets.by_key[key])) for name, key in keys
            ],
            log_fd=self._log_fd,
        )

    async def _retire(self, gone: dict[str, str], idle: set[str]) -> None:
        """Listeners (name -> key) that are no longer in the file; an address that is not idle goes to another
        one. Idle connections get a moment to end; what is under way does not need the listener any more.
        """
        slots = [self.freezer.listener_slot(name) for name in gone]
        await self._finish(self._sockets.remove(idle & set(gone.values())), slots)
        deadline = self._loop.time() + self.pace.retire
        while any(self.scoreboard.listener_totals(slot)["open"] for slot in slots):
            if self._loop.time() > deadline:
                return
            await asyncio.sleep(LOOK_S)

    async def _finish(self, items: list[Listening], retire: Iterable[int] = ()) -> None:
        """Close listening sockets without losing who waits in them."""
        retire = list(retire)
        if not items and not retire:
            return
        numbers = {item.id for item in items}
        if self.crew.has_orders:
            orders = self.crew.orders
            orders.listeners = [
                (slot, [item for item in some if item.id not in numbers]) for slot, some in orders.listeners
            ]
        for item in items:
            refuse_new(item)
        await asyncio.sleep(self.pace.settle if items else 0)
        await self.crew.finish(items, retire)
        close_all(items)

    def _log_of(self, config: Config) -> int:
        """The log of a new configuration: the one that is open if it is the same."""
        if config.proxy.access_log.path == self.config.proxy.access_log.path:
            return self._log_fd
        try:
            return open_log(config.proxy.access_log, self.file)
        except OSError as error:
            raise self._problem("[proxy.access_log] path", _log_problem(config, error)) from None

    def _problem(self, where: str, what: str) -> ConfigError:
        return ConfigError([Problem(str(self.file), where, what)])

    def _bind_problem(self, failure: Failure) -> Problem:
        return Problem(
            str(self.file), f"[listeners.{failure.listener}] bind", f"{failure.bind}: {failure.why}"
        )

    # ---- at run time -------------------------------------------------------------------------------------

    async def set_split(self, service: str, shares: dict[str, float]) -> dict[str, int]:
        """As Freezer.set_split; kept over reloads until the file says something new."""
        stored = self.runtime.set_split(service, shares)
        self._note_run_soon()
        return stored

    def set_health(self, service: str, address: str, health: Health) -> None:
        """Of an endpoint, named as in the file; seen at every worker's next pick. KeyError for one that does
        not exist.
        """
        self.freezer.set_health(service, address, health)

    def set_weight(self, service: str, address: str, weight: int) -> None:
        """Of an endpoint, named as in the file; kept until the file says something new. KeyError for one that
        does not exist, ValueError for a weight that is none.
        """
        self.runtime.set_weight(service, address, weight)
        self._note_run_soon()

    def set_admin(self, service: str, address: str, admin: Admin) -> None:
        """As set_weight."""
        self.runtime.set_admin(service, address, admin)
        self._note_run_soon()

    def reopen_logs(self) -> None:
        """Open the access log anew, after it was moved away."""
        if self.state != "serving":
            return
        try:
            fd = open_log(self.config.proxy.access_log, self.file)
        except OSError as error:
            log.warning("%s; the former file is kept", _log_problem(self.config, error))
            return
        former, self._log_fd = self._log_fd, fd
        self.crew.give_log(fd)
        if former >= 0:
            os.close(former)

    @property
    def control(self) -> Control | None:
        """From the beginning of the start to the end."""
        return self._control

    @property
    def serving(self) -> bool:
        """Whether there are workers that take a new snapshot: from a little before `state` says so."""
        return self._workers_serve

    @property
    def handed_over(self) -> bool:
        """Whether another program has taken over."""
        return self._handed_over

    async def upgraded(self) -> None:
        """Wait until no upgrade is under way."""
        if self._upgrading:
            async with self._changing:
                pass

    def ready(self) -> bool:
        """Whether every worker serves the snapshot in force."""
        return self.state == "serving" and self.crew.all_serve()

    @property
    def restarts(self) -> int:
        """Workers replaced since the start."""
        return self.crew.restarts

    def worker_rows(self) -> list[WorkerRow]:
        return self.crew.rows()

    # ---- upgrade -----------------------------------------------------------------------------------------

    async def upgrade(self) -> int:
        """Start the program anew on the same sockets; this one drains once the new one serves. Returns its
        pid. Raises UpgradeError with the reason when it does not come up; then nothing has changed.
        """
        async with self._changing:
            if self.state != "serving" or self._stop.is_set():
                raise UpgradeError("the proxy is not serving")
            log.info("upgrading")
            self._upgrading = True
            try:
                pid, unused = await start_heir(self.file, self._will, self.pace.upgrade)
            except UpgradeError as error:
                log.error("upgrade failed, nothing has changed: %s", error)  # noqa: TRY400
                self._note_run()  # the heir may have got as far as to write its own
                raise
            finally:
                self._upgrading = False
            self._hand_over(pid, unused)
            return pid

    def _will(self, ready: int) -> handover.Handover:
        return handover.Handover(
            [(item.key, item.fd, item.shared) for item in self._sockets.all()],
            self._control_sockets.will(),
            self._lock,
            ready,
            # Ticket keys go from memory to memory: the run file has none.
            {**self.runtime.export(), "ticket_keys": self.freezer.tickets.keys},
        )

    def _hand_over(self, pid: int, unused: list[str]) -> None:
        log.info("the new program serves, this one drains", extra={"fields": {"new_pid": pid}})
        self._handed_over = True
        self._notifier.main_process(pid)
        for item in self._sockets.all():
            item.shared = item.shared or item.key not in unused
        self._control_sockets.hand_over(unused)
        os.close(self._lock)
        self._lock = -1
        self._stop.set()

    # ---- end ---------------------------------------------------------------------------------------------

    async def _end(self) -> int:
        self.state = "draining"
        log.info("draining", extra={"fields": {"grace_ms": self.config.proxy.grace}})
        if self._handed_over:
            await self._close_control()
        else:
            self._notifier.stopping("draining")
        drain = asyncio.create_task(self._drain())
        quit_at_once = asyncio.create_task(self._quit.wait())
        await asyncio.wait({drain, quit_at_once}, return_when=asyncio.FIRST_COMPLETED)
        if not drain.done():
            log.warning("quitting at once")
            drain.cancel()
            await asyncio.wait({drain})
            await self.crew.quit()
        quit_at_once.cancel()
        await self._close_control()
        if not self._handed_over:
            runfile.remove(self.directory)
        self._put_away()
        log.info("ended", extra={"fields": {"requests_cut": self.crew.cut}})
        return CUT_OFF if self.crew.cut else 0

    async def _drain(self) -> None:
        self.crew.close()
        ours = [item for item in self._sockets.all() if not item.shared]
        await self._finish(ours)
        telling = asyncio.create_task(self._tell_what_is_left())
        try:
            await self.crew.drain(self.config.proxy.grace)
        finally:
            telling.cancel()

    async def _tell_what_is_left(self) -> None:
        """Somebody waits for the drain and wants to know for what."""
        while True:
            await asyncio.sleep(self.pace.tell)
            rows = self.worker_rows()
            sessions, active = sum(row.sessions for row in rows), sum(row.active for row in rows)
            if active:
                fields = {"sessions": sessions, "requests": active - sessions}
                log.info("waiting for what is under way", extra={"fields": fields})

    async def _close_control(self) -> None:
        control, self._control = self._control, None
        if control is not None:
            await control.close()

    def _put_away(self) -> None:
        """Close what is still open. The lock goes last: the next supervisor may start."""
        self._looking_up.shutdown(wait=False, cancel_futures=True)
        self._control_sockets.put_away()
        close_all([*self._sockets.all(), *self._sockets.take_offers()])
        if hasattr(self, "crew"):
            self.crew.put_away()
        for fd in (self._log_fd, self._lock):
            if fd >= 0:
                os.close(fd)


def _log_problem(config: Config, error: OSError) -> str:
    return f"the access log {config.proxy.access_log.path} cannot be opened: {error.strerror}"
