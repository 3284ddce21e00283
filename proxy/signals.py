"""Signals that a worker has a say about. Its supervisor starts it with them blocked, so that none of them
ends a worker that has no handlers yet.
"""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator

FOR_WORKERS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


@contextlib.contextmanager
def blocked() -> Iterator[None]:
    """Children started inside inherit the mask; signals to this process come right after."""
    former = signal.pthread_sigmask(signal.SIG_BLOCK, FOR_WORKERS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, former)


def unblock() -> None:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, FOR_WORKERS)
