"""Connections: pipelining, ends of either side, early answers, back-pressure, and what the run queue does."""

import contextlib
import socket
import threading
from collections.abc import Iterator

import pytest
from fakes.documents import retry
from fakes.engine_process import Proxy, eventually
from fakes.origin import Origin, answering
from fakes.wire import chunks, request, response

NO_RETRY = retry(attempts=0, on=[])
MB = 1 << 20


def echo(conn) -> None:
    """Answers with method, target and body."""
    while True:
        asked = conn.request()
        conn.send(response(200, body=f"{asked.method} {asked.target} ".encode() + asked.body))


# ---- pipelining ----------------------------------------------------------------------------------


def test_pipelined_requests_are_answered_in_order(proxy):
    with Origin(echo) as origin:
        proxy.serve(origin)
        client = proxy.client()
        client.send(b"".join(request(f"/{n}") for n in range(50)))

        assert [client.answer().body for _ in range(50)] == [b"GET /%d " % n for n in range(50)]
        assert len(origin.connections) == 1


def test_pipelined_requests_with_bodies_of_both_kinds_are_answered_in_order(proxy):
    with Origin(echo) as origin:
        proxy.serve(origin)
        client = proxy.client()
        sent = b""
        for n in range(30):
            body = b"%d" % n * (n * 7)
            if n % 3 == 0:
                sent += request(f"/{n}")
            elif n % 3 == 1:
                sent += request(f"/{n}", method="POST", body=body)
            else:
                head = request(f"/{n}", "Transfer-Encoding: chunked", method="POST")
                sent += head + chunks(
                    *[part for part in (body[:10], body[10:]) if part], trailers=b"X: 1\r\n"
                )
        client.send(sent)

        for n in range(30):
            body = b"" if n % 3 == 0 else b"%d" % n * (n * 7)
            method = b"GET" if n % 3 == 0 else b"POST"
            assert client.answer().body == method + b" /%d " % n + body


def test_a_slow_first_answer_holds_back_those_behind_it(proxy):
    with Origin() as slow, Origin(answering("fast")) as fast:
        proxy.serve_many(
            {"slow": ([slow], {}), "fast": ([fast], {})}, [{"path": "/slow"}, {"service": "fast"}]
        )
        client = proxy.client()
        client.send(request("/slow") + request("/1") + request("/2"))
        upstream = slow.accept()
        upstream.request()
        assert client.silent()
        assert fast.connections == []
        upstream.send(response(200, body=b"slow"))

        assert [client.answer().body for _ in range(3)] == [b"slow", b"fast", b"fast"]


def test_more_pipelined_requests_than_any_buffer_holds_are_all_answered(proxy):
    with Origin(echo) as origin:
        proxy.serve(origin)
        client = proxy.client()
        n, pad = 2000, "p" * 500
        sender = threading.Thread(
            target=client.send, args=(b"".join(request(f"/{i}", f"X-Pad: {pad}") for i in range(n)),)
        )
        sender.start()
        answers = [client.answer().body for _ in range(n)]
        sender.join()

        assert answers == [b"GET /%d " % i for i in range(n)]
        assert proxy.listener()["requests"][2]["none"] == n


@pytest.mark.parametrize("kind", ["length", "chunked"])
@pytest.mark.parametrize("n", [60_000, 100_000, 300_000, 2_000_000])
def test_large_bodies_of_pipelined_requests_do_not_mix(proxy, kind, n):
    """What is read behind one body is the next request, with as much of its body as a large buffer holds."""
    with Origin(echo) as origin:
        proxy.serve(origin)
        client = proxy.client()
        bodies = [bytes([65 + i]) * n for i in range(4)]
        if kind == "length":
            sent = b"".join(request("/", method="POST", body=body) for body in bodies)
        else:
            sent = b"".join(
                request("/", "Transfer-Encoding: chunked", method="POST") + chunks(body) for body in bodies
            )
        sender = threading.Thread(target=client.send, args=(sent,))
        sender.start()
        for body in bodies:
            answer = client.answer()
            assert (answer.status, answer.body) == (200, b"POST / " + body)
        sender.join()


def test_pipelined_requests_answered_by_the_proxy_itself_are_answered_in_order(proxy):
    proxy.serve_many(
        {},
        [
            {"action": "respond", "status": 200, "body": "a", "path": "/a"},
            {"action": "redirect", "status": 302, "location": "http://x{path}", "path": "/b"},
        ],
    )
    client = proxy.client()
    client.send(request("/a") + request("/b/c") + request("/none") + request("/a"))

    got = [client.answer() for _ in range(4)]
    assert [(one.status, one.get("location")) for one in got] == [
        (200, None), (302, "http://x/b/c"), (404, None), (200, None),
    ]  # fmt: skip


def test_nothing_behind_a_refused_request_is_looked_at(proxy):
    log = []
    with Origin(answering(log=log)) as origin:
        proxy.serve(origin)
        client = proxy.client()
        client.send(request("/1") + b"GET /2 HTTP/1.1\r\nHost: a\r\nBad Name: 1\r\n\r\n" + request("/3"))

        assert client.answer().status == 200
        assert client.answer().status == 400
        assert client.at_end()
        assert [asked.target for asked in log] == ["/1"]


def test_requests_behind_one_that_closes_are_not_served(proxy):
    log = []
    with Origin(answering(log=log)) as origin:
        proxy.serve(origin)
        client = proxy.client()
        client.send(request("/1", "Connection: close") + request("/2"))

        answer = client.answer()
        assert answer.get("connection") == "close"
        assert client.at_end()
        assert [asked.target for asked in log] == ["/1"]


def test_a_connection_serves_as_many_requests_as_its_listener_allows(proxy):
    with Origin(answering()) as origin:
        proxy.serve(origin, listener={"keepalive_requests": 3})
        client = proxy.client()

        assert [client.ask(f"/{n}").get("connection") for n in range(3)] == [None, None, "close"]
        assert client.at_end()


# ---- ends ----------------------------------------------------------------------------------------


def test_a_client_that_shuts_its_side_still_gets_its_answer(proxy, origin):
    proxy.serve(origin)
    client = proxy.client()
    client.send(request("/1"))
    client.finish()
    upstream = origin.accept()
    upstream.request()
    upstream.send(response(200, body=b"answer"))

    assert client.answer().body == b"answer"
    assert client.at_end()


def test_pipelined_requests_before_a_half_close_are_all_answered(proxy):
    with Origin(echo) as origin:
        proxy.serve(origin)
        client = proxy.client()
        client.send(request("/1") + request("/2", method="POST", body=b"abc") + request("/3"))
        client.finish()

        assert [client.answer().body for _ in range(3)] == [b"GET /1 ", b"POST /2 abc", b"GET /3 "]
        assert client.at_end()


def test_a_half_closed_client_is_not_waited_for_longer_than_the_listener_says(proxy, origin):
    proxy.serve(origin, listener={"half_close_ms": 100})
    client = proxy.client()
    client.send(request("/1"))
    client.finish()
    upstream = origin.accept()
    upstream.request()

    assert upstream.ended()
    assert client.is_cut()
    assert proxy.record()["cause"] == "client"


def test_a_half_close_while_the_endpoint_is_being_connected_to_is_not_forgotten(proxy, origin):
    """The client's FIN is there before the connection to the endpoint stands."""
    proxy.serve(origin, listener={"half_close_ms": 100, "header_ms": 60000})
    client = proxy.client()
    client.send(request("/1")[:-2])
    assert eventually(lambda: proxy.counts("clients") == 1)
    client.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)
    client.send(b"\r\n")
    client.finish()
    upstream = origin.accept()
    upstream.request()

    assert upstream.ended()


def test_a_half_closed_client_may_be_kept_for_as_long_as_it_takes(proxy, origin):
    proxy.serve(origin, listener={"half_close_ms": 0xFFFFFFFF})
    client = proxy.client()
    client.send(request("/1"))
    client.finish()
    upstream = origin.accept()
    upstream.request()
    assert upstream.silent(0.3)
    upstream.send(response(200, body=b"late"))

    assert client.answer().body == b"late"


def test_a_half_closed_client_may_be_taken_to_have_left_at_once(proxy, origin):
    proxy.serve(origin, listener={"half_close_ms": 0})
    client = proxy.client()
    client.send(request("/1"))
    upstream = origin.accept()
    upstream.request()
    client.finish()

    assert upstream.ended()


@pytest.mark.parametrize("how", ["close", "reset"])
@pytest.mark.parametrize("when", ["waiting", "inside the answer"])
def test_a_client_that_leaves_cancels_its_request_at_the_endpoint(proxy, origin, how, when):
    served = proxy.serve(origin, listener={"half_close_ms": 50})
    client = proxy.client()
    client.send(request("/1"))
    upstream = origin.accept()
    upstream.request()
    if when != "waiting":
        upstream.send(response(200, "Content-Length: 1000000", body=None) + b"x" * 1000)
        client.answer_head()
    getattr(client, how)()
    if when != "waiting":
        trickle_until_cut(upstream)
    else:
        assert upstream.ended()

    assert eventually(lambda: served.endpoint()["outcomes"]["cancel"] == 1)
    assert proxy.record()["cause"] == "client"


def trickle_until_cut(wire) -> None:
    for _ in range(1000):
        try:
            wire.send(b"x" * 100)
            wire.silent(0.01)
        except ConnectionError:
            return
    raise AssertionError("the connection goes on")


def test_a_client_that_leaves_inside_its_body_cancels_its_request(proxy, origin):
    served = proxy.serve(origin)
    client = proxy.client()
    client.send(request("/", "Content-Length: 100", method="POST") + b"half")
    upstream = origin.accept()
    upstream.request_head()
    assert upstream.exactly(4) == b"half"
    client.reset()

    assert upstream.ended()
    assert eventually(lambda: served.endpoint()["outcomes"]["cancel"] == 1)


def test_a_body_that_ends_early_is_answered_with_400_and_never_completed_upstream(proxy, origin):
    proxy.serve(origin)
    client = proxy.client()
    client.send(request("/", "Content-Length: 100", method="POST") + b"half")
    upstream = origin.accept()
    upstream.request_head()
    client.finish()

    assert client.answer().status == 400
    assert upstream.ended()


def test_a_client_that_leaves_inside_its_head_costs_nothing(proxy, origin):
    proxy.serve(origin)
    client = proxy.client()
    client.send(b"GET / HTTP/1.1\r\nHos")
    client.finish()

    assert client.at_end()
    assert not origin.asked()


# ---- answers that come before the request is whole -----------------------------------------------


def test_an_early_answer_reaches_the_client_while_it_still_sends(proxy, origin):
    proxy.serve(origin)
    client = proxy.client()
    client.send(request("/", "Content-Length: 1000000", method="POST") + b"x" * 1000)
    upstream = origin.accept()
    upstream.request_head()
    upstream.send(response(401, body=b"who are you"))
    answer = client.answer()

    assert (answer.status, answer.body, answer.get("connection")) == (401, b"who are you", "close")
    client.send(b"x" * 100_000)  # what was on its way does not turn into a reset that loses the answer
    assert client.at_end()


def test_a_client_that_sends_on_after_an_early_answer_can_read_it_to_the_end(proxy, origin):
    """More than a few socket buffers of body are on their way when the answer comes."""
    proxy.serve(origin)
    client = proxy.client()
    n = 24 * MB
    client.send(request("/", f"Content-Length: {n}", method="POST"))
    upstream = origin.accept()
    upstream.request_head()
    upstream.send(response(413, body=b"too much"))
    client.send(b"x" * n)

    assert client.answer().body == b"too much"


def test_an_early_answer_of_an_endpoint_that_closes_reaches_the_client(proxy, origin):
    proxy.serve(origin)
    client = proxy.client()
    n = 8 * MB
    sender = threading.Thread(target=quietly, args=(client.send, request("/", method="POST", body=b"x" * n)))
    sender.start()
    upstream = origin.accept()
    upstream.request_head()
    upstream.exactly(200_000)
    upstream.send(response(403, "Connection: close", body=b"no"))
    upstream.finish()
    answer = client.answer()
    sender.join()

    assert (answer.status, answer.body) == (403, b"no")


def quietly(call, *args) -> None:
    with contextlib.suppress(OSError):
        call(*args)


def test_both_directions_flow_at_once(proxy, origin):
    proxy.serve(origin)
    client = proxy.client()
    client.send(request("/", "Transfer-Encoding: chunked", method="POST"))
    upstream = origin.accept()
    upstream.request_head()
    upstream.send(response(200, "Transfer-Encoding: chunked", body=None))
    head = client.answer_head()
    for word in (b"one", b"two", b"three"):
        client.send(b"%x\r\n%b\r\n" % (len(word), word))
        assert upstream.chunk() == word
        upstream.send(b"%x\r\n%b\r\n" % (len(word), word[::-1]))
        assert client.chunk() == word[::-1]
    client.send(b"0\r\nX: 1\r\n\r\n")
    assert (upstream.chunk(), upstream.trailers()) == (b"", [("X", "1")])
    upstream.send(b"0\r\nY: 2\r\n\r\n")

    assert head.status == 200
    assert (client.chunk(), client.trailers()) == (b"", [("Y", "2")])
    client.send(request("/next"))
    assert upstream.request().target == "/next"
    upstream.send(response(200, body=b"next"))
    assert client.answer().body == b"next"


@pytest.fixture(scope="module")
def small_steps() -> Iterator[Proxy]:
    """An engine with small buffers only: its turns end where large ones would still wait for the socket."""
    with Proxy(large_bytes=0) as proxy:
        yield proxy


def test_a_long_body_goes_on_after_the_answer_has_begun(small_steps, origin):
    """The endpoint's answer starts first; the body is then more than one turn of the loop moves."""
    proxy = small_steps
    proxy.serve(origin)
    client = proxy.client()
    n = 8 * MB
    client.send(request("/", f"Content-Length: {n}", method="POST"))
    upstream = origin.accept()
    upstream.request_head()
    upstream.send(response(200, "Transfer-Encoding: chunked", body=None) + b"2\r\nok\r\n")
    client.answer_head()
    assert client.chunk() == b"ok"
    sender = threading.Thread(target=client.send, args=(b"x" * n,))
    sender.start()
    assert len(upstream.exactly(n)) == n
    sender.join()
    upstream.send(b"0\r\n\r\n")

    assert client.chunk() == b""
    proxy.rest()


# ---- back-pressure -------------------------------------------------------------------------------


def written_until_stuck(wire, piece: bytes = b"x" * MB, *, most: int = 256 * MB) -> int:
    """Write until nothing is taken for a moment; bytes taken."""
    wire.sock.settimeout(0.3)
    total = 0
    while total < most:
        try:
            total += wire.sock.send(piece)
        except TimeoutError:
            break
    wire.sock.settimeout(10)
    return total


@pytest.mark.memory
def test_a_client_that_does_not_read_stops_the_endpoint(proxy, origin):
    proxy.serve(origin)
    client = proxy.client(receive_buffer=65536)
    n = 256 * MB
    client.send(request())
    upstream = origin.accept()
    upstream.request()
    upstream.send(response(200, f"Content-Length: {n}", body=None))
    before = proxy.memory()
    sent = written_until_stuck(upstream)

    assert sent < 32 * MB
    assert proxy.memory() - before < 4 * MB
    client.answer_head()
    assert len(client.exactly(sent)) == sent


@pytest.mark.memory
def test_an_endpoint_that_does_not_read_stops_the_client(proxy):
    with Origin(receive_buffer=65536) as origin:
        proxy.serve(origin)
        client = proxy.client()
        n = 256 * MB
        client.send(request("/", f"Content-Length: {n}", method="POST"))
        upstream = origin.accept()
        upstream.request_head()
        before = proxy.memory()
        sent = written_until_stuck(client)

        assert sent < 32 * MB
        assert proxy.memory() - before < 4 * MB
        assert len(upstream.exactly(sent)) == sent


def test_a_client_that_reads_slowly_gets_all_of_a_large_answer(proxy):
    body = bytes(range(256)) * 8192
    with Origin(answering(body)) as origin:
        proxy.serve(origin)
        client = proxy.client(receive_buffer=16384)
        client.send(request("/1") + request("/2"))

        for _ in range(2):
            head = client.answer_head()
            assert client.exactly(int(head.get("content-length"))) == body


def test_a_busy_download_does_not_keep_others_waiting(small_steps, origin):
    proxy = small_steps
    with Origin(answering("quick")) as quick:
        proxy.serve_many(
            {"bulk": ([origin], {}), "quick": ([quick], {})}, [{"path": "/bulk"}, {"service": "quick"}]
        )
        bulk, other = proxy.client(), proxy.client()
        n = 512 * MB
        bulk.send(request("/bulk"))
        upstream = origin.accept()
        upstream.request()
        upstream.send(response(200, f"Content-Length: {n}", body=None))
        bulk.answer_head()
        piece = memoryview(bytes(4 * MB))
        stop = threading.Event()

        def pour() -> None:
            while not stop.is_set():
                quietly(upstream.sock.sendall, piece)

        def drink() -> None:
            while not stop.is_set():
                quietly(bulk.sock.recv_into, bytearray(4 * MB))

        threads = [threading.Thread(target=pour, daemon=True), threading.Thread(target=drink, daemon=True)]
        upstream.sock.settimeout(0.5)
        bulk.sock.settimeout(0.5)
        for thread in threads:
            thread.start()
        answers = [other.ask(f"/{i}").body for i in range(20)]
        stop.set()
        for thread in threads:
            thread.join()

        assert answers == [b"quick"] * 20
        proxy.rest()


def test_the_first_event_of_a_stream_is_not_held_back(proxy, origin):
    proxy.serve(origin)
    client = proxy.client()
    client.send(request("/events", "Accept: text/event-stream"))
    upstream = origin.accept()
    upstream.request()
    upstream.send(response(200, "Content-Type: text/event-stream", body=None))
    head = client.answer_head()
    assert (head.get("content-type"), head.get("transfer-encoding")) == ("text/event-stream", "chunked")
    for n in range(5):
        upstream.send(b"data: %d\n\n" % n)
        assert client.chunk() == b"data: %d\n\n" % n


# ---- connections to endpoints --------------------------------------------------------------------


def test_connections_to_an_endpoint_are_used_again_most_recent_first(proxy, origin):
    served = proxy.serve(origin)
    clients = [proxy.client() for _ in range(3)]
    upstreams = []
    for client in clients:
        client.send(request())
        upstreams.append(origin.accept())
        upstreams[-1].request()
    for at in (1, 0, 2):
        upstreams[at].send(response(200, body=b"x"))
        clients[at].answer()
    clients[0].send(request("/again"))

    assert upstreams[2].request().target == "/again"
    assert (served.endpoint()["connects"], served.endpoint()["open"]) == (3, 3)
    upstreams[2].send(response(200, body=b"x"))
    clients[0].answer()
    assert served.endpoint()["reused"] == 1


def test_no_more_idle_connections_are_kept_than_the_service_says(proxy, origin):
    served = proxy.serve(origin, service={"pool_max": 1})
    clients = [proxy.client() for _ in range(3)]
    upstreams = []
    for client in clients:
        client.send(request())
        upstreams.append(origin.accept())
        upstreams[-1].request()
    for client, upstream in zip(clients, upstreams, strict=True):
        upstream.send(response(200, body=b"x"))
        client.answer()

    assert upstreams[1].ended()
    assert upstreams[2].ended()
    assert (served.endpoint()["open"], served.endpoint()["idle"]) == (1, 1)


def test_a_connection_to_an_endpoint_serves_as_many_requests_as_the_service_allows(proxy, origin):
    proxy.serve(origin, service={"pool_requests": 2})
    client = proxy.client()
    client.send(request("/1"))
    upstream = origin.accept()
    for n in (1, 2):
        assert upstream.request().target == f"/{n}"
        upstream.send(response(200, body=b"x"))
        client.answer()
        if n == 1:
            client.send(request("/2"))

    assert upstream.ended()


def test_an_answer_that_says_close_ends_its_connection_and_not_the_clients(proxy, origin):
    proxy.serve(origin)
    client = proxy.client()
    client.send(request("/1"))
    upstream = origin.accept()
    upstream.request()
    upstream.send(response(200, "Connection: close", body=b"1"))
    answer = client.answer()

    assert (answer.body, answer.get("connection")) == (b"1", None)
    assert upstream.ended()
    client.send(request("/2"))
    second = origin.accept()
    second.request()
    second.send(response(200, body=b"2"))
    assert client.answer().body == b"2"


def test_an_idle_connection_that_says_something_is_dropped(proxy, origin):
    served = proxy.serve(origin)
    client = proxy.client()
    client.send(request("/1"))
    upstream = origin.accept()
    upstream.request()
    upstream.send(response(200, body=b"1"))
    client.answer()
    upstream.send(response(408, body=b"poison"))

    assert upstream.ended()
    assert served.endpoint()["open"] == 0
    client.send(request("/2"))
    second = origin.accept()
    second.request()
    second.send(response(200, body=b"2"))
    assert client.answer().body == b"2"


def test_a_large_upload_does_not_cost_the_connection_its_place_in_the_pool(proxy, origin):
    """The edge of an endpoint whose window opens late finds its connection idle."""
    served = proxy.serve(origin)
    client = proxy.client()
    for n in range(3):
        client.send(request("/", method="POST", body=b"x" * (3 * MB)))
        upstream = origin.connections[0] if n else origin.accept()
        upstream.request()
        upstream.send(response(200, body=b"x"))
        client.answer()

    assert (served.endpoint()["connects"], served.endpoint()["reused"]) == (1, 2)


def test_connections_of_an_endpoint_that_is_gone_are_closed(proxy, origin):
    proxy.serve(origin)
    client = proxy.client()
    client.send(request("/1"))
    upstream = origin.accept()
    upstream.request()
    upstream.send(response(200, body=b"1"))
    client.answer()
    proxy.serve("127.0.0.1:9")

    assert upstream.ended()


def test_a_request_in_flight_ends_with_the_configuration_it_began_with(proxy, origin):
    proxy.serve(origin)
    client = proxy.client()
    client.send(request("/1"))
    upstream = origin.accept()
    upstream.request()
    with Origin(answering("new")) as new:
        proxy.serve(new)
        upstream.send(response(200, body=b"old"))

        assert client.answer().body == b"old"
        assert client.ask("/2").body == b"new"
        assert upstream.ended()


def test_a_busy_connection_is_not_kept_for_the_next_owner_of_its_endpoints_slot(proxy, origin, monkeypatch):
    """The slot's number is the same, the address is another."""
    monkeypatch.setattr(proxy, "slot", lambda kind: 2040 if kind == "endpoint" else 1000)
    served = proxy.serve(origin)
    old, new_client = proxy.client(), proxy.client()
    old.send(request("/old"))
    upstream = origin.accept()
    upstream.request()
    proxy.board.release_endpoint(served.slot())
    proxy.used.clear()
    with Origin(answering("new")) as new:
        proxy.serve(new)
        assert new_client.ask("/").body == b"new"
        upstream.send(response(200, body=b"old"))
        assert old.answer().body == b"old"
        assert [new_client.ask("/").body for _ in range(3)] == [b"new"] * 3
        assert old.ask("/").body == b"new"
    proxy.board.release_endpoint(proxy.used.pop())
    proxy.serve("127.0.0.1:9")
