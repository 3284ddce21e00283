"""What is said of a name that does not exist."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable

HINTS = 8
"""So many names are listed when none is near; there may be thousands."""
NEAR_MAX = 256
"""Among more names none is looked for that is near: with thousands that would hold up everything else for
tenths of a second, and a mistake is made by many callers at once.
"""


def near(word: str, known: Collection[str]) -> str | None:
    """The name that was probably meant."""
    words = difflib.get_close_matches(word, known, n=1) if len(known) <= NEAR_MAX else []
    return words[0] if words else None


def hint(word: str, known: Iterable[str]) -> str:
    words = list(known)
    meant = near(word, words)
    if meant is not None:
        return f'; did you mean "{meant}"?'
    more = f" and {len(words) - HINTS} more" if len(words) > HINTS else ""
    return f"; there are {', '.join(words[:HINTS]) or 'none'}{more}"
