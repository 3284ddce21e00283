"""What is tried again, where, how often, and what never is."""

import signal

import pytest
from fakes.documents import breaker, retry
from fakes.origin import Blackhole, Origin, OriginProcess, Refusing, answering
from fakes.wire import chunks, request, response

KEYED = "Idempotency-Key: 7"


def kept_connection(proxy, origin):
    """A client, and the origin's end of a connection that is kept for the next request."""
    client = proxy.client()
    client.send(request("/first"))
    upstream = origin.accept()
    upstream.request()
    upstream.send(response(200, body=b"first"))
    client.answer()
    return client, upstream


def swallowing(log: list, *, reply: bytes = b"", reset: bool = False):
    """A handler that takes a request, says `reply` and ends the connection."""

    def handle(conn) -> None:
        log.append(conn.request())
        if reply:
            conn.send(reply)
        if reset:
            conn.reset()

    return handle


# ---- a kept connection that turns out to be dead ----------------------------------------------------


@pytest.mark.parametrize("end", ["close", "reset"])
def test_a_kept_connection_that_ends_at_the_next_request_is_replaced_by_a_fresh_one(proxy, origin, end):
    served = proxy.serve(origin)
    client, upstream = kept_connection(proxy, origin)
    client.send(request("/second"))
    assert upstream.request().target == "/second"
    getattr(upstream, end)()
    fresh = origin.accept()
    assert fresh.request().target == "/second"
    fresh.send(response(200, body=b"second"))

    assert client.answer().body == b"second"
    outcomes = served.endpoint()["outcomes"]
    assert (outcomes["stale"], outcomes["reset"], outcomes["connect"]) == (1, 0, 0)
    assert served.service()["retries"]["stale"] == 1
    assert served.breaker()["failures"] == 0


def test_a_kept_connection_replaced_costs_no_retry_of_the_budget(proxy, origin):
    proxy.serve(origin, service={"retry": retry(attempts=0, budget=0.0, floor_per_s=0.0)})
    client, upstream = kept_connection(proxy, origin)
    client.send(request("/second"))
    upstream.request()
    upstream.close()
    fresh = origin.accept()
    fresh.request()
    fresh.send(response(200, body=b"second"))

    assert client.answer().body == b"second"


def test_a_post_is_not_repeated_when_its_kept_connection_ends(proxy, origin):
    served = proxy.serve(origin)
    client, upstream = kept_connection(proxy, origin)
    client.send(request("/second", method="POST", body=b"order"))
    assert upstream.request().body == b"order"
    upstream.close()

    assert client.answer().status == 502
    assert not origin.asked()
    assert proxy.record()["cause"] == "upstream"
    assert served.endpoint()["outcomes"]["stale"] == 1


def test_a_post_with_an_idempotency_key_is_repeated_when_its_kept_connection_ends(proxy, origin):
    proxy.serve(origin)
    client, upstream = kept_connection(proxy, origin)
    client.send(request("/second", KEYED, method="POST", body=b"order"))
    assert upstream.request().body == b"order"
    upstream.close()
    fresh = origin.accept()
    assert fresh.request().body == b"order"
    fresh.send(response(200, body=b"second"))

    assert client.answer().body == b"second"


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_connection_that_ended_while_idle_is_never_used(proxy, origin, method):
    served = proxy.serve(origin)
    client, upstream = kept_connection(proxy, origin)
    upstream.close()
    client.send(request("/second", method=method))
    fresh = origin.accept()
    assert fresh.request().target == "/second"
    fresh.send(response(200, body=b"second"))

    assert client.answer().body == b"second"
    assert served.endpoint()["outcomes"]["stale"] <= (method == "GET")


# ---- endpoints that cannot be reached ---------------------------------------------------------------


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_an_endpoint_that_refuses_gives_way_to_the_next_one(proxy, method):
    log = []
    with Refusing() as nobody, Origin(answering(log=log)) as origin:
        served = proxy.serve(nobody, origin)
        client = proxy.client()
        answers = [client.ask("/", method=method, body=b"abc").status for _ in range(4)]

        assert answers == [200] * 4
        assert [asked.body for asked in log] == [b"abc"] * 4
        assert served.service()["retries"]["connect"] == served.endpoint(0)["outcomes"]["connect"] > 0


def test_an_endpoint_that_does_not_take_connections_gives_way_to_the_next_one(proxy):
    with Blackhole() as hole, Origin(answering()) as origin:
        served = proxy.serve(hole, origin, service={"connect_ms": 50})
        client = proxy.client()

        assert [client.ask("/", method="POST", body=b"x").status for _ in range(2)] == [200, 200]
        assert served.endpoint(0)["outcomes"]["connect"] == 1


def test_the_first_request_of_a_service_may_be_tried_again(proxy):
    """The floor of the budget is there from the beginning."""
    again = {"retry": retry(attempts=2, budget=0.0, floor_per_s=1.0)}
    with Refusing() as a, Refusing() as b, Origin(answering()) as origin:
        for _ in range(8):  # which endpoint comes first is left to chance
            proxy.serve(a, b, origin, service=again)

            assert proxy.client().ask("/").status == 200


# ---- endpoints that break ---------------------------------------------------------------------------


@pytest.mark.parametrize("reply", [b"", b"HTTP/1.1 200 OK\r\nConte", b"HTTP/1.1 103 E\r\n\r\n"])
@pytest.mark.parametrize("reset", [False, True])
def test_a_get_is_tried_elsewhere_when_the_connection_breaks_before_its_answer(proxy, reply, reset):
    log = []
    with Origin(swallowing(log, reply=reply, reset=reset)) as broken, Origin(answering("ok")) as good:
        served = proxy.serve(broken, good)
        client = proxy.client()
        answers = [client.ask("/").body for _ in range(2)]

        assert answers == [b"ok", b"ok"]
        assert (
            len(log) == served.endpoint(0)["outcomes"]["reset"] == served.service()["retries"]["reset"] == 1
        )


@pytest.mark.parametrize(("field", "status"), [(None, 502), (KEYED, 200)])
def test_a_post_is_tried_elsewhere_only_with_an_idempotency_key(proxy, field, status):
    log, rest = [], []
    with Origin(swallowing(log)) as broken, Origin(answering(log=rest)) as good:
        proxy.serve(broken, good)
        client = proxy.client()
        fields = [field] if field else []
        answers = {client.ask("/", *fields, method="POST", body=b"order").status for _ in range(2)}

        assert answers == {200, status}
        assert len(log) == 1
        assert [asked.body for asked in rest] == [b"order"] * (2 if field else 1)


def test_a_request_whose_answer_has_begun_is_not_tried_again(proxy):
    log, rest = [], []
    begun = response(200, "Content-Length: 10", body=None) + b"half"
    with Origin(swallowing(log, reply=begun)) as broken, Origin(answering(log=rest)) as good:
        proxy.serve(broken, good)
        for _ in range(2):
            client = proxy.client()
            client.send(request())
            head = client.answer_head()
            if head.get("content-length") == "10":
                assert client.is_cut()

        assert (len(log), len(rest)) == (1, 1)


def test_a_chunked_request_is_repeated_whole_with_its_trailers(proxy):
    log, rest = [], []
    with Origin(swallowing(log)) as broken, Origin(answering(log=rest)) as good:
        proxy.serve(broken, good)
        client = proxy.client()
        sent = request("/", "Transfer-Encoding: chunked", method="PUT")
        for _ in range(2):
            client.send(sent + chunks(b"abc", b"defg", trailers=b"X: 1\r\n"))
            assert client.answer().status == 200

        assert [(asked.body, asked.trailers) for asked in [*log, *rest]] == [(b"abcdefg", [("X", "1")])] * 3


def test_a_body_that_is_no_longer_at_hand_is_not_repeated(proxy, origin):
    with Origin(answering()) as other:
        proxy.serve(origin, other)
        client = proxy.client()
        while True:
            client.send(request("/", "Content-Length: 200000", method="PUT"))
            if origin.asked():
                break
            client.send(b"x" * 200_000)
            assert client.answer().status == 200
        upstream = origin.connections[-1]
        upstream.request_head()
        client.send(b"x" * 150_000)
        upstream.exactly(150_000)
        upstream.reset()

        answer = client.answer()
        assert (answer.status, answer.get("connection")) == (502, "close")


# ---- how often --------------------------------------------------------------------------------------


def test_no_endpoint_is_tried_twice(proxy):
    logs = [[], []]
    with Origin(swallowing(logs[0])) as a, Origin(swallowing(logs[1])) as b:
        served = proxy.serve(a, b, service={"retry": retry(attempts=7)})
        answer = proxy.client().ask("/")

        assert answer.status == 502
        assert [len(log) for log in logs] == [1, 1]
        assert served.service()["retries"]["reset"] == 2
        assert proxy.record()["cause"] == "upstream"


def test_no_more_attempts_are_made_than_the_service_allows(proxy):
    log = []
    origins = [Origin(swallowing(log)) for _ in range(5)]
    proxy.serve(*origins, service={"retry": retry(attempts=2)})
    answer = proxy.client().ask("/")
    for origin in origins:
        origin.close()

    assert (answer.status, len(log)) == (502, 3)
    assert proxy.record()["tries"] == 3


def test_nothing_is_tried_again_when_the_budget_is_spent(proxy):
    log = []
    with Origin(swallowing(log)) as broken, Origin(answering()) as good:
        service = {"retry": retry(budget=0.125, floor_per_s=0.0), "breaker": breaker(failures=0)}
        served = proxy.serve(broken, good, service=service)
        client = proxy.client()
        answers = [client.ask("/").status for _ in range(24)]
        denied = served.service()["retries_denied"]

        # Twenty-four requests earn three tokens, and each third one or more meets the broken endpoint.
        assert denied == answers.count(502) == len(log) - served.service()["retries"]["reset"]
        assert 1 <= served.service()["retries"]["reset"] <= 3
        assert denied >= 5


def test_a_silent_endpoint_gives_way_to_the_next_one(proxy, origin):
    with Origin(answering()) as good:
        served = proxy.serve(origin, good, service={"response_ms": 50})
        client = proxy.client()

        assert [client.ask("/").status for _ in range(2)] == [200, 200]
        assert served.endpoint(0)["outcomes"]["timeout"] == served.service()["retries"]["timeout"] == 1


STATUS = retry(on=["status"], statuses=[503])


def test_a_status_can_be_a_reason_to_try_elsewhere(proxy):
    with Origin(answering("busy", status=503)) as busy, Origin(answering("ok")) as good:
        served = proxy.serve(busy, good, service={"retry": STATUS})
        client = proxy.client()

        assert [client.ask("/").body for _ in range(4)] == [b"ok"] * 4
        assert served.service()["retries"]["status"] == served.endpoint(0)["outcomes"]["5xx"] == 2
        assert client.ask("/", method="POST", body=b"").status in (200, 503)


def test_a_status_with_nowhere_else_to_go_is_said_to_be_the_endpoints(proxy):
    with Origin(answering("busy", status=503)) as busy:
        proxy.serve(busy, service={"retry": STATUS})

        assert proxy.client().ask("/").status == 503
        assert proxy.record()["cause"] == "upstream"


# ---- processes --------------------------------------------------------------------------------------


def test_a_backend_that_is_killed_costs_no_request_that_may_be_repeated(proxy):
    with OriginProcess() as victim, Origin(answering("ok")) as good:
        proxy.serve(victim, good)
        client = proxy.client()
        assert {client.ask("/").status for _ in range(4)} == {200}
        victim.signal(signal.SIGKILL)
        victim.process.wait()

        assert {client.ask("/").status for _ in range(10)} == {200}


def test_a_backend_that_is_stopped_costs_time_and_no_request_that_may_be_repeated(proxy):
    with OriginProcess() as victim, Origin(answering("ok")) as good:
        served = proxy.serve(victim, good, service={"response_ms": 50})
        client = proxy.client()
        assert {client.ask("/").status for _ in range(4)} == {200}
        victim.signal(signal.SIGSTOP)
        answers = {client.ask("/").status for _ in range(4)}
        victim.signal(signal.SIGCONT)

        assert answers == {200}
        assert served.endpoint(0)["outcomes"]["timeout"] >= 1
