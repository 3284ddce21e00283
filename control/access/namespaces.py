"""Which namespaces somebody has: globs like "trading" or "team-*"."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase

EVERY = "*"
DEFAULT = "default"


def namespace_of(service: str) -> str:
    """Of a service by its full name, "name" or "namespace:name"."""
    return service.partition(":")[0] if ":" in service else DEFAULT


def matches(globs: Iterable[str], namespace: str) -> bool:
    return any(fnmatchcase(namespace, glob) for glob in globs)
