"""What /metrics says of checks: the prober's memory, taken down when the scrape begins."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from turnout.control.health.outcome import VERDICTS
from turnout.control.health.state import Status, status_of
from turnout.control.health.watched import Watched
from turnout.proxy.families import Column, Labels, families, one_of
from turnout.proxy.metrics import ENDPOINT_LABELS

STATES: tuple[Status, ...] = ("up", "degraded", "down", "flapping", "assumed", "unknown")


@dataclass(frozen=True)
class Row:
    status: Status
    counted: dict[str, int]
    ewma_ms: float | None


ENDPOINT: tuple[Column[Row], ...] = (
    Column("health", "What its checks say.", lambda row: one_of(STATES, row.status), ("state",), gauge=True),
    Column(
        "checks",
        "Checks of it, by what they found.",
        lambda row: {str(verdict): row.counted.get(verdict, 0) for verdict in VERDICTS},
        ("result",),
    ),
    Column(
        "check_duration_seconds",
        "Mean time of checks that passed, newer ones counting more.",
        lambda row: (row.ewma_ms or 0.0) / 1000,
        gauge=True,
    ),
)


class HealthMetrics(Collector):
    """Made in the prober's loop; `collect` may run in a thread."""

    def __init__(self, watched: Iterable[Watched]) -> None:
        self._rows: list[tuple[Labels, Row]] = [(labels_of(one), row_of(one)) for one in watched]

    def collect(self) -> Iterator[Metric]:
        yield from families("turnout_endpoint_", ENDPOINT, ENDPOINT_LABELS, self._rows)


def labels_of(watched: Watched) -> Labels:
    target = watched.target
    return (target.key.service, target.version, target.key.address)


def row_of(watched: Watched) -> Row:
    memory = watched.memory
    return Row(status_of(watched.judge, memory.last), dict(memory.counted), memory.ewma_ms)
