"""A supervisor without processes: real scoreboard and freezer, and a record of what it was told."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from fakes.certs import Authority

from turnout.ext.scoreboard import Scoreboard
from turnout.proxy.config import parse
from turnout.proxy.freeze import Freezer
from turnout.proxy.model import Config
from turnout.proxy.supervisor import WorkerRow

TEXT = """
[control]
auth = "none"

[listeners.web]
bind = "127.0.0.1:8080"

[listeners.secure]
bind = "127.0.0.1:8443"
tls = { cert = "site.pem", key = "site.key" }

[services.app]
balance = "least_connections"
endpoints = [
  { address = "10.0.0.1:80", weight = 3 },
  { address = "10.0.0.2:80", version = "v2" },
  "unix:/run/app.sock",
]
split = { v1 = 75, v2 = 25 }

[services.plain]
endpoints = ["10.0.0.3:80"]

[[routes]]
path = "/"
service = "app"

[[routes]]
name = "robots"
path = "/robots.txt"
respond = { body = "none" }
"""


class StandIn:
    """What control and metrics may ask of a supervisor. `told` is what it was told, in order; `fails` is
    raised by whatever is asked next.
    """

    control: Any = None
    """Whose `merge` says what is in force, if there is one."""
    serving = True
    handed_over = False

    def __init__(self, text: str = TEXT, *, workers: int = 2, endpoints: int = 64) -> None:
        self._state = tempfile.TemporaryDirectory(prefix="turnout-test-")
        self.file = Path(self._state.name) / "turnout.toml"
        self.file.write_text(text)
        self.config = self.file_config = parse(text, "turnout.toml")
        self.scoreboard = Scoreboard.create(
            workers, endpoints=endpoints, groups=64, services=32, routes=16, listeners=4
        )
        self.directory = folder = Path(self._state.name)
        Authority().leaf("site.test").write(folder)
        self.freezer = Freezer(
            self.scoreboard, folder, file=str(folder / "turnout.toml"), resolver=lambda _: ["127.0.0.1"]
        )
        self.version = 0
        self.state: Literal["starting", "serving", "draining"] = "serving"
        self.started = time.time()
        self.restarts = 0
        self.is_ready = True
        self.told: list[Any] = []
        self.fails: Exception | None = None
        self.freeze(text)
        self.scoreboard.attach(0, os.getpid())
        self.scoreboard.set_worker_state(0, "serving")

    def freeze(self, text: str) -> bytes:
        """Put a configuration in force; returns the document."""
        self.version += 1
        self.config = self.file_config = parse(text, "turnout.toml")
        frozen = self.freezer.freeze(self.config, self.version, names=True, files=True)
        self.freezer.release(self.version)
        return frozen.whole

    def close(self) -> None:
        self.scoreboard.close()
        self._state.cleanup()

    def ready(self) -> bool:
        return self.is_ready

    def _hear(self, *words: Any) -> None:
        self.told.append(words)
        if self.fails is not None:
            raise self.fails

    async def reload(self, config: Config | None = None) -> int:
        self._hear("reload")
        if config is None:
            self.version += 1
            return self.version
        self.file_config = config
        return await self.refresh()

    def check(self, _config: Config) -> None:
        pass

    async def refresh(self) -> int:
        self.version += 1
        self.freezer.health_of, self.freezer.admin_of = self.control.health_of, self.control.admin_of
        self.config = self.control.merge(self.file_config)
        self.freezer.freeze(self.config, self.version, names=True, files=True)
        self.control.in_force(self.config)
        self.freezer.release(self.version)
        return self.version

    async def look_up(self, addresses: Iterable[str]) -> dict[str, str | OSError]:
        return {
            address: OSError(2, "Name unknown") if "nowhere" in address else address for address in addresses
        }

    async def upgraded(self) -> None:
        pass

    def stop(self) -> None:
        self._hear("stop")
        self.state = "draining"

    async def upgrade(self) -> int:
        self._hear("upgrade")
        return 4711

    async def set_split(self, service: str, shares: dict[str, float]) -> dict[str, int]:
        self._hear("split", service, shares)
        return self.freezer.set_split(service, shares)

    def set_health(self, service: str, address: str, health: Any) -> None:
        self._hear("health", service, address, health)
        self.freezer.set_health(service, address, health)

    def set_weight(self, service: str, address: str, weight: int) -> None:
        self._hear("weight", service, address, weight)
        self.scoreboard.set_weight(self.freezer.endpoint_slots(service)[address], weight)

    def set_admin(self, service: str, address: str, admin: Any) -> None:
        self._hear("admin", service, address, admin)
        self.scoreboard.set_admin(self.freezer.endpoint_slots(service)[address], admin)

    def worker_rows(self) -> list[WorkerRow]:
        rows = [self.scoreboard.worker(number) for number in range(self.scoreboard.workers)]
        return [
            WorkerRow(
                row["worker"],
                row["pid"],
                row["state"],
                row["snapshot"],
                0,
                row["clients"],
                row["clients_active"],
                row["tunnels"],
                row["upstreams"],
            )
            for row in rows
            if row["pid"]
        ]
