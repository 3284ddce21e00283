"""The life of a running proxy: its status, reload, stop, upgrade."""

from __future__ import annotations

import contextlib
import time
from typing import Annotated, NoReturn

import typer
from rich.live import Live

from turnout.control.client import Client, NobodyAnswersError
from turnout.control.commands import output, tables
from turnout.control.commands.options import PANEL, Interval, Json, Url, connect

POLL_S = 0.1

app = typer.Typer(rich_markup_mode="rich")


@app.command(rich_help_panel=PANEL)
def status(
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Go on until Ctrl-C.")] = False,
    interval: Interval = 1.0,
    as_json: Json = False,
    api: Url = None,
) -> None:
    """Workers, listeners, services, endpoints: state, requests, errors, times. Rates: of the last seconds."""
    running = connect(api)
    if watch:
        with contextlib.suppress(KeyboardInterrupt):
            keep_showing(running, interval, as_json)
    else:
        now = running.status()
        output.show(as_json, now, tables.of_status(now))


def keep_showing(running: Client, interval: float, as_json: bool) -> NoReturn:
    """As JSON: a line for each look."""
    if as_json:
        while True:
            output.line(running.status())
            time.sleep(interval)
    with Live(tables.of_status(running.status()), console=output.console(), auto_refresh=False) as live:
        while True:
            time.sleep(interval)
            live.update(tables.of_status(running.status()), refresh=True)


@app.command(rich_help_panel=PANEL)
def reload(api: Url = None) -> None:
    """Read the file again; returns when every worker has it. One that does not validate changes nothing."""
    typer.echo(f"configuration {connect(api).reload()} is in force")


@app.command(rich_help_panel=PANEL)
def stop(
    now: Annotated[bool, typer.Option("--now", help="Do not wait for requests under way.")] = False,
    wait: Annotated[bool, typer.Option(help="Return when the proxy is gone.")] = True,
    api: Url = None,
) -> None:
    r"""Stop the proxy: requests under way have \[proxy] grace to end."""
    running = connect(api)
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
    typer.echo(f"the new program has taken over, pid {connect(api).upgrade()}")
