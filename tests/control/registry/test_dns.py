"""What is followed in the DNS when the configuration changes."""

import asyncio

from fakes.nameserver import Nameserver

from turnout.control.registry.dns import DnsSource
from turnout.control.storage.store import Store
from turnout.proxy.model import Config, Discover, Service


class Registry:
    """Notes what it is offered: {address: version}."""

    def __init__(self):
        self.offers = []

    async def offer(self, source, service, endpoints, *, reason=""):
        versions = endpoints and {address: one.version for address, one in endpoints.items()}
        self.offers.append((source, service, versions))


def config(server, version):
    discover = Discover(dns="app.test:80", server=server.address, version=version)
    return Config(services={"app": Service(discover=discover)})


def test_endpoints_that_were_found_get_another_version_when_the_file_says_so(store_url):
    async def scenario():
        registry, store = Registry(), await Store.open(store_url)
        async with Nameserver() as server:
            server.say("app.test", "A", "10.0.0.1", ttl=60)
            source = DnsSource(registry, store, events=None)
            await source.open(config(server, "v1"))
            await source.follow(config(server, "v2"))
            await source.close()
        await store.close()
        return registry.offers

    offers = asyncio.run(asyncio.wait_for(scenario(), 30))
    assert offers[0] == ("dns", "app", {"10.0.0.1:80": "v1"})
    assert offers[-1] == ("dns", "app", {"10.0.0.1:80": "v2"})
