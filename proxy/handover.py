"""What a supervisor leaves to the one that is to replace it: descriptors by number, listed in a memfd whose
own number stands in the environment; and the answer that comes back through a pipe.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import MutableMapping
from dataclasses import asdict, dataclass, field
from typing import Any

from turnout.proxy.errors import StartError
from turnout.proxy.sockets import Listening, Offers

VARIABLE = "TURNOUT_HANDOVER"
NOT_FOR_HEIRS = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "WATCHDOG_PID")


@dataclass(frozen=True)
class Handover:
    """`sockets` and `control`: (key, fd, shared). `ready` is the pipe for the answer. `runtime` is what was
    set at run time and is in no file.
    """

    sockets: list[tuple[str, int, bool]]
    control: list[tuple[str, int, bool]]
    lock: int
    ready: int
    runtime: dict[str, Any] = field(default_factory=dict)

    def descriptors(self) -> list[int]:
        return [fd for _, fd, _ in (*self.sockets, *self.control)] + [self.lock, self.ready]

    def environment(self, memfd: int) -> dict[str, str]:
        """Write it to `memfd`; the environment of the heir."""
        os.write(memfd, json.dumps(asdict(self)).encode())
        inherited = {key: value for key, value in os.environ.items() if key not in NOT_FOR_HEIRS}
        return inherited | {VARIABLE: str(memfd)}

    def offers(self) -> Offers:
        out: Offers = {}
        for key, fd, shared in self.sockets:
            out.setdefault(key, []).append(listening(key, fd, shared))
        return out

    def control_sockets(self) -> list[Listening]:
        return [listening(*row) for row in self.control]

    def answer(self, **fields: Any) -> None:
        """Tell the former supervisor: `unused` keys when ready, or an `error`."""
        try:
            os.write(self.ready, json.dumps(fields).encode())
        except OSError:
            pass  # it is gone, and needs no answer
        finally:
            os.close(self.ready)


def listening(key: str, fd: int, shared: bool) -> Listening:
    sock = socket.socket(fileno=fd)
    sock.setblocking(False)
    return Listening(key, sock, shared)


def take(environ: MutableMapping[str, str] = os.environ) -> Handover | None:
    """What was left to this process, if anything. Takes the variable out, so that no child believes it."""
    number = environ.pop(VARIABLE, None)
    if number is None:
        return None
    try:
        memfd = int(number)
        raw = json.loads(os.pread(memfd, os.fstat(memfd).st_size, 0))
        os.close(memfd)
        sockets, control = ([tuple(row) for row in raw[key]] for key in ("sockets", "control"))
        out = Handover(sockets, control, raw["lock"], raw["ready"], raw["runtime"])
        for fd in out.descriptors():
            os.set_inheritable(fd, False)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StartError(
            [f"{VARIABLE}={number} is not what a supervisor leaves ({error}); unset it"]
        ) from None
    return out


async def read_answer(pipe: int, timeout: float) -> dict[str, Any]:
    """What the heir says, `pipe` is closed; empty when it ends without a word."""
    loop = asyncio.get_running_loop()
    said: asyncio.Future[bytes] = loop.create_future()

    def readable() -> None:
        loop.remove_reader(pipe)
        said.set_result(os.read(pipe, 1 << 20))

    loop.add_reader(pipe, readable)
    try:
        raw = await asyncio.wait_for(said, timeout)
        answer = json.loads(raw or b"{}")
    except TimeoutError:
        return {"error": f"the new program was not ready within {timeout:.0f} s"}
    except ValueError:
        return {"error": "the new program said what makes no sense"}
    finally:
        loop.remove_reader(pipe)
        os.close(pipe)
    return answer if isinstance(answer, dict) else {}
