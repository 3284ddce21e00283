"""Server-sent events: followed, filtered, gone on with, and what becomes of slow clients."""

import asyncio
import json
import socket
from urllib.parse import urlsplit

import pytest
from fakes.served import ENDPOINTS, endpoint_path

from turnout.control.api import events

FIRST = endpoint_path("app", "10.0.0.1:80")


class Follower:
    """A client that reads a stream."""

    def __init__(self, served, query: str = "", **headers: str) -> None:
        host = urlsplit(served.url)
        self.sock = socket.create_connection((host.hostname, host.port), timeout=20)
        fields = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
        self.sock.sendall(f"GET /v1/events{query} HTTP/1.1\r\nHost: {host.netloc}\r\n{fields}\r\n".encode())
        self.file = self.sock.makefile("rb")
        self.status = int(self.file.readline().split()[1])
        self.headers = {}
        while line := self.file.readline().strip():
            name, _, value = line.decode().partition(": ")
            self.headers[name.lower()] = value
        self.rest = b""

    def message(self) -> dict[str, str]:
        """The next one: field -> value; {} at the end of the stream. Comments are under ""."""
        while b"\n\n" not in self.rest:
            size = int(self.file.readline().strip() or b"0", 16)
            if not size:
                return {}
            self.rest += self.file.read(size)
            self.file.readline()
        text, _, self.rest = self.rest.partition(b"\n\n")
        return dict(line.split(": ", 1) for line in text.decode().split("\n"))

    def event(self) -> dict:
        """The next one with data."""
        while message := self.message():
            if "data" in message:
                return {"id": message.get("id"), "event": message["event"], **json.loads(message["data"])}
        return {}

    def close(self) -> None:
        self.file.close()
        self.sock.close()


@pytest.fixture
def follow(served):
    followers = []

    def start(query: str = "", **headers: str) -> Follower:
        followers.append(Follower(served, query, **headers))
        return followers[-1]

    yield start
    for follower in followers:
        follower.close()


def test_what_happens_is_told_with_its_revision_as_id(served, follow):
    stream = follow()
    answer = served.call("PATCH", FIRST, {"weight": 9})
    event = stream.event()

    assert stream.headers["content-type"] == "text/event-stream"
    assert (event["kind"], event["event"], event["service"], event["address"]) == (
        "endpoint.weight",
        "endpoint.weight",
        "app",
        "10.0.0.1:80",
    )
    assert event["id"] == str(event["revision"]) == str(answer.body["revision"])


@pytest.mark.parametrize(
    ("query", "told"),
    [
        ("?service=plain", ["plain"]),
        ("?kind=endpoint.weight", ["app", "plain"]),
        ("?kind=endpoint", ["app", "plain"]),
        ("?namespace=trading", ["trading:orders"]),
    ],
)
def test_a_client_is_told_what_it_asked_for(served, follow, query, told):
    stream = follow(query)
    served.call("PATCH", FIRST, {"weight": 9})
    served.call("PATCH", endpoint_path("plain", "10.0.0.3:80"), {"weight": 9})
    served.call("PUT", "/v1/services/trading:orders", {})

    assert [stream.event()["service"] for _ in told] == told


def test_who_comes_back_has_missed_nothing_also_over_a_restart(served, follow):
    stream = follow()
    served.call("PATCH", FIRST, {"weight": 1})
    seen = stream.event()["id"]
    served.call("PATCH", FIRST, {"weight": 2})
    served.stop_serving()
    assert stream.event()["data"]["weight"] == 2
    assert stream.event() == {}  # the end of the stream
    served.start()
    served.call("PATCH", FIRST, {"weight": 3})

    for again in (follow(Last_Event_ID=seen), follow(f"?from={seen}")):
        weights = [again.event() for _ in range(2)]
        assert [event["data"]["weight"] for event in weights] == [2, 3]


def test_what_is_kept_no_longer_cannot_be_followed(served):
    served.plane.events._dropped_to = 50
    answer = served.get("/v1/events?from=10")

    assert (answer.status, "50" in answer.body["detail"]) == (410, True)


@pytest.mark.parametrize("value", ["x", "-1", "1" * 20])
def test_an_id_that_is_none_is_refused(served, value):
    assert served.get("/v1/events", Last_Event_ID=value).status == 400


def test_a_quiet_stream_shows_that_it_lives(served, follow, monkeypatch):
    monkeypatch.setattr(events, "KEEP_ALIVE_S", 0.01)
    stream = follow("?service=plain")
    stream.message()  # how it begins
    assert stream.message() == {"": "still here"}
    revision = served.call("PATCH", FIRST, {"weight": 9}).body["revision"]
    while (message := stream.message()) == {"": "still here"}:
        pass

    assert message == {"id": str(revision)}  # it need not look through what it did not want again


def test_a_client_that_takes_nothing_is_dropped(served, follow, monkeypatch):
    monkeypatch.setattr(events, "STALL_S", 0.05)
    follow()
    data = {"text": "x" * 60_000}

    async def flood() -> None:
        for _ in range(400):
            served.plane.events.publish("config.refused", by="test", data=data)

    served.do(flood())
    served.do(gone(served))


async def gone(served) -> None:
    api = served.plane._running[-1]
    while api.streams:
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("bound", ["STREAMS_MAX", "STREAMS_EACH"])
def test_only_so_many_may_follow(served, follow, monkeypatch, bound):
    monkeypatch.setattr(events, bound, 1)
    follow().message()

    assert served.get("/v1/events").status == 503


def test_a_page_of_events_is_json(served):
    for weight in range(5):
        served.call("PATCH", FIRST, {"weight": weight + 10})
    served.call("POST", ENDPOINTS, {"address": "10.7.0.1:80"})
    first = served.get("/v1/events?follow=false&from=0&limit=2&kind=endpoint.weight").body
    rest = served.get(f"/v1/events?follow=false&from={first['next']}&kind=endpoint.weight").body

    assert [event["data"]["weight"] for event in first["items"] + rest["items"]] == [10, 11, 12, 13, 14]
    newest = served.get("/v1/events?follow=false&limit=1").body["items"]
    assert [event["kind"] for event in newest] == ["endpoint.registered"]
