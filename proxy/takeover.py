"""After a supervisor was killed: its workers are found, hand over their listening sockets, and go on until
the new ones serve.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
from pathlib import Path

from turnout.proxy import runfile
from turnout.proxy.crew import Crew
from turnout.proxy.process import WorkerProcess
from turnout.proxy.sockets import Offers, close_all

log = logging.getLogger("turnout.supervisor")

ANSWER_S = 5.0
"""For a worker to notice that its supervisor is gone, and to hand over."""


async def take_over(crew: Crew, directory: Path) -> tuple[list[WorkerProcess], Offers]:
    """The workers that still run, and their listening sockets. One that does not answer is killed: it holds
    addresses that nobody else can have.
    """
    run = runfile.read(directory)
    adopted = []
    for process, heirs in run.workers if run else ():
        if process.alive():
            found = _adopt(crew, directory, process, heirs)
            if found is not None:
                adopted.append(found)
    await crew.until(lambda: all(one.offers_whole or one not in crew.leaving for one in adopted), ANSWER_S)
    for silent in [one for one in adopted if one in crew.leaving and not one.offers_whole]:
        log.error("killing a worker that does not hand over", extra={"fields": {"worker_pid": silent.pid}})
        silent.kill()
    await crew.until(lambda: all(one.offers_whole or one not in crew.leaving for one in adopted))
    _sweep(directory, {one.heirs for one in adopted if one in crew.leaving})
    offers: Offers = {}
    for item in [item for one in adopted if one.offers_whole for item in one.offered]:
        offers.setdefault(item.key, []).append(item)
    return [one for one in adopted if one in crew.leaving], _without_copies(crew, offers)


def merged(passed: Offers, offers: Offers) -> Offers:
    """What the service manager passes and workers of a killed supervisor have too is the manager's."""
    for key, items in passed.items():
        for item in offers.get(key, []):
            item.shared = True
        if key not in offers:
            offers[key] = items
        else:
            close_all(items)
    return offers


def _adopt(crew: Crew, directory: Path, process: runfile.Process, heirs: str) -> WorkerProcess | None:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        folder = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            sock.setblocking(False)
            sock.connect(f"/proc/self/fd/{folder}/{heirs}")
        finally:
            os.close(folder)
        return crew.adopt(process.pid, sock, heirs)
    except OSError as error:
        sock.close()
        log.warning(
            "killing a worker that cannot be reached",
            extra={"fields": {"worker_pid": process.pid, "why": error.strerror}},
        )
        _kill(process)
        return None


def _kill(process: runfile.Process) -> None:
    try:
        fd = os.pidfd_open(process.pid)
    except OSError:
        return
    try:
        if process.alive():  # and with the pidfd open it stays the one that was meant
            signal.pidfd_send_signal(fd, signal.SIGKILL)
    finally:
        os.close(fd)


def _without_copies(crew: Crew, offers: Offers) -> Offers:
    """Workers that share a socket each offer it: one copy is kept, known to them all."""
    out: Offers = {}
    for key, items in offers.items():
        for item in items:
            twin = next((other for other in out.get(key, []) if _same(other.sock, item.sock)), None)
            if twin is None:
                out.setdefault(key, []).append(item)
                continue
            for process in crew.leaving:
                if item.id in process.known:
                    process.known[twin.id] = process.known.pop(item.id)
            item.sock.close()
    return out


def _same(one: socket.socket, other: socket.socket) -> bool:
    return os.fstat(one.fileno()).st_ino == os.fstat(other.fileno()).st_ino


def _sweep(directory: Path, in_use: set[str]) -> None:
    """Sockets of workers that are gone with their supervisor."""
    for path in directory.glob("worker-*.sock"):
        if path.name not in in_use:
            path.unlink(missing_ok=True)
