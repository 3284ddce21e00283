"""What is left out of settings that are shown."""

from turnout.control import hidden
from turnout.proxy.model import HeaderEdits, Service


def test_credentials_of_checks_and_keys_that_sign_are_left_out():
    service = Service.model_validate(
        {
            "endpoints": ["10.0.0.1:80"],
            "sticky": {"cookie": "s", "key": "k" * 16},
            "health": {
                "path": "/",
                "headers": {"Authorization": "Bearer x", "X-Api-Key": "y", "Accept": "z"},
            },
        }
    )

    assert hidden.service_settings(service) == {
        "sticky": {"cookie": "s"},
        "health": {"path": "/", "headers": {"Accept": "z"}},
    }


def test_a_service_without_either_is_shown_as_it_is():
    said = {"kind": "tcp", "split": None}

    assert hidden.service_settings(Service.model_validate(said)) == said


def test_credentials_that_a_route_adds_are_left_out():
    edits = HeaderEdits(set={"Authorization": "Basic x", "X-Team": "a"}, remove=("Cookie",))

    assert hidden.header_edits(edits) == {"set": {"X-Team": "a"}, "remove": ["Cookie"]}
