"""Options that many commands have, and the client that they make."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import typer

from turnout.control.client import Client, Tls
from turnout.control.commands import completion

PANEL = "A running proxy"
TIMEOUT_S = 60.0


@dataclass
class Login:
    """What stands before the command, for all of them."""

    tls: Tls = field(default_factory=Tls)
    token_file: Path | None = None

    @property
    def token(self) -> str | None:
        """None: that of TURNOUT_TOKEN, if there is one. Raises BadParameter."""
        if self.token_file is None:
            return None
        try:
            return self.token_file.read_text().strip()
        except OSError as error:
            raise typer.BadParameter(f"{self.token_file} cannot be read: {error.strerror}") from None


login = Login()


def connect(api: str | None) -> Client:
    return Client(api, token=login.token, tls=login.tls, timeout=TIMEOUT_S)


Url = Annotated[
    str | None,
    typer.Option(
        "--api",
        envvar="TURNOUT_API",
        help="unix:/path, http://host:port or https://host:port, as in \\[control]. One proxy that runs here "
        "is found without.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Endpoint = Annotated[
    str,
    typer.Argument(
        metavar="SERVICE/ENDPOINT",
        help="An endpoint; without SERVICE/ if only one service has it.",
        autocompletion=completion.endpoints,
    ),
]
ServiceName = Annotated[
    str, typer.Argument(metavar="SERVICE", help="A service.", autocompletion=completion.services)
]
AnyService = Annotated[
    str | None,
    typer.Argument(
        metavar="[SERVICE]", help="Only this one.", show_default=False, autocompletion=completion.services
    ),
]
Interval = Annotated[float, typer.Option(min=0.1, help="Seconds between looks.")]
