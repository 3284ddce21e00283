"""From rows of the scoreboard to families of prometheus-client: a column of a table says how one value of a
row is called and read.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)

from turnout.proxy.buckets import LATENCY, MICROSECOND, classic

Row = TypeVar("Row")
Labels = tuple[str, ...]
Rows = Sequence[tuple[Labels, Row]]
"""Rows that have the same labels are added up."""


@dataclass(frozen=True)
class Column(Generic[Row]):
    """A number of each row; with `more` labels a mapping from their values to numbers."""

    name: str
    text: str
    value: Callable[[Row], float | Mapping[str, float] | Mapping[Labels, float]]
    more: Labels = ()
    gauge: bool = False

    def metric(self, prefix: str, labels: Labels, rows: Rows[Row]) -> Metric:
        kind = GaugeMetricFamily if self.gauge else CounterMetricFamily
        family = kind(prefix + self.name, self.text, labels=(*labels, *self.more))
        sums: defaultdict[Labels, float] = defaultdict(float)
        for key, row in rows:
            for more, number in _numbers(self.value(row)):
                sums[key + more] += number
        for key, number in sums.items():
            family.add_metric(key, number)
        return family


def _numbers(
    value: float | Mapping[str, float] | Mapping[Labels, float],
) -> Iterator[tuple[Labels, float]]:
    if not isinstance(value, Mapping):
        yield (), value
        return
    for key, number in value.items():
        yield (key,) if isinstance(key, str) else key, number


@dataclass(frozen=True)
class Histogram(Generic[Row]):
    """Counts by log-linear bucket, and the sum in microseconds, of each row. One that is `sparse` leaves out
    rows without a count: of what there are thousands of, most histograms would be lines of zeros.
    """

    name: str
    text: str
    value: Callable[[Row], tuple[Sequence[int], int]]
    bounds: Sequence[float] = LATENCY
    sparse: bool = False

    def metric(self, prefix: str, labels: Labels, rows: Rows[Row]) -> Metric:
        family = HistogramMetricFamily(prefix + self.name, self.text, labels=labels)
        for key, (counts, sum_us) in self._added_up(rows).items():
            family.add_metric(key, classic(counts, self.bounds), sum_us * MICROSECOND)
        return family

    def _added_up(self, rows: Rows[Row]) -> dict[Labels, tuple[Sequence[int], int]]:
        out: dict[Labels, tuple[Sequence[int], int]] = {}
        for key, row in rows:
            counts, sum_us = self.value(row)
            if self.sparse and not any(counts):
                continue
            if key in out:
                counts = [a + b for a, b in zip(out[key][0], counts, strict=True)]
                sum_us += out[key][1]
            out[key] = counts, sum_us
        return out


def families(
    prefix: str,
    columns: Iterable[Column[Row] | Histogram[Row]],
    labels: Labels,
    rows: Iterable[tuple[Labels, Row]],
) -> Iterator[Metric]:
    """A family for each column, named `prefix` and the column's name."""
    kept = list(rows)
    for column in columns:
        yield column.metric(prefix, labels, kept)


def one_of(states: Iterable[str], state: str) -> dict[str, float]:
    """1 for the state it is in, 0 for the others."""
    return {name: float(name == state) for name in states}
