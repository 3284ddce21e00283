"""What the API serves: the parts that control/plane.py composes around one supervisor."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from turnout.control.access.audit import Audit
    from turnout.control.access.gate import Gate
    from turnout.control.access.tokens import Tokens
    from turnout.control.events.events import Events
    from turnout.control.health.prober import Prober
    from turnout.control.registry.history import Configurations
    from turnout.control.registry.registry import Registry
    from turnout.control.storage.store import Store
    from turnout.proxy.supervisor import Supervisor


class Parts(Protocol):
    supervisor: Supervisor
    store: Store
    events: Events
    registry: Registry
    gate: Gate
    audit: Audit
    tokens: Tokens
    prober: Prober
    history: Configurations
