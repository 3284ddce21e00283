"""Listening sockets: who gets which, and how one is closed without losing who waits."""

import contextlib
import os
import select
import socket
from pathlib import Path

import pytest
from harness.turnout import free_port
from hypothesis import given
from hypothesis import strategies as st

from turnout.proxy.sockets import (
    BindError,
    Listening,
    ListeningSet,
    bind,
    check_free,
    close_all,
    forget,
    key_of_bind,
    key_of_socket,
    listen,
    owner_of,
    refuse_new,
    shares,
)


@given(st.integers(1, 20), st.integers(1, 20))
def test_every_worker_has_a_socket_and_every_socket_a_worker(sockets, workers):
    names = [f"socket {number}" for number in range(sockets)]
    out = shares(names, list(range(workers)))

    assert set(out) == set(range(workers))
    assert all(out.values())
    assert {name for given_ in out.values() for name in given_} == set(names)


def test_with_a_socket_each_nobody_shares():
    assert shares(["a", "b", "c"], [0, 1, 2]) == {0: ["a"], 1: ["b"], 2: ["c"]}


def test_nobody_there_gets_nothing():
    assert shares(["a"], []) == {}


@pytest.mark.parametrize(
    ("written", "key"),
    [
        ("127.0.0.1:80", "127.0.0.1:80"),
        ("localhost:80", "127.0.0.1:80"),
        ("[0:0::1]:80", "[::1]:80"),
        ("unix:/run/x", "unix:/run/x"),
    ],
)
def test_an_address_has_one_key_however_it_is_written(written, key):
    assert key_of_bind(written) == key


def test_a_name_without_address_cannot_be_listened_on():
    with pytest.raises(BindError):
        key_of_bind("no.such.name.invalid:80")


def test_a_missing_host_is_every_address():
    assert key_of_bind(":80") in {"[::]:80", "0.0.0.0:80"}


def test_a_socket_has_the_key_it_was_bound_by(tmp_path):
    for key in (f"127.0.0.1:{free_port()}", f"unix:{tmp_path}/s"):
        item = bind(key)
        assert key_of_socket(item.sock) == key
        forget(item)


def test_a_bound_socket_takes_no_connection_until_it_listens():
    key = f"127.0.0.1:{free_port()}"
    one, two = bind(key), bind(key)
    listen(one, 8)
    clients = [socket.create_connection(one.sock.getsockname()) for _ in range(8)]
    for _ in clients:
        one.sock.accept()[0].close()
    close_all([one, two])
    for client in clients:
        client.close()


def test_a_taken_port_names_who_has_it():
    with socket.create_server(("127.0.0.1", 0)) as other:
        key = key_of_socket(other)
        with pytest.raises(BindError, match=f"in use by process {os.getpid()}"):
            check_free(key)
        assert owner_of(key).startswith(f"process {os.getpid()} (")


def test_a_port_that_shares_is_found_taken_too():
    item = bind(f"127.0.0.1:{free_port()}")
    listen(item, 1)
    with pytest.raises(BindError, match="in use"):
        check_free(item.key)
    close_all([item])


def test_a_stale_unix_socket_gives_way_and_a_living_one_does_not(tmp_path):
    key = f"unix:{tmp_path}/s"
    listen(first := bind(key), 1)
    with pytest.raises(BindError, match="in use"):
        bind(key)
    close_all([first])
    listen(second := bind(key), 1)
    forget(second)

    assert not (tmp_path / "s").exists()


def test_a_file_in_the_place_of_a_unix_socket_stays(tmp_path):
    (tmp_path / "s").write_text("precious")
    with pytest.raises(BindError, match="no socket"):
        bind(f"unix:{tmp_path}/s")

    assert (tmp_path / "s").read_text() == "precious"


def descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def queued(item: Listening) -> bool:
    poll = select.poll()
    poll.register(item.sock, select.POLLIN)
    return bool(poll.poll(0))


def test_who_is_in_the_queue_stays_when_nobody_new_gets_in():
    item = bind(f"127.0.0.1:{free_port()}")
    listen(item, 8)
    inside = [socket.create_connection(item.sock.getsockname()) for _ in range(3)]
    refuse_new(item)
    outside = socket.socket()
    outside.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        outside.connect(item.sock.getsockname())
    for client in inside:
        client.send(b"after")
        accepted, _ = item.sock.accept()
        accepted.setblocking(True)
        assert accepted.recv(8) == b"after"
        accepted.close()
        client.close()

    assert not queued(item)
    assert outside.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
    outside.close()
    close_all([item])


def test_a_shared_socket_lets_new_ones_in():
    item = bind(f"127.0.0.1:{free_port()}")
    listen(item, 8)
    item.shared = True
    refuse_new(item)
    socket.create_connection(item.sock.getsockname(), timeout=5).close()
    close_all([item])


# ---- the set ---------------------------------------------------------------------------------------------


@pytest.fixture
def sockets():
    out = ListeningSet()
    yield out
    close_all(out.all())


def opened(sockets: ListeningSet, binds: dict[str, str], workers: int) -> dict[str, str]:
    opening, failures = sockets.prepare({name: (address, 8) for name, address in binds.items()}, workers)
    assert failures == []
    sockets.commit(opening)
    return opening.keys


def test_an_address_has_a_socket_for_each_worker_and_more_workers_bring_more(sockets):
    key = f"127.0.0.1:{free_port()}"
    assert opened(sockets, {"web": key}, 2) == {"web": key}
    before = list(sockets.by_key[key])
    opened(sockets, {"web": key}, 3)
    opened(sockets, {"web": key}, 1)

    assert sockets.by_key[key][:2] == before
    assert len(sockets.by_key[key]) == 3, "a socket that may have a queue is never dropped"


def test_what_is_offered_is_used_first(sockets):
    key = f"127.0.0.1:{free_port()}"
    offered = bind(key)
    sockets.offers = {key: [offered]}
    opened(sockets, {"web": key}, 2)

    assert sockets.by_key[key][0] is offered
    assert len(sockets.by_key[key]) == 2
    assert sockets.take_offers() == []


def test_a_socket_that_somebody_else_keeps_open_is_enough_for_all(sockets):
    key = f"127.0.0.1:{free_port()}"
    offered = bind(key)
    offered.shared = True
    sockets.offers = {key: [offered]}
    opened(sockets, {"web": key}, 4)

    assert sockets.by_key[key] == [offered]


def test_every_failure_is_told_and_nothing_stays_open(sockets):
    free = free_port()
    before = descriptors()
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = key_of_socket(other)
        binds = {"a": f"127.0.0.1:{free}", "b": taken, "c": "192.0.2.1:80"}
        opening, failures = sockets.prepare({name: (key, 8) for name, key in binds.items()}, 2)

    assert opening is None
    assert [failure.listener for failure in failures] == ["b", "c"]
    assert sockets.all() == []
    assert descriptors() == before


def test_two_listeners_cannot_have_one_address(sockets):
    port = free_port()
    binds = {"a": (f"127.0.0.1:{port}", 8), "b": (f"localhost:{port}", 8)}
    _, (failure,) = sockets.prepare(binds, 1)

    assert failure.listener == "b"
    assert "is the address of the listener a too" in failure.why


def test_a_listener_can_move_from_every_address_to_one(sockets):
    port = free_port()
    opened(sockets, {"web": f"0.0.0.0:{port}"}, 1)
    keys = opened(sockets, {"web": f"127.0.0.1:{port}"}, 1)

    assert keys == {"web": f"127.0.0.1:{port}"}
    assert set(sockets.by_key) == {f"0.0.0.0:{port}", f"127.0.0.1:{port}"}
