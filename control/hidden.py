"""What is not shown of settings to those who may see them: keys that sign, credentials in header fields."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from turnout.proxy.model import HeaderEdits, Service

CREDENTIALS = re.compile(r"auth|cookie|key|token|secret|password", re.IGNORECASE)
"""In the name of a header field."""


def service_settings(service: Service) -> dict[str, Any]:
    """As a table [services.NAME] of the file, with what was said; without endpoints."""
    hidden: Any = {"endpoints": True, "sticky": {"key"}}
    out = service.model_dump(mode="json", exclude_unset=True, exclude=hidden)
    health = out.get("health")
    if health and "headers" in health:
        health["headers"] = header_fields(health["headers"])
    return out


def header_edits(edits: HeaderEdits) -> dict[str, Any]:
    out = edits.model_dump(mode="json")
    return {key: header_fields(value) if isinstance(value, dict) else value for key, value in out.items()}


def header_fields(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if not CREDENTIALS.search(name)}
