"""HTTP and HTTPS: a request whose answer has the expected status, identity and content."""

from __future__ import annotations

import aiohttp
from yarl import URL

from turnout.control.health.check import Base
from turnout.control.health.content import Expectation
from turnout.control.health.outcome import Outcome, failed
from turnout.control.health.sessions import Sessions, of_client
from turnout.control.health.target import Target
from turnout.control.health.tcp import SEEN
from turnout.control.health.tls import Contexts, judge_expiry


class HttpCheck(Base):
    """Redirects are answers, not followed. Of the body no more than its first SEEN bytes are read; a
    connection on which more would come is closed.
    """

    def __init__(self, target: Target, sessions: Sessions, contexts: Contexts) -> None:
        super().__init__(target)
        self._sessions = sessions
        self._contexts = contexts
        self._expected = Expectation(target.health, target.version)
        self._url = url_of(target, "https" if target.secure else "http")
        self._headers = {"Host": target.authority, **target.health.headers}
        self._has_head = False

    async def probe(self) -> Outcome:
        self._has_head = False
        try:
            return await self._ask()
        except aiohttp.ClientError as error:
            return told(error)

    async def _ask(self) -> Outcome:
        target = self.target
        answer = await self._sessions.of(target).request(
            target.health.method,
            self._url,
            headers=self._headers,
            allow_redirects=False,
            ssl=self._contexts.of(target) if target.secure else True,
            server_hostname=target.name if target.secure else None,
        )
        try:
            return await self._judge(answer)
        finally:
            answer.close() if not answer.content.at_eof() else answer.release()

    async def _judge(self, answer: aiohttp.ClientResponse) -> Outcome:
        self._has_head = True
        outcome = self._expected.of_head(answer.status, answer.headers)
        if not outcome.ok:
            return outcome
        body = await self._first_bytes(answer)
        content = self._expected.of_body(body) if self.target.health.method != "HEAD" else outcome
        if not content.ok:
            return content
        expiry = judge_expiry(self.target, self._sessions.expiry(self.target)) if self.target.secure else ""
        if isinstance(expiry, Outcome):
            return expiry
        return Outcome(outcome.verdict, f"{outcome.reason}; {expiry}") if expiry else outcome

    async def _first_bytes(self, answer: aiohttp.ClientResponse) -> bytes:
        """Whole if it has no more than SEEN bytes: then the connection can be used again."""
        got = bytearray()
        while len(got) <= SEEN and not answer.content.at_eof():
            got += await answer.content.read(SEEN + 1 - len(got))
        return bytes(got[:SEEN])

    def late(self, limit: str) -> Outcome:
        return failed(
            f"answer not complete within {limit}" if self._has_head else f"no answer within {limit}"
        )


def url_of(target: Target, scheme: str) -> URL:
    host = f"[{target.host}]" if ":" in target.host else target.host or "localhost"
    port = f":{target.port}" if target.port else ""
    return URL(f"{scheme}://{host}{port}{target.health.path or '/'}", encoded=True)


def told(error: aiohttp.ClientError) -> Outcome:
    """In words; raises what the system said."""
    behind = of_client(error)
    if isinstance(behind, Exception):
        raise behind from None
    return failed(behind)
