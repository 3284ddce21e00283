"""The registry on both databases: what it takes and refuses, and that it finds all of it again."""

import asyncio
import contextlib

import pytest
from fakes.holder import TEXT, Holder
from harness.turnout import scenario

from turnout.control.events.events import Events
from turnout.control.registry.errors import ConflictError, NotFoundError, RefusedError, UnavailableError
from turnout.control.registry.keeper import Keeper
from turnout.control.registry.registry import Registry
from turnout.control.storage.store import Store
from turnout.proxy.model import Endpoint

ONE, TWO, NEW = "10.0.0.1:80", "10.0.0.2:80", "10.0.0.9:80"
ORDERS = "trading:orders"


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Opened:
    def __init__(
        self, holder: Holder, store: Store, events: Events, registry: Registry, clock: Clock
    ) -> None:
        self.holder, self.store, self.events, self.registry, self.clock = (
            holder,
            store,
            events,
            registry,
            clock,
        )
        self.keeper = Keeper(registry)

    def addresses(self, service: str = "app") -> list[str]:
        """In force."""
        return [endpoint.address for endpoint in self.holder.config.services[service].endpoints]

    def kinds(self) -> list[str]:
        return [event.kind for event in self.events.recent(1000)]


@contextlib.asynccontextmanager
async def opened(url: str, text: str = TEXT, *, clock: Clock | None = None, start: bool = True, **holder):
    clock = clock or Clock()
    supervisor = Holder(text)
    vars(supervisor).update(holder)
    store = await Store.open(url)
    events = Events(store, clock=clock)
    registry = Registry(supervisor, store, events, clock=clock)
    supervisor.registry = registry
    try:
        await events.open()
        await registry.open()
        supervisor.config = registry.merge(supervisor.file_config)
        if start:
            await registry.start()
            await events.start()
        yield Opened(supervisor, store, events, registry, clock)
    finally:
        await registry.close()
        await events.close()
        await store.close()


@scenario
async def test_what_is_registered_is_in_force_and_found_again_after_a_restart(store_url):
    spec = {
        "address": NEW,
        "weight": 3,
        "version": "v2",
        "priority": 1,
        "tags": ["a"],
        "metadata": {"zone": "x"},
    }
    async with opened(store_url) as at:
        applied = await at.registry.register("app", spec, by="me")
        assert (applied.revision, applied.snapshot) == (1, 2)
        assert at.addresses() == [ONE, TWO, NEW]
        assert at.kinds() == ["endpoint.registered"]
    async with opened(store_url, start=False) as at:
        assert at.addresses() == [ONE, TWO, NEW], "before the first snapshot"
        entry = at.registry.endpoint("app", NEW)
        assert entry.endpoint.model_dump() == {**spec, "tls": None, "tags": ("a",)}
        assert (entry.source, entry.registered, entry.registered_by, entry.revision) == (
            "api",
            1000.0,
            "me",
            1,
        )
        assert at.registry.revision == 1


@scenario
async def test_an_endpoint_that_is_deregistered_is_gone_with_what_was_set_for_it(store_url):
    async with opened(store_url) as at:
        await at.registry.register(ORDERS, {"address": NEW}, by="me")
        await at.registry.set_admin(ORDERS, NEW, "drain", by="me")
        applied = await at.registry.deregister(ORDERS, NEW, by="me")
        assert applied.entry is None
        assert at.addresses(ORDERS) == []
        await at.registry.register(ORDERS, {"address": NEW}, by="me")
        assert at.registry.endpoint(ORDERS, NEW).admin == "ready"
        assert at.registry.admin_of(ORDERS, NEW) == "ready"
    async with opened(store_url) as at:
        assert at.addresses(ORDERS) == [NEW]
        assert at.registry.endpoint(ORDERS, NEW).admin == "ready"


@scenario
async def test_to_register_again_says_anew_what_an_endpoint_is_like(store_url):
    async with opened(store_url) as at:
        await at.registry.register("app", {"address": NEW, "weight": 3}, by="me")
        at.clock.now += 5
        applied = await at.registry.register("app", {"address": NEW, "weight": 5}, by="you")
        assert (applied.entry.weight, applied.entry.registered, applied.entry.revision) == (5, 1000.0, 2)
        assert at.kinds() == ["endpoint.registered", "endpoint.changed"]


@scenario
async def test_a_service_has_the_revision_of_its_last_change(store_url):
    async with opened(store_url) as at:
        assert at.registry.service("app").revision == 0
        await at.registry.register("app", {"address": NEW}, by="me")
        await at.registry.set_weight("app", ONE, 4, by="me")
        assert at.registry.service("app").revision == 2
        assert at.registry.service(ORDERS).revision == 0
        assert at.registry.revision == 2
    async with opened(store_url) as at:
        assert at.registry.service("app").revision == 2


@scenario
async def test_if_match_lets_only_those_through_who_have_seen_the_newest(store_url):
    async with opened(store_url) as at:
        first = await at.registry.register("app", {"address": NEW}, by="me", if_revision=0)
        with pytest.raises(ConflictError, match="exists already") as caught:
            await at.registry.register("app", {"address": NEW}, by="me", if_revision=0)
        assert caught.value.revision == first.revision
        second = await at.registry.set_weight("app", NEW, 2, by="me", if_revision=first.revision)
        with pytest.raises(ConflictError, match="was changed meanwhile: it has revision 2, not 1"):
            await at.registry.deregister("app", NEW, by="me", if_revision=first.revision)
        assert NEW in at.addresses()
        await at.registry.deregister("app", NEW, by="me", if_revision=second.revision)
        with pytest.raises(ConflictError, match="does not exist any more"):
            await at.registry.register("app", {"address": NEW}, by="me", if_revision=second.revision)


@scenario
async def test_of_many_who_saw_the_same_only_one_gets_through(store_url):
    async with opened(store_url) as at:
        first = await at.registry.register("app", {"address": NEW}, by="me")
        changes = [
            at.registry.set_weight("app", NEW, number, by="me", if_revision=first.revision)
            for number in range(10)
        ]
        ends = await asyncio.gather(*changes, return_exceptions=True)
        assert sum(isinstance(end, ConflictError) for end in ends) == 9


@pytest.mark.parametrize(
    ("service", "spec", "error", "text"),
    [
        ("ap", {"address": NEW}, NotFoundError, 'no service is named "ap"; did you mean "app"?'),
        ("app", {"address": "nowhere"}, RefusedError, '"nowhere" is not an endpoint\'s address'),
        ("app", {"address": NEW, "weight": -1}, RefusedError, "weight: Input should be greater"),
        ("app", {"address": NEW, "colour": "red"}, RefusedError, "colour: Extra inputs"),
        ("app", {"address": "bad.test:80"}, RefusedError, '"bad.test:80" cannot be looked up: no such name'),
    ],
)
def test_what_makes_no_sense_is_refused_and_changes_nothing(tmp_path, service, spec, error, text):
    @scenario
    async def refused():
        async with opened(f"sqlite:///{tmp_path / 'control.db'}", names={"bad.test"}) as at:
            with pytest.raises(error) as caught:
                await at.registry.register(service, spec, by="me")
            assert text in str(caught.value)
            assert (at.addresses(), at.registry.revision, at.store.revision, at.kinds()) == (
                [ONE, TWO],
                0,
                0,
                [],
            )

    refused()


@scenario
async def test_the_other_refusals_say_what_would_be_right(tmp_path):
    text = TEXT.replace("[services.app]", '[services.app]\nhost = "endpoint"')
    text = "[proxy]\nmax_endpoints = 3\n" + text
    async with opened(f"sqlite:///{tmp_path / 'control.db'}", text) as at:
        registry = at.registry
        for work, error, words in (
            (registry.register("app", {"address": "unix:/a"}, by="me"), RefusedError, "names no host"),
            (
                registry.register("app", {"address": NEW}, by="me", lease_ttl=0.1),
                RefusedError,
                "a lease is 1",
            ),
            (registry.deregister("app", ONE, by="me"), RefusedError, "stands in the file; take it out there"),
            (registry.deregister("app", NEW, by="me"), NotFoundError, f'has no endpoint "{NEW}"'),
            (registry.put_service("app", {}, by="me"), RefusedError, "stands in the file; change it there"),
            (registry.put_service("a/b", {}, by="me"), RefusedError, "is not a name for a service"),
            (registry.put_service("x", {"endpoints": [NEW]}, by="me"), RefusedError, "one by one"),
            (
                registry.put_service("x", {"balance": "best"}, by="me"),
                RefusedError,
                "balance: Input should be",
            ),
            (
                registry.put_service("x", {"health": {"exec": ["a"]}}, by="me"),
                RefusedError,
                "programs are named",
            ),
            (
                registry.put_service("x", {"tls": {"ca": "/a"}}, by="me"),
                RefusedError,
                "tls.ca: files are named",
            ),
            (registry.delete_service("app", by="me"), RefusedError, "take it out there"),
            (registry.set_weight("app", ONE, 70000, by="me"), RefusedError, "0 to 65535"),
            (registry.set_admin("app", ONE, "ready", until=2000, by="me"), RefusedError, "drain or maint"),
            (registry.set_admin("app", ONE, "drain", until=999, by="me"), RefusedError, "a time to come"),
            (registry.set_split(ORDERS, {"v1": 1}, by="me"), RefusedError, "has no split"),
            (registry.set_split("app", {"v9": 1}, by="me"), NotFoundError, 'has no version "v9"'),
            (registry.set_split("app", {"v1": 0}, by="me"), RefusedError, "one of them above 0"),
        ):
            with pytest.raises(error) as caught:
                await work
            assert words in str(caught.value)
        assert at.store.revision == 0
        await registry.register("app", {"address": NEW}, by="me")
        with pytest.raises(RefusedError, match=r"room for 3 endpoints; raise .* max_endpoints"):
            await registry.register("app", {"address": "10.0.0.10:80"}, by="me")


@scenario
async def test_what_cannot_be_put_in_force_is_taken_back(store_url):
    async with opened(store_url) as at:
        await at.registry.register("app", {"address": NEW, "weight": 2}, by="me")
        at.holder.refuses = "no slot left"
        with pytest.raises(RefusedError, match="no slot left"):
            await at.registry.register("app", {"address": "10.0.0.10:80"}, by="me")
        with pytest.raises(RefusedError, match="no slot left"):
            await at.registry.register("app", {"address": NEW, "weight": 9}, by="me")
        with pytest.raises(RefusedError, match="no slot left"):
            await at.registry.put_service("new", {}, by="me")
        assert list(at.registry.service("app").endpoints) == [ONE, TWO, NEW]
        assert at.registry.endpoint("app", NEW).weight == 2
        assert "new" not in at.registry.services
    async with opened(store_url) as at:
        assert at.registry.endpoint("app", NEW).weight == 2
        assert at.addresses() == [ONE, TWO, NEW]
        assert "new" not in at.registry.services


@scenario
async def test_services_come_and_go(store_url):
    settings = {
        "kind": "grpc",
        "balance": "random",
        "timeouts": {"connect": "1500ms"},
        "limits": {"queue": 7},
    }
    async with opened(store_url) as at:
        applied = await at.registry.put_service("trading:risk", settings, by="me")
        assert (applied.entry.namespace, applied.entry.name, applied.entry.kind) == (
            "trading",
            "risk",
            "grpc",
        )
        await at.registry.register("trading:risk", {"address": NEW}, by="me")
    async with opened(store_url) as at:
        service = at.registry.service("trading:risk").settings
        assert (service.balance, service.timeouts.connect, service.limits.queue) == ("random", 1500, 7)
        assert at.addresses("trading:risk") == [NEW]
        await at.registry.put_service("trading:risk", {"balance": "ip_hash"}, by="me", if_revision=2)
        assert at.registry.service("trading:risk").settings.limits.queue == 512
        await at.registry.delete_service("trading:risk", by="me")
        assert "trading:risk" not in at.holder.config.services
        assert at.kinds() == [
            "service.registered",
            "endpoint.registered",
            "service.changed",
            "service.removed",
        ]
    async with opened(store_url) as at:
        assert list(at.registry.services) == ["app", ORDERS]


@scenario
async def test_endpoints_of_a_service_that_leaves_the_file_wait_for_it_or_are_deleted(store_url):
    without = TEXT.replace(f'[services."{ORDERS}"]', "")
    async with opened(store_url) as at:
        await at.registry.register(ORDERS, {"address": NEW}, by="me")
    async with opened(store_url, without) as at:
        assert ORDERS not in at.holder.config.services
    async with opened(store_url) as at:
        assert at.addresses(ORDERS) == [NEW]
    async with opened(store_url, without) as at:
        await at.registry.delete_service(ORDERS, by="me")
        with pytest.raises(NotFoundError):
            await at.registry.delete_service(ORDERS, by="me")
    async with opened(store_url) as at:
        assert at.addresses(ORDERS) == []


@scenario
async def test_what_is_set_at_run_time_is_one_store_and_outlives_a_restart(store_url):
    async with opened(store_url) as at:
        await at.registry.set_weight("app", ONE, 7, by="me")
        applied = await at.registry.set_admin("app", TWO, "maint", reason="disk", until=5000.0, by="me")
        await at.registry.set_split("app", {"v2": 3}, by="me")
        assert applied.snapshot == 1, "no new one is needed"
        assert at.holder.told == [
            ("admin", "app", ONE, "ready"),
            ("weight", "app", ONE, 7),
            ("admin", "app", TWO, "maint"),
            ("weight", "app", TWO, 1),
            ("split", "app", {"v2": 3}),
        ]
    async with opened(store_url, start=False) as at:
        service = at.holder.config.services["app"]
        assert [endpoint.weight for endpoint in service.endpoints] == [7, 1]
        assert service.split == {"v1": 0, "v2": 3}
        assert at.registry.admin_of("app", TWO) == "maint"
        entry = at.registry.endpoint("app", TWO)
        assert (entry.admin_reason, entry.admin_by, entry.admin_until) == ("disk", "me", 5000.0)


@scenario
async def test_what_the_file_has_overruled_does_not_come_back(store_url):
    async with opened(store_url) as at:
        await at.registry.set_weight("app", ONE, 7, by="me")
        await at.registry.set_split("app", {"v2": 3}, by="me")
        at.holder.edit(f'"{ONE}"', f'{{ address = "{ONE}", weight = 2 }}', TEXT.replace("v1 = 1,", "v1 = 4,"))
        service = at.registry.services["app"]
        assert (service.endpoints[ONE].weight, service.settings.split) == (2, {"v1": 4, "v2": 1})
        await at.keeper.sweep()
        at.holder.edit("", "")
        service = at.registry.services["app"]
        assert (service.endpoints[ONE].weight, service.settings.split) == (1, {"v1": 1, "v2": 1})
    async with opened(store_url) as at:
        assert at.registry.services["app"].endpoints[ONE].weight == 1
        assert at.registry.services["app"].settings.split == {"v1": 1, "v2": 1}


@scenario
async def test_drain_and_maintenance_end_by_themselves_when_they_were_meant_to(store_url):
    async with opened(store_url) as at:
        await at.registry.set_admin("app", ONE, "drain", until=1060.0, by="me")
        await at.registry.set_weight("app", ONE, 7, by="me")
        at.clock.now = 1059.0
        await at.keeper.sweep()
        assert at.registry.endpoint("app", ONE).admin == "drain"
        at.clock.now = 1060.0
        await at.keeper.sweep()
        entry = at.registry.endpoint("app", ONE)
        assert (entry.admin, entry.admin_until, entry.weight) == ("ready", None, 7)
        assert at.events.recent(1)[0].by == "turnout"
        assert ("admin", "app", ONE, "ready") in at.holder.told


@scenario
async def test_a_lease_ends_unless_it_is_renewed(store_url):
    async with opened(store_url) as at:
        for address in (NEW, "10.0.0.10:80"):
            await at.registry.register("app", {"address": address}, by="me", lease_ttl=10)
        assert at.registry.endpoint("app", NEW).expires == 1010.0
        at.clock.now = 1005.0
        assert await at.registry.renew("app", NEW, by="me") == 1015.0
        assert at.registry.endpoint("app", NEW).expires == 1015.0
        at.clock.now = 1010.0
        await at.keeper.sweep()
        assert at.addresses() == [ONE, TWO, NEW]
        assert at.kinds()[-1] == "endpoint.expired"
        with pytest.raises(KeyError):
            await at.registry.renew("app", "10.0.0.10:80", by="me")
        with pytest.raises(KeyError):
            await at.registry.renew("app", ONE, by="me")
    async with opened(store_url, clock=at.clock) as at:
        assert at.addresses() == [ONE, TWO, NEW]
        assert at.registry.endpoint("app", NEW).expires == 1020.0, "a restart gives it its whole time"


@scenario
async def test_a_lease_that_was_set_something_at_run_time_ends_and_is_renewed_like_others(store_url):
    async with opened(store_url) as at:
        await at.registry.register("app", {"address": NEW}, by="me", lease_ttl=10)
        await at.registry.set_admin("app", NEW, "drain", by="me")
        at.clock.now = 1009.0
        await at.registry.renew("app", NEW, by="me")
        assert at.registry.endpoint("app", NEW).expires == 1019.0
        at.clock.now = 1019.0
        await at.keeper.sweep()
        assert at.addresses() == [ONE, TWO]
        await at.registry.register("app", {"address": NEW}, by="me", lease_ttl=10)
        assert at.registry.endpoint("app", NEW).admin == "drain", "it comes back as it was left"


@scenario
async def test_when_most_leases_of_a_pool_end_at_once_they_are_held_and_that_is_said(store_url):
    async with opened(store_url) as at:
        addresses = [f"10.0.1.{number}:80" for number in range(4)]
        for address in addresses:
            await at.registry.register(ORDERS, {"address": address}, by="me", lease_ttl=10)
        at.clock.now = 1010.0
        await at.keeper.sweep()
        assert at.addresses(ORDERS) == addresses
        held = []
        async for event in at.events.watch(4):
            held.append((event.kind, event.address))
            if event.last:
                break
        assert held == [("endpoint.held", address) for address in addresses]
        at.clock.now = 1020.0
        await at.keeper.sweep()
        assert at.addresses(ORDERS) == []


@scenario
async def test_what_discovery_finds_stands_beside_the_rest_and_is_not_stored(store_url):
    async with opened(store_url) as at:
        model = at.holder.file_config.services["app"].endpoints[0]
        found = {NEW: model.model_copy(update={"address": NEW})}
        await at.registry.offer("dns", "app", found)
        assert at.addresses() == [ONE, TWO, NEW]
        version = at.holder.version
        await at.registry.offer("dns", "app", found)
        assert at.holder.version == version, "nothing has changed"
        with pytest.raises(RefusedError, match="is discovered"):
            await at.registry.deregister("app", NEW, by="me")
        applied = await at.registry.set_weight("app", NEW, 5, by="me")
        await at.registry.offer("dns", "app", None)
        assert at.addresses() == [ONE, TWO]
        assert at.registry.revision == applied.revision


@scenario
async def test_a_name_that_has_no_address_at_the_start_is_left_out_until_it_has_one(store_url):
    async with opened(store_url) as at:
        await at.registry.register("app", {"address": "late.test:80"}, by="me")
    async with opened(store_url, names={"late.test"}) as at:
        assert at.addresses() == [ONE, TWO]
        assert at.registry.endpoint("app", "late.test:80").unfit == "cannot be looked up: no such name"
        assert not await at.registry.ledger.look_again()
        at.holder.names.clear()
        assert await at.registry.ledger.look_again()
        await at.registry.refresh()
        assert at.addresses() == [ONE, TWO, "late.test:80"]


@scenario
async def test_what_a_former_process_wrote_while_this_one_started_is_in_force_when_it_serves(store_url):
    async with opened(store_url) as former, opened(store_url, start=False) as heir:
        await former.registry.register("app", {"address": NEW}, by="me")
        assert heir.addresses() == [ONE, TWO]
        await heir.registry.start()
        assert heir.addresses() == [ONE, TWO, NEW]
        former.holder.handed_over = True
        with pytest.raises(UnavailableError, match="another program has taken over"):
            await former.registry.register("app", {"address": "10.0.0.10:80"}, by="me")
        assert list(former.registry.services["app"].endpoints) == [ONE, TWO, NEW]


@scenario
async def test_after_an_upgrade_that_failed_the_former_process_writes_on(store_url):
    async with opened(store_url) as former:
        async with opened(store_url) as heir:
            await heir.registry.register("app", {"address": NEW}, by="me")
        former.holder.upgrade_is_over.clear()
        waiting = asyncio.create_task(former.registry.set_weight("app", ONE, 3, by="me"))
        await asyncio.wait({waiting}, timeout=0.05)
        assert not waiting.done(), "the upgrade is under way"
        former.holder.upgrade_is_over.set()
        assert (await waiting).revision == 2
        assert list(former.registry.services["app"].endpoints) == [ONE, TWO, NEW]


@scenario
async def test_a_caller_that_goes_away_leaves_a_whole_change(store_url):
    async with opened(store_url) as at:
        caller = asyncio.create_task(at.registry.register("app", {"address": NEW}, by="me"))
        while not at.registry._tasks:
            await asyncio.sleep(0)
        caller.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await caller
        await at.registry.close()
        assert at.addresses() == [ONE, TWO, NEW]
        assert at.registry.revision == at.store.revision == 1


@scenario
async def test_a_lease_that_is_renewed_while_its_end_waits_for_its_turn_goes_on(tmp_path):
    async with opened(f"sqlite:///{tmp_path / 'control.db'}") as at:
        await at.registry.register("app", {"address": NEW}, by="me", lease_ttl=10)
        at.clock.now += 10
        async with at.store.change():  # others are in the way
            sweep = asyncio.create_task(at.keeper.sweep())
            await asyncio.sleep(0)
            assert await at.registry.renew("app", NEW, by="me") == at.clock.now + 10
        await sweep
        assert NEW in at.addresses()


@scenario
async def test_a_lease_that_is_being_taken_out_is_not_renewed(tmp_path):
    async with opened(f"sqlite:///{tmp_path / 'control.db'}") as at:
        await at.registry.register("app", {"address": NEW}, by="me", lease_ttl=10)
        entry, at.clock.now = at.registry.endpoint("app", NEW), at.clock.now + 10
        expire = asyncio.create_task(at.registry.expire([entry], by="me"))
        while not entry.lease.ending:
            await asyncio.sleep(0)
        with pytest.raises(KeyError):
            await at.registry.renew("app", NEW, by="me")
        await expire
        assert NEW not in at.addresses()


@scenario
async def test_a_clock_that_is_set_ends_no_lease(tmp_path):
    async with opened(f"sqlite:///{tmp_path / 'control.db'}") as at:
        await at.registry.register("app", {"address": NEW}, by="me", lease_ttl=10)
        at.keeper.follow_clock(50.0)
        at.registry.endpoint("app", NEW).lease.expires = at.clock.now + 10
        at.clock.now += 3602
        at.keeper.follow_clock(52.0)
        await at.keeper.sweep()
        assert at.registry.endpoint("app", NEW).expires == at.clock.now + 8


@scenario
async def test_the_table_is_merged_once_for_many_who_ask(tmp_path):
    async with opened(f"sqlite:///{tmp_path / 'control.db'}") as at:
        before = at.registry.table
        assert at.registry.table is before
        await at.registry.register("app", {"address": NEW}, by="me")
        after = at.registry.table
        assert after is not before
        assert at.registry.table is after
        at.holder.edit("10.0.0.1:80", "10.0.0.3:80")
        assert at.registry.table is not after


@scenario
async def test_what_a_source_finds_while_the_store_is_read_stays(tmp_path):
    async with opened(f"sqlite:///{tmp_path / 'control.db'}") as at:
        look_up = at.holder.look_up

        async def slow(addresses):
            await at.registry.offer("dns", "app", {NEW: Endpoint(address=NEW)})
            return await look_up(addresses)

        at.holder.look_up = slow
        await at.registry.ledger.read()
        assert NEW in at.registry.service("app").endpoints


@scenario
async def test_a_reason_may_have_characters_that_no_database_keeps(store_url):
    async with opened(store_url) as at:
        await at.registry.set_admin("app", ONE, "drain", by="me", reason="a\0b")
        assert at.registry.endpoint("app", ONE).admin_reason == "a\\x00b"


@scenario
async def test_a_service_of_the_api_is_not_discovered_and_nobody_is_told_it_were(tmp_path):
    async with opened(f"sqlite:///{tmp_path / 'control.db'}") as at:
        with pytest.raises(RefusedError, match="only services of the configuration file are discovered"):
            await at.registry.put_service("new", {"discover": {"dns": "a.test:80"}}, by="me")
