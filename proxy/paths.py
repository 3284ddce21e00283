"""Path prefixes as the router compares them."""

from __future__ import annotations

from urllib.parse import unquote_to_bytes

PREFIX_MAX = 1023
"""Bytes of a canonical prefix; the router has room for no more."""


def canonical_path(path: str) -> str:
    """A route's path percent-decoded. Raises ValueError for one that no request could match in every reading:
    with an encoded slash, an empty segment or a dot segment (ext/router.pxd says how requests are read).
    """
    if "%2f" in path.lower():
        raise ValueError('a path has no encoded slash ("%2F"); match a shorter prefix')
    try:
        decoded = unquote_to_bytes(path).decode()
    except UnicodeDecodeError:
        raise ValueError("a path's percent signs stand for UTF-8") from None
    segments = {segment.partition(";")[0] for segment in decoded.split("/")}
    if "//" in decoded or not segments.isdisjoint({".", ".."}):
        raise ValueError('a path has neither empty segments ("//") nor dot segments ("." or "..")')
    if "\0" in decoded or len(decoded.encode()) > PREFIX_MAX:
        raise ValueError(f"a path has no zero byte and at most {PREFIX_MAX} bytes")
    return decoded
