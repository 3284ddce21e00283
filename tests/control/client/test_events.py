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
    assert api.asked() == ["GET /v1/events"]


def test_a_break_is_bridged_and_a_half_event_is_void(client, api):
    def one_and_a_half(request):
        last = int(request.path.partition("from=")[2])
        return stream(event(last + 1), event(last + 2)[:-3])

    api.answer["GET /v1/events"] = one_and_a_half

    assert some(client, 3, since=0) == [1, 2, 3]
    assert api.asked() == [f"GET /v1/events?from={last}" for last in (0, 1, 2)]


def test_events_are_chosen_by_the_api(client, api):
    api.answer["GET /v1/events"] = stream(event(4))

    assert some(client, 1, service="a", kind="split") == [4]
    assert api.asked() == ["GET /v1/events?service=a&kind=split"]


def test_one_that_is_dropped_comes_back_for_the_rest(client, api):
    dropped = b'event: dropped\ndata: {"reason": "too slow"}\n\n'
    api.answer["GET /v1/events"] = [stream(event(1), dropped), stream(event(2))]

    assert some(client, 2) == [1, 2]


def test_what_is_not_kept_any_more_is_an_error(client, api):
    api.answer["GET /v1/events"] = Answer({"detail": "events begin at 90"}, 410)
    with pytest.raises(GoneError, match="events begin at 90"):
        some(client, 1, since=3)


def test_a_stream_that_never_began_is_an_error(client_of):
    with pytest.raises(NobodyAnswersError):
        some(client_of("unix:/nowhere"), 1)
