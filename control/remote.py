"""The commands that talk to a running proxy."""

from __future__ import annotations

import contextlib
import json
import time
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console, RenderableType
from rich.live import Live

from turnout.control import view
from turnout.control.client import Api, NobodyAnswersError
from turnout.control.outcome import Exit, complain
from turnout.control.target import Target, find, parse_shares

PANEL = "A running proxy"
WIDTH = 160
"""Columns when the output is no terminal."""
POLL_S = 0.1

app = typer.Typer(rich_markup_mode="rich")

Url = Annotated[
    str | None,
    typer.Option(
        "--api",
        envvar="TURNOUT_API",
        help="unix:/path or http://host:port, as in \\[control]. One proxy that runs is found without.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Endpoint = Annotated[
    str,
    typer.Argument(
        metavar="SERVICE/ENDPOINT", help="An endpoint; without SERVICE/ if only one service has it."
    ),
]


def console() -> Console:
    out = Console(highlight=False)
    return out if out.is_terminal else Console(width=WIDTH, highlight=False)


def show(as_json: bool, rows: Any, table: RenderableType) -> None:
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
    else:
        console().print(table)


@app.command(rich_help_panel=PANEL)
def status(
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Go on until Ctrl-C.")] = False,
    interval: Annotated[float, typer.Option(min=0.1, help="Seconds between looks with --watch.")] = 1.0,
    as_json: Json = False,
    api: Url = None,
) -> None:
    """Workers, listeners, services, endpoints: state, requests, errors, times. Rates: of the last seconds."""
    running = Api(api)
    if watch:
        with contextlib.suppress(KeyboardInterrupt):
            keep_showing(running, interval, as_json)
    else:
        now = running.status()
        show(as_json, now, view.of_status(now))


def keep_showing(running: Api, interval: float, as_json: bool) -> NoReturn:
    """As JSON: a line for each look."""
    if as_json:
        while True:
            typer.echo(json.dumps(running.status()))
            time.sleep(interval)
    with Live(view.of_status(running.status()), console=console(), auto_refresh=False) as live:
        while True:
            time.sleep(interval)
            live.update(view.of_status(running.status()), refresh=True)


@app.command(rich_help_panel=PANEL)
def services(as_json: Json = False, api: Url = None) -> None:
    """Services, one line each."""
    rows = Api(api).status()["services"]
    show(as_json, rows, view.services(rows))


@app.command(rich_help_panel=PANEL)
def split(
    service: Annotated[str, typer.Argument(help="A service that has a split in the file.")],
    shares: Annotated[
        list[str] | None,
        typer.Argument(metavar="VERSION=SHARE...", help="Like v1=90 v2=10; a version left out gets 0."),
    ] = None,
    as_json: Json = False,
    api: Url = None,
) -> None:
    """Give the versions of a service shares of its new sessions; without shares: show them."""
    running = Api(api)
    if shares:
        now = running.split(service, parse_shares(shares))
    else:
        now = {row["version"]: row["share"] for row in find(running.status(), service)["split"]}
        if not now:
            complain(f'service "{service}" has no split; give it one in the file')
            raise typer.Exit(Exit.FAILED)
    show(as_json, now, view.shares(now))


def change(api: str | None, endpoint: str, as_json: bool, **what: Any) -> None:
    running = Api(api)
    target = Target.parse(endpoint, running.status())
    row = running.endpoint(target.service, target.address, what)
    show(as_json, row, view.endpoints([row]))


@app.command(rich_help_panel=PANEL)
def ready(endpoint: Endpoint, as_json: Json = False, api: Url = None) -> None:
    """Let an endpoint take new sessions."""
    change(api, endpoint, as_json, admin="ready")


@app.command(rich_help_panel=PANEL)
def drain(endpoint: Endpoint, as_json: Json = False, api: Url = None) -> None:
    """No new sessions for an endpoint; those bound to it go on."""
    change(api, endpoint, as_json, admin="drain")


@app.command(rich_help_panel=PANEL)
def maint(endpoint: Endpoint, as_json: Json = False, api: Url = None) -> None:
    """No request for an endpoint, bound sessions included; what is under way ends."""
    change(api, endpoint, as_json, admin="maint")


@app.command(rich_help_panel=PANEL)
def weight(
    endpoint: Endpoint,
    number: Annotated[int, typer.Argument(metavar="WEIGHT", min=0, max=65535, help="0: no new sessions.")],
    as_json: Json = False,
    api: Url = None,
) -> None:
    """Give an endpoint another weight."""
    change(api, endpoint, as_json, weight=number)


@app.command(rich_help_panel=PANEL)
def reload(api: Url = None) -> None:
    """Read the file again; returns when every worker has it. One that does not validate changes nothing."""
    typer.echo(f"configuration {Api(api).reload()} is in force")


@app.command(rich_help_panel=PANEL)
def stop(
    now: Annotated[bool, typer.Option("--now", help="Do not wait for requests under way.")] = False,
    wait: Annotated[bool, typer.Option(help="Return when the proxy is gone.")] = True,
    api: Url = None,
) -> None:
    r"""Stop the proxy: requests under way have \[proxy] grace to end."""
    running = Api(api)
    running.stop(now=now)
    while wait:
        try:
            running.status()
        except NobodyAnswersError:
            typer.echo("stopped")
            return
        time.sleep(POLL_S)
    typer.echo("stopping")


@app.command(rich_help_panel=PANEL)
def upgrade(api: Url = None) -> None:
    """Put the program that is installed now in the place of the running one; no request is lost."""
    typer.echo(f"the new program has taken over, pid {Api(api).upgrade()}")
