"""UDP listeners: datagrams of a client go to one endpoint and its answers come back."""

import contextlib
import itertools
import random
import socket
from pathlib import Path

import pytest
from fakes.datagrams import Echo, Talker
from fakes.documents import breaker, sticky
from fakes.engine_process import Proxy, eventually
from fakes.wire import PATIENCE

UDP = {"protocol": "udp"}
STRATEGIES = [
    "round_robin",
    "weighted_round_robin",
    "least_connections",
    "least_response_time",
    "random",
    "ip_hash",
    "consistent_hash",
]


@contextlib.contextmanager
def engine(**how):
    proxy = Proxy(udp=how.pop("host", "127.0.0.1"), **how)
    try:
        yield proxy
        for worker in proxy.workers:
            worker.check_alive()
    finally:
        proxy.close()


@pytest.fixture
def proxy():
    with engine() as out:
        yield out


def udp(proxy, *endpoints, listener=None, **service):
    return proxy.serve(*endpoints, listener=UDP | (listener or {}), service=service)


@contextlib.contextmanager
def talkers(port, n, **how):
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(Talker(port, **how)) for _ in range(n)]


def unbound():
    """An address where nobody listens."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{sock.getsockname()[1]}"


def inflight(proxy, served, index=0):
    return proxy.board.endpoint(served.slot(index))["inflight"]


def test_a_question_reaches_the_endpoint_and_its_answer_the_client(proxy):
    with Echo() as echo, Talker(proxy.port) as client:
        served = udp(proxy, echo)
        assert client.ask(b"one") == b"one"
        assert client.ask(b"two") == b"two"
        assert len(set(echo.peers)) == 1
        assert inflight(proxy, served) == 1
        assert (proxy.counts("datagrams_in"), proxy.counts("datagrams_out")) == (2, 2)
        assert proxy.counts("datagrams_dropped") == 0


@pytest.mark.parametrize("size", [0, 1, 1472, 9000, 65507])
def test_datagrams_of_every_size_pass_whole_and_end_nothing(proxy, size):
    data = random.Random(size).randbytes(size)
    with Echo() as echo, Talker(proxy.port) as client:
        udp(proxy, echo)
        assert client.ask(b"before") == b"before"
        assert client.ask(data) == data
        assert client.ask(b"after") == b"after"
        assert len(set(echo.peers)) == 1


def test_sessions_stay_at_their_endpoints(proxy):
    with Echo() as one, Echo() as two, talkers(proxy.port, 10) as clients:
        udp(proxy, one, two)
        for _, (number, client) in itertools.product(range(5), enumerate(clients)):
            assert client.ask(b"%d" % number) == b"%d" % number
        assert not set(one.got) & set(two.got)
        assert len(set(one.got)) == len(set(two.got)) == 5


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_strategy_spreads_sessions(strategy):
    with engine(host="0.0.0.0") as proxy, Echo() as one, Echo() as two:
        udp(proxy, one, two, strategy=strategy)
        for number in range(2, 42):
            with Talker(proxy.port, source=f"127.0.{number}.7") as client:
                assert client.ask(b"x") == b"x"
        assert len(one.got) >= 5
        assert len(two.got) >= 5


def test_sticky_by_source_holds_over_workers():
    with engine(workers=2) as proxy, Echo() as one, Echo() as two:
        udp(proxy, one, two, sticky=sticky(kind="source", ttl_s=60))
        with talkers(proxy.port, 24) as clients:
            for client in clients:
                assert client.ask(b"x") == b"x"
        assert sorted([len(one.got), len(two.got)]) == [0, 24]
        assert all(proxy.board.worker(n)["datagrams_in"] for n in range(2))


def test_a_session_ends_when_nothing_passes_for_its_time(proxy):
    with Echo() as echo, Talker(proxy.port) as client:
        served = udp(proxy, echo, session_ms=100)
        assert client.ask(b"x") == b"x"
        record = proxy.record()
        assert record["protocol"] == "UDP"
        assert (record["reason"], record["cause"]) == ("nothing passed for the idle time", "timeout")
        assert (record["bytes_in"], record["bytes_out"]) == (1, 1)
        assert inflight(proxy, served) == 0
        assert client.ask(b"y") == b"y"
        assert len(set(echo.peers)) == 2


def test_a_session_ends_with_the_number_of_answers_that_the_listener_says(proxy):
    with Echo(lambda data: [data, data]) as echo, Talker(proxy.port) as client:
        served = udp(proxy, echo, listener={"responses": 2})
        for _ in range(3):
            assert [client.ask(b"x"), client.receive()] == [b"x", b"x"]
        assert eventually(lambda: inflight(proxy, served) == 0)
        assert len(set(echo.peers)) == 3


def test_datagrams_beyond_the_bound_of_sessions_are_dropped_and_counted(proxy):
    with Echo() as echo, talkers(proxy.port, 3) as clients:
        udp(proxy, echo, listener={"connections": 2})
        assert clients[0].ask(b"0") == b"0"
        assert clients[1].ask(b"1") == b"1"
        clients[2].send(b"2")
        assert eventually(lambda: proxy.counts("datagrams_dropped") == 1)
        assert clients[0].ask(b"still") == b"still"
        assert b"2" not in echo.got


def test_a_client_moves_on_from_an_endpoint_where_nobody_listens(proxy):
    with Echo() as echo, Talker(proxy.port) as client:
        served = udp(proxy, unbound(), echo, breaker=breaker(failures=2))
        client.sock.settimeout(0.05)

        def answered():
            with contextlib.suppress(TimeoutError):
                return client.ask(b"x") == b"x"

        assert eventually(answered)

        def shut():
            with Talker(proxy.port) as other:
                other.sock.settimeout(0.05)
                with contextlib.suppress(TimeoutError):
                    other.ask(b"y")
            return served.breaker(0)["state"] == "open"

        assert eventually(shut)
        assert served.endpoint(0)["outcomes"]["connect"] >= 2
        for _ in range(5):
            with Talker(proxy.port) as other:
                assert other.ask(b"z") == b"z"
        assert inflight(proxy, served, 0) == 0


def test_without_any_endpoint_datagrams_are_dropped_and_said(proxy):
    served = udp(proxy)
    with Talker(proxy.port) as client:
        client.send(b"x")
        assert proxy.record()["cause"] == "proxy"
        assert proxy.counts("datagrams_dropped") == 1
    assert proxy.counts("clients") == 0
    assert served.endpoints == {"app": []}


def test_answers_leave_from_the_address_that_was_asked():
    with engine(host="0.0.0.0") as proxy, Echo() as echo:
        udp(proxy, echo)
        with Talker(proxy.port, to="127.0.0.2", source="0.0.0.0") as client:
            assert client.ask(b"x") == b"x"
            client.peer = ("127.0.0.3", proxy.port)
            assert client.ask(b"y") == b"y"
        assert len(set(echo.peers)) == 1


def test_clients_and_endpoints_may_have_ipv6_addresses():
    with engine(host="::") as proxy, Echo(host="::1") as echo:
        udp(proxy, echo)
        with Talker(proxy.port, to="::1", source="::") as client:
            assert client.ask(b"x") == b"x"
        with Talker(proxy.port) as client:
            assert client.ask(b"mapped") == b"mapped"


def test_an_ipv6_datagram_too_large_for_an_ipv4_endpoint_is_lost_alone():
    with engine(host="::1") as proxy, Echo() as echo:
        served = udp(proxy, echo)
        with Talker(proxy.port, to="::1", source="::1") as client:
            assert client.ask(b"x") == b"x"
            client.send(bytes(65520))
            assert client.ask(b"y") == b"y"
        assert proxy.counts("datagrams_dropped") == 1
        assert served.endpoint()["outcomes"]["connect"] == 0
        assert len(set(echo.peers)) == 1


def test_questions_that_are_asked_again_get_through_loss(proxy):
    loss = random.Random(5)
    with Echo(lambda data: [data] if loss.random() > 0.2 else []) as echo:
        udp(proxy, echo, listener={"responses": 1})
        for number in range(100):
            with Talker(proxy.port) as client:
                client.sock.settimeout(0.1)
                question = b"%d" % number
                for _ in range(20):
                    with contextlib.suppress(TimeoutError):
                        assert client.ask(question) == question
                        break
                else:
                    pytest.fail("no answer")
        assert len(echo.got) > 100


def test_thousands_of_sessions_come_and_go_and_leave_nothing(proxy):
    with Echo() as echo:
        served = udp(proxy, echo, session_ms=1000)
        with talkers(proxy.port, 400) as clients:
            for _ in range(12):
                for client in clients:
                    client.peer = ("127.0.0.1", proxy.port)
                    assert client.ask(b"x") == b"x"
        assert eventually(lambda: inflight(proxy, served) == 0)
        assert eventually(lambda: proxy.counts("clients") == 0)
        assert served.endpoint()["outcomes"]["connect"] == 0


def test_sessions_stay_through_reloads(proxy):
    with Echo() as echo, talkers(proxy.port, 5) as clients:
        udp(proxy, echo)
        for _ in range(10):
            for client in clients:
                assert client.ask(b"x") == b"x"
            proxy.again()
        assert len(set(echo.peers)) == 5
        assert proxy.snapshots() == 1


def test_answers_still_arrive_while_the_proxy_drains():
    with engine() as proxy, Echo(lambda data: []) as echo, Talker(proxy.port) as client:
        served = udp(proxy, echo, tunnel_drain_ms=400)
        client.send(b"slow")
        assert eventually(lambda: echo.peers)
        proxy.drain()
        echo.sock.sendto(b"late", echo.peers[0])
        assert client.receive() == b"late"
        assert eventually(lambda: inflight(proxy, served) == 0)


def test_two_listeners_keep_the_sessions_of_one_client_apart():
    with engine(listeners=2) as proxy, Echo() as echo, Talker(proxy.port) as client:
        udp(proxy, echo)
        for port in proxy.ports:
            client.peer = ("127.0.0.1", port)
            assert client.ask(b"x") == b"x"
        assert len(set(echo.peers)) == 2


def test_a_burst_of_datagrams_arrives_whole_and_in_order_both_ways(proxy):
    sizes = [64] * 20 + [10, 64, 0, 64, 64, 63, 1, 1, 1400, 1400, 1401, 1453, 1453, 9000, 9000, 5, 0, 0, 64]
    burst = [random.Random(n).randbytes(size) for n, size in enumerate(sizes)]
    with Echo(lambda data: burst if data == b"all" else [data]) as echo, Talker(proxy.port) as client:
        udp(proxy, echo)
        client.send(b"all")
        assert [client.receive() for _ in burst] == burst
        for data in burst:
            client.send(data)
        assert [client.receive() for _ in burst] == burst
        assert echo.got[1:] == burst
        assert proxy.counts("datagrams_out") == 2 * len(burst)
        assert proxy.counts("datagrams_dropped") == 0
        record_bytes = sum(sizes)
        proxy.drain()
        proxy.workers[0].ask("abort")
        record = proxy.record()
        assert (record["bytes_in"], record["bytes_out"]) == (3 + record_bytes, 2 * record_bytes)


def test_clients_of_a_listener_that_goes_are_served_on_and_nobody_new_is(proxy):
    with Echo() as echo, talkers(proxy.port, 2) as (known, late):
        served = udp(proxy, echo, tunnel_drain_ms=60_000)
        assert known.ask(b"before") == b"before"
        proxy.workers[0].ask("remove", 0)
        late.send(b"late")
        assert known.ask(b"after") == b"after"
        assert eventually(lambda: proxy.counts("datagrams_dropped") == 1)
        proxy.load({**proxy.document, "version": next(proxy.versions), "listeners": [], "routes": []})
        assert known.ask(b"and on") == b"and on"
        assert inflight(proxy, served) == 1
        assert len(set(echo.peers)) == 1
        assert b"late" not in echo.got


def test_the_socket_of_a_listener_that_went_closes_with_the_last_of_its_sessions(proxy):
    with Echo() as echo, talkers(proxy.port, 3) as clients:
        udp(proxy, echo, tunnel_drain_ms=300)
        for client in clients:
            assert client.ask(b"x") == b"x"
        for group in proxy.sockets:
            for sock in group:
                sock.close()
        proxy.workers[0].ask("remove", 0)
        assert eventually(lambda: proxy.counts("clients") == 0)

        def free():
            with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                sock.bind(("127.0.0.1", proxy.port))
                return True

        assert eventually(free)


def link_local():
    """An address of this machine that means something on one interface only, with that interface."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/net/if_inet6").read_text().splitlines():
            packed, index, _, scope, _, name = line.split()
            if scope == "20":
                return socket.inet_ntop(socket.AF_INET6, bytes.fromhex(packed)), int(index, 16), name
    return None


@pytest.mark.skipif(link_local() is None, reason="no interface has a link-local address")
@pytest.mark.parametrize("host", ["::", "link-local"])
def test_answers_find_clients_with_link_local_addresses(host):
    address, index, name = link_local()
    with engine(host=f"{address}%{name}" if host == "link-local" else host) as proxy, Echo() as echo:
        udp(proxy, echo)
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as client:
            client.settimeout(PATIENCE)
            client.bind((address, 0, 0, index))
            client.sendto(b"x", (address, proxy.port, 0, index))
            data, peer = client.recvfrom(100)
            assert (data, peer[1], peer[3]) == (b"x", proxy.port, index)


ONE_WAY = {"sessions": False}


def test_without_sessions_each_datagram_goes_to_an_endpoint_of_its_own(proxy):
    with Echo() as one, Echo() as two, Talker(proxy.port) as client:
        served = udp(proxy, one, two, listener=ONE_WAY)
        for number in range(100):
            client.send(b"%d" % number)
        assert eventually(lambda: len(one.got) + len(two.got) == 100)
        assert len(one.got) == len(two.got) == 50
        assert inflight(proxy, served, 0) == inflight(proxy, served, 1) == 0
        assert proxy.counts("clients") == 0
        assert sum(sum(served.endpoint(n)["outcomes"].values()) for n in range(2)) == 100
        client.sock.settimeout(0.05)
        with pytest.raises(TimeoutError):
            client.receive()


def test_an_endpoint_that_is_gone_does_not_stop_datagrams_without_sessions(proxy):
    with Echo() as echo, Talker(proxy.port) as client:
        udp(proxy, unbound(), echo, listener=ONE_WAY)
        for number in range(50):
            client.send(b"%d" % number)
        assert eventually(lambda: len(echo.got) >= 20)
        assert eventually(lambda: proxy.counts("clients") == 0)


def test_an_endpoint_that_is_gone_is_shut_out_without_sessions_too(proxy):
    with Echo() as echo, Talker(proxy.port) as client:
        served = udp(proxy, unbound(), echo, listener=ONE_WAY, breaker=breaker(failures=3))

        def shut():
            client.send(b"x")  # one in each look, so that its error comes when it is long on its way
            return served.breaker(0)["state"] == "open"

        assert eventually(shut)
        before = len(echo.got)
        for _ in range(20):
            client.send(b"y")
        assert eventually(lambda: len(echo.got) == before + 20)
        assert served.breaker(1)["state"] == "closed"


def test_a_service_may_go_from_sessions_to_datagrams_and_back(proxy):
    with Echo() as echo, Talker(proxy.port) as client:
        udp(proxy, echo)
        assert client.ask(b"x") == b"x"
        udp(proxy, echo, listener=ONE_WAY)
        client.send(b"alone")
        assert eventually(lambda: b"alone" in echo.got)
        udp(proxy, echo)
        assert client.ask(b"y") == b"y"
