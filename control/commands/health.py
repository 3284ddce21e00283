"""What checks say, and heartbeats."""

from __future__ import annotations

import time
from typing import Annotated, Any

import typer
from rich.console import Group

from turnout.control.client.shapes import Beat
from turnout.control.commands import completion, output, tables
from turnout.control.commands.options import PANEL, Json, Url, connect
from turnout.control.commands.target import Target

app = typer.Typer(rich_markup_mode="rich")


@app.command(rich_help_panel=PANEL)
def health(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="[SERVICE[/ENDPOINT]]",
            help="One, those of a service, or without it all.",
            show_default=False,
            autocompletion=completion.endpoints,
        ),
    ] = None,
    say: Annotated[
        Beat | None,
        typer.Option(help="In the endpoint's name, where the check is a ttl: pass, warn or fail."),
    ] = None,
    note: Annotated[str, typer.Option(metavar="TEXT", help="Why, with --say.")] = "",
    as_json: Json = False,
    api: Url = None,
) -> None:
    """How endpoints are, since when and why; of one also how it was."""
    if note and say is None:
        raise typer.BadParameter("--note goes with --say")
    if say is not None and name is None:
        raise typer.BadParameter("--say is for one endpoint; name it")
    running = connect(api)
    status = running.status()
    several = None if say is not None else of_several(status, name)
    if several is not None:
        rows = [row for service in several for row in running.healths(service)]
        output.show(as_json, rows, tables.checks(rows, time.time()))
        return
    target = Target.parse(name or "", status)
    row = (
        running.health(target.service, target.address)
        if say is None
        else running.heartbeat(target.service, target.address, say, note)
    )
    output.show(as_json, row, Group(tables.health_line(row), tables.health_turns(row["history"])))


def of_several(status: Any, name: str | None) -> list[str] | None:
    """Names of all services, or the one; None when `name` is no service's."""
    if name is not None and all(row["name"] != name for row in status["services"]):
        return None
    return [row["name"] for row in status["services"] if name in {None, row["name"]}]
