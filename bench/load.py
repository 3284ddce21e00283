"""What drives a proxy and what stands behind it: the origin, wrk, and a crowd of idle connections."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import shutil
import socket
import ssl
import subprocess
import time
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPSConnection
from pathlib import Path

from processes import BenchError, Tree, wait_for_port
from tls import context

PROXY_CPU, LOAD_CPU = 0, 1
REPORT = """
done = function(summary, latency, requests)
  local e = summary.errors
  io.write(string.format(
    'JSON {"requests": %d, "us": %d, "p50": %d, "p99": %d, ' ..
    '"connect": %d, "read": %d, "write": %d, "status": %d, "timeout": %d}\\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
    e.connect, e.read, e.write, e.status, e.timeout))
end
"""


class Origin:
    """Compiled from origin.c into the folder and started."""

    def __init__(self, folder: Path) -> None:
        binary = folder / "origin"
        compiler = shutil.which(os.environ.get("CC", "cc")) or "gcc"
        subprocess.run([compiler, "-O2", "-o", binary, Path(__file__).parent / "origin.c"], check=True)
        self.tree = Tree([str(binary)], cpu=LOAD_CPU, folder=folder, name="origin")
        until = time.monotonic() + 5
        while not self.tree.output.read_text().strip():
            if time.monotonic() > until or not self.tree.alive():
                raise BenchError("the origin did not start")
            time.sleep(0.01)
        self.port = int(self.tree.output.read_text())
        wait_for_port(self.tree, self.port)

    def counts(self) -> tuple[int, int]:
        """Connections accepted and requests answered so far."""
        with contextlib.closing(HTTPConnection("127.0.0.1", self.port, timeout=5)) as c:
            c.request("GET", "/stats")
            connections, requests = c.getresponse().read().split()
            return int(connections), int(requests)


@dataclass(frozen=True)
class Load:
    """What wrk saw. Latencies in microseconds."""

    requests: int
    seconds: float
    p50: int
    p99: int
    errors: int


def http(port: int, *, tls: bool = False) -> HTTPConnection:
    if tls:
        return HTTPSConnection("127.0.0.1", port, timeout=10, context=context())
    return HTTPConnection("127.0.0.1", port, timeout=10)


def wrk(
    port: int,
    path: str,
    *,
    connections: int,
    seconds: float,
    folder: Path,
    close: bool = False,
    tls: bool = False,
) -> Load:
    """Drive for about this long (wrk counts in whole seconds)."""
    script = folder / "report.lua"
    script.write_text(REPORT)
    command = [
        "taskset",
        "-c",
        str(LOAD_CPU),
        "wrk",
        "-t1",
        f"-c{connections}",
        f"-d{max(1, round(seconds))}s",
    ]
    command += ["--timeout", "10s", "-s", str(script)]
    if close:
        command += ["-H", "Connection: close"]
    done = subprocess.run(
        [*command, f"http{'s' if tls else ''}://127.0.0.1:{port}{path}"],
        capture_output=True,
        text=True,
        check=False,
        timeout=seconds + 60,
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("JSON ")]
    if done.returncode or not lines:
        raise BenchError(f"wrk: {done.stdout[-500:]}{done.stderr[-500:]}")
    seen = json.loads(lines[0][5:])
    errors = sum(seen[k] for k in ("connect", "read", "write", "status", "timeout"))
    return Load(seen["requests"], seen["us"] / 1e6, seen["p50"], seen["p99"], errors)


def wait_for_route(port: int, seconds: float = 10, *, tls: bool = False) -> None:
    """Some listen before they know where to send a request."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        with contextlib.closing(http(port, tls=tls)) as c:
            c.request("GET", "/75")
            answer = c.getresponse()
            answer.read()
            if answer.status == 200:
                return
        time.sleep(0.05)
    raise BenchError(f"still status {answer.status} after {seconds:.0f} s")


def check_work(port: int, origin: Origin, size: int, *, tls: bool = False) -> None:
    """The proxy really proxies: status, body length, X-Forwarded-For, and a kept connection to the origin."""
    with contextlib.closing(http(port, tls=tls)) as c:
        c.request("GET", f"/{size}")
        answer = c.getresponse()
        body = answer.read()
        if answer.status != 200 or len(body) != size:
            raise BenchError(f"asked for {size} bytes, got status {answer.status} and {len(body)} bytes")
        c.request("GET", "/head", headers={"User-Agent": "check"})
        head = c.getresponse().read().decode("latin-1").lower()
        if "x-forwarded-for: " not in head:  # Envoy puts the machine's own address for a loopback peer
            raise BenchError(f"no X-Forwarded-For in what the origin got:\n{head}")
        before = origin.counts()[0]
        for _ in range(20):
            c.request("GET", "/75")
            c.getresponse().read()
        if origin.counts()[0] - before > 1 + 1:  # one is the question itself
            raise BenchError("connections to the origin are not reused")


class Crowd:
    """Keep-alive connections that have each made one request and now say nothing."""

    def __init__(self, port: int, count: int, *, tls: bool = False) -> None:
        self.tls = context() if tls else None
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft < count + 200:
            resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, count + 200), hard))
        self.sockets: list[socket.socket] = []
        try:
            for _ in range(count):
                self._add(port)
        except BaseException:
            self.close()
            raise

    def _add(self, port: int) -> None:
        s = socket.create_connection(("127.0.0.1", port), timeout=10)
        if self.tls is not None:
            s = self.tls.wrap_socket(s)
        self.sockets.append(s)
        s.sendall(b"GET /75 HTTP/1.1\r\nHost: bench\r\n\r\n")
        got = b""
        while not got.endswith(b"x" * 75):
            part = s.recv(4096)
            if not part:
                raise BenchError("connection closed while the crowd gathered")
            got += part
        if not got.startswith(b"HTTP/1.1 200"):
            raise BenchError(f"the crowd got {got[:40]!r}")

    def still_open(self) -> int:
        count = 0
        for s in self.sockets:
            s.setblocking(False)
            try:
                if isinstance(s, ssl.SSLSocket):
                    s.recv(1)
                else:
                    s.recv(1, socket.MSG_PEEK)
            except (BlockingIOError, ssl.SSLWantReadError):
                count += 1
            except OSError:
                pass
        return count

    def close(self) -> None:
        for s in self.sockets:
            s.close()
