"""A name server for tests: answers from a table, or fails as it is told."""

from __future__ import annotations

import asyncio

import dns.flags
import dns.message
import dns.rcode
import dns.rrset


class Nameserver(asyncio.DatagramProtocol):
    """`records` maps (name, type) to (ttl, texts). A name without records does not exist. `rcode` fails every
    question; `silent` answers none. `asked` counts questions.
    """

    def __init__(self) -> None:
        self.records: dict[tuple[str, str], tuple[int, list[str]]] = {}
        self.rcode: str | None = None
        self.failing: set[str] = set()  # types that fail
        self.silent = False
        self.asked: list[tuple[str, str]] = []

    async def __aenter__(self) -> Nameserver:
        loop = asyncio.get_running_loop()
        self.transport, _ = await loop.create_datagram_endpoint(lambda: self, ("127.0.0.1", 0))
        self.address = "127.0.0.1:{}".format(self.transport.get_extra_info("sockname")[1])
        return self

    async def __aexit__(self, *_: object) -> None:
        self.transport.close()

    def say(self, name: str, kind: str, *texts: str, ttl: int = 1) -> None:
        self.records[name, kind] = (ttl, list(texts))

    def datagram_received(self, data: bytes, peer: tuple[str, int]) -> None:
        query = dns.message.from_wire(data)
        question = query.question[0]
        name, kind = question.name.to_text(omit_final_dot=True), dns.rdatatype.to_text(question.rdtype)
        self.asked.append((name, kind))
        if self.silent:
            return
        answer = dns.message.make_response(query)
        answer.flags |= dns.flags.RA
        if self.rcode or kind in self.failing:
            answer.set_rcode(dns.rcode.from_text(self.rcode or "SERVFAIL"))
        elif (name, kind) in self.records:
            ttl, texts = self.records[name, kind]
            if texts:
                answer.answer.append(dns.rrset.from_text(question.name, ttl, "IN", kind, *texts))
        elif not any(other == name for other, _ in self.records):
            answer.set_rcode(dns.rcode.NXDOMAIN)
        self.transport.sendto(answer.to_wire(), peer)
