"""Roles, and the least role that each action needs: the one place where that is decided."""

from __future__ import annotations

from enum import IntEnum


class Role(IntEnum):
    """Each may do all that those before it may."""

    VIEWER = 1
    OPERATOR = 2
    DEPLOYER = 3
    ADMIN = 4

    def __str__(self) -> str:
        return self.name.lower()

    @classmethod
    def named(cls, word: str) -> Role:
        """Raises ValueError that names the roles there are."""
        try:
            return cls[word.upper()]
        except KeyError:
            raise ValueError(f'"{word}" is no role; there are {", ".join(ROLES)}') from None


ROLES = tuple(str(role) for role in Role)

ACTIONS: dict[str, Role] = {
    "status.read": Role.VIEWER,
    "service.read": Role.VIEWER,
    "endpoint.read": Role.VIEWER,
    "health.read": Role.VIEWER,
    "split.read": Role.VIEWER,
    "route.read": Role.VIEWER,
    "listener.read": Role.VIEWER,
    "certificate.read": Role.VIEWER,
    "worker.read": Role.VIEWER,
    "events.read": Role.VIEWER,
    # What services do for themselves, and what keeps a running system running.
    "endpoint.register": Role.OPERATOR,
    "endpoint.renew": Role.OPERATOR,
    "endpoint.deregister": Role.OPERATOR,
    "endpoint.change": Role.OPERATOR,
    "health.report": Role.OPERATOR,
    # What a release changes. The configuration holds keys that sign cookies: reading it is not for everybody.
    "service.write": Role.DEPLOYER,
    "split.change": Role.DEPLOYER,
    "config.read": Role.DEPLOYER,
    "config.write": Role.DEPLOYER,
    "config.rewind": Role.DEPLOYER,
    "proxy.reload": Role.DEPLOYER,
    "proxy.stop": Role.ADMIN,
    "proxy.upgrade": Role.ADMIN,
    "token.read": Role.ADMIN,
    "token.write": Role.ADMIN,
    "audit.read": Role.ADMIN,
}

WHOLE = frozenset(
    action for action in ACTIONS if action.partition(".")[0] in {"config", "proxy", "token", "audit"}
)
"""Actions on the proxy as a whole: for those who have every namespace."""
