"""What /metrics says of a scoreboard."""

import pytest
from fakes.supervisor import TEXT, StandIn
from prometheus_client.parser import text_string_to_metric_families

from turnout.ext.scoreboard import _hist_bucket
from turnout.proxy.buckets import COARSE, EDGES, LATENCY, OVERHEAD, classic, quantile
from turnout.proxy.families import Histogram
from turnout.proxy.metrics import Metrics, exposition


@pytest.fixture
def supervisor():
    stand_in = StandIn()
    yield stand_in
    stand_in.close()


def scrape(source) -> dict[tuple[str, frozenset], float]:
    """Every series, by name and labels. Fails when one stands there twice."""
    out: dict[tuple[str, frozenset], float] = {}
    for family in text_string_to_metric_families(exposition(Metrics(source))[0].decode()):
        for sample in family.samples:
            key = (sample.name, frozenset(sample.labels.items()))
            assert key not in out
            out[key] = sample.value
    return out


def value(source, name: str, **labels: str) -> float:
    return scrape(source)[name, frozenset(labels.items())]


def test_an_endpoint_is_shown_as_operators_left_it(supervisor):
    supervisor.set_admin("app", "10.0.0.1:80", "drain")
    supervisor.set_weight("app", "10.0.0.1:80", 9)
    labels = {"service": "app", "version": "v1", "endpoint": "10.0.0.1:80"}

    assert value(supervisor, "turnout_endpoint_weight", **labels) == 9
    assert value(supervisor, "turnout_endpoint_admin_state", state="drain", **labels) == 1
    assert value(supervisor, "turnout_endpoint_admin_state", state="ready", **labels) == 0


def test_shares_are_ratios_and_only_of_services_with_a_split(supervisor):
    series = scrape(supervisor)
    shares = {dict(labels)["version"]: v for (name, labels), v in series.items() if "share_ratio" in name}

    assert shares == {"v1": 0.75, "v2": 0.25}


def test_only_workers_that_live_are_shown(supervisor):
    workers = {
        dict(labels)["worker"] for name, labels in scrape(supervisor) if "turnout_worker_state" in name
    }

    assert workers == {"0"}


def test_what_has_left_the_configuration_has_left_the_metrics(supervisor):
    supervisor.freeze(TEXT.replace('"unix:/run/app.sock",', ""))

    assert not [labels for _, labels in scrape(supervisor) if "unix:/run/app.sock" in dict(labels).values()]


def test_an_endpoint_without_traffic_has_counters_but_no_histograms(supervisor):
    names = {name for name, labels in scrape(supervisor) if "endpoint" in dict(labels)}

    assert "turnout_endpoint_connects_total" in names
    assert not [name for name in names if "duration_seconds" in name]


def test_a_sparse_histogram_shows_the_rows_that_have_a_count():
    row = [0] * len(EDGES)
    row[_hist_bucket(1000)] = 1
    histogram = Histogram("duration_seconds", "Time.", lambda counts: (counts, 1000), COARSE, sparse=True)
    family = histogram.metric("x_", ("endpoint",), [(("idle",), [0] * len(EDGES)), (("busy",), row)])

    assert {sample.labels["endpoint"] for sample in family.samples} == {"busy"}
    assert {sample.labels["le"]: sample.value for sample in family.samples if "le" in sample.labels}[
        "+Inf"
    ] == 1


def test_routes_that_cannot_be_told_apart_are_one_series(supervisor):
    supervisor.freeze(TEXT + '[[routes]]\npath = "/"\nmethods = ["POST"]\nservice = "app"\n')
    routes = {
        dict(labels)["route"]
        for name, labels in scrape(supervisor)
        if name == "turnout_route_sent_bytes_total"
    }

    assert routes == {"*/", "robots"}


def test_names_follow_the_conventions_of_prometheus(supervisor):
    for family in text_string_to_metric_families(exposition(Metrics(supervisor))[0].decode()):
        assert family.name.startswith("turnout_")
        assert family.documentation.endswith(".")
        if family.type == "counter":
            assert {sample.name for sample in family.samples} <= {f"{family.name}_total"}
        if family.type == "histogram":
            assert family.name.endswith("_seconds")


@pytest.mark.parametrize("bounds", [LATENCY, COARSE, OVERHEAD])
def test_classic_buckets_count_exactly_what_lies_below_their_bound(bounds):
    times = [
        0,
        1,
        3,
        4,
        7,
        8,
        127,
        128,
        129,
        255,
        256,
        1000,
        1023,
        1024,
        70_000,
        10**6,
        2**26 - 1,
        2**26,
        2**40,
    ]
    counts = [0] * len(EDGES)
    for us in times:
        counts[_hist_bucket(us)] += 1

    rows = dict(classic(counts, bounds))
    assert rows.pop("+Inf") == len(times)
    assert {float(le) * 1e6: n for le, n in rows.items()} == pytest.approx(
        {bound: sum(us < bound for us in times) for bound in bounds}
    )


def test_a_quantile_lies_in_the_bucket_of_its_time():
    counts = [0] * len(EDGES)
    for us in (100, 200, 300, 400, 10_000):
        counts[_hist_bucket(us)] += 1

    assert quantile(counts, 0.5) == pytest.approx(300, rel=0.13)
    assert quantile(counts, 0.99) == pytest.approx(10_000, rel=0.13)
    assert quantile([0] * len(EDGES), 0.5) is None


def test_a_quantile_of_times_beyond_the_last_bucket_is_its_bound():
    counts = [0] * len(EDGES)
    counts[-1] = 3

    assert quantile(counts, 0.5) == EDGES[-2]
