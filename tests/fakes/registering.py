"""A proxy that registers, changes and deregisters endpoints as fast as it can: `registering.py LOG FILE`.

LOG gets a line before and after each change, written through to the kernel: "try ADDRESS STATE" and
"ok ADDRESS STATE", where STATE is a weight or "gone"; and first "start", then "is ADDRESS STATE" for all
that is in force when it serves, then "serving".
"""

from __future__ import annotations

import asyncio
import itertools
import os
import sys
from pathlib import Path

from turnout.control.plane import Plane
from turnout.control.serve import Beside, serve
from turnout.proxy.config import load
from turnout.proxy.supervisor import Supervisor

SERVICE = "app"
WRITERS = 4


class Registering:
    def __init__(self, log: Path) -> None:
        self.fd = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def say(self, *words: object) -> None:
        os.write(self.fd, (" ".join(map(str, words)) + "\n").encode())

    async def beside(self, supervisor: Supervisor) -> None:
        self.say("start")
        while not supervisor.ready():
            await asyncio.sleep(0.01)
        plane = supervisor.control
        assert isinstance(plane, Plane)
        for endpoint in supervisor.config.services[SERVICE].endpoints:
            self.say("is", endpoint.address, endpoint.weight)
        self.say("serving")
        await asyncio.gather(*(self.write(plane, number) for number in range(WRITERS)))

    async def write(self, plane: Plane, number: int) -> None:
        registry = plane.registry
        for round_ in itertools.count(plane.store.revision * 10):
            address = f"10.{number}.0.{round_ % 7}:80"
            weight = round_ % 1000 + 1
            self.say("try", address, weight)
            await registry.register(SERVICE, {"address": address, "weight": weight}, by="test")
            self.say("ok", address, weight)
            self.say("try", address, weight + 1)
            await registry.set_weight(SERVICE, address, weight + 1, by="test")
            self.say("ok", address, weight + 1)
            if round_ % 3 == 0:
                self.say("try", address, "gone")
                await registry.deregister(SERVICE, address, by="test")
                self.say("ok", address, "gone")


if __name__ == "__main__":
    file = Path(sys.argv[2])
    beside: Beside = Registering(Path(sys.argv[1])).beside
    sys.exit(serve(file, load(file), beside))
