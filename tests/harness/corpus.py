"""Small messages that damage starts from."""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).parents[1] / "fuzz" / "corpus"


def corpus(kind: str) -> list[bytes]:
    return [path.read_bytes() for path in sorted((FOLDER / kind).iterdir())]
