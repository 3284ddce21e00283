"""Routing: by example, and against a slow reference that says the rules in another way."""

import re
from itertools import product
from urllib.parse import unquote_to_bytes

import pytest
from fakes.documents import document, listener, route
from hypothesis import given
from hypothesis import strategies as st

from turnout.ext.snapshot import Snapshot


def head(path: str, host: str = "example.com", method: str = "GET", headers=()) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", f"Host: {host}", *(f"{name}: {value}" for name, value in headers)]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def snapshot(*routes: dict) -> Snapshot:
    """Routes named by what they match, unless they have a name."""
    rows = [
        route(slot, **{"name": "".join([*row.get("hosts", []), row.get("path", "/")])} | row)
        for slot, row in enumerate(routes)
    ]
    return Snapshot(document(routes=rows))


def found(snapshot: Snapshot, path: str, host: str = "example.com", **request) -> str | None:
    return snapshot._route(0, head(path, host, **request))["route"]


def test_a_prefix_matches_whole_segments_and_the_longest_wins():
    routes = snapshot({"path": "/"}, {"path": "/orders"}, {"path": "/orders/7"}, {"path": "/files/"})

    assert [
        found(routes, path) for path in ("/orders", "/orders/", "/orders/8", "/ordersx", "/orders/7/x")
    ] == [
        "/orders",
        "/orders",
        "/orders",
        "/",
        "/orders/7",
    ]
    assert [found(routes, path) for path in ("/files", "/files/", "/files/x")] == ["/", "/files/", "/files/"]


def test_the_query_is_no_part_of_the_path():
    routes = snapshot({"path": "/"}, {"path": "/a"})

    assert found(routes, "/a?b=/../c%2F") == "/a"
    assert found(routes, "/?/a") == "/"


def test_an_exact_host_goes_before_wildcards_and_the_longest_wildcard_before_shorter_ones():
    hosts = ["a.b.example.com", "*.b.example.com", "*.example.com", "*.com"]
    routes = snapshot(*({"hosts": [host]} for host in hosts), {"name": "rest"})

    asked = [
        "a.b.example.com",
        "x.b.example.com",
        "b.example.com",
        "x.y.example.com",
        "example.com",
        "com",
        "[::1]:80",
    ]
    assert [found(routes, "/", host) for host in asked] == [
        "a.b.example.com/",
        "*.b.example.com/",
        "*.example.com/",
        "*.example.com/",
        "*.com/",
        "rest",
        "rest",
    ]


def test_case_port_and_trailing_dot_of_a_host_do_not_matter():
    routes = snapshot({"hosts": ["a.example.com"]}, {"hosts": ["[::1]"]})

    for host in ("A.Example.COM", "a.example.com:8080", "a.example.com.", "a.example.com.:80"):
        assert found(routes, "/", host) == "a.example.com/"
    assert found(routes, "/", "[::1]:8080") == "[::1]/"
    assert found(routes, "/", "b.example.com") is None


def test_what_no_condition_lets_through_falls_back_to_shorter_prefixes_then_hosts():
    routes = snapshot(
        {"name": "post", "hosts": ["a.example.com"], "path": "/x/y", "methods": ["POST"]},
        {"name": "put", "hosts": ["a.example.com"], "path": "/x", "methods": ["PUT"]},
        {"name": "wild", "hosts": ["*.example.com"], "methods": ["DELETE"]},
        {"name": "rest"},
    )

    by_method = [found(routes, "/x/y", "a.example.com", method=m) for m in ("POST", "PUT", "DELETE", "GET")]
    assert by_method == ["post", "put", "wild", "rest"]


def test_more_conditions_go_first_and_then_the_order_of_the_file():
    tier = {"name": "X-Tier", "value": "gold"}
    routes = snapshot(
        {"name": "plain"},
        {"name": "later"},
        {"name": "gold", "headers": [tier]},
        {"name": "gold get", "headers": [tier], "methods": ["GET", "PURGE"]},
        {"name": "any tier", "headers": [{"name": "x-tier", "value": None}]},
    )

    assert found(routes, "/") == "plain"
    assert found(routes, "/", headers=[("x-TIER", "gold")]) == "gold get"
    assert found(routes, "/", headers=[("X-Tier", "tin"), ("X-Tier", "gold")], method="PURGE") == "gold get"
    assert found(routes, "/", headers=[("X-Tier", "gold")], method="POST") == "gold"
    assert found(routes, "/", headers=[("X-Tier", "Gold")]) == "any tier"


def test_a_condition_on_a_field_that_the_proxy_knows_works_like_any_other():
    routes = snapshot(
        {"name": "json", "headers": [{"name": "Accept", "value": "application/json"}]}, {"name": "rest"}
    )

    assert found(routes, "/", headers=[("accept", "application/json")]) == "json"
    assert found(routes, "/", headers=[("accepts", "application/json")]) == "rest"


@pytest.mark.parametrize(
    "path",
    [
        "/public/../admin",
        "/public/%2e%2E/admin",
        "/public/..%2Fadmin",
        "/public%2F..%2Fadmin",
        "/public/..;x=1/admin",
        "/public/./x",
        "/public/..",
        "/public//admin/../..//",
        "/public/%00",
        "//admin",
        "/%2Fadmin",
        "/admin%2Fx",
    ],
)
def test_a_path_that_can_be_read_in_two_ways_passes_no_rule_by(path):
    routes = snapshot({"path": "/"}, {"path": "/public"}, {"path": "/admin"}, {"path": "/admin/x"})

    assert routes._route(0, head(path)) == {"route": None, "doubtful": True}


@pytest.mark.parametrize(
    "path", ["/queues/%2F/name", "/queues//name", "/queues/a%2fb", "/queues/%41%", "/queues/.well-known"]
)
def test_a_path_whose_readings_agree_is_routed(path):
    assert found(snapshot({"path": "/"}, {"path": "/queues"}), path) == "/queues"


def test_percent_encoding_hides_no_prefix_and_is_counted_when_it_is_cut():
    routes = snapshot({"path": "/"}, {"path": "/admin"}, {"path": "/café"})

    assert routes._route(0, head("/%61dm%69n/x"))["route"] == "/admin"
    assert routes._route(0, head("/%61dm%69n/x"))["cut"] == len("/%61dm%69n")
    assert routes._route(0, head("/caf%C3%a9"))["cut"] == len("/caf%C3%a9")


def test_options_of_the_server_itself_is_routed_like_the_root():
    assert found(snapshot({"path": "/"}, {"path": "/x"}), "*", method="OPTIONS") == "/"
    assert found(snapshot({"path": "/x"}), "*", method="OPTIONS") is None


def test_a_listener_has_only_its_own_routes():
    rows = [route(0, name="first", listeners=[0]), route(1, name="second", listeners=[1])]
    routes = Snapshot(document(routes=rows, listeners=[listener(0), listener(5)]))

    assert routes._route(5, head("/"))["route"] == "second"
    assert routes._route(0, head("/"))["route"] == "first"
    assert [routes._route(slot, head("/"))["route"] for slot in (1, 4, 6, 4_000_000_000)] == [None] * 4


def location(template: str, path: str, host: str = "example.com:8080") -> bytes:
    routes = snapshot({"action": "redirect", "status": 301, "location": template})
    return routes._route(0, head(path, host))["location"]


def test_a_redirect_fills_in_its_template():
    assert location("https://{host}{path}{query}", "/a/b?c=d") == b"https://example.com/a/b?c=d"
    assert location("{scheme}://new.example.com{path}{query}", "/") == b"http://new.example.com/"
    assert location("/fixed", "/a?b") == b"/fixed"
    assert location("https://{host}{path}", "/", "[::1]:80") == b"https://[::1]/"


def test_a_redirect_does_not_lead_to_a_host_that_the_path_names():
    assert location("{path}{query}", "//elsewhere.example/x?y") == b"/elsewhere.example/x?y"


def test_a_redirect_that_does_not_fit_is_none():
    assert location("{path}", "/" + "a" * 5000) == b""


def test_a_thousand_routes_are_told_apart():
    rows = [
        {"hosts": [f"h{i % 50}.example.com"] if i % 3 else [], "path": f"/svc{i}/api"} for i in range(1000)
    ]
    routes = snapshot(*({"name": str(i), **row} for i, row in enumerate(rows)))

    assert all(found(routes, f"/svc{i}/api/x", f"h{i % 50}.example.com") == str(i) for i in range(1000))
    assert found(routes, "/svc1/api/x", "h2.example.com") is None


# ---- the reference -----------------------------------------------------------------------------------------

MERGE = (lambda path: path, lambda path: re.sub(b"/+", b"/", path))
DECODE = (lambda path: path, lambda path: path.replace(b"\0", b"/"))


def decoded(path: str) -> bytes | None:
    """With encoded slashes as zero bytes; None for a path that no route may take."""
    kept = re.sub("%2[fF]", "\1", path)
    plain = unquote_to_bytes(kept)
    if b"\0" in plain:
        return None
    segments = [segment.split(b";")[0] for segment in re.split(b"[/\1]", plain)]
    return None if b"." in segments or b".." in segments else plain.replace(b"\1", b"\0")


def prefix_holds(prefix: bytes, path: bytes) -> bool:
    return path == prefix or path.startswith(prefix if prefix.endswith(b"/") else prefix + b"/")


def host_rank(row: dict, host: str) -> int | None:
    """How well the best of its hosts fits; None: not at all."""
    host = host.lower().removesuffix(":80").removesuffix(".")
    ranks = [0] if not row["hosts"] else []
    for pattern in row["hosts"]:
        if pattern == host:
            ranks.append(1000)
        elif pattern.startswith("*") and host.endswith(pattern[1:]) and len(host) > len(pattern) - 1:
            ranks.append(len(pattern))
    return max(ranks, default=None)


def conditions_hold(row: dict, method: str, headers: list[tuple[str, str]]) -> bool:
    return (not row["methods"] or method in row["methods"]) and all(
        any(name == c["name"].lower() and c["value"] in (None, value) for name, value in headers)
        for c in row["headers"]
    )


def best(rows: list[dict], path: bytes, host: str, method: str, headers: list[tuple[str, str]]) -> str | None:
    fits = [
        (host_rank(row, host), len(row["path"]), bool(row["methods"]) + len(row["headers"]), -at, row["name"])
        for at, row in enumerate(rows)
        if host_rank(row, host) is not None
        and prefix_holds(row["path"].encode(), path)
        and conditions_hold(row, method, headers)
    ]
    return max(fits)[-1] if fits else None


def all_readings(rows, path, *request) -> list[str | None]:
    """By every mixture of slashes merged or not and encoded slashes taken as slashes or not."""
    raw = decoded(path)
    if raw is None:
        return [None]
    return [best(rows, merge(decode(raw)), *request) for merge, decode in product(MERGE, DECODE)]


labels = st.sampled_from(["a", "b", "ab"])
names = st.lists(labels, min_size=1, max_size=3).map(".".join)
hosts = st.lists(st.one_of(names, names.map(lambda n: f"*.{n}")), max_size=2, unique=True)
prefixes = st.builds(
    lambda parts, slash: "/" + "/".join(parts) + ("/" if slash and parts else ""),
    st.lists(labels, max_size=3),
    st.booleans(),
)
methods = st.lists(st.sampled_from(["GET", "POST", "PURGE", "LOCK"]), max_size=2, unique=True)
values = st.sampled_from(["1", "2"])
fields = st.sampled_from(["x-a", "x-b", "accept"])
conditions = st.lists(st.fixed_dictionaries({"name": fields, "value": st.none() | values}), max_size=2)
tables = st.lists(
    st.fixed_dictionaries({"hosts": hosts, "path": prefixes, "methods": methods, "headers": conditions}),
    min_size=1,
    max_size=12,
)
pieces = [
    "/",
    "//",
    "%2F",
    "%2f",
    "a",
    "b",
    "ab",
    "%61",
    "%",
    "%4",
    "%zz",
    ".",
    "..",
    "%2e",
    ";",
    ".a",
    "%00",
    "x",
]
clean = st.lists(labels, max_size=4).map(lambda parts: "/" + "/".join(parts))
odd = st.lists(st.sampled_from(pieces), max_size=7).map(lambda parts: "/" + "".join(parts))
requests = st.tuples(
    st.one_of(clean, odd),
    st.builds(
        lambda n, end: n + end, names | names.map(str.upper), st.sampled_from(["", ".", ":80", ".:80"])
    ),
    st.sampled_from(["GET", "POST", "PURGE", "HEAD"]),
    st.lists(st.tuples(fields, values), max_size=3),
)


@given(tables, st.lists(requests, min_size=1, max_size=20))
def test_the_router_finds_what_the_reference_finds(table, asked):
    rows = [row | {"name": str(i)} for i, row in enumerate(table)]
    routes = snapshot(*rows)

    for path, host, method, headers in asked:
        readings = all_readings(rows, path, host, method, headers)
        expected = readings[0] if readings[0] == readings[-1] else None
        assert found(routes, path, host, method=method, headers=headers) == expected
        if expected is not None:
            assert set(readings) == {expected}  # then every reading between the two agrees as well
