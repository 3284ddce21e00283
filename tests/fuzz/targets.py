"""What is fuzzed: from where damage starts, in which ways, and what must hold for any bytes.

A target's check raises AssertionError when something does not hold; its return value is the kind of outcome.
An input with an outcome not seen before is damaged further.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, NamedTuple

from fakes.documents import breaker, document, listener, member, route, sticky
from fuzz import datagrams
from harness.bodies import chunked
from harness.corpus import corpus
from harness.edge import EDGE
from harness.feeding import at_the_edge, fed
from harness.mutation import ANYWHERE, IN_A_HEAD
from harness.readers import chunked_disagreement, disagreement

from turnout.ext.headers import _cookie, _token_listed
from turnout.ext.hello import _name_at
from turnout.ext.proxyproto import _likely_at, _parse_at, _write
from turnout.ext.snapshot import Snapshot
from turnout.ext.sticky import _Cookies
from turnout.ext.text import _address_parse, _address_text

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Hashable, Sequence

SHORT = 300  # up to this many bytes every prefix is tried


class Target(NamedTuple):
    samples: Callable[[], Sequence[bytes]]
    ways: Sequence[Callable[[random.Random, bytes], bytes]]
    check: Callable[[random.Random, bytes], Hashable]


# ---- heads -------------------------------------------------------------------------------------------------


def head_outcome(kind: str, rng: random.Random, raw: bytes) -> Hashable:
    limits = (
        {} if rng.random() < 0.9 else {"line": rng.randrange(300), "head": rng.randrange(600), "fields": 5}
    )
    verdict = fed(kind, raw, **limits) if len(raw) <= SHORT else at_the_edge(kind, raw, **limits)
    if len(raw) > SHORT:
        seen = rng.randrange(len(raw))
        assert at_the_edge(kind, raw, 0 if kind == "trailers" else seen, **limits) in (verdict, -2)
    if not isinstance(verdict, dict):
        return verdict
    return (
        verdict["flags"],
        verdict["content_length"] >= 0,
        verdict["minor"],
        sum(f[2] for f in verdict["fields"]),
    )


def request(rng: random.Random, raw: bytes) -> Hashable:
    found = disagreement("request", raw)
    assert found is None, found
    return head_outcome("request", rng, raw)


def response(rng: random.Random, raw: bytes) -> Hashable:
    found = disagreement("response", raw)
    assert found is None, found
    return head_outcome("response", rng, raw)


def trailers(rng: random.Random, raw: bytes) -> Hashable:
    return head_outcome("trailers", rng, raw)


# ---- bodies ------------------------------------------------------------------------------------------------


def chunks(rng: random.Random, raw: bytes) -> Hashable:
    whole = chunked(raw)
    cuts = [rng.randrange(len(raw) + 1) for _ in range(rng.randrange(8))]
    assert chunked(raw, cuts) == whole
    assert chunked(raw, range(len(raw))) == whole
    found = chunked_disagreement(raw)
    assert found is None, found
    return whole is None or (whole.ended, len(whole.data))


# ---- values ------------------------------------------------------------------------------------------------


def cookie(rng: random.Random, raw: bytes) -> Hashable:
    pairs = [pair.strip(b" \t") for pair in raw.split(b";")]
    wanted = next((pair[4:] for pair in pairs if pair.startswith(b"sid=")), None)
    found = _cookie(EDGE.last(raw), len(raw), b"sid")
    assert (found and raw[found[0] : sum(found)]) == (None if found is None else wanted)
    assert (found is None) == (wanted is None)
    _token_listed(EDGE.last(raw), len(raw), b"sid")
    return wanted


def address(rng: random.Random, raw: bytes) -> Hashable:
    packed = _address_parse(EDGE.last(raw), len(raw))
    if packed is not None:
        text = _address_text(packed)
        assert _address_parse(EDGE.last(text), len(text)) == packed
    return packed is None or len(_address_text(packed))


ISSUED_AT, IDENTITY = 1_700_000_000, 0x0123456789ABCDEF
COOKIES = _Cookies()


def issued() -> list[bytes]:
    written = COOKIES.write(IDENTITY, "v2", ISSUED_AT + 1800, ISSUED_AT)
    return [written.partition(b"=")[2].partition(b";")[0]]


def sticky_value(rng: random.Random, raw: bytes) -> Hashable:
    verdict, identity, _ = COOKIES.read(raw, ISSUED_AT)
    assert (verdict == "bound") == (raw in issued())
    assert identity == (IDENTITY if verdict == "bound" else 0)
    return verdict


# ---- what stands in front of a connection's bytes ----------------------------------------------------------


def proxy(rng: random.Random, raw: bytes) -> Hashable:
    verdict = _parse_at(EDGE.last(raw), len(raw))
    assert (_likely_at(EDGE.last(raw), len(raw)) == 0) <= (verdict == "bad")
    n = rng.randrange(len(raw) + 1)
    part = _parse_at(EDGE.last(raw[:n]), n)
    if isinstance(verdict, str):
        assert part in ("more", verdict)
        return verdict
    used, who = verdict
    assert part == ("more" if n < used else verdict)
    for version in (1, 2):
        written = _write(version, who)
        assert _parse_at(EDGE.last(written), len(written)) == (len(written), who)
    return who is None, raw[:1]


def hello(rng: random.Random, raw: bytes) -> Hashable:
    verdict = _name_at(EDGE.last(raw), len(raw))
    assert _name_at(EDGE.first(raw), len(raw)) == verdict
    n = rng.randrange(len(raw) + 1)
    part = _name_at(EDGE.last(raw[:n]), n)
    assert part in ("more", verdict)
    return verdict if isinstance(verdict, str) else len(verdict)


# ---- documents ---------------------------------------------------------------------------------------------

HEAD = b"GET /x/y/%41//b?q HTTP/1.1\r\nHost: b.a.example\r\nX-A: 1\r\n\r\n"


def documents() -> list[bytes]:
    rich = document({"a": ["10.0.0.1:80", "[::1]:81"], "b": ["unix:/run/b"]})
    rich["listeners"] = [listener(0, trusted=["10.0.0.0/8"]), listener(3)]
    rich["services"][0]["sticky"] = sticky(kind="cookie", name="s", key="ab" * 16)
    rich["services"][0]["breaker"] = breaker(statuses=[500, 599])
    edits = [{"kind": "set", "name": "X-B", "value": "2"}, {"kind": "remove", "name": "Server", "value": ""}]
    rich["routes"] = [
        route(0, hosts=["a.example", "*.example"], path="/x/y", headers=[{"name": "X-A", "value": "1"}]),
        route(1, listeners=[0, 1], service=1, prefix_to="/z", request=edits, response=edits),
        route(2, path="/r", action="redirect", status=308, location="https://{host}{path}{query}"),
    ]
    tables = [rich, document(), document(members=[member(0, "app", "10.0.0.1:80")])]
    return [json.dumps(each).encode() for each in tables]


def snapshot(rng: random.Random, raw: bytes) -> Hashable:
    try:
        frozen = Snapshot(raw)
    except ValueError as error:
        return str(error).partition(":")[0]
    for number in range(frozen.slots["listeners"]):
        frozen._route(number, HEAD)
    return "frozen"


TARGETS = {
    "request": Target(lambda: corpus("request"), IN_A_HEAD, request),
    "response": Target(lambda: corpus("response"), IN_A_HEAD, response),
    "trailers": Target(lambda: corpus("trailers"), IN_A_HEAD, trailers),
    "chunked": Target(lambda: corpus("chunked"), ANYWHERE, chunks),
    "cookie": Target(lambda: corpus("cookie"), ANYWHERE, cookie),
    "address": Target(lambda: corpus("address"), ANYWHERE, address),
    "sticky": Target(issued, ANYWHERE, sticky_value),
    "proxy": Target(lambda: corpus("proxy"), ANYWHERE, proxy),
    "hello": Target(lambda: corpus("hello"), ANYWHERE, hello),
    "sessions": Target(datagrams.orders, ANYWHERE, datagrams.sessions),
    "datagrams": Target(datagrams.orders, ANYWHERE, datagrams.datagrams),
    "document": Target(documents, ANYWHERE, snapshot),
}
