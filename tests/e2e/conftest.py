from collections.abc import Iterator
from typing import Any

import pytest
from fakes.engine_process import Proxy
from fakes.origin import Origin


class Shared:
    """One engine for the tests of a module; a new one after a failure: one test alone fails for it."""

    def __init__(self, options: dict[str, Any]) -> None:
        self.options = options
        self.proxy: Proxy | None = None

    def get(self) -> Proxy:
        if self.proxy is None:
            self.proxy = Proxy(**self.options)
        return self.proxy

    def close(self) -> None:
        if self.proxy is not None:
            proxy, self.proxy = self.proxy, None
            proxy.close()


@pytest.fixture(scope="module")
def engine_options() -> dict[str, Any]:
    """What the module's engine is made with; a module may say otherwise."""
    return {}


@pytest.fixture(scope="module")
def shared_engine(engine_options: dict[str, Any]) -> Iterator[Shared]:
    shared = Shared(engine_options)
    yield shared
    shared.close()


@pytest.fixture
def proxy(shared_engine: Shared) -> Iterator[Proxy]:
    """The module's engine, which must have let go of everything when the test is over."""
    yield shared_engine.get()
    try:
        shared_engine.get().rest()
    except BaseException:
        shared_engine.close()
        raise


@pytest.fixture
def origin() -> Iterator[Origin]:
    """An origin played by the test."""
    with Origin() as out:
        yield out
