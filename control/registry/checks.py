"""What is checked before a change, in the words of the registry's errors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from pydantic import ValidationError

from turnout.control import hints
from turnout.control.registry.entries import EndpointEntry, ServiceEntry
from turnout.control.registry.errors import ConflictError, RefusedError
from turnout.proxy.model import Config, Endpoint, Service

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


def check_is_remote(service: Service) -> None:
    """Nothing that a service of the API may not name: programs and files of this machine, and what is
    followed for services of the file only. Raises RefusedError.
    """
    health, tls = service.health, service.tls
    if service.discover is not None:
        raise RefusedError("discover: only services of the configuration file are discovered")
    if health is not None and health.exec is not None:
        raise RefusedError("health.exec: programs are named in the configuration file only, never here")
    if health is not None and health.pattern is not None:
        # Some patterns take for ever on the right text, and every service's checks and calls would wait.
        raise RefusedError("health.pattern: patterns are written in the configuration file only; say body")
    named = {
        "tls.ca": tls and tls.ca,
        "tls.cert": tls and tls.cert,
        "tls.key": tls and tls.key,
        "health.tls.ca": health and health.tls and health.tls.ca,
    }
    for where, path in named.items():
        if path is not None:
            raise RefusedError(f"{where}: files are named in the configuration file only, never here")


def new_programs(before: Config, after: Config) -> list[str]:
    """Services that `after` would run a program for, and `before` not this one."""
    out = []
    for name, service in after.services.items():
        program = service.health.exec if service.health is not None else None
        known = before.services[name].health if name in before.services else None
        if program is not None and (known is None or known.exec != program):
            out.append(name)
    return out


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
    meant = hints.near(word, list(known))
    return f'; did you mean "{meant}"?' if meant is not None else ""
