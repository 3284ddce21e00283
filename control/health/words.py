"""What went wrong with a connection, in words."""

from __future__ import annotations

import errno
import os

from turnout.control.health.outcome import Outcome, failed

WORDS = {
    errno.ECONNREFUSED: "refused",
    errno.ENOENT: "there is no such socket",
    errno.ECONNRESET: "reset the connection",
    errno.EPIPE: "closed the connection",
    errno.ETIMEDOUT: "does not answer",
    errno.EHOSTUNREACH: "no way to its machine",
    errno.ENETUNREACH: "no way to its network",
    errno.EACCES: "may not be connected to",
    errno.EMFILE: "not checked: this process has no descriptors left",
    errno.ENFILE: "not checked: this machine has no descriptors left",
    errno.EADDRNOTAVAIL: "not checked: no local port is free",
}
CERTAIN = {errno.ECONNREFUSED, errno.ENOENT}
"""What a living endpoint does not do; such a failure counts twice."""
OURS = {errno.EMFILE, errno.ENFILE, errno.EADDRNOTAVAIL, errno.ENOMEM, errno.ENOBUFS}
"""What says something about this machine and nothing about the endpoint."""


def of_system(error: OSError) -> Outcome:
    if error.errno in OURS:
        return Outcome("unknown", WORDS.get(error.errno, f"not checked: {error.strerror}"))
    if error.errno is None:
        return failed(str(error) or type(error).__name__)
    said = WORDS.get(error.errno) or (os.strerror(error.errno).lower() if error.errno > 0 else str(error))
    return failed(said, 2 if error.errno in CERTAIN else 1)


def seconds(ms: int) -> str:
    return f"{ms / 1000:g} s" if ms >= 1000 else f"{ms} ms"
