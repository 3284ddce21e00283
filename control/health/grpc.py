"""gRPC: grpc.health.v1.Health/Check over HTTP/2. Both messages have one field, so they are made by hand."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import h2.config
import h2.connection
import h2.events
import h2.exceptions

from turnout.control.health.check import Base
from turnout.control.health.outcome import Outcome, failed, passed
from turnout.control.health.sessions import USER_AGENT
from turnout.control.health.target import Target
from turnout.control.health.tcp import SEEN, announced
from turnout.control.health.tls import Contexts, connect

PATH = "/grpc.health.v1.Health/Check"
SETTINGS = b"\x04"
"""Type of the frame."""
SERVING, NAMES = 1, ("UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN")
CODES = {
    1: "CANCELLED", 2: "UNKNOWN", 3: "INVALID_ARGUMENT", 4: "DEADLINE_EXCEEDED", 5: "NOT_FOUND",
    7: "PERMISSION_DENIED", 8: "RESOURCE_EXHAUSTED", 12: "UNIMPLEMENTED", 13: "INTERNAL", 14: "UNAVAILABLE",
    16: "UNAUTHENTICATED",
}  # fmt: skip


class ClosedError(Exception):
    """The connection has ended."""


@dataclass
class Answer:
    """What has come on a stream."""

    headers: dict[str, str] = field(default_factory=dict)
    data: bytearray = field(default_factory=bytearray)
    ended: bool = False
    reset: bool = False


class GrpcCheck(Base):
    """The connection is kept between two probes."""

    def __init__(self, target: Target, contexts: Contexts) -> None:
        super().__init__(target)
        self._contexts = contexts
        self._open: Connection | None = None
        name = (target.health.grpc or "").encode()
        message = (
            b"\x0a" + bytes([len(name)]) + name if len(name) < 128 else b"\x0a" + _varint(len(name)) + name
        )
        message = message if name else b""
        self._request = b"\x00" + len(message).to_bytes(4, "big") + message

    async def probe(self) -> Outcome:
        kept, self._open = self._open, None
        if kept is not None:
            try:
                return await self._ask(kept)
            except (ClosedError, OSError, h2.exceptions.ProtocolError):
                kept.close()  # closed while nobody looked: says nothing about the endpoint
        try:
            return await self._ask(await self._connect())
        except ClosedError:
            return failed("closed the connection before it answered")
        except h2.exceptions.ProtocolError as error:
            return failed(f"does not speak HTTP/2: {error}" if str(error) else "does not speak HTTP/2")

    async def _connect(self) -> Connection:
        context = self._contexts.of(self.target, "h2") if self.target.secure else None
        reader, writer = await connect(self.target, context)
        writer.write(announced(self.target))
        return Connection(reader, writer)

    async def _ask(self, connection: Connection) -> Outcome:
        try:
            answer = await connection.ask(self._headers(), self._request)
        except BaseException:
            connection.close()
            raise
        if connection.usable:
            self._open = connection
        else:
            connection.close()
        return _of_answer(answer)

    def _headers(self) -> list[tuple[str, str]]:
        health = self.target.health
        return [
            (":method", "POST"),
            (":scheme", "https" if self.target.secure else "http"),
            (":path", PATH),
            (":authority", self.target.authority),
            ("te", "trailers"),
            ("content-type", "application/grpc"),
            ("user-agent", USER_AGENT),
            ("grpc-timeout", f"{health.timeout_ms}m"),
            *((name.lower(), value) for name, value in health.headers.items()),
        ]

    def close(self) -> None:
        if self._open is not None:
            self._open.close()
            self._open = None


class Connection:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._h2 = h2.connection.H2Connection(
            h2.config.H2Configuration(client_side=True, header_encoding="utf-8")
        )
        self._h2.initiate_connection()
        self.usable = True
        self._begun = False

    async def ask(self, headers: list[tuple[str, str]], body: bytes) -> Answer:
        """Raises ClosedError, OSError or h2's ProtocolError."""
        if self._reader.at_eof():
            raise ClosedError
        stream = self._h2.get_next_available_stream_id()
        self._h2.send_headers(stream, headers)
        self._h2.send_data(stream, body, end_stream=True)
        answer = Answer()
        while not (answer.ended or answer.reset):
            self._writer.write(self._h2.data_to_send())
            await self._writer.drain()
            data = await self._reader.read(65_536)
            if not data:
                self.usable = False
                raise ClosedError
            self._look(data)
            for event in self._h2.receive_data(data):
                self._take(event, stream, answer)
        self._writer.write(self._h2.data_to_send())
        return answer

    def _look(self, data: bytes) -> None:
        """A server begins with SETTINGS; h2 would wait for the end of what is no frame."""
        if not self._begun and data[3:4] not in {b"", SETTINGS}:
            raise h2.exceptions.ProtocolError
        self._begun = True

    def _take(self, event: h2.events.Event, stream: int, answer: Answer) -> None:
        match event:
            case h2.events.ResponseReceived(stream_id=number, headers=headers) if number == stream:
                answer.headers |= dict(headers)  # type: ignore[arg-type]
            case h2.events.TrailersReceived(stream_id=number, headers=headers) if number == stream:
                answer.headers |= dict(headers)  # type: ignore[arg-type]
            case h2.events.DataReceived(stream_id=number, data=data, flow_controlled_length=length):
                self._h2.acknowledge_received_data(length or 0, number or stream)
                answer.data += (data or b"")[: SEEN - len(answer.data)]
            case h2.events.StreamEnded(stream_id=number) if number == stream:
                answer.ended = True
            case h2.events.StreamReset(stream_id=number) if number == stream:
                answer.reset = True
            case h2.events.ConnectionTerminated():
                self.usable = False
                if not answer.headers:
                    raise ClosedError

    def close(self) -> None:
        """At once: an endpoint that does not answer would not take part in the end of TLS either."""
        self._writer.transport.abort()


def _of_answer(answer: Answer) -> Outcome:
    if answer.reset:
        return failed("reset the request")
    status = answer.headers.get(":status", "")
    if status != "200":
        return failed(f"status {status}, expected 200")
    code = answer.headers.get("grpc-status", "")
    if code != "0":
        named = CODES.get(int(code), code) if code.isdecimal() else "no grpc-status"
        said = answer.headers.get("grpc-message", "")[:100]
        return failed(f"{named}: {said}" if said else named)
    serving = _status(bytes(answer.data))
    if serving == SERVING:
        return passed("SERVING")
    return failed(f"{NAMES[serving] if serving < len(NAMES) else serving}, expected SERVING")


def _status(framed: bytes) -> int:
    """Field 1 of HealthCheckResponse, an enumeration; 0 when it is left out."""
    message = framed[5 : 5 + int.from_bytes(framed[1:5], "big")]
    return message[1] if len(message) >= 2 and message[0] == 0x08 else 0


def _varint(number: int) -> bytes:
    return bytes([number & 0x7F | 0x80, number >> 7])
