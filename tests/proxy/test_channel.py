"""Messages between supervisor and worker, however the bytes arrive."""

import asyncio
import contextlib
import os
import socket
from pathlib import Path

import pytest
from harness.client import until
from harness.turnout import scenario
from hypothesis import given
from hypothesis import strategies as st

from turnout.proxy import channel
from turnout.proxy.channel import Channel, ChannelError, Decoder, Message, encode

fields = st.dictionaries(
    st.text(max_size=8).filter(lambda key: key not in {"kind", "fds"}),
    st.integers() | st.text(max_size=8),
    max_size=3,
)
messages = st.builds(Message, st.text(max_size=8), fields, st.binary(max_size=200))


@given(st.lists(messages, max_size=5), st.data())
def test_messages_come_out_as_they_went_in_wherever_the_stream_is_cut(sent, data):
    stream = b"".join(encode(message) for message in sent)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    decoder = Decoder()
    received = []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        received += decoder.feed(stream[start:end])

    assert received == sent


def test_messages_come_out_byte_by_byte():
    sent = [Message("a", {"n": 1}, b"x" * 10), Message("b")]
    decoder = Decoder()
    received = [m for byte in b"".join(map(encode, sent)) for m in decoder.feed(bytes([byte]))]

    assert received == sent


@pytest.mark.parametrize(
    "stream",
    [
        b"\xff\xff\xff\xff",  # longer than any frame
        b"\x00\x00\x00\x00",  # no room for a head
        b"\x06\x00\x00\x00\x02\x00\x00\x00{}",  # a head without kind
        b"\x06\x00\x00\x00\x02\x00\x00\x00[]",
        b"\x06\x00\x00\x00\x02\x00\x00\x00\xff\xff",
        b"\x05\x00\x00\x00\xff\x00\x00\x00{",  # a head longer than its frame
        encode(Message("a")).replace(b'"fds": 0', b'"fds": 1'),  # descriptors that did not come
        encode(Message("a")).replace(b'"fds": 0', b'"fds":-1'),
    ],
)
def test_a_stream_that_makes_no_sense_is_refused(stream):
    with pytest.raises(ChannelError):
        Decoder().feed(stream)


@given(st.binary(max_size=64))
def test_no_bytes_do_worse_than_be_refused(stream):
    with contextlib.suppress(ChannelError):
        Decoder().feed(stream)


def test_a_message_that_is_too_large_is_not_sent():
    with pytest.raises(ChannelError):
        encode(Message("a", body=memoryview(bytes(1)).obj * (channel.FRAME_MAX + 1)))


def descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


class Ends:
    """Both ends of a channel, and what they heard."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        self.heard: list[Message] = []
        self.ends: list[str] = []
        self.here = Channel(ours, lambda _: None, self.ends.append)
        self.there = Channel(theirs, self.heard.append, self.ends.append)

    def close(self) -> None:
        self.here.close()
        self.there.close()


@scenario
async def test_a_snapshot_larger_than_the_sockets_buffer_arrives_whole_and_in_order():
    ends = Ends()
    body = os.urandom(8 << 20)
    ends.here.send(Message("snapshot", body=body))
    ends.here.send(Message("after"))
    await until(lambda: len(ends.heard) == 2)

    assert ends.heard == [Message("snapshot", body=body), Message("after")]
    ends.close()


@scenario
async def test_descriptors_arrive_with_their_message_and_close_on_exec():
    ends = Ends()
    pairs = [os.pipe() for _ in range(40)]
    body = bytes(1 << 20)  # so that the second message's descriptors wait in a queue
    ends.here.send(Message("one", body=body, fds=tuple(read for read, _ in pairs[:20])))
    ends.here.send(Message("two", fds=tuple(read for read, _ in pairs[20:])))
    for read, write in pairs:
        os.close(read)
        os.write(write, b"%d" % write)
        os.close(write)
    await until(lambda: len(ends.heard) == 2)
    arrived = [fd for message in ends.heard for fd in message.fds]

    assert [int(os.read(fd, 16)) for fd in arrived] == [write for _, write in pairs]
    assert not any(os.get_inheritable(fd) for fd in arrived)
    for fd in arrived:
        os.close(fd)
    ends.close()


@scenario
async def test_the_end_of_the_peer_is_told_once_after_its_last_words():
    ends = Ends()
    ends.here.send(Message("last"))
    ends.here.close()
    await until(lambda: ends.ends)
    ends.there.send(Message("too late"))
    await asyncio.sleep(0)

    assert ends.heard == [Message("last")]
    assert ends.ends == ["has closed its end"]


@scenario
async def test_a_peer_that_sends_nonsense_is_gone():
    ends = Ends()
    ends.here.sock.send(b"\xff\xff\xff\xff")
    await until(lambda: ends.ends)

    assert "a frame of 4294967295 bytes" in ends.ends[0]
    ends.close()


@scenario
async def test_a_peer_that_does_not_read_costs_a_bounded_amount_of_memory(monkeypatch):
    monkeypatch.setattr(channel, "QUEUE_MAX", 1 << 20)
    ends = Ends()
    ends.there._loop.remove_reader(ends.there.fd)
    for _ in range(4):
        ends.here.send(Message("more", body=bytes(1 << 19)))

    assert ends.ends == ["does not read what it is sent"]
    ends.close()


@scenario
async def test_what_waited_for_a_peer_that_is_gone_gives_its_descriptors_back():
    before = descriptors()
    ends = Ends()
    read, write = os.pipe()
    ends.there._loop.remove_reader(ends.there.fd)
    ends.here.send(Message("large", body=bytes(8 << 20)))
    ends.here.send(Message("with", fds=(read, write)))
    ends.close()
    os.close(read)
    os.close(write)

    assert descriptors() == before
