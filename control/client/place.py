"""Where an API is and what it takes to be let in."""

from __future__ import annotations

import os
import ssl
from dataclasses import dataclass
from functools import cached_property
from typing import Self
from urllib.parse import urlsplit

from turnout.control import discover
from turnout.control.client.errors import BadUrlError, NobodyAnswersError

PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True)
class Tls:
    """Paths (PEM). Without `ca` the machine's own list counts; `cert` and `key` are this client's own."""

    ca: str | None = None
    cert: str | None = None
    key: str | None = None


@dataclass(frozen=True)
class Place:
    """`path` is that of a unix socket; else `host` and `port` count."""

    url: str
    scheme: str
    host: str
    port: int
    path: str | None
    tls: Tls
    token: str | None

    @classmethod
    def parse(cls, url: str, *, token: str | None = None, tls: Tls | None = None) -> Self:
        """Of "http://host:port", "https://host:port" or "unix:/path". Raises BadUrlError."""
        tls = tls or Tls()
        if url.startswith("unix:/"):
            return cls(url, "http", "localhost", 0, url.removeprefix("unix:"), tls, token)
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            parts, port = urlsplit(""), None
        if parts.scheme not in PORTS or not parts.hostname or parts.path not in {"", "/"}:
            raise BadUrlError(
                f'"{url}" is no address of an API; write "http://host:port", "https://host:port" '
                'or "unix:/path"'
            )
        return cls(url, parts.scheme, parts.hostname, port or PORTS[parts.scheme], None, tls, token)

    @property
    def base(self) -> str:
        """What paths are put behind."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}" if self.path is None else "http://localhost"

    @property
    def authorization(self) -> dict[str, str]:
        return {} if self.token is None else {"Authorization": f"Bearer {self.token}"}

    @cached_property
    def context(self) -> ssl.SSLContext:
        """Raises BadUrlError for files that are no certificates."""
        try:
            context = ssl.create_default_context(cafile=self.tls.ca)
            if self.tls.cert is not None:
                context.load_cert_chain(self.tls.cert, self.tls.key)
        except (OSError, ssl.SSLError) as error:
            files = ", ".join(filter(None, (self.tls.ca, self.tls.cert, self.tls.key)))
            raise BadUrlError(f"{files}: cannot be used for TLS: {error.strerror or error}") from None
        return context


def whereabouts(url: str | None, token: str | None, tls: Tls | None) -> Place:
    """What was given, else what the environment says, else where a proxy is. Raises BadUrlError and
    discover.SeveralError.
    """
    if url is None:
        url = discover.api_url(os.environ.get("TURNOUT_API") or None)
    return Place.parse(url, token=token or os.environ.get("TURNOUT_TOKEN") or None, tls=tls)


def nobody(to: Place, error: Exception) -> NobodyAnswersError:
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return NobodyAnswersError(f"nobody answers at {to.url}: {reason}{discover.hint(to.url)}")
