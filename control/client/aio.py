"""The client for programs with an event loop, over aiohttp: Client's methods, to be awaited."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar

import aiohttp
from yarl import URL

from turnout.control.client import calls, lease, stream
from turnout.control.client.calls import Call
from turnout.control.client.errors import ClientError, NobodyAnswersError, NotFoundError
from turnout.control.client.lease import Keeping, Spec
from turnout.control.client.place import Place, Tls, nobody, whereabouts
from turnout.control.client.shapes import (
    Admin,
    AuditEntry,
    Beat,
    Changed,
    ConfigApplied,
    ConfigText,
    Endpoint,
    Event,
    Health,
    NewToken,
    Page,
    Role,
    Service,
    ServiceDetail,
    Token,
    Verdict,
    Version,
    VersionText,
)
from turnout.control.client.sync import TIMEOUT_S

T = TypeVar("T")
LINE_MAX = 1 << 20


def connector(to: Place) -> aiohttp.BaseConnector:
    if to.path is not None:
        return aiohttp.UnixConnector(to.path)
    if to.scheme == "https":
        return aiohttp.TCPConnector(ssl=to.context)
    return aiohttp.TCPConnector()


class AsyncClient:
    """As Client. It keeps connections: leave it with `async with`, or `await close()`."""

    def __init__(
        self,
        url: str | None = None,
        *,
        token: str | None = None,
        tls: Tls | None = None,
        timeout: float = TIMEOUT_S,
    ) -> None:
        """Raises BadUrlError, and discover.SeveralError when several proxies run here."""
        self.place = whereabouts(url, token, tls)
        self.timeout = timeout
        self._session: aiohttp.ClientSession | None = None

    @property
    def url(self) -> str:
        return self.place.url

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        if self._session is not None:
            session, self._session = self._session, None
            await session.close()

    def _open(self) -> aiohttp.ClientSession:
        """Made within a running loop."""
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=connector(self.place), headers=self.place.authorization, read_bufsize=LINE_MAX
            )
        return self._session

    def _request(self, call: Call[Any], timeout: aiohttp.ClientTimeout) -> Any:
        """A context with the answer."""
        return self._open().request(
            call.method,
            URL(self.place.base + call.target, encoded=True),
            data=call.content,
            headers=call.all_headers,
            timeout=timeout,
            allow_redirects=False,
        )

    async def _all(self, page: Callable[[str | None], Call[Page[T]]]) -> list[T]:
        """The items of all pages."""
        out: list[T] = []
        cursor: str | None = None
        while True:
            answer = await self._do(page(cursor))
            out += answer["items"]
            cursor = answer["next"]
            if cursor is None:
                return out

    async def _do(self, call: Call[T]) -> T:
        timeout = aiohttp.ClientTimeout(total=max(self.timeout, call.patience))
        try:
            async with self._request(call, timeout) as answer:
                content = await answer.read()
        except TimeoutError:
            raise nobody(self.place, TimeoutError("timed out")) from None
        except (OSError, aiohttp.ClientError) as error:
            raise nobody(self.place, error) from None
        return call.result(self.url, answer.status, content, answer.headers.get("Retry-After"))

    # ---- the process -------------------------------------------------------------------------------------

    async def call(self, method: str, path: str, body: Any = None) -> Any:
        """Any route of the API: the JSON of its answer."""
        return await self._do(calls.any_call(method, path, body))

    async def status(self) -> Any:
        """Workers, listeners, services and endpoints, with what they did lately."""
        return await self._do(calls.status())

    async def reload(self) -> int:
        """Read the configuration file again; the version of the snapshot that is now in force."""
        return await self._do(calls.reload())

    async def stop(self, *, now: bool = False) -> None:
        """Drain, then end; `now`: end at once."""
        await self._do(calls.stop(now))

    async def upgrade(self) -> int:
        """Put the program that is installed now in the place of the running one; its pid."""
        return await self._do(calls.upgrade())

    # ---- services and endpoints --------------------------------------------------------------------------

    async def services(self, **filters: str | None) -> list[Service]:
        """By name; filters: namespace, kind, source, tag, version, health."""
        return await self._all(lambda cursor: calls.services(filters, cursor))

    async def service(self, name: str) -> ServiceDetail:
        return await self._do(calls.service(name))

    async def put_service(
        self, name: str, settings: Mapping[str, Any], *, if_revision: int | None = None
    ) -> ServiceDetail:
        """Make a service, or say anew what it is like; `settings` as in a table [services.NAME] of the file.
        ChangedError when it has changed since `if_revision`.
        """
        return await self._do(calls.put_service(name, settings, if_revision))

    async def delete_service(self, name: str, *, if_revision: int | None = None) -> Changed:
        """Take out a service that was made through the API, with its endpoints."""
        return await self._do(calls.delete_service(name, if_revision))

    async def split(self, service: str, shares: Mapping[str, float] | None = None) -> dict[str, float]:
        """Give versions shares of new sessions, if said; the shares as they are now, 0 to 1."""
        return await self._do(calls.split(service) if shares is None else calls.set_split(service, shares))

    async def endpoints(self, service: str, **filters: str | None) -> list[Endpoint]:
        """By address; filters: source, tag, version, health, admin."""
        return await self._all(lambda cursor: calls.endpoints(service, filters, cursor))

    async def endpoint(
        self,
        service: str,
        address: str,
        change: Mapping[str, Any] | None = None,
        *,
        if_revision: int | None = None,
    ) -> Endpoint:
        """As it is, after a `change` of its weight, admin, reason and until, all at once."""
        if change is None:
            return await self._do(calls.endpoint(service, address))
        return await self._do(calls.change(service, address, change, if_revision))

    async def weight(self, service: str, address: str, weight: int) -> Endpoint:
        """Give an endpoint another weight, 0 to 65535; the endpoint after the change."""
        return await self._do(calls.change(service, address, {"weight": weight}))

    async def admin(
        self,
        service: str,
        address: str,
        admin: Admin,
        *,
        reason: str | None = None,
        until: float | None = None,
    ) -> Endpoint:
        """Set an endpoint to "ready", "drain" (no new sessions) or "maint" (no request); the endpoint after
        the change. `until`: when it is ready again by itself.
        """
        return await self._do(calls.set_admin(service, address, admin, reason, until))

    async def register(
        self,
        service: str,
        address: str,
        *,
        ttl: float | None = None,
        weight: int | None = None,
        version: str | None = None,
        priority: int | None = None,
        tags: Sequence[str] = (),
        metadata: Mapping[str, str] | None = None,
    ) -> Endpoint:
        """Add an endpoint, or say it anew. With `ttl` it is taken out when it is not renewed for so many
        seconds; without, it stays until it is deregistered.
        """
        settings = lease.settings(weight, version, priority, tags, metadata)
        return await self._do(calls.register(service, lease.body(address, ttl, settings)))

    async def renew(self, service: str, address: str) -> float:
        """Put off the end of a lease by its ttl; when it ends now. NotFoundError when it has run out,
        then register again.
        """
        return await self._do(calls.renew(service, address))

    async def deregister(self, service: str, address: str, *, if_revision: int | None = None) -> Changed:
        """Take an endpoint out; what is under way there ends."""
        return await self._do(calls.deregister(service, address, if_revision))

    def registered(
        self,
        service: str,
        address: str,
        *,
        ttl: float = lease.TTL_S,
        drain: float = 0,
        weight: int | None = None,
        version: str | None = None,
        priority: int | None = None,
        tags: Sequence[str] = (),
        metadata: Mapping[str, str] | None = None,
    ) -> AsyncRegistration:
        """A context in which an endpoint is registered: its lease is renewed in the background, taken anew
        when it was lost, and given up at the end. `drain`: seconds that requests under way there have to end
        before that, while no new ones come.
        """
        settings = lease.settings(weight, version, priority, tags, metadata)
        return AsyncRegistration(self, Spec(service, address, ttl, settings), drain)

    async def health(self, service: str, address: str) -> Health:
        """What the checks of an endpoint say, and said lately."""
        return await self._do(calls.health(service, address))

    async def healths(self, service: str) -> list[Health]:
        """Of all endpoints of a service."""
        return await self._do(calls.healths(service))

    async def heartbeat(self, service: str, address: str, status: Beat = "pass", note: str = "") -> Health:
        """For an endpoint whose health is reported by itself (a check of kind ttl)."""
        return await self._do(calls.heartbeat(service, address, status, note))

    # ---- events ------------------------------------------------------------------------------------------

    async def past_events(
        self, since: int | None = None, *, limit: int = 100, **filters: str | None
    ) -> list[Event]:
        """What is kept: from the one after that revision, else the newest; oldest first. Filters: service,
        namespace, kind ("endpoint.health", or "endpoint" for all of endpoints).
        """
        return await self._do(calls.past_events(filters, since, limit))

    async def events(self, since: int | None = None, **filters: str | None) -> AsyncIterator[Event]:
        """What happens, as it happens, without end; filters as for past_events. A connection that breaks is
        made again and no event is lost; one may come twice then. Raises NobodyAnswersError when there is no
        first connection, GoneError when what comes next is not kept any more.
        """
        parser = stream.Parser(None if since is None else str(since))
        failures = 0
        while True:
            try:
                async for event in self._stream(parser, filters):
                    failures = 0
                    yield event
            except NobodyAnswersError:
                if not parser.began:
                    raise
            parser.broken()
            failures += 1
            await asyncio.sleep(stream.pause(failures))

    async def _stream(self, parser: stream.Parser, filters: Mapping[str, str | None]) -> AsyncIterator[Event]:
        call = calls.events(filters, parser.since, parser.headers)
        timeout = aiohttp.ClientTimeout(
            total=None, sock_connect=self.timeout, sock_read=max(self.timeout, stream.SILENCE_S)
        )
        try:
            async with self._request(call, timeout) as answer:
                if answer.status != 200:
                    content = await answer.read()
                    call.result(self.url, answer.status, content, answer.headers.get("Retry-After"))
                parser.began = True
                async for line in answer.content:
                    event = parser.feed(line.decode().rstrip("\r\n"))
                    if event is not None:
                        yield event
        except (OSError, TimeoutError, aiohttp.ClientError) as error:
            raise nobody(self.place, error) from None

    # ---- the configuration -------------------------------------------------------------------------------

    async def config(self) -> ConfigText:
        """The file as it is in force."""
        return await self._do(calls.config())

    async def apply(
        self, text: str, *, dry_run: bool = False, note: str | None = None, if_version: int | None = None
    ) -> ConfigApplied:
        """Put another text in force and into the file; `dry_run`: only try it. RefusedError whose `problem`
        has `problems` when it does not validate, ChangedError when another version than `if_version` is in
        force.
        """
        return await self._do(calls.apply(text, dry_run, note, if_version))

    async def history(self, *, before: int | None = None, limit: int = 50) -> list[Version]:
        """Versions of the file, newest first."""
        return await self._do(calls.history(before, limit))

    async def version(self, number: int) -> VersionText:
        """One of the history, with its text."""
        return await self._do(calls.version(number))

    async def rewind(
        self, number: int, *, dry_run: bool = False, if_version: int | None = None
    ) -> ConfigApplied:
        """Put an earlier version in force again, as a new one."""
        return await self._do(calls.rewind(number, dry_run, if_version))

    # ---- access ------------------------------------------------------------------------------------------

    async def tokens(self) -> list[Token]:
        """Oldest first, those that are no longer valid included."""
        return await self._do(calls.tokens())

    async def create_token(
        self, name: str, role: Role, *, namespaces: Sequence[str] = ("*",), ttl_s: float | None = None
    ) -> NewToken:
        """`token` of the answer is shown this once."""
        return await self._do(calls.create_token(name, role, namespaces, ttl_s))

    async def revoke_token(self, token: str) -> Token:
        """By its id."""
        return await self._do(calls.revoke_token(token))

    async def audit(self, **query: str | int | None) -> list[AuditEntry]:
        """Entries of the audit log; query: after, limit, newest ("true"), action, actor, subject, result."""
        return await self._do(calls.audit(query))

    async def verify_audit(self) -> Verdict:
        """Whether the audit log is as it was written."""
        return await self._do(calls.verify_audit())


class AsyncRegistration:
    """What AsyncClient.registered returns."""

    def __init__(self, client: AsyncClient, spec: Spec, drain: float) -> None:
        self._client = client
        self._keeping = Keeping(spec)
        self._drain = drain
        self._task: asyncio.Task[None] | None = None

    @property
    def error(self) -> ClientError | None:
        """Why the lease could not be renewed the last time; None while all is well."""
        return self._keeping.error

    async def __aenter__(self) -> Self:
        spec = self._keeping.spec
        await self._client._do(calls.register(spec.service, spec.body))
        self._task = asyncio.create_task(self._keep(), name=f"lease of {spec}")
        return self

    async def _keep(self) -> None:
        at_once = False
        while True:
            await asyncio.sleep(0 if at_once else self._keeping.wait)
            try:
                await self._client._do(self._keeping.call)
            except ClientError as error:
                at_once = self._keeping.failed(error)
            else:
                at_once = False
                self._keeping.went_well()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self._let_go()
        except NotFoundError:
            pass
        except ClientError as problem:
            lease.log.warning(
                "%s is not deregistered, its lease will run out: %s", self._keeping.spec, problem
            )
        finally:
            await self._end()

    async def _end(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _let_go(self) -> None:
        spec = self._keeping.spec
        if self._drain:
            await self._client.admin(spec.service, spec.address, "maint", reason=lease.LEAVING)
            deadline = asyncio.get_running_loop().time() + self._drain
            while (
                asyncio.get_running_loop().time() < deadline
                and (await self._client.endpoint(*spec.place))["in_flight"]
            ):
                await asyncio.sleep(lease.DRAIN_POLL_S)
        await self._end()
        await self._client.deregister(spec.service, spec.address)
