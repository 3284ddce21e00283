"""A store of its own for each test."""

import asyncio

import pytest

from turnout.control.storage.store import Store


@pytest.fixture
def with_store(store_url):
    """Run a coroutine function with a store."""

    def run(work):
        async def whole():
            store = await Store.open(store_url)
            await store.claim()
            try:
                return await asyncio.wait_for(work(store), 30)
            finally:
                await store.close()

        return asyncio.run(whole())

    return run
