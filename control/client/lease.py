"""A registration that is kept alive: what is decided here is the same for both clients."""

from __future__ import annotations

import logging
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from turnout.control.client import calls
from turnout.control.client.calls import Call
from turnout.control.client.errors import ClientError, NotFoundError

log = logging.getLogger("turnout.client")

TTL_S = 15.0
RETRY_S = 0.5
"""After a renewal that failed, doubled each time up to the ordinary interval."""
DRAIN_POLL_S = 0.2
LEAVING = "is about to leave"


@dataclass(frozen=True)
class Spec:
    """What is registered. `ttl`: seconds after which the endpoint is taken out when no renewal comes."""

    service: str
    address: str
    ttl: float
    settings: Mapping[str, Any]

    @property
    def body(self) -> dict[str, Any]:
        return body(self.address, self.ttl, self.settings)

    @property
    def place(self) -> tuple[str, str]:
        return self.service, self.address

    def __str__(self) -> str:
        return f"{self.service}/{self.address}"


def body(address: str, ttl: float | None, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Of a registration."""
    return {"address": address, **({} if ttl is None else {"lease_ttl": ttl}), **settings}


def settings(
    weight: int | None,
    version: str | None,
    priority: int | None,
    tags: Sequence[str],
    metadata: Mapping[str, str] | None,
) -> dict[str, Any]:
    """Without what was not said."""
    given = {"weight": weight, "version": version, "priority": priority}
    said = {"tags": list(tags) or None, "metadata": dict(metadata) if metadata else None}
    return calls.without_none(given | said)


class Keeping:
    """What to send next to keep a lease, and when. `error` is what went wrong last, None while all is
    well.
    """

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self.error: ClientError | None = None
        self._is_lost = False
        self._failures = 0

    @property
    def call(self) -> Call[Any]:
        """A renewal; once the API knows of no such lease any more, the registration again."""
        spec = self.spec
        if self._is_lost:
            return calls.register(spec.service, spec.body)
        return calls.renew(spec.service, spec.address)

    @property
    def wait(self) -> float:
        """Seconds until then: a third of the ttl, spread so that not all come at once."""
        ordinary = self.spec.ttl / 3 * random.uniform(0.9, 1.0)
        if not self._failures:
            return ordinary
        return float(min(RETRY_S * 2 ** min(self._failures - 1, 16), ordinary))

    def went_well(self) -> None:
        if self.error is not None:
            log.info("%s is registered again", self.spec)
        self.error, self._is_lost, self._failures = None, False, 0

    def failed(self, error: ClientError) -> bool:
        """Whether to go on at once, by registering."""
        if isinstance(error, NotFoundError) and not self._is_lost:
            self._is_lost = True
            self.error = error
            return True
        if not self._failures:
            log.warning("the lease of %s is not renewed: %s", self.spec, error)
        self.error = error
        self._failures += 1
        return False
