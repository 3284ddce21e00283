"""Names and values of fields: which names are known, what stands in a list, which cookie is whose."""

from __future__ import annotations

import pytest
from harness.edge import EDGE
from hypothesis import given
from hypothesis import strategies as st

from turnout.ext.headers import _cookie, _lookup, _token_listed

KNOWN = [
    "", "host", "connection", "content-length", "transfer-encoding", "te", "trailer", "upgrade", "expect",
    "keep-alive", "proxy-connection", "proxy-authenticate", "proxy-authorization", "x-forwarded-for",
    "x-forwarded-proto", "x-forwarded-host", "forwarded", "x-request-id", "cookie", "set-cookie", "accept",
    "content-type", "date", "idempotency-key", "retry-after", "via", "x-real-ip",
]  # fmt: skip


def lookup(name: bytes) -> int:
    ids = {_lookup(EDGE.last(name), len(name)), _lookup(EDGE.first(name), len(name))}
    assert len(ids) == 1
    return ids.pop()


@pytest.mark.parametrize(("number", "name"), list(enumerate(KNOWN))[1:])
def test_known_names_are_found_in_any_case(number, name):
    for form in (name, name.upper(), name.title(), name.swapcase()):
        assert lookup(form.encode()) == number


@pytest.mark.parametrize("name", KNOWN[1:])
def test_names_that_only_look_like_known_ones_are_other_names(name):
    raw = name.encode()
    near = {raw[:-1], raw[1:], raw + b"x", raw + b"\0", raw.replace(b"-", b"_"), raw.replace(b"-", b"\r")}
    near |= {raw[:i] + bytes([raw[i] ^ bit]) + raw[i + 1 :] for i in range(len(raw)) for bit in (1, 64, 128)}

    assert {lookup(form) for form in near if form.lower() not in {known.encode() for known in KNOWN}} == {0}


@given(st.binary(max_size=40))
def test_any_bytes_may_be_looked_up(name):
    known = name.decode("latin-1").lower() if name.isascii() else ""

    assert lookup(name) == (KNOWN.index(known) if known in KNOWN else 0)


def listed(value: bytes, token: bytes = b"trailers") -> bool:
    return _token_listed(EDGE.last(value), len(value), token)


@pytest.mark.parametrize(
    "value",
    [
        b"trailers",
        b"TRAILERS",
        b" trailers ",
        b"a, trailers",
        b"trailers,a",
        b",,\ttrailers\t,",
        b"trailers;q=0.5",
        b"a;b=1,trailers ;x",
    ],
)
def test_a_token_is_found_in_a_list(value):
    assert listed(value)


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b" ",
        b",",
        b"trailer",
        b"trailersx",
        b"x trailers",
        b"trailers x",
        b"a;trailers",
        b"a;b=trailers",
        b'"trailers"',
    ],
)
def test_what_is_no_element_of_the_list_is_not_found(value):
    assert not listed(value)


@given(st.binary(max_size=60))
def test_any_list_is_read_like_its_split(value):
    elements = [element.split(b";")[0].strip(b" \t").lower() for element in value.split(b",")]

    for token in (b"close", b"a", *(element for element in elements if element)):
        assert listed(value, token) == (token in elements)


def cookie(value: bytes, name: bytes = b"sid") -> bytes | None:
    found = _cookie(EDGE.last(value), len(value), name)
    assert _cookie(EDGE.first(value), len(value), name) == found
    return None if found is None else value[found[0] : sum(found)]


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (b"sid=1", b"1"),
        (b"sid=", b""),
        (b"a=b; sid=1; c=d", b"1"),
        (b"a=b;sid=1", b"1"),
        (b"sid=1; sid=2", b"1"),
        (b"sid=a=b", b"a=b"),
        (b'sid="x"', b'"x"'),
        (b"sid=1 \t; x", b"1"),
        (b"; ;\tsid=1", b"1"),
        (b"sid", None),
        (b"sid =1", None),
        (b"SID=1", None),
        (b"xsid=1", None),
        (b"sidx=1", None),
        (b"a=sid=1", None),
        (b"a=b, sid=1", None),
        (b"", None),
        (b";;;", None),
    ],
)
def test_a_cookie_is_found_by_its_exact_name(value, found):
    assert cookie(value) == found


@given(st.text("asid=; \t\x00\xff,", max_size=40))
def test_any_cookie_field_is_read_like_its_split(text):
    value = text.encode("latin-1")
    pairs = [pair.strip(b" \t") for pair in value.split(b";")]

    assert cookie(value) == next((pair[4:] for pair in pairs if pair.startswith(b"sid=")), None)
