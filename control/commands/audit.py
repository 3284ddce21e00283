"""The audit log."""

from __future__ import annotations

import json
from typing import Annotated, Literal

import typer

from turnout.control.commands import output, tables
from turnout.control.commands.options import Json, Url, connect
from turnout.control.outcome import Exit, complain

app = typer.Typer(
    name="audit", no_args_is_help=True, rich_markup_mode="rich", help="The audit log: who did what."
)


@app.command("list")
def list_(
    limit: Annotated[int, typer.Option(min=1, max=1000, help="At most so many.")] = 50,
    after: Annotated[
        int | None,
        typer.Option(metavar="NUMBER", min=0, help="From behind that entry on; else the last ones."),
    ] = None,
    actor: Annotated[str | None, typer.Option(help="Only what this one did.")] = None,
    action: Annotated[str | None, typer.Option(help="Only this, like endpoint.change.")] = None,
    subject: Annotated[str | None, typer.Option(help="Only about this, like orders/10.0.0.1:8000.")] = None,
    result: Annotated[
        Literal["ok", "refused", "failed"] | None, typer.Option(help="Only with this result.")
    ] = None,
    as_json: Json = False,
    api: Url = None,
) -> None:
    """Changes and refused attempts, oldest first."""
    where = {"newest": "true"} if after is None else {"after": after}
    rows = connect(api).audit(
        limit=limit, actor=actor, action=action, subject=subject, result=result, **where
    )
    output.show(as_json, rows, tables.audit(rows))


@app.command()
def verify(as_json: Json = False, api: Url = None) -> None:
    """Whether the log is as it was written; exit code 1 when it is not."""
    verdict = connect(api).verify_audit()
    if as_json:
        typer.echo(json.dumps(verdict, indent=2))
    elif verdict["broken"] is None:
        head = verdict["head"]
        said = f"ok: {verdict['entries']} entries are as they were written"
        typer.echo(f"{said}; number {head['n']} has {head['hash']}")
    else:
        complain(f"entry {verdict['broken']['n']}: {verdict['broken']['why']}")
    if not verdict["ok"]:
        raise typer.Exit(Exit.FAILED)
