"""The same messages read by this proxy, by llhttp (Node's parser, through httptools) and by h11.

Each reader gets a whole head and then, as a probe, what its body would be on the wire, the last byte apart.
What it made of that is a Reading; None when it refused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import h11
import httptools
from harness.bodies import chunked
from harness.feeding import at_the_edge

if TYPE_CHECKING:
    from turnout.ext.http1 import Head

CHUNKED, CLOSE, KEEP_ALIVE, UPGRADE = 1, 2, 4, 16
CHUNKED_PROBE = b"5\r\n0\r\n\r\n\r\n1;x=y\r\nz\r\n0\r\n\r\n"
CHUNKED_DATA = b"0\r\n\r\nz"
PLAIN_PROBE = b"0\r\n\r\nGET / HTTP/1.1\r\n\r\n"
LONG = 4096  # of a longer body only the start is sent


class Reading(NamedTuple):
    start: tuple[bytes | int, ...]  # method and target, or the status
    minor: int
    fields: list[tuple[bytes, bytes]]
    body: bytes
    complete: tuple[bool, ...]  # after the head, before the probe's last byte, after it
    keep_alive: bool


class Ours(NamedTuple):
    reading: Reading
    probe: bytes  # what a body as decided here looks like on the wire
    head: bytes  # the bytes that are the head
    parsed: Head


# ---- this proxy --------------------------------------------------------------------------------------------


def has_no_body(kind: str, parsed: Head) -> bool:
    """RFC 9112 6.3, for the answer to a GET."""
    if kind == "request":
        return not parsed["flags"] & CHUNKED and parsed["content_length"] <= 0
    return parsed["status"] < 200 or parsed["status"] in (204, 304) or parsed["content_length"] == 0


def probe_of(kind: str, parsed: Head) -> tuple[bytes, bytes, bool]:
    """Wire bytes, the data in them, and whether they are the whole body."""
    if has_no_body(kind, parsed):
        return b"", b"", True
    if parsed["flags"] & CHUNKED:
        return CHUNKED_PROBE, CHUNKED_DATA, True
    n = parsed["content_length"]
    if n < 0:
        return PLAIN_PROBE, PLAIN_PROBE, False
    wire = (PLAIN_PROBE * (min(n, LONG) // len(PLAIN_PROBE) + 1))[: min(n, LONG)]
    return wire, wire, n <= LONG


def ours(kind: str, raw: bytes) -> Ours | None:
    parsed = at_the_edge(kind, raw)
    if not isinstance(parsed, dict):
        return None
    wire, data, whole = probe_of(kind, parsed)
    until_close = kind == "response" and not whole and parsed["content_length"] < 0
    keep = (
        not parsed["flags"] & CLOSE
        and bool(parsed["minor"] or parsed["flags"] & KEEP_ALIVE)
        and not until_close
    )
    start = (parsed["method"], parsed["target"]) if kind == "request" else (parsed["status"],)
    fields = [(name, value) for name, value, _ in parsed["fields"]]
    reading = Reading(start, parsed["minor"], fields, data, (not wire, not wire, whole), keep)
    head = raw[: parsed["length"]]
    return Ours(reading, wire, head.removeprefix(b"\r\n") if kind == "request" else head, parsed)


# ---- llhttp ------------------------------------------------------------------------------------------------


class _Heard:
    def __init__(self) -> None:
        self.url = self.body = b""
        self.fields: list[tuple[bytes, bytes]] = []
        self.head = self.complete = self.keep_alive = False
        self.parser: httptools.HttpRequestParser | httptools.HttpResponseParser | None = None

    def on_url(self, part: bytes) -> None:
        self.url += part

    def on_header(self, name: bytes, value: bytes) -> None:
        self.fields.append((name, value.strip(b" \t")))

    def on_headers_complete(self) -> None:
        self.head = True
        self.keep_alive = self.parser.should_keep_alive()  # forgotten once the message is complete

    def on_body(self, part: bytes) -> None:
        self.body += part

    def on_message_complete(self) -> None:
        self.complete = True


def llhttp(kind: str, head: bytes, probe: bytes = b"") -> Reading | None:
    heard = _Heard()
    parser = (httptools.HttpRequestParser if kind == "request" else httptools.HttpResponseParser)(heard)
    heard.parser = parser
    complete = []
    try:
        for piece in (head, probe[:-1], probe[-1:]):
            if not heard.complete:
                _give(parser, piece)
            complete.append(heard.complete)
    except httptools.HttpParserError:
        return None
    if not heard.head:
        return None
    start = (parser.get_method(), heard.url) if kind == "request" else (parser.get_status_code(),)
    minor = int(parser.get_http_version().partition(".")[2])
    return Reading(start, minor, heard.fields, heard.body, tuple(complete), heard.keep_alive)


def _give(parser: httptools.HttpRequestParser, data: bytes) -> None:
    try:
        parser.feed_data(data)
    except httptools.HttpParserUpgrade:  # the message is complete
        return


# ---- h11 ---------------------------------------------------------------------------------------------------


def h11_reads(kind: str, head: bytes, probe: bytes = b"") -> Reading | None:
    connection = h11.Connection(
        h11.SERVER if kind == "request" else h11.CLIENT, max_incomplete_event_size=1 << 20
    )
    body, complete, done = b"", [], False
    try:
        if kind == "response":
            connection.send(h11.Request(method="GET", target="/", headers=[("Host", "a")]))
            connection.send(h11.EndOfMessage())
        connection.receive_data(head)
        first = connection.next_event()
        if not isinstance(first, h11.Request | h11.Response | h11.InformationalResponse):
            return None
        for piece in (b"", probe[:-1], probe[-1:]):
            if piece:
                connection.receive_data(piece)
            if not done:
                data, done = _drain(connection, first)
                body += data
            complete.append(done)
    except h11.RemoteProtocolError:
        return None
    keep = bool(connection._cstate.keep_alive)
    start = (first.method, first.target) if kind == "request" else (first.status_code,)
    minor = int(first.http_version.partition(b".")[2])
    return Reading(start, minor, list(first.headers.raw_items()), body, tuple(complete), keep)


def _drain(connection: h11.Connection, first: object) -> tuple[bytes, bool]:
    """The data at hand, and whether the message is complete."""
    if isinstance(first, h11.InformationalResponse):
        return b"", True
    body = b""
    while True:
        event = connection.next_event()
        if isinstance(event, h11.Data):
            body += bytes(event.data)
        elif isinstance(event, h11.EndOfMessage):
            return body, True
        else:
            return body, False


# ---- whether they agree ------------------------------------------------------------------------------------

LLHTTP_METHODS = frozenset(
    b"DELETE GET HEAD POST PUT CONNECT OPTIONS TRACE COPY LOCK MKCOL MOVE PROPFIND PROPPATCH SEARCH UNLOCK"
    b" BIND REBIND UNBIND ACL REPORT MKACTIVITY CHECKOUT MERGE M-SEARCH NOTIFY SUBSCRIBE UNSUBSCRIBE PATCH"
    b" PURGE MKCALENDAR LINK UNLINK SOURCE QUERY".split()
)


def disagreement(kind: str, raw: bytes) -> str | None:
    """What llhttp or h11 make otherwise of what is accepted here; exceptions stand in docs/parsing.md."""
    mine = ours(kind, raw)
    if mine is None or (kind == "response" and mine.parsed["status"] == 101):
        return None
    line = mine.head.partition(b"\r\n")[0]
    later = (line[-8:] if kind == "request" else line[:8]) not in (b"HTTP/1.0", b"HTTP/1.1")
    theirs = {}
    if not later and not _unknown_to_llhttp(mine):
        theirs["llhttp"] = llhttp(kind, mine.head, mine.probe)
    theirs["h11"] = h11_reads(kind, mine.head, mine.probe)
    for name, reading in theirs.items():
        wanted = mine.reading._replace(fields=_plain(mine.reading.fields))
        if reading is None:
            return f"{name} refuses {mine.head!r}"
        found = reading._replace(fields=_plain(reading.fields), minor=min(reading.minor, 1))
        if not _keeps_alike(name, mine):
            found = found._replace(keep_alive=wanted.keep_alive)
        if found != wanted:
            return f"{name} reads {mine.head!r} as {found}, not {wanted}"
    return None


def _keeps_alike(name: str, mine: Ours) -> bool:
    old = mine.reading.minor == 0
    if name == "h11":
        until_close = not mine.reading.complete[-1] and mine.parsed["content_length"] < 0
        return not (old or until_close or 0 < mine.parsed["status"] < 200)
    proxy = any(field.lower() == b"proxy-connection" for field, _ in mine.reading.fields)
    return not (proxy or (old and mine.parsed["flags"] & CLOSE))


def _unknown_to_llhttp(mine: Ours) -> bool:
    upgrade_with_body = mine.parsed["flags"] & UPGRADE and mine.probe
    return bool(upgrade_with_body or (mine.parsed["method"] and mine.parsed["method"] not in LLHTTP_METHODS))


def _plain(fields: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """h11 hands out "chunked" in lower case."""
    return [
        (name, value.lower() if name.lower() == b"transfer-encoding" else value) for name, value in fields
    ]


# ---- chunked bodies ----------------------------------------------------------------------------------------

REQUEST = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"


def llhttp_chunks(raw: bytes, end: bytes) -> tuple[bytes, bool] | None:
    """The data, and whether `end` made the body complete; None when it was refused or complete before."""
    heard = _Heard()
    parser = heard.parser = httptools.HttpRequestParser(heard)
    try:
        parser.feed_data(REQUEST)
        parser.feed_data(raw)
        if heard.complete:
            return None
        parser.feed_data(end)
    except httptools.HttpParserError:
        return None
    return heard.body, heard.complete


def h11_chunks(raw: bytes, end: bytes) -> tuple[bytes, bool] | None:
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
    try:
        connection.receive_data(REQUEST)
        first = connection.next_event()
        body, complete = b"", False
        for piece in (raw, end):
            if complete:
                return None
            if piece:
                connection.receive_data(piece)
            more, complete = _drain(connection, first)
            body += more
    except h11.RemoteProtocolError:
        return None
    return body, complete


def chunked_disagreement(raw: bytes) -> str | None:
    """What llhttp or h11 make otherwise of a chunked body that is accepted here."""
    fed = chunked(raw)
    if fed is None:
        return None
    wire, end = raw[: len(raw) - len(fed.rest)], b"\r\n" if fed.ended else b""
    for name, read in (("llhttp", llhttp_chunks), ("h11", h11_chunks)):
        found = read(wire, end)
        if found is None and name == "llhttp" and b";" in wire:
            continue  # it wants extensions well-formed; here they are dropped unread
        if found is None:
            return f"{name} refuses {wire!r}"
        if found != (fed.data, fed.ended):
            return f"{name} reads {wire!r} as {found}, not {fed}"
    return None
