"""Asking the DNS for endpoints: A and AAAA of a name, or SRV records (RFC 2782) and the addresses of their
targets. What cannot be asked stands as it was last answered.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass

import dns.asyncresolver
import dns.exception
import dns.nameserver
import dns.rdatatype
import dns.resolver

TTL_MIN_S, TTL_MAX_S = 1.0, 300.0
"""However long an answer may be kept by its own word."""
NOTHING_S = 5.0
"""A name that does not exist, or has no such records, is asked for again after so long."""
RETRY_S, RETRY_MAX_S = 1.0, 30.0
"""After a failure, doubled from one to the next."""
PATIENCE_S = 5.0
"""For all servers and repetitions of one question."""
PRIORITY_MAX = 255


@dataclass(frozen=True)
class Question:
    """`port` is None for SRV, whose records have one each. `server` ("host:port") overrides the system's."""

    name: str
    port: int | None
    server: str | None = None

    def __str__(self) -> str:
        return f"SRV {self.name}" if self.port is None else f"{self.name}:{self.port}"


@dataclass(frozen=True, order=True)
class Found:
    """An endpoint that the DNS named."""

    address: str
    weight: int = 1
    priority: int = 0


@dataclass(frozen=True)
class Answer:
    """`ttl` in seconds until it should be asked again; `failure` says what could not be asked, in words."""

    found: tuple[Found, ...]
    ttl: float
    failure: str | None = None


@dataclass(frozen=True)
class _Records:
    texts: tuple[tuple[str, ...], ...]
    ttl: float
    failure: str | None = None


class Lookup:
    """Asks one question, again and again, and remembers the last good records of each name and type."""

    def __init__(self, question: Question, patience: float = PATIENCE_S) -> None:
        """Raises OSError when the system names no server and the question has none."""
        self.question = question
        self._resolver = _resolver(question.server, patience)
        self._good: dict[tuple[str, str], _Records] = {}
        self._failures = 0

    async def ask(self) -> Answer:
        """Never raises: what fails is in the answer."""
        self._asked: list[_Records] = []
        if self.question.port is None:
            found = await self._services(self.question.name)
        else:
            hosts = await self._addresses(self.question.name)
            found = [Found(f"{host}:{self.question.port}") for host in hosts]
        return self._answer(found)

    def _answer(self, found: Iterable[Found]) -> Answer:
        failure = next((records.failure for records in self._asked if records.failure), None)
        self._failures = self._failures + 1 if failure else 0
        if failure:
            ttl = min(RETRY_S * 2 ** min(self._failures - 1, 10), RETRY_MAX_S)
        else:
            ttl = max(TTL_MIN_S, min([TTL_MAX_S, *(records.ttl for records in self._asked)]))
        by_address: dict[str, Found] = {}
        for one in found:
            by_address.setdefault(one.address, one)
        return Answer(tuple(sorted(by_address.values())), ttl, failure)

    async def _services(self, name: str) -> list[Found]:
        """Weight 0 is the least there is where others have more (RFC 2782), and priorities count from 0."""
        records = await self._records(name, "SRV")
        rows = [(int(p), int(w), int(port), target) for p, w, port, target in records.texts if target != "."]
        order = sorted({row[0] for row in rows})
        hosts = await asyncio.gather(*(self._addresses(row[3]) for row in rows))
        return [
            Found(f"{host}:{port}", max(weight, 1), min(order.index(priority), PRIORITY_MAX))
            for (priority, weight, port, _), some in zip(rows, hosts, strict=True)
            for host in some
        ]

    async def _addresses(self, name: str) -> list[str]:
        """IPv6 in brackets."""
        four, six = await asyncio.gather(self._records(name, "A"), self._records(name, "AAAA"))
        return [text for (text,) in four.texts] + [f"[{text}]" for (text,) in six.texts]

    async def _records(self, name: str, kind: str) -> _Records:
        """As answered, or as last answered when nobody can be asked."""
        former = self._good.get((name, kind), _Records((), TTL_MAX_S))
        try:
            records = await self._query(name, kind)
        except (dns.exception.DNSException, OSError) as error:
            records = _Records(former.texts, former.ttl, f"{kind} of {name}: {_reason(error)}")
        else:
            self._good[name, kind] = records
        self._asked.append(records)
        return records

    async def _query(self, name: str, kind: str) -> _Records:
        try:
            answer = await self._resolver.resolve(name, kind, raise_on_no_answer=False, search=False)
        except dns.resolver.NXDOMAIN:
            return _Records((), NOTHING_S)
        if answer.rrset is None:
            # Who has no AAAA is not asked the more often for it.
            return _Records((), TTL_MAX_S if kind == "AAAA" else NOTHING_S)
        return _Records(tuple(_texts(record) for record in answer.rrset), float(answer.rrset.ttl))


def _texts(record: dns.rdata.Rdata) -> tuple[str, ...]:
    if record.rdtype == dns.rdatatype.SRV:
        parts = record.to_text().split()
        return (*parts[:3], parts[3] if parts[3] == "." else parts[3].rstrip("."))
    return (record.to_text(),)


def _resolver(server: str | None, patience: float) -> dns.asyncresolver.Resolver:
    try:
        resolver = dns.asyncresolver.Resolver(configure=server is None)
    except dns.resolver.NoResolverConfiguration:
        raise OSError("this machine names no DNS server in /etc/resolv.conf") from None
    if server is not None:
        host, _, port = server.rpartition(":")
        resolver.nameservers = [dns.nameserver.Do53Nameserver(host.strip("[]"), int(port))]
    resolver.lifetime = patience
    resolver.timeout = min(1.5, patience)
    return resolver


def _reason(error: Exception) -> str:
    if isinstance(error, dns.exception.Timeout):
        return "no answer in time"
    if isinstance(error, dns.resolver.NoNameservers):
        return "every server failed or refused"
    return str(error) or type(error).__name__
