"""Requests and responses through the proxy: what each side gets of what the other one sent."""

import re

import pytest
from fakes.engine_process import Proxy
from fakes.origin import Origin, answering
from fakes.wire import chunks, request, response

EVERY_BYTE = bytes(range(256))


def relay(proxy, origin, sent: bytes, reply: bytes, *, method: str = "GET"):
    """One request and its answer: what the origin got, what the client got, and the client's connection."""
    client = proxy.client()
    client.send(sent)
    upstream = origin.accept()
    asked = upstream.request()
    upstream.send(reply)
    return asked, client.answer(method), client


def test_a_request_and_its_answer_go_through(proxy, origin):
    proxy.serve(origin)

    asked, answer, _ = relay(
        proxy,
        origin,
        request("/a?b=c", "Accept: text/plain"),
        response(200, "Content-Type: text/plain", body=b"hello"),
    )

    assert (asked.line, asked.get("host"), asked.get("accept")) == (
        "GET /a?b=c HTTP/1.1",
        "test",
        "text/plain",
    )
    assert (answer.line, answer.body) == ("HTTP/1.1 200 Reason", b"hello")
    assert answer.get("content-type") == "text/plain"


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "PROPFIND"])
def test_methods_go_through_as_they_are(proxy, origin, method):
    proxy.serve(origin)

    asked, answer, _ = relay(proxy, origin, request("/m", method=method), response(body=b"ok"))

    assert (asked.method, asked.body, answer.body) == (method, b"", b"ok")


@pytest.mark.parametrize("n", [1, 1000, 40_000, 600_000])
def test_bodies_with_a_length_arrive_whole_both_ways(proxy, origin, n):
    proxy.serve(origin)
    body = (EVERY_BYTE * (n // 256 + 1))[:n]

    asked, answer, _ = relay(proxy, origin, request("/", method="POST", body=body), response(body=body[::-1]))

    assert (asked.get("content-length"), asked.get("transfer-encoding")) == (str(n), None)
    assert asked.body == body
    assert (answer.get("content-length"), answer.get("transfer-encoding")) == (str(n), None)
    assert answer.body == body[::-1]


def test_an_empty_body_keeps_its_length_of_zero(proxy, origin):
    proxy.serve(origin)

    asked, answer, _ = relay(proxy, origin, request("/", method="POST", body=b""), response(body=b""))

    assert (asked.get("content-length"), answer.get("content-length")) == ("0", "0")


@pytest.mark.parametrize("part", [1, 17, 5000, 100_000])
def test_chunked_bodies_with_trailers_arrive_whole_both_ways(proxy, origin, part):
    proxy.serve(origin)
    body = EVERY_BYTE * (part // 64 + 1)
    framed = chunks(
        *(body[at : at + part] for at in range(0, len(body), part)), trailers=b"X-Sum: 7\r\nX-Two: 8\r\n"
    )
    sent = request("/", "Transfer-Encoding: chunked", "Trailer: X-Sum", method="POST") + framed
    reply = response(200, "Transfer-Encoding: chunked", "Trailer: X-Sum", body=None) + framed

    asked, answer, _ = relay(proxy, origin, sent, reply)

    for got in (asked, answer):
        assert (got.get("transfer-encoding"), got.get("content-length")) == ("chunked", None)
        assert got.body == body
        assert got.trailers == [("X-Sum", "7"), ("X-Two", "8")]
        assert got.get("trailer") == "X-Sum"


def test_a_chunked_body_that_comes_byte_by_byte_is_the_same_body(proxy, origin):
    proxy.serve(origin)
    client = proxy.client()
    client.send(request("/", "Transfer-Encoding: chunked", method="POST"))
    upstream = origin.accept()
    for byte in chunks(b"abc", b"defg", trailers=b"X-T: 1\r\n"):
        client.send(bytes([byte]))
    asked = upstream.request()
    for byte in response(200, "Transfer-Encoding: chunked", body=None) + chunks(
        b"xyz", trailers=b"X-U: 2\r\n"
    ):
        upstream.send(bytes([byte]))
    answer = client.answer()

    assert (asked.body, asked.trailers) == (b"abcdefg", [("X-T", "1")])
    assert (answer.body, answer.trailers) == (b"xyz", [("X-U", "2")])


def test_what_may_not_stand_in_trailers_is_left_out(proxy, origin):
    proxy.serve(origin)
    bad = [
        "Content-Length: 3",
        "Host: evil",
        "Transfer-Encoding: chunked",
        "Authorization: x",
        "Set-Cookie: a=b",
    ]
    framed = chunks(b"abc", trailers="\r\n".join([*bad, "X-Ok: 1", ""]).encode())

    asked, answer, _ = relay(
        proxy,
        origin,
        request("/", "Transfer-Encoding: chunked", method="POST") + framed,
        response(200, "Transfer-Encoding: chunked", body=None) + framed,
    )

    assert asked.trailers == answer.trailers == [("X-Ok", "1")]


def test_chunk_extensions_end_at_the_proxy(proxy, origin):
    proxy.serve(origin)
    client = proxy.client()
    client.send(request("/", "Transfer-Encoding: chunked", method="POST") + b'3;a="b"\r\nabc\r\n0;x\r\n\r\n')
    upstream = origin.accept()
    upstream.request_head()

    assert upstream.until(b"0\r\n\r\n") == b"3\r\nabc\r\n"


# ---- versions and forms of the request line ------------------------------------------------------


def test_an_http_1_0_client_gets_a_plain_body_and_the_end_of_the_connection(proxy, origin):
    proxy.serve(origin)

    asked, answer, client = relay(
        proxy,
        origin,
        request("/", version="1.0"),
        response(200, "Transfer-Encoding: chunked", body=None) + chunks(b"ab", b"cd"),
    )

    assert asked.line == "GET / HTTP/1.1"
    assert (answer.get("transfer-encoding"), answer.get("content-length")) == (None, None)
    assert answer.get("connection") == "close"
    assert answer.body == b"abcd"
    assert client.at_end()


def test_an_http_1_0_client_that_asks_for_it_keeps_its_connection(proxy, origin):
    proxy.serve(origin)
    client = proxy.client()
    client.send(request("/1", "Connection: keep-alive", version="1.0"))
    upstream = origin.accept()
    upstream.request()
    upstream.send(response(body=b"one"))
    first = client.answer()
    client.send(request("/2", version="1.0"))
    upstream.request()
    upstream.send(response(body=b"two"))
    second = client.answer()

    assert (first.get("connection"), first.body) == ("keep-alive", b"one")
    assert (second.get("connection"), second.body) == ("close", b"two")
    assert client.at_end()


def test_an_http_1_0_client_needs_no_host(proxy, origin):
    proxy.serve(origin)

    asked, answer, _ = relay(proxy, origin, request("/", version="1.0", host=None), response(body=b"ok"))

    assert asked.all("host") == [""]
    assert answer.body == b"ok"


def test_an_http_1_0_upstream_is_read_to_its_end_and_not_kept(proxy, origin):
    proxy.serve(origin)
    client = proxy.client()
    client.send(request("/1"))
    upstream = origin.accept()
    upstream.request()
    upstream.send(response(200, body=None, version="1.0") + b"to the end")
    upstream.close()
    first = client.answer()
    client.send(request("/2"))
    second = origin.accept()

    assert (first.get("transfer-encoding"), first.body) == ("chunked", b"to the end")
    assert second.request().target == "/2"
    second.send(response(body=b"2", version="1.0"))
    assert client.answer().body == b"2"
    assert second.ended()


def test_an_http_1_0_upstream_with_keep_alive_is_used_again(proxy, origin):
    proxy.serve(origin)
    client = proxy.client()
    client.send(request("/1"))
    upstream = origin.accept()
    for n in (1, 2):
        assert upstream.request().target == f"/{n}"
        upstream.send(response(200, "Connection: keep-alive", body=b"%d" % n, version="1.0"))
        assert client.answer().body == b"%d" % n
        client.send(request(f"/{n + 1}"))
    upstream.request()


def test_a_close_delimited_answer_becomes_chunked(proxy, origin):
    proxy.serve(origin)
    client = proxy.client()
    client.send(request())
    upstream = origin.accept()
    upstream.request()
    upstream.send(response(200, "Connection: close", body=None) + b"some")
    head = client.answer_head()
    assert client.chunk() == b"some"
    upstream.send(b" more")
    assert client.chunk() == b" more"
    upstream.close()

    assert head.get("transfer-encoding") == "chunked"
    assert head.get("connection") is None
    assert (client.chunk(), client.trailers()) == (b"", [])
    client.send(request("/next"))
    origin.accept().send(response(body=b"next"))
    assert client.answer().body == b"next"


def test_a_close_delimited_answer_that_breaks_off_is_not_passed_off_as_whole(proxy, origin):
    proxy.serve(origin)
    client = proxy.client()
    client.send(request())
    upstream = origin.accept()
    upstream.request()
    upstream.send(response(200, body=None) + b"some")
    client.answer_head()
    assert client.chunk() == b"some"
    upstream.reset()

    assert client.was_reset()


@pytest.mark.parametrize("version", ["1.0", "1.1"])
@pytest.mark.parametrize("cut", ["length", "chunked"])
def test_an_answer_cut_short_is_not_passed_off_as_whole(proxy, origin, version, cut):
    proxy.serve(origin)
    client = proxy.client()
    client.send(request(version=version))
    upstream = origin.accept()
    upstream.request()
    if cut == "length":
        upstream.send(response(200, "Content-Length: 10", body=None) + b"abc")
    else:
        upstream.send(response(200, "Transfer-Encoding: chunked", body=None) + b"5\r\nabc")
    client.answer_head()
    upstream.close()

    assert client.was_reset()
    assert proxy.record()["cause"] == "upstream"


def test_absolute_form_goes_on_as_origin_form_with_its_own_host(proxy, origin):
    proxy.serve(origin)

    asked, _, _ = relay(
        proxy, origin, request("http://other.example:81/p?q", host="other.example:81"), response()
    )

    assert (asked.line, asked.get("host")) == ("GET /p?q HTTP/1.1", "other.example:81")


def test_absolute_form_without_a_path_asks_for_the_root(proxy, origin):
    proxy.serve(origin)

    asked, _, _ = relay(proxy, origin, request("http://other.example?q=1", host="other.example"), response())

    assert asked.line == "GET /?q=1 HTTP/1.1"


@pytest.mark.parametrize("target", ["*", "http://test"])
def test_options_for_the_whole_server_stay_that(proxy, origin, target):
    proxy.serve(origin)

    asked, answer, _ = relay(
        proxy,
        origin,
        request(target, method="OPTIONS"),
        response(204, "Allow: GET", body=None),
        method="HEAD",
    )

    assert asked.line == "OPTIONS * HTTP/1.1"
    assert (answer.status, answer.get("allow")) == (204, "GET")


def test_a_higher_minor_version_is_answered_as_1_1(proxy, origin):
    proxy.serve(origin)

    asked, answer, _ = relay(proxy, origin, request(version="1.9"), response(body=b"ok"))

    assert asked.line == "GET / HTTP/1.1"
    assert answer.line.startswith("HTTP/1.1 200")


# ---- answers without a body ----------------------------------------------------------------------


@pytest.mark.parametrize("framing", ["Content-Length: 1234", "Transfer-Encoding: chunked", None])
def test_the_answer_to_head_ends_with_its_head(proxy, origin, framing):
    proxy.serve(origin)
    client = proxy.client()
    client.send(request("/1", method="HEAD"))
    upstream = origin.accept()
    upstream.request()
    upstream.send(response(200, *([framing] if framing else []), body=None))
    answer = client.answer("HEAD")
    client.send(request("/2"))
    assert upstream.request().target == "/2"
    upstream.send(response(body=b"two"))

    assert answer.get("content-length") == ("1234" if framing and "1234" in framing else None)
    assert client.answer().body == b"two"


@pytest.mark.parametrize(("status", "kept"), [(204, None), (304, "99")])
def test_204_and_304_have_no_body_whatever_length_they_claim(proxy, origin, status, kept):
    proxy.serve(origin)
    client = proxy.client()
    client.send(request("/1"))
    upstream = origin.accept()
    upstream.request()
    upstream.send(response(status, "Content-Length: 99", body=None))
    answer = client.answer()
    client.send(request("/2"))
    assert upstream.request().target == "/2"
    upstream.send(response(body=b"two"))

    assert (answer.status, answer.get("content-length")) == (status, kept)
    assert client.answer().body == b"two"


@pytest.mark.parametrize("status", [200, 204, 304])
def test_bytes_behind_an_answer_never_become_the_next_answer(proxy, origin, status):
    proxy.serve(origin)
    method = "HEAD" if status == 200 else "GET"
    client = proxy.client()
    client.send(request("/1", method=method))
    upstream = origin.accept()
    upstream.request()
    upstream.send(response(status, "Content-Length: 40", body=None) + response(200, body=b"poison"))
    client.answer(method)
    client.send(request("/2"))
    second = origin.accept()
    second.request()
    second.send(response(body=b"clean"))

    assert client.answer().body == b"clean"
    assert upstream.ended()


# ---- fields --------------------------------------------------------------------------------------

HOPS = [
    "Connection: X-Named, keep-alive, x-other",
    "X-Named: 1",
    "X-Other: 2",
    "Keep-Alive: timeout=5",
    "Proxy-Connection: keep-alive",
    "TE: trailers, gzip",
    "Upgrade: h2c",
]


def test_hop_by_hop_fields_and_those_named_by_connection_end_at_the_proxy_both_ways(proxy, origin):
    proxy.serve(origin)

    asked, answer, _ = relay(
        proxy, origin, request("/", *HOPS, "X-Kept: 3"), response(200, *HOPS, "X-Kept: 4", body=b"")
    )

    gone = {"connection", "x-named", "x-other", "keep-alive", "proxy-connection", "te", "upgrade"}
    assert gone & set(asked.names) == set()
    assert gone & set(answer.names) == set()
    assert (asked.get("x-kept"), answer.get("x-kept")) == ("3", "4")


def test_connection_cannot_name_away_what_the_message_needs(proxy, origin):
    proxy.serve(origin)
    named = "Connection: Host, Content-Length, Cookie, Content-Type, X-Forwarded-For, X-Request-ID"

    asked, answer, _ = relay(
        proxy,
        origin,
        request(
            "/", named, "Cookie: a=b", "Content-Type: t/x", "X-Request-ID: id7", method="POST", body=b"abc"
        ),
        response(
            200, "Connection: Set-Cookie, Date, Content-Length", "Set-Cookie: c=d", "Date: now", body=b"xyz"
        ),
    )

    assert (asked.get("host"), asked.get("cookie"), asked.get("content-type")) == ("test", "a=b", "t/x")
    assert (asked.body, asked.get("x-forwarded-for"), asked.get("x-request-id")) == (
        b"abc",
        "127.0.0.1",
        "id7",
    )
    assert (answer.get("set-cookie"), answer.get("date"), answer.body) == ("c=d", "now", b"xyz")


def test_fields_keep_their_order_their_case_and_their_repeats(proxy, origin):
    proxy.serve(origin)

    asked, answer, _ = relay(
        proxy,
        origin,
        request("/", "X-b: 1", "x-A: 2", "X-b: 3"),
        response(200, "Set-Cookie: a", "Set-Cookie: b", "sErVer: me", body=b""),
    )

    assert [field for field in asked.fields if field[0].lower() in ("x-a", "x-b")] == [
        ("X-b", "1"), ("x-A", "2"), ("X-b", "3"),
    ]  # fmt: skip
    assert answer.fields[:3] == [("Set-Cookie", "a"), ("Set-Cookie", "b"), ("sErVer", "me")]


def test_via_is_neither_added_nor_taken_away(proxy, origin):
    proxy.serve(origin)

    asked, answer, _ = relay(proxy, origin, request(), response())
    assert (asked.get("via"), answer.get("via")) == (None, None)

    proxy.serve(origin)
    asked, answer, _ = relay(proxy, origin, request("/", "Via: 1.1 a"), response(200, "Via: 1.1 b", body=b""))
    assert (asked.get("via"), answer.get("via")) == ("1.1 a", "1.1 b")


def test_a_request_id_is_made_where_there_is_none(proxy, origin):
    proxy.serve(origin)

    first, _, _ = relay(proxy, origin, request(), response(200, "Connection: close"))
    second, _, _ = relay(proxy, origin, request(), response())

    assert re.fullmatch("[0-9a-f]{32}", first.get("x-request-id"))
    assert first.get("x-request-id") != second.get("x-request-id")
    assert proxy.record()["id"] == second.get("x-request-id")


@pytest.mark.parametrize(
    ("sent", "kept"), [("abc-123", True), ("x" * 64, True), ("x" * 65, False), ('a"b', False)]
)
def test_a_request_id_is_kept_when_it_is_fit_for_a_log(proxy, origin, sent, kept):
    proxy.serve(origin)

    asked, _, _ = relay(proxy, origin, request("/", f"X-Request-ID: {sent}"), response())

    assert (asked.get("x-request-id") == sent) is kept


def test_only_the_first_of_several_request_ids_goes_on(proxy, origin):
    proxy.serve(origin)

    asked, _, _ = relay(proxy, origin, request("/", "X-Request-ID: a", "X-Request-ID: b"), response())

    assert asked.all("x-request-id") == ["a"]


# ---- who the client is ---------------------------------------------------------------------------

SPOOF = [
    "X-Forwarded-For: 6.6.6.6",
    "X-Forwarded-Proto: https",
    "X-Forwarded-Host: evil.example",
    "Forwarded: for=6.6.6.6",
]


def test_what_an_untrusted_client_says_about_itself_is_overwritten(proxy, origin):
    proxy.serve(origin)

    asked, _, _ = relay(proxy, origin, request("/", *SPOOF), response())

    assert asked.get("x-forwarded-for") == "127.0.0.1"
    assert asked.get("x-forwarded-proto") == "http"
    assert asked.get("x-forwarded-host") == "test"
    assert asked.get("forwarded") is None
    assert proxy.record()["client"] == "127.0.0.1"


def test_what_a_trusted_proxy_says_is_kept_and_extended(proxy, origin):
    proxy.serve(origin, listener={"trusted": ["127.0.0.0/8"], "forwarded": ["x", "rfc7239"]})

    asked, _, _ = relay(
        proxy, origin, request("/", "X-Forwarded-For: 9.9.9.9, 10.1.1.1", *SPOOF[1:]), response()
    )

    assert asked.get("x-forwarded-for") == "9.9.9.9, 10.1.1.1, 127.0.0.1"
    assert asked.get("x-forwarded-proto") == "https"
    assert asked.get("x-forwarded-host") == "evil.example"
    assert asked.get("forwarded") == 'for=6.6.6.6, for=127.0.0.1;host="test";proto=http'
    assert proxy.record()["client"] == "10.1.1.1"


def test_the_client_is_the_last_address_that_is_not_a_trusted_proxy(proxy, origin):
    proxy.serve(origin, listener={"trusted": ["127.0.0.1/32", "10.0.0.0/8"]})

    relay(proxy, origin, request("/", "X-Forwarded-For: 6.6.6.6, 9.9.9.9, 10.1.1.1, 10.2.2.2"), response())

    assert proxy.record()["client"] == "9.9.9.9"


def test_several_forwarded_fields_of_a_trusted_proxy_are_one_list(proxy, origin):
    proxy.serve(origin, listener={"trusted": ["127.0.0.1"]})
    sent = request("/", "X-Forwarded-For: 1.1.1.1", "X-Other: x", "X-Forwarded-For: 2.2.2.2")

    asked, _, _ = relay(proxy, origin, sent, response())

    assert asked.get("x-forwarded-for") == "1.1.1.1, 2.2.2.2, 127.0.0.1"
    assert proxy.record()["client"] == "2.2.2.2"


def test_a_forwarded_address_that_is_none_is_not_believed(proxy, origin):
    proxy.serve(origin, listener={"trusted": ["127.0.0.1"]})

    relay(proxy, origin, request("/", "X-Forwarded-For: 1.1.1.1, nobody"), response())

    assert proxy.record()["client"] == "127.0.0.1"


def test_a_client_with_an_ipv6_address_is_named_as_the_rfc_says(origin):
    try:
        proxy = Proxy(host="::1")
    except OSError as error:
        pytest.skip(f"no IPv6 here: {error}")
    with proxy:
        proxy.serve(origin, listener={"forwarded": ["x", "rfc7239"]})

        asked, _, _ = relay(proxy, origin, request(host="[::1]:80"), response())

        assert asked.get("x-forwarded-for") == "::1"
        assert asked.get("forwarded") == 'for="[::1]";host="[::1]:80";proto=http'
        assert proxy.record()["client"] == "::1"


def test_an_address_outside_the_trusted_networks_is_not_trusted(proxy, origin):
    proxy.serve(origin, listener={"trusted": ["127.0.0.2/32", "::1/128"]})

    asked, _, _ = relay(proxy, origin, request("/", *SPOOF), response())

    assert asked.get("x-forwarded-for") == "127.0.0.1"


def test_without_forwarded_fields_none_are_written_and_spoofed_ones_still_go(proxy, origin):
    proxy.serve(origin, listener={"forwarded": []})

    asked, _, _ = relay(proxy, origin, request("/", *SPOOF), response())

    assert {name for name in asked.names if "forwarded" in name} == set()


# ---- what a route changes ------------------------------------------------------------------------


def edit(name: str, value: str | None) -> dict[str, str]:
    return {"kind": "remove" if value is None else "set", "name": name, "value": value or ""}


def test_a_route_sets_and_removes_fields_both_ways(proxy, origin):
    proxy.serve(
        origin,
        route={
            "request": [edit("X-Set", "new"), edit("X-Gone", None), edit("Cookie", None)],
            "response": [edit("Server", "turnout"), edit("X-Powered-By", None)],
        },
    )

    asked, answer, _ = relay(
        proxy,
        origin,
        request("/", "x-set: old", "X-Set: older", "x-gone: 1", "Cookie: a=b", "X-Kept: 1"),
        response(200, "server: origin", "x-powered-by: php", "X-Kept: 2", body=b""),
    )

    assert (asked.get("x-set"), asked.get("x-gone"), asked.get("cookie")) == ("new", None, None)
    assert (answer.get("server"), answer.get("x-powered-by")) == ("turnout", None)
    assert (asked.get("x-kept"), answer.get("x-kept")) == ("1", "2")


@pytest.mark.parametrize(
    ("prefix", "to", "asked_for", "gets"),
    [
        ("/api", "", "/api/orders?x=1", "/orders?x=1"),
        ("/api", "", "/api", "/"),
        ("/api", "/v2", "/api/orders", "/v2/orders"),
        ("/api", "/v2/", "/api/orders", "/v2/orders"),
        ("/api/", "/", "/api/orders", "/orders"),
        ("/api", "/v2", "/%61pi/o%2Frders", "/v2/o%2Frders"),
        ("/", "/base", "/orders", "/base/orders"),
    ],
)
def test_a_path_prefix_is_stripped_or_rewritten(proxy, origin, prefix, to, asked_for, gets):
    proxy.serve(origin, route={"path": prefix, "prefix_to": to})

    asked, _, _ = relay(proxy, origin, request(asked_for), response())

    assert asked.target == gets


@pytest.mark.parametrize(
    ("mode", "host", "gets"),
    [("preserve", "", "test"), ("literal", "inner.example", "inner.example"), ("endpoint", "", None)],
)
def test_the_host_goes_on_as_the_service_says(proxy, origin, mode, host, gets):
    proxy.serve(origin, service={"host_mode": mode, "host": host})

    asked, _, _ = relay(proxy, origin, request(), response())

    assert asked.get("host") == (gets or origin.address)
    assert asked.get("x-forwarded-host") == "test"


def test_a_fixed_response_needs_no_upstream(proxy):
    proxy.serve_many(
        {},
        [
            {
                "action": "respond",
                "status": 403,
                "body": "closed\n",
                "content_type": "text/plain",
                "response": [edit("X-Why", "because")],
            }
        ],
    )
    client = proxy.client()

    answer = client.ask("/any", method="POST", body=b"abc")

    assert (answer.status, answer.body, answer.get("content-type")) == (403, b"closed\n", "text/plain")
    assert answer.get("x-why") == "because"
    head = client.ask("/any", method="HEAD")
    assert (head.get("content-length"), head.body) == ("7", b"")
    assert client.ask("/again").status == 403
    assert proxy.record()["cause"] == "none"


def test_a_large_fixed_response_arrives_whole_at_a_slow_reader(proxy):
    body = "0123456789" * 60_000
    proxy.serve_many({}, [{"action": "respond", "status": 200, "body": body, "content_type": "text/plain"}])
    client = proxy.client(receive_buffer=4096)

    client.send(request())
    answer = client.answer()

    assert answer.body == body.encode()


def test_a_redirect_keeps_host_path_and_query(proxy):
    proxy.serve_many(
        {}, [{"action": "redirect", "status": 308, "location": "https://{host}{path}{query}", "path": "/"}]
    )
    client = proxy.client()

    answer = client.ask("/a/b?c=d", host="shop.example:8080")

    assert (answer.status, answer.get("location")) == (308, "https://shop.example/a/b?c=d")
    assert answer.get("content-length") == "0"


def test_a_redirect_cannot_be_led_to_another_host_by_the_path(proxy):
    proxy.serve_many({}, [{"action": "redirect", "status": 302, "location": "{path}"}])

    location = proxy.client().ask("//evil.example/").get("location")

    assert location is None or not location.startswith("//")


def test_routes_choose_by_host_path_method_and_field(proxy):
    with (
        Origin(answering("any")) as any_,
        Origin(answering("api")) as api,
        Origin(answering("post")) as post,
        Origin(answering("beta")) as beta,
    ):
        proxy.serve_many(
            {name: ([o], {}) for name, o in {"any": any_, "api": api, "post": post, "beta": beta}.items()},
            [
                {"service": "any"},
                {"service": "api", "hosts": ["api.example", "*.api.example"], "path": "/v1"},
                {"service": "post", "path": "/v1", "methods": ["POST"]},
                {"service": "beta", "path": "/v1", "headers": [{"name": "x-beta", "value": None}]},
            ],
        )
        client = proxy.client()

        assert client.ask("/v1/x").body == b"any"
        assert client.ask("/v1/x", host="API.example:80").body == b"api"
        assert client.ask("/v1/x", host="eu.api.example").body == b"api"
        assert client.ask("/v1", method="POST", body=b"").body == b"post"
        assert client.ask("/v1", "X-Beta: 1").body == b"beta"
        assert client.ask("/v2", host="api.example").body == b"any"


def test_each_listener_has_its_own_routes_and_limits():
    rows = [{"action": "respond", "status": 200, "body": f"{n}", "listeners": [n]} for n in range(2)]
    with Proxy(listeners=2) as two:
        two.serve_many({}, rows, listeners=[{}, {"line_max": 300}])
        long = "/" + "a" * 400

        assert [two.client(n).ask("/").body for n in range(2)] == [b"0", b"1"]
        assert [two.client(n).ask(long).status for n in range(2)] == [200, 414]
        assert [two.listener(n)["requests"][2]["none"] for n in range(2)] == [2, 1]
        two.rest()


def test_an_endpoint_may_be_a_unix_socket(proxy, tmp_path):
    with Origin(answering("local"), path=str(tmp_path / "o.sock")) as origin:
        proxy.serve(origin)
        client = proxy.client()

        assert client.ask("/1").body == b"local"
        assert client.ask("/2").body == b"local"
        assert len(origin.connections) == 1
