"""Tokens: what is kept of them, and when they open nothing."""

import re

import pytest

from turnout.control.access.roles import Role
from turnout.control.access.tokens import BadTokenError, NoTokenError, Tokens
from turnout.control.storage.schema import tokens as table

NOW = 1_800_000_000.0


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def with_tokens(with_store):
    """Run a coroutine function with tokens, their clock and their store."""

    def run(work):
        async def whole(store):
            clock = Clock()
            return await work(Tokens(store, clock), clock, store)

        return with_store(whole)

    return run


async def refusal(tokens: Tokens, text: str) -> str:
    with pytest.raises(BadTokenError) as refused:
        await tokens.check(text)
    return str(refused.value)


def test_a_token_is_recognised_with_its_role_and_namespaces(with_tokens):
    async def work(tokens, _clock, _store):
        made, text = await tokens.create(
            "ci", Role.DEPLOYER, namespaces=["trading", "team-*"], ttl_s=60, by="root"
        )
        found = await tokens.check(text)

        assert found.id == made.id
        assert (found.name, found.role, found.namespaces) == ("ci", Role.DEPLOYER, ("trading", "team-*"))
        assert (found.created, found.created_by, found.expires) == (NOW, "root", NOW + 60)

    with_tokens(work)


def test_the_secret_is_kept_nowhere(with_tokens):
    async def work(tokens, _clock, store):
        _, text = await tokens.create("ci", Role.VIEWER, by="root")
        assert re.fullmatch(r"tnt_[0-9a-f]{12}_[A-Za-z0-9]{43}", text)
        (row,) = await store.read(table.select())

        secret = text.split("_")[2]
        assert not any(secret in str(value) for value in row)

    with_tokens(work)


def test_a_token_with_one_character_changed_opens_nothing(with_tokens):
    async def work(tokens, _clock, _store):
        _, text = await tokens.create("ci", Role.VIEWER, by="root")
        last = "a" if text[-1] != "a" else "b"
        first = "0" if text[4] != "0" else "1"

        assert await refusal(tokens, text[:-1] + last) == "this token is not valid"
        assert await refusal(tokens, text[:4] + first + text[5:]) == "this token is not valid"

    with_tokens(work)


@pytest.mark.parametrize(
    "text", ["", "tnt", "tnt__", "Bearer x", "tnt_0_a", "tnt_" + "é" * 12 + "_" + "a" * 43]
)
def test_what_is_no_token_is_said_to_be_none(with_tokens, text):
    async def work(tokens, _clock, _store):
        assert await refusal(tokens, text) == "this is no token of Turnout; one begins with tnt_"

    with_tokens(work)


def test_a_token_ends_at_its_time(with_tokens):
    async def work(tokens, clock, _store):
        _, text = await tokens.create("ci", Role.VIEWER, ttl_s=60, by="root")
        clock.now = NOW + 59.9
        assert await tokens.check(text)
        clock.now = NOW + 60

        assert await refusal(tokens, text) == 'the token "ci" is expired since 2027-01-15 08:01:00 UTC'

    with_tokens(work)


def test_a_revoked_token_opens_nothing_whichever_process_revoked_it(with_tokens):
    async def work(tokens, clock, store):
        made, text = await tokens.create("ci", Role.VIEWER, by="root")
        assert await tokens.check(text)
        other = Tokens(store, clock)
        gone = await other.revoke(made.id, by="ann")

        assert (gone.revoked, gone.revoked_by) == (NOW, "ann")
        assert "is revoked since" in await refusal(tokens, text)

    with_tokens(work)


def test_revoking_again_changes_nothing(with_tokens):
    async def work(tokens, clock, _store):
        made, _ = await tokens.create("ci", Role.VIEWER, by="root")
        await tokens.revoke(made.id, by="ann")
        clock.now += 5

        again = await tokens.revoke(made.id, by="ben")
        assert (again.revoked, again.revoked_by) == (NOW, "ann")

    with_tokens(work)


def test_an_id_that_is_none_is_said(with_tokens):
    async def work(tokens, _clock, _store):
        for action in (tokens.revoke("nobody", by="ann"), tokens.get("nobody")):
            with pytest.raises(NoTokenError, match='no token has the id "nobody"'):
                await action

    with_tokens(work)


def test_the_list_says_which_are_valid_and_when_they_were_used(with_tokens):
    async def work(tokens, clock, _store):
        _, text = await tokens.create("used", Role.VIEWER, by="root")
        clock.now += 1
        revoked, _ = await tokens.create("revoked", Role.VIEWER, by="root")
        await tokens.create("expired", Role.VIEWER, ttl_s=1, by="root")
        await tokens.revoke(revoked.id, by="root")
        await tokens.check(text)
        clock.now += 2

        found = {token.name: (token.state(clock.now), token.last_used) for token in await tokens.list()}
        assert found == {
            "used": ("valid", NOW + 1),
            "revoked": ("revoked", None),
            "expired": ("expired", None),
        }

    with_tokens(work)


def test_the_last_use_is_written_down_at_the_end(with_tokens):
    async def work(tokens, clock, store):
        made, text = await tokens.create("ci", Role.VIEWER, by="root")
        await tokens.check(text)
        assert (await Tokens(store, clock).get(made.id)).last_used is None
        await tokens.close()

        assert (await Tokens(store, clock).get(made.id)).last_used == NOW

    with_tokens(work)


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"name": ""}, "is no name for a token"),
        ({"name": "a\nb"}, "is no name for a token"),
        ({"name": "taken"}, 'a valid token is named "taken" already'),
        ({"namespaces": []}, "no namespace"),
        ({"namespaces": ["a b"]}, '"a b" is no namespace'),
        ({"ttl_s": 0}, "never valid"),
    ],
)
def test_a_token_that_makes_no_sense_is_not_made(with_tokens, changed, why):
    async def work(tokens, _clock, _store):
        await tokens.create("taken", Role.VIEWER, by="root")
        with pytest.raises(ValueError, match=why):
            await tokens.create(**{"name": "ci", "role": Role.VIEWER, "by": "root", **changed})

        assert len(await tokens.list()) == 1

    with_tokens(work)


def test_a_name_is_free_again_once_its_token_is_revoked(with_tokens):
    async def work(tokens, _clock, _store):
        made, _ = await tokens.create("ci", Role.VIEWER, by="root")
        await tokens.revoke(made.id, by="root")

        assert (await tokens.create("ci", Role.VIEWER, by="root"))[0].id != made.id

    with_tokens(work)
