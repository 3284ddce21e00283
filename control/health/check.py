"""What every kind of check is, and how one is run."""

from __future__ import annotations

import asyncio
import logging
import ssl
import time
from dataclasses import dataclass
from typing import Protocol

from turnout.control.health import tls, words
from turnout.control.health.outcome import Outcome, Result, failed
from turnout.control.health.target import Target

log = logging.getLogger("turnout.health")


class Check(Protocol):
    """Of one target. `probe` is never called while it is under way and may raise OSError; `close` ends what
    is kept between two probes.
    """

    target: Target

    async def probe(self) -> Outcome: ...
    def late(self, limit: str) -> Outcome:
        """What it means that there was no outcome within `limit`."""

    def close(self) -> None: ...


@dataclass
class Base:
    """What most checks have in common."""

    target: Target

    def late(self, limit: str) -> Outcome:
        return failed(f"no answer within {limit}")

    def close(self) -> None:
        """Nothing is kept."""


async def run(check: Check) -> Result:
    """Never raises, but for being cancelled."""
    limit = check.target.health.timeout_ms
    began = time.monotonic()
    outcome = await _outcome(check, limit)
    return Result(outcome, (time.monotonic() - began) * 1000, time.time())


async def _outcome(check: Check, limit: int) -> Outcome:
    try:
        async with asyncio.timeout(limit / 1000):
            return await _explained(check)
    except TimeoutError:
        return check.late(words.seconds(limit))
    except tls.UnusableError as error:
        return failed(str(error))
    except OSError as error:
        return words.of_system(error)
    except Exception as error:
        log.exception("the check of %s of %s broke", check.target.key.address, check.target.key.service)
        return Outcome("unknown", f"the check broke: {error!r}")


async def _explained(check: Check) -> Outcome:
    try:
        return await check.probe()
    except ssl.SSLError as error:
        return await tls.explain(error, check.target)
