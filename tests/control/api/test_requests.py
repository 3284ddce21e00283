"""What holds for all requests: bodies, kinds, sizes, unknown places, idempotency."""

import json

import pytest
from fakes.served import ENDPOINTS, REGISTERED, endpoint_path

FIRST = endpoint_path("app", "10.0.0.1:80")
SPEC = {"address": REGISTERED, "weight": 4}


def keyed(served, key: str, body=SPEC, path: str = ENDPOINTS):
    return served.call("POST", path, body, Idempotency_Key=key)


# ---- form ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "word"),
    [
        (b'{"weight": }', "line 1 column 12"),
        (b'{"weight": 1', "line 1 column 12"),
        (b"[]", "object"),
        (b'{"weight": NaN}', "weight"),
        (b'{"weight": 1e999}', "weight"),
        (b"\xff", "line 1"),
    ],
)
def test_json_that_is_none_is_refused_with_its_place(served, raw, word):
    answer = served.call("PATCH", FIRST, raw)

    assert (answer.status, word in answer.body["detail"]) == (400, True), answer.raw


def test_all_that_is_wrong_is_said_at_once(served):
    answer = served.call("POST", ENDPOINTS, {"weight": -1, "version": 1, "wieght": 1})

    assert [place["where"] for place in answer.body["problems"]] == ["address", "weight", "version", "wieght"]
    assert answer.body["type"] == "urn:turnout:problem:validation"
    assert answer.body["instance"] == ENDPOINTS


@pytest.mark.parametrize("kind", ["", "text/plain", "application/x-www-form-urlencoded", "application/toml"])
@pytest.mark.parametrize(("method", "path"), [("POST", "/v1/reload"), ("PATCH", FIRST)])
def test_a_change_needs_the_content_type_that_no_form_can_send(served, method, path, kind):
    answer = served.call(method, path, {}, Content_Type=kind)

    assert (answer.status, answer.headers["Accept"]) == (415, "application/json")


def test_a_compressed_body_is_refused(served):
    assert served.call("PATCH", FIRST, {}, Content_Encoding="gzip").status == 415


@pytest.mark.parametrize("path", ["/v1/stop", ENDPOINTS])
def test_a_body_that_is_too_long_is_refused(served, path):
    answer = served.call("POST", path, b"{" + b" " * (1 << 17) + b"}")

    assert (answer.status, served.supervisor.told) == (413, [])


@pytest.mark.parametrize(
    ("method", "path", "status", "allow"),
    [
        ("GET", "/v1/nothing", 404, None),
        ("GET", "/", 404, None),
        ("POST", "/v1/status", 405, {"GET", "HEAD"}),
        ("DELETE", ENDPOINTS, 405, {"GET", "HEAD", "POST"}),
        ("DELETE", f"{FIRST}/lease", 405, {"PUT"}),
    ],
)
def test_unknown_places_and_methods_are_told_apart(served, method, path, status, allow):
    answer = served.call(method, path)

    assert (answer.status, answer.body["status"]) == (status, status)
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert allow is None or set(answer.headers["Allow"].replace(" ", "").split(",")) == allow


def test_the_path_of_a_unix_socket_may_be_sent_as_it_is(served):
    for path in (endpoint_path("app", "unix:/run/app.sock"), f"{ENDPOINTS}/unix:/run/app.sock"):
        assert served.get(path).body["address"] == "unix:/run/app.sock"


def test_an_unexpected_failure_is_a_problem_too(served, caplog):
    served.supervisor.fails = RuntimeError("a secret of the inside")
    answer = served.call("POST", "/v1/reload", {})

    assert (answer.status, "secret" in answer.body["detail"]) == (500, False)
    assert "a secret of the inside" in caplog.text


# ---- idempotency -----------------------------------------------------------------------------------------


def test_a_repeated_post_gets_the_first_answer_and_changes_nothing(served):
    first = keyed(served, "k1")
    served.call("DELETE", endpoint_path("app", REGISTERED))
    again = keyed(served, "k1")

    assert (again.status, again.raw) == (first.status, first.raw) == (201, first.raw)
    assert (first.headers["Idempotency-Replayed"], again.headers["Idempotency-Replayed"]) == (None, "true")
    assert (again.headers["ETag"], again.headers["Location"]) == (
        first.headers["ETag"],
        first.headers["Location"],
    )
    assert served.get(endpoint_path("app", REGISTERED)).status == 404


def test_a_repeated_post_is_known_after_a_restart(served):
    first = keyed(served, "k1")
    served.stop_serving()
    served.start()
    again = keyed(served, "k1")

    assert (again.raw, again.headers["Idempotency-Replayed"]) == (first.raw, "true")


def test_a_key_belongs_to_one_request(served):
    keyed(served, "k1")

    for body, path in (({**SPEC, "weight": 5}, ENDPOINTS), (SPEC, "/v1/services/plain/endpoints")):
        answer = keyed(served, "k1", body, path)
        assert (answer.status, answer.body["type"]) == (422, "urn:turnout:problem:idempotency-key-reused")
    assert keyed(served, "k2", {**SPEC, "weight": 5}).status == 200


def test_what_failed_may_be_tried_again_with_the_same_key(served):
    assert keyed(served, "k1", path="/v1/services/new/endpoints").status == 404
    served.call("PUT", "/v1/services/new", {})

    assert keyed(served, "k1", path="/v1/services/new/endpoints").status == 201


@pytest.mark.parametrize("key", ["a b", "ä", "x" * 256])
def test_a_key_that_is_none_is_refused(served, key):
    assert keyed(served, key).status == 400


# ---- configuration ---------------------------------------------------------------------------------------


def put_config(served, text: str, query: str = "", **headers: str):
    return served.call("PUT", f"/v1/config{query}", text.encode(), Content_Type="application/toml", **headers)


def test_a_configuration_is_tried_applied_and_rewound(served):
    old = served.get("/v1/config")
    text = old.body["text"].replace("weight = 3", "weight = 8")
    tried = put_config(served, text, "?dry_run=true").body
    assert (tried["applied"], tried["version"], "+  { address" in tried["diff"]) == (
        False,
        old.body["version"],
        True,
    )
    assert served.get("/v1/config").body == old.body

    done = put_config(served, text, "?note=more", If_Match=old.headers["ETag"]).body
    assert (done["applied"], done["diff"]) == (True, tried["diff"])
    assert served.get("/v1/config").body == {"version": done["version"], "text": text}
    assert served.supervisor.file.read_text() == text

    versions = served.get("/v1/config/history").body["items"]
    assert [(row["version"], row["note"]) for row in versions] == [
        (done["version"], "more"),
        (old.body["version"], ""),
    ]
    assert served.get(f"/v1/config/history/{old.body['version']}").body["text"] == old.body["text"]
    back = served.call("POST", "/v1/config/rewind", {"version": old.body["version"]}).body
    assert back["version"] > done["version"]
    assert served.get("/v1/config").body["text"] == old.body["text"]


def test_a_configuration_that_does_not_validate_changes_nothing(served):
    old = served.get("/v1/config").body
    for query in ("", "?dry_run=true"):
        answer = put_config(served, "[proxy]\ngrace = 30\nworker = 1\n", query)
        assert answer.status == 422
        assert [place["line"] for place in answer.body["problems"]][:2] == [2, 3]
    assert served.get("/v1/config").body == old


def test_another_version_than_the_one_seen_is_not_overwritten(served):
    text = served.get("/v1/config").body["text"]

    for query in ("", "?dry_run=true"):
        answer = put_config(served, text, query, If_Match='"999999"')
        assert (answer.status, answer.body["type"]) == (412, "urn:turnout:problem:changed")


@pytest.mark.parametrize("version", ["0", "999999", "x", "1" * 30])
def test_a_version_that_was_never_is_not_found(served, version):
    assert served.get(f"/v1/config/history/{version}").status == 404
    if version.isdigit() and version != "0" and len(version) < 10:
        assert served.call("POST", "/v1/config/rewind", {"version": int(version)}).status == 404


def test_lists_of_the_process_say_what_there_is(served):
    assert [row["worker"] for row in served.get("/v1/workers").body["items"]] == [0]
    assert [row["name"] for row in served.get("/v1/listeners").body["items"]] == ["web", "secure"]
    assert [row["title"] for row in served.get("/v1/routes").body["items"]] == ["*/", "robots"]
    (certificate,) = served.get("/v1/certificates").body["items"]
    assert (certificate["names"], certificate["days_left"] > 0) == (["site.test"], True)
    assert json.loads(served.get("/v1/status").raw)["services"][0]["versions"][0]["version"] == "v1"
