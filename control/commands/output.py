"""How commands print."""

from __future__ import annotations

import json
from typing import Any

import typer
from rich.console import Console, RenderableType

WIDTH = 160
"""Columns when the output is no terminal."""


def console() -> Console:
    out = Console(highlight=False)
    return out if out.is_terminal else Console(width=WIDTH, highlight=False)


def show(as_json: bool, rows: Any, table: RenderableType) -> None:
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
    else:
        console().print(table)


def line(row: Any) -> None:
    """One line of JSON, at once."""
    typer.echo(json.dumps(row))
