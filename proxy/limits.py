"""Descriptors: as many as the system allows, and a word when those are too few."""

from __future__ import annotations

import resource

from turnout.proxy.model import Config

SPARE = 64
"""For everything that is neither a connection nor a listening socket."""
FEW = 4096
"""Below this many, a proxy without configured limits is warned about."""


def raise_limit() -> int:
    """Raise the soft limit of open files to the hard one; returns it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def needed_to_start(config: Config, workers: int) -> int:
    """Descriptors without which the supervisor cannot even open its sockets."""
    return len(config.listeners) * workers + 4 * workers + SPARE


def needed_by_worker(config: Config) -> int:
    """For all connections that the listeners allow: a client's and an upstream's each. 0 when a listener has
    no limit.
    """
    limits = [listener.limits.connections for listener in config.listeners.values()]
    return 0 if 0 in limits else 2 * sum(limits) + len(limits) + SPARE


def complaints(config: Config, workers: int, limit: int) -> tuple[list[str], list[str]]:
    """What makes a start impossible, and what is worth a warning, at this many descriptors a process."""
    least = needed_to_start(config, workers)
    if limit < least:
        return [
            f"too few descriptors: {limit} are allowed, {least} are needed to start (workers: {workers},"
            f" listeners: {len(config.listeners)}); raise the hard limit (ulimit -Hn, LimitNOFILE= in a unit)"
        ], []
    wanted = needed_by_worker(config)
    if wanted > limit:
        return [], [
            f"too few descriptors for the connections that the listeners allow: a worker may have {limit},"
            f" {wanted} would be needed; connections wait in the accept queue when they run out"
        ]
    if not wanted and limit < FEW:
        return [], [
            f"a worker may have {limit} descriptors, two for each request under way; connections wait in the"
            f" accept queue when they run out; raise the hard limit (ulimit -Hn, LimitNOFILE= in a unit)"
        ]
    return [], []
