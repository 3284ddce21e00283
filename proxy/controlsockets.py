"""The sockets that the control side is served on: `[control] listen`, and the unix socket beside it."""

from __future__ import annotations

import logging
import socket
from pathlib import Path

from turnout.proxy import handover, runtimedir
from turnout.proxy.model import Control
from turnout.proxy.sockets import BindError, Listening, Offers, bind, check_free, key_of_bind, listen

log = logging.getLogger("turnout.supervisor")

BACKLOG = 128
PRIVATE = 0o600


class ControlSockets:
    """Of one supervisor. A socket that another one left to it is borrowed until `keep`: who gives up leaves
    its path to the former owner.
    """

    def __init__(self) -> None:
        self.listen: Listening | None = None
        self.local: Listening | None = None
        self._borrowed: set[int] = set()
        self._unwanted: list[Listening] = []

    def open(self, config: Control, file: Path, left: handover.Handover | None, offers: Offers) -> list[str]:
        """All that cannot be had, in words; the sockets listen. Offers that are used are taken out."""
        reasons = []
        inherited = {item.key: item for item in left.control_sockets()} if left is not None else {}
        try:
            self.listen = self._open(key_of_bind(config.listen), inherited, offers)
        except BindError as error:
            reasons.append(f"[control] listen: {config.listen}: {error}")
        try:
            self.local = self._open_local(config.socket, file, inherited, offers)
        except BindError as error:
            reasons.append(f"[control] socket: {config.socket}: {error}")
        self._unwanted = list(inherited.values())
        return reasons

    def keep(self) -> list[str]:
        """They are this supervisor's from here on. Returns the keys of those that were left and are not
        wanted.
        """
        self._borrowed.clear()
        unwanted, self._unwanted = self._unwanted, []
        for item in unwanted:
            item.sock.close()
        return [item.key for item in unwanted]

    def hand_over(self, unused: list[str]) -> None:
        """All but these are another supervisor's now."""
        for item in self._all():
            item.shared = item.shared or item.key not in unused

    def will(self) -> list[tuple[str, int, bool]]:
        return [(item.key, item.fd, item.shared) for item in self._all()]

    def sockets(self) -> tuple[socket.socket | None, socket.socket | None]:
        """`listen` and the one beside it."""
        listening, local = self.listen, self.local
        return None if listening is None else listening.sock, None if local is None else local.sock

    def put_away(self) -> None:
        """Close; paths that nobody else serves are removed."""
        for item in [*self._all(), *self._unwanted]:
            item.sock.close()
        for item in self._all():
            if item.key.startswith("unix:") and not item.shared and item.id not in self._borrowed:
                Path(item.key[5:]).unlink(missing_ok=True)

    # ---- inside ------------------------------------------------------------------------------------------

    def _all(self) -> list[Listening]:
        return [item for item in (self.listen, self.local) if item is not None]

    def _open(
        self, key: str, inherited: dict[str, Listening], offers: Offers, mode: int | None = None
    ) -> Listening:
        item = inherited.pop(key, None)
        if item is not None:
            self._borrowed.add(item.id)
            return item
        for offered in offers.pop(key, []):
            return offered
        check_free(key)
        item = bind(key, reuse_port=False)
        if mode is not None:
            Path(key[5:]).chmod(mode)  # nobody can connect before it listens
        listen(item, BACKLOG)
        return item

    def _open_local(
        self, configured: str, file: Path, inherited: dict[str, Listening], offers: Offers
    ) -> Listening | None:
        """Where it may be anywhere, a proxy runs without it rather than not at all."""
        if configured == "off":
            return None
        if configured != "auto":
            return self._open(configured, inherited, offers, PRIVATE)
        tried = []
        for path in runtimedir.candidates(file):
            try:
                path.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
                return self._open(f"unix:{path}", inherited, offers, PRIVATE)
            except (BindError, OSError) as error:
                tried.append(f"{path}: {getattr(error, 'strerror', None) or error}")
        log.warning(
            'no unix socket for commands: %s; name a place in [control] socket, or write "off"',
            "; ".join(tried) or "every path is too long",
        )
        return None
