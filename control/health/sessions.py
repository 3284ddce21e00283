"""HTTP clients of checks. Connections are kept between two probes of an endpoint; each way to connect has a
client of its own.
"""

from __future__ import annotations

from typing import Any

import aiohttp
from aiohttp.client_proto import ResponseHandler

from turnout import __version__
from turnout.control.health.target import Target
from turnout.control.health.tcp import announced

KEEPALIVE_S = 75.0
"""An idle connection is kept at least as long as endpoints that are down wait for their next check."""
BUFFER = 8192
USER_AGENT = f"turnout-health/{__version__}"


class _Tcp(aiohttp.TCPConnector):
    """Begins a connection with a PROXY header, and remembers until when certificates are good that it saw."""

    def __init__(self, header: bytes) -> None:
        super().__init__(limit=0, keepalive_timeout=KEEPALIVE_S, use_dns_cache=False)
        self.header = header
        self.expiry: dict[tuple[str | None, int | None, str | None], str] = {}

    async def _create_connection(self, req: Any, traces: Any, timeout: Any) -> ResponseHandler:
        protocol = await super()._create_connection(req, traces, timeout)
        transport = protocol.transport
        if transport is not None and self.header:
            transport.write(self.header)
        certificate = transport.get_extra_info("peercert") if transport is not None else None
        if certificate:
            self.expiry[req.url.host, req.url.port, req.server_hostname] = certificate["notAfter"]
        return protocol


class _Unix(aiohttp.UnixConnector):
    def __init__(self, path: str, header: bytes) -> None:
        super().__init__(path, limit=0, keepalive_timeout=KEEPALIVE_S)
        self.header = header

    async def _create_connection(self, req: Any, traces: Any, timeout: Any) -> ResponseHandler:
        protocol = await super()._create_connection(req, traces, timeout)
        if protocol.transport is not None and self.header:
            protocol.transport.write(self.header)
        return protocol


class Sessions:
    def __init__(self) -> None:
        self._made: dict[tuple[str, bytes], aiohttp.ClientSession] = {}

    def of(self, target: Target) -> aiohttp.ClientSession:
        """Inside the loop."""
        key = target.unix, announced(target)
        found = self._made.get(key)
        if found is None:
            connector = _Unix(*key) if target.unix else _Tcp(key[1])
            found = self._made[key] = aiohttp.ClientSession(
                connector=connector,
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=None, connect=None, sock_connect=None, sock_read=None),
                auto_decompress=False,
                read_bufsize=BUFFER,
                headers={"User-Agent": USER_AGENT},
                skip_auto_headers={"Accept-Encoding"},
            )
        return found

    def expiry(self, target: Target) -> str | None:
        """Until when the certificate is good that the target showed last, as ssl has it."""
        session = self._made.get((target.unix, announced(target)))
        connector = session.connector if session is not None else None
        if not isinstance(connector, _Tcp):
            return None
        return connector.expiry.get((target.host, target.port, target.name))

    async def close(self) -> None:
        for session in self._made.values():
            await session.close()
        self._made.clear()


def of_client(error: aiohttp.ClientError) -> Exception | str:
    """What lies behind an error of aiohttp: the system's error, or words."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return error.certificate_error
    if isinstance(error, aiohttp.ClientConnectorError):
        return error.os_error
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return "closed the connection before it answered"
    if isinstance(error, aiohttp.ClientPayloadError):
        return "closed the connection in the middle of its answer"
    if isinstance(error, aiohttp.ClientResponseError):
        return f"its answer is not HTTP: {(error.message or str(error)).splitlines()[0]}"
    return error if isinstance(error, OSError) else f"{type(error).__name__}: {error}"
