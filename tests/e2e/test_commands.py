"""The commands as users type them, against a proxy that runs."""

import asyncio
import contextlib
import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from harness.client import Connection, get
from harness.origin import Origin
from harness.turnout import config, free_port, scenario, turnout
from prometheus_client.parser import text_string_to_metric_families

TURNOUT = (sys.executable, "-m", "turnout")
N = 60


async def command(*words: object, api: str = "") -> tuple[int, str, str]:
    """Exit code, stdout, stderr of `turnout WORDS`."""
    child = await asyncio.create_subprocess_exec(
        *TURNOUT,
        *map(str, words),
        *(["--api", api] if api else []),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(child.communicate(), 30)
    return child.returncode or 0, out.decode(), err.decode()


@contextlib.asynccontextmanager
async def running(folder: Path, more: str = "", **options):
    """An origin, the proxy in front of it, the port of its listener and the address of its API."""
    port, control = free_port(), free_port()
    async with (
        Origin() as origin,
        turnout(folder, config(port, origin.address, control=control, more=more, **options)) as proxy,
    ):
        yield proxy, port, f"http://127.0.0.1:{control}"


async def load(port: int, requests: int, connections: int = 6) -> None:
    """So many requests, all answered with 200."""

    async def some() -> None:
        connection = await Connection.open(port)
        for _ in range(requests // connections):
            assert (await connection.get("/hello")).status == 200
        connection.close()

    await asyncio.gather(*(some() for _ in range(connections)))


async def status(api: str) -> dict:
    code, out, err = await command("status", "--json", api=api)
    assert code == 0, err
    return json.loads(out)


async def metrics(api: str) -> dict[str, list[tuple[dict, float]]]:
    """Series by name."""
    answer = await get(int(api.rpartition(":")[2]), "/metrics")
    out: dict[str, list[tuple[dict, float]]] = {}
    for family in text_string_to_metric_families(answer.body.decode()):
        for sample in family.samples:
            out.setdefault(sample.name, []).append((sample.labels, sample.value))
    return out


def total(series: list[tuple[dict, float]], **labels: str) -> float:
    return sum(value for has, value in series if labels.items() <= has.items())


@scenario
async def test_status_and_metrics_add_up_to_the_load_over_all_workers(tmp_path):
    async with running(tmp_path) as (_, port, api):
        await load(port, N)
        await until_counted(api)
        now = await status(api)
        series = await metrics(api)

    (service,) = now["services"]
    (endpoint,) = service["endpoints"]
    assert now["listeners"][0]["requests"] == service["requests"] == endpoint["requests"] == N
    assert service["errors"] == endpoint["errors"] == service["in_flight"] == 0
    assert service["requests_per_s"] > 0
    assert 0 < service["p50_ms"] <= service["p99_ms"]
    assert [worker["state"] for worker in now["workers"]] == ["serving", "serving"]

    for name in ("turnout_listener_requests_total", "turnout_route_requests_total"):
        assert total(series[name]) == total(series[name], status="2xx", cause="none") == N
    assert total(series["turnout_endpoint_attempts_total"], outcome="2xx") == N
    assert (
        total(series["turnout_endpoint_connects_total"]) + total(series["turnout_endpoint_reuses_total"]) == N
    )
    for name in (
        "turnout_listener_request",
        "turnout_route_request",
        "turnout_endpoint_first_byte",
        "turnout_endpoint_response",
    ):
        assert total(series[f"{name}_duration_seconds_count"]) == N
        assert total(series[f"{name}_duration_seconds_bucket"], le="+Inf") == N
        assert total(series[f"{name}_duration_seconds_sum"]) > 0
    connects = total(series["turnout_endpoint_connects_total"])
    assert total(series["turnout_endpoint_connect_duration_seconds_count"]) == connects
    assert total(series["turnout_endpoint_in_flight_requests"]) == 0


async def until_counted(api: str) -> None:
    """A request is counted just after its answer is out."""

    async def counted() -> bool:
        return total((await metrics(api))["turnout_listener_requests_total"]) >= N

    for _ in range(200):
        if await counted():
            return
        await asyncio.sleep(0.01)


@scenario
async def test_a_drained_endpoint_gets_nothing_new_and_a_split_moves_sessions(tmp_path):
    async with Origin() as one, Origin() as two:
        port, control = free_port(), free_port()
        both = f'"{one.address}", {{ address = "{two.address}", version = "v2" }}'
        text = config(port, one.address, control=control).replace(f'"{one.address}"', both)
        text = text.replace("[[routes]]", "[services.app.split]\nv1 = 1\nv2 = 1\n[[routes]]")
        api = f"http://127.0.0.1:{control}"
        async with turnout(tmp_path, text):
            assert await command("split", "app", "v1=0", "v2=100", api=api) == (0, "v1=0% v2=100%\n", "")
            await load(port, N)
            moved = one.requests, two.requests
            assert (await command("split", "app", "v1=100", api=api))[0] == 0
            assert (await command("drain", f"app/{two.address}", api=api))[0] == 0
            await load(port, N)
            row = (await status(api))["services"][0]["endpoints"][1]

        assert moved == (0, N)
        assert (one.requests, two.requests) == (N, N)
        assert row["admin"] == "drain"


@scenario
async def test_reload_puts_a_good_file_in_force_and_refuses_a_bad_one(tmp_path):
    async with running(tmp_path) as (proxy, port, api):
        text = proxy.file.read_text()
        proxy.file.write_text(text.replace('service = "app"', 'service = "ap"'))
        refused = await command("reload", api=api)
        proxy.file.write_text(text + '[[routes]]\npath = "/new"\nrespond = { status = 201 }\n')
        done = await command("reload", api=api)
        answer = await get(port, "/new")

    assert refused[0] == 2
    assert 'no service is named "ap"; did you mean "app"?' in refused[2]
    assert done == (0, "configuration 2 is in force\n", "")
    assert answer.status == 201


@scenario
async def test_stop_returns_when_the_proxy_is_gone(tmp_path):
    async with running(tmp_path) as (proxy, _, api):
        assert await command("stop", api=api) == (0, "stopped\n", "")
        assert await proxy.exit_code() == 0
        code, _, err = await command("status", api=api)

    assert code == 4
    assert err == f"turnout: nobody answers at {api}: Connection refused\n"


@scenario
async def test_stop_now_cuts_off_what_is_under_way(tmp_path):
    async with running(tmp_path, grace="60s") as (proxy, port, api):
        slow = asyncio.create_task(get(port, "/slow/30000"))
        while not (await status(api))["services"][0]["in_flight"]:
            pass
        assert (await command("stop", "--now", api=api))[0] == 0
        code = await proxy.exit_code()
        with pytest.raises((ConnectionError, EOFError)):
            await slow

    assert code == 3


@scenario
async def test_upgrade_leaves_the_new_program_in_charge(tmp_path):
    async with running(tmp_path) as (proxy, port, api):
        code, out, err = await command("upgrade", api=api)
        assert code == 0, err
        await proxy.exit_code()
        now = await status(api)
        answer = await get(port)

    assert out == f"the new program has taken over, pid {now['pid']}\n"
    assert answer.status == 200


@scenario
async def test_ready_turns_with_the_workers(tmp_path):
    async with running(tmp_path) as (_, _, api):
        control = int(api.rpartition(":")[2])
        assert (await get(control, "/readyz")).status == (await get(control, "/healthz")).status == 200


@scenario
async def test_status_is_shown_again_and_again_until_interrupted(tmp_path):
    async with running(tmp_path) as (_, _, api):
        child = await asyncio.create_subprocess_exec(
            *TURNOUT, "status", "--watch", "--json", "--interval", "0.1", "--api", api, stdout=subprocess.PIPE
        )
        assert child.stdout
        seen = [json.loads(await asyncio.wait_for(child.stdout.readline(), 20)) for _ in range(3)]
        child.send_signal(signal.SIGINT)
        await asyncio.wait_for(child.communicate(), 20)  # it may wait for somebody to read

    assert child.returncode == 0
    assert seen[0]["uptime_s"] < seen[2]["uptime_s"]


@scenario
async def test_every_record_of_the_access_log_has_the_documented_fields(tmp_path):
    doc = (Path(__file__).parents[2] / "docs" / "access-log.md").read_text()
    rows = dict(re.findall(r"^\| `(\w+)` \| [^|]+ \| ([^|]+) \| ", doc, re.MULTILINE))
    more = '[proxy.access_log]\npath = "access.log"\n'
    async with running(tmp_path, more) as (proxy, port, _):
        await get(port, "/hello?a=b")
        proxy.file.write_text(proxy.file.read_text().replace("[[routes]]", '[[routes]]\npath = "/only"'))
        await proxy.reload()
        await get(port, "/nothing")
        await proxy.stop()
        records = [json.loads(line) for line in (tmp_path / "access.log").read_text().splitlines()]

    good, lost = sorted(records, key=lambda record: record["path"])  # by workers that write when they please
    elsewhere = {name for name, there in rows.items() if there == "over TLS"} | {"reason", "server_name"}
    assert set(good) == set(rows) - elsewhere
    assert (good["query"], good["status"], good["cause"], good["tries"]) == ("a=b", 200, "none", 1)
    of_any = {"always", "with a head", "with a head, and for TCP and UDP", "not for TCP and UDP"}
    assert set(lost) == {name for name, there in rows.items() if there in of_any} | {"reason"}
    assert (lost["status"], lost["cause"]) == (404, "proxy")
