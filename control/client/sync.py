"""The client for programs without an event loop, over http.client."""

from __future__ import annotations

import http.client
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar

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

T = TypeVar("T")
TIMEOUT_S = 30.0


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def connection(to: Place, timeout: float) -> http.client.HTTPConnection:
    """Connects when it is used."""
    if to.path is not None:
        return UnixConnection(to.path, timeout)
    if to.scheme == "https":
        return http.client.HTTPSConnection(to.host, to.port, timeout=timeout, context=to.context)
    return http.client.HTTPConnection(to.host, to.port, timeout=timeout)


class Client:
    """The API at `url`: "http://host:port", "https://host:port" or "unix:/path"; without it that of
    TURNOUT_API in the environment, else the unix socket of the one proxy that runs here. `token`: a bearer
    token; without it that of TURNOUT_TOKEN. `timeout`: seconds for each call.

    Calls raise NobodyAnswersError, and RefusedError with the problem that the API describes. A change is in
    force at every worker when a call returns. A client may be shared by threads.
    """

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

    @property
    def url(self) -> str:
        return self.place.url

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Nothing stays open between calls; for symmetry with AsyncClient."""

    def _all(self, page: Callable[[str | None], Call[Page[T]]]) -> list[T]:
        """The items of all pages."""
        out: list[T] = []
        cursor: str | None = None
        while True:
            answer = self._do(page(cursor))
            out += answer["items"]
            cursor = answer["next"]
            if cursor is None:
                return out

    def _do(self, call: Call[T]) -> T:
        to = connection(self.place, max(self.timeout, call.patience))
        try:
            to.request(call.method, call.target, call.content, call.all_headers | self.place.authorization)
            answer = to.getresponse()
            content = answer.read()
        except (OSError, http.client.HTTPException) as error:
            raise nobody(self.place, error) from None
        finally:
            to.close()
        return call.result(self.url, answer.status, content, answer.headers.get("Retry-After"))

    # ---- the process -------------------------------------------------------------------------------------

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """Any route of the API: the JSON of its answer."""
        return self._do(calls.any_call(method, path, body))

    def status(self) -> Any:
        """Workers, listeners, services and endpoints, with what they did lately."""
        return self._do(calls.status())

    def reload(self) -> int:
        """Read the configuration file again; the version of the snapshot that is now in force."""
        return self._do(calls.reload())

    def stop(self, *, now: bool = False) -> None:
        """Drain, then end; `now`: end at once."""
        self._do(calls.stop(now))

    def upgrade(self) -> int:
        """Put the program that is installed now in the place of the running one; its pid."""
        return self._do(calls.upgrade())

    # ---- services and endpoints --------------------------------------------------------------------------

    def services(self, **filters: str | None) -> list[Service]:
        """By name; filters: namespace, kind, source, tag, version, health."""
        return self._all(lambda cursor: calls.services(filters, cursor))

    def service(self, name: str) -> ServiceDetail:
        return self._do(calls.service(name))

    def put_service(
        self, name: str, settings: Mapping[str, Any], *, if_revision: int | None = None
    ) -> ServiceDetail:
        """Make a service, or say anew what it is like; `settings` as in a table [services.NAME] of the file.
        ChangedError when it has changed since `if_revision`.
        """
        return self._do(calls.put_service(name, settings, if_revision))

    def delete_service(self, name: str, *, if_revision: int | None = None) -> Changed:
        """Take out a service that was made through the API, with its endpoints."""
        return self._do(calls.delete_service(name, if_revision))

    def split(self, service: str, shares: Mapping[str, float] | None = None) -> dict[str, float]:
        """Give versions shares of new sessions, if said; the shares as they are now, 0 to 1."""
        return self._do(calls.split(service) if shares is None else calls.set_split(service, shares))

    def endpoints(self, service: str, **filters: str | None) -> list[Endpoint]:
        """By address; filters: source, tag, version, health, admin."""
        return self._all(lambda cursor: calls.endpoints(service, filters, cursor))

    def endpoint(
        self,
        service: str,
        address: str,
        change: Mapping[str, Any] | None = None,
        *,
        if_revision: int | None = None,
    ) -> Endpoint:
        """As it is, after a `change` of its weight, admin, reason and until, all at once."""
        if change is None:
            return self._do(calls.endpoint(service, address))
        return self._do(calls.change(service, address, change, if_revision))

    def weight(self, service: str, address: str, weight: int) -> Endpoint:
        """Give an endpoint another weight, 0 to 65535; the endpoint after the change."""
        return self._do(calls.change(service, address, {"weight": weight}))

    def admin(
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
        return self._do(calls.set_admin(service, address, admin, reason, until))

    def register(
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
        return self._do(calls.register(service, lease.body(address, ttl, settings)))

    def renew(self, service: str, address: str) -> float:
        """Put off the end of a lease by its ttl; when it ends now. NotFoundError when it has run out,
        then register again.
        """
        return self._do(calls.renew(service, address))

    def deregister(self, service: str, address: str, *, if_revision: int | None = None) -> Changed:
        """Take an endpoint out; what is under way there ends."""
        return self._do(calls.deregister(service, address, if_revision))

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
    ) -> Registration:
        """A context in which an endpoint is registered: its lease is renewed in the background, taken anew
        when it was lost, and given up at the end. `drain`: seconds that requests under way there have to end
        before that, while no new ones come.
        """
        settings = lease.settings(weight, version, priority, tags, metadata)
        return Registration(self, Spec(service, address, ttl, settings), drain)

    def health(self, service: str, address: str) -> Health:
        """What the checks of an endpoint say, and said lately."""
        return self._do(calls.health(service, address))

    def healths(self, service: str) -> list[Health]:
        """Of all endpoints of a service."""
        return self._do(calls.healths(service))

    def heartbeat(self, service: str, address: str, status: Beat = "pass", note: str = "") -> Health:
        """For an endpoint whose health is reported by itself (a check of kind ttl)."""
        return self._do(calls.heartbeat(service, address, status, note))

    # ---- events ------------------------------------------------------------------------------------------

    def past_events(
        self, since: int | None = None, *, limit: int = 100, **filters: str | None
    ) -> list[Event]:
        """What is kept: from the one after that revision, else the newest; oldest first. Filters: service,
        namespace, kind ("endpoint.health", or "endpoint" for all of endpoints).
        """
        return self._do(calls.past_events(filters, since, limit))

    def events(self, since: int | None = None, **filters: str | None) -> Iterator[Event]:
        """What happens, as it happens, without end; filters as for past_events. A connection that breaks is
        made again and no event is lost; one may come twice then. Raises NobodyAnswersError when there is no
        first connection, GoneError when what comes next is not kept any more.
        """
        parser = stream.Parser(None if since is None else str(since))
        failures = 0
        while True:
            try:
                for event in self._stream(parser, filters):
                    failures = 0
                    yield event
            except NobodyAnswersError:
                if not parser.began:
                    raise
            parser.broken()
            failures += 1
            time.sleep(stream.pause(failures))

    def _stream(self, parser: stream.Parser, filters: Mapping[str, str | None]) -> Iterator[Event]:
        call = calls.events(filters, parser.since, parser.headers)
        to = connection(self.place, max(self.timeout, stream.SILENCE_S))
        try:
            to.request(call.method, call.target, None, call.all_headers | self.place.authorization)
            answer = to.getresponse()
            if answer.status != 200:
                call.result(self.url, answer.status, answer.read(), answer.headers.get("Retry-After"))
            parser.began = True
            for line in answer:
                event = parser.feed(line.decode().rstrip("\r\n"))
                if event is not None:
                    yield event
        except (OSError, http.client.HTTPException) as error:
            raise nobody(self.place, error) from None
        finally:
            to.close()

    # ---- the configuration -------------------------------------------------------------------------------

    def config(self) -> ConfigText:
        """The file as it is in force."""
        return self._do(calls.config())

    def apply(
        self, text: str, *, dry_run: bool = False, note: str | None = None, if_version: int | None = None
    ) -> ConfigApplied:
        """Put another text in force and into the file; `dry_run`: only try it. RefusedError whose `problem`
        has `problems` when it does not validate, ChangedError when another version than `if_version` is in
        force.
        """
        return self._do(calls.apply(text, dry_run, note, if_version))

    def history(self, *, before: int | None = None, limit: int = 50) -> list[Version]:
        """Versions of the file, newest first."""
        return self._do(calls.history(before, limit))

    def version(self, number: int) -> VersionText:
        """One of the history, with its text."""
        return self._do(calls.version(number))

    def rewind(self, number: int, *, dry_run: bool = False, if_version: int | None = None) -> ConfigApplied:
        """Put an earlier version in force again, as a new one."""
        return self._do(calls.rewind(number, dry_run, if_version))

    # ---- access ------------------------------------------------------------------------------------------

    def tokens(self) -> list[Token]:
        """Oldest first, those that are no longer valid included."""
        return self._do(calls.tokens())

    def create_token(
        self, name: str, role: Role, *, namespaces: Sequence[str] = ("*",), ttl_s: float | None = None
    ) -> NewToken:
        """`token` of the answer is shown this once."""
        return self._do(calls.create_token(name, role, namespaces, ttl_s))

    def revoke_token(self, token: str) -> Token:
        """By its id."""
        return self._do(calls.revoke_token(token))

    def audit(self, **query: str | int | None) -> list[AuditEntry]:
        """Entries of the audit log; query: after, limit, newest ("true"), action, actor, subject, result."""
        return self._do(calls.audit(query))

    def verify_audit(self) -> Verdict:
        """Whether the audit log is as it was written."""
        return self._do(calls.verify_audit())


class Registration:
    """What Client.registered returns."""

    def __init__(self, client: Client, spec: Spec, drain: float) -> None:
        self._client = client
        self._keeping = Keeping(spec)
        self._drain = drain
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._keep, name=f"lease of {spec}", daemon=True)

    @property
    def error(self) -> ClientError | None:
        """Why the lease could not be renewed the last time; None while all is well."""
        return self._keeping.error

    def __enter__(self) -> Self:
        spec = self._keeping.spec
        self._client._do(calls.register(spec.service, spec.body))
        self._thread.start()
        return self

    def _keep(self) -> None:
        at_once = False
        while not self._ended.wait(0 if at_once else self._keeping.wait):
            try:
                self._client._do(self._keeping.call)
            except ClientError as error:
                at_once = self._keeping.failed(error)
            else:
                at_once = False
                self._keeping.went_well()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._let_go()
        except NotFoundError:
            pass
        except ClientError as problem:
            lease.log.warning(
                "%s is not deregistered, its lease will run out: %s", self._keeping.spec, problem
            )
        finally:
            self._end()

    def _end(self) -> None:
        """No renewal is under way after this: it might register what is deregistered."""
        self._ended.set()
        self._thread.join()

    def _let_go(self) -> None:
        spec = self._keeping.spec
        if self._drain:
            self._client.admin(spec.service, spec.address, "maint", reason=lease.LEAVING)
            deadline = time.monotonic() + self._drain
            while time.monotonic() < deadline and self._client.endpoint(*spec.place)["in_flight"]:
                time.sleep(lease.DRAIN_POLL_S)
        self._end()
        self._client.deregister(spec.service, spec.address)
