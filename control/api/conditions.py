"""ETag, If-Match and If-None-Match: entity tags are revisions."""

from __future__ import annotations

import re
from collections.abc import Mapping

from turnout.control.api.problems import ProblemError, invalid

TAG = re.compile(r'(W/)?"([^"]*)"')


def etag(revision: int) -> str:
    return f'"{revision}"'


def wanted_revision(headers: Mapping[str, str]) -> int | None:
    """What If-Match asks for; None without it, or when any revision will do."""
    text = headers.get("If-Match", "").strip()
    if not text or text == "*":
        return None
    match = TAG.fullmatch(text)
    if not match:
        raise invalid([{"where": "If-Match", "what": f'is one ETag in quotes, like "12", not {text[:60]}'}])
    if match[1] or not re.fullmatch(r"\d{1,18}", match[2]):
        raise ProblemError(412, f"{text[:60]} is not the ETag of anything here", kind="changed")
    return int(match[2])


def is_known(headers: Mapping[str, str], revision: int) -> bool:
    """Whether If-None-Match says that the client has this one."""
    text = headers.get("If-None-Match", "").strip()
    return text == "*" or any(match[2] == str(revision) for match in TAG.finditer(text))
