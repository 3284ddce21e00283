"""The server name of a ClientHello, as real libraries write it and as nobody would."""

from __future__ import annotations

import random
import ssl
import struct

import pytest
from harness.corpus import corpus
from harness.edge import EDGE
from harness.mutation import ANYWHERE, damaged
from hypothesis import given
from hypothesis import strategies as st

from turnout.ext.hello import _name_at

HELLO_MAX = 16640


def name(raw):
    verdict = _name_at(EDGE.last(raw), len(raw))
    assert _name_at(EDGE.first(raw), len(raw)) == verdict
    return verdict


def fed(raw):
    """The verdict on raw, which every prefix must lead to by way of "more"."""
    whole = name(raw)
    told = False
    for n in range(len(raw)):
        part = name(raw[:n])
        assert part == whole if told else part in ("more", whole), n
        told = part != "more"
    return whole


def client_hello(server_name, **changes):
    """What Python's ssl sends first."""
    context = ssl.create_default_context()
    context.check_hostname = False
    for key, value in changes.items():
        setattr(context, key, value)
    if server_name == "alpn.example":
        context.set_alpn_protocols(["h2", "http/1.1"])
    out = ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), out, server_hostname=server_name).do_handshake()
    return out.read()


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize(
    "server_name", ["a.example", "alpn.example", "x" * 60 + ".example", "xn--bcher-kva.example"]
)
def test_the_name_that_openssl_asks_for_is_found(server_name, version):
    raw = client_hello(server_name, minimum_version=version, maximum_version=version)
    assert fed(raw) == server_name.encode()
    assert name(raw + b"\x17\x03\x03\0\x01x") == server_name.encode()


def test_a_client_that_names_an_address_or_nothing_names_no_server():
    assert fed(client_hello(None)) == b""
    assert fed(client_hello("127.0.0.1")) == b""


def message(*extensions, version=b"\x03\x03", session=b"", ciphers=b"\x13\x01", compression=b"\0", tail=b""):
    body = version + bytes(32) + bytes([len(session)]) + session + struct.pack("!H", len(ciphers)) + ciphers
    body += bytes([len(compression)]) + compression
    if extensions:
        joined = b"".join(struct.pack("!HH", kind, len(data)) + data for kind, data in extensions)
        body += struct.pack("!H", len(joined)) + joined
    body += tail
    return b"\x01" + len(body).to_bytes(3, "big") + body


def records(raw, size=16384, version=b"\x03\x01"):
    parts = [raw[at : at + size] for at in range(0, len(raw), size)]
    return b"".join(b"\x16" + version + struct.pack("!H", len(part)) + part for part in parts)


def sni(host, *, kind=0, listed=None, length=None):
    entry = bytes([kind]) + struct.pack("!H", len(host) if length is None else length) + host
    return 0, struct.pack("!H", len(entry) if listed is None else listed) + entry


OTHER = (10, b"\0\x02\0\x1d")


@pytest.mark.parametrize("size", [1, 2, 3, 5, 40, 16384])
def test_a_hello_cut_into_records_is_read_as_one(size):
    assert fed(records(message(OTHER, sni(b"Cut.Example")), size)) == b"cut.example"


def test_names_come_in_lower_case_without_their_last_dot():
    assert fed(records(message(sni(b"A.Example.")))) == b"a.example"
    assert fed(records(message(sni(b".")))) == b""


def test_a_long_name_and_long_fields_before_it_fit():
    raw = message((21, bytes(12000)), sni(b"a" * 255), session=bytes(255), ciphers=bytes(2000))
    assert name(records(raw)) == b"a" * 255


def test_a_hello_without_extensions_has_no_name():
    assert fed(records(message())) == b""
    assert fed(records(message(OTHER))) == b""
    assert fed(records(message((0, b"\0\x05\x01\0\x02ab")))) == b""  # a name of another type


@pytest.mark.parametrize(
    "raw",
    [
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"SSH-2.0-x\r\n",
        b"\x80\x2e\x01\x03\x01",  # SSL 2
        b"\x16\x02\x01\0\x05hello",
        b"\x17\x03\x03\0\x05hello",
        b"\x16\x03\x01\0\0",
        b"\x16\x03\x01\x40\x01" + bytes(50),
        records(b"\x02" + message(sni(b"a"))[1:]),
        records(b"\x01\0\0\x25" + bytes(37)),
        records(b"\x01\xff\xff\xff" + bytes(100)),
        records(message(sni(b"a b"))),
        records(message(sni(b"a\0b"))),
        records(message(sni("bücher".encode()))),
        records(message(sni(b""))),
        records(message(sni(b"a" * 256))),
        records(message(sni(b"ab", length=3))),
        records(message(sni(b"ab", length=1))),
        records(message(sni(b"ab", listed=9))),
        records(message((0, b""))),
        records(message((0, b"\0\0"))),
        records(message(sni(b"a"), tail=b"x")),
        records(message(OTHER, tail=b"x")),
        records(message(tail=b"\0")),
        records(b"\x01\0\0\x2a" + bytes(34) + b"\xff" + bytes(300)),
        records(message()[:20])[:-1] + b"x" + b"\x15\x03\x03\0\x02\x01\0",  # an alert inside
    ],
)
def test_what_is_no_client_hello_is_something_else(raw):
    assert fed(raw) == "other"


def test_an_unfinished_hello_is_waited_for_up_to_a_bound():
    raw = records(message((21, bytes(16500))), size=16)
    assert name(raw[: HELLO_MAX - 1]) == "more"
    assert name(raw[:HELLO_MAX]) == "other"
    assert name(records(b"\x01\0\x40\0" + bytes(20000), size=1)[:HELLO_MAX]) == "other"


@given(st.integers(0, 1 << 32))
def test_damaged_hellos_get_the_same_verdict_however_they_come(seed):
    raw = damaged(random.Random(seed), corpus("hello"), ANYWHERE)[:3000]
    whole = name(raw)
    assert all(name(raw[:n]) in ("more", whole) for n in range(0, len(raw), 7))


@given(st.binary(max_size=400), st.integers(1, 50))
def test_any_bytes_in_any_records_get_a_verdict(raw, size):
    name(raw)
    name(records(raw, size))
    name(records(b"\x01" + len(raw).to_bytes(3, "big") + raw, size))
