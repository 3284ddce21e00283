"""The stream of events, through breaks."""

import itertools
import json

import pytest

from turnout.control.client import GoneError, NobodyAnswersError

from .conftest import Answer


def event(revision: int) -> bytes:
    data = {"revision": revision, "time": 1.5, "kind": "split.changed", "service": "a"}
    return f": comment\nid: {revision}\nevent: split.changed\ndata: {json.dumps(data)}\n\n".encode()


def stream(*parts: bytes) -> Answer:
    """Ends after these."""
    return Answer(b"".join(parts), headers={"Content-Type": "text/event-stream"})


def some(client, number: int, **options) -> list[int]:
    events = client.events(**options)
    out = [found["revision"] for found in itertools.islice(events, number)]
    events.close()
    return out


def test_events_come_in_their_order(client, api):
    api.answer["GET /v1/events"] = stream(event(1), event(2), event(3))

    assert some(client, 3) == [1, 2, 3]
    assert api.came[0].headers["Accept"] == "text/event-stream"
    assert "Last-Event-ID" not in api.came[0].headers


def test_a_break_is_bridged_and_a_half_event_is_void(client, api):
    def one_and_a_half(request):
        last = int(request.headers["Last-Event-ID"])
        return stream(event(last + 1), event(last + 2)[:-3])

    api.answer["GET /v1/events"] = one_and_a_half

    assert some(client, 3, since=0) == [1, 2, 3]
    assert [request.headers["Last-Event-ID"] for request in api.came] == ["0", "1", "2"]


def test_what_is_not_kept_any_more_is_an_error(client, api):
    api.answer["GET /v1/events"] = Answer({"detail": "events begin at 90"}, 410)
    with pytest.raises(GoneError, match="events begin at 90"):
        some(client, 1, since=3)


def test_a_stream_that_never_began_is_an_error(client_of):
    with pytest.raises(NobodyAnswersError):
        some(client_of("unix:/nowhere"), 1)
