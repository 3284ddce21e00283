"""The configuration of a running proxy: shown, tried, applied, brought back."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.syntax import Syntax

from turnout.control.client.shapes import ConfigApplied
from turnout.control.commands import output, tables
from turnout.control.commands.options import Json, Url, connect

app = typer.Typer(
    name="config",
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="The configuration: show, try, apply, bring back an earlier one.",
)

File = Annotated[Path, typer.Argument(metavar="FILE", help='"-" is standard input.')]
IfVersion = Annotated[
    int | None, typer.Option(metavar="VERSION", help="Only if this one is in force; else nothing changes.")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Check it and show the difference; change nothing.")]


@app.command()
def get(
    version: Annotated[int | None, typer.Argument(metavar="[VERSION]", help="An earlier one.")] = None,
    as_json: Json = False,
    api: Url = None,
) -> None:
    """Print the file as it is in force, or as it was."""
    running = connect(api)
    found = running.config() if version is None else running.version(version)
    typer.echo(json.dumps(found, indent=2) if as_json else found["text"], nl=as_json)


@app.command()
def validate(file: File, as_json: Json = False, api: Url = None) -> None:
    """Try a file on the running proxy: what it would change. Nothing changes."""
    show(connect(api).apply(read(file), dry_run=True), as_json)


@app.command()
def apply(
    file: File,
    note: Annotated[str | None, typer.Option(metavar="TEXT", help="Why, for the history.")] = None,
    if_version: IfVersion = None,
    dry_run: DryRun = False,
    as_json: Json = False,
    api: Url = None,
) -> None:
    """Put a file in force, in the place of the one that the proxy was started with."""
    show(connect(api).apply(read(file), dry_run=dry_run, note=note, if_version=if_version), as_json)


@app.command()
def history(
    limit: Annotated[int, typer.Option(min=1, max=1000, help="At most so many.")] = 20,
    before: Annotated[int | None, typer.Option(metavar="VERSION", help="Those before it.")] = None,
    as_json: Json = False,
    api: Url = None,
) -> None:
    """Versions that were in force, newest first."""
    rows = connect(api).history(before=before, limit=limit)
    output.show(as_json, rows, tables.versions(rows))


@app.command()
def rewind(
    version: Annotated[int, typer.Argument(metavar="VERSION", help="As in the history.")],
    if_version: IfVersion = None,
    dry_run: DryRun = False,
    as_json: Json = False,
    api: Url = None,
) -> None:
    """Put an earlier version in force again, as a new one."""
    show(connect(api).rewind(version, dry_run=dry_run, if_version=if_version), as_json)


def read(file: Path) -> str:
    """Raises BadParameter."""
    try:
        return sys.stdin.read() if str(file) == "-" else file.read_text()
    except OSError as error:
        raise typer.BadParameter(f"{file} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise typer.BadParameter(f"{file} is not UTF-8") from None


def show(outcome: ConfigApplied, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(outcome, indent=2))
        return
    console = output.console()
    if outcome["diff"]:
        console.print(Syntax(outcome["diff"], "diff", background_color="default", word_wrap=True))
    done = "is in force" if outcome["applied"] else "stays in force; this would be accepted"
    console.print(f"version {outcome['version']} {done}", style="bold")
