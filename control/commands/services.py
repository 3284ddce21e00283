"""Services and their splits."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from turnout.control.client import Client
from turnout.control.commands import completion, output, tables
from turnout.control.commands.options import PANEL, Json, ServiceName, Url, connect
from turnout.control.commands.target import find, parse_shares
from turnout.control.outcome import Exit, complain

app = typer.Typer(rich_markup_mode="rich")


@app.command(rich_help_panel=PANEL)
def services(
    namespace: Annotated[str | None, typer.Option(help="Only those of this namespace.")] = None,
    as_json: Json = False,
    api: Url = None,
) -> None:
    """Services, one line each."""
    rows = rows_of(connect(api), namespace)
    output.show(as_json, rows, tables.services(rows))


def rows_of(running: Client, namespace: str | None) -> list[dict[str, Any]]:
    """What is registered, with what goes on there."""
    registered = {row["name"]: row for row in running.services(namespace=namespace)}
    live = {row["name"]: row for row in running.status()["services"]}
    return [{**row, **live[name]} for name, row in registered.items() if name in live]


@app.command(rich_help_panel=PANEL)
def split(
    service: ServiceName,
    shares: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="VERSION=SHARE...",
            help="Like v1=90 v2=10; a version left out gets 0.",
            autocompletion=completion.shares,
        ),
    ] = None,
    as_json: Json = False,
    api: Url = None,
) -> None:
    """Give the versions of a service shares of its new sessions; without shares: show them."""
    running = connect(api)
    if shares:
        now = running.split(service, parse_shares(shares))
    else:
        now = {row["version"]: row["share"] for row in find(running.status(), service)["split"]}
        if not now:
            complain(f'service "{service}" has no split; give it one in the file')
            raise typer.Exit(Exit.FAILED)
    output.show(as_json, now, tables.shares(now))
