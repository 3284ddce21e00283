"""Turnout beside nginx (stream) and HAProxy: CPU and memory of TCP sessions and WebSockets, CPU of datagrams.

    python bench/streams.py                                      everything, about three minutes
    python bench/streams.py --modes tcp-bulk --rounds 5 --seconds 3

Measured like peers.py, from which it has its tables; bench/README.md says how.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from load import LOAD_CPU, PROXY_CPU
from peers import Mode, Sample, chosen, installed, opening, show, summarise
from processes import BenchError, Tree, free_port, kill_all, kill_on_exit, wait_for_port
from proxies import PEERS, Peer, Place, Start, program
from rich.console import Console

HERE = Path(__file__).parent
IDLE = 3000
UNIT = {"bulk": 1 << 20, "udp": 0.5, "udp-burst": 0.5}  # a megabyte; what comes back are two datagrams
LOST_SHARE = 1000  # one datagram lost in so many is nothing that a figure could be made of
say = Console(stderr=True)


@dataclass(frozen=True)
class StreamMode(Mode):
    talk: str = "echo"  # as streams.c calls it

    @property
    def datagrams(self) -> bool:
        return self.talk.startswith("udp")


MODES = {
    m.name: m
    for m in [
        StreamMode("tcp-echo", "TCP, 64 connections, 64 bytes there and back", "us/message"),
        StreamMode("tcp-one", "TCP, 1 connection, 64 bytes there and back", "us/message", connections=1),
        StreamMode(
            "tcp-bulk", "TCP, 16 connections, as fast as it goes", "us/MB", connections=16, talk="bulk"
        ),
        StreamMode("ws-echo", "WebSocket, 64 connections, 64 bytes there and back", "us/message", talk="ws"),
        StreamMode("udp", "UDP, 64 sessions, 64 bytes there and back", "us/datagram", talk="udp"),
        StreamMode(
            "udp-burst", "UDP, 64 sessions, 16 times 64 bytes at once", "us/datagram", talk="udp-burst"
        ),
        StreamMode("tcp-idle", f"{IDLE} idle TCP sessions", "bytes/session"),
        StreamMode("ws-idle", f"{IDLE} idle WebSocket sessions", "bytes/session", talk="ws"),
    ]
}


# ---- peers -----------------------------------------------------------------------------------------------


def turnout(at: Place) -> Start:
    protocol = "http" if at.mode.startswith("ws") else at.mode[:3]
    file = at.folder / "turnout.toml"
    file.write_text(f"""
[proxy]
workers = 1
state = "{at.folder}/state"

[control]
listen = "127.0.0.1:{free_port()}"
socket = "off"

[listeners.in]
bind = "127.0.0.1:{at.port}"
protocol = "{protocol}"

[services.origin]
endpoints = ["127.0.0.1:{at.origin}"]

[[routes]]
listener = "in"
service = "origin"
""")
    return Start([sys.executable, "-m", "turnout", "run", str(file)])


def nginx(at: Place) -> Start:
    web = f"""
http {{
    access_log off;
    tcp_nodelay on;
    client_body_temp_path {at.folder}/body; proxy_temp_path {at.folder}/proxy;
    fastcgi_temp_path {at.folder}/fastcgi; uwsgi_temp_path {at.folder}/uwsgi; scgi_temp_path {at.folder}/scgi;
    server {{
        listen 127.0.0.1:{at.port} backlog=4096;
        location / {{
            proxy_pass http://127.0.0.1:{at.origin};
            proxy_http_version 1.1;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection upgrade;
            proxy_read_timeout 3600s;
        }}
    }}
}}"""
    module = "/usr/lib/nginx/modules/ngx_stream_module.so"
    stream = f"""
stream {{
    server {{
        listen 127.0.0.1:{at.port} {"udp rcvbuf=4m" if at.mode.startswith("udp") else "backlog=4096"};
        tcp_nodelay on;
        proxy_timeout 3600s;
        {"proxy_buffer_size 256k;" if at.mode == "tcp-bulk" else ""}
        proxy_pass 127.0.0.1:{at.origin};
    }}
}}"""
    file = at.folder / "nginx.conf"
    file.write_text(f"""
{f"load_module {module};" if Path(module).exists() else ""}
worker_processes 1;
daemon off;
pid {at.folder}/nginx.pid;
error_log {at.folder}/nginx.err crit;
worker_rlimit_nofile 20000;
events {{ worker_connections 18000; multi_accept on; }}
{web if at.mode.startswith("ws") else stream}
""")
    return Start(
        [str(program("nginx")), "-p", str(at.folder), "-e", str(at.folder / "nginx.err"), "-c", str(file)]
    )


def haproxy(at: Place) -> Start:
    web = at.mode.startswith("ws")
    file = at.folder / "haproxy.cfg"
    file.write_text(f"""
global
    nbthread 1
    maxconn {200 if at.mode == "tcp-bulk" else 9000}
    {"tune.bufsize 65536" if at.mode == "tcp-bulk" else ""}
    {"tune.pipesize 1048576" if at.mode == "tcp-bulk" else ""}
defaults
    mode {"http" if web else "tcp"}
    timeout connect 5s
    timeout client 3600s
    timeout server 3600s
    timeout tunnel 3600s
    {"option splice-response" if at.mode == "tcp-bulk" else ""}
    {"option http-no-delay" if web else ""}
listen in
    bind 127.0.0.1:{at.port} backlog 4096
    server origin 127.0.0.1:{at.origin}
""")
    return Start([str(program("haproxy")), "-db", "-f", str(file)])


SETUPS: dict[str, Callable[[Place], Start]] = {"turnout": turnout, "nginx": nginx, "haproxy": haproxy}
TUNED = {
    "turnout": "defaults",
    "nginx": "multi_accept; tcp-bulk: proxy_buffer_size 256k; udp: rcvbuf 4m, as Turnout has",
    "haproxy": "tcp-bulk: splice-response, tune.bufsize 65536, tune.pipesize 1 MB",
}
STREAM_PEERS = [
    replace(peer, setup=SETUPS[peer.name], tuned=TUNED[peer.name]) for peer in PEERS if peer.name in SETUPS
]


# ---- measuring -------------------------------------------------------------------------------------------


class Far:
    """The far end, compiled into the folder and started; `binary` drives too."""

    def __init__(self, folder: Path) -> None:
        self.binary = folder / "streams"
        compiler = shutil.which(os.environ.get("CC", "cc")) or "gcc"
        subprocess.run([compiler, "-O2", "-o", self.binary, HERE / "streams.c"], check=True)
        self.tree = Tree([str(self.binary), "serve"], cpu=LOAD_CPU, folder=folder, name="far")
        until = time.monotonic() + 5
        while not self.tree.output.read_text().strip():
            if time.monotonic() > until:
                raise BenchError("the far end did not start")
            time.sleep(0.01)
        self.port = int(self.tree.output.read_text())


def wait_for_answer(tree: Tree, port: int, seconds: float = 20) -> None:
    """Until a datagram to the port comes back."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if not tree.alive():
            raise BenchError(f"{tree.name} ended at start:\n{tree.tail()}")
        with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.settimeout(0.05)
            sock.connect(("127.0.0.1", port))
            sock.send(b"hello")
            if sock.recv(64) == b"hello":
                return
        time.sleep(0.05)
    raise BenchError(f"{tree.name} passes no datagrams on after {seconds:.0f} s:\n{tree.tail()}")


def start(peer: Peer, far: Far, mode: StreamMode, folder: Path) -> tuple[Tree, int]:
    place = folder / f"{peer.name}-{mode.name}-{time.monotonic_ns()}"
    place.mkdir()
    port = free_port()
    run = peer.setup(Place(place, port, far.port, mode.name))
    tree = Tree(run.command, cpu=PROXY_CPU, folder=place, name=peer.name, env=run.env)
    try:
        if mode.datagrams:
            wait_for_answer(tree, port)
        else:
            wait_for_port(tree, port)
    except BaseException:
        tree.kill()
        raise
    return tree, port


def measure(tree: Tree, port: int, far: Far, mode: StreamMode, seconds: float) -> Sample:
    command = [str(far.binary), "drive", str(port), mode.talk, str(mode.connections), str(seconds)]
    with subprocess.Popen(
        ["taskset", "-c", str(LOAD_CPU), *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as run:
        assert run.stdout is not None
        assert run.stderr is not None
        if run.stdout.readline() != "start\n":
            raise BenchError(run.stderr.read())
        cpu = tree.cpu_ns()
        line = run.stdout.readline()
        cpu = tree.cpu_ns() - cpu
    if run.returncode or not line:
        raise BenchError(f"the driver failed: {run.returncode}")
    seen = json.loads(line)
    if seen["lost"] * LOST_SHARE > seen["done"]:
        raise BenchError(f"{seen['lost']} datagrams lost beside {seen['done']} that came back")
    units = seen["done"] / UNIT.get(mode.talk, 1)
    return Sample(
        cpu / 1000 / units, units * 1e6 / seen["us"], seen["p50"], seen["p99"], tree.resident_bytes() / 1e6,
        lost=seen["lost"],
    )  # fmt: skip


def session(port: int, talk: str) -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", port), 10)
    if talk == "ws":
        fields = ("Host: bench", "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13")
        sock.sendall(
            "\r\n".join(
                ["GET /chat HTTP/1.1", *fields, "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "", ""]
            ).encode()
        )
    else:
        sock.sendall(b"hello")
    said = sock.recv(4096)
    if not said.startswith(b"HTTP/1.1 101 " if talk == "ws" else b"hello"):
        raise BenchError(f"a session began with {said!r}")
    return sock


def measure_idle(tree: Tree, port: int, mode: StreamMode) -> Sample:
    """What sessions that have each said one thing add to memory."""
    sockets = [session(port, mode.talk) for _ in range(100)]
    try:
        time.sleep(0.3)
        before = tree.private_bytes()
        sockets += [session(port, mode.talk) for _ in range(IDLE)]
        time.sleep(1)
        added = tree.private_bytes() - before
        cpu = tree.cpu_ns()
        time.sleep(1)
        cpu = tree.cpu_ns() - cpu
    finally:
        for sock in sockets:
            sock.close()
    return Sample(added / IDLE, memory_mb=(before + added) / 1e6, idle_cpu_ms_per_s=cpu / 1e6)


def run_mode(
    mode: StreamMode, peers: list[Peer], far: Far, folder: Path, rounds: int, seconds: float
) -> dict[str, list[Sample]]:
    samples: dict[str, list[Sample]] = {peer.name: [] for peer in peers}
    for turn in range(rounds):
        for peer in peers:
            try:
                tree, port = start(peer, far, mode, folder)
                try:
                    idle = mode.name.endswith("idle")
                    sample = (
                        measure_idle(tree, port, mode) if idle else measure(tree, port, far, mode, seconds)
                    )
                finally:
                    tree.kill()
            except (BenchError, OSError) as error:
                sample = Sample(None, error=str(error))
            samples[peer.name].append(sample)
            shown = sample.error if sample.value is None else f"{sample.value:.2f} {mode.unit}"
            say.print(
                f"  {mode.name} {turn + 1}/{rounds} {peer.name}: {shown}", highlight=False, markup=False
            )
    return samples


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--modes", default="all", help=f"of {','.join(MODES)}")
    parser.add_argument("--peers", default="all", help=f"of {','.join(SETUPS)}")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2)
    parser.add_argument("--json", type=Path, default=HERE / "results" / "streams.json")
    return parser.parse_args()


def main() -> int:
    args = arguments()
    modes: list[StreamMode] = chosen(args.modes, MODES, "mode")
    peers = list(installed(chosen(args.peers, {p.name: p for p in STREAM_PEERS}, "peer")))
    kill_on_exit()
    result = opening(args.rounds, args.seconds, peers)
    console = Console(width=None if sys.stdout.isatty() else 140)
    try:
        with tempfile.TemporaryDirectory(prefix="turnout-bench-") as name:
            far = Far(Path(name))
            for mode in modes:
                able = [peer for peer in peers if peer.name != "haproxy" or not mode.datagrams]
                rows = summarise(run_mode(mode, able, far, Path(name), args.rounds, args.seconds))
                result["modes"][mode.name] = {"title": mode.title, "unit": mode.unit, "peers": rows}
                show(mode, rows, console)
    finally:
        kill_all()
    args.json.parent.mkdir(parents=True, exist_ok=True)
    args.json.write_text(json.dumps(result, indent=1) + "\n")
    console.print(f"wrote {args.json}")
    return 1 if any(r["errors"] for m in result["modes"].values() for r in m["peers"].values()) else 0


if __name__ == "__main__":
    sys.exit(main())
