"""Endpoints: which there are, their weight, taking them out and back, registering them."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterable
from typing import Annotated, Any

import typer

from turnout.control.client import Client
from turnout.control.client.lease import TTL_S
from turnout.control.client.shapes import Admin
from turnout.control.commands import completion, moments, output, tables
from turnout.control.commands.options import PANEL, AnyService, Endpoint, Json, Url, connect
from turnout.control.commands.target import Target, find, parse_new

app = typer.Typer(rich_markup_mode="rich")

POLL_S = 0.2
Reason = Annotated[
    str | None, typer.Option(metavar="TEXT", help="Why; it is shown, and kept in the audit log.")
]
Until = Annotated[
    str | None,
    typer.Option(metavar="TIME", help='Ready again by itself at "18:30" or "2026-12-01 06:00", local time.'),
]
For = Annotated[
    str | None, typer.Option("--for", metavar="DURATION", help='Ready again by itself after "90s", "2h".')
]
Wait = Annotated[
    str | None,
    typer.Option(metavar="DURATION", help="Return when nothing is under way there, at the latest then."),
]


@app.command(rich_help_panel=PANEL)
def endpoints(
    service: AnyService = None,
    version: Annotated[str | None, typer.Option(help="Only those of this version.")] = None,
    tag: Annotated[str | None, typer.Option(help="Only those with this tag.")] = None,
    source: Annotated[str | None, typer.Option(help="Only those from there: file, api or dns.")] = None,
    as_json: Json = False,
    api: Url = None,
) -> None:
    """Endpoints with state, health, source, lease and traffic."""
    running = connect(api)
    names = [row["name"] for row in running.services()] if service is None else [service]
    filters = {"version": version, "tag": tag, "source": source}
    rows = [row for name in names for row in running.endpoints(name, **filters)]
    output.show(as_json, rows, tables.registered(rows, time.time()))


@app.command(rich_help_panel=PANEL)
def weight(
    endpoint: Endpoint,
    number: Annotated[int, typer.Argument(metavar="WEIGHT", min=0, max=65535, help="0: no new sessions.")],
    as_json: Json = False,
    api: Url = None,
) -> None:
    """Give an endpoint another weight."""
    running = connect(api)
    target = Target.parse(endpoint, running.status())
    row = running.weight(target.service, target.address, number)
    show(as_json, row)


@app.command(rich_help_panel=PANEL)
def ready(endpoint: Endpoint, as_json: Json = False, api: Url = None) -> None:
    """Let an endpoint take new sessions."""
    set_admin(connect(api), endpoint, "ready", as_json)


@app.command(rich_help_panel=PANEL)
def drain(
    endpoint: Endpoint,
    reason: Reason = None,
    until: Until = None,
    for_: For = None,
    wait: Wait = None,
    as_json: Json = False,
    api: Url = None,
) -> None:
    """No new sessions for an endpoint; those bound to it go on."""
    set_admin(connect(api), endpoint, "drain", as_json, reason, moments.until(until, for_), wait)


@app.command(rich_help_panel=PANEL)
def maint(
    endpoint: Endpoint,
    reason: Reason = None,
    until: Until = None,
    for_: For = None,
    wait: Wait = None,
    as_json: Json = False,
    api: Url = None,
) -> None:
    """No request for an endpoint, bound sessions included; what is under way ends."""
    set_admin(connect(api), endpoint, "maint", as_json, reason, moments.until(until, for_), wait)


def show(as_json: bool, row: Any) -> None:
    """One endpoint."""
    output.show(as_json, row, tables.registered([row], time.time()))


def set_admin(
    running: Client,
    endpoint: str,
    admin: Admin,
    as_json: bool,
    reason: str | None = None,
    until: float | None = None,
    wait: str | None = None,
) -> None:
    patience = None if wait is None else moments.seconds(wait)
    target = Target.parse(endpoint, running.status())
    row: Any = running.admin(target.service, target.address, admin, reason=reason, until=until)
    if patience is not None:
        row = until_idle(running, target, patience)
    show(as_json, row)


def until_idle(running: Client, target: Target, patience: float) -> Any:
    """The endpoint when nothing is under way there, or when the time is over."""
    deadline = time.monotonic() + patience
    while True:
        row = running.endpoint(target.service, target.address)
        if not row["in_flight"] or time.monotonic() > deadline:
            return row
        time.sleep(POLL_S)


@app.command(rich_help_panel=PANEL)
def register(
    endpoint: Annotated[
        str,
        typer.Argument(
            metavar="SERVICE/ENDPOINT",
            help="The service, and host:port or \\[IPv6]:port.",
            autocompletion=completion.services,
        ),
    ],
    number: Annotated[
        int | None, typer.Option("--weight", metavar="WEIGHT", min=0, max=65535, help="By default 1.")
    ] = None,
    version: Annotated[str | None, typer.Option(help="By default v1.")] = None,
    priority: Annotated[int | None, typer.Option(min=0, max=255, help="Lower ones are used first.")] = None,
    tag: Annotated[list[str] | None, typer.Option(help="May be given several times.")] = None,
    meta: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="May be given several times.")
    ] = None,
    ttl: Annotated[
        str | None,
        typer.Option(metavar="DURATION", help="It goes when its lease is not renewed for so long."),
    ] = None,
    keep: Annotated[
        bool, typer.Option("--keep", help="Renew the lease until Ctrl-C, then deregister it.")
    ] = False,
    as_json: Json = False,
    api: Url = None,
) -> None:
    """Add an endpoint to a service, or say anew what it is like."""
    service, address = parse_new(endpoint)
    running = connect(api)
    said: Any = {
        "weight": number,
        "version": version,
        "priority": priority,
        "tags": tag or (),
        "metadata": parse_metadata(meta or ()),
    }
    lease = None if ttl is None else moments.seconds(ttl)
    if not keep:
        row = running.register(service, address, ttl=lease, **said)
        show(as_json, row)
        return
    with (
        contextlib.suppress(KeyboardInterrupt),
        running.registered(service, address, ttl=lease or TTL_S, **said),
    ):
        row = running.endpoint(service, address)
        show(as_json, row)
        threading.Event().wait()


def parse_metadata(words: Iterable[str]) -> dict[str, str]:
    """["NAME=VALUE", ...] as a mapping. Raises BadParameter."""
    out: dict[str, str] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not name or not equals:
            raise typer.BadParameter(f'"{word}" is no metadata; write NAME=VALUE, like zone=a')
        out[name] = value
    return out


@app.command(rich_help_panel=PANEL)
def deregister(endpoint: Endpoint, api: Url = None) -> None:
    """Take out an endpoint that was registered; what is under way there ends."""
    running = connect(api)
    target = anywhere(running, endpoint)
    running.deregister(target.service, target.address)
    typer.echo(f"{target} is deregistered")


def anywhere(running: Client, endpoint: str) -> Target:
    """Also one that is registered and not in force."""
    status = running.status()
    service, slash, address = endpoint.partition("/")
    if slash and any(row["name"] == service for row in status["services"]):
        find(status, service)
        return Target(service, address)
    return Target.parse(endpoint, status)
