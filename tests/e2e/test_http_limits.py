"""Limits and queues, sticky sessions and breakers, as a client and an endpoint see them."""

import re
import threading

import pytest
from fakes.documents import breaker, retry, sticky
from fakes.engine_process import Proxy, eventually
from fakes.origin import Origin, Refusing, answering
from fakes.wire import request, response

NO_RETRY = retry(attempts=0, on=[])
KEY = "00112233445566778899aabbccddeeff"


def waiting(served) -> int:
    """Requests that have had to wait so far."""
    return served.service()["queue_waits"]


def queue_up(proxy, served, n: int, *, method: str = "GET") -> list:
    """N clients that wait in the queue, /1 first."""
    clients = []
    for number in range(1, n + 1):
        client = proxy.client()
        client.send(request(f"/{number}", method=method))
        assert eventually(lambda number=number: waiting(served) == number)
        clients.append(client)
    return clients


def occupied(proxy, origin, **service):
    """A service of one endpoint that takes one request at a time and has one: served, client, upstream."""
    served = proxy.serve(origin, service={"connections": 1, "queue": 10, "queue_ms": 60000, **service})
    client = proxy.client()
    client.send(request("/0"))
    upstream = origin.accept()
    upstream.request()
    return served, client, upstream


def test_an_endpoint_at_its_limit_gets_the_waiting_ones_in_order(proxy, origin):
    served, first, upstream = occupied(proxy, origin)
    clients = queue_up(proxy, served, 5)
    assert upstream.silent()
    assert not origin.asked()
    upstream.send(response(200, body=b"0"))
    assert first.answer().body == b"0"
    for number, client in enumerate(clients, 1):
        assert upstream.request().target == f"/{number}"
        upstream.send(response(200, body=b"%d" % number))
        assert client.answer().body == b"%d" % number

    assert served.service()["queue_wait_us"] > 0
    assert len(origin.connections) == 1


def test_nobody_overtakes_those_who_wait(proxy, origin):
    """The client that is answered asks again in the same breath."""
    served, first, upstream = occupied(proxy, origin)
    first.send(request("/again"))
    (waiter,) = queue_up(proxy, served, 1)
    upstream.send(response(200, body=b"0"))

    assert upstream.request().target == "/1"
    upstream.send(response(200, body=b"1"))
    assert waiter.answer().body == b"1"
    assert upstream.request().target == "/again"
    upstream.send(response(200, body=b"2"))
    assert [first.answer().body, first.answer().body] == [b"0", b"2"]


def test_the_wait_is_counted_once(proxy, origin):
    served, first, upstream = occupied(proxy, origin)
    (waiter,) = queue_up(proxy, served, 1)
    assert first.silent(0.3)  # the queue is looked at many times meanwhile
    upstream.send(response(200, body=b"0"))
    upstream.request()
    upstream.send(response(200, body=b"1"))
    waiter.answer()
    record = proxy.record()

    assert record["path"] == "/1"
    assert served.service()["queue_wait_us"] / 1000 <= record["total_ms"]
    assert served.service()["queue_waits"] == 1


def test_a_full_queue_gets_503_at_once(proxy, origin):
    served, _, _ = occupied(proxy, origin, queue=2)
    queue_up(proxy, served, 2)
    answer = proxy.client().ask("/late")

    assert (answer.status, answer.get("retry-after")) == (503, "1")
    assert served.service()["queue_full"] == 1
    assert proxy.record()["cause"] == "proxy"


def test_without_a_queue_an_endpoint_at_its_limit_means_503(proxy, origin):
    occupied(proxy, origin, queue=0)

    assert proxy.client().ask("/").status == 503


def test_who_waits_too_long_gets_503_by_timeout(proxy, origin):
    served, _, _ = occupied(proxy, origin, queue_ms=50)
    answer = proxy.client().ask("/")

    assert (answer.status, answer.get("retry-after")) == (503, "1")
    assert served.service()["queue_timeouts"] == 1
    assert proxy.record()["cause"] == "timeout"


@pytest.mark.parametrize("how", ["reset", "close", "finish"])
def test_a_client_that_leaves_while_it_waits_does_not_hold_up_those_behind_it(proxy, origin, how):
    served, first, upstream = occupied(proxy, origin)
    clients = queue_up(proxy, served, 2)
    getattr(clients[0], how)()
    if how == "reset":
        assert eventually(lambda: proxy.counts("clients") == 2)
    upstream.send(response(200, body=b"0"))
    first.answer()
    got = upstream.request().target
    if got == "/1":
        assert how != "reset"
        upstream.send(response(200, body=b"1"))
        got = upstream.request().target
    assert got == "/2"
    upstream.send(response(200, body=b"2"))

    assert clients[1].answer().body == b"2"


def test_a_half_closed_client_that_is_taken_to_have_left_gives_up_its_place(proxy, origin):
    served = proxy.serve(
        origin,
        service={"connections": 1, "queue": 1, "queue_ms": 60000},
        listener={"half_close_ms": 0},
    )
    first, second, third = (proxy.client() for _ in range(3))
    first.send(request("/0"))
    upstream = origin.accept()
    upstream.request()
    second.send(request("/1"))
    assert eventually(lambda: waiting(served) == 1)
    second.finish()
    assert second.is_cut()
    third.send(request("/2"))
    upstream.send(response(200, body=b"0"))

    assert upstream.request().target == "/2"
    upstream.send(response(200, body=b"2"))
    assert third.answer().body == b"2"


def test_a_half_closed_client_at_the_head_of_the_queue_is_served(proxy, origin):
    served, first, upstream = occupied(proxy, origin)
    (client,) = queue_up(proxy, served, 1)
    client.finish()
    upstream.send(response(200, body=b"0"))
    first.answer()
    assert upstream.request().target == "/1"
    upstream.send(response(200, body=b"1"))

    assert client.answer().body == b"1"


def test_a_body_that_comes_while_its_request_waits_is_kept(proxy, origin):
    served, first, upstream = occupied(proxy, origin)
    client = proxy.client()
    client.send(request("/1", "Content-Length: 10", method="POST") + b"12345")
    assert eventually(lambda: waiting(served) == 1)
    client.send(b"67890")
    upstream.send(response(200, body=b"0"))
    first.answer()

    assert upstream.request().body == b"1234567890"
    upstream.send(response(200, body=b"1"))
    assert client.answer().body == b"1"


def test_a_raised_limit_lets_all_go_that_there_is_room_for(proxy, origin):
    served, first, upstream = occupied(proxy, origin)
    clients = queue_up(proxy, served, 3)
    upstream.send(response(200, body=b"0"))
    first.answer()
    for client in clients:
        upstream.request()
        upstream.send(response(200, body=b"x"))
        client.answer()


def test_the_limit_holds_over_all_endpoints_and_under_load(proxy):
    most, now, lock = [0], [0], threading.Lock()

    def handle(conn) -> None:
        while True:
            conn.request()
            with lock:
                now[0] += 1
                most[0] = max(most[0], now[0])
            conn.silent(0.002)
            with lock:
                now[0] -= 1
            conn.send(response(200, body=b"x"))

    with Origin(handle) as a, Origin(handle) as b:
        service = {"connections": 2, "queue": 100, "queue_ms": 60000}
        served = proxy.serve(a, b, service=service)
        clients = [proxy.client() for _ in range(20)]
        for _ in range(3):
            for client in clients:
                client.send(request())
            assert {client.answer().status for client in clients} == {200}

        assert most[0] <= 4
        assert served.service()["queue_waits"] > 0


def test_a_listener_takes_no_more_connections_than_it_is_allowed(proxy, origin):
    with Origin(answering()) as origin:
        proxy.serve(origin, listener={"connections": 2})
        first, second = proxy.client(), proxy.client()
        assert [first.ask("/").status, second.ask("/").status] == [200, 200]
        third = proxy.client()
        third.send(request())
        assert third.silent(0.2)
        first.close()

        assert third.answer().status == 200
        assert proxy.listener()["open"] == 2


# ---- sticky sessions --------------------------------------------------------------------------------

BY_COOKIE = sticky(
    kind="cookie", name="lane", ttl_s=60, key=KEY, same_site="strict", path="/p", domain="a.test"
)


def cookie_of(answer) -> str:
    return re.match(r"lane=([^;]+)", answer.get("set-cookie"))[1]


def three(proxy, **service):
    origins = [Origin(answering(name)) for name in "abc"]
    return origins, proxy.serve(*origins, service={"sticky": BY_COOKIE, **service})


def test_a_session_stays_where_its_cookie_says(proxy):
    origins, served = three(proxy)
    client = proxy.client()
    first = client.ask("/")
    answers = [client.ask("/", f"Cookie: x=y; lane={cookie_of(first)}") for _ in range(5)]
    others = {proxy.client().ask("/").body for _ in range(9)}
    for origin in origins:
        origin.close()

    attributes = [part.strip().lower() for part in first.get("set-cookie").split(";")[1:]]
    assert {"path=/p", "domain=a.test", "samesite=strict", "httponly", "max-age=60"} <= set(attributes)
    assert {answer.body for answer in answers} == {first.body}
    assert others == {b"a", b"b", b"c"}
    assert served.service()["sticky_hits"] == 5


def test_a_cookie_is_renewed_with_a_sliding_ttl_and_left_alone_with_a_fixed_one(proxy):
    for sliding in (True, False):
        origins, _ = three(proxy, sticky=BY_COOKIE | {"sliding": sliding})
        client = proxy.client()
        first = client.ask("/")
        second = client.ask("/", f"Cookie: lane={cookie_of(first)}")
        for origin in origins:
            origin.close()

        assert second.body == first.body
        assert (second.get("set-cookie") is not None) is sliding


def test_a_forged_cookie_is_replaced_and_counted(proxy):
    origins, served = three(proxy)
    good = cookie_of(proxy.client().ask("/"))
    forged = good[:-1] + ("A" if good[-1] != "A" else "B")
    answer = proxy.client().ask("/", f"Cookie: lane={forged}")
    for origin in origins:
        origin.close()

    assert cookie_of(answer) != forged
    assert served.service()["sticky_broken"] == 1


def test_a_session_whose_endpoint_is_down_goes_elsewhere_and_stays_there(proxy):
    origins, served = three(proxy)
    client = proxy.client()
    first = client.ask("/")
    at = b"abc".index(first.body)
    proxy.board.set_health(served.slot(at), "down")
    second = client.ask("/", f"Cookie: lane={cookie_of(first)}")
    third = client.ask("/", f"Cookie: lane={cookie_of(second)}")
    for origin in origins:
        origin.close()

    assert second.body != first.body
    assert third.body == second.body
    assert served.service()["sticky_broken"] == 1


def test_a_draining_endpoint_keeps_its_sessions_and_gets_no_new_ones(proxy):
    origins, served = three(proxy)
    client = proxy.client()
    first = client.ask("/")
    at = b"abc".index(first.body)
    proxy.board.set_admin(served.slot(at), "drain")
    bound = {client.ask("/", f"Cookie: lane={cookie_of(first)}").body for _ in range(4)}
    new = {client.ask("/").body for _ in range(6)}
    proxy.board.set_admin(served.slot(at), "maint")
    moved = client.ask("/", f"Cookie: lane={cookie_of(first)}").body
    for origin in origins:
        origin.close()

    assert bound == {first.body}
    assert first.body not in new
    assert len(new) == 2
    assert moved != first.body


def test_an_error_of_the_proxy_sets_no_cookie(proxy):
    with Refusing() as nobody:
        proxy.serve(nobody, service={"sticky": BY_COOKIE, "retry": NO_RETRY})

        assert proxy.client().ask("/").get("set-cookie") is None


# ---- breakers ---------------------------------------------------------------------------------------


def test_a_breaker_opens_lets_one_probe_through_and_closes(proxy):
    log, status = [], [500]

    def handle(conn) -> None:
        while True:
            log.append(conn.request())
            conn.send(response(status[0], body=b"x"))

    conf = breaker(failures=3, open_ms=300, open_max_ms=300, jitter_pct=0, last=True)
    with Origin(handle) as origin:
        served = proxy.serve(origin, service={"breaker": conf, "retry": NO_RETRY, "panic_pct": 0})
        client = proxy.client()
        assert [client.ask("/").status for _ in range(3)] == [500] * 3
        assert served.breaker()["state"] == "open"
        assert client.ask("/").status == 503
        assert len(log) == 3
        status[0] = 200

        assert eventually(lambda: client.ask("/").status == 200)
        assert served.breaker()["state"] == "closed"
        assert len(log) == 4
        assert served.breaker()["trips"] == 1
        assert [client.ask("/").status for _ in range(3)] == [200] * 3


def test_a_breaker_that_is_open_sends_everything_elsewhere(proxy):
    log = []
    conf = breaker(failures=2)
    with Origin(answering("bad", status=500, log=log)) as bad, Origin(answering("ok")) as good:
        served = proxy.serve(bad, good, service={"breaker": conf, "retry": NO_RETRY, "panic_pct": 0})
        client = proxy.client()
        answers = [client.ask("/").status for _ in range(20)]

        assert (answers.count(500), len(log)) == (2, 2)
        assert answers[4:] == [200] * 16
        assert served.breaker()["state"] == "open"


def test_a_client_that_leaves_says_nothing_about_the_endpoint(proxy, origin):
    conf = breaker(failures=1, last=True)
    served = proxy.serve(origin, service={"breaker": conf}, listener={"half_close_ms": 0})
    client = proxy.client()
    client.send(request())
    upstream = origin.accept()
    upstream.request()
    client.close()
    assert upstream.ended()

    assert eventually(lambda: served.endpoint()["outcomes"]["cancel"] == 1)
    assert served.breaker()["state"] == "closed"


def test_limits_and_breakers_are_shared_by_all_workers():
    """Two workers on one socket, one endpoint that takes two requests at a time."""
    conf = breaker(failures=4, last=True, open_ms=60000)
    with Proxy(workers=2) as both, Origin() as origin:
        service = {"connections": 2, "queue": 10, "queue_ms": 60000, "breaker": conf, "retry": NO_RETRY}
        served = both.serve(origin, service=service | {"panic_pct": 0})
        clients = [both.client() for _ in range(8)]
        for client in clients:
            client.send(request())
        upstreams = [origin.accept(), origin.accept()]
        for upstream in upstreams:
            upstream.request()
        assert eventually(lambda: waiting(served) == 6)
        assert not origin.asked()
        assert both.board.endpoint(served.slot())["inflight"] == 2
        assert both.counts("clients_active") == 8
        for upstream in upstreams:
            upstream.send(response(500, "Connection: close", body=b"x"))
        for number in range(3):  # one more may have begun when the breaker opens
            if number < 2 or origin.asked():
                upstream = origin.connections[-1] if number == 2 else origin.accept()
                upstream.request()
                upstream.send(response(500, "Connection: close", body=b"x"))
        statuses = [client.answer().status for client in clients]

        assert set(statuses) == {500, 503}
        assert 4 <= statuses.count(500) <= 5
        assert served.breaker()["trips"] == 1
        both.rest()
