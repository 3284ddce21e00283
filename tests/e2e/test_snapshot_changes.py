"""Snapshots that share services, under traffic: what is given back, and when."""

from fakes.engine_process import eventually
from fakes.wire import request, response

ASK, OK = request("/"), response(body=b"ok")


def app(proxy) -> int:
    return proxy.document["services"][0]["slot"]


def row(proxy, *, members=True):
    """The service in force, made anew with its endpoints or without."""
    service = proxy.document["services"][0]
    slots = [member["slot"] for member in proxy.document["members"]] if members else []
    groups = [{**service["groups"][0], "members": list(range(len(slots)))}]
    return {"slot": app(proxy), "settings": None, "members": slots, "groups": groups}


def test_a_request_keeps_its_snapshot_until_it_ends_and_the_ones_between_go_at_once(proxy, origin):
    proxy.serve(origin)
    client = proxy.client()
    client.send(ASK)
    upstream = origin.accept()
    upstream.request_head()
    for _ in range(20):
        proxy.change(row(proxy))
        proxy.change(app(proxy))
    assert proxy.snapshots() == 2
    upstream.send(OK)
    assert client.answer().body == b"ok"
    assert eventually(lambda: proxy.snapshots() == 1)


def test_a_pooled_connection_is_used_again_after_changes_to_its_own_service(proxy, origin):
    proxy.serve(origin)
    client = proxy.client()
    client.send(ASK)
    upstream = origin.accept()
    for _ in range(5):
        upstream.request_head()
        upstream.send(OK)
        assert client.answer().body == b"ok"
        proxy.change(row(proxy))
        client.send(ASK)


def test_a_request_whose_service_has_lost_all_endpoints_ends_as_it_would_have(proxy, origin):
    proxy.serve(origin)
    client = proxy.client()
    client.send(ASK)
    upstream = origin.accept()
    upstream.request_head()
    proxy.change(row(proxy, members=False))
    other = proxy.client()
    other.send(ASK)
    assert other.answer().status == 503
    upstream.send(OK)
    assert client.answer().body == b"ok"
    assert eventually(lambda: proxy.snapshots() == 1)
    assert eventually(upstream.ended)
