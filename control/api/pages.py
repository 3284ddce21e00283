"""Lists in pages: sorted by a key, each page goes on behind the last key of the one before, so that what
comes and goes in between moves nothing else.
"""

from __future__ import annotations

import base64
import binascii
from bisect import bisect_right
from collections.abc import Callable, Iterable
from typing import TypeVar

from pydantic import Field

from turnout.control.api.problems import invalid
from turnout.control.api.routes import Query
from turnout.control.turns import Turns

LIMIT, LIMIT_MAX = 100, 1000

T = TypeVar("T")


class Page(Query):
    limit: int = Field(default=LIMIT, ge=1, le=LIMIT_MAX, description="At most so many items.")
    cursor: str | None = Field(
        default=None, max_length=1024, description="`next` of the page before; without it: the first page."
    )


async def page(
    keys: Iterable[str], asked: Page, row: Callable[[str], T | None]
) -> tuple[list[T], str | None]:
    """The rows of a page and the cursor of the next one, None behind the last. `keys` in any order; `row` is
    None for what
    is filtered out or gone.
    """
    ordered = sorted(keys)
    at = bisect_right(ordered, key_of(asked.cursor)) if asked.cursor is not None else 0
    out: list[T] = []
    last, turns = "", Turns()
    for key in ordered[at:]:
        await turns.turn()
        found = row(key)
        if found is None:
            continue
        if len(out) == asked.limit:
            return out, cursor_of(last)
        out.append(found)
        last = key
    return out, None


def cursor_of(key: str) -> str:
    return base64.urlsafe_b64encode(key.encode()).rstrip(b"=").decode()


def key_of(cursor: str) -> str:
    """Raises ProblemError for what was never a cursor."""
    try:
        return base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True).decode()
    except (ValueError, binascii.Error):
        raise invalid([{"where": "?cursor", "what": 'is none; send the "next" of the page before'}]) from None
