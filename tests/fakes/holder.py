"""What a registry asks of its supervisor, without processes."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from turnout.proxy.config import ConfigError, Problem, parse
from turnout.proxy.model import Config

if TYPE_CHECKING:
    from turnout.control.registry.registry import Registry

TEXT = """
[listeners.web]
bind = "127.0.0.1:8080"

[services.app]
split = { v1 = 1, v2 = 1 }
endpoints = ["10.0.0.1:80", { address = "10.0.0.2:80", version = "v2" }]

[services."trading:orders"]

[[routes]]
service = "app"
"""


class Holder:
    """`told` is what it was told, in order; `names` are host names that have no address; `refuses` is why no
    snapshot can be made.
    """

    def __init__(self, text: str = TEXT) -> None:
        self.file_config = parse(text, "turnout.toml")
        self.config: Config = self.file_config
        self.version = 1
        self.serving = True
        self.handed_over = False
        self.upgrade_is_over = asyncio.Event()
        self.upgrade_is_over.set()
        self.registry: Registry | None = None
        self.told: list[Any] = []
        self.names: set[str] = set()
        self.refuses = ""

    def edit(self, before: str, after: str, text: str = TEXT) -> None:
        self.file_config = parse(text.replace(before, after), "turnout.toml")

    async def refresh(self) -> int:
        await asyncio.sleep(0)
        if self.refuses:
            raise ConfigError([Problem("turnout.toml", "", self.refuses)])
        assert self.registry is not None
        self.config = self.registry.merge(self.file_config)
        self.version += 1
        return self.version

    async def upgraded(self) -> None:
        await self.upgrade_is_over.wait()

    async def look_up(self, addresses: Iterable[str]) -> dict[str, str | OSError]:
        return {
            address: OSError(0, "no such name") if address.rpartition(":")[0] in self.names else address
            for address in addresses
        }

    async def set_split(self, service: str, shares: dict[str, float]) -> dict[str, int]:
        self.told.append(("split", service, shares))
        return {}

    def set_weight(self, service: str, address: str, weight: int) -> None:
        self.told.append(("weight", service, address, weight))

    def set_admin(self, service: str, address: str, admin: str) -> None:
        self.told.append(("admin", service, address, admin))
