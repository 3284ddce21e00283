"""Where the audit log ended, kept outside the database: a file in the state directory."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from turnout.proxy.statedir import write_json

NAME = "audit.head"


@dataclass(frozen=True)
class Head:
    """The last entry's number and hash."""

    n: int
    hash: str


def read(directory: Path) -> Head | None:
    """None when there is no such file. Raises ValueError for one that makes no sense."""
    try:
        raw = json.loads((directory / NAME).read_bytes())
        return Head(int(raw["n"]), str(raw["hash"]))
    except FileNotFoundError:
        return None
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{directory / NAME} makes no sense: {error}") from None


def write(directory: Path, head: Head) -> None:
    write_json(directory / NAME, asdict(head))
