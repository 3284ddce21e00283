"""Durations, sizes and rates as people write them."""

from __future__ import annotations

import math
import re

NEVER_MS = 0xFFFFFFFF
"""A duration of "off": no limit."""

_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)")
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*(B|kB|MB|GB|KiB|MiB|GiB)?")
_MS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_BYTES = {
    "B": 1,
    "kB": 1024,
    "MB": 1024**2,
    "GB": 1024**3,
    "KiB": 1024,
    "MiB": 1024**2,
    "GiB": 1024**3,
}


def parse_duration(value: object) -> int:
    """Milliseconds of "1.5s", "200ms", "2m", "1h30m"; NEVER_MS for "off". A bare number is refused.

    Raises ValueError that says what would be right.
    """
    if value == "off":
        return NEVER_MS
    if isinstance(value, str):
        parts = _DURATION.findall(value)
        if parts and _DURATION.sub("", value).strip() == "":
            total = sum(float(number) * _MS[unit] for number, unit in parts)
            if total < NEVER_MS:
                return math.ceil(total)
    raise ValueError('a duration is a string with a unit, like "500ms", "1.5s", "2m", "1h", or "off"')


def parse_size(value: object) -> int:
    """Bytes of "64kB", "1MB", "2GB" (powers of 1024) or of a plain number of bytes.

    Raises ValueError that says what would be right.
    """
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    if isinstance(value, str):
        match = _SIZE.fullmatch(value.strip())
        if match:
            return int(float(match[1]) * _BYTES[match[2] or "B"])
    raise ValueError(
        'a size is a string with a unit, like "512B", "64kB", "1MB" (powers of 1024), or a number of bytes'
    )


def format_duration(ms: int) -> str:
    """The shortest way to write a duration; parse_duration reads it back."""
    if ms == NEVER_MS:
        return "off"
    for unit in ("d", "h", "m", "s"):
        if ms and ms % _MS[unit] == 0:
            return f"{ms // _MS[unit]}{unit}"
    return f"{ms}ms"


def format_size(size: int) -> str:
    """The shortest way to write a size; parse_size reads it back."""
    for unit in ("GB", "MB", "kB"):
        if size and size % _BYTES[unit] == 0:
            return f"{size // _BYTES[unit]}{unit}"
    return f"{size}B"
