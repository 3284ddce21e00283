"""What is checked before a change, in the words of the registry's errors."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from pydantic import ValidationError

from turnout.control.registry.entries import EndpointEntry, ServiceEntry
from turnout.control.registry.errors import ConflictError, RefusedError
from turnout.proxy.model import Endpoint, Service

M = TypeVar("M", Endpoint, Service)


def valid(model: type[M], raw: M | Mapping[str, Any]) -> M:
    """Raises RefusedError with everything that is wrong."""
    if isinstance(raw, model):
        return raw
    try:
        return model.model_validate(dict(raw))
    except ValidationError as error:
        raise RefusedError("; ".join(_said(item) for item in error.errors(include_url=False))) from None


def _said(item: Any) -> str:
    where = ".".join(str(part) for part in item["loc"])
    what = str(item["msg"]).removeprefix("Value error, ")
    return f"{where}: {what}" if where else what


def check_revision(what: str, there: EndpointEntry | ServiceEntry | None, wanted: int | None) -> None:
    """0: it must not be there. Raises ConflictError when it is not as the caller saw it."""
    if wanted is None:
        return
    if there is None:
        if wanted != 0:
            raise ConflictError(f"{what} does not exist any more", 0)
    elif wanted == 0:
        raise ConflictError(f"{what} exists already, with revision {there.revision}", there.revision)
    elif wanted != there.revision:
        raise ConflictError(
            f"{what} was changed meanwhile: it has revision {there.revision}, not {wanted}; read it again",
            there.revision,
        )


def near(word: str, known: Iterable[str]) -> str:
    """A hint for who has mistyped a name."""
    words = difflib.get_close_matches(word, list(known), n=1)
    return f'; did you mean "{words[0]}"?' if words else ""
