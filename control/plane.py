"""The control side of one supervisor: its parts, and the order in which they come and go."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

from turnout.control.events.events import Events
from turnout.control.registry.keeper import Keeper
from turnout.control.registry.registry import Registry
from turnout.control.server import ControlServer
from turnout.control.storage.store import Store, StoreError, store_url
from turnout.ext.scoreboard import Admin, Health
from turnout.proxy.errors import StartError
from turnout.proxy.model import Config

if TYPE_CHECKING:
    from turnout.proxy.supervisor import Supervisor


class Plane:
    """What a supervisor asks of its control side (`supervisor.Control`), and what the API finds in it.

    Parts that need the store are made in `prepare`; `start` begins what runs by itself; `close` is the other
    way round.
    """

    store: Store
    events: Events
    registry: Registry
    prober: Any = None
    gate: Any = None
    audit: Any = None
    history: Any = None

    def __init__(self, supervisor: Supervisor) -> None:
        self.supervisor = supervisor
        self._running: list[Any] = []
        """Parts to close, in the order of their opening."""

    async def prepare(self, file: Config) -> None:
        url = store_url(file.control.state, self.supervisor.directory)
        try:
            self.store = self._opened(await Store.open(url))
            self.events = self._opened(Events(self.store))
            await self.events.open()
            self.registry = self._opened(Registry(self.supervisor, self.store, self.events))
            await self.registry.open()
        except StoreError as error:
            raise StartError([f"[control] state: {error}"]) from None

    def merge(self, file: Config) -> Config:
        return self.registry.merge(file)

    def health_of(self, service: str, address: str) -> Health:
        health: Health = "up" if self.prober is None else self.prober.health_of(service, address)
        return health

    def admin_of(self, service: str, address: str) -> Admin:
        return self.registry.admin_of(service, address)

    async def start(self, sock: socket.socket, local: socket.socket | None = None) -> None:
        try:
            await self.registry.start()
        except StoreError as error:
            raise StartError([f"[control] state: {error}"]) from None
        await self.events.start()
        await self._opened(Keeper(self.registry)).start()
        await self._opened(ControlServer(self.supervisor, self.registry)).start(sock, local)

    async def close(self) -> None:
        while self._running:
            await self._running.pop().close()

    def _opened(self, part: Any) -> Any:
        self._running.append(part)
        return part
