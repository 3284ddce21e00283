"""Clients known by their certificate: which names it has, and which entry of [control.clients] that is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

Clients = Mapping[str, Any]


def names(certificate: Mapping[str, Any]) -> list[str]:
    """Of a verified certificate as `ssl.SSLSocket.getpeercert` gives it: alternative names (DNS, URI, e-mail)
    and, only when it has none of these, the common name.
    """
    kinds = {"DNS", "URI", "email"}
    alternative = [name for kind, name in certificate.get("subjectAltName", ()) if kind in kinds]
    return alternative or [
        value for rdn in certificate.get("subject", ()) for key, value in rdn if key == "commonName"
    ]


def known(certificate: Mapping[str, Any], clients: Iterable[str]) -> str | None:
    """The first entry, in the order of the file, that names it."""
    has = set(names(certificate))
    return next((name for name in clients if name in has), None)
