"""Services of the stand-in, with what is registered beside them."""

import pytest
from fakes.served import ENDPOINTS, REGISTERED, endpoint_path


@pytest.fixture
def registered(served):
    """An endpoint of app that came through the API, with a lease."""
    body = {"address": REGISTERED, "version": "v2", "tags": ["new"], "lease_ttl": 60}
    answer = served.call("POST", ENDPOINTS, body)
    assert answer.status == 201, answer.raw
    return endpoint_path("app", REGISTERED)
