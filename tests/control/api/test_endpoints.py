"""Endpoints over the API: what may be registered, and under which name it is found then."""

import pytest
from fakes.served import endpoint_path

PLAIN = "/v1/services/plain/endpoints"


@pytest.mark.parametrize("address", ["unix:/run/docker.sock", "http://unix:/run/docker.sock"])
def test_no_unix_socket_can_be_registered_however_it_is_written(served, address):
    answer = served.call("POST", PLAIN, {"address": address})

    assert (answer.status, answer.body["type"]) == (422, "urn:turnout:problem:refused")
    assert "can only be named in the file" in answer.body["detail"]
    assert [row["address"] for row in served.get(PLAIN).body["items"]] == ["10.0.0.3:80"]


def test_an_address_with_a_scheme_is_found_without_it(served):
    first = served.call("POST", PLAIN, {"address": "http://10.9.9.9:80"})
    again = served.call("POST", PLAIN, {"address": "http://10.9.9.9:80"})

    place = endpoint_path("plain", "10.9.9.9:80")
    assert (first.status, first.headers["Location"], again.status) == (201, place, 200)
    assert served.get(place).status == 200
