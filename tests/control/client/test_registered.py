"""A registration that is kept alive."""

import pytest

from turnout.control.client import NotFoundError

from .conftest import Answer

REGISTER = "POST /v1/services/orders/endpoints"
ENDPOINT = "/v1/services/orders/endpoints/10.0.0.1%3A80"
LOOK = f"GET {ENDPOINT}"
RENEW, DEREGISTER, CHANGE = f"PUT {ENDPOINT}/lease", f"DELETE {ENDPOINT}", f"PATCH {ENDPOINT}"
GONE = Answer({"detail": "there is no such lease"}, 404)
RENEWED = Answer({"expires": 1.0})
DOWN = Answer({"detail": "not now"}, 503)


@pytest.fixture
def api(api):
    api.answer |= {REGISTER: Answer({}), RENEW: RENEWED, DEREGISTER: Answer({}), CHANGE: Answer({})}
    return api


def enter(client, **options):
    return client.registered("orders", "10.0.0.1:80", **({"ttl": 0.03, "version": "v2"} | options))


def test_an_endpoint_is_registered_renewed_and_deregistered(client, api):
    with enter(client):
        assert api.asked()[0] == REGISTER
        api.until(lambda: len(api.asked(RENEW)) >= 3)

    assert api.came[0].json == {"address": "10.0.0.1:80", "lease_ttl": 0.03, "version": "v2"}
    assert api.asked()[-1] == DEREGISTER
    assert api.asked(REGISTER) == [REGISTER]


def test_a_lease_that_was_lost_is_taken_anew_at_once(client, api):
    api.answer[RENEW] = [GONE, RENEWED]
    with enter(client, ttl=3) as kept:
        api.until(lambda: len(api.asked(REGISTER)) == 2)
        api.until(lambda: len(api.asked(RENEW)) == 2)

    assert kept.error is None
    assert api.came[0].json == api.came[2].json


def test_a_renewal_that_fails_is_tried_again_and_the_reason_can_be_asked_for(client, api):
    api.answer[RENEW] = DOWN
    with enter(client) as kept:
        api.until(lambda: len(api.asked(RENEW)) >= 2)
        assert "not now" in str(kept.error)
        api.answer[RENEW] = RENEWED
        before = len(api.asked(RENEW))
        api.until(lambda: len(api.asked(RENEW)) >= before + 2)
        assert kept.error is None


def test_a_registration_that_is_refused_begins_nothing(client, api):
    api.answer[REGISTER] = Answer({"detail": "no such service"}, 404)
    with pytest.raises(NotFoundError, match="no such service"), enter(client):
        raise AssertionError("entered")

    assert api.asked() == [REGISTER]


def test_what_happens_inside_is_not_hidden_by_an_end_that_fails(client, api):
    api.answer[DEREGISTER] = DOWN
    with pytest.raises(ZeroDivisionError), enter(client):
        raise ZeroDivisionError


def test_nothing_is_renewed_after_the_end(client, api):
    with enter(client):
        api.until(lambda: api.asked(RENEW))
    asked = api.asked()
    client.renew("orders", "10.0.0.1:80")

    assert api.asked() == [*asked, RENEW]


def test_requests_under_way_end_before_the_endpoint_is_deregistered(client, api):
    api.answer[LOOK] = [Answer({"in_flight": number}) for number in (2, 1, 0)]
    with enter(client, ttl=60, drain=30):
        pass

    assert api.asked() == [REGISTER, CHANGE, *[LOOK] * 3, DEREGISTER]
    assert api.came[1].json["admin"] == "maint"
