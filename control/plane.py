"""The control side of one supervisor: its parts, and the order in which they come and go."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

from turnout.control.access import tls
from turnout.control.access.audit import Audit
from turnout.control.access.gate import Gate
from turnout.control.access.tokens import Tokens
from turnout.control.api.app import Api
from turnout.control.events.events import Events
from turnout.control.health.board import SupervisorBoard
from turnout.control.health.kinds import Checks
from turnout.control.health.prober import Prober
from turnout.control.health.remembered import HealthTable, Remembered
from turnout.control.registry.dns import DnsSource
from turnout.control.registry.history import Configurations
from turnout.control.registry.keeper import Keeper
from turnout.control.registry.registry import Registry
from turnout.control.storage.store import Store, StoreError, store_url
from turnout.ext.scoreboard import Admin, Health
from turnout.proxy.errors import StartError
from turnout.proxy.model import Config, Control, is_local

if TYPE_CHECKING:
    from turnout.proxy.supervisor import Supervisor

log = logging.getLogger("turnout.control")


class Plane:
    """What a supervisor asks of its control side (`supervisor.Control`), and what the API finds in it.

    Parts that need the store are made in `prepare`; `start` begins what runs by itself; `close` is the other
    way round.
    """

    store: Store
    events: Events
    registry: Registry
    tokens: Tokens
    gate: Gate
    audit: Audit
    prober: Prober
    dns: DnsSource
    history: Configurations

    def __init__(self, supervisor: Supervisor) -> None:
        self.supervisor = supervisor
        self._merged = supervisor.config
        self._running: list[Any] = []
        """Parts to close, in the order of their opening."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._file: Config | None = None
        self._started = False

    async def prepare(self, file: Config) -> None:
        url = store_url(file.control.state, self.supervisor.directory)
        try:
            self.store = self._opened(await Store.open(url))
            self.events = self._opened(Events(self.store))
            await self.events.open()
            self.registry = self._opened(Registry(self.supervisor, self.store, self.events))
            await self.registry.open()
            self.dns = self._opened(DnsSource(self.registry, self.store, self.events))
            await self.dns.open(file)
            write = self.registry.ledger.change
            self.history = self._opened(Configurations(self.supervisor, self.store, self.events, write))
            self.prober = self._opened(self._make_prober())
            await self.prober.open()
            await self._open_access(file.control)
        except StoreError as error:
            raise StartError([f"[control] state: {error}"]) from None

    async def _open_access(self, control: Control) -> None:
        if control.tls is not None:
            tls.context(control.tls, self.supervisor.file)  # a mistake is said before anything serves
        elif control.auth == "tokens" and not is_local(control.listen):
            log.warning("[control] tokens can be read on their way to %s; give it tls", control.listen)
        self.tokens = self._opened(Tokens(self.store))
        self.gate = Gate(self.tokens, auth=control.auth, clients=control.clients)
        self.audit = self._opened(Audit(self.store, self.supervisor.directory))

    def merge(self, file: Config) -> Config:
        self._merged = self.registry.merge(file)
        return self._merged

    def health_of(self, service: str, address: str) -> Health:
        checked = self._merged.services[service].health is not None
        return self.prober.health_of(service, address, checked=checked)

    def admin_of(self, service: str, address: str) -> Admin:
        return self.registry.admin_of(service, address)

    async def start(self, sock: socket.socket, local: socket.socket | None = None) -> None:
        try:
            await self.registry.start()
            await self.events.open()  # again: a former program may have written since
        except StoreError as error:
            raise StartError([f"[control] state: {error}"]) from None
        await self.events.start()
        self._started = True
        await self.history.start()
        await self._follow(self.supervisor.file_config)
        await self.prober.start()
        await self._opened(Keeper(self.registry)).start()
        await self.audit.open()
        await self._opened(Api(self)).start(sock, local)

    def in_force(self, config: Config) -> None:
        """Checks follow what is in force. What follows the file learns of another one."""
        self.prober.in_force(config)
        file = self.supervisor.file_config
        if file is not self._file:
            self._file = file
            if self._started:
                self._background(self._follow(file))

    async def _follow(self, file: Config) -> None:
        await self.history.noticed()
        await self.dns.follow(file)

    def _background(self, work: Coroutine[Any, Any, None]) -> None:
        async def logged() -> None:
            try:
                await work
            except Exception:
                log.exception("unexpected failure")

        task = asyncio.create_task(logged())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        if self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)
        while self._running:
            await self._running.pop().close()

    def _make_prober(self) -> Prober:
        checks = Checks(self.supervisor.file.absolute().parent)
        shelf = HealthTable(self.store)
        return Prober(SupervisorBoard(self.supervisor), checks, Remembered(shelf), self.events.publish)

    def _opened(self, part: Any) -> Any:
        self._running.append(part)
        return part
