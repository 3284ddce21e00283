"""What is asked of the store: durable transactions, one after the other."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

from sqlalchemy import Executable


class Change(Protocol):
    async def execute(self, statement: Executable, /) -> Any: ...


class Store(Protocol):
    def change(self) -> AbstractAsyncContextManager[Change]: ...

    async def read(self, statement: Executable, /) -> Sequence[Any]: ...
