"""docs/access.md: what it says of roles, places and times is what the program does."""

import re
from pathlib import Path

import pytest

from turnout.control.access import anchor, audit, limiter, tokens
from turnout.control.access.actor import Actor
from turnout.control.access.roles import ACTIONS, ROLES, WHOLE, Role

TEXT = (Path(__file__).parents[2] / "docs" / "access.md").read_text()
READ_BY_NAME = {"status": "status", "health": "health"}


def rows() -> dict[str, str]:
    """Role -> what it may, as written."""
    part = TEXT.partition("## Roles")[2].partition("##")[0]
    return dict(re.findall(r"^\| `(\w+)` \| (.+) \|$", part, re.MULTILINE))


def test_the_roles_stand_in_their_order():
    assert tuple(rows()) == ROLES


@pytest.mark.parametrize(
    ("action", "word"),
    [
        *((action, action.partition(".")[0]) for action, role in ACTIONS.items() if role == Role.VIEWER),
        ("endpoint.register", "Register"),
        ("endpoint.renew", "renew"),
        ("endpoint.deregister", "deregister"),
        ("endpoint.change", "drain"),
        ("health.report", "report their health"),
        ("service.write", "Change services"),
        ("split.change", "splits"),
        ("config.read", "read, apply and rewind the configuration"),
        ("config.write", "apply"),
        ("config.rewind", "rewind"),
        ("proxy.reload", "reload"),
        ("proxy.stop", "Stop"),
        ("proxy.upgrade", "upgrade"),
        ("token.read", "tokens"),
        ("token.write", "make and revoke tokens"),
        ("audit.read", "read the audit log"),
    ],
)
def test_an_action_stands_with_the_role_that_it_needs(action, word):
    assert word in rows()[str(ACTIONS[action])]


def test_what_concerns_the_whole_proxy_is_named():
    (said,) = re.findall(r"the proxy as a whole \((.*?)\)", TEXT)

    for action in WHOLE:
        first, _, second = action.partition(".")
        assert (first if first != "proxy" else second) in said.replace("configuration", "config")


def test_the_refusal_that_is_shown_is_the_one_that_is_given():
    who = Actor("token", "ci", Role.VIEWER, ("trading",))

    assert f"\n{who.why_not('split.change', 'trading')}\n" in TEXT


def test_numbers_are_those_of_the_program():
    assert f"`{tokens.PREFIX}_<id>_<secret>`" in TEXT
    assert (limiter.BURST, 1 / limiter.PER_S) == (10, 5)
    assert "may fail ten times, then once in five seconds" in TEXT
    assert f"its /{limiter.V6_PREFIX}" in TEXT
    assert f"`{anchor.NAME}` follows the database by up to {audit.ANCHOR_S:g} s" in TEXT
    assert tokens.NOTE_S == 60
    assert "to the minute" in TEXT
