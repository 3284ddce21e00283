"""A supervisor with its control listener, run to its end."""

from __future__ import annotations

from pathlib import Path

import uvloop

from turnout.proxy import logs
from turnout.proxy.model import Config
from turnout.proxy.supervisor import Supervisor


def serve(file: Path, config: Config) -> int:
    """Returns the exit code. Raises StartError before anything serves."""
    logs.configure("supervisor")
    return uvloop.run(Supervisor(file, config).run())
