"""`turnout`: all commands, and the way out for them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from turnout import __version__
from turnout.control.client import Tls
from turnout.control.commands import (
    audit,
    completion,
    config,
    endpoints,
    events,
    files,
    health,
    options,
    process,
    services,
    token,
    top,
)
from turnout.control.outcome import failure

app = typer.Typer(
    name="turnout",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Reverse proxy and load balancer with progressive delivery inside the proxy.",
    epilog="Exit codes: 0 ok, 1 failed, 2 bad configuration or usage, 3 requests were cut off at the end of "
    "a drain, 4 nobody answers at the API, 5 not allowed.",
)
for module in (files, process, services, endpoints, health, events, top):
    app.add_typer(module.app)
for module in (config, token, audit):
    app.add_typer(module.app, rich_help_panel=options.PANEL)

TLS_PANEL = "For https:// and tokens (TURNOUT_TOKEN)"


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"turnout {__version__}")
        raise typer.Exit


@app.callback()
def _turnout(
    ca: Annotated[
        str | None,
        typer.Option(
            envvar="TURNOUT_CA",
            metavar="FILE",
            rich_help_panel=TLS_PANEL,
            help="CAs to trust; else those of the machine.",
        ),
    ] = None,
    cert: Annotated[
        str | None,
        typer.Option(
            envvar="TURNOUT_CERT", metavar="FILE", rich_help_panel=TLS_PANEL, help="One's own certificate."
        ),
    ] = None,
    key: Annotated[
        str | None,
        typer.Option(envvar="TURNOUT_KEY", metavar="FILE", rich_help_panel=TLS_PANEL, help="Its key."),
    ] = None,
    token_file: Annotated[
        Path | None,
        typer.Option(
            envvar="TURNOUT_TOKEN_FILE",
            metavar="FILE",
            rich_help_panel=TLS_PANEL,
            help="A file with a token; on a command line everybody on the machine could read it.",
        ),
    ] = None,
    _version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    options.login.tls = Tls(ca, cert, key)
    options.login.token_file = token_file


def main() -> None:
    """What `turnout` and `python -m turnout` call."""
    if completion.is_asked_by_bash():
        completion.answer_bash(lambda: app(prog_name="turnout"))
        return
    try:
        app(prog_name="turnout")
    except Exception as error:
        code = failure(error)
        if code is None:
            raise
        sys.exit(code)
