"""Messages between the supervisor and a worker, over one stream socketpair.

A frame is a length (32 bits, little-endian), then that many bytes: the length of the head (32 bits), the head
as JSON, and the body, which is all that is left. Descriptors travel with the first byte of their frame; the
head's "fds" says how many belong to it.
"""

from __future__ import annotations

import array
import asyncio
import json
import os
import socket
import struct
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

FRAME_MAX = 256 << 20
"""Bytes of a frame. A snapshot of 65536 endpoints has about 16 MB."""
QUEUE_MAX = 2 * FRAME_MAX
"""Bytes that may wait for a peer that does not read."""
FDS_MAX = 250
"""Descriptors of one message; the kernel takes 253."""
READ_BYTES = 1 << 18

_LENGTH = struct.Struct("<I")


class ChannelError(Exception):
    """The peer does not speak this protocol, or does not read."""


@dataclass(frozen=True)
class Message:
    """`fields` are JSON. Whoever receives a message owns its descriptors; a sender keeps its own."""

    kind: str
    fields: dict[str, Any] = field(default_factory=dict)
    body: bytes = b""
    fds: tuple[int, ...] = ()


def encode(message: Message) -> bytes:
    """The frame of a message. Raises ChannelError when it is too large."""
    head = json.dumps({"kind": message.kind, "fds": len(message.fds), **message.fields}).encode()
    size = _LENGTH.size + len(head) + len(message.body)
    if size > FRAME_MAX or len(message.fds) > FDS_MAX:
        raise ChannelError(f'a message "{message.kind}" of {size} bytes and {len(message.fds)} descriptors')
    return b"".join((_LENGTH.pack(size), _LENGTH.pack(len(head)), head, message.body))


class Decoder:
    """Puts frames together from whatever pieces arrive."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._fds: deque[int] = deque()

    def feed(self, data: bytes, fds: Sequence[int] = ()) -> list[Message]:
        """The messages that these bytes complete. Raises ChannelError; nothing can be read after that."""
        self._data += data
        self._fds.extend(fds)
        out = []
        while (frame := self._frame()) is not None:
            out.append(self._message(frame))
        return out

    def close(self) -> None:
        """Close descriptors whose message never came."""
        while self._fds:
            os.close(self._fds.popleft())

    def _frame(self) -> bytes | None:
        if len(self._data) < _LENGTH.size:
            return None
        (size,) = _LENGTH.unpack_from(self._data)
        if not _LENGTH.size <= size <= FRAME_MAX:
            raise ChannelError(f"a frame of {size} bytes")
        end = _LENGTH.size + size
        if len(self._data) < end:
            return None
        frame = bytes(memoryview(self._data)[_LENGTH.size : end])
        del self._data[:end]
        return frame

    def _message(self, frame: bytes) -> Message:
        (size,) = _LENGTH.unpack_from(frame)
        start, end = _LENGTH.size, _LENGTH.size + size
        try:
            head = json.loads(frame[start:end])
            kind, fds = head.pop("kind"), head.pop("fds")
        except (ValueError, KeyError, AttributeError, TypeError):
            raise ChannelError(f"a frame whose head is not one: {frame[start : start + 80]!r}") from None
        if end > len(frame) or not isinstance(fds, int) or not 0 <= fds <= len(self._fds):
            raise ChannelError(f'a message "{kind}" without its {fds} descriptors')
        taken = tuple(self._fds.popleft() for _ in range(fds))
        return Message(kind, head, frame[end:], taken)


class Channel:
    """One end, non-blocking, on the running loop. `on_end` is called once, when the peer is gone or what it
    sends makes no sense; nothing is received or sent after that.
    """

    def __init__(
        self,
        sock: socket.socket,
        on_message: Callable[[Message], None],
        on_end: Callable[[str], None],
    ) -> None:
        sock.setblocking(False)
        self.sock = sock
        self.closed = False
        self._on_message = on_message
        self._on_end = on_end
        self._decoder = Decoder()
        self._out: deque[tuple[memoryview, tuple[int, ...]]] = deque()
        self._queued = 0
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(sock.fileno(), self._readable)

    @property
    def fd(self) -> int:
        return self.sock.fileno()

    def send(self, message: Message) -> None:
        """Now, or as soon as the peer reads. The message's descriptors may be closed when this returns."""
        if self.closed:
            return
        frame = encode(message)
        if self._queued + len(frame) > QUEUE_MAX:
            self._end("does not read what it is sent")
            return
        self._out.append((memoryview(frame), tuple(os.dup(fd) for fd in message.fds)))
        self._queued += len(frame)
        self._writable()

    def drain(self) -> None:
        """Receive what a peer that is gone has left behind."""
        while not self.closed and self._readable():
            pass

    def close(self) -> None:
        """Idempotent; does not call `on_end`. What is still queued is lost."""
        if self.closed:
            return
        self.closed = True
        self._loop.remove_reader(self.sock.fileno())
        self._loop.remove_writer(self.sock.fileno())
        self._decoder.close()
        self._drop_output()
        self.sock.close()

    def _end(self, why: str) -> None:
        if not self.closed:
            self.close()
            self._on_end(why)

    def _readable(self) -> bool:
        """Receive some; whether there was any."""
        try:
            data, fds = _receive(self.sock)
        except (BlockingIOError, InterruptedError):
            return False
        except OSError as error:
            self._end(error.strerror or str(error))
            return False
        if not data:
            self._end("has closed its end")
            return False
        try:
            messages = self._decoder.feed(data, fds)
        except ChannelError as error:
            self._end(f"sent {error}")
            return False
        for message in messages:
            if self.closed:
                _close_all(message.fds)
            else:
                self._on_message(message)
        return True

    def _writable(self) -> None:
        try:
            while self._out:
                self._write_one()
        except (BlockingIOError, InterruptedError):
            self._loop.add_writer(self.sock.fileno(), self._writable)
        except OSError:  # what the peer sent before it went is still to be read: the end is noticed there
            self._drop_output()
            self._loop.remove_writer(self.sock.fileno())
        else:
            self._loop.remove_writer(self.sock.fileno())

    def _write_one(self) -> None:
        data, fds = self._out[0]
        sent = socket.send_fds(self.sock, [data], fds) if fds else self.sock.send(data)
        _close_all(fds)
        self._queued -= sent
        if sent == len(data):
            self._out.popleft()
        else:
            self._out[0] = (data[sent:], ())

    def _drop_output(self) -> None:
        for _, fds in self._out:
            _close_all(fds)
        self._out.clear()
        self._queued = 0


def _receive(sock: socket.socket) -> tuple[bytes, list[int]]:
    """socket.recv_fds ignores its flags in Python 3.11."""
    room = socket.CMSG_SPACE((FDS_MAX + 3) * struct.calcsize("i"))
    data, ancillary, _, _ = sock.recvmsg(READ_BYTES, room, socket.MSG_CMSG_CLOEXEC)
    fds = array.array("i")
    for level, kind, payload in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            fds.frombytes(payload[: len(payload) - len(payload) % fds.itemsize])
    return data, list(fds)


def _close_all(fds: Sequence[int]) -> None:
    for fd in fds:
        os.close(fd)
