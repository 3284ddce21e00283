"""WebSocket through the proxy, spoken by the `websockets` library at both ends.

In place of the Autobahn suite: its newest release (autobahntestsuite 25.10.1) is still for Python 2.7
and does not compile on Python 3.
"""

import contextlib
import random
import threading

import pytest
from fakes.engine_process import eventually
from websockets.exceptions import ConnectionClosed, ConnectionClosedError, ConnectionClosedOK
from websockets.frames import CloseCode
from websockets.sync.client import connect
from websockets.sync.server import serve

LIMIT = 32 << 20


class Server:
    """A WebSocket server on a thread of its own."""

    def __init__(self, handler, **more):
        self.server = serve(handler, "127.0.0.1", 0, max_size=LIMIT, **more)
        self.address = f"127.0.0.1:{self.server.socket.getsockname()[1]}"
        self.thread = threading.Thread(target=self.server.serve_forever)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.thread.join()


def echo(ws):
    with contextlib.suppress(ConnectionClosed):
        for message in ws:
            ws.send(message)


@contextlib.contextmanager
def through(proxy, handler=echo, *, compression=None, **more):
    """A client of a server with that handler, the proxy between them."""
    with Server(handler, compression=compression) as server:
        served = proxy.serve(server)
        url = f"ws://127.0.0.1:{proxy.port}/chat"
        with connect(url, compression=compression, max_size=LIMIT, proxy=None, **more) as client:
            yield client, served


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65535, 65536, 200_000, 8 << 20])
def test_messages_of_every_size_class_come_back(proxy, size):
    with through(proxy) as (client, _):
        data = random.Random(size).randbytes(size)
        client.send(data)
        assert client.recv() == data
        client.send("ä" * (size // 8))
        assert client.recv() == "ä" * (size // 8)


def test_fragments_arrive_as_one_message_and_as_fragments(proxy):
    seen = []

    def handler(ws):
        with contextlib.suppress(ConnectionClosed):
            while True:
                seen.append(list(ws.recv_streaming()))
                ws.send(iter(["one", "", "two"]))

    with through(proxy, handler) as (client, _):
        client.send(iter([b"a", b"b" * 70_000, b"c"]))
        assert list(client.recv_streaming()) == ["one", "", "two", ""]
    assert seen == [[b"a", b"b" * 70_000, b"c", b""]]


def test_a_letter_cut_in_two_by_fragments_and_by_the_wire_arrives_whole(proxy):
    """Frames by hand, one byte of the wire at a time, with a mask of zeros."""
    first, second = "\N{EURO SIGN}".encode()[:2], "\N{EURO SIGN}".encode()[2:]
    with through(proxy) as (client, _):
        for frame in (b"\x01" + bytes([0x80 | len(first)]), b"\x80" + bytes([0x80 | len(second)])):
            for byte in frame + bytes(4) + (first if frame[0] == 1 else second):
                client.socket.sendall(bytes([byte]))
        assert client.recv() == "\N{EURO SIGN}"


def test_text_that_is_no_utf_8_is_the_ends_to_refuse(proxy):
    with through(proxy) as (client, _):
        client.socket.sendall(b"\x81\x82" + bytes(4) + b"\xc3\x28")
        with pytest.raises(ConnectionClosedError) as error:
            client.recv()
        assert error.value.rcvd.code == CloseCode.INVALID_DATA


def test_many_small_frames_in_one_piece_arrive_in_their_order(proxy):
    n = 5000
    with through(proxy) as (client, _):
        wire = b"".join(b"\x82\x82" + bytes(4) + i.to_bytes(2) for i in range(n))
        sender = threading.Thread(target=client.socket.sendall, args=(wire,))
        sender.start()
        assert [int.from_bytes(client.recv()) for _ in range(n)] == list(range(n))
        sender.join()


def test_pings_between_fragments_are_answered_by_the_other_end(proxy):
    with through(proxy) as (client, _):

        def parts():
            for part in ("a", "b", "c"):
                assert client.ping(part).wait(10)
                yield part

        client.send(parts())
        assert client.recv() == "abc"
        assert client.ping(b"x" * 125).wait(10)


def test_a_server_may_ping_too(proxy):
    answered = threading.Event()

    def handler(ws):
        if ws.ping().wait(10):
            answered.set()
        echo(ws)

    with through(proxy, handler) as (client, _):
        client.send("x")
        assert client.recv() == "x"
        assert answered.wait(10)


def test_compression_is_agreed_on_by_the_ends(proxy):
    with through(proxy, compression="deflate") as (client, _):
        assert client.protocol.extensions
        for size in (10, 100_000, 3 << 20):
            client.send("x" * size)
            assert client.recv() == "x" * size


def test_a_subprotocol_is_agreed_on_by_the_ends(proxy):
    with Server(echo, subprotocols=["fix", "json"]) as server:
        proxy.serve(server)
        url = f"ws://127.0.0.1:{proxy.port}/"
        with connect(url, subprotocols=["json"], proxy=None) as client:
            assert client.subprotocol == "json"


@pytest.mark.parametrize(
    "code", [CloseCode.NORMAL_CLOSURE, CloseCode.GOING_AWAY, CloseCode.MESSAGE_TOO_BIG, 4999]
)
def test_a_close_code_and_its_reason_reach_the_client(proxy, code):
    def handler(ws):
        ws.recv()
        ws.close(code, "why not")

    with through(proxy, handler) as (client, _):
        client.send("x")
        with pytest.raises(ConnectionClosed) as error:
            client.recv()
        assert (error.value.rcvd.code, error.value.rcvd.reason) == (code, "why not")


def test_a_close_code_and_its_reason_reach_the_server(proxy):
    closed = []

    def handler(ws):
        try:
            ws.recv()
        except ConnectionClosed as error:
            closed.append((error.rcvd.code, error.rcvd.reason))

    with through(proxy, handler) as (client, _):
        client.close(4001, "bye")
    assert eventually(lambda: closed) == [(4001, "bye")]
    assert proxy.record()["status"] == 101


def test_what_breaks_the_protocol_is_the_ends_to_refuse(proxy):
    with through(proxy) as (client, _):
        client.socket.sendall(b"\xff\xff\xff\xff")
        with pytest.raises(ConnectionClosedError) as error:
            client.recv()
        assert error.value.rcvd.code == CloseCode.PROTOCOL_ERROR


def test_a_server_that_vanishes_is_noticed_by_the_client(proxy):
    def handler(ws):
        ws.recv()
        ws.socket.close()

    with through(proxy, handler) as (client, _):
        client.send("x")
        with pytest.raises(ConnectionClosedError):
            client.recv()


def test_many_conversations_at_once_do_not_mix(proxy):
    with Server(echo) as server:
        served = proxy.serve(server)
        url = f"ws://127.0.0.1:{proxy.port}/"
        failures = []

        def talk(number):
            rng = random.Random(number)
            with connect(url, max_size=LIMIT, proxy=None) as client:
                for _ in range(15):
                    data = rng.randbytes(rng.choice([5, 2000, 90_000]))
                    client.send(data)
                    if client.recv() != data:
                        failures.append(number)

        threads = [threading.Thread(target=talk, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []
        assert eventually(lambda: served.endpoint()["outcomes"]["1xx"]) == 8


def test_a_conversation_goes_on_through_reloads(proxy):
    with through(proxy) as (client, _):
        for number in range(20):
            proxy.again()
            client.send(str(number))
            assert client.recv() == str(number)
        assert proxy.snapshots() == 1
        with contextlib.suppress(ConnectionClosedOK):
            client.close()
