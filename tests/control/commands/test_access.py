"""Tokens and the audit log from the command line, and what happens without a token."""

import json

import pytest
from fakes.served import Served
from sqlalchemy import update

from turnout.control.client import shapes
from turnout.control.storage import schema


@pytest.fixture
def guarded(supervisor):
    """An API that wants a token."""
    out = Served(supervisor, auth="tokens")
    yield out
    out.stop()


def test_a_token_is_made_listed_and_revoked(call):
    code, token, err = call(
        "token", "create", "ci", "--role", "operator", "--namespace", "trading", "--ttl", "1d"
    )
    assert (code, token.startswith("tnt_"), token.count("\n")) == (0, True, 1)
    assert "ci is operator in trading" in err

    (row,) = json.loads(call("token", "list", "--json")[1])
    assert set(row) == set(shapes.Token.__annotations__)
    assert (row["name"], row["role"], row["namespaces"], row["state"]) == (
        "ci",
        "operator",
        ["trading"],
        "valid",
    )
    assert token.strip() not in json.dumps(row)

    assert call("token", "revoke", row["id"]) == (0, f"ci ({row['id']}) is revoked\n", "")
    assert "revoked" in call("token", "list")[1]


def test_a_token_opens_the_api_from_the_environment_and_from_a_file(turnout, guarded, monkeypatch, tmp_path):
    token = guarded.make_token("viewer")
    (tmp_path / "token").write_text(f"{token}\n")

    assert turnout("--token-file", tmp_path / "token", "services", "--api", guarded.url)[0] == 0
    monkeypatch.setenv("TURNOUT_TOKEN", token)
    assert turnout("services", "--api", guarded.url)[0] == 0


def test_without_a_token_or_without_the_role_it_exits_5_and_says_so(turnout, guarded, monkeypatch):
    monkeypatch.delenv("TURNOUT_TOKEN", raising=False)
    code, _, err = turnout("services", "--api", guarded.url)
    assert (code, "token" in err, err.count("\n")) == (5, True, 1)

    monkeypatch.setenv("TURNOUT_TOKEN", guarded.make_token("viewer"))
    code, _, err = turnout("drain", "plain/10.0.0.3:80", "--api", guarded.url)
    assert (code, "viewer" in err, "operator" in err) == (5, True, True)


def test_a_token_file_that_is_not_there_is_a_usage_error(turnout, guarded):
    code, _, err = turnout("--token-file", "/nowhere", "services", "--api", guarded.url)

    assert (code, "/nowhere" in err) == (2, True)


def test_the_audit_log_says_who_did_what_and_is_verified(call):
    call("weight", "plain/10.0.0.3:80", 7)
    call("weight", "plain/10.0.0.3:80", 8)
    rows = json.loads(call("audit", "list", "--json", "--action", "endpoint.change")[1])
    shown = call("audit", "list", "--limit", 1)[1]

    assert [row["n"] for row in rows] == [1, 2]
    assert set(rows[0]) == set(shapes.AuditEntry.__annotations__)
    assert "weight 7 → 8" in shown
    assert "weight 1 → 7" not in shown
    code, out, _ = call("audit", "verify")
    assert (code, out) == (0, f"ok: 2 entries are as they were written; number 2 has {rows[1]['hash']}\n")


async def tamper(store) -> None:
    async with store.change() as change:
        await change.execute(
            update(schema.audit).where(schema.audit.c.n == 1).values(subject="somebody/else")
        )


def test_a_log_that_was_tampered_with_exits_1_and_names_the_entry(call, served):
    call("weight", "plain/10.0.0.3:80", 7)
    call("weight", "plain/10.0.0.3:80", 8)
    served.do(tamper(served.plane.store))
    code, out, err = call("audit", "verify")

    assert (code, out) == (1, "")
    assert "entry 1" in err
    assert json.loads(call("audit", "verify", "--json")[1])["ok"] is False
