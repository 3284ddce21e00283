"""Who asks, and whether he may. The API asks it before anything else."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

from aiohttp import web

from turnout.control.access import certificates, namespaces
from turnout.control.access.actor import Actor
from turnout.control.access.errors import ForbiddenError, LimitedError, UnauthenticatedError
from turnout.control.access.limiter import Limiter
from turnout.control.access.peers import Peer, peer_of
from turnout.control.access.roles import Role
from turnout.control.access.tokens import BadTokenError, Token

if TYPE_CHECKING:
    from turnout.proxy.model import ControlClient

EVERYTHING = (namespaces.EVERY,)
HOW = "send a token (Authorization: Bearer tnt_...), or call over the unix socket"


class Checker(Protocol):
    """Of tokens.Tokens, what is needed here."""

    async def check(self, text: str) -> Token: ...


class Gate:
    """`owner` is the user that the unix socket is for besides root; `clients` is [control.clients]."""

    def __init__(
        self,
        tokens: Checker,
        *,
        auth: str = "tokens",
        clients: Mapping[str, ControlClient] | None = None,
        owner: int | None = None,
        limiter: Limiter | None = None,
    ) -> None:
        self._tokens = tokens
        self._auth = auth
        self._clients = clients or {}
        self._owner = owner
        self._limiter = limiter or Limiter()

    async def identify(self, request: web.Request) -> Actor:
        """By what he shows first: a token, a certificate, the user of a unix socket. Raises
        UnauthenticatedError, and LimitedError when that happened too often.
        """
        sock = _socket(request)
        peer = peer_of(sock) if sock is not None and sock.family == socket.AF_UNIX else None
        source = f"unix:{peer.name}" if peer is not None else request.remote or "nowhere"
        shown = request.headers.get("Authorization")
        if shown is not None:
            return await self._bearer(shown, source)
        found = self._certificate(request, source) or self._peer(peer, source)
        if found is not None:
            return found
        if self._auth == "none":
            return Actor("open", "", Role.ADMIN, EVERYTHING, source)
        raise self._refused(self._nobody(request, peer), source)

    def allow(self, actor: Actor, action: str, namespace: str | None = None) -> None:
        """Raises ForbiddenError. `namespace` as in Actor.may."""
        if not actor.may(action, namespace):
            raise ForbiddenError(actor.why_not(action, namespace), source=actor.source, actor=actor)

    # ---- inside ------------------------------------------------------------------------------------------

    async def _bearer(self, shown: str, source: str) -> Actor:
        scheme, _, text = shown.partition(" ")
        if scheme.lower() != "bearer":
            raise self._refused(f"{scheme} is not understood here: {HOW}", source)
        try:
            token = await self._tokens.check(text.strip())
        except BadTokenError as error:
            raise self._refused(str(error), source) from None
        return Actor("token", token.name, token.role, token.namespaces, source)

    def _certificate(self, request: web.Request, source: str) -> Actor | None:
        certificate = _certificate(request)
        name = certificates.known(certificate, self._clients) if certificate else None
        if name is None:
            return None
        client = self._clients[name]
        return Actor("mtls", name, Role.named(client.role), client.namespaces, source)

    def _peer(self, peer: Peer | None, source: str) -> Actor | None:
        if peer is None or not peer.trusted(self._owner):
            return None
        return Actor("socket", peer.name, Role.ADMIN, EVERYTHING, source)

    def _nobody(self, request: web.Request, peer: Peer | None) -> str:
        if peer is not None:
            return f"this socket is for root and the user of the proxy, you are {peer.name}: send a token"
        certificate = _certificate(request)
        if certificate:
            named = ", ".join(certificates.names(certificate)) or "nobody"
            return f"the certificate names {named}, and [control.clients] has no such entry"
        return f"who are you? {HOW}"

    def _refused(self, detail: str, source: str) -> UnauthenticatedError | LimitedError:
        wait_s, first = self._limiter.failed(source)
        if wait_s:
            return LimitedError(wait_s, source=source, record=first)
        return UnauthenticatedError(detail, source=source)


def _socket(request: web.Request) -> socket.socket | None:
    """What the transport shows of it."""
    found: socket.socket | None = request.get_extra_info("socket")
    return found


def _certificate(request: web.Request) -> Mapping[str, Any] | None:
    """The one that was verified in the handshake; None without one."""
    found: Mapping[str, Any] | None = request.get_extra_info("peercert")
    return found
