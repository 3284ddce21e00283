from collections.abc import Iterator

import pytest
from fakes.engine_process import Proxy
from fakes.origin import Origin


@pytest.fixture(scope="module")
def engine_process() -> Iterator[Proxy]:
    """One engine for all tests of a module."""
    with Proxy() as proxy:
        yield proxy


@pytest.fixture
def proxy(engine_process: Proxy) -> Iterator[Proxy]:
    """The module's engine, which must have let go of everything when the test is over."""
    yield engine_process
    engine_process.rest()


@pytest.fixture
def origin() -> Iterator[Origin]:
    """An origin played by the test."""
    with Origin() as out:
        yield out
