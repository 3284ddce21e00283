"""One text for one value, so that it can be hashed: JSON as in RFC 8785, for texts, whole numbers, truth
values, lists and tables. Keys are sorted by code point, which for ours is the order of the RFC.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

MAX = 16 * 1024
"""Characters of one value in a log; of a longer one its digest is kept."""


def canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def bounded(value: Any) -> str:
    """As `canonical`; of what is too long, its length and SHA-256."""
    text = canonical(value)
    if len(text) <= MAX:
        return text
    return canonical({"characters": len(text), "sha256": hashlib.sha256(storable(text).encode()).hexdigest()})


def storable(text: str) -> str:
    """What every database keeps as it is: no NUL, no lone surrogates."""
    return text.encode("utf-8", "backslashreplace").decode().replace("\0", "\\x00")
