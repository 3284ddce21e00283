"""What happens."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from typing import Annotated

import typer
from rich.text import Text

from turnout.control.client.shapes import Event
from turnout.control.commands import completion, moments, output, tables
from turnout.control.commands.options import PANEL, Json, Url, connect

app = typer.Typer(rich_markup_mode="rich")

BAD = ("expired", "refused", "failed", "ended", "collapse")
GOOD = ("registered", "applied", "started", "recovered")


@app.command(rich_help_panel=PANEL)
def events(
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on with those to come, until Ctrl-C.")
    ] = False,
    since: Annotated[
        int | None, typer.Option(metavar="REVISION", min=0, help="Those after it; else the newest.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="At most so many of the past.")] = 20,
    service: Annotated[
        str | None, typer.Option(help="Only those of this service.", autocompletion=completion.services)
    ] = None,
    kind: Annotated[
        str | None, typer.Option(help='Only those of this kind: "endpoint.health", "endpoint", "config".')
    ] = None,
    as_json: Json = False,
    api: Url = None,
) -> None:
    """What has happened: endpoints that came and went, health, shares, configurations. JSON: a line each."""
    running = connect(api)
    filters = {"service": service, "kind": kind}
    with contextlib.suppress(KeyboardInterrupt):
        if follow and since is not None:
            tell(running.events(since, **filters), as_json)
        past = running.past_events(since, limit=limit, **filters)
        tell(past, as_json)
        if follow:
            tell(running.events(past[-1]["revision"] if past else None, **filters), as_json)


def tell(events: Iterable[Event], as_json: bool) -> None:
    console = output.console()
    for event in events:
        if as_json:
            output.line(event)
        else:
            console.print(text(event), soft_wrap=True)


def text(event: Event) -> Text:
    """One line of it."""
    last = event["kind"].rpartition(".")[2]
    style = "red" if last in BAD else "green" if last in GOOD else ""
    out = Text(f"{event['revision']:>6}  ", style="dim")
    out.append(f"{moments.of_day(event['time'])}  ")
    out.append(f"{event['kind']:<22}", style=style)
    about = "/".join(filter(None, (event["service"], event["address"])))
    if about:
        out.append(f"  {about}", style="bold")
    data = {name: value for name, value in event["data"].items() if name != "before"}
    if data.get("until"):
        data["until"] = moments.of_day(data["until"])
    said = tables.changes(event["data"].get("before"), data)
    if said:
        out.append(f"  {said}")
    if event["by"]:
        out.append(f"  by {event['by']}", style="dim")
    return out
