"""Every route of the API for every role: let in or refused, and what that leaves in the audit log."""

import asyncio
import socket
from dataclasses import replace
from types import SimpleNamespace

import aiohttp
import pytest
from fakes.supervisor import StandIn

from turnout.control.access.gate import Gate
from turnout.control.access.limiter import Limiter
from turnout.control.access.roles import ACTIONS, WHOLE, Role
from turnout.control.access.tokens import BadTokenError, Token
from turnout.control.api.app import Api
from turnout.control.api.call import Reply
from turnout.control.api.routes import JSON as API_JSON
from turnout.control.api.routes import NoQuery, Route
from turnout.control.api.table import ROUTES

PLACES = {"service": "trading:orders", "address": "10.0.0.1:80", "token": "1", "version": "1"}
NAMESPACES = (("*",), ("trading",), ("other",))
GATED = [route for route in ROUTES if route.action is not None]
OPEN = [route for route in ROUTES if route.action is None]
JSON = {"Content-Type": "application/json"}


class Tokens:
    """A token is what it says: role and namespaces."""

    async def check(self, text: str) -> Token:
        role, _, globs = text.partition("@")
        if not globs:
            raise BadTokenError("this token is not valid")
        return Token("1", text, Role.named(role), tuple(globs.split(",")), 0, "", None, None, None, None)


class Audit:
    def __init__(self) -> None:
        self.entries: list[tuple[str, str]] = []

    async def record(self, actor, action, subject, *, result="ok", **_more) -> int:
        self.entries.append((action, result))
        return len(self.entries)


async def done(_call) -> Reply:
    return Reply(b"done")


def idle(route: Route) -> Route:
    """The same route, doing nothing."""
    return replace(
        route,
        handler=done,
        input=None,
        consumes=API_JSON,
        output=None,
        query=NoQuery,
        conditional=False,
        replayed=False,
        produces="text/plain",
        status=200,
    )


@pytest.fixture(scope="module")
def answers() -> dict[tuple[str, str], tuple[int, list[tuple[str, str]]]]:
    """(route, token) -> status, what is in the audit log afterwards."""

    async def whole():
        supervisor, audit = StandIn(), Audit()
        parts = SimpleNamespace(
            supervisor=supervisor,
            gate=Gate(Tokens(), limiter=Limiter(burst=10_000)),
            audit=audit,
            prober=SimpleNamespace(state=lambda _service, _address: None),
            **dict.fromkeys(("store", "events", "registry", "tokens", "history")),
        )
        api = Api(parts, routes=map(idle, ROUTES))
        sock = socket.create_server(("127.0.0.1", 0))
        base = f"http://127.0.0.1:{sock.getsockname()[1]}"
        out = {}
        await api.start(sock)
        async with aiohttp.ClientSession() as session:
            for route in ROUTES:
                for token in ("", "wrong", *everybody()):
                    audit.entries = []
                    headers = JSON | ({"Authorization": f"Bearer {token}"} if token else {})
                    url = base + route.path.format(**PLACES)
                    async with session.request(route.method, url, headers=headers) as answer:
                        out[route.key, token] = answer.status, audit.entries
        await api.close()
        supervisor.close()
        return out

    return asyncio.run(whole())


def everybody() -> list[str]:
    return [f"{role}@{','.join(globs)}" for role in Role for globs in NAMESPACES]


def allowed(route: Route, role: Role, globs: tuple[str, ...]) -> bool:
    if role < ACTIONS[route.action]:
        return False
    if route.action in WHOLE:
        return globs == ("*",)
    return "service" not in route.parameters or globs != ("other",)


@pytest.mark.parametrize("route", GATED, ids=lambda route: route.key)
def test_a_route_is_for_the_roles_and_namespaces_that_its_action_names(answers, route):
    for role in Role:
        for globs in NAMESPACES:
            status, entries = answers[route.key, f"{role}@{','.join(globs)}"]
            if allowed(route, role, globs):
                assert status == 200, (role, globs)
                assert [result for _, result in entries] == ["ok"] * route.is_audited
            else:
                assert (status, entries) == (403, [(route.action, "refused")]), (role, globs)


@pytest.mark.parametrize("route", GATED, ids=lambda route: route.key)
@pytest.mark.parametrize("token", ["", "wrong"])
def test_nobody_gets_through_and_is_recorded(answers, route, token):
    assert answers[route.key, token] == (401, [(route.action, "refused")])


@pytest.mark.parametrize(
    "route", [route for route in ROUTES if route.action is None], ids=lambda route: route.key
)
def test_what_is_open_to_all_changes_nothing_and_needs_nothing(answers, route):
    assert (route.method, route.path.startswith("/v1/")) == ("GET", False)
    assert answers[route.key, ""] == (200, [])


def test_every_action_of_a_route_has_its_role_and_changes_need_more_than_a_viewer():
    for route in GATED:
        assert ACTIONS[route.action] > Role.VIEWER or not route.changes
