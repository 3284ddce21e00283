"""Time limits, with short ones configured: each must end what it is for, and nothing else."""

import contextlib
import time

import pytest
from fakes.documents import retry
from fakes.engine_process import eventually
from fakes.origin import Origin, answering
from fakes.wire import request, response

NO_RETRY = retry(attempts=0, on=[])
MB = 1 << 20


def trickle(wire, byte: bytes = b"x", *, pause: float = 0.01) -> bool:
    """Send single bytes until the other side says something or goes; False when it never does."""
    for _ in range(1000):
        try:
            wire.send(byte)
        except ConnectionError:
            return True
        if not wire.silent(pause):
            return True
    return False


# ---- clients ----------------------------------------------------------------------------------------


def test_a_connection_on_which_nothing_comes_is_closed(proxy):
    proxy.serve("127.0.0.1:9", listener={"header_ms": 50})
    client = proxy.client()

    assert client.at_end()


def test_a_head_that_comes_byte_by_byte_has_no_more_time_than_another(proxy, origin):
    proxy.serve(origin, listener={"header_ms": 150})
    client = proxy.client()
    client.send(b"GET /")

    assert trickle(client)
    assert client.answer().status == 408
    assert not origin.asked()


def test_the_time_for_a_later_head_begins_with_its_first_byte(proxy):
    with Origin(answering()) as origin:
        proxy.serve(origin, listener={"header_ms": 150, "keepalive_ms": 60000})
        client = proxy.client()
        assert client.ask("/1").status == 200
        assert client.silent(0.3)
        assert client.ask("/2").status == 200
        client.send(b"GET /")

        assert trickle(client)
        assert client.answer().status == 408


def test_a_pipelined_head_that_never_ends_is_given_up(proxy):
    with Origin(answering()) as origin:
        proxy.serve(origin, listener={"header_ms": 100})
        client = proxy.client()
        client.send(request("/1") + b"GET /2 HT")

        assert client.answer().status == 200
        assert client.answer().status == 408


def test_an_idle_client_is_closed_and_told_nothing(proxy):
    with Origin(answering()) as origin:
        proxy.serve(origin, listener={"keepalive_ms": 50})
        client = proxy.client()
        client.ask("/1")

        assert client.at_end()


def test_an_idle_client_is_closed_also_after_a_body_that_filled_the_last_read(proxy, origin):
    """The read cannot tell that the socket is empty, so the connection looks readable when it is idle."""
    proxy.serve(origin, listener={"keepalive_ms": 50})
    client = proxy.client()
    n = 34816  # a small buffer
    client.send(request("/", f"Content-Length: {n}", method="POST"))
    upstream = origin.accept()
    upstream.request_head()
    client.send(b"x" * n)
    upstream.exactly(n)
    upstream.send(response(200, body=b"ok"))
    assert client.answer().body == b"ok"

    assert client.at_end()


def test_a_body_that_stops_gets_408_and_cancels_the_request(proxy, origin):
    served = proxy.serve(origin, listener={"body_idle_ms": 100})
    client = proxy.client()
    client.send(request("/", "Content-Length: 10", method="POST") + b"half")
    upstream = origin.accept()
    upstream.request_head()
    answer = client.answer()

    assert (answer.status, answer.get("connection")) == (408, "close")
    assert proxy.record()["cause"] == "timeout"
    assert upstream.ended()
    assert served.endpoint()["outcomes"]["cancel"] == 1


def test_a_body_slower_than_the_lowest_rate_gets_408_though_it_never_stops(proxy, origin):
    proxy.serve(origin, listener={"body_idle_ms": 200, "body_rate": 10_000})
    client = proxy.client()
    client.send(request("/", "Content-Length: 100000", method="POST"))
    upstream = origin.accept()
    upstream.request_head()

    assert trickle(client)
    assert client.answer().status == 408
    assert upstream.ended()


def test_a_body_that_keeps_the_rate_is_left_alone(proxy, origin):
    proxy.serve(origin, listener={"body_idle_ms": 100, "body_rate": 100})
    client = proxy.client()
    n = 30
    client.send(request("/", f"Content-Length: {n * 100}", method="POST"))
    upstream = origin.accept()
    upstream.request_head()
    for _ in range(n):
        client.send(b"x" * 100)
        assert upstream.exactly(100)
        assert client.silent(0.01)
    upstream.send(response(200, body=b"ok"))

    assert client.answer().status == 200


def stuff(wire, data: memoryview) -> int:
    """Write until nothing is taken for a moment; bytes taken."""
    wire.sock.settimeout(0.2)
    total = 0
    with contextlib.suppress(TimeoutError, ConnectionError):
        while total < len(data):
            total += wire.sock.send(data[total:])
    wire.sock.settimeout(10)
    return total


def test_the_client_is_not_blamed_for_an_endpoint_that_does_not_read(proxy):
    with Origin(receive_buffer=32768) as origin:
        proxy.serve(origin, listener={"body_idle_ms": 500, "body_rate": 1_000_000})
        client = proxy.client()
        body = memoryview(bytes(64 * MB))
        client.send(request("/", f"Content-Length: {len(body)}", method="POST"))
        upstream = origin.accept()
        upstream.request_head()
        sent = stuff(client, body)
        assert sent < len(body)
        assert client.silent(1.5)
        upstream.exactly(sent)
        rest = len(body) - sent
        while rest:
            part = min(rest, MB)
            client.send(bytes(part))
            upstream.exactly(part)
            rest -= part
        upstream.send(response(200, body=b"ok"))

        assert client.answer().status == 200


def test_an_endpoint_that_does_not_read_is_given_up(proxy):
    with Origin(receive_buffer=32768) as origin:
        proxy.serve(origin, service={"response_ms": 150, "retry": NO_RETRY})
        client = proxy.client()
        body = memoryview(bytes(64 * MB))
        client.send(request("/", f"Content-Length: {len(body)}", method="POST"))
        upstream = origin.accept()
        stuff(client, body)

        assert client.answer().status == 504
        assert upstream.ended()


@pytest.mark.parametrize("local", [False, True])
def test_a_client_that_does_not_read_its_answer_is_cut(proxy, origin, local):
    listener = {"body_idle_ms": 100}
    client = proxy.client(receive_buffer=4096)
    if local:
        # More than the kernel takes for a client that does not read.
        row = {"action": "respond", "status": 200, "body": "x" * (4 * MB)}
        proxy.serve_many({}, [row], listener=listener)
        client.send(request())
    else:
        proxy.serve(origin, listener=listener)
        client.send(request())
        upstream = origin.accept()
        upstream.request()
        upstream.send(response(200, "Content-Length: 100000000", body=None))
        stuff(upstream, memoryview(bytes(32 * MB)))
        assert upstream.ended()

    assert eventually(lambda: proxy.counts("clients") == 0)
    assert proxy.record()["cause"] == "timeout"


def test_a_client_that_does_not_read_is_cut_also_when_its_own_body_ends_meanwhile(proxy, origin):
    proxy.serve(origin, listener={"body_idle_ms": 1500})
    client = proxy.client(receive_buffer=4096)
    client.send(request("/", "Content-Length: 10", method="POST") + b"12345")
    upstream = origin.accept()
    upstream.request_head()
    upstream.send(response(200, "Content-Length: 100000000", body=None))
    stuff(upstream, memoryview(bytes(32 * MB)))
    client.send(b"67890")

    assert eventually(lambda: proxy.counts("clients") == 0)
    assert upstream.ended()


@pytest.mark.parametrize("sends", [False, True])
def test_a_refused_client_that_does_not_go_is_not_kept(proxy, sends):
    """It is given some time to read why, and what it still sends is dropped."""
    proxy.serve("127.0.0.1:9")
    client = proxy.client()
    client.send(b"rubbish\r\n\r\n")
    assert client.answer().status == 400
    assert client.at_end()
    end = time.monotonic() + 10
    while proxy.counts("clients") and time.monotonic() < end:
        if sends:
            with contextlib.suppress(ConnectionError):
                client.send(b"x" * 100)
        time.sleep(0.02)

    assert proxy.counts("clients") == 0


# ---- endpoints --------------------------------------------------------------------------------------


def test_the_time_for_an_answer_begins_when_the_request_is_whole(proxy, origin):
    proxy.serve(origin, service={"response_ms": 150, "connect_ms": 150, "retry": NO_RETRY})
    client = proxy.client()
    client.send(request("/", "Content-Length: 40", method="POST"))
    upstream = origin.accept()
    upstream.request_head()
    for _ in range(4):
        client.send(b"x" * 10)
        assert upstream.exactly(10)
        assert client.silent(0.1)
    upstream.send(response(200, body=b"ok"))

    assert client.answer().body == b"ok"


def test_an_answer_that_stops_is_cut_and_not_passed_off_as_whole(proxy, origin):
    served = proxy.serve(origin, service={"idle_ms": 100})
    client = proxy.client()
    client.send(request())
    upstream = origin.accept()
    upstream.request()
    upstream.send(response(200, "Content-Length: 10", body=None) + b"half")
    client.answer_head()

    assert client.was_reset()
    assert upstream.ended()
    assert proxy.record()["cause"] == "timeout"
    assert served.endpoint()["outcomes"]["timeout"] == 1


def test_an_answer_may_take_as_long_as_it_does_while_it_goes_on(proxy, origin):
    proxy.serve(origin, service={"idle_ms": 200, "response_ms": 100, "connect_ms": 100})
    client = proxy.client()
    client.send(request())
    upstream = origin.accept()
    upstream.request()
    upstream.send(response(200, "Transfer-Encoding: chunked", body=None))
    client.answer_head()
    for _ in range(10):
        upstream.send(b"1\r\nx\r\n")
        assert client.chunk() == b"x"
        assert client.silent(0.05)
    upstream.send(b"0\r\n\r\n")

    assert client.chunk() == b""


def test_a_transfer_that_never_waits_is_not_cut_by_limits_of_its_beginning(proxy, origin):
    """Bytes move for longer than every limit, without one pause in which a limit would be set anew."""
    proxy.serve(origin, service={"idle_ms": 60, "response_ms": 60, "connect_ms": 60, "retry": NO_RETRY})
    client = proxy.client()
    client.send(request())
    upstream = origin.accept()
    upstream.request()
    n, piece = 0, bytes(4 * MB)
    upstream.send(response(200, body=None))
    client.answer_head()
    upstream.sock.setblocking(False)
    end = time.monotonic() + 0.4
    while time.monotonic() < end:
        with contextlib.suppress(BlockingIOError):
            n += upstream.sock.send(piece)
        if n:
            n -= len(client.chunk())
    upstream.sock.setblocking(True)
    upstream.finish()
    while n:
        n -= len(client.chunk())

    assert client.chunk() == b""


def test_an_idle_connection_to_an_endpoint_is_closed(proxy, origin):
    served = proxy.serve(origin, service={"pool_idle_ms": 50})
    client = proxy.client()
    client.send(request())
    upstream = origin.accept()
    upstream.request()
    upstream.send(response(200, body=b"ok"))
    client.answer()

    assert upstream.at_end()
    assert served.endpoint()["open"] == 0


def test_no_limit_means_no_limit(proxy, origin):
    proxy.serve(
        origin,
        listener={"body_idle_ms": 0},
        service={"idle_ms": 0, "response_ms": 0, "connect_ms": 0, "pool_idle_ms": 0},
    )
    client = proxy.client()
    client.send(request("/", "Content-Length: 4", method="POST"))
    upstream = origin.accept()
    upstream.request_head()
    assert client.silent(0.15)
    client.send(b"body")
    upstream.exactly(4)
    assert client.silent(0.15)
    upstream.send(response(200, "Content-Length: 2", body=None))
    client.answer_head()
    assert client.silent(0.15)
    upstream.send(b"ok")

    assert client.exactly(2) == b"ok"
