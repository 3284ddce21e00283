"""Who asks, once that is known."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from turnout.control.access import namespaces
from turnout.control.access.roles import ACTIONS, WHOLE, Role

Kind = Literal["socket", "token", "mtls", "open"]


@dataclass(frozen=True)
class Actor:
    """`source` is where the request came from: an address, or "unix" and the process."""

    kind: Kind
    name: str
    role: Role
    namespaces: tuple[str, ...]
    source: str = ""

    def sees(self, namespace: str) -> bool:
        return namespaces.matches(self.namespaces, namespace)

    @property
    def whole(self) -> bool:
        """Whether every namespace is his, those that come later included."""
        return namespaces.EVERY in self.namespaces

    @property
    def title(self) -> str:
        return f"{KINDS[self.kind]} {self.name}".strip()

    def may(self, action: str, namespace: str | None) -> bool:
        """`namespace` None: the proxy as a whole, or a listing in which he sees what `sees` lets him see.
        KeyError for an action that is none.
        """
        if self.role < ACTIONS[action]:
            return False
        if action in WHOLE:
            return self.whole
        return namespace is None or self.sees(namespace)

    def why_not(self, action: str, namespace: str | None) -> str:
        """Who he is, what he may, what it needs."""
        where = "" if self.whole else f" in {', '.join(self.namespaces)}"
        needs = str(ACTIONS[action])
        if action in WHOLE:
            needs += ' with the namespaces "*"'
        elif namespace is not None:
            needs += f" in {namespace}"
        return f"you are {self.title}, {self.role}{where}; {action} needs {needs}"


KINDS: dict[Kind, str] = {
    "socket": "user",
    "token": "token",
    "mtls": "client certificate",
    "open": "anybody (auth = none)",
}
