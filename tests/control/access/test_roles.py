"""Who may do what."""

import pytest

from turnout.control.access.actor import Actor
from turnout.control.access.errors import ForbiddenError
from turnout.control.access.gate import Gate
from turnout.control.access.namespaces import namespace_of
from turnout.control.access.roles import ACTIONS, ROLES, WHOLE, Role
from turnout.proxy.model import ControlClient


def actor(role: Role, *namespaces: str) -> Actor:
    return Actor("token", "ci", role, namespaces or ("*",), "10.0.0.9")


def refusal(who: Actor, action: str, namespace: str | None = None) -> str:
    with pytest.raises(ForbiddenError) as refused:
        Gate(None).allow(who, action, namespace)
    assert (refused.value.status, refused.value.actor) == (403, who)
    return refused.value.detail


@pytest.mark.parametrize("action", ACTIONS)
def test_a_role_may_do_what_needs_it_or_less(action):
    least = ACTIONS[action]

    assert [role for role in Role if actor(role).may(action, None)] == [
        role for role in Role if role >= least
    ]


def test_a_viewer_can_only_read():
    assert {action for action in ACTIONS if actor(Role.VIEWER).may(action, "default")} == {
        action for action in ACTIONS if action.endswith(".read") and action not in WHOLE
    }


@pytest.mark.parametrize(
    ("globs", "namespace", "sees"),
    [
        (["*"], "trading", True),
        (["trading"], "trading", True),
        (["trading"], "tradings", False),
        (["team-*"], "team-a", True),
        (["team-*"], "trading", False),
        (["a", "b"], "b", True),
        (["Trading"], "trading", False),
    ],
)
def test_a_namespace_is_his_by_name_or_pattern(globs, namespace, sees):
    who = actor(Role.OPERATOR, *globs)

    assert who.sees(namespace) is sees
    assert who.may("endpoint.register", namespace) is sees


def test_a_listing_is_for_everybody_who_reads_and_shows_what_he_sees():
    assert actor(Role.VIEWER, "trading").may("service.read", None)


@pytest.mark.parametrize("action", sorted(WHOLE))
def test_the_proxy_as_a_whole_is_for_those_with_every_namespace(action):
    assert actor(Role.ADMIN, "*").may(action, None)
    assert not actor(Role.ADMIN, "trading", "default", "?*").may(action, None)


def test_a_refusal_says_who_he_is_what_he_may_and_what_it_needs():
    assert refusal(actor(Role.VIEWER, "trading", "team-*"), "split.change", "trading") == (
        "you are token ci, viewer in trading, team-*; split.change needs deployer in trading"
    )
    assert refusal(actor(Role.DEPLOYER), "proxy.stop") == (
        'you are token ci, deployer; proxy.stop needs admin with the namespaces "*"'
    )


def test_an_action_that_is_none_is_a_defect_and_lets_nobody_in():
    with pytest.raises(KeyError):
        Gate(None).allow(actor(Role.ADMIN), "split.chnage", "default")


@pytest.mark.parametrize(
    ("service", "namespace"), [("orders", "default"), ("trading:orders", "trading"), ("default:a", "default")]
)
def test_the_namespace_stands_before_the_colon(service, namespace):
    assert namespace_of(service) == namespace


def test_roles_are_named_alike_everywhere():
    assert ROLES == ("viewer", "operator", "deployer", "admin")
    assert [Role.named(word) for word in ROLES] == list(Role)
    for word in ROLES:
        assert ControlClient(role=word).role == word
    with pytest.raises(ValueError, match='"root" is no role; there are viewer, operator, deployer, admin'):
        Role.named("root")
