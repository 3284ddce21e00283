"""Documents: what is taken, what is refused and how it is said, and that no document does harm."""

import contextlib
import copy
import json
import re
import socket

import pytest
from fakes.documents import SHARE, breaker, document, listener, member, retry, route, service, sticky
from hypothesis import given, settings
from hypothesis import strategies as st

from turnout.ext.snapshot import Snapshot


def test_a_document_is_taken_as_tables_or_as_json():
    tables = document()

    assert Snapshot(tables).version == Snapshot(json.dumps(tables).encode()).version == 1


def test_the_slots_that_are_needed_are_told():
    tables = document({"a": ["10.0.0.1:80", "10.0.0.2:80"], "b": []}, listeners=[listener(0), listener(7)])

    assert Snapshot(tables).slots == {"listeners": 8, "services": 2, "groups": 2, "endpoints": 2, "routes": 1}


@pytest.mark.parametrize(
    ("text", "family", "packed"),
    [
        ("10.0.0.1:80", socket.AF_INET, b"\x00\x50" + bytes([10, 0, 0, 1]) + bytes(8)),
        (
            "[2001:db8::1]:65535",
            socket.AF_INET6,
            b"\xff\xff" + bytes(4) + b"\x20\x01\x0d\xb8" + bytes(11) + b"\1" + bytes(4),
        ),
        ("unix:/run/app.sock", socket.AF_UNIX, b"/run/app.sock\0"),
    ],
)
def test_addresses_become_what_the_kernel_takes(text, family, packed):
    row = Snapshot(document({"app": [text]}))._member(0)

    assert row["address"] == family.to_bytes(2, "little") + packed
    assert row["name"] == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "10.0.0.1",
        "10.0.0.1:0",
        "10.0.0.1:65536",
        "10.0.0:x",
        "1:80",
        "::1:80",
        "[::1]",
        "[::1%eth0]:80",
        "app:80",
        "unix:app",
        "unix:/" + "a" * 107,
        "unix:/a\0b",
        "10.0.0.1:\u0663",
        "10.0.0.1:-1",
        "10.0.0.1 x:80",
    ],
)
def test_what_is_no_numeric_address_is_refused(text):
    rows = [member(0, "app", "10.0.0.1:80") | {"address": text}]

    with pytest.raises(ValueError, match=r"^members\[0\]\.address: "):
        Snapshot(document(members=rows))


def test_members_know_their_service_and_group():
    groups = [
        {"slot": 0, "version": "v1", "share": SHARE, "members": [1]},
        {"slot": 1, "version": "v2", "share": 0, "members": [0]},
    ]
    tables = document({"a": ["10.0.0.1:80", "10.0.0.2:80"], "b": ["10.0.0.1:80"]})
    tables["services"][0] |= {"split": True, "groups": groups}
    tables["services"][1]["groups"][0]["slot"] = 2
    rows = [Snapshot(tables)._member(i) for i in range(3)]

    assert [(row["service"], row["group"]) for row in rows] == [(0, 1), (0, 0), (1, 0)]


def with_service(**changes) -> dict:
    return document() | {"services": [service(0, "app", [0]) | changes]}


def with_route(**changes) -> dict:
    return document(routes=[route(**changes)])


def group(**changes) -> dict:
    return {"slot": 0, "version": "", "share": SHARE, "members": [0]} | changes


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        ({}, "listeners: is missing"),
        ([], "document: list is not a table"),
        (document() | {"x": 1}, "x: is not known here"),
        (document() | {"version": -1}, "version: -1 is not a whole number from 0 to 4611686018427387904"),
        (document() | {"version": True}, "version: True is not a whole number"),
        (document() | {"version": 1.0}, "version: 1.0 is not a whole number"),
        (document() | {"members": None}, "members: None is not a list"),
        (document() | {"listeners": [1]}, "listeners[0]: 1 is not a table"),
        (document(listeners=[listener(0), listener(0)]), "listeners[1].slot: 0 is given twice"),
        (document(listeners=[listener(70000)]), "listeners[0].slot: 70000 is not"),
        (document(listeners=[listener(name="")]), "listeners[0].name: has 0 bytes, not 1 to 255"),
        (document(listeners=[listener(name="a\nb")]), "listeners[0].name: holds a control character"),
        (document(listeners=[listener(name="\ud800")]), "listeners[0].name: is not valid text"),
        (document(listeners=[listener(fields_max=101)]), "listeners[0].fields_max: 101 is not"),
        (
            document(listeners=[listener(trusted=["10.0.0.1/8"])]),
            "listeners[0].trusted: '10.0.0.1/8' is not a network",
        ),
        (
            document(listeners=[listener(forwarded=["y"])]),
            "listeners[0].forwarded: 'y' is none of x, rfc7239",
        ),
        (
            document(members=[member(0, "app", "10.0.0.1:80", identity=0)]),
            "members[0].identity: 0 is nobody's",
        ),
        (
            document(members=[member(0, "app", "10.0.0.1:80", identity=1 << 64)]),
            "members[0].identity: 18446744073709551616",
        ),
        (document(members=[]), "services[0].members: 0 is not an index below 0"),
        (document() | {"services": []}, "routes[0].service: there is none"),
        (document() | {"services": [], "routes": []}, "members[0].slot: this member belongs to no service"),
        (with_service(members=[0, 0]), "services[0].members: the same index stands twice"),
        (with_service(groups=[]), "services[0].groups: has to hold one group, or more with split"),
        (
            with_service(groups=[group(), group(slot=1)]),
            "services[0].groups: has to hold one group, or more with split",
        ),
        (with_service(split=True, groups=[group(), group()]), "services[0].groups[1].slot: 0 is given twice"),
        (with_service(groups=[group(members=[])]), "services[0].groups: do not hold member 0"),
        (
            with_service(groups=[group(share=1)]),
            "services[0].groups: have shares that add up to 1, not to 1000000 or 0",
        ),
        (
            with_service(split=True, groups=[group(), group(slot=1, share=0)]),
            "services[0].groups[1].members: 0 is not of this service, or in another group already",
        ),
        (with_service(strategy="best"), "services[0].strategy: 'best' is none of round_robin"),
        (with_service(key_source="header"), "services[0].key_name: is needed with this key_source"),
        (with_service(host_mode="literal"), "services[0].host: is needed with this host_mode"),
        (with_service(host_mode="literal", host="a\r\nb"), "services[0].host: holds a control character"),
        (with_service(breaker=breaker(probes=0)), "services[0].breaker.probes: and successes"),
        (
            with_service(breaker=breaker(statuses=[99])),
            "services[0].breaker.statuses: holds what is not a number",
        ),
        (with_service(breaker=breaker() | {"probe": 1}), "services[0].breaker.probe: is not known here"),
        (with_service(retry=retry(attempts=9)), "services[0].retry.attempts: 9 is not"),
        (with_service(retry=retry(budget=float("nan"))), "services[0].retry.budget: nan is not a number"),
        (with_service(retry=retry(methods=["GETT"])), "services[0].retry.methods: 'GETT' is none of GET"),
        (with_service(sticky=sticky(kind="cookie", key="0" * 32)), "services[0].sticky.name: has 0 bytes"),
        (
            with_service(sticky=sticky(kind="cookie", name="a", key="0")),
            "services[0].sticky.key: has to be 32",
        ),
        (
            with_service(sticky=sticky(kind="cookie", name="a", key="x" * 32)),
            "services[0].sticky.key: is not hex",
        ),
        (
            with_service(sticky=sticky(kind="cookie", name="a", key="0 " * 16)),
            "services[0].sticky.key: is not hex",
        ),
        (with_service(sticky=sticky(path="/;x")), "services[0].sticky.path: holds a ';'"),
        (with_route(service=None), "routes[0].service: goes with action service, and only with it"),
        (with_route(service=1), "routes[0].service: 1 is not a whole number from 0 to 0"),
        (with_route(listeners=[1]), "routes[0].listeners: 1 is not an index below 1"),
        (with_route(path="x"), "routes[0].path: does not start with '/'"),
        (with_route(path="/a//b"), "routes[0].path: holds an empty segment or a zero byte"),
        (with_route(path="/a/../b"), "routes[0].path: holds a dot segment"),
        (with_route(path="/" + "a" * 1023), "routes[0].path: is longer than 1023 bytes"),
        (with_route(hosts=["A"]), "routes[0].hosts: 'A' is not a host name in lower case"),
        (with_route(hosts=["a:80"]), "routes[0].hosts: 'a:80' holds a port"),
        (with_route(hosts=["a*"]), "routes[0].hosts: 'a*' is not a host name or *.suffix"),
        (with_route(methods=["G T"]), "routes[0].methods: 'G T' is not a method"),
        (
            with_route(headers=[{"name": "a b", "value": None}]),
            "routes[0].headers[0].name: 'a b' is not a field name",
        ),
        (with_route(headers=[{"name": "a", "value": " b"}]), "routes[0].headers[0].value: could never be"),
        (with_route(prefix_to="x"), "routes[0].prefix_to: has to be empty or a path"),
        (with_route(action="respond", status=100), "routes[0].status: 100 is not from 200 to 599"),
        (
            with_route(action="redirect", status=301),
            "routes[0].status: 301 with location '' is not a redirect",
        ),
        (
            with_route(action="redirect", status=301, location="/{x}"),
            "routes[0].location: '/{x}' holds a brace",
        ),
        (
            with_route(request=[{"kind": "set", "name": "Host", "value": "x"}]),
            "routes[0].request[0].name: is not a field",
        ),
        (
            with_route(response=[{"kind": "set", "name": "a", "value": "x\r\ny: z"}]),
            "routes[0].response[0].value: holds a",
        ),
    ],
)
def test_what_is_wrong_is_said_with_its_place(tables, message):
    with pytest.raises(ValueError, match="^" + re.escape(message)):
        Snapshot(tables)


@pytest.mark.parametrize("raw", [b"", b"{", b"\xff", b"[" * 100_000, b'{"version": ' + b"9" * 5000 + b"}"])
def test_what_is_not_json_is_refused(raw):
    with pytest.raises(ValueError, match=r"^document: is not JSON"):
        Snapshot(raw)


def test_a_thousand_endpoints_are_frozen():
    addresses = [f"10.0.{i // 250}.{i % 250}:80" for i in range(1000)]
    snapshot = Snapshot(document({"app": addresses}))

    assert [snapshot._member(i)["name"] for i in range(1000)] == addresses


# ---- fuzz --------------------------------------------------------------------------------------------------


def rich() -> dict:
    """A document with something in every list."""
    groups = [
        group(version="v1", share=900_000, members=[0]),
        group(slot=1, version="v2", share=100_000, members=[1]),
    ]
    tables = document({"a": ["10.0.0.1:80", "[::1]:81"], "b": ["unix:/run/b"]})
    tables["services"][0] |= {"split": True, "groups": groups, "key_source": "header", "key_name": "x-user"}
    tables["services"][0]["sticky"] = sticky(kind="cookie", name="s", key="ab" * 16)
    tables["services"][0]["breaker"] = breaker(statuses=[500, 599])
    tables["services"][1]["groups"][0]["slot"] = 2
    tables["listeners"] = [listener(0, trusted=["10.0.0.0/8"]), listener(3)]
    condition = {"name": "X-A", "value": "1"}
    edits = [{"kind": "set", "name": "X-B", "value": "2"}, {"kind": "remove", "name": "Server", "value": ""}]
    tables["routes"] = [
        route(
            0, hosts=["a.example", "*.example"], path="/x/y", methods=["GET", "PURGE"], headers=[condition]
        ),
        route(1, listeners=[0, 1], service=1, prefix_to="/z", request=edits, response=edits),
        route(2, path="/r", action="redirect", status=308, location="https://{host}{path}{query}"),
        route(3, path="/t", action="respond", status=200, body="text"),
    ]
    return tables


def places(value, path=()):
    """Every path into the tables."""
    yield path
    children = (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    )
    for key, child in children:
        yield from places(child, (*path, key))


RICH = rich()
PLACES = list(places(RICH))[1:]
INTEGERS = st.integers() | st.sampled_from([0, 1, 2, 3, 65535, 65536, 1 << 31, 1 << 32, 1 << 63, 1 << 64])
ATOMS = (
    st.none()
    | st.booleans()
    | INTEGERS
    | st.floats()
    | st.text(max_size=5)
    | st.text("/.:[]*%0a{}", max_size=9)
)
VALUES = ATOMS | st.lists(ATOMS, max_size=3) | st.just("a" * 70_000) | st.just({})


def change(tables: dict, path: tuple, value: object, how: str) -> None:
    at = tables
    try:
        for key in path[:-1]:
            at = at[key]
        if how == "delete":
            del at[path[-1]]
        elif how == "double" and isinstance(at, list):
            at.append(copy.deepcopy(at[path[-1]]))
        else:
            at[path[-1]] = value
    except (KeyError, IndexError, TypeError):
        return  # an earlier change took the place away


@given(
    st.lists(
        st.tuples(st.sampled_from(PLACES), VALUES, st.sampled_from(["set", "delete", "double"])), max_size=3
    )
)
def test_a_changed_document_is_frozen_or_refused(changes):
    tables = copy.deepcopy(RICH)
    for path, value, how in changes:
        change(tables, path, value, how)

    snapshot = None if changes else Snapshot(tables)
    with contextlib.suppress(ValueError):
        snapshot = Snapshot(tables)
    if snapshot is not None:
        snapshot._route(0, b"GET /x/y/%41//b HTTP/1.1\r\nHost: b.a.example\r\nX-A: 1\r\n\r\n")


@settings(max_examples=1000)
@given(st.integers(0, 10_000), st.binary(max_size=4), st.integers(0, 4))
def test_damaged_json_is_frozen_or_refused(at, patch, drop):
    raw = json.dumps(RICH).encode()
    damaged = raw[:at] + patch + raw[at + drop :]

    with contextlib.suppress(ValueError):
        assert Snapshot(damaged).version >= 0
