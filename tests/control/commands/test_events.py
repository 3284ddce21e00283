"""What happened, from the command line."""

import json

import pytest

from turnout.control.client.shapes import Event


@pytest.fixture
def happened(call):
    call("split", "app", "v1=1", "v2=1")
    call("drain", "plain/10.0.0.3:80", "--reason", "new disk")
    call("register", "plain/10.0.0.9:80")


def events(call, *words) -> list[Event]:
    code, out, err = call("events", "--json", *words)
    assert code == 0, err
    found = [json.loads(line) for line in out.splitlines()]
    return [event for event in found if not event["kind"].startswith("config.")]  # of the start, at some time


def test_the_newest_events_are_listed_oldest_first(call, happened):
    assert [event["kind"] for event in events(call)] == [
        "split.changed",
        "endpoint.admin",
        "endpoint.registered",
    ]


def test_events_are_chosen_by_service_and_kind_and_from_a_revision_on(call, happened):
    first = events(call)[0]

    assert [event["kind"] for event in events(call, "--kind", "endpoint", "--limit", 1)] == [
        "endpoint.registered"
    ]
    assert [event["service"] for event in events(call, "--service", "app")] == ["app"]
    assert [event["kind"] for event in events(call, "--since", first["revision"])] == [
        "endpoint.admin",
        "endpoint.registered",
    ]


def test_an_event_is_one_line_in_words(call, happened):
    line = next(line for line in call("events")[1].splitlines() if "endpoint.admin" in line)

    assert "plain/10.0.0.3:80  admin ready → drain, reason new disk" in line


def test_what_a_shape_of_the_client_has_is_what_the_api_gives(call, happened):
    assert set(events(call)[0]) == set(Event.__annotations__)
