"""The commands: what they take and what they say. What they do is in the modules named after it."""

from __future__ import annotations

import json
import sys
from enum import IntEnum
from pathlib import Path
from typing import Annotated

import typer

from turnout import __version__
from turnout.control import starter
from turnout.proxy.config import ConfigError, load


class Exit(IntEnum):
    """Exit codes, described in docs/commands.md."""

    OK = 0
    FAILED = 1
    USAGE = 2
    CUT_OFF = 3
    NOBODY = 4


app = typer.Typer(
    name="turnout",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Reverse proxy and load balancer with progressive delivery inside the proxy.",
    epilog="Exit codes: 0 ok, 1 failed, 2 bad configuration or usage, 3 requests were cut off at the end of "
    "a drain, 4 nobody answers at the API.",
)

FILES = "Files"
RUNNING = "A running proxy"

File = Annotated[Path, typer.Argument(help="The configuration file.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"turnout {__version__}")
        raise typer.Exit


@app.callback()
def _turnout(
    _version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


def complain(text: str) -> None:
    """Say what is wrong, on stderr."""
    typer.echo(text, err=True)


def complain_of_config(error: ConfigError) -> None:
    number = len(error.problems)
    complain(f"turnout: the configuration has {number} problem{'' if number == 1 else 's'}:")
    for problem in error.problems:
        complain(f"  {problem}")


@app.command(rich_help_panel=FILES)
def run(file: File) -> None:
    """Run the proxy that FILE describes, until it is told to stop.

    SIGTERM or SIGINT: drain, then end; a second one ends at once. SIGHUP: read FILE again; a file that does
    not validate changes nothing. SIGUSR1: open the access log anew.
    """
    config = load(file)
    from turnout.control.serve import serve  # noqa: PLC0415 - commands load what they need
    from turnout.proxy.supervisor import StartError  # noqa: PLC0415

    try:
        raise typer.Exit(serve(file, config))
    except StartError as error:
        complain(f"turnout: cannot start: {error}")
        raise typer.Exit(Exit.FAILED) from None


@app.command(rich_help_panel=FILES)
def check(
    file: File,
    resolve: Annotated[bool, typer.Option("--resolve", help="Look up the names of endpoints too.")] = False,
    as_json: Json = False,
) -> None:
    """Check FILE: every problem at once, with file, line, table, key, value and what would be right."""
    from turnout.control import check as checks  # noqa: PLC0415 - commands load what they need

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


@app.command(rich_help_panel=FILES)
def init(
    file: Annotated[Path, typer.Argument(help="Where to write it.")] = Path(starter.FILE),
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
) -> None:
    """Write a commented configuration file to start from."""
    try:
        starter.write(file, force=force)
    except FileExistsError:
        complain(f"turnout: {file} is there already; --force replaces it")
        raise typer.Exit(Exit.FAILED) from None
    except OSError as error:
        complain(f"turnout: {file} cannot be written: {error.strerror}")
        raise typer.Exit(Exit.FAILED) from None
    typer.echo(f"{file} is written. Next: turnout check {file}, then turnout run {file}")


def main() -> None:
    """What `turnout` and `python -m turnout` call."""
    try:
        app(prog_name="turnout")
    except ConfigError as error:
        complain_of_config(error)
        sys.exit(Exit.USAGE)
