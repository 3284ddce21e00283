"""The prober with endpoints that do what the test says: no sockets, outcomes by hand."""

import asyncio
import contextlib
from dataclasses import dataclass, field

import pytest

from turnout.control.health.heartbeat import HeartbeatCheck
from turnout.control.health.outcome import Outcome, failed, passed
from turnout.control.health.prober import Prober
from turnout.control.health.remembered import Known, Remembered
from turnout.control.health.target import Key, Target
from turnout.control.storage.store import StoreError
from turnout.proxy.model import Config

GOOD, BAD = passed("status 200"), failed("status 503")
QUICK = 'interval = "20ms"\njitter = 0.0\nslow = "20ms"\nslow_max = "20ms"'


@dataclass
class Board:
    """What is in force, and every change of health."""

    config: Config = field(default_factory=Config)
    health: dict[Key, str] = field(default_factory=dict)
    admin: dict[Key, str] = field(default_factory=dict)
    changes: list[tuple[str, str]] = field(default_factory=list)
    numbers: dict[str, str] = field(default_factory=dict)

    def resolved(self, service):
        endpoints = self.config.services[service].endpoints
        return {e.address: self.numbers.get(e.address, e.address) for e in endpoints}

    def health_in_force(self, service, address):
        return self.health[Key(service, address)]

    def admin_in_force(self, service, address):
        return self.admin.get(Key(service, address), "ready")

    def set_health(self, service, address, health):
        assert Key(service, address) in self.health
        self.health[Key(service, address)] = health
        self.changes.append((address, health))


class Scripted:
    """A check that says what the test wants."""

    def __init__(self, target: Target, world: "World") -> None:
        self.target, self.world = target, world
        self.closed = False

    async def probe(self) -> Outcome:
        assert not self.closed
        self.world.probed.append(self.target.key.address)
        out = self.world.says.get(self.target.key.address, GOOD)
        return await out() if callable(out) else out

    def late(self, limit):
        return failed(f"no answer within {limit}")

    def close(self):
        self.closed = True


class Shelf:
    def __init__(self, known=None):
        self.known = dict(known or {})
        self.broken = False

    async def read(self):
        return dict(self.known)

    async def write(self, news):
        if self.broken:
            raise StoreError("disk full")
        for key, known in news.items():
            if known is None:
                self.known.pop(key, None)
            else:
                self.known[key] = known


class World:
    def __init__(self, shelf=None) -> None:
        self.board = Board()
        self.says: dict[str, object] = {}
        self.probed: list[str] = []
        self.events: list[tuple[str, dict]] = []
        self.shelf = shelf or Shelf()
        self.checks: list[Scripted] = []
        self.prober = Prober(self.board, self, Remembered(self.shelf), self.publish)

    def make(self, target: Target):
        if target.kind == "ttl":
            return HeartbeatCheck(target)
        self.checks.append(Scripted(target, self))
        return self.checks[-1]

    async def close(self) -> None:
        """Of what checks share: nothing."""

    def publish(self, kind, *, by, service=None, address=None, data=None):
        self.events.append((kind, {"service": service, "address": address, **data}))

    def put(self, text: str) -> None:
        """As a supervisor puts a configuration in force."""
        import tomllib  # noqa: PLC0415

        config = Config.model_validate(tomllib.loads(text))
        former, self.board.health = self.board.health, {}
        for name, service in config.services.items():
            for endpoint in service.endpoints:
                key = Key(name, endpoint.address)
                self.board.health[key] = former.get(key) or self.prober.health_of(
                    name, endpoint.address, checked=service.health is not None
                )
        self.board.config = config
        self.prober.in_force(config)

    async def until(self, condition) -> None:
        async with asyncio.timeout(10):
            while not condition():
                await asyncio.sleep(0.002)


@contextlib.asynccontextmanager
async def running(text: str, shelf=None):
    world = World(shelf)
    await world.prober.open()
    world.put(text)
    await world.prober.start()
    try:
        yield world
    finally:
        await world.prober.close()


def services(*addresses: str, health: str = QUICK, name: str = "app", version: str = "v1") -> str:
    rows = ", ".join(f'{{ address = "{a}", version = "{version}" }}' for a in addresses)
    return f"[services.{name}]\nendpoints = [{rows}]\n[services.{name}.health]\n{health}\n"


A, B, C = "10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"


def test_a_new_endpoint_is_down_until_a_check_has_passed():
    async def go() -> None:
        async with running(services(A, B)) as world:
            assert set(world.board.health.values()) == {"down"}
            world.says[B] = BAD
            await world.until(lambda: world.board.health["app", A] == "up" and world.probed.count(B) > 3)
            assert world.board.health["app", B] == "down"
            assert world.prober.state("app", A).status == "up"
            assert world.prober.state("app", B).status == "unknown"
            assert world.prober.state("app", B).reason == "status 503"

    asyncio.run(go())


def test_a_service_without_checks_is_up():
    async def go() -> None:
        async with running(f'[services.app]\nendpoints = ["{A}"]\n') as world:
            assert world.board.health["app", A] == "up"
            assert world.prober.state("app", A) is None

    asyncio.run(go())


def test_a_turn_is_stored_told_and_remembered():
    async def go() -> None:
        async with running(services(A)) as world:
            await world.until(lambda: world.board.health["app", A] == "up")
            world.says[A] = BAD
            await world.until(lambda: world.board.health["app", A] == "down")
            kind, event = world.events[-1]
            assert kind == "endpoint.health"
            assert event["address"] == A
            assert (event["status"], event["up"], event["reason"]) == ("down", False, "status 503")
            history = world.prober.state("app", A).history
            assert [(turn.status, turn.reason) for turn in history] == [
                ("down", "status 503"),
                ("up", "status 200"),
            ]
            await world.until(lambda: (known := world.shelf.known.get(Key("app", A))) and not known.up)

    asyncio.run(go())


def test_after_a_restart_endpoints_are_as_they_were_and_the_first_failure_takes_one_down():
    shelf = Shelf({Key("app", A): Known(True, 5.0, "ok"), Key("app", B): Known(False, 6.0, "refused")})

    async def go() -> None:
        async with running(services(A, B, C), shelf) as world:
            before = dict(world.board.health)
            assert before == {("app", A): "up", ("app", B): "down", ("app", C): "down"}
            assert world.prober.state("app", A).status == "assumed"
            assert world.prober.state("app", A).since == 5.0
            world.says[A] = BAD
            await world.until(lambda: world.board.health["app", A] == "down")
            assert world.probed.count(A) == 1
            await world.until(lambda: world.board.health["app", B] == "up")
            assert world.probed.count(B) >= 2

    asyncio.run(go())


def test_checks_that_are_new_to_a_running_service_find_its_endpoints_up():
    async def go() -> None:
        async with running(f'[services.app]\nendpoints = ["{A}"]\n') as world:
            world.put(services(A))
            assert world.board.health["app", A] == "up"
            assert world.prober.state("app", A).status == "assumed"
            await world.until(lambda: world.prober.state("app", A).status == "up")

    asyncio.run(go())


def test_a_service_whose_checks_go_away_is_up():
    async def go() -> None:
        async with running(services(A)) as world:
            world.says[A] = BAD
            await world.until(lambda: A in world.probed)
            world.put(f'[services.app]\nendpoints = ["{A}"]\n')
            assert world.board.health["app", A] == "up"
            assert world.prober.state("app", A) is None
            assert world.checks[0].closed

    asyncio.run(go())


def test_a_result_that_comes_after_its_endpoint_has_gone_is_dropped():
    async def go() -> None:
        async with running(services(A, B)) as world:
            slow = asyncio.Event()

            async def late():
                await slow.wait()
                return GOOD

            world.says[A] = late
            await world.until(lambda: A in world.probed)
            world.put(services(B))
            slow.set()
            await world.until(lambda: world.board.health["app", B] == "up")
            assert (A, "up") not in world.board.changes
            world.put(services(A, B))
            assert world.board.health["app", A] == "down"

    asyncio.run(go())


def test_an_endpoint_in_maintenance_is_not_checked_and_doubted_when_it_comes_back():
    async def go() -> None:
        async with running(services(A, B)) as world:
            await world.until(lambda: world.board.health["app", A] == "up")
            world.board.admin[Key("app", A)] = "maint"
            world.says[A] = BAD
            await world.until(lambda: world.prober.state("app", A).status == "assumed")
            before, others = world.probed.count(A), world.probed.count(B)
            await world.until(lambda: world.probed.count(B) > others + 5)
            assert world.probed.count(A) <= before + 1
            del world.board.admin[Key("app", A)]
            await world.until(lambda: world.board.health["app", A] == "down")

    asyncio.run(go())


def test_settings_that_change_are_followed_without_a_turn():
    async def go() -> None:
        async with running(services(A)) as world:
            await world.until(lambda: world.board.health["app", A] == "up")
            changes = len(world.board.changes)
            world.put(services(A, health=QUICK + '\npath = "/other"\nfall = 1'))
            await world.until(lambda: len(world.checks) == 2 and not world.checks[1].closed)
            assert world.checks[0].closed
            assert world.checks[1].target.kind == "http"
            assert len(world.board.changes) == changes
            world.says[A] = BAD
            await world.until(lambda: world.board.health["app", A] == "down")
            assert world.prober.state("app", A).failures == 1

    asyncio.run(go())


def test_what_does_not_change_is_left_alone():
    async def go() -> None:
        async with running(services(A, B)) as world:
            world.put(services(A, B) + '[services.other]\nendpoints = ["10.0.0.9:1"]\n')
            world.put(services(B, A, C))
            assert len(world.checks) == 3
            assert not any(check.closed for check in world.checks)

    asyncio.run(go())


def test_another_version_that_proves_itself_starts_anew_and_any_other_is_doubted():
    async def go() -> None:
        proven = QUICK + '\nidentity = "X-Version"'
        async with running(services(A, health=proven) + services(B, name="plain")) as world:
            await world.until(lambda: set(world.board.health.values()) == {"up"})
            world.put(services(A, health=proven, version="v2") + services(B, name="plain", version="v2"))
            assert world.board.health == {("app", A): "down", ("plain", B): "up"}
            assert world.prober.state("plain", B).status == "assumed"
            await world.until(lambda: world.board.health["app", A] == "up")

    asyncio.run(go())


def test_more_than_half_of_a_service_going_down_at_once_is_told_once():
    async def go() -> None:
        some = [f"10.0.0.{n}:80" for n in range(1, 6)]
        async with running(services(*some, health=QUICK + "\nfall = 1")) as world:
            await world.until(lambda: set(world.board.health.values()) == {"up"})
            world.says = dict.fromkeys(some, BAD)
            await world.until(lambda: set(world.board.health.values()) == {"down"})
            collapses = [data for kind, data in world.events if kind == "service.collapse"]
            assert len(collapses) == 1
            assert collapses[0]["service"] == "app"
            assert collapses[0]["of"] == 5
            assert collapses[0]["down"] >= 3

    asyncio.run(go())


def test_heartbeats_keep_an_endpoint_up_and_their_absence_takes_it_down():
    async def go() -> None:
        async with running(services(A, health='ttl = "200ms"') + services(B, name="other")) as world:
            assert world.board.health["app", A] == "down"
            assert world.prober.heartbeat("app", A, "pass", "fresh").status == "up"
            assert world.board.health["app", A] == "up"
            assert world.prober.heartbeat("app", A, "warn").status == "degraded"
            assert world.prober.heartbeat("app", A, "fail", "stopping").status == "down"
            assert world.board.health["app", A] == "down"
            world.prober.heartbeat("app", A, "pass")
            await world.until(lambda: world.board.health["app", A] == "down")
            assert world.prober.state("app", A).reason == "no heartbeat for 200 ms"
            with pytest.raises(KeyError):
                world.prober.heartbeat("app", C, "pass")
            with pytest.raises(ValueError, match="is checked by tcp and takes no heartbeats"):
                world.prober.heartbeat("other", B, "pass")

    asyncio.run(go())


def test_a_hundred_flapping_endpoints_are_damped():
    async def go() -> None:
        some = [f"10.0.{n}.1:80" for n in range(100)]
        quick = 'interval = "10ms"\nslow = "10ms"\nslow_max = "10ms"\nrise = 1\nfall = 1'
        async with running(services(*some, health=quick)) as world:
            count: dict[str, int] = {}

            def flapping(address):
                async def say():
                    count[address] = count.get(address, 0) + 1
                    return GOOD if count[address] % 2 else BAD

                return say

            world.says = {address: flapping(address) for address in some}
            await world.until(lambda: all(count.get(address, 0) >= 30 for address in some))
            states = [world.prober.state("app", address) for address in some]
            assert {state.status for state in states} == {"flapping"}
            assert set(world.board.health.values()) == {"down"}
            turns = [sum(a == address for a, _ in world.board.changes) for address in some]
            assert max(turns) <= 7

    asyncio.run(go())


def test_a_shelf_that_takes_nothing_holds_up_nothing_and_is_filled_later(monkeypatch):
    monkeypatch.setattr("turnout.control.health.remembered.RETRY_S", 0.01)

    async def go() -> None:
        shelf = Shelf()
        shelf.broken = True
        async with running(services(A), shelf) as world:
            await world.until(lambda: world.board.health["app", A] == "up")
            shelf.broken = False
            await world.until(lambda: shelf.known.get(Key("app", A)) is not None)

    asyncio.run(go())


def test_a_service_that_cannot_be_followed_holds_up_nobody_and_is_tried_again(caplog):
    async def go() -> None:
        async with running(services(A)) as world:
            make = world.make

            def unable(target):
                raise RuntimeError("no check today")

            world.make = unable
            world.put(services(A) + services(B, name="other"))
            assert "the checks of other do not follow" in caplog.text
            world.make = make
            world.put(services(A) + services(B, name="other"))
            await world.until(lambda: world.board.health["other", B] == "up")

    asyncio.run(go())


def test_who_is_gone_is_forgotten():
    async def go() -> None:
        async with running(services(A, B)) as world:
            await world.until(lambda: len(world.shelf.known) == 2)
            world.put(services(B))
            await world.until(lambda: set(world.shelf.known) == {Key("app", B)})
            world.put("")
            await world.until(lambda: not world.shelf.known)

    asyncio.run(go())
