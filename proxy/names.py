"""Names of endpoints, looked up in a thread before a configuration is frozen: nothing waits for them."""

from __future__ import annotations

from turnout.proxy.model import Config
from turnout.proxy.resolve import Resolver, resolve, system_resolver


class Names:
    """A resolver that answers from what `look_up` found."""

    def __init__(self, resolver: Resolver = system_resolver) -> None:
        self._resolver = resolver
        self._found: dict[str, list[str] | OSError | UnicodeError] = {}

    def look_up(self, config: Config) -> None:
        self._found = {}
        services = config.services.values()
        resolve([endpoint.address for service in services for endpoint in service.endpoints], self._ask)

    def _ask(self, name: str) -> list[str]:
        try:
            found = self._resolver(name)
        except (OSError, UnicodeError) as error:
            self._found[name] = error
            raise
        self._found[name] = found
        return found

    def __call__(self, name: str) -> list[str]:
        found = self._found.get(name)
        if found is None:
            return self._ask(name)
        if isinstance(found, Exception):
            raise found
        return found
