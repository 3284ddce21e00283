"""Commands around a configuration file: they need no running proxy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from turnout.control import starter
from turnout.control.commands.options import Json
from turnout.control.outcome import Exit, complain
from turnout.proxy.config import ConfigError, load

# Commands import what they need when they are called: most of them need neither server nor scoreboard.
# ruff: noqa: PLC0415

PANEL = "Files"

app = typer.Typer(rich_markup_mode="rich")

File = Annotated[Path, typer.Argument(help="The configuration file.")]
Preset = Annotated[
    starter.Preset | None, typer.Option(help="trading: the services of a trading system, and a balancer.")
]


@app.command(rich_help_panel=PANEL)
def run(file: File) -> None:
    """Run the proxy that FILE describes, until it is told to stop.

    SIGTERM or SIGINT: drain, then end; a second one ends at once. SIGHUP: read FILE again; a file that does
    not validate changes nothing. SIGUSR1: open the access log anew.
    """
    config = load(file)
    from turnout.control.serve import serve

    raise typer.Exit(serve(file, config))


@app.command(rich_help_panel=PANEL)
def check(
    file: File,
    resolve: Annotated[bool, typer.Option("--resolve", help="Look up the names of endpoints too.")] = False,
    as_json: Json = False,
) -> None:
    """Check FILE: every problem at once, with file, line, table, key, value and what would be right."""
    from turnout.control import check as checks

    try:
        config = checks.check(file, resolve=resolve)
    except ConfigError as error:
        if not as_json:
            raise
        rows = [vars(problem) for problem in error.problems]
        typer.echo(json.dumps({"ok": False, "problems": rows}, indent=2))
        raise typer.Exit(Exit.USAGE) from None
    if as_json:
        typer.echo(json.dumps({"ok": True, "problems": []}, indent=2))
    else:
        typer.echo(f"{file}: ok ({checks.summary(config)})")


@app.command(rich_help_panel=PANEL)
def init(
    file: Annotated[Path, typer.Argument(help="Where to write it.")] = Path(starter.FILE),
    preset: Preset = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
) -> None:
    """Write a commented configuration file to start from."""
    try:
        starter.write(file, preset, force=force)
    except FileExistsError:
        complain(f"{file} is there already; --force replaces it")
        raise typer.Exit(Exit.FAILED) from None
    except OSError as error:
        complain(f"{file} cannot be written: {error.strerror}")
        raise typer.Exit(Exit.FAILED) from None
    typer.echo(f"{file} is written. Next: turnout check {file}, then turnout run {file}")


@app.command(rich_help_panel=PANEL)
def demo(
    seconds: Annotated[
        float | None, typer.Option("--seconds", min=0, help="End after so long; else with Ctrl-C.")
    ] = None,
    preset: Preset = None,
) -> None:
    """Run a proxy in front of sample backends of its own, and say what to try."""
    from turnout.control.demo.run import demo as show

    raise typer.Exit(show(seconds, preset))
