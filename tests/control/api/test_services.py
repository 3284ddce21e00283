"""Services, their splits, their endpoints: read, made, changed, taken out."""

import time

import pytest
from fakes.served import ENDPOINTS, REGISTERED, endpoint_path

FIRST = endpoint_path("app", "10.0.0.1:80")
SERVICE = {"kind": "http", "balance": "random", "split": {"v1": 1}, "timeouts": {"connect": "2s"}}


def names(answer) -> list[str]:
    return [row["name"] for row in answer.body["items"]]


def addresses(answer) -> list[str]:
    return [row["address"] for row in answer.body["items"]]


def make(served, *services: str) -> None:
    for name in services:
        assert served.call("PUT", f"/v1/services/{name}", SERVICE).status == 201


# ---- reading ---------------------------------------------------------------------------------------------


def test_services_are_listed_by_name_with_how_they_are(served):
    app, plain = served.get("/v1/services").body["items"]

    assert (app["name"], plain["name"]) == ("app", "plain")
    assert (app["endpoints"], app["available"], app["health"], app["source"]) == (3, 3, "up", "file")
    assert app["split"] == {"v1": 0.75, "v2": 0.25}


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("namespace=trading", ["trading:orders"]),
        ("namespace=default", ["app", "plain"]),
        ("source=api", ["trading:orders"]),
        ("tag=new", ["app"]),
        ("version=v2", ["app"]),
        ("kind=tcp", []),
        ("health=down", ["trading:orders"]),
        ("health=up&source=file", ["app", "plain"]),
    ],
)
def test_services_are_filtered(served, registered, query, found):
    make(served, "trading:orders")

    assert names(served.get(f"/v1/services?{query}")) == found


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("tag=new", [REGISTERED]),
        ("source=file&version=v2", ["10.0.0.2:80"]),
        ("admin=drain", ["10.0.0.1:80"]),
        ("health=down", []),
    ],
)
def test_endpoints_are_filtered(served, registered, query, found):
    served.call("PATCH", FIRST, {"admin": "drain"})

    assert addresses(served.get(f"{ENDPOINTS}?{query}")) == found


def test_the_key_that_signs_cookies_is_not_shown(served):
    secret = "a-key-of-more-than-sixteen-characters"
    body = {"sticky": {"cookie": "c", "key": secret}}
    changed = served.call("PUT", "/v1/services/secret", body)

    for answer in (
        changed,
        served.get("/v1/services/secret"),
        served.get("/v1/audit"),
        served.get("/v1/events?follow=false&from=0"),
    ):
        assert answer.status in {200, 201}
        assert secret.encode() not in answer.raw


def test_settings_are_shown_as_they_may_be_sent(served):
    make(served, "other")
    settings = served.get("/v1/services/other").body["settings"]

    assert settings["timeouts"] == {"connect": "2s"}
    assert served.call("PUT", "/v1/services/other", settings).status == 200


# ---- pages -----------------------------------------------------------------------------------------------


def test_pages_hold_each_service_once_while_others_come_and_go(served):
    make(served, *(f"s{number}" for number in range(6)))
    first = served.get("/v1/services?limit=3").body
    make(served, "aaa", "zzz")
    served.call("DELETE", "/v1/services/s1")
    rest = served.get(f"/v1/services?limit=100&cursor={first['next']}").body

    seen = [row["name"] for row in first["items"] + rest["items"]]
    assert seen == ["app", "plain", "s0", "s2", "s3", "s4", "s5", "zzz"]
    assert rest["next"] is None


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=1001", "limit=x", "cursor=%25", "cursor=_w", "what=1", "limit=1&limit=2"]
)
def test_a_query_that_makes_no_sense_says_where(served, query):
    answer = served.get(f"/v1/services?{query}")

    assert answer.status == 400
    assert answer.body["problems"][0]["where"] == "?" + query.partition("=")[0]


# ---- changing --------------------------------------------------------------------------------------------


def test_a_registered_endpoint_is_in_force_when_the_answer_comes(served, registered):
    row = served.get(registered).body

    assert (row["source"], row["version"], row["tags"], row["unfit"]) == ("api", "v2", ["new"], "")
    assert (row["lease_ttl"], row["expires"] > time.time()) == (60, True)
    assert REGISTERED in served.supervisor.freezer.endpoint_slots("app")


def test_registering_again_replaces_and_says_so(served, registered):
    answer = served.call("POST", ENDPOINTS, {"address": REGISTERED, "weight": 7})

    assert (answer.status, answer.body["weight"], answer.body["lease_ttl"]) == (200, 7, None)
    assert served.get(answer.headers["Location"]).body["address"] == REGISTERED


def test_a_change_says_which_snapshot_and_revision_it_has(served):
    before = served.get(FIRST).headers["ETag"]
    answer = served.call("PATCH", FIRST, {"weight": 5, "admin": "maint", "reason": "disk"})

    assert answer.body["snapshot"] == served.supervisor.version
    assert answer.headers["ETag"] == f'"{answer.body["revision"]}"' != before
    assert (answer.body["weight"], answer.body["admin"], answer.body["admin_reason"]) == (5, "maint", "disk")


def test_a_lease_is_renewed_as_long_as_it_is_there(served, registered):
    before = served.get(registered).body["expires"]

    assert served.call("PUT", f"{registered}/lease").body["expires"] >= before
    assert served.call("DELETE", registered).status == 200
    assert served.call("PUT", f"{registered}/lease").status == 404
    assert served.call("PUT", f"{FIRST}/lease").status in {404, 422}


def test_a_service_comes_with_its_endpoints_and_goes_with_them(served):
    make(served, "trading:orders")
    where = "/v1/services/trading:orders"
    assert served.call("POST", f"{where}/endpoints", {"address": "10.3.0.1:80"}).status == 201
    assert served.call("PUT", f"{where}/split", {"shares": {"v1": 3}}).body["shares"] == {"v1": 1.0}
    assert served.call("DELETE", where).status == 200

    assert served.get(where).status == 404
    assert names(served.get("/v1/services")) == ["app", "plain"]


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "word"),
    [
        ("POST", ENDPOINTS, {"address": "unix:/run/docker.sock"}, 422, "in the file"),
        ("POST", ENDPOINTS, {"address": "10.0.0.1"}, 422, "host:port"),
        ("POST", ENDPOINTS, {"address": "nowhere:80"}, 422, "looked up"),
        ("POST", ENDPOINTS, {"address": "10.9.0.1:80", "lease_ttl": 0.5}, 400, "lease_ttl"),
        ("POST", ENDPOINTS, {"address": "10.9.0.1:80", "health": {"exec": ["sh"]}}, 400, "health"),
        ("POST", ENDPOINTS, {}, 400, "address: is missing"),
        ("POST", "/v1/services/ap/endpoints", {"address": "10.9.0.1:80"}, 404, 'did you mean "app"'),
        ("PATCH", FIRST, {"weight": "5"}, 400, 'weight: input should be a valid integer, not "5"'),
        ("PATCH", FIRST, {"reason": "x"}, 400, "admin"),
        ("PATCH", FIRST, {"admin": "drain", "until": 1}, 400, "in the past"),
        ("PATCH", endpoint_path("app", "10.0.0.9:80"), {"weight": 1}, 404, "10.0.0.9:80"),
        ("DELETE", FIRST, None, 422, "file"),
        ("DELETE", "/v1/services/app", None, 422, "file"),
        ("PUT", "/v1/services/app", {}, 422, "file"),
        ("PUT", "/v1/services/new", {"health": {"exec": ["sh"]}}, 422, "health.exec"),
        ("PUT", "/v1/services/new", {"health": {"pattern": "(a+)+$"}}, 422, "health.pattern"),
        ("PUT", "/v1/services/new", {"tls": {"ca": "/etc/shadow"}}, 422, "tls.ca"),
        ("PUT", "/v1/services/new", {"balance": "best"}, 422, "balance"),
        ("PUT", "/v1/services/new", {"endpoints": ["10.0.0.1:80"]}, 422, "one by one"),
        ("PUT", "/v1/services/a b", {}, 422, "name for a service"),
        ("PUT", "/v1/services/plain/split", {"shares": {"v1": 1}}, 422, "no split"),
        ("PUT", f"{FIRST}/health", {"status": "pass"}, 422, "no checks"),
    ],
)
def test_what_makes_no_sense_changes_nothing_and_says_why(served, method, path, body, status, word):
    before = served.plane.registry.revision
    answer = served.call(method, path.replace(" ", "%20"), body)

    assert (answer.status, word in answer.body["detail"]) == (status, True), answer.raw
    assert served.plane.registry.revision == before


# ---- conditions ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("tag", "status"), [('"{}"', 200), ("*", 200), ('"1{}"', 412), ('W/"{}"', 412)])
@pytest.mark.parametrize("method", ["PATCH", "DELETE"])
def test_a_change_is_made_only_to_what_the_caller_has_seen(served, registered, method, tag, status):
    seen = served.get(registered).headers["ETag"].strip('"')
    body = {"weight": 3} if method == "PATCH" else None

    assert served.call(method, registered, body, If_Match=tag.format(seen)).status == status


def test_an_etag_that_is_none_is_refused(served, registered):
    assert served.call("DELETE", registered, If_Match="12").status == 400


def test_what_the_client_has_already_is_not_sent_again(served):
    for path in ("/v1/services/app", ENDPOINTS, FIRST, "/v1/config", "/v1/services/app/split"):
        first = served.get(path)
        again = served.get(path, If_None_Match=first.headers["ETag"])
        assert (again.status, again.raw) == (304, b"")


# ---- health ----------------------------------------------------------------------------------------------


def test_an_endpoint_without_checks_is_unchecked(served):
    row = served.get(f"{FIRST}/health").body

    assert (row["status"], row["up"], row["history"]) == ("unchecked", True, [])
    assert len(served.get("/v1/services/app/health").body["items"]) == 3


def test_a_heartbeat_says_how_an_endpoint_is(served):
    served.call("PUT", "/v1/services/beats", {"health": {"ttl": "1m"}})
    served.call("POST", "/v1/services/beats/endpoints", {"address": "10.4.0.1:80"})
    where = endpoint_path("beats", "10.4.0.1:80") + "/health"

    assert served.get(where).body["up"] is False, served.get(where).raw
    assert served.call("PUT", where, {"status": "pass"}).body["up"] is True
    down = served.call("PUT", where, {"status": "fail", "note": "no disk"}).body
    assert (down["up"], "no disk" in down["reason"]) == (False, True)
    assert served.get("/v1/services/beats").body["health"] == "down"
