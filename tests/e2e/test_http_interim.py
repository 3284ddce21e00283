"""1xx answers and Expect: 100-continue."""

import threading

import pytest
from fakes.documents import retry
from fakes.wire import request, response

NO_RETRY = retry(attempts=0, on=[])
EXPECT = "Expect: 100-continue"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


def expecting(target: str = "/", *, n: int = 4, version: str = "1.1") -> bytes:
    return request(target, EXPECT, f"Content-Length: {n}", method="POST", version=version)


def test_100_continue_is_the_origins_to_say(proxy, origin):
    proxy.serve(origin)
    client = proxy.client()
    client.send(expecting())
    upstream = origin.accept()
    head = upstream.request_head()
    assert head.get("expect") == "100-continue"
    assert client.silent()
    upstream.send(CONTINUE)
    assert client.interim().line == "HTTP/1.1 100 Continue"
    client.send(b"body")
    assert upstream.exactly(4) == b"body"
    upstream.send(response(201, body=b"made"))

    answer = client.answer()
    assert (answer.status, answer.interim, answer.body) == (201, [], b"made")
    client.send(request("/next"))
    assert upstream.request().target == "/next"


def test_a_final_answer_instead_of_100_says_that_the_connection_ends(proxy, origin):
    proxy.serve(origin)
    client = proxy.client()
    client.send(expecting())
    upstream = origin.accept()
    upstream.request_head()
    upstream.send(response(417, body=b"no"))
    answer = client.answer()

    assert (answer.status, answer.body, answer.get("connection")) == (417, b"no", "close")
    assert client.at_end()
    assert upstream.ended()


def test_a_client_that_does_not_wait_for_100_is_served(proxy, origin):
    proxy.serve(origin)
    client = proxy.client()
    client.send(expecting() + b"body")
    upstream = origin.accept()
    assert upstream.request().body == b"body"
    upstream.send(CONTINUE + response(200, body=b"ok"))
    answer = client.answer()

    assert ([one.status for one in answer.interim], answer.status) == ([100], 200)
    client.send(request("/next"))
    assert upstream.request().target == "/next"


def test_an_http_1_0_client_expects_nothing_and_gets_no_interim_answer(proxy, origin):
    proxy.serve(origin)
    client = proxy.client()
    client.send(expecting(version="1.0") + b"body")
    upstream = origin.accept()
    asked = upstream.request()
    upstream.send(b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + response(200, body=b"ok"))
    answer = client.answer()

    assert asked.get("expect") is None
    assert (answer.interim, answer.status, answer.body) == ([], 200, b"ok")


@pytest.mark.parametrize("together", [True, False])
def test_every_interim_answer_is_passed_on_in_order(proxy, origin, together):
    proxy.serve(origin)
    client = proxy.client()
    client.send(request())
    upstream = origin.accept()
    upstream.request()
    parts = [
        b"HTTP/1.1 102 Processing\r\n\r\n",
        b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\nLink: </b.css>\r\nConnection: x\r\n\r\n",
        b"HTTP/1.1 199 Whatever\r\n\r\n",
        response(200, body=b"done"),
    ]
    if together:
        upstream.send(b"".join(parts))
        answer = client.answer()
    else:
        interim = []
        for part in parts[:-1]:
            upstream.send(part)
            interim.append(client.interim())
        upstream.send(parts[-1])
        answer = client.answer()
        answer.interim = interim

    assert [one.line for one in answer.interim] == [
        "HTTP/1.1 102 Processing", "HTTP/1.1 103 Early Hints", "HTTP/1.1 199 Whatever",
    ]  # fmt: skip
    assert answer.interim[1].fields == [("Link", "</a.css>"), ("Link", "</b.css>")]
    assert answer.body == b"done"


def test_interim_answers_that_come_byte_by_byte_are_passed_on(proxy, origin):
    proxy.serve(origin)
    client = proxy.client()
    client.send(request())
    upstream = origin.accept()
    upstream.request()
    for byte in b"HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n" + response(200, body=b"done"):
        upstream.send(bytes([byte]))
    answer = client.answer()

    assert ([one.status for one in answer.interim], answer.body) == ([103], b"done")


def test_a_hundred_interim_answers_are_passed_on(proxy, origin):
    proxy.serve(origin)
    client = proxy.client()
    client.send(request())
    upstream = origin.accept()
    upstream.request()
    upstream.send(b"HTTP/1.1 102 Processing\r\n\r\n" * 100 + response(200, body=b"done"))
    answer = client.answer()

    assert (len(answer.interim), answer.body) == (100, b"done")


def test_interim_answers_without_end_are_refused(proxy, origin):
    proxy.serve(origin, service={"retry": NO_RETRY})
    client = proxy.client()
    client.send(request())
    upstream = origin.accept()
    upstream.request()
    upstream.send(b"HTTP/1.1 102 Processing\r\n\r\n" * 101)
    answer = client.answer()

    assert (len(answer.interim), answer.status) == (100, 502)
    assert upstream.ended()


def test_101_that_nobody_asked_for_is_refused(proxy, origin):
    proxy.serve(origin, service={"retry": NO_RETRY})
    client = proxy.client()
    client.send(request())
    upstream = origin.accept()
    upstream.request()
    upstream.send(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n")
    answer = client.answer()

    assert (answer.interim, answer.status) == ([], 502)
    assert upstream.ended()
    client.send(request("/next"))
    origin.accept().send(response(200, body=b"next"))
    assert client.answer().body == b"next"


def test_an_interim_answer_reaches_a_client_whose_receive_buffer_was_full(proxy, origin):
    """The client sends its body only after 100, and the origin answers only after the body."""
    proxy.serve(origin)
    client = proxy.client(receive_buffer=4096)
    client.send(expecting())
    upstream = origin.accept()
    upstream.request_head()
    hint = b"HTTP/1.1 103 Early Hints\r\nX: " + b"y" * 30_000 + b"\r\n\r\n"
    # The proxy takes no more than the client does.
    told = threading.Thread(target=upstream.send, args=(hint * 99 + CONTINUE,))
    told.start()
    interim = [client.interim().status for _ in range(100)]
    told.join()
    client.send(b"body")
    assert upstream.exactly(4) == b"body"
    upstream.send(response(200, body=b"ok"))

    assert interim == [103] * 99 + [100]
    assert client.answer().body == b"ok"
