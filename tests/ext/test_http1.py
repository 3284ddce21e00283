"""Heads: what is accepted and how it is read, what is refused and why, however the bytes arrive."""

from __future__ import annotations

import pytest
from harness.feeding import BAD_VERSION, LINE_TOO_LONG, NEED_MORE, TOO_LARGE, at_the_edge, fed, head
from hypothesis import given
from hypothesis import strategies as st

CHUNKED, CLOSE, KEEP_ALIVE, EXPECT, UPGRADE, TRAILERS, ABSOLUTE = 1, 2, 4, 8, 16, 32, 64


def get(
    *lines: str, target: str = "/", method: str = "GET", version: str = "HTTP/1.1", host: str = "a"
) -> bytes:
    fields = [f"Host: {host}", *lines] if host else [*lines]
    return "".join(f"{line}\r\n" for line in (f"{method} {target} {version}", *fields, "")).encode("latin-1")


def answer(*lines: str, line: str = "HTTP/1.1 200 OK") -> bytes:
    return "".join(f"{each}\r\n" for each in (line, *lines, "")).encode("latin-1")


# ---- request lines -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "method",
    [
        "GET",
        "HEAD",
        "POST",
        "PUT",
        "DELETE",
        "OPTIONS",
        "PATCH",
        "TRACE",
        "M-SEARCH",
        "!#$%&'*+-.^_`|~9",
        "a" * 32,
    ],
)
def test_any_token_is_a_method(method):
    assert head("request", get(method=method))["method"] == method.encode()


@pytest.mark.parametrize(
    ("target", "path", "query", "authority", "flags"),
    [
        ("/", b"/", None, b"a", 0),
        ("/x/y;z=1,2?q=1&r=/?", b"/x/y;z=1,2", b"q=1&r=/?", b"a", 0),
        ("/x?", b"/x", b"", b"a", 0),
        ("//x", b"//x", None, b"a", 0),
        ("/%2e%2E/%00", b"/%2e%2E/%00", None, b"a", 0),
        ('/"<>\\^`{|}', b'/"<>\\^`{|}', None, b"a", 0),
        ("http://a/x?y", b"/x", b"y", b"a", ABSOLUTE),
        ("HTTP://A:80/x", b"/x", None, b"A:80", ABSOLUTE),
        ("https://a:443", b"/", None, b"a:443", ABSOLUTE),
        ("http://a", b"/", None, b"a", ABSOLUTE),
        ("http://a?q", b"/", b"q", b"a", ABSOLUTE),
    ],
)
def test_a_target_is_split(target, path, query, authority, flags):
    parsed = head("request", get(target=target))

    assert (parsed["target"], parsed["path"], parsed["query"]) == (target.encode(), path, query)
    assert (parsed["authority"], parsed["flags"]) == (authority, flags)


def test_options_may_ask_about_the_server_as_a_whole():
    assert head("request", get(method="OPTIONS", target="*"))["path"] == b"*"
    assert fed("request", get(target="*")) == "the request target is neither a path nor an http URI"


def test_connect_names_an_authority():
    parsed = head("request", get(method="CONNECT", target="a:443", host="a:443"))

    assert (parsed["authority"], parsed["path"]) == (b"a:443", b"")


@pytest.mark.parametrize("body", ["Content-Length: 1", "Transfer-Encoding: chunked"])
def test_connect_with_a_body_is_refused(body):
    assert fed("request", get(body, method="CONNECT", target="a:443")) == "CONNECT has a body"


def test_one_empty_line_may_stand_before_a_request():
    parsed = head("request", b"\r\n" + get())

    assert (parsed["length"], parsed["method"]) == (len(get()) + 2, b"GET")
    assert (
        fed("request", b"\r\n\r\n" + get()) == "the request line does not start with a method and one space"
    )


@pytest.mark.parametrize(
    ("version", "minor"), [("HTTP/1.0", 0), ("HTTP/1.1", 1), ("HTTP/1.2", 1), ("HTTP/1.9", 1)]
)
def test_a_later_minor_version_is_read_as_the_one_that_is_spoken(version, minor):
    assert head("request", get(version=version))["minor"] == minor


@pytest.mark.parametrize("version", ["HTTP/2.0", "HTTP/3", "HTTP/9.9"])
def test_a_later_major_version_is_told_apart(version):
    assert fed("request", get(version=version)) == BAD_VERSION


NO_METHOD = "the request line does not start with a method and one space"
NO_VERSION = "the request line does not end with HTTP/1.0 or HTTP/1.1"
NO_TARGET = "the request target has a byte that may not stand there"
NO_URI = "the request target is neither a path nor an http URI"
NO_CRLF = "the request line does not end with CRLF"


@pytest.mark.parametrize(
    ("line", "phrase"),
    [
        (b" GET / HTTP/1.1", NO_METHOD),
        (b"\nGET / HTTP/1.1", NO_METHOD),
        (b"\r\n\nGET / HTTP/1.1", NO_METHOD),
        (b"G(T / HTTP/1.1", NO_METHOD),
        (b"GET\t/ HTTP/1.1", NO_METHOD),
        (b"G\0T / HTTP/1.1", NO_METHOD),
        (b"a" * 33 + b" / HTTP/1.1", NO_METHOD),
        (b"\x16\x03\x01\x02\x00\x01", NO_METHOD),
        (b"GET  / HTTP/1.1", NO_TARGET),
        (b"GET /\t HTTP/1.1", NO_TARGET),
        (b"GET /#x HTTP/1.1", NO_TARGET),
        (b"GET /\0 HTTP/1.1", NO_TARGET),
        (b"GET /\x7f HTTP/1.1", NO_TARGET),
        (b"GET /\xc3\xa4 HTTP/1.1", NO_TARGET),
        (b"GET /", NO_TARGET),
        (b"GET x HTTP/1.1", NO_URI),
        (b"GET a.b/c HTTP/1.1", NO_URI),
        (b"GET ftp://a/ HTTP/1.1", NO_URI),
        (b"GET http:/a HTTP/1.1", NO_URI),
        (b"GET http:// HTTP/1.1", NO_URI),
        (b"GET https:// HTTP/1.1", NO_URI),
        (b"GET http:///x HTTP/1.1", "the request target has no host"),
        (b"GET http://?x HTTP/1.1", "the request target has no host"),
        (b"GET http://u@a/ HTTP/1.1", "the request target's host is not a host"),
        (b"GET http://a:b/ HTTP/1.1", "the request target's host is not a host"),
        (b"GET / HTTP/1.1 ", NO_CRLF),
        (b"GET / HTTP/1.1\n", NO_CRLF),
        (b"GET / HTTP/1.10", NO_CRLF),
        (b"GET /  HTTP/1.1", NO_VERSION),
        (b"GET / HTTP/1.", NO_VERSION),
        (b"GET / HTTP/1.x", NO_VERSION),
        (b"GET / HTTP/1,1", NO_VERSION),
        (b"GET / HTTP/11.1", NO_VERSION),
        (b"GET / HTTP/0.9", NO_VERSION),
        (b"GET / http/1.1", NO_VERSION),
        (b"GET / HTTQ/1.1", NO_VERSION),
        (b"GET / x HTTP/1.1", NO_VERSION),
    ],
)
def test_a_request_line_that_could_be_read_otherwise_is_refused(line, phrase):
    assert fed("request", line + b"\r\nHost: a\r\n\r\n") == phrase


# ---- status lines ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "minor", "status", "reason"),
    [
        ("HTTP/1.1 200 OK", 1, 200, b"OK"),
        ("HTTP/1.0 404 Not Found", 0, 404, b"Not Found"),
        ("HTTP/1.1 204 ", 1, 204, b""),
        ("HTTP/1.1 599", 1, 599, b""),
        ("HTTP/1.1 100 \xe4\t ", 1, 100, b"\xe4\t "),
    ],
)
def test_a_status_line_is_read(line, minor, status, reason):
    parsed = head("response", answer(line=line))

    assert (parsed["minor"], parsed["status"], parsed["target"]) == (minor, status, reason)


@pytest.mark.parametrize(
    ("line", "phrase"),
    [
        (b"HTTP/2.0 200 OK", "the status line does not start with HTTP/1.0 or HTTP/1.1"),
        (b"\r\nHTTP/1.1 200 OK", "the status line does not start with HTTP/1.0 or HTTP/1.1"),
        (b"ICY 200 OK 1234567", "the status line does not start with HTTP/1.0 or HTTP/1.1"),
        (b"HTTP/1.x 200 OK", "the status line has no three-digit status"),
        (b"HTTP/1.1  200 OK", "the status line has no three-digit status"),
        (b"HTTP/1.1 20 OK  ", "the status line has no three-digit status"),
        (b"HTTP/1.1 +20 OK", "the status line has no three-digit status"),
        (b"HTTP/1.1 099 OK", "the status is not between 100 and 599"),
        (b"HTTP/1.1 600 OK", "the status is not between 100 and 599"),
        (b"HTTP/1.1 2000 OK", "the status line has no space behind the status"),
        (b"HTTP/1.1 200\tOK", "the status line has no space behind the status"),
        (b"HTTP/1.1 200\n", "the status line has no space behind the status"),
        (b"HTTP/1.1 200 O\0K", "the status line does not end with CRLF"),
        (b"HTTP/1.1 200 OK\n", "the status line does not end with CRLF"),
        (b"HTTP/1.1 200 OK\rX", "the status line does not end with CRLF"),
    ],
)
def test_a_status_line_that_could_be_read_otherwise_is_refused(line, phrase):
    assert fed("response", line + b"\r\n\r\n") == phrase


# ---- fields ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "name", "value"),
    [
        ("a:b", b"a", b"b"),
        ("A: b", b"A", b"b"),
        ("a:\t b\t ", b"a", b"b"),
        ("a:", b"a", b""),
        ("a: \t ", b"a", b""),
        ("a: b: c", b"a", b"b: c"),
        ("a: b\tc  d", b"a", b"b\tc  d"),
        ("a: \xe4\x80\xff", b"a", b"\xe4\x80\xff"),
        ("!#$%&'*+-.^_`|~9: x", b"!#$%&'*+-.^_`|~9", b"x"),
        ("a: " + "\t" * 300 + "b" + "\t" * 300, b"a", b"b"),
        ("a: " + "x" * 500, b"a", b"x" * 500),
    ],
)
def test_a_field_is_read(line, name, value):
    for kind, raw in (
        ("request", get(line)),
        ("response", answer(line)),
        ("trailers", f"{line}\r\n\r\n".encode("latin-1")),
    ):
        assert head(kind, raw)["fields"][-1] == (name, value, False)


FOLDED = "a line of the head starts with white space (obsolete folding)"
SPACE = "white space stands before the colon of a field"
NAME = "a field name has a byte that may not stand there"
VALUE = "a field value has a control byte"
BARE_CR = "a bare CR stands in the head"
BARE_LF = "a line of the head ends with a bare LF"
HOST_TWICE = "Host, Content-Length or Transfer-Encoding stands there more than once"


@pytest.mark.parametrize(
    ("lines", "phrase"),
    [
        (b"a: b\r\n c", FOLDED),
        (b"a: b\r\n\tc: d", FOLDED),
        (b" a: b", FOLDED),
        (b"a : b", SPACE),
        (b"a\t: b", SPACE),
        (b"a b: c", SPACE),
        (b": b", "a field has no name"),
        (b"a", NAME),
        (b"a\0: b", NAME),
        (b"a(: b", NAME),
        (b"a\xe4: b", NAME),
        (b"a\x7f: b", NAME),
        (b"a,b: c", NAME),
        (b'"a": b', NAME),
        (b"a\nb: c", NAME),
        (b"a\r: c", NAME),
        (b"a: b\0c", VALUE),
        (b"a: b\x01c", VALUE),
        (b"a: \x7f", VALUE),
        (b"a: b\x0bc", VALUE),
        (b"a: b\x1b", VALUE),
        (b"a: xxxxxxxxxxxxxxx\0", VALUE),
        (b"a: b\nc: d", BARE_LF),
        (b"a: b\rc: d", BARE_CR),
        (b"a: b\r\r", BARE_CR),
        (b"a: b\r\n\n", BARE_LF),
        (b"a: b\r\n\rX", BARE_CR),
        (b"\n", BARE_LF),
    ],
)
def test_a_line_that_could_be_read_otherwise_is_refused(lines, phrase):
    for kind, start in (
        ("request", b"GET / HTTP/1.1\r\nHost: a\r\n"),
        ("response", b"HTTP/1.1 200 OK\r\n"),
        ("trailers", b""),
    ):
        assert fed(kind, start + lines + b"\r\n\r\n") == phrase


def test_lines_that_end_in_bare_lf_are_refused_as_soon_as_that_is_seen():
    raw = b"GET / HTTP/1.1\r\nHost: a\r\nx: y\n"

    assert at_the_edge("request", raw, len(raw) - 1) == BARE_LF


@pytest.mark.parametrize("name", ["Host", "Content-Length", "Transfer-Encoding"])
def test_what_decides_where_a_message_ends_or_goes_stands_once(name):
    value = {"Host": "a", "Content-Length": "5", "Transfer-Encoding": "chunked"}[name]

    assert fed("request", get(f"{name}: {value}", f"{name.upper()}: {value}")) == HOST_TWICE


# ---- hosts -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "host",
    [
        "a",
        "a.b-c",
        "A:80",
        "a:",
        "10.0.0.1",
        "10.0.0.1:8080",
        "[::1]",
        "[::1]:65535",
        "[v1.x:y]",
        "a_b",
        "%41",
        "x!$&'()*+,;=~",
    ],
)
def test_a_host_is_read(host):
    assert head("request", get(host=host))["authority"] == host.encode()


@pytest.mark.parametrize(
    "host",
    [
        " ",
        "a b",
        "a/b",
        "a@b",
        "a,b c",
        "a\\b",
        "a:b",
        "a:80:80",
        "a:123456",
        ":80",
        "::1",
        "[]",
        "[::1",
        "::1]",
        "[::1]x",
        "[[::1]]",
        "a]",
        "a?b",
        "\xe4",
    ],
)
def test_a_host_that_is_none_is_refused(host):
    assert fed("request", get(host=host)) == "Host is not a host"


def test_host_is_needed_since_http_1_1():
    assert fed("request", get(host="")) == "Host is missing"
    assert head("request", get(host="", version="HTTP/1.0"))["authority"] == b""
    assert fed("request", get(host="", target="http://a/")) == "Host is missing"
    assert head("request", get(host="", target="http://a/", version="HTTP/1.0"))["authority"] == b"a"


@pytest.mark.parametrize(
    ("target", "host"),
    [
        ("http://a", "A"),
        ("http://a:80", "a"),
        ("http://a", "a:80"),
        ("https://a:443/", "a:"),
        ("http://a:81", "a:81"),
    ],
)
def test_a_target_may_name_its_host_again(target, host):
    assert head("request", get(target=target, host=host))["flags"] == ABSOLUTE


@pytest.mark.parametrize(
    ("target", "host"),
    [
        ("http://a", "b"),
        ("http://a", "a:443"),
        ("https://a", "a:80"),
        ("http://a:81", "a"),
        ("http://a", "ab"),
    ],
)
def test_a_target_and_a_host_that_differ_are_refused(target, host):
    assert fed("request", get(target=target, host=host)) == "Host and the request target name different hosts"


# ---- framing -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "length"), [("0", 0), ("5", 5), ("00005", 5), ("9" * 18, 10**18 - 1), (" 7  ", 7), ("\t7", 7)]
)
def test_a_content_length_is_read_and_not_forwarded(value, length):
    for kind, raw in (
        ("request", get(f"Content-Length:{value}")),
        ("response", answer(f"Content-Length:{value}")),
    ):
        parsed = head(kind, raw)
        assert parsed["content_length"] == length
        assert parsed["fields"][-1][2]


NO_LENGTH = "Content-Length is not a number of at most 18 digits"
NOT_CHUNKED = "Transfer-Encoding is something else than chunked"


@pytest.mark.parametrize(
    ("lines", "phrase"),
    [
        (["Content-Length:"], NO_LENGTH),
        (["Content-Length: +5"], NO_LENGTH),
        (["Content-Length: -5"], NO_LENGTH),
        (["Content-Length: 5 5"], NO_LENGTH),
        (["Content-Length: 5, 5"], NO_LENGTH),
        (["Content-Length: 5;"], NO_LENGTH),
        (["Content-Length: 0x5"], NO_LENGTH),
        (["Content-Length: 5.0"], NO_LENGTH),
        (["Content-Length: \xb2"], NO_LENGTH),
        (["Content-Length: " + "9" * 19], NO_LENGTH),
        (["Content-Length: " + "0" * 19], NO_LENGTH),
        (["Content-Length: 18446744073709551621"], NO_LENGTH),
        (["Content-Length: 5", "Content-Length: 6"], HOST_TWICE),
        (
            ["Content-Length: 5", "Transfer-Encoding: chunked"],
            "both Content-Length and Transfer-Encoding are there",
        ),
        (
            ["Transfer-Encoding: chunked", "Content-Length: 0"],
            "both Content-Length and Transfer-Encoding are there",
        ),
        (["Content-Length: 5\t"], "a tab stands behind Content-Length"),
        (["Content-Length: 5 \t "], "a tab stands behind Content-Length"),
        (["Transfer-Encoding: chunked\t"], NOT_CHUNKED),
        (["Transfer-Encoding: chunked \t"], NOT_CHUNKED),
        (["Transfer-Encoding:"], NOT_CHUNKED),
        (["Transfer-Encoding: identity"], NOT_CHUNKED),
        (["Transfer-Encoding: gzip, chunked"], NOT_CHUNKED),
        (["Transfer-Encoding: chunked, chunked"], NOT_CHUNKED),
        (["Transfer-Encoding: chunked,"], NOT_CHUNKED),
        (["Transfer-Encoding: chunked;q=1"], NOT_CHUNKED),
        (["Transfer-Encoding: xchunked"], NOT_CHUNKED),
        (["Transfer-Encoding: chunke"], NOT_CHUNKED),
        (['Transfer-Encoding: "chunked"'], NOT_CHUNKED),
        (["Transfer-Encoding: \x80chunked"], NOT_CHUNKED),
    ],
)
def test_framing_that_could_be_read_otherwise_is_refused(lines, phrase):
    assert fed("request", get(*lines)) == phrase
    assert fed("response", answer(*lines)) == phrase


@pytest.mark.parametrize("body", ["Content-Length: 1", "Transfer-Encoding: chunked"])
def test_an_interim_answer_has_no_body(body):
    assert fed("response", answer(body, line="HTTP/1.1 103 Early Hints")) == "an interim answer has a body"
    assert isinstance(fed("response", answer("Content-Length: 0", line="HTTP/1.1 100 Continue")), dict)


def test_chunked_is_a_matter_of_http_1_1():
    assert head("request", get("Transfer-Encoding: CHUNKED"))["flags"] == CHUNKED
    assert head("response", answer("transfer-encoding:chunked"))["flags"] == CHUNKED
    assert (
        fed("request", get("Transfer-Encoding: chunked", version="HTTP/1.0"))
        == "Transfer-Encoding in HTTP/1.0"
    )
    assert (
        fed("response", answer("Transfer-Encoding: chunked", line="HTTP/1.0 200 OK"))
        == "Transfer-Encoding in HTTP/1.0"
    )


# ---- from hop to hop ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lines", "flags"),
    [
        ([], 0),
        (["Connection: close"], CLOSE),
        (["Connection: Keep-Alive"], KEEP_ALIVE),
        (["Connection: keep-alive,CLOSE"], KEEP_ALIVE | CLOSE),
        (["Connection: ,, close ,"], CLOSE),
        (["Connection: x", "Connection: close"], CLOSE),
        (["Connection: closed, xclose"], 0),
        (["Connection: upgrade"], 0),
        (["Upgrade: websocket"], 0),
        (["Connection: Upgrade", "Upgrade: websocket"], UPGRADE),
        (["TE: trailers"], TRAILERS),
        (["TE: gzip;q=0.5, Trailers;q=1"], TRAILERS),
        (["TE: gzip"], 0),
        (["Expect: 100-Continue"], EXPECT),
        (["Expect: 200-ok"], 0),
        (["Proxy-Connection: close"], 0),
    ],
)
def test_what_is_meant_for_this_hop_is_understood(lines, flags):
    assert head("request", get(*lines))["flags"] == flags


def skipped(raw: bytes, kind: str = "request") -> set[bytes]:
    return {name for name, _, skip in head(kind, raw)["fields"] if skip}


def test_hop_by_hop_fields_are_marked():
    hops = ["Connection: close", "Keep-Alive: x", "Proxy-Connection: x", "TE: x", "Upgrade: x"]

    assert skipped(get(*hops, "Content-Length: 1", "Accept: x")) == {
        b"Connection", b"Keep-Alive", b"Proxy-Connection", b"TE", b"Upgrade", b"Content-Length",
    }  # fmt: skip
    assert skipped(get("Transfer-Encoding: chunked")) == {b"Transfer-Encoding"}


def test_fields_that_connection_names_are_marked_whatever_their_case_and_place():
    assert skipped(get("x-A: 1", "Connection: X-a , y", "Y: 2", "Z: 3", "x-a: 4")) == {
        b"x-A",
        b"x-a",
        b"Connection",
        b"Y",
    }


@pytest.mark.parametrize(
    "name", ["Cookie", "Content-Type", "Date", "Expect", "Trailer", "Idempotency-Key", "Set-Cookie"]
)
def test_connection_cannot_name_away_what_a_request_means(name):
    assert skipped(get(f"{name}: x", f"Connection: {name}, host")) == {b"Connection"}


@pytest.mark.parametrize("value", ["close x", "close;q=1", "(close)", '"close"', "clo\xe4se"])
def test_what_is_no_option_of_connection_means_nothing(value):
    assert head("request", get(f"Connection: {value}", "close: x"))["flags"] == 0
    assert skipped(get(f"Connection: {value}", "close: x")) == {b"Connection"}


def test_connection_options_are_bounded():
    assert isinstance(fed("request", get("Connection: " + ",".join(["x"] * 100))), dict)
    assert fed(
        "request", get("Connection: " + ",".join(["x"] * 60), "Connection: " + ",".join(["y"] * 41))
    ) == ("Connection has more than 100 options")


# ---- trailers ----------------------------------------------------------------------------------------------


def test_an_empty_trailer_section_is_an_empty_line():
    assert head("trailers", b"\r\n")["length"] == 2


def test_trailers_that_would_change_what_was_said_before_are_marked():
    ours = [
        "Host",
        "Content-Length",
        "Transfer-Encoding",
        "Connection",
        "Trailer",
        "Cookie",
        "X-Forwarded-For",
        "Forwarded",
    ]
    ours += [
        "X-Request-ID",
        "Authorization",
        "Content-Encoding",
        "Content-Range",
        "Range",
        "Cache-Control",
        "Max-Forwards",
    ]
    raw = "".join(f"{name}: 1\r\n" for name in [*ours, "Server-Timing", "grpc-status", "Digest"]) + "\r\n"

    assert skipped(raw.encode(), "trailers") == {name.encode() for name in ours}


# ---- limits ------------------------------------------------------------------------------------------------


def test_a_request_line_has_a_limit_however_it_arrives():
    line = len("GET / HTTP/1.1") + 20

    assert isinstance(fed("request", get(target="/" + "x" * 20), line=line), dict)
    assert isinstance(fed("request", b"\r\n" + get(target="/" + "x" * 20), line=line), dict)
    assert fed("request", get(target="/" + "x" * 21), line=line) == LINE_TOO_LONG
    assert fed("request", b"\r\n" + get(target="/" + "x" * 21), line=line) == LINE_TOO_LONG


@pytest.mark.parametrize("start", [b"", b"\r\n"])
def test_a_request_line_without_end_is_refused_when_it_is_too_long(start):
    raw = start + b"GET /" + b"x" * 100

    assert at_the_edge("request", raw, len(raw) - 1, line=90) == LINE_TOO_LONG
    assert at_the_edge("request", raw, line=90) == LINE_TOO_LONG


@pytest.mark.parametrize(
    ("kind", "raw"),
    [
        ("request", get("a: " + "x" * 50)),
        ("response", answer("a: " + "x" * 50)),
        ("trailers", b"a: b\r\n\r\n"),
    ],
)
def test_a_head_has_a_limit_however_it_arrives(kind, raw):
    assert isinstance(fed(kind, raw, head=len(raw)), dict)
    for short in range(len(raw) - 60 if len(raw) > 60 else 1, len(raw)):
        assert fed(kind, raw, head=short) == TOO_LARGE


@pytest.mark.parametrize("kind", ["request", "response", "trailers"])
def test_fields_are_counted(kind):
    start = {
        "request": b"GET / HTTP/1.1\r\nHost: a\r\n",
        "response": b"HTTP/1.1 200 OK\r\nb: c\r\n",
        "trailers": b"b: c\r\n",
    }[kind]

    assert isinstance(fed(kind, start + b"a: b\r\n" * 4 + b"\r\n", fields=5), dict)
    assert fed(kind, start + b"a: b\r\n" * 5 + b"\r\n", fields=5) == TOO_LARGE
    assert isinstance(at_the_edge(kind, start + b"a: b\r\n" * 99 + b"\r\n"), dict)
    assert at_the_edge(kind, start + b"a: b\r\n" * 100 + b"\r\n", fields=1000) == TOO_LARGE


def test_a_name_of_more_than_65535_bytes_is_too_large():
    raw = get("a" * 0x10000 + ": b")

    assert at_the_edge("request", raw, head=1 << 20) == TOO_LARGE
    assert isinstance(at_the_edge("request", get("a" * 0xFFFF + ": b"), head=1 << 20), dict)


# ---- properties --------------------------------------------------------------------------------------------

TOKEN = st.text("!#$%&'*+-.^_`|~0123456789abcxyzABCXYZ", min_size=1, max_size=20)
VISIBLE = "".join(chr(c) for c in (*range(0x21, 0x7F), *range(0x80, 0x100)))
BLANK = st.text(" \t", max_size=3)
VALUE_TEXT = st.text(VISIBLE + " \t", max_size=60).map(lambda value: value.strip(" \t"))
TARGET = st.text("".join(chr(c) for c in range(0x21, 0x7F) if c != ord("#")), max_size=40).map(
    lambda text: "/" + text
)
KNOWN = {
    "host",
    "content-length",
    "transfer-encoding",
    "connection",
    "te",
    "upgrade",
    "keep-alive",
    "proxy-connection",
}
FIELDS = st.lists(
    st.tuples(TOKEN.filter(lambda name: name.lower() not in KNOWN), BLANK, VALUE_TEXT, BLANK), max_size=12
)


def lines_of(fields) -> str:
    return "".join(f"{name}:{before}{value}{after}\r\n" for name, before, value, after in fields)


def read_back(fields) -> list[tuple[bytes, bytes, bool]]:
    return [(name.encode(), value.encode("latin-1"), False) for name, _, value, _ in fields]


@given(TOKEN.filter(lambda method: method != "CONNECT"), TARGET, st.sampled_from("01"), FIELDS)
def test_a_request_built_from_parts_is_read_as_these_parts(method, target, minor, fields):
    raw = f"{method} {target} HTTP/1.{minor}\r\nHost: a\r\n{lines_of(fields)}\r\n".encode("latin-1")
    parsed = head("request", raw)
    path, mark, query = target.partition("?")

    assert (parsed["method"], parsed["minor"]) == (method.encode(), int(minor))
    assert (parsed["path"], parsed["query"]) == (path.encode(), query.encode() if mark else None)
    assert parsed["fields"] == [(b"Host", b"a", False), *read_back(fields)]
    assert (parsed["length"], parsed["content_length"], parsed["authority"]) == (len(raw), -1, b"a")


@given(st.integers(100, 599), st.text(VISIBLE + " \t", max_size=30), st.sampled_from("01"), FIELDS)
def test_a_response_built_from_parts_is_read_as_these_parts(status, reason, minor, fields):
    raw = f"HTTP/1.{minor} {status} {reason}\r\n{lines_of(fields)}\r\n".encode("latin-1")
    parsed = head("response", raw)

    assert (parsed["status"], parsed["target"], parsed["minor"]) == (
        status,
        reason.encode("latin-1"),
        int(minor),
    )
    assert (parsed["fields"], parsed["length"]) == (read_back(fields), len(raw))


@given(FIELDS)
def test_trailers_built_from_parts_are_read_as_these_parts(fields):
    raw = f"{lines_of(fields)}\r\n".encode("latin-1")
    parsed = head("trailers", raw)

    assert [field[:2] for field in parsed["fields"]] == [field[:2] for field in read_back(fields)]


@given(st.binary(max_size=80), st.sampled_from(["request", "response", "trailers"]))
def test_any_bytes_get_one_verdict_however_they_arrive(raw, kind):
    start = {
        "request": b"GET / HTTP/1.1\r\nHost: a\r\n",
        "response": b"HTTP/1.1 200 OK\r\n",
        "trailers": b"",
    }[kind]

    assert fed(kind, raw) != 0
    assert fed(kind, start + raw) != 0
    assert fed(kind, start + raw + b"\r\n\r\n") != NEED_MORE
