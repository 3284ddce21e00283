"""Names of endpoints, looked up in a thread before a configuration is frozen: nothing waits for them."""

from __future__ import annotations

from collections.abc import Iterable

from turnout.proxy.model import Config
from turnout.proxy.resolve import Resolver, resolve, system_resolver

Found = dict[str, list[str] | OSError | UnicodeError]


class Names:
    """A resolver that answers from what `look_up` and `ask` found."""

    def __init__(self, resolver: Resolver = system_resolver) -> None:
        self._resolver = resolver
        self._found: Found = {}

    def look_up(self, config: Config, beside: Config | None = None) -> None:
        """All anew. Of names that only `beside` has, a former answer is better than none."""
        former, self._found = self._found, {}
        self.ask(addresses_of(config))
        strict = set(self._found)
        self.ask(addresses_of(beside) if beside is not None else ())
        for name, found in self._found.items():
            if isinstance(found, Exception) and name not in strict and isinstance(former.get(name), list):
                self._found[name] = former[name]

    def ask(self, addresses: Iterable[str]) -> dict[str, str | OSError]:
        """Look up what has not been found; each in numeric form, or why there is none."""
        return resolve(addresses, lambda name: self(name, again=True))

    def __call__(self, name: str, *, again: bool = False) -> list[str]:
        found = self._found.get(name)
        if found is None or (again and isinstance(found, Exception)):
            found = self._found[name] = self._answer(name)
        if isinstance(found, Exception):
            raise found
        return found

    def _answer(self, name: str) -> list[str] | OSError | UnicodeError:
        try:
            return self._resolver(name)
        except (OSError, UnicodeError) as error:
            return error


def addresses_of(config: Config) -> list[str]:
    return [endpoint.address for service in config.services.values() for endpoint in service.endpoints]
