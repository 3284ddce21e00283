"""The engine under load and abuse: memory, counters, and that nothing is lost or left behind."""

import contextlib
import random
import resource
import socket
import threading
import time
from pathlib import Path

import pytest
from fakes.client import Client
from fakes.documents import breaker, retry
from fakes.engine_process import Proxy, eventually
from fakes.origin import Blackhole, Origin, answering
from fakes.wire import chunks, request, response

MB = 1 << 20
GB = 1 << 30


def together(*calls) -> None:
    """Run calls in threads; the first failure fails the test."""
    failures: list[BaseException] = []

    def run(call) -> None:
        try:
            call()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=(call,)) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


# ---- memory -----------------------------------------------------------------------------------------


def peak(proxy: Proxy) -> int:
    """Most resident bytes since `forget_peak`."""
    status = Path(f"/proc/{proxy.workers[0].process.pid}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


def forget_peak(proxy: Proxy) -> int:
    """Start measuring anew; resident bytes now."""
    Path(f"/proc/{proxy.workers[0].process.pid}/clear_refs").write_text("5")
    return proxy.memory()


def pour(wire, file, n: int) -> None:
    """Send n bytes, the file's over and over, without having them in this process."""
    size = file.seek(0, 2)
    while n:
        n -= wire.sock.sendfile(file, 0, min(n, size))


def drink(wire, n: int) -> None:
    """Take n bytes; the kernel drops them unseen."""
    n -= len(wire.held)
    wire.held = b""
    room = bytearray(4 * MB)
    while n > 0:
        got = wire.sock.recv_into(room, min(n, len(room)), socket.MSG_TRUNC)
        assert got > 0
        n -= got


@pytest.mark.memory
def test_a_gibibyte_each_way_leaves_memory_as_it_was(proxy, origin, tmp_path):
    proxy.serve(origin)
    client = proxy.client()
    with (tmp_path / "zeros").open("wb+") as file:
        file.truncate(16 * MB)
        client.send(request("/", f"Content-Length: {GB}", method="POST"))
        upstream = origin.accept()
        upstream.request_head()
        before = forget_peak(proxy)
        together(lambda: pour(client, file, GB), lambda: drink(upstream, GB))
        upstream.send(response(200, f"Content-Length: {GB}", body=None))
        assert client.answer_head().status == 200
        together(lambda: pour(upstream, file, GB), lambda: drink(client, GB))

    assert peak(proxy) - before < 4 * MB
    assert client.silent()


@pytest.mark.memory
def test_many_slow_readers_cost_a_bounded_amount_of_memory():
    """Each holds at most one buffer, and all together no more large ones than the engine is given."""
    body = bytes(4 * MB)
    with Proxy(large_bytes=8 * MB) as proxy, Origin(answering(body)) as origin:
        proxy.serve(origin)
        before = forget_peak(proxy)
        clients = [proxy.client(receive_buffer=4096) for _ in range(100)]
        for client in clients:
            client.send(request())
        assert eventually(lambda: proxy.counts("clients_active") == 100)
        # Until each of them stands still: nothing more is read from the origin.
        assert eventually(lambda: standing_still(proxy))

        assert peak(proxy) - before < 8 * MB + 100 * 48 * 1024
        proxy.rest()


def standing_still(proxy: Proxy) -> bool:
    turns = proxy.board.worker(0)["turns"]
    time.sleep(0.25)
    return proxy.board.worker(0)["turns"] - turns < 8


def descriptors(n: int):
    """Allow this process that many; skips where the system does not."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < n:
        pytest.skip(f"the hard limit of {hard} descriptors is below {n}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, n), hard))
    return soft, hard


def test_ten_thousand_idle_connections_cost_little_and_still_work(record_property):
    n = 10_000
    limits = descriptors(n + 1000)
    row = {"action": "respond", "status": 200, "body": "x", "log_per_million": 0}
    clients: list[Client] = []
    try:
        with Proxy(nofile=n + 1000, backlog=4096) as proxy:
            proxy.serve_many({}, [row])
            warm = proxy.client()
            warm.ask("/")
            before = private(proxy)
            for number in range(n):
                client = Client(proxy.port, source=f"127.0.0.{2 + number % 8}")
                clients.append(client)
                client.send(request())
                client.held = client.sock.recv(4096)
            assert proxy.counts("clients") == n + 1
            each = (private(proxy) - before) / n
            record_property("bytes_per_idle_connection", each)
            print(f"{each:.0f} bytes of process memory per idle connection")

            assert each < 200
            for client in clients[:: n // 50]:
                client.held = b""
                assert client.ask("/").body == b"x"
            for client in clients:
                client.close()
            proxy.rest()
    finally:
        for client in clients:
            client.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def private(proxy: Proxy) -> int:
    """Bytes of memory that belong to the worker alone."""
    text = Path(f"/proc/{proxy.workers[0].process.pid}/smaps_rollup").read_text()
    return sum(int(line.split()[1]) for line in text.splitlines() if line.startswith("Private_")) * 1024


# ---- counters ---------------------------------------------------------------------------------------


def test_the_counters_say_what_the_clients_did():
    with (
        Proxy(workers=2) as proxy,
        Origin(answering("12345")) as good,
        Origin(answering("no", status=404)) as bad,
    ):
        served = proxy.serve_many(
            {"good": ([good], {}), "bad": ([bad], {})}, [{}, {"path": "/bad", "service": "bad"}]
        )

        def work() -> None:
            for _ in range(5):
                with Client(proxy.port) as client:
                    for _ in range(10):
                        assert client.ask("/", method="POST", body=b"abc").status == 200
                        assert client.ask("/bad").status == 404
                    client.send(b"broken\r\n\r\n")
                    assert client.answer().status == 400

        together(*[work] * 4)
        proxy.rest()
        listener, route = proxy.listener(), served.route(0)

        assert (listener["requests"][2]["none"], listener["requests"][4]["none"]) == (200, 200)
        assert listener["requests"][4]["client"] == 20
        assert sum(sum(by_cause.values()) for by_cause in listener["requests"]) == 420
        assert sum(listener["total_us"]) == 420
        assert listener["open"] == 0
        assert (route["requests"][2]["none"], served.route(1)["requests"][4]["none"]) == (200, 200)
        assert route["bytes_in"] == 200 * len(request("/", method="POST", body=b"abc"))
        assert route["bytes_out"] == 200 * len(b"HTTP/1.1 200 Reason\r\nContent-Length: 5\r\n\r\n12345")
        for name, outcome in (("good", "2xx"), ("bad", "4xx")):
            endpoint = served.endpoint(0, name)
            assert endpoint["outcomes"][outcome] == sum(endpoint["outcomes"].values()) == 200
            assert endpoint["connects"] + endpoint["reused"] == 200
            assert sum(endpoint["first_us"]) == sum(endpoint["total_us"]) == 200
            assert (endpoint["inflight"], endpoint["open"]) == (0, endpoint["idle"])
        assert served.endpoint(0, "good")["bytes_down"] == 200 * 5
        assert proxy.counts("accepted") == 20


# ---- endpoints that come and go ---------------------------------------------------------------------


def test_an_endpoint_that_closes_idle_connections_at_random_costs_no_request(proxy):
    chance = random.Random(7)

    def handle(conn) -> None:
        while True:
            conn.sock.settimeout(chance.random() * 0.004)
            try:
                conn.fill()
            except TimeoutError:
                return
            conn.sock.settimeout(10)
            conn.request()
            conn.send(response(200, body=b"ok"))

    with Origin(handle) as a, Origin(handle) as b:
        served = proxy.serve(a, b)

        def work() -> None:
            pauses = random.Random(threading.get_ident())
            with Client(proxy.port) as client:
                for _ in range(250):
                    assert client.ask("/").body == b"ok"
                    if pauses.random() < 0.5:
                        time.sleep(pauses.random() * 0.004)

        together(*[work] * 6)

        assert proxy.listener()["requests"][2]["none"] == 1500
        connects = sum(served.endpoint(n)["connects"] for n in range(2))
        assert connects > 50
        assert served.breaker(0)["failures"] == served.breaker(1)["failures"] == 0


# ---- stopping ---------------------------------------------------------------------------------------


def undecided(conn) -> None:
    """Answers "/idle", begins to answer "/stream", and leaves everything else as it is."""
    while True:
        target = conn.request_head().target
        if target == "/idle":
            conn.send(response(200, body=b"x"))
            continue
        if target == "/stream":
            conn.send(response(200, "Content-Length: 100000000", body=None) + b"x" * MB)
        conn.rest()


def in_every_state(proxy: Proxy, origin: Origin, hole: Blackhole) -> int:
    """Clients in every state that a connection can be in; how many of them have a request."""
    one = {"connections": 1, "queue": 10, "queue_ms": 60000}
    proxy.serve_many(
        {"app": ([origin], {}), "hole": ([hole], {}), "one": ([hole], one)},
        [
            {},
            {"path": "/hole", "service": "hole"},
            {"path": "/one", "service": "one"},
            {"path": "/large", "action": "respond", "status": 200, "body": "x" * (8 * MB)},
        ],
    )
    proxy.client()
    proxy.client().send(b"GET / HT")
    proxy.client().ask("/idle")
    proxy.client().send(b"rubbish\r\n\r\n")  # answered, and waited for to close
    busy = [
        request("/hole"),
        request("/hole", method="POST", body=b"x" * 1000),
        request("/one"),
        request("/one"),
        request("/one", "Content-Length: 10", method="POST") + b"half",
        request("/large"),
        request("/waiting"),
        request("/sending", "Content-Length: 10000000", method="POST") + b"x" * 100_000,
        request("/trailers", "Transfer-Encoding: chunked", method="POST") + b"5\r\nabcde\r\n0\r\nX: 1\r\n",
        request("/1") + request("/2") + request("/3"),
        request("/stream"),
        request("/stream", "Content-Length: 10", method="POST") + b"half",
    ]
    for sent in busy:
        proxy.client(receive_buffer=4096).send(sent)
    assert eventually(lambda: proxy.counts("clients_active") == len(busy))
    return len(busy)


def test_everything_can_be_cut_in_whatever_state_it_is(proxy):
    with Blackhole() as hole, Origin(undecided) as origin:
        n = in_every_state(proxy, origin, hole)
        clients = list(proxy.opened)

        assert proxy.workers[0].ask("abort") == n
        assert all(client.is_cut() for client in clients)
        assert proxy.counts("clients") == 0
        by_cause = [sum(row[cause] for row in proxy.listener()["requests"]) for cause in ("proxy", "client")]
        assert by_cause == [n, 1]


def test_an_engine_that_is_closed_gives_everything_back_in_whatever_state_it_is():
    """What it did not give back would be an error of its process."""
    with Blackhole() as hole, Origin(undecided) as origin, Proxy() as proxy:
        in_every_state(proxy, origin, hole)
        clients = list(proxy.opened)
        proxy.workers[0].close()

        assert all(client.is_cut() for client in clients)
        proxy.workers.clear()


def test_a_draining_engine_ends_what_it_has():
    with Origin() as origin, Proxy() as own:
        own.serve(origin)
        busy, idle = own.client(), own.client()
        busy.send(request("/1"))
        upstream = origin.accept()
        upstream.request()
        own.workers[0].ask("drain")
        upstream.send(response(200, body=b"whole"))
        answer = busy.answer()

        assert (answer.body, answer.get("connection")) == (b"whole", "close")
        assert busy.at_end()
        assert idle.at_end()
        assert upstream.ended()
        own.rest()


# ---- everything at once -----------------------------------------------------------------------------


class Chaos:
    """Clients and origins that do all they can at random, from one seed."""

    def __init__(self, seed: int, port: int) -> None:
        self.random = random.Random(seed)
        self.port = port

    def dice(self) -> random.Random:
        return random.Random(self.random.getrandbits(64))

    # An origin's connection.

    def serve(self, conn) -> None:
        dice = self.dice()
        while True:
            if dice.random() < 0.1:
                return
            conn.request_head() if dice.random() < 0.1 else conn.request()
            if self.misbehave(conn, dice):
                return
            for _ in range(dice.choice([0, 0, 0, 1, 3])):
                conn.send(b"HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n")
            n = dice.choice([0, 1, 100, 5000, 40_000, 900_000])
            if dice.random() < 0.5:
                conn.send(response(dice.choice([200, 404, 500, 503]), body=b"x" * n))
            elif dice.random() < 0.7:
                part = b"y" * (n // 3 + 1)
                framed = chunks(part, part, part, trailers=b"X: 1\r\n")
                conn.send(response(200, "Transfer-Encoding: chunked", body=None) + framed)
            else:
                conn.send(response(200, body=None) + b"z" * n)
                return

    def misbehave(self, conn, dice: random.Random) -> bool:
        kind = dice.randrange(20)
        if kind == 0:
            conn.reset()
        elif kind == 1:
            conn.silent(0.3)
        elif kind == 2:
            conn.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" + b"x" * dice.randrange(50_000))
        elif kind == 3:
            conn.send(b"rubbish\r\n\r\n")
        elif kind == 4:
            conn.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcdeXX")
        elif kind == 5:
            conn.send(response(200, body=b"x") + b"more")
        return kind <= 5

    # A client.

    def call(self) -> None:
        dice = self.dice()
        for _ in range(60):
            with contextlib.suppress(Exception):  # what it gets back is not the point
                self.connection(dice)

    def connection(self, dice: random.Random) -> None:
        small = dice.random() < 0.2
        with Client(self.port, receive_buffer=4096 if small else None) as client:
            client.sock.settimeout(0.5)
            for _ in range(dice.randrange(1, 6)):
                sent = b"".join(self.request(dice) for _ in range(dice.choice([1, 1, 1, 2, 6])))
                if dice.random() < 0.15:
                    sent = sent[: dice.randrange(len(sent))]
                self.send(client, sent, dice)
                end = dice.randrange(12)
                if end == 0:
                    client.reset()
                    return
                if end == 1:
                    return
                if end == 2:
                    client.finish()
                if end == 3:
                    client.sock.recv(dice.randrange(1, 3000))
                    client.reset()
                    return
                client.answer()

    def send(self, client: Client, sent: bytes, dice: random.Random) -> None:
        while sent:
            part = len(sent) if dice.random() < 0.7 else dice.randrange(1, len(sent) + 1)
            client.send(sent[:part])
            sent = sent[part:]

    def request(self, dice: random.Random) -> bytes:
        method = dice.choice(["GET", "GET", "HEAD", "POST", "PUT", "OPTIONS", "DELETE"])
        fields = [field for field in ("Connection: close", "Expect: 100-continue") if dice.random() < 0.05]
        target = dice.choice(["/", "/slow", "/none"])
        version = dice.choice(["1.1"] * 9 + ["1.0"])
        n = dice.choice([0, 1, 1000, 40_000, 600_000])
        if method in ("GET", "HEAD", "OPTIONS", "DELETE"):
            return request(target, *fields, method=method, version=version)
        if dice.random() < 0.5 or version == "1.0":
            return request(target, *fields, method=method, body=b"b" * n, version=version)
        part = b"c" * (n // 2 + 1)
        head = request(target, *fields, "Transfer-Encoding: chunked", method=method)
        return head + chunks(part, part, trailers=b"X: 1\r\n")


@pytest.mark.parametrize("seed", [1, 2])
def test_nothing_is_left_behind_by_clients_and_endpoints_that_do_all_they_can(seed):
    """What is asserted is at the end: nobody crashed, nothing is held, in flight or open, the sums agree."""
    with Proxy(workers=2, large_bytes=4 * MB) as proxy:
        chaos = Chaos(seed, proxy.port)
        with Origin(chaos.serve) as a, Origin(chaos.serve) as b, Origin(chaos.serve) as c:
            short = {"response_ms": 100, "idle_ms": 100, "connect_ms": 100, "pool_idle_ms": 50, "pool_max": 3}
            tight = short | {"connections": 2, "queue": 4, "queue_ms": 50}
            again = ["connect", "stale", "reset", "timeout", "status"]
            open_ = {"retry": retry(attempts=2, on=again, statuses=[503])}

            def serve():
                return proxy.serve_many(
                    {
                        "app": ([a, b], short | open_ | {"breaker": breaker(open_ms=20, open_max_ms=20)}),
                        "slow": ([b, c, "127.0.0.1:9"], tight | open_),
                    },
                    [
                        {},
                        {"path": "/slow", "service": "slow"},
                        {"path": "/none", "action": "respond", "status": 200},
                    ],
                    listener={
                        "header_ms": 200,
                        "body_idle_ms": 200,
                        "keepalive_ms": 200,
                        "half_close_ms": 50,
                    },
                )

            reloads = [serve()]

            def reload() -> None:
                for _ in range(10):
                    time.sleep(0.1)
                    reloads.append(serve())

            together(*[chaos.call] * 6, reload)
            proxy.rest()
            endpoints = [reloads[-1].endpoint(index, name) for name in ("app", "slow") for index in range(2)]

            assert [(one["inflight"], one["open"] - one["idle"]) for one in endpoints] == [(0, 0)] * 4
            assert proxy.listener()["open"] == 0
            assert sum(sum(by_cause.values()) for by_cause in proxy.listener()["requests"]) > 0
            for origin in (a, b, c):
                origin.failures.clear()  # requests broken off on purpose
