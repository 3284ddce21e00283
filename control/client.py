"""How commands talk to a running proxy: its control listener over TCP or a unix socket.

A token comes from TURNOUT_TOKEN in the environment: on a command line everybody on the machine could read it.
"""

from __future__ import annotations

import http.client
import json
import os
import socket
from typing import Any
from urllib.parse import quote, urlsplit

from turnout.control import discover

TIMEOUT_S = 120.0
"""An upgrade waits until the new workers serve."""


class BadUrlError(ValueError):
    """What was given as the API's address is none."""


class NobodyAnswersError(Exception):
    """Nothing listens at the address, or it went away; the text says which."""


class RefusedError(Exception):
    """The API answered with an error; the text says what is wrong."""

    def __init__(self, status: int, problem: dict[str, Any]) -> None:
        super().__init__(str(problem.get("detail") or f"status {status}"))
        self.status = status
        self.problem = problem


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def connection(url: str, timeout: float = TIMEOUT_S) -> http.client.HTTPConnection:
    """For "http://host:port" or "unix:/path". Raises BadUrlError; connects when it is used."""
    if url.startswith("unix:/"):
        return UnixConnection(url.removeprefix("unix:"), timeout)
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    if parts.scheme != "http" or not parts.hostname or parts.path not in {"", "/"}:
        raise BadUrlError(f'"{url}" is no address of an API; write "http://host:port" or "unix:/path"')
    return http.client.HTTPConnection(parts.hostname, port or 80, timeout=timeout)


class Api:
    """The API at `url`. Calls raise NobodyAnswersError and RefusedError."""

    def __init__(self, url: str | None = None) -> None:
        """`url` None: where a proxy is found. Raises BadUrlError and SeveralError."""
        self.url = discover.api_url(url)
        connection(self.url)
        self._token = os.environ.get("TURNOUT_TOKEN")

    def call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        """The JSON of the answer."""
        to = connection(self.url)
        headers = {} if body is None else {"Content-Type": "application/json"}
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        try:
            to.request(method, path, None if body is None else json.dumps(body), headers)
            answer = to.getresponse()
            content = answer.read()
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
            where = discover.hint(self.url)
            raise NobodyAnswersError(f"nobody answers at {self.url}: {reason}{where}") from None
        finally:
            to.close()
        return self._understood(answer.status, content)

    def _understood(self, status: int, content: bytes) -> Any:
        try:
            out = json.loads(content)
        except ValueError:
            raise RefusedError(status, {"detail": f"what answers at {self.url} is not Turnout"}) from None
        if status >= 400:
            raise RefusedError(status, out)
        return out

    def status(self) -> Any:
        return self.call("GET", "/v1/status")

    def reload(self) -> int:
        """Version of the snapshot that is now in force."""
        return int(self.call("POST", "/v1/reload", {})["snapshot"])

    def stop(self, *, now: bool) -> None:
        self.call("POST", "/v1/stop", {"now": now})

    def upgrade(self) -> int:
        """The pid of the new supervisor."""
        return int(self.call("POST", "/v1/upgrade", {})["pid"])

    def split(self, service: str, shares: dict[str, float]) -> dict[str, float]:
        """Shares as they are now, 0 to 1."""
        path = f"/v1/services/{quote(service, safe='')}/split"
        return dict(self.call("PUT", path, {"shares": shares})["shares"])

    def endpoint(self, service: str, address: str, change: dict[str, Any]) -> Any:
        """The endpoint's row of the status after the change."""
        path = f"/v1/services/{quote(service, safe='')}/endpoints/{quote(address, safe='')}"
        return self.call("PUT", path, change)
