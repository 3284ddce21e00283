"""Peers that send what nobody asked for, or do not read what they asked for."""

import contextlib
import fcntl
import os
import signal
import socket
import threading
import time

import pytest
from fakes.client import Client
from fakes.engine_process import eventually
from fakes.wire import request, response


@contextlib.contextmanager
def standing_still(proxy):
    """What is sent meanwhile is all there when the worker goes on."""
    os.kill(proxy.workers[0].process.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(proxy.workers[0].process.pid, signal.SIGCONT)


@pytest.fixture
def narrow(proxy):
    """A proxy whose clients must read: the kernel takes little in their place."""
    for sock in proxy.sockets[0]:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    return proxy


def test_bytes_on_an_idle_connection_are_never_the_answer_to_a_request_that_comes_with_them(proxy, origin):
    proxy.serve(origin)
    client = proxy.client()
    client.send(request("/first"))
    first = origin.accept()
    first.request()
    first.send(response(body=b"one"))
    assert client.answer().body == b"one"
    with standing_still(proxy):
        client.send(request("/second"))
        first.send(response(body=b"planted"))
    second = origin.accept()
    assert second.request().target == "/second"
    second.send(response(body=b"two"))

    assert client.answer().body == b"two"


def test_interim_answers_wait_for_a_client_that_does_not_read(narrow, origin):
    proxy = narrow
    proxy.serve(origin)
    client = Client(proxy.port, receive_buffer=4096)
    client.send(request("/"))
    upstream = origin.accept()
    upstream.request()
    hint = response(103, *[f"X-{i}: {'x' * 7000}" for i in range(4)], body=None)
    told = threading.Thread(target=upstream.send, args=(hint * 99 + response(body=b"ok"),))
    told.start()

    assert not eventually(lambda: proxy.counts("buffers_small") > 10, seconds=0.5)
    answer = client.answer()
    told.join()
    client.close()
    assert (len(answer.interim), answer.status, answer.body) == (99, 200, b"ok")


def test_a_client_that_reads_no_interim_answers_is_cut_and_not_the_endpoints_fault(narrow, origin):
    proxy = narrow
    served = proxy.serve(origin, listener={"body_idle_ms": 200}, service={"response_ms": 400})
    client = Client(proxy.port, receive_buffer=4096)
    client.send(request("/"))
    upstream = origin.accept()
    upstream.request()
    hint = response(103, *[f"X-{i}: {'x' * 7000}" for i in range(4)], body=None)
    told = threading.Thread(target=upstream_floods, args=(upstream, hint * 99))
    told.start()

    record = proxy.record()
    told.join()
    client.close()
    assert record["reason"] == "the client did not read its answer in time"
    assert served.endpoint()["outcomes"]["timeout"] == 0


def upstream_floods(upstream, data):
    with contextlib.suppress(OSError):
        upstream.send(data)


def test_an_endpoint_that_sends_on_gives_a_client_that_does_not_read_no_more_time(narrow, origin):
    proxy = narrow
    proxy.serve(origin, listener={"body_idle_ms": 400})
    client = Client(proxy.port, receive_buffer=4096)
    client.send(request("/"))
    upstream = origin.accept()
    upstream.request()
    upstream.send(response(200, "Content-Length: 100000000", body=None))
    upstream.sock.setblocking(False)
    piece, end = b"x" * 49152, time.monotonic() + 4
    found = []
    sent = 0
    while not found and time.monotonic() < end:
        with contextlib.suppress(BlockingIOError, ConnectionError):
            sent += upstream.sock.send(piece if sent < len(piece) else b"x")
        time.sleep(0.02)
        found = proxy.records()
    client.close()
    assert found, sent
    assert found[0]["reason"] == "the client did not read its answer in time"


def test_a_log_that_takes_no_more_gets_whole_lines_when_it_does_again(proxy):
    proxy.serve(
        "127.0.0.1:9", route={"action": "respond", "status": 200, "body": "", "content_type": "text/plain"}
    )
    ours, theirs = os.pipe()
    fcntl.fcntl(theirs, fcntl.F_SETPIPE_SZ, 4096)
    os.set_blocking(theirs, False)
    proxy.workers[0].ask("log_to", f"/proc/{os.getpid()}/fd/{theirs}")
    client = proxy.client()
    for _ in range(40):
        client.ask("/" + "x" * 500)
    proxy.workers[0].ask("flush")
    raw = os.read(ours, 1 << 20)
    for _ in range(40):
        proxy.workers[0].ask("flush")
        os.set_blocking(ours, False)
        with contextlib.suppress(BlockingIOError):
            raw += os.read(ours, 1 << 20)
    os.close(ours)
    os.close(theirs)
    lines = raw.decode().splitlines()
    assert len(lines) == 40
    assert all(line.startswith("{") and line.endswith("}") for line in lines)
