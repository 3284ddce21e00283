"""Tokens for the API."""

from __future__ import annotations

import json
from typing import Annotated, Literal

import typer

from turnout.control.commands import moments, output, tables
from turnout.control.commands.options import Json, Url, connect
from turnout.control.outcome import complain

app = typer.Typer(
    name="token", no_args_is_help=True, rich_markup_mode="rich", help="Tokens: who may use the API."
)


@app.command()
def create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Whose it is; it stands in the audit log.")],
    role: Annotated[
        Literal["viewer", "operator", "deployer", "admin"], typer.Option(help="What it allows.")
    ] = "viewer",
    namespace: Annotated[
        list[str] | None,
        typer.Option(help='Where it holds, like "trading" or "team-*"; several times. Without: everywhere.'),
    ] = None,
    ttl: Annotated[
        str | None,
        typer.Option(metavar="DURATION", help='How long it is valid: "30d". Without: until revoked.'),
    ] = None,
    as_json: Json = False,
    api: Url = None,
) -> None:
    """Make a token. It is printed this once; the proxy keeps no copy."""
    made = connect(api).create_token(
        name, role, namespaces=namespace or ["*"], ttl_s=None if ttl is None else moments.seconds(ttl)
    )
    if as_json:
        typer.echo(json.dumps(made, indent=2))
        return
    complain(
        f"{made['name']} is {made['role']} in {', '.join(made['namespaces'])}, id {made['id']}. The token:"
    )
    typer.echo(made["token"])


@app.command("list")
def list_(as_json: Json = False, api: Url = None) -> None:
    """Tokens, those that are no longer valid included."""
    rows = connect(api).tokens()
    output.show(as_json, rows, tables.tokens(rows))


@app.command()
def revoke(
    token: Annotated[str, typer.Argument(metavar="ID", help="As in the list.")], api: Url = None
) -> None:
    """Take a token back: it opens nothing from then on."""
    gone = connect(api).revoke_token(token)
    typer.echo(f"{gone['name']} ({gone['id']}) is revoked")
