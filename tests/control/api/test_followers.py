"""Who may follow events, from where, and for how long."""

import http.client
import socket
from urllib.parse import urlsplit

import pytest
from fakes.served import Served

from turnout.control.api import events
from turnout.control.events.events import Events
from turnout.control.plane import Plane
from turnout.control.storage.store import Store, store_url


@pytest.fixture
def guarded(supervisor):
    out = Served(supervisor, auth="tokens")
    yield out
    out.stop()


def test_what_is_said_of_the_configuration_is_for_those_who_may_read_it(guarded):
    async def happen():
        guarded.plane.events.publish("config.refused", by="file", data={"problems": ['key = "s3cret"']})
        await guarded.plane.events._write()

    guarded.do(happen())
    seen = {}
    for role in ("viewer", "deployer"):
        guarded.token = guarded.make_token(role)
        seen[role] = b"s3cret" in guarded.get("/v1/events?follow=false").raw

    assert seen == {"viewer": False, "deployer": True}


def test_a_stream_ends_when_its_token_is_revoked(guarded, monkeypatch):
    monkeypatch.setattr(events, "KEEP_ALIVE_S", 0.05)
    text = guarded.make_token("viewer")
    to = http.client.HTTPConnection(urlsplit(guarded.url).netloc, timeout=10)
    to.request("GET", "/v1/events", headers={"Authorization": f"Bearer {text}"})
    stream = to.getresponse()
    assert stream.readline().startswith(b"retry:")

    guarded.do(guarded.plane.tokens.revoke(text.split("_")[1], by="test"))

    rest = stream.read()
    to.close()
    assert b"event: dropped\n" in rest
    assert b"revoked" in rest


def test_a_revision_that_is_yet_to_come_cannot_be_followed(served):
    answer = served.get("/v1/events", Last_Event_ID="1000000")

    assert answer.status == 410


def test_what_a_former_program_did_until_this_one_took_over_can_be_followed(served):
    served.stop_serving()

    async def start():
        plane = served.plane = Plane(served.supervisor)
        served.supervisor.control = plane
        await plane.prepare(served.supervisor.file_config)
        served.supervisor.config = plane.merge(served.supervisor.file_config)
        former = await Store.open(store_url("sqlite", served.supervisor.directory))
        theirs = Events(former)
        async with former.change() as change:
            await theirs.add(change, "late", by="former")
        await former.close()
        await plane.start(socket.create_server(("127.0.0.1", 0)))
        return [event.kind for event in plane.events.recent()]

    assert "late" in served.do(start())
