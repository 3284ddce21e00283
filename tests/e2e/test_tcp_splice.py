"""What passes unchanged from one plain connection to another goes through a pipe once there is much of it,
and arrives as if it did not: in order, whole, with its end, its reset and its bounds.
"""

import contextlib
import itertools
import random
import threading
from hashlib import sha256
from pathlib import Path

import pytest
from fakes.engine_process import Proxy, eventually
from fakes.origin import Origin
from fakes.wire import request, response

TCP = {"protocol": "tcp"}
SMALL, PIPE = 34816, 1 << 20  # bytes: the smallest read that calls for a pipe, and what a pipe holds
NEAR = [SMALL - 1, SMALL, SMALL + 1, PIPE - 1, PIPE, PIPE + 1, PIPE + SMALL]
BLOB = random.Random(7).randbytes(9 * PIPE + 12345)


def pipes(proxy: Proxy) -> int:
    """Ends of pipes that the engine has open."""
    folder = Path(f"/proc/{proxy.workers[0].process.pid}/fd")
    return sum(str(link.readlink()).startswith("pipe:") for link in folder.iterdir())


def while_sending(sender, data, read):
    """What `read` gives while another thread sends."""
    thread = threading.Thread(target=sender.send, args=(data,))
    thread.start()
    try:
        return read()
    finally:
        thread.join()


def send_in_vain(conn):
    """Until the connection breaks."""
    with contextlib.suppress(ConnectionError):
        while True:
            conn.send(BLOB)


def same(got, sent):
    """Compared like this a difference does not fill the screen."""
    return sha256(got).digest() == sha256(sent).digest()


@pytest.mark.parametrize("unix", [False, True], ids=["tcp", "unix"])
def test_pieces_of_every_size_arrive_in_their_order_both_ways(proxy, tmp_path, unix):
    with Origin(path=str(tmp_path / "socket") if unix else None) as origin:
        proxy.serve(origin, listener=TCP)
        client = proxy.client()
        client.send(b"x")
        upstream = origin.accept()
        assert upstream.exactly(1) == b"x"
        for size in [*NEAR, 1, 5 * PIPE + 1, 10, len(BLOB), 1]:
            piece = BLOB[-size:]
            assert same(while_sending(client, piece, lambda n=size: upstream.exactly(n)), piece)
            assert same(while_sending(upstream, piece, lambda n=size: client.exactly(n)), piece)


def test_a_large_session_uses_pipes_and_a_talkative_one_does_not():
    with Proxy() as proxy, Origin() as origin:
        proxy.serve(origin, listener=TCP)
        client = proxy.client()
        client.send(b"x")
        upstream = origin.accept()
        assert upstream.exactly(1) == b"x"
        before = pipes(proxy)
        for _ in range(200):
            client.send(BLOB[:1000])
            assert upstream.exactly(1000) == BLOB[:1000]
        assert pipes(proxy) == before
        while_sending(client, BLOB, lambda: upstream.exactly(len(BLOB)))
        assert pipes(proxy) > before
        origin.close()
        proxy.rest()


def test_the_end_of_a_large_session_comes_behind_all_of_it(proxy):
    with Origin(lambda conn: (conn.send(BLOB), conn.finish(), conn.rest())) as origin:
        proxy.serve(origin, listener=TCP)
        client = proxy.client()
        assert same(client.rest(), BLOB)
        client.send(b"more")
        client.finish()
        record = proxy.record()
        assert (record["bytes_in"], record["bytes_out"]) == (4, len(BLOB))
        assert record["reason"] == "closed by the endpoint"


def test_a_reset_in_the_middle_of_a_large_session_is_passed_on(proxy, origin):
    served = proxy.serve(origin, listener=TCP)
    client = proxy.client()
    upstream = origin.accept()
    while_sending(upstream, BLOB, lambda: client.exactly(len(BLOB) - 100))
    upstream.reset()
    assert client.was_reset()
    assert proxy.record()["reason"] == "the endpoint cut the connection"
    assert served.endpoint()["outcomes"]["reset"] == 1


def test_a_client_that_stops_reading_holds_one_pipe_and_gives_it_back_when_it_goes(proxy, origin):
    proxy.serve(origin, listener=TCP)
    for _ in range(20):
        client = proxy.client(receive_buffer=4096)
        client.send(b"x")
        upstream = origin.accept()
        sender = threading.Thread(target=send_in_vain, args=(upstream,))
        sender.start()
        assert eventually(lambda: proxy.counts("buffers_large") == 1)
        client.reset()
        sender.join()
        assert eventually(lambda: proxy.counts("buffers_large") == 0)
    # At most the ones that are kept for the next: none of those that were full.
    assert pipes(proxy) <= 2 * 16


def test_a_session_that_stood_still_goes_on_and_hears_small_things_again(proxy, origin):
    proxy.serve(origin, listener=TCP)
    client = proxy.client(receive_buffer=4096)
    upstream = origin.accept()
    for _ in range(3):
        sender = threading.Thread(target=upstream.send, args=(BLOB + BLOB,))
        sender.start()
        # More than the kernel holds for sockets that nobody reads from.
        assert eventually(lambda: proxy.counts("buffers_large") == 1 and upstream.unsent())
        assert same(client.exactly(2 * len(BLOB)), BLOB + BLOB)
        sender.join()
        for _ in range(3):
            upstream.send(b"small")
            assert client.exactly(5) == b"small"
            client.send(b"answer")
            assert upstream.exactly(6) == b"answer"


def test_pipes_count_against_the_memory_that_buffers_may_take():
    with Proxy(large_bytes=3 * PIPE) as proxy, Origin(send_in_vain) as origin:
        proxy.serve(origin, listener=TCP)
        before = pipes(proxy)
        clients = [proxy.client(receive_buffer=4096) for _ in range(12)]
        assert eventually(lambda: proxy.counts("buffers_small") >= 8)
        assert pipes(proxy) - before <= 2 * 3
        assert proxy.counts("buffers_large") <= 3 + 1
        for client in clients:
            client.reset()
        proxy.rest()


def test_without_descriptors_for_pipes_bytes_are_copied():
    """Idle sessions take up all that there are."""
    with Proxy(nofile=64) as proxy, Origin() as origin:
        proxy.serve(origin, listener=TCP)
        client = proxy.client()
        upstream = origin.accept()
        before = pipes(proxy)
        for _ in range(64):
            proxy.client()
        folder = Path(f"/proc/{proxy.workers[0].process.pid}/fd")
        assert eventually(lambda: len(list(folder.iterdir())) >= 63)
        assert same(while_sending(upstream, BLOB, lambda: client.exactly(len(BLOB))), BLOB)
        assert pipes(proxy) == before
        origin.close()
        proxy.rest()


# ---- HTTP bodies whose length is known -------------------------------------------------------------------


def test_bodies_of_every_size_pass_whole_both_ways_on_one_connection(proxy):
    def mirror(conn):
        with conn:
            for _ in NEAR:
                conn.send(response(200, body=conn.request().body))

    with Origin(mirror) as origin:
        proxy.serve(origin)
        client = proxy.client()
        for size in NEAR:
            asked = request("/", method="POST", body=BLOB[:size])
            answer = while_sending(client, asked, client.answer)
            assert answer.status == 200
            assert same(answer.body, BLOB[:size])


def test_a_request_right_behind_a_large_body_is_a_request(proxy):
    seen = []

    def note(conn):
        with conn:
            for _ in range(2):
                asked = conn.request()
                seen.append((asked.method, asked.target, len(asked.body)))
                conn.send(response(200, body=b"ok"))

    with Origin(note) as origin:
        proxy.serve(origin)
        client = proxy.client()
        both = request("/first", method="POST", body=BLOB[: 3 * PIPE]) + request("/second")
        first = while_sending(client, both, client.answer)
        assert (first.body, client.answer().body) == (b"ok", b"ok")
    assert seen == [("POST", "/first", 3 * PIPE), ("GET", "/second", 0)]


def test_more_behind_a_large_answer_than_its_length_goes_to_nobody(proxy):
    sizes = itertools.chain([3 * PIPE], itertools.repeat(3))

    def chatter(conn):
        with conn:
            conn.request()
            conn.send(
                response(200, body=BLOB[: next(sizes)]) + b"HTTP/1.1 200 Forged\r\nContent-Length: 0\r\n\r\n"
            )
            conn.is_cut()

    with Origin(chatter) as origin:
        proxy.serve(origin)
        client = proxy.client()
        client.send(request("/"))
        assert same(client.answer().body, BLOB[: 3 * PIPE])
        client.send(request("/"))
        again = client.answer()
        assert (again.reason, again.body) == ("Reason", BLOB[:3])


def test_an_answer_without_a_length_to_a_client_of_http_1_0_ends_with_its_connection(proxy):
    def pour(conn):
        with conn:
            conn.request()
            conn.send(response(200, body=None) + BLOB)

    with Origin(pour) as origin:
        proxy.serve(origin)
        client = proxy.client()
        client.send(request("/", version="1.0"))
        assert client.answer_head().get("transfer-encoding") is None
        assert same(client.rest(), BLOB)
