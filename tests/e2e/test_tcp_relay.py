"""TCP listeners: connections passed on as they are, selected, limited and accounted like requests."""

import socket
import threading
from hashlib import sha256

import pytest
from fakes.documents import breaker, retry, sticky
from fakes.engine_process import Proxy, eventually
from fakes.origin import Blackhole, Origin, Refusing
from fakes.wire import PATIENCE, Closed

TCP = {"protocol": "tcp"}
NO_RETRY = retry(attempts=0, on=[])
BIG = 24 << 20


def echo(conn):
    while data := conn.more():
        conn.send(data)
    conn.finish()


def tcp(proxy, *endpoints, **service):
    return proxy.serve(*endpoints, listener=TCP, service=service)


def cut(proxy):
    """Whether a new connection is reset, be it as soon as it is accepted."""
    with socket.socket() as sock:
        sock.settimeout(PATIENCE)
        try:
            sock.connect(("127.0.0.1", proxy.port))
            sock.recv(1)
        except ConnectionResetError:
            return True
    return False


def inflight(proxy, served, index=0):
    return proxy.board.endpoint(served.slot(index))["inflight"]


# ---- bytes -----------------------------------------------------------------------------------------------


def test_bytes_pass_both_ways_as_they_come(proxy, origin):
    tcp(proxy, origin)
    client = proxy.client()
    client.send(b"\0any\r\n\r\nbytes")
    upstream = origin.accept()
    assert upstream.exactly(13) == b"\0any\r\n\r\nbytes"
    upstream.send(b"one")
    assert client.exactly(3) == b"one"
    client.send(b"two")
    assert upstream.exactly(3) == b"two"


def test_the_endpoint_may_speak_first(proxy, origin):
    tcp(proxy, origin)
    client = proxy.client()
    upstream = origin.accept()
    upstream.send(b"220 ready\r\n")
    assert client.exactly(11) == b"220 ready\r\n"


def test_an_answer_after_the_clients_end_arrives(proxy, origin):
    tcp(proxy, origin)
    client = proxy.client()
    client.send(b"question")
    client.finish()
    upstream = origin.accept()
    assert upstream.rest() == b"question"
    upstream.send(b"answer")
    upstream.send(b" in two parts")
    upstream.finish()
    assert client.rest() == b"answer in two parts"


def test_a_client_may_go_on_after_the_endpoints_end(proxy, origin):
    tcp(proxy, origin)
    client = proxy.client()
    upstream = origin.accept()
    upstream.send(b"last words")
    upstream.finish()
    assert client.rest() == b"last words"
    client.send(b"more")
    assert upstream.exactly(4) == b"more"
    client.finish()
    assert upstream.at_end()


def test_large_amounts_pass_whole_both_ways_at_once(proxy):
    blob = bytes(range(256)) * (BIG >> 8)
    with Origin(echo) as origin:
        tcp(proxy, origin)
        client = proxy.client()
        sender = threading.Thread(target=lambda: (client.send(blob), client.finish()))
        sender.start()
        got = client.rest()
        sender.join()
    assert sha256(got).digest() == sha256(blob).digest()


@pytest.mark.memory
def test_a_client_that_does_not_read_holds_the_endpoint_back_in_bounded_memory(proxy, origin):
    tcp(proxy, origin)
    client = proxy.client(receive_buffer=4096)
    upstream = origin.accept()
    blob = bytes(range(256)) * (BIG >> 8)
    before = proxy.memory()
    sender = threading.Thread(target=lambda: (upstream.send(blob), upstream.finish()))
    sender.start()
    eventually(lambda: upstream.unsent() and proxy.counts("buffers_large"), seconds=2)
    assert proxy.memory() - before < 4 << 20
    assert sha256(client.rest()).digest() == sha256(blob).digest()
    sender.join()


# ---- ends that are no ends -------------------------------------------------------------------------------


def test_a_clients_reset_reaches_the_endpoint(proxy, origin):
    served = tcp(proxy, origin)
    client = proxy.client()
    client.send(b"x")
    upstream = origin.accept()
    assert upstream.exactly(1) == b"x"
    client.reset()
    assert upstream.was_reset()
    assert proxy.record()["reason"] == "the client cut the connection"
    assert served.endpoint()["outcomes"]["reset"] == 0


def test_an_endpoints_reset_reaches_the_client(proxy, origin):
    served = tcp(proxy, origin)
    client = proxy.client()
    client.send(b"x")
    upstream = origin.accept()
    assert upstream.exactly(1) == b"x"
    upstream.reset()
    assert client.was_reset()
    record = proxy.record()
    assert (record["cause"], record["reason"]) == ("upstream", "the endpoint cut the connection")
    assert served.endpoint()["outcomes"]["reset"] == 1


def test_what_an_endpoint_sent_before_its_reset_arrives(proxy, origin):
    tcp(proxy, origin)
    client = proxy.client()
    client.send(b"x" * 10)
    upstream = origin.accept()
    upstream.send(b"goodbye")
    assert client.exactly(7) == b"goodbye"
    upstream.reset()
    assert client.was_reset()


def test_a_client_that_leaves_behind_a_stuck_endpoint_frees_its_slot(proxy):
    with Origin(receive_buffer=4096) as origin:
        served = tcp(proxy, origin)
        client = proxy.client()
        upstream = origin.accept()
        client.sock.settimeout(0.3)
        with pytest.raises(TimeoutError):
            client.send(bytes(BIG))
        client.reset()
        assert eventually(lambda: inflight(proxy, served) == 0)
        assert upstream.is_cut()


def test_a_tunnel_in_which_nothing_passes_ends_after_the_idle_time(proxy, origin):
    served = tcp(proxy, origin, tunnel_ms=60)
    client = proxy.client()
    client.send(b"x")
    upstream = origin.accept()
    assert upstream.exactly(1) == b"x"
    assert client.at_end()
    assert upstream.ended()
    record = proxy.record()
    assert (record["cause"], record["reason"]) == ("timeout", "nothing passed for the idle time")
    assert served.endpoint()["outcomes"]["timeout"] == 0


# ---- connecting ------------------------------------------------------------------------------------------


def test_an_endpoint_that_refuses_is_passed_over_before_the_first_byte(proxy, origin):
    with Refusing() as dead:
        served = tcp(proxy, dead, origin)
        for _ in range(2):
            client = proxy.client()
            client.send(b"hello")
            assert origin.accept().exactly(5) == b"hello"
        assert served.service()["retries"]["connect"] >= 1


def test_an_endpoint_that_does_not_answer_is_passed_over(proxy, origin):
    with Blackhole() as silent:
        served = tcp(proxy, silent, origin, connect_ms=50)
        for _ in range(2):
            client = proxy.client()
            client.send(b"hello")
            assert origin.accept().exactly(5) == b"hello"
        assert served.service()["retries"]["connect"] >= 1


def test_without_a_live_endpoint_the_client_is_cut(proxy):
    with Refusing() as one, Refusing() as other:
        tcp(proxy, one, other)
        assert cut(proxy)
        record = proxy.record()
    assert record["cause"] == "connect"
    assert "status" not in record
    assert record["tries"] == 2


def test_a_breaker_opens_after_failed_connects(proxy):
    with Refusing() as dead:
        served = tcp(
            proxy, dead, breaker=breaker(failures=3, on=["connect"], last=True), retry=NO_RETRY, panic_pct=0
        )
        for _ in range(3):
            assert cut(proxy)
        assert cut(proxy)
        record = proxy.record()
        assert record["reason"] == "no endpoint of the service can take requests"
        assert served.endpoint()["outcomes"]["connect"] == 3


# ---- limits and balance ----------------------------------------------------------------------------------


def test_a_connection_past_the_limit_waits_for_a_slot(proxy, origin):
    tcp(proxy, origin, connections=1, queue=1)
    first, second = proxy.client(), proxy.client()
    first.send(b"1")
    upstream = origin.accept()
    assert upstream.exactly(1) == b"1"
    second.send(b"2")
    assert eventually(
        lambda: proxy.board.service_totals(proxy.document["services"][0]["slot"])["queued"] == 1
    )
    assert cut(proxy)
    first.finish()
    upstream.finish()
    assert origin.accept().exactly(1) == b"2"


def test_a_connection_that_waits_too_long_is_cut(proxy, origin):
    tcp(proxy, origin, connections=1, queue=1, queue_ms=50)
    first, second = proxy.client(), proxy.client()
    first.send(b"1")
    assert origin.accept().exactly(1) == b"1"
    assert second.was_reset()
    assert proxy.record()["reason"] == "waited too long for a free endpoint"


def test_least_connections_counts_sessions_of_all_workers():
    with Proxy(workers=2) as proxy, Origin(echo) as one, Origin(echo) as other:
        served = tcp(proxy, one, other, strategy="least_connections")
        clients = []
        for number in range(24):
            client = proxy.client()
            client.send(b"x")
            assert client.exactly(1) == b"x"
            clients.append(client)
            counts = [inflight(proxy, served, n) for n in (0, 1)]
            assert sum(counts) == number + 1
            assert abs(counts[0] - counts[1]) <= 1
        assert all(proxy.board.worker(n)["tunnels"] for n in (0, 1))
        proxy.rest()


def test_a_client_address_stays_with_its_endpoint(proxy):
    with Origin(echo) as one, Origin(echo) as other:
        served = tcp(proxy, one, other, sticky=sticky(kind="source", ttl_s=60))
        for last in (2, 3, 4, 5):
            before = [served.endpoint(n)["connects"] for n in (0, 1)]
            for _ in range(4):
                client = proxy.client(source=f"127.0.0.{last}")
                client.send(b"x")
                assert client.exactly(1) == b"x"
                client.finish()
                assert client.at_end()
            assert eventually(proxy.at_rest)
            came = [served.endpoint(n)["connects"] - was for n, was in enumerate(before)]
            assert sorted(came) == [0, 4]


# ---- what is said of it ----------------------------------------------------------------------------------


def test_a_session_is_logged_with_its_bytes_and_who_closed_it(proxy, origin):
    served = tcp(proxy, origin)
    client = proxy.client()
    client.send(b"12345")
    upstream = origin.accept()
    assert upstream.exactly(5) == b"12345"
    upstream.send(b"123")
    assert client.exactly(3) == b"123"
    assert proxy.listener()["tunnels"] == proxy.counts("tunnels") == 1
    client.finish()
    assert upstream.at_end()
    upstream.finish()
    assert client.at_end()
    record = proxy.record()
    assert (record["bytes_in"], record["bytes_out"]) == (5, 3)
    assert (record["cause"], record["reason"]) == ("none", "closed by the client")
    assert (record["client"], record["protocol"]) == ("127.0.0.1", "TCP")
    assert record["endpoint"] == origin.address
    assert record["total_ms"] >= record["connect_ms"] >= 0
    http_only = {"status", "method", "host", "path", "query", "reused", "first_byte_ms"}
    assert not http_only & record.keys()
    assert proxy.listener()["tunnels"] == proxy.counts("tunnels") == 0
    totals = served.endpoint()
    assert (totals["bytes_up"], totals["bytes_down"]) == (5, 3)


def test_an_end_by_the_endpoint_is_told_apart(proxy, origin):
    tcp(proxy, origin)
    client = proxy.client()
    origin.accept().finish()
    assert client.at_end()
    client.finish()
    assert proxy.record()["reason"] == "closed by the endpoint"


def test_a_session_does_not_count_as_slow_for_being_long(proxy, origin):
    proxy.serve(origin, listener=TCP, route={"log_per_million": 0, "slow_ms": 40, "log_errors": True})
    client = proxy.client()
    upstream = origin.accept()
    assert client.silent(0.1)
    client.finish()
    upstream.finish()
    assert client.at_end()
    assert eventually(proxy.at_rest)
    assert proxy.records() == []


# ---- changes ---------------------------------------------------------------------------------------------


def test_sessions_stand_through_reloads_and_keep_no_snapshot_alive(proxy, origin):
    tcp(proxy, origin)
    client = proxy.client()
    client.send(b"0")
    upstream = origin.accept()
    assert upstream.exactly(1) == b"0"
    for _ in range(20):
        proxy.again()
        client.send(b"x")
        assert upstream.exactly(1) == b"x"
    assert proxy.snapshots() == 1


def test_a_session_under_way_during_a_reload_keeps_no_snapshot_alive(proxy):
    with Blackhole() as silent, Origin() as origin:
        tcp(proxy, silent, origin, connect_ms=200)
        clients = [proxy.client() for _ in range(2)]
        assert eventually(lambda: proxy.counts("clients_active") == 2)
        proxy.again()
        for client in clients:
            client.send(b"x")
        for _ in clients:
            assert origin.accept().exactly(1) == b"x"
        assert eventually(lambda: proxy.snapshots() == 1)


def test_sessions_of_a_removed_endpoint_come_to_an_end_and_others_stay(proxy):
    with Origin() as one, Origin() as other:
        served = tcp(proxy, one, other, tunnel_drain_ms=40)
        clients = [proxy.client() for _ in range(2)]
        kept, gone = one.accept(), other.accept()
        first = proxy.document["members"][0]["slot"] == served.slot(0)
        assert first
        document = proxy.document
        fewer = {
            **document,
            "members": document["members"][:1],
            "services": [
                {
                    **document["services"][0],
                    "members": [0],
                    "groups": [{**document["services"][0]["groups"][0], "members": [0]}],
                }
            ],
        }
        proxy.load({**fewer, "version": next(proxy.versions)})
        assert gone.ended()
        assert proxy.record()["cause"] == "proxy"
        kept.send(b"still here")
        assert sorted(client.more() for client in clients) == [b"", b"still here"]


def test_an_endpoint_under_admin_drain_keeps_its_sessions(proxy, origin):
    served = tcp(proxy, origin)
    client = proxy.client()
    upstream = origin.accept()
    proxy.board.set_admin(served.slot(), "drain")
    client.send(b"x")
    assert upstream.exactly(1) == b"x"
    assert cut(proxy)


def test_a_drain_waits_for_sessions_and_closes_those_left_at_moments_of_their_own():
    with Proxy() as proxy, Origin(echo) as origin:
        tcp(proxy, origin, tunnel_drain_ms=1200)
        clients = [proxy.client() for _ in range(12)]
        for client in clients:
            client.send(b"x")
            assert client.exactly(1) == b"x"
        proxy.drain()
        clients[0].send(b"still served")
        assert clients[0].exactly(12) == b"still served"
        clients[0].finish()
        assert clients[0].at_end()
        for client in clients[1:]:
            assert client.at_end()
        proxy.rest()
        ends = proxy.read_to and [r for r in read_all(proxy) if r["cause"] == "proxy"]
        assert len(ends) == 11
        assert len({record["total_ms"] for record in ends}) > 3


def read_all(proxy):
    proxy.read_to = 0
    return proxy.records()


def test_a_connection_that_comes_through_during_a_drain_is_closed_with_the_others():
    with Proxy() as proxy, Origin() as origin, Blackhole() as silent:
        tcp(proxy, silent, origin, tunnel_drain_ms=60, connect_ms=150)
        clients = [proxy.client() for _ in range(2)]
        assert eventually(lambda: proxy.counts("clients_active") == 2)
        proxy.drain()
        for client in clients:
            with pytest.raises((Closed, ConnectionError)):
                client.exactly(1)
        proxy.rest()
