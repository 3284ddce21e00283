"""What the proxy answers itself: which status, in which form, and who is said to have caused it."""

import contextlib
import json

import pytest
from fakes.documents import retry
from fakes.origin import Blackhole, Origin, Refusing, answering
from fakes.wire import chunks, request, response

NO_RETRY = retry(attempts=0, on=[])


def by_itself(client, sent: bytes, method: str = "GET"):
    client.send(sent)
    return client.answer(method)


def check_text(answer, status: int) -> None:
    """A short plain text that says which."""
    assert answer.status == status
    assert answer.get("content-type") == "text/plain; charset=utf-8"
    assert answer.body.decode() == f"{status} {answer.reason}: " + answer.body.decode().split(": ", 1)[1]
    assert answer.body.endswith(b"\n")
    assert answer.get("x-request-id")


CHUNKED = b"Transfer-Encoding: chunked"

BAD_HEADS = {
    "no version": b"GET /\r\nHost: a\r\n\r\n",
    "no host": b"GET / HTTP/1.1\r\n\r\n",
    "two hosts": b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
    "another host than in the target": b"GET http://a/ HTTP/1.1\r\nHost: b\r\n\r\n",
    "a folded line": b"GET / HTTP/1.1\r\nHost: a\r\n b\r\n\r\n",
    "a space before the colon": b"GET / HTTP/1.1\r\nHost : a\r\n\r\n",
    "a bare LF": b"GET / HTTP/1.1\nHost: a\n\n",
    "a NUL": b"GET / HTTP/1.1\r\nHost: a\r\nX: \0\r\n\r\n",
    "length and coding": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n" + CHUNKED + b"\r\n\r\n",
    "two lengths": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\n",
    "a signed length": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +3\r\n\r\n",
    "a coding that is not chunked": b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
    "a coding in 1.0": b"POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
}


@pytest.mark.parametrize("what", BAD_HEADS)
def test_a_malformed_head_gets_400_and_the_end_of_the_connection(proxy, origin, what):
    proxy.serve(origin)
    client = proxy.client()
    answer = by_itself(client, BAD_HEADS[what] + request("/smuggled"))

    check_text(answer, 400)
    assert answer.get("connection") == "close"
    assert client.at_end()
    assert not origin.asked()
    assert (proxy.record()["status"], proxy.listener()["requests"][4]["client"]) == (400, 1)


@pytest.mark.parametrize(
    "body", [b"x\r\n", b"-1\r\n", b"3\r\nabcd\r\n", b"3 \r\nabc\r\n", b"3\nabc\n", b"g\r\n"]
)
@pytest.mark.parametrize("together", [True, False])
def test_a_malformed_chunked_body_gets_400_and_is_never_completed_upstream(proxy, origin, body, together):
    proxy.serve(origin)
    client = proxy.client()
    head = request("/", "Transfer-Encoding: chunked", method="POST")
    if together:
        client.send(head + body)
        answer = client.answer()
        assert not origin.asked()
    else:
        client.send(head)
        upstream = origin.accept()
        upstream.request_head()
        client.send(body)
        answer = client.answer()
        assert upstream.ended()

    check_text(answer, 400)
    assert client.at_end()


@pytest.mark.parametrize("path", ["/a/../b", "/a/%2e%2e/b", "/a/%2e/b", "/a%00b"])
def test_a_path_that_may_be_read_in_more_than_one_way_gets_400(proxy, origin, path):
    proxy.serve_many({"app": ([origin], {})}, [{"path": "/a"}])

    check_text(by_itself(proxy.client(), request(path)), 400)


def test_no_route_gets_404_and_keeps_the_connection(proxy, origin):
    proxy.serve_many({"app": ([origin], {})}, [{"path": "/app"}])
    client = proxy.client()

    check_text(by_itself(client, request("/other", method="POST", body=b"abc")), 404)
    check_text(by_itself(client, request("/appx")), 404)
    head = by_itself(client, request("/other", method="HEAD"), "HEAD")
    assert (head.status, head.get("content-type"), int(head.get("content-length")) > 0) == (
        404, "text/plain; charset=utf-8", True,
    )  # fmt: skip
    assert proxy.record()["cause"] == "proxy"
    assert proxy.listener()["requests"][4]["proxy"] == 3


@pytest.mark.parametrize(
    ("accept", "is_json"),
    [
        ("application/json", True),
        ("text/html, application/json;q=0.9", True),
        ("application/problem+json", True),
        ("text/html", False),
        ("application/jsonx", False),
        (None, False),
    ],
)
def test_an_error_is_json_for_a_client_that_accepts_it(proxy, accept, is_json):
    proxy.serve_many({}, [])
    answer = by_itself(
        proxy.client(), request("/", "X-Request-ID: abc", *([f"Accept: {accept}"] if accept else []))
    )

    if is_json:
        assert answer.get("content-type") == "application/json"
        said = json.loads(answer.body)
        assert (said["status"], said["title"], said["request_id"]) == (404, "Not Found", "abc")
        assert said["detail"]
    else:
        check_text(answer, 404)


def test_a_head_that_does_not_come_gets_408(proxy):
    proxy.serve("127.0.0.1:9", listener={"header_ms": 100})
    client = proxy.client()
    answer = by_itself(client, b"GET / HTTP/1.1\r\nHost: a\r\n")

    check_text(answer, 408)
    assert (answer.get("connection"), client.at_end()) == ("close", True)
    assert proxy.record()["cause"] == "timeout"


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_over_the_limit_gets_413_and_does_not_reach_the_endpoint_whole(proxy, origin, chunked):
    proxy.serve(origin, listener={"body_max": 1000})
    client = proxy.client()
    client.send(request("/", method="POST", body=b"x" * 1000))
    upstream = origin.accept()
    upstream.request()
    upstream.send(response(200, body=b"just right"))
    assert client.answer().body == b"just right"
    if chunked:
        answer = by_itself(
            client, request("/", "Transfer-Encoding: chunked", method="POST") + chunks(b"x" * 600, b"x" * 401)
        )
    else:
        answer = by_itself(client, request("/", "Content-Length: 1001", method="POST"))

    check_text(answer, 413)
    assert proxy.record()["cause"] == "client"
    assert upstream.silent()
    if chunked:  # it was read to its end
        client.send(b"bad\r\n\r\n")
        assert client.answer().status == 400
    assert client.at_end()


def test_a_chunked_body_that_grows_over_the_limit_gets_413_and_is_never_completed_upstream(proxy, origin):
    proxy.serve(origin, listener={"body_max": 1000})
    client = proxy.client()
    client.send(request("/", "Transfer-Encoding: chunked", method="POST"))
    upstream = origin.accept()
    upstream.request_head()
    client.send(chunks(b"x" * 1001))

    check_text(client.answer(), 413)
    assert b"0\r\n\r\n" not in upstream.rest()


def test_a_request_line_over_the_limit_gets_414(proxy):
    proxy.serve("127.0.0.1:9", listener={"line_max": 300})
    client = proxy.client()
    answer = by_itself(client, request("/" + "a" * 400))

    check_text(answer, 414)
    assert client.at_end()
    assert proxy.record()["cause"] == "client"


@pytest.mark.parametrize(
    "fields", [["X: " + "a" * 1100], [f"X-{n}: 1" for n in range(11)], ["X" * 1100 + ": 1"]]
)
def test_a_head_over_the_limits_gets_431(proxy, fields):
    proxy.serve("127.0.0.1:9", listener={"head_max": 1024, "fields_max": 10})
    client = proxy.client()
    answer = by_itself(client, request("/", *fields))

    check_text(answer, 431)
    assert client.at_end()


def test_a_head_without_end_is_refused_at_the_limit(proxy):
    proxy.serve("127.0.0.1:9")
    client = proxy.client()
    client.send(b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: y\r\n" * 8000)

    assert client.answer().status == 431


def test_connect_gets_501(proxy, origin):
    proxy.serve(origin)

    check_text(by_itself(proxy.client(), request("test:443", method="CONNECT", host="test:443")), 501)


def test_http_2_in_an_http_1_line_gets_505(proxy):
    proxy.serve("127.0.0.1:9")
    client = proxy.client()

    check_text(by_itself(client, request("/", version="2.0")), 505)
    assert client.at_end()


def test_an_endpoint_that_refuses_gets_502_by_connect(proxy):
    with Refusing() as nobody:
        served = proxy.serve(nobody, service={"retry": NO_RETRY})
        client = proxy.client()

        check_text(by_itself(client, request("/", method="POST", body=b"x")), 502)
        assert proxy.record()["cause"] == "connect"
        assert served.endpoint()["outcomes"]["connect"] == 1
        check_text(by_itself(client, request()), 502)


NOT_ANSWERS = {
    "nothing": b"",
    "half a status line": b"HTTP/1.1 20",
    "half a head": b"HTTP/1.1 200 OK\r\nContent-Le",
    "no status line": b"hello\r\n\r\n",
    "no status": b"HTTP/1.1 OK\r\n\r\n",
    "a status that is none": b"HTTP/1.1 999 X\r\n\r\n",
    "a bare LF": b"HTTP/1.1 200 OK\nContent-Length: 0\n\n",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    "length and coding": b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n" + CHUNKED + b"\r\n\r\n0\r\n\r\n",
    "a coding that is not chunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
    "a first chunk that is none": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
    "too large a head": b"HTTP/1.1 200 OK\r\n" + b"X: %b\r\n" % (b"y" * 8000) * 5 + b"\r\n",
    "too many fields": b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 101 + b"\r\n",
}


@pytest.mark.parametrize("what", NOT_ANSWERS)
def test_an_answer_that_is_none_gets_502_by_upstream(proxy, origin, what):
    served = proxy.serve(origin, service={"retry": NO_RETRY})
    client = proxy.client()
    client.send(request())
    upstream = origin.accept()
    upstream.request()
    upstream.send(NOT_ANSWERS[what])
    with contextlib.suppress(OSError):  # it may have been enough already
        upstream.finish()

    check_text(client.answer(), 502)
    assert proxy.record()["cause"] == "upstream"
    assert served.endpoint()["outcomes"]["reset"] == 1
    assert upstream.ended()


def test_a_service_without_endpoints_gets_503_and_a_time_to_come_back(proxy):
    served = proxy.serve_many({"app": ([], {})}, [{}])
    client = proxy.client()
    answer = by_itself(client, request())

    check_text(answer, 503)
    assert answer.get("retry-after") == "1"
    assert proxy.record()["cause"] == "proxy"
    assert served.service()["no_endpoint"] == 1


def test_an_endpoint_that_cannot_be_reached_in_time_gets_504_by_connect(proxy):
    with Blackhole() as hole:
        served = proxy.serve(hole, service={"connect_ms": 50, "retry": NO_RETRY})

        check_text(by_itself(proxy.client(), request()), 504)
        assert proxy.record()["cause"] == "connect"
        assert served.endpoint()["outcomes"]["connect"] == 1


def test_an_endpoint_that_does_not_answer_in_time_gets_504_by_timeout(proxy, origin):
    served = proxy.serve(origin, service={"response_ms": 50, "retry": NO_RETRY})
    client = proxy.client()
    client.send(request())
    upstream = origin.accept()
    upstream.request()

    check_text(client.answer(), 504)
    assert proxy.record()["cause"] == "timeout"
    assert upstream.ended()
    assert served.endpoint()["outcomes"]["timeout"] == 1


def test_the_request_id_of_an_error_is_the_one_in_the_log(proxy):
    proxy.serve_many({}, [])
    answer = by_itself(proxy.client(), request())

    assert proxy.record()["id"] == answer.get("x-request-id")


def test_running_out_of_descriptors_is_the_proxys_failure_and_not_the_endpoints(proxy):
    with Origin(answering()) as origin:
        served = proxy.serve(origin, service={"retry": NO_RETRY, "pool_max": 0})
        client = proxy.client()
        assert client.ask("/1").status == 200
        worker = proxy.workers[0]
        worker.ask("use_up_descriptors")
        try:
            answer = client.ask("/2")
        finally:
            worker.ask("free_descriptors")

        check_text(answer, 503)
        assert proxy.record()["cause"] == "proxy"
        assert served.endpoint()["outcomes"]["connect"] == 0
        assert client.ask("/3").status == 200
