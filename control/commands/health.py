"""What checks say, and heartbeats."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Group

from turnout.control.client.shapes import Beat
from turnout.control.commands import output, tables
from turnout.control.commands.options import PANEL, Endpoint, Json, Url, connect
from turnout.control.commands.target import Target

app = typer.Typer(rich_markup_mode="rich")


@app.command(rich_help_panel=PANEL)
def health(
    endpoint: Endpoint,
    say: Annotated[
        Beat | None,
        typer.Option(help="In the endpoint's name, where the check is a ttl: pass, warn or fail."),
    ] = None,
    note: Annotated[str, typer.Option(metavar="TEXT", help="Why, with --say.")] = "",
    as_json: Json = False,
    api: Url = None,
) -> None:
    """How an endpoint is, since when and why, and how it was."""
    if note and say is None:
        raise typer.BadParameter("--note goes with --say")
    running = connect(api)
    target = Target.parse(endpoint, running.status())
    row = (
        running.health(target.service, target.address)
        if say is None
        else running.heartbeat(target.service, target.address, say, note)
    )
    output.show(as_json, row, Group(tables.health_line(row), tables.health_turns(row["history"])))
