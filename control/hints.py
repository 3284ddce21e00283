"""What is said of a name that does not exist."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

HINTS = 8
"""So many names are listed when none is near; there may be thousands."""


def hint(word: str, known: Iterable[str]) -> str:
    words = list(known)
    near = difflib.get_close_matches(word, words, n=1)
    if near:
        return f'; did you mean "{near[0]}"?'
    more = f" and {len(words) - HINTS} more" if len(words) > HINTS else ""
    return f"; there are {', '.join(words[:HINTS]) or 'none'}{more}"
