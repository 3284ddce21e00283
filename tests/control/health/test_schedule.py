import asyncio
import random

from turnout.control.health.schedule import AT_A_TIME, PER_MACHINE, Scheduler


class Job:
    """Takes as many turns of the loop as told, and counts who runs beside it."""

    now: dict[str, int]

    def __init__(self, world: "World", machine: str = "m", *, turns: int = 1, again: float = 0.0) -> None:
        self.world, self.machine, self.turns, self.again = world, machine, turns, again
        self.runs = 0
        self.runs_now = 0

    async def run(self) -> float:
        world = self.world
        self.runs_now += 1
        assert self.runs_now == 1
        world.running[self.machine] = world.running.get(self.machine, 0) + 1
        world.most = max(world.most, sum(world.running.values()))
        world.most_at[self.machine] = max(world.most_at.get(self.machine, 0), world.running[self.machine])
        try:
            for _ in range(self.turns):
                await asyncio.sleep(0)
        finally:
            world.running[self.machine] -= 1
            self.runs_now -= 1
        self.runs += 1
        world.total += 1
        if world.total >= world.enough:
            world.done.set()
        return self.again


class World:
    def __init__(self, enough: int) -> None:
        self.enough, self.total, self.most = enough, 0, 0
        self.running: dict[str, int] = {}
        self.most_at: dict[str, int] = {}
        self.done = asyncio.Event()


def test_no_more_than_a_few_run_at_a_time_and_everyone_gets_a_turn():
    async def go() -> None:
        world, scheduler = World(3000), Scheduler()
        jobs = [Job(world, f"m{n % 40}", turns=random.randint(1, 9)) for n in range(400)]
        for job in jobs:
            scheduler.add(job, 0.0)
        await world.done.wait()
        await scheduler.close()

        assert world.most == AT_A_TIME
        assert max(world.most_at.values()) <= PER_MACHINE
        assert min(job.runs for job in jobs) >= 3
        assert scheduler.running == 0

    asyncio.run(go())


def test_one_machine_does_not_hold_up_the_others():
    async def go() -> None:
        world, scheduler = World(200), Scheduler()
        stuck = [Job(world, "stuck", turns=1 << 30) for _ in range(60)]
        for job in stuck:
            scheduler.add(job, 0.0)
        for _ in range(20):
            scheduler.add(Job(world, "fine"), 0.0)
        await world.done.wait()

        assert world.most_at["stuck"] == PER_MACHINE
        await scheduler.close()

    asyncio.run(go())


def test_a_machine_with_many_endpoints_gets_more():
    async def go() -> None:
        world, scheduler = World(2000), Scheduler()
        for _ in range(480):
            scheduler.add(Job(world, turns=5), 0.0)
        await world.done.wait()
        await scheduler.close()

        assert world.most == 480 // 16

    asyncio.run(go())


def test_what_is_removed_runs_no_more_wherever_it_was():
    async def go() -> None:
        world, scheduler = World(50), Scheduler()
        gone = [Job(world, "gone", turns=3) for _ in range(30)]
        for job in gone:
            scheduler.add(job, 0.0)
        while not any(job.runs for job in gone):
            await asyncio.sleep(0)
        before = [job.runs for job in gone]
        for job in gone:
            scheduler.remove(job)
        for _ in range(5):
            scheduler.add(Job(world, "other"), 0.0)
        await world.done.wait()

        assert [job.runs for job in gone] == before
        assert world.running["gone"] == 0
        assert len(scheduler) == 5
        await scheduler.close()

    asyncio.run(go())


def test_what_was_removed_before_its_first_step_leaves_its_place():
    async def go() -> None:
        world, scheduler = World(10), Scheduler(at_a_time=1)
        for _ in range(20):
            job = Job(world, "m")
            scheduler.add(job, 0.0)
            while not scheduler.running:
                await asyncio.sleep(0)
            scheduler.remove(job)
        scheduler.add(Job(world, "m"), 0.0)
        await world.done.wait()
        await scheduler.close()

    asyncio.run(go())
