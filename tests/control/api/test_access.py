"""Who may do what: every route, every role, inside and outside of his namespaces."""

import itertools
import json

import pytest
from fakes.served import Served

from turnout.control.access.roles import ACTIONS, ROLES, WHOLE, Role
from turnout.control.api.table import ROUTES

GATED = [route for route in ROUTES if route.action is not None]
OPEN = [route for route in ROUTES if route.action is None]
INSIDE, OUTSIDE = "trading", "other"


@pytest.fixture
def guarded(supervisor):
    out = Served(supervisor, auth="tokens")
    yield out
    out.stop()


def path_of(route) -> str:
    """Of things that are not there: who is let in gets no further than that."""
    values = {"service": f"{INSIDE}:orders", "address": "10.0.0.1:80", "version": "1", "token": "none"}
    return route.path.format(**values)


def let_in(guarded, route, token: str) -> bool:
    """By the status: 401 and 403 are of the gate alone. Bodies are wrong on purpose: nothing is done."""
    path, body = path_of(route), None
    if route.path == "/v1/events":
        path += "?follow=false"
    if route.takes_body or route.method in {"POST", "PUT", "PATCH"}:
        body = b"\0"
    answer = guarded.call(route.method, path, body, Authorization=f"Bearer {token}")
    assert answer.status not in {429, 500}, answer.raw
    return answer.status not in {401, 403}


@pytest.mark.parametrize("role", ROLES)
def test_every_route_is_for_those_who_have_its_right(guarded, role):
    """Once with all namespaces, once with the one of the service, once with another."""
    tokens = {namespace: guarded.make_token(role, namespace) for namespace in ("*", INSIDE, OUTSIDE)}
    for route in GATED:
        for namespace, token in tokens.items():
            able = Role.named(role) >= ACTIONS[route.action]
            there = namespace == "*" or (
                route.action not in WHOLE and ("service" not in route.parameters or namespace == INSIDE)
            )
            assert let_in(guarded, route, token) == (able and there), (route.key, namespace)

    assert guarded.supervisor.told == []


@pytest.mark.parametrize("route", GATED, ids=lambda route: route.key)
def test_no_gated_route_lets_anybody_in_without_a_token(guarded, route):
    answer = guarded.call(route.method, path_of(route), b"\0" if route.takes_body else None)

    assert (answer.status, answer.headers["WWW-Authenticate"]) == (401, 'Bearer realm="turnout"')
    assert answer.headers["Content-Type"] == "application/problem+json"


@pytest.mark.parametrize("route", OPEN, ids=lambda route: route.key)
def test_open_routes_need_nothing(guarded, route):
    assert guarded.call(route.method, path_of(route)).status == 200


def test_lists_show_what_the_caller_may_see(guarded):
    guarded.token = guarded.make_token("admin")
    for name in (f"{INSIDE}:orders", f"{OUTSIDE}:orders"):
        assert guarded.call("PUT", f"/v1/services/{name}", {}).status == 201
    guarded.token = guarded.make_token("viewer", INSIDE)

    for path in ("/v1/services", "/v1/status", "/v1/routes", "/v1/events?follow=false&from=0"):
        text = guarded.get(path).raw.decode()
        assert f"{OUTSIDE}:orders" not in text
    assert [row["name"] for row in guarded.get("/v1/services").body["items"]] == [f"{INSIDE}:orders"]
    assert [row["name"] for row in guarded.get("/v1/status").body["services"]] == [f"{INSIDE}:orders"]


def test_names_of_other_namespaces_are_not_told_by_a_hint(guarded):
    guarded.token = guarded.make_token("admin")
    guarded.call("PUT", f"/v1/services/{OUTSIDE}:orders", {})
    guarded.token = guarded.make_token("viewer", INSIDE)

    assert OUTSIDE not in guarded.get(f"/v1/services/{INSIDE}:orders").body["detail"]


def test_a_token_is_made_shown_once_and_revoked(guarded):
    guarded.token = guarded.make_token("admin")
    made = guarded.call("POST", "/v1/tokens", {"name": "ci", "role": "deployer", "ttl_s": 60})
    where, text = made.headers["Location"], made.body["token"]

    assert (made.status, made.body["state"]) == (201, "valid")
    assert text not in guarded.get("/v1/tokens").raw.decode()
    assert text not in guarded.get("/v1/audit").raw.decode()
    assert guarded.get("/v1/status", Authorization=f"Bearer {text}").status == 200
    assert guarded.call("DELETE", where).body["state"] == "revoked"
    assert guarded.get("/v1/status", Authorization=f"Bearer {text}").status == 401
    assert guarded.call("POST", "/v1/tokens", {"name": "ci", "role": "boss"}).status == 400
    assert guarded.call("POST", "/v1/tokens", {"name": "/", "role": "admin"}).status == 422
    assert guarded.call("DELETE", "/v1/tokens/none").status == 404


# ---- the audit log ---------------------------------------------------------------------------------------


def entries(guarded, query: str = "") -> list[dict]:
    return guarded.get(f"/v1/audit?{query}").body["items"]


def test_every_change_is_in_the_audit_log_with_what_was_and_what_is(served):
    served.call("PATCH", "/v1/services/app/endpoints/10.0.0.1:80", {"weight": 9})
    entry = entries(served)[-1]

    assert (entry["action"], entry["subject"], entry["result"]) == (
        "endpoint.change",
        "app/10.0.0.1:80",
        "ok",
    )
    assert (json.loads(entry["before"])["weight"], json.loads(entry["after"])["weight"]) == (3, 9)


def test_a_change_and_its_entry_are_one(served):
    where = "/v1/services/app/endpoints"
    replies = [
        served.call("POST", where, {"address": "10.0.0.9:80"}),
        served.call("PATCH", f"{where}/10.0.0.9:80", {"weight": 4}),
        served.call("PATCH", f"{where}/10.0.0.9:80", {"weight": 5, "admin": "drain"}),
        served.call("DELETE", f"{where}/10.0.0.9:80"),
    ]
    revisions = [int(reply.body["revision"]) for reply in replies]
    steps = [after - before for before, after in itertools.pairwise(revisions)]
    assert steps == [1, 2, 1], "no transaction but those of the changes"

    found = [(entry["action"], json.loads(entry["after"])) for entry in entries(served)[-4:]]
    assert [(action, after and (after["weight"], after["admin"])) for action, after in found] == [
        ("endpoint.register", (1, "ready")),
        ("endpoint.change", (4, "ready")),
        ("endpoint.change", (5, "drain")),
        ("endpoint.deregister", None),
    ]
    assert served.get("/v1/audit/verify").body["ok"]


def test_what_was_refused_and_what_failed_is_there_too(guarded):
    guarded.call("POST", "/v1/stop", {})
    guarded.call("POST", "/v1/stop", {}, Authorization=f"Bearer {guarded.make_token('viewer')}")
    guarded.token = guarded.make_token("admin")
    guarded.call("DELETE", "/v1/services/app")

    found = [(entry["action"], entry["result"], entry["role"]) for entry in entries(guarded)]
    assert found == [
        ("proxy.stop", "refused", ""),
        ("proxy.stop", "refused", "viewer"),
        ("service.write", "failed", "admin"),
    ]


def test_reading_trying_and_renewing_leave_no_trace(served, registered):
    before = len(entries(served))
    text = served.get("/v1/config").body["text"]
    served.call("PUT", "/v1/config?dry_run=true", text.encode(), Content_Type="application/toml")
    served.call("PUT", f"{registered}/lease")
    served.get("/v1/services")

    assert len(entries(served)) == before


def test_the_audit_log_is_paged_filtered_and_verified(served):
    for weight in (1, 2, 3):
        served.call("PATCH", "/v1/services/app/endpoints/10.0.0.1:80", {"weight": weight})
    served.call("PUT", "/v1/services/other", {})
    first = served.get("/v1/audit?limit=2&action=endpoint.change").body
    rest = served.get(f"/v1/audit?limit=2&action=endpoint.change&after={first['next']}").body

    assert [entry["n"] for entry in first["items"] + rest["items"]] == [1, 2, 3]
    assert rest["next"] is None
    verdict = served.get("/v1/audit/verify").body
    assert (verdict["ok"], verdict["entries"], verdict["broken"]) == (True, 4, None)
