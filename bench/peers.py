"""Turnout beside nginx, HAProxy, Envoy, Caddy and Traefik: CPU per request, rate, latency and memory.

    python bench/peers.py                                    everything, about a quarter of an hour
    python bench/peers.py --modes small,16k --peers turnout,nginx,haproxy --rounds 3 --seconds 3

How it is measured and what the figures can and cannot say: bench/README.md.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from chart import draw
from load import LOAD_CPU, PROXY_CPU, Crowd, Origin, check_work, wait_for_route, wrk
from processes import BenchError, Tree, busy_ns, free_port, kill_all, kill_on_exit, wait_for_port
from proxies import PEERS, Peer, Place
from rich.console import Console
from rich.table import Table
from tls import handshakes, make_certificate

HERE = Path(__file__).parent
IDLE_CONNECTIONS = 8000
IDLE_SECONDS = 3
REFERENCE = ("nginx", "haproxy")  # the peers whose better one is the measure of every mode
say = Console(stderr=True)


@dataclass(frozen=True)
class Mode:
    name: str
    title: str
    unit: str
    size: int = 75
    connections: int = 64
    close: bool = False
    tls: bool = False
    resume: bool = False

    @property
    def handshakes(self) -> bool:
        return self.tls and self.close

    @property
    def idle(self) -> bool:
        return self.unit == "bytes/connection"


MODES = {
    m.name: m
    for m in [
        Mode("small", "64 connections, 75 bytes", "us/request"),
        Mode("single", "1 connection, 75 bytes", "us/request", connections=1),
        Mode("newconn", "new connection per request, 64 at a time", "us/request", close=True),
        Mode("16k", "64 connections, 16 kB", "us/request", size=16384),
        Mode("1m", "16 connections, 1 MB", "us/request", size=1048576, connections=16),
        Mode("idle", f"{IDLE_CONNECTIONS} idle connections", "bytes/connection"),
        Mode("tls-small", "TLS 1.3, 64 connections, 75 bytes", "us/request", tls=True),
        Mode("tls-1m", "TLS 1.3, 16 connections, 1 MB", "us/request", size=1048576, connections=16, tls=True),
        Mode(
            "tls-handshake", "full TLS 1.3 handshakes, one request each", "us/handshake", close=True, tls=True
        ),
        Mode(
            "tls-resume",
            "resumed TLS 1.3, one request each",
            "us/handshake",
            close=True,
            tls=True,
            resume=True,
        ),
        Mode("tls-idle", f"{IDLE_CONNECTIONS} idle TLS connections", "bytes/connection", tls=True),
    ]
}


@dataclass(frozen=True)
class Sample:
    """One peer in one round: `value` in the unit of the mode, or in `error` why there is none."""

    value: float | None
    rps: float = 0
    p50_us: int = 0
    p99_us: int = 0
    memory_mb: float = 0
    idle_cpu_ms_per_s: float = 0
    upstream_connections: int = 0
    others_pct: float = 0
    lost: int = 0
    error: str = ""


class Running:
    """A started peer."""

    def __init__(self, peer: Peer, origin: Origin, mode: Mode, folder: Path) -> None:
        self.folder = folder / f"{peer.name}-{mode.name}-{time.monotonic_ns()}"
        self.folder.mkdir()
        self.port = free_port()
        self.tls = mode.tls
        if mode.tls:
            make_certificate(self.folder)
        start = peer.setup(Place(self.folder, self.port, origin.port, mode.name, mode.tls))
        self.tree = Tree(start.command, cpu=PROXY_CPU, folder=self.folder, name=peer.name, env=start.env)
        try:
            wait_for_port(self.tree, self.port)
            wait_for_route(self.port, tls=mode.tls)
            check_work(self.port, origin, mode.size, tls=mode.tls)
        except BaseException:
            self.tree.kill()
            raise


def started(peer: Peer, origin: Origin, mode: Mode, folder: Path) -> Running:
    """Somebody else may take the free port in the moment before the peer does: another one, twice."""
    for _ in range(2):
        with contextlib.suppress(BenchError):
            return Running(peer, origin, mode, folder)
    return Running(peer, origin, mode, folder)


def measure_load(running: Running, origin: Origin, mode: Mode, seconds: float) -> Sample:
    def drive(seconds: float) -> Any:
        return wrk(
            running.port, f"/{mode.size}", connections=mode.connections, seconds=seconds, close=mode.close,
            folder=running.folder, tls=mode.tls,
        )  # fmt: skip

    drive(1)
    connections = origin.counts()[0]
    cpu, busy, since = running.tree.cpu_ns(), busy_ns(PROXY_CPU), time.monotonic_ns()
    seen = drive(seconds)
    cpu = running.tree.cpu_ns() - cpu
    others = max(0, busy_ns(PROXY_CPU) - busy - cpu) / (time.monotonic_ns() - since)
    connections = origin.counts()[0] - connections - 1
    memory = running.tree.resident_bytes() / 1e6
    if seen.errors or not seen.requests or not running.tree.alive():
        return Sample(None, error=f"{seen.errors} errors in {seen.requests} requests")
    if connections > seen.requests // 100 + 2 * mode.connections:
        return Sample(None, error=f"{connections} connections to the origin for {seen.requests} requests")
    return Sample(
        cpu / 1000 / seen.requests, seen.requests / seen.seconds, seen.p50, seen.p99, memory,
        upstream_connections=connections,
        others_pct=100 * others,
    )  # fmt: skip


def measure_handshakes(running: Running, mode: Mode, seconds: float) -> Sample:
    handshakes(running.port, 0.5, resume=mode.resume, cpu=LOAD_CPU)
    cpu = running.tree.cpu_ns()
    start = time.monotonic()
    count, wrong = handshakes(running.port, seconds, resume=mode.resume, cpu=LOAD_CPU)
    cpu = running.tree.cpu_ns() - cpu
    if wrong or not count:
        return Sample(None, error=f"{wrong} of {count} handshakes were not as asked for")
    memory = running.tree.resident_bytes() / 1e6
    return Sample(cpu / 1000 / count, count / (time.monotonic() - start), memory_mb=memory)


def measure_idle(running: Running) -> Sample:
    """What connections that have each made one request add to memory, and their CPU while nothing happens."""
    wrk(running.port, "/75", connections=16, seconds=1, folder=running.folder, tls=running.tls)
    time.sleep(0.5)
    before = running.tree.private_bytes()
    crowd = Crowd(running.port, IDLE_CONNECTIONS, tls=running.tls)
    try:
        time.sleep(0.5)
        added = running.tree.private_bytes() - before
        cpu = running.tree.cpu_ns()
        time.sleep(IDLE_SECONDS)
        cpu = running.tree.cpu_ns() - cpu
        left = crowd.still_open()
    finally:
        crowd.close()
    if left < IDLE_CONNECTIONS:
        return Sample(None, error=f"only {left} of {IDLE_CONNECTIONS} connections stayed open")
    return Sample(
        added / IDLE_CONNECTIONS, memory_mb=(before + added) / 1e6, idle_cpu_ms_per_s=cpu / 1e6 / IDLE_SECONDS
    )


def measure(running: Running, origin: Origin, mode: Mode, seconds: float) -> Sample:
    if mode.idle:
        return measure_idle(running)
    if mode.handshakes:
        return measure_handshakes(running, mode, seconds)
    return measure_load(running, origin, mode, seconds)


def run_mode(
    mode: Mode, peers: list[Peer], origin: Origin, folder: Path, rounds: int, seconds: float
) -> dict[str, list[Sample]]:
    """Rounds of A B C A B C ..., each sample with a freshly started proxy."""
    samples: dict[str, list[Sample]] = {p.name: [] for p in peers}
    for turn in range(rounds):
        for peer in peers:
            try:
                running = started(peer, origin, mode, folder)
                try:
                    sample = measure(running, origin, mode, seconds)
                finally:
                    running.tree.kill()
            except (BenchError, OSError) as e:
                sample = Sample(None, error=str(e))
            samples[peer.name].append(sample)
            shown = sample.error if sample.value is None else f"{sample.value:.1f} {mode.unit}"
            say.print(
                f"  {mode.name} {turn + 1}/{rounds} {peer.name}: {shown}", highlight=False, markup=False
            )
    return samples


def valid(samples: list[Sample]) -> list[float]:
    return [s.value for s in samples if s.value is not None]


def ratios(samples: dict[str, list[Sample]], name: str, others: list[str]) -> list[float]:
    """In each round: this peer over the best of the others, where all of them are valid."""
    out = []
    for i, own in enumerate(samples[name]):
        beside = [samples[o][i].value for o in others if o in samples]
        known = [v for v in beside if v is not None and v > 0]
        if own.value is not None and beside and len(known) == len(beside):
            out.append(own.value / min(known))
    return out


def middle(values: list[float]) -> float | None:
    return statistics.median(values) if values else None


def summarise(samples: dict[str, list[Sample]]) -> dict[str, dict[str, Any]]:
    """One row a peer: medians, spread and ratios. A peer with an invalid round is invalid."""
    rows = {}
    for name, own in samples.items():
        values = valid(own)
        errors = [s.error for s in own if s.value is None]
        others = [n for n in samples if n != name]
        rows[name] = {
            "value": middle(values) if not errors else None,
            "low": min(values, default=None),
            "high": max(values, default=None),
            "to_reference": middle(ratios(samples, name, list(REFERENCE))),
            "to_best_other": middle(ratios(samples, name, others)),
            "rps": middle([s.rps for s in own if s.value is not None]),
            "p50_us": middle([s.p50_us for s in own if s.value is not None]),
            "p99_us": middle([s.p99_us for s in own if s.value is not None]),
            "memory_mb": middle([s.memory_mb for s in own if s.value is not None]),
            "others_pct": middle([s.others_pct for s in own if s.value is not None]),
            "idle_cpu_ms_per_s": middle([s.idle_cpu_ms_per_s for s in own if s.value is not None]),
            "lost": sum(s.lost for s in own),
            "errors": errors,
            "samples": [asdict(s) for s in own],
        }
    return rows


def number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def show(mode: Mode, rows: dict[str, dict[str, Any]], console: Console) -> None:
    idle = mode.idle
    table = Table(title=f"{mode.name}: {mode.title}", title_justify="left")
    table.add_column("peer")
    for heading in (mode.unit, "low..high", "ratio to best of nginx, HAProxy", "ratio to best other"):
        table.add_column(heading, justify="right")
    for heading in ["CPU ms/s idle"] if idle else ["requests/s", "p50 us", "p99 us", "others %"]:
        table.add_column(heading, justify="right")
    table.add_column("memory MB", justify="right")
    for name, row in rows.items():
        if row["value"] is None:
            table.add_row(
                name, "invalid", " ".join(row["errors"][0].split())[:60], *[""] * (4 if idle else 7)
            )
            continue
        cells = [f"{row['value']:.1f}", f"{row['low']:.1f}..{row['high']:.1f}"]
        cells += [number(row["to_reference"], ".2f"), number(row["to_best_other"], ".2f")]
        if idle:
            cells.append(f"{row['idle_cpu_ms_per_s']:.2f}")
        else:
            cells += [f"{row['rps']:.0f}", f"{row['p50_us']:.0f}", f"{row['p99_us']:.0f}"]
            cells.append(f"{row['others_pct']:.0f}")
        table.add_row(name, *cells, f"{row['memory_mb']:.1f}")
    console.print(table)


def machine() -> dict[str, Any]:
    model = [
        x.split(":")[1].strip() for x in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in x
    ]
    return {
        "kernel": platform.release(),
        "cpu": model[0] if model else platform.machine(),
        "cpus": os.cpu_count(),
        "python": platform.python_version(),
        "load_average": os.getloadavg(),
    }


def chosen(text: str, known: dict[str, Any], what: str) -> list[Any]:
    names = list(known) if text == "all" else text.split(",")
    for name in names:
        if name not in known:
            raise SystemExit(f"no {what} is called {name!r}; there are {', '.join(known)}")
    return [known[name] for name in names]


def installed(peers: list[Peer]) -> Iterator[Peer]:
    for peer in peers:
        if peer.find() is None:
            say.print(f"skipped: {peer.name} ({peer.binary} is not installed)")
        else:
            yield peer


def opening(rounds: int, seconds: float, peers: list[Peer]) -> dict[str, Any]:
    """What a file of results begins with; `modes` is filled by whoever measures."""
    return {
        "when": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "rounds": rounds,
        "seconds": seconds,
        "peers": {p.name: {"version": p.version_text(), "tuned": p.tuned} for p in peers},
        "modes": {},
    }


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--modes", default="all", help=f"of {','.join(MODES)}")
    parser.add_argument("--peers", default="all", help=f"of {','.join(p.name for p in PEERS)}")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--seconds", type=float, default=2, help="of load in a round, after one second to warm up"
    )
    parser.add_argument("--json", type=Path, default=HERE / "results" / "latest.json")
    parser.add_argument("--svg", type=Path, default=HERE / "results" / "latest.svg")
    return parser.parse_args()


def main() -> int:
    args = arguments()
    modes: list[Mode] = chosen(args.modes, MODES, "mode")
    peers = list(installed(chosen(args.peers, {p.name: p for p in PEERS}, "peer")))
    kill_on_exit()
    result = opening(args.rounds, args.seconds, peers)
    console = Console(width=None if sys.stdout.isatty() else 140)
    try:
        with tempfile.TemporaryDirectory(prefix="turnout-bench-") as folder:
            origin = Origin(Path(folder))
            for mode in modes:
                able = [peer for peer in peers if peer.tls or not mode.tls]
                samples = run_mode(mode, able, origin, Path(folder), args.rounds, args.seconds)
                rows = summarise(samples)
                result["modes"][mode.name] = {"title": mode.title, "unit": mode.unit, "peers": rows}
                show(mode, rows, console)
    finally:
        kill_all()
    console.print("versions: " + ", ".join(f"{n} {p['version']}" for n, p in result["peers"].items()))
    for path, text in ((args.json, json.dumps(result, indent=1)), (args.svg, draw(result))):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
        console.print(f"wrote {path}")
    return 1 if any(r["errors"] for m in result["modes"].values() for r in m["peers"].values()) else 0


if __name__ == "__main__":
    sys.exit(main())
