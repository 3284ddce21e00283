"""What a configuration file says, with every default. Durations are milliseconds, sizes bytes; in JSON
they are written as the file has them.

Each class is one table of the file; docs/configuration.md describes every key.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    Strict,
    field_validator,
    model_validator,
)

from turnout.proxy import checks
from turnout.proxy.paths import canonical_path
from turnout.proxy.units import format_duration, format_size, parse_duration, parse_size


def above_zero(ms: int) -> int:
    if ms == 0:
        raise ValueError('a time of 0 leaves none; write "off" for no limit')
    return ms


Int = Annotated[int, Strict()]
Number = Annotated[float, Strict(), Field(allow_inf_nan=False)]
Bool = Annotated[bool, Strict()]
Count = Annotated[int, Strict(), Field(ge=0, le=(1 << 31) - 1)]
Duration = Annotated[
    int,
    BeforeValidator(parse_duration, json_schema_input_type=str),
    PlainSerializer(format_duration, return_type=str, when_used="json"),
]
Timeout = Annotated[Duration, AfterValidator(above_zero)]
Size = Annotated[
    int,
    BeforeValidator(parse_size, json_schema_input_type=str | int),
    PlainSerializer(format_size, return_type=str, when_used="json"),
]

Balance = Literal[
    "round_robin",
    "least_connections",
    "weighted_round_robin",
    "ip_hash",
    "random",
    "least_response_time",
    "consistent_hash",
]

TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
HEADER_VALUE = re.compile(r"[\t\x20-\x7e\x80-\uffff]*")
TEXT_MAX = 255
"""Bytes of a name or an attribute; the snapshot has room for no more."""
HOST_PATTERN = re.compile(r"(\*\.)?[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*|\[[0-9A-Fa-f:.]+\]")
PATH = re.compile(r"/[\x21-\x22\x24-\x3e\x40-\x7e]*")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
SERVICE_NAME = re.compile(rf"(?:{NAME.pattern}:)?{NAME.pattern}")
"""A service's full name: alone in the namespace "default", else with its own in front."""
DEFAULT_NAMESPACE = "default"
Kind = Literal["http", "https", "tcp", "udp", "grpc", "websocket"]
"""What a service speaks."""
INTERMEDIATE = ":".join(
    f"ECDHE-{key}-{cipher}"
    for cipher in ("AES128-GCM-SHA256", "AES256-GCM-SHA384", "CHACHA20-POLY1305")
    for key in ("ECDSA", "RSA")
)
HSTS = r"max-age=\d{1,10}(; ?includeSubDomains)?(; ?preload)?"
WRITTEN_BY_PROXY = frozenset(
    {
        "host",
        "connection",
        "content-length",
        "transfer-encoding",
        "keep-alive",
        "upgrade",
        "te",
        "trailer",
        "x-request-id",
        "x-forwarded-for",
        "x-forwarded-proto",
        "x-forwarded-host",
        "forwarded",
    }
)


def check_name(value: str, what: str) -> str:
    if not NAME.fullmatch(value):
        raise ValueError(f'"{value}" is not {what}; use up to 64 letters, digits, ".", "_" and "-"')
    return value


def check_table_name(value: str) -> str:
    return check_name(value, "a name for a listener")


def check_service_name(value: str) -> str:
    if not SERVICE_NAME.fullmatch(value):
        raise ValueError(
            f'"{value}" is not a name for a service; use up to 64 letters, digits, ".", "_" and "-", '
            'and "namespace:" in front if it has one'
        )
    namespace, colon, name = value.partition(":")
    if colon and namespace == DEFAULT_NAMESPACE:
        raise ValueError(f'"{value}" is in the namespace that needs no name; write "{name}"')
    return value


Name = Annotated[str, AfterValidator(check_table_name)]
ServiceName = Annotated[str, AfterValidator(check_service_name)]


def split_name(full_name: str) -> tuple[str, str]:
    """Namespace and name of a service."""
    namespace, colon, name = full_name.partition(":")
    return (namespace, name) if colon else (DEFAULT_NAMESPACE, full_name)


def check_address(value: str, *, what: str, any_host: bool) -> str:
    """host:port, [IPv6]:port or unix:/path."""
    if value.startswith("unix:"):
        if not value[5:].startswith("/") or len(value[5:]) > 107:
            raise ValueError(
                f'"{value}" is not {what}; a unix socket is "unix:/absolute/path" of at most 107 bytes'
            )
        return value
    match = re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]*):(\d{1,5})", value)
    if not match or not (any_host or match[1]) or not 1 <= int(match[2]) <= 65535:
        raise ValueError(f'"{value}" is not {what}; write "host:port", "[IPv6]:port" or "unix:/path"')
    check_number(match[1], value)
    return value


def check_number(host: str, value: str) -> None:
    """A host that looks like a numeric address must be one."""
    if not (host.startswith("[") or re.fullmatch(r"[\d.]+", host)):
        return
    try:
        ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        raise ValueError(f'"{value}" has no valid IP address in it') from None


def check_text(value: str, what: str) -> str:
    """What may stand in one line of a head or a log."""
    if not HEADER_VALUE.fullmatch(value) or value != value.strip():
        raise ValueError(f"{what} has a character that may not stand in a header, or blanks around it")
    return value


def check_bind(value: str) -> str:
    return check_address(value, what="an address to listen on", any_host=True)


def check_causes(value: tuple[str, ...], words: tuple[str, ...]) -> tuple[str, ...]:
    """Words, single statuses ("503") and classes ("5xx")."""
    for item in value:
        if item not in words and not re.fullmatch(r"[1-5](xx|\d\d)", item):
            raise ValueError(
                f'"{item}" is not one of {", ".join(words)}, a status like "503" or a class like "5xx"'
            )
    return value


class Table(BaseModel):
    """A table of the file: frozen, unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


class AccessLog(Table):
    path: str = "off"
    sample: Number = Field(default=1.0, ge=0, le=1)
    slow: Timeout = Field(default="1s", validate_default=True)
    errors: Bool = True


class Proxy(Table):
    workers: Int | Literal["auto"] = "auto"
    grace: Duration = "30s"  # type: ignore[assignment]
    state: str | None = None
    max_endpoints: Int = Field(default=4096, ge=1, le=65536)
    sticky_table: Int = Field(default=65536, ge=1024, le=1 << 24)
    buffers: Size = Field(default="128MB", validate_default=True, ge=1 << 20)
    access_log: AccessLog = AccessLog()

    @field_validator("workers")
    @classmethod
    def _some_workers(cls, value: int | str) -> int | str:
        if isinstance(value, int) and not 1 <= value <= 64:
            raise ValueError('workers is "auto" (one per CPU) or a number from 1 to 64')
        return value

    @field_validator("sticky_table")
    @classmethod
    def _power_of_two(cls, value: int) -> int:
        return 1 << (value - 1).bit_length()


def is_local(address: str) -> bool:
    """Can only this machine reach what listens there?"""
    host = address.rpartition(":")[0].strip("[]")
    if address.startswith("unix:") or host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


NAMESPACES = re.compile(r"[A-Za-z0-9_.*?-]{1,64}")


def check_namespaces(value: tuple[str, ...]) -> tuple[str, ...]:
    """Names and patterns of namespaces, one at least."""
    if not value:
        raise ValueError('no namespace; "*" is every one')
    for item in value:
        if not NAMESPACES.fullmatch(item):
            raise ValueError(f'"{item}" is no namespace; write a name, or a pattern like "team-*"')
    return value


class ControlTls(Table):
    """Paths are relative to the file's folder. `client_ca`: who signs the certificates of clients."""

    cert: str
    key: str
    client_ca: str | None = None
    client: Literal["optional", "required"] = "optional"


class ControlClient(Table):
    """What the bearer of a client certificate may do."""

    role: Literal["viewer", "operator", "deployer", "admin"]
    namespaces: Annotated[tuple[str, ...], AfterValidator(check_namespaces)] = ("*",)


class Control(Table):
    listen: str = "127.0.0.1:9900"
    socket: str = "auto"
    auth: Literal["tokens", "none"] = "tokens"
    tls: ControlTls | None = None
    clients: dict[str, ControlClient] = {}
    state: str = "sqlite"
    watch: Bool = True

    @field_validator("listen")
    @classmethod
    def _address(cls, value: str) -> str:
        return check_bind(value)

    @field_validator("socket")
    @classmethod
    def _place(cls, value: str) -> str:
        if value in {"auto", "off"}:
            return value
        if value.startswith("unix:"):
            return check_bind(value)
        raise ValueError(f'"{value}" is no place for a unix socket; write "auto", "unix:/path" or "off"')

    @field_validator("state")
    @classmethod
    def _database(cls, value: str) -> str:
        if value != "sqlite" and not value.startswith(("sqlite:////", "postgresql://")):
            raise ValueError(
                f'"{value}" is no place for state; write "sqlite" (in the state directory), '
                '"sqlite:////absolute/path" or "postgresql://user@host/database"'
            )
        return value

    @model_validator(mode="after")
    def _kept_to_itself(self) -> Self:
        if self.auth == "none" and not is_local(self.listen):
            raise ValueError(
                f'auth = "none" with listen = "{self.listen}": whoever reaches it from another machine could '
                'stop the proxy; write auth = "tokens", or listen = "127.0.0.1:9900"'
            )
        if self.tls is not None and self.listen.startswith("unix:"):
            raise ValueError(f'tls is for TCP, and listen = "{self.listen}" is a unix socket; leave one out')
        if self.clients and (self.tls is None or self.tls.client_ca is None):
            raise ValueError("clients are known by certificates; tls needs client_ca, the CAs that sign them")
        if self.socket == self.listen:
            raise ValueError(f'socket and listen are both "{self.listen}"; leave socket out, or write "off"')
        return self


TlsVersion = Literal["1.2", "1.3"]


class TlsProtocol(Table):
    """What is negotiated. Defaults: Mozilla's intermediate configuration (5.7) without finite-field DH."""

    min: TlsVersion = "1.2"
    max: TlsVersion = "1.3"
    ciphers: str = INTERMEDIATE
    ciphersuites: str = "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256"
    curves: str = "X25519:P-256:P-384"

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.min > self.max:
            raise ValueError(f'min = "{self.min}" is above max = "{self.max}"')
        return self


class TlsCertificate(Table):
    """Paths are relative to the file's folder. `ocsp`: a response in DER form, stapled as it is."""

    cert: str
    key: str
    ocsp: str | None = None


class ClientCertificates(Table):
    mode: Literal["off", "optional", "required"] = "required"
    ca: str | None = None
    header: str | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.mode != "off" and self.ca is None:
            raise ValueError('client needs ca = "FILE", the CAs that client certificates are signed by')
        if self.header is not None and not TOKEN.fullmatch(self.header):
            raise ValueError(f'"{self.header}" is not a header name')
        if self.header is not None and self.header.lower() in WRITTEN_BY_PROXY:
            raise ValueError(f'"{self.header}" is written by the proxy itself and cannot be used here')
        return self


class ListenerTls(TlsProtocol):
    cert: str | None = None
    key: str | None = None
    ocsp: str | None = None
    certificates: tuple[TlsCertificate, ...] = ()
    strict_sni: Bool = False
    client: ClientCertificates | None = None
    hsts: Bool | str = False

    @field_validator("hsts")
    @classmethod
    def _policy(cls, value: bool | str) -> bool | str:
        if isinstance(value, str) and not re.fullmatch(HSTS, value):
            raise ValueError(
                f'"{value}" is not a policy; write true or "max-age=SECONDS; includeSubDomains; preload"'
            )
        return value

    @model_validator(mode="after")
    def _some_certificate(self) -> Self:
        if (self.cert is None) != (self.key is None):
            raise ValueError("cert and key go together: the chain, and the key of its first certificate")
        if self.cert is None and not self.certificates:
            raise ValueError('no certificate; write cert = "site.pem" and key = "site.key"')
        if self.cert is None and self.ocsp is not None:
            raise ValueError("ocsp goes with cert; in certificates each has its own")
        return self

    @property
    def policy(self) -> str:
        """The value of Strict-Transport-Security, empty for none."""
        return self.hsts if isinstance(self.hsts, str) else "max-age=63072000" if self.hsts else ""


class ServiceTls(TlsProtocol):
    """How endpoints are spoken to over TLS. Without `ca` the machine's own list counts, without `name` the
    host of the endpoint's address.
    """

    verify: Bool = True
    ca: str | None = None
    name: str | None = None
    cert: str | None = None
    key: str | None = None

    @model_validator(mode="after")
    def _pair(self) -> Self:
        if (self.cert is None) != (self.key is None):
            raise ValueError("cert and key go together")
        if self.name is not None and not re.fullmatch(r"[A-Za-z0-9._:-]{1,253}", self.name):
            raise ValueError(f'"{self.name}" is not a host name or address')
        if self.ca is not None and not self.verify:
            raise ValueError("ca says whom to trust, verify = false trusts everybody; leave one out")
        return self


UDP_SESSIONS = 65536
"""At a time at a UDP listener that does not say otherwise."""


class ListenerTimeouts(Table):
    header: Timeout = "10s"  # type: ignore[assignment]
    body: Timeout = "60s"  # type: ignore[assignment]
    body_rate: Size = Field(default="240B", validate_default=True, le=(1 << 32) - 1)
    keepalive: Timeout = "75s"  # type: ignore[assignment]
    half_close: Duration = "1s"  # type: ignore[assignment]


class ListenerLimits(Table):
    connections: Count = 0
    line: Size = Field(default="8kB", validate_default=True, ge=256, le=16384)
    head: Size = Field(default="32kB", validate_default=True, ge=1024, le=32768)
    fields: Int = Field(default=100, ge=1, le=100)
    body: Size = "0B"  # type: ignore[assignment]
    requests: Count = 0


class Datagrams(Table):
    """How a UDP listener takes what comes: by client, or each datagram on its own."""

    sessions: Bool = True
    responses: Count = 0


class Listener(Table):
    bind: str
    tls: ListenerTls | None = None
    redirect_https: Bool | Int = False
    protocol: Literal["http", "tcp", "udp"] = "http"
    backlog: Int = Field(default=4096, ge=1, le=65535)
    timeouts: ListenerTimeouts = ListenerTimeouts()
    limits: ListenerLimits = ListenerLimits()
    trusted: tuple[str, ...] = ()
    proxy_protocol: bool = False
    udp: Datagrams = Datagrams()
    forwarded: tuple[Literal["x-forwarded", "forwarded"], ...] = ("x-forwarded",)

    @property
    def connections(self) -> int:
        """At a time; of UDP, sessions, and always a bound: each holds a descriptor."""
        return self.limits.connections or (UDP_SESSIONS if self.protocol == "udp" else 0)

    @field_validator("bind")
    @classmethod
    def _address(cls, value: str) -> str:
        return check_bind(value)

    @model_validator(mode="after")
    def _one_scheme(self) -> Self:
        if self.redirect_https is not False and self.tls is not None:
            raise ValueError("redirect_https is for a listener without tls: this one speaks HTTPS already")
        if self.redirect_https is not True and not 0 <= self.redirect_https <= 65535:
            raise ValueError("redirect_https is true (port 443) or the port that clients reach HTTPS at")
        return self

    @property
    def redirects(self) -> str | None:
        """Where all its requests are sent, as a redirect's target; None for nowhere."""
        if self.redirect_https is False:
            return None
        port = "" if self.redirect_https in {True, 443} else f":{self.redirect_https}"
        return f"https://{{host}}{port}{{path}}{{query}}"

    @field_validator("trusted")
    @classmethod
    def _networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for item in value:
            try:
                ipaddress.ip_network(item, strict=False)
            except ValueError:
                raise ValueError(
                    f'"{item}" is not a network; write an address or CIDR like "10.0.0.0/8"'
                ) from None
        return value


TAGS_MAX, METADATA_MAX, METADATA_VALUE_MAX = 64, 64, 1024


def check_tag(value: str) -> str:
    return check_name(value, "a tag or a key of metadata")


Tag = Annotated[str, AfterValidator(check_tag)]


class Endpoint(Table):
    address: str
    weight: Int = Field(default=1, ge=0, le=65535)
    version: str = "v1"
    priority: Int = Field(default=0, ge=0, le=255)
    tls: Bool | None = None
    tags: tuple[Tag, ...] = ()
    metadata: dict[Tag, str] = Field(default={}, max_length=METADATA_MAX)

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        """An address alone, and a scheme before an address: it says `tls`."""
        if isinstance(value, str):
            value = {"address": value}
        if not isinstance(value, dict):
            raise ValueError(  # noqa: TRY004 - what pydantic takes from validators
                'an endpoint is "host:port" or a table like { address = "host:port", weight = 2 }'
            )
        scheme, found, rest = str(value.get("address")).partition("://")
        if found and scheme in {"http", "https"} and "tls" not in value:
            return value | {"address": rest.rstrip("/"), "tls": scheme == "https"}
        return value

    @field_validator("address")
    @classmethod
    def _address(cls, value: str) -> str:
        return check_address(value, what="an endpoint's address", any_host=False)

    @field_validator("version")
    @classmethod
    def _version(cls, value: str) -> str:
        return check_name(value, "a version")

    @field_validator("tags")
    @classmethod
    def _some_tags(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(value)) != len(value) or len(value) > TAGS_MAX:
            raise ValueError(f"tags are up to {TAGS_MAX} different words")
        return value

    @field_validator("metadata")
    @classmethod
    def _short_values(cls, value: dict[str, str]) -> dict[str, str]:
        for key, text in value.items():
            if len(check_text(text, f'the value of "{key}"')) > METADATA_VALUE_MAX:
                raise ValueError(f'the value of "{key}" has more than {METADATA_VALUE_MAX} characters')
        return value


class Sticky(Table):
    cookie: str | None = None
    source: Bool = False
    ttl: Timeout = "30m"  # type: ignore[assignment]
    sliding: Bool = True
    key: str | None = None
    http_only: Bool = True
    same_site: Literal["Lax", "Strict", "None", "unset"] = "Lax"
    secure: Bool = False
    path: str = "/"
    domain: str | None = None

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if (self.cookie is None) == (not self.source):
            raise ValueError('say cookie = "NAME" or source = true, one of the two')
        if self.cookie is not None and (not TOKEN.fullmatch(self.cookie) or len(self.cookie) > TEXT_MAX):
            raise ValueError(f'"{self.cookie}" is not a cookie name; use letters, digits, "-" and "_"')
        if self.key is not None and len(self.key) < 16:
            raise ValueError("the signing key needs at least 16 characters")
        if self.same_site == "None" and not self.secure:
            raise ValueError('same_site = "None" is accepted by browsers only with secure = true')
        for text in (self.path, self.domain or ""):
            if not re.fullmatch(r"[\x21-\x3a\x3c-\x7e]*", text) or len(text) > TEXT_MAX:
                raise ValueError(f'"{text}" may not stand in a cookie attribute')
        return self


class Hash(Table):
    key: str = "source"
    bounded_load: Number = Field(default=0, ge=0, le=10)

    @field_validator("key")
    @classmethod
    def _known_source(cls, value: str) -> str:
        kind, _, name = value.partition(":")
        if kind in {"source", "path"} and not name:
            return value
        if kind in {"header", "cookie", "query"} and TOKEN.fullmatch(name):
            return value
        raise ValueError('key is "source", "path", "header:NAME", "cookie:NAME" or "query:NAME"')

    @field_validator("bounded_load")
    @classmethod
    def _above_mean(cls, value: float) -> float:
        if 0 < value < 1.01:
            raise ValueError("bounded_load is 0 (off) or a factor above the mean load, like 1.25")
        return value


BreakerCause = Literal["connect", "timeout", "reset"]


class Breaker(Table):
    failures: Int = Field(default=5, ge=0, le=255)
    open: Timeout = "60s"  # type: ignore[assignment]
    open_max: Timeout = "10m"  # type: ignore[assignment]
    jitter: Number = Field(default=0.1, ge=0, le=1)
    probes: Int = Field(default=1, ge=1, le=15)
    successes: Int = Field(default=1, ge=1, le=15)
    on: tuple[str, ...] = ("connect", "timeout", "reset", "502", "503", "504")
    last: Bool = False

    @field_validator("on")
    @classmethod
    def _causes(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return check_causes(value, ("connect", "timeout", "reset"))


class Retries(Table):
    attempts: Int = Field(default=2, ge=0, le=8)
    budget: Number = Field(default=0.2, ge=0, le=1)
    floor: Number = Field(default=10, ge=0, le=10000)
    on: tuple[str, ...] = ("connect", "stale", "reset", "timeout")
    methods: tuple[str, ...] = ("GET", "HEAD", "OPTIONS", "PUT", "DELETE", "TRACE")

    @field_validator("on")
    @classmethod
    def _causes(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return check_causes(value, ("connect", "stale", "reset", "timeout"))

    @field_validator("methods")
    @classmethod
    def _known_methods(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        known = ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE")
        for method in value:
            if method not in known:
                raise ValueError(f'"{method}" is not one of {", ".join(known)}')
        return value


class ServiceTimeouts(Table):
    connect: Timeout = "5s"  # type: ignore[assignment]
    response: Timeout = "60s"  # type: ignore[assignment]
    idle: Timeout = "60s"  # type: ignore[assignment]
    tunnel: Timeout = "1h"  # type: ignore[assignment]
    tunnel_drain: Timeout = "30s"  # type: ignore[assignment]
    session: Timeout = "60s"  # type: ignore[assignment]
    keepalive: Timeout = "60s"  # type: ignore[assignment]


class ServiceLimits(Table):
    connections: Count = 0
    queue: Count = 512
    queue_timeout: Timeout = "5s"  # type: ignore[assignment]
    pool: Count = 128
    requests: Count = 0


def check_name_server(value: str) -> str:
    """An IP address with or without a port; with one."""
    host, port = value, "53"
    if match := re.fullmatch(r"(?:\[(.+)\]|([\d.]+)):(\d{1,5})", value):
        host, port = match[1] or match[2], match[3]
    try:
        number = ipaddress.ip_address(host)
    except ValueError:
        raise ValueError(
            f'"{value}" is no address of a name server; write one like "10.0.0.2" or "10.0.0.2:5353"'
        ) from None
    text = f"[{number}]:{port}" if number.version == 6 else f"{number}:{port}"
    return check_address(text, what="the address of a name server", any_host=False)


class Discover(Table):
    """Where endpoints are found: the addresses of a name, or SRV records. `server` is who is asked; None: who
    this machine asks.
    """

    dns: str | None = None
    srv: str | None = None
    server: str | None = None
    version: str = "v1"

    @field_validator("version")
    @classmethod
    def _version(cls, value: str) -> str:
        return check_name(value, "a version")

    @field_validator("server")
    @classmethod
    def _server(cls, value: str | None) -> str | None:
        if value is None:
            return value
        return check_name_server(value)

    @field_validator("dns")
    @classmethod
    def _address(cls, value: str | None) -> str | None:
        return value if value is None else check_address(value, what="a name and port", any_host=False)

    @field_validator("srv")
    @classmethod
    def _record(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(r"_[A-Za-z0-9-]+\._(tcp|udp)(\.[A-Za-z0-9_-]+)+\.?", value):
            raise ValueError(f'"{value}" is no name of SRV records; write one like "_http._tcp.example.com"')
        return value

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if (self.dns is None) == (self.srv is None):
            raise ValueError('say dns = "host:port" or srv = "_service._tcp.name", one of the two')
        return self


CheckType = Literal["http", "https", "tcp", "udp", "grpc", "websocket", "ttl", "exec"]
FAST, SLOW, SLOW_MAX, PROBE_TIMEOUT = 500, 5_000, 30_000, 1_000
"""Of health checks that do not say otherwise, milliseconds."""


class HealthTls(Table):
    """How a check speaks TLS; without it as requests do."""

    verify: Bool = True
    ca: str | None = None
    name: str | None = None
    warn: Duration = "14d"  # type: ignore[assignment]

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.name is not None and not re.fullmatch(r"[A-Za-z0-9._:-]{1,253}", self.name):
            raise ValueError(f'"{self.name}" is not a host name or address')
        if self.ca is not None and not self.verify:
            raise ValueError("ca says whom to trust, verify = false trusts everybody; leave one out")
        return self


class Health(Table):
    """How endpoints are checked. `check` says which kind of check it comes to."""

    type: CheckType | None = None
    path: str | None = None
    method: Literal["GET", "HEAD", "OPTIONS", "POST"] = "GET"
    headers: dict[str, str] = {}
    host: str | None = None
    status: tuple[str, ...] = ("200-299",)
    degraded: tuple[str, ...] = ("429",)
    body: str | None = Field(default=None, min_length=1, max_length=1024)
    pattern: str | None = Field(default=None, min_length=1, max_length=256)
    values: dict[str, str | Bool | Int | Number] = {}
    identity: str | None = None
    port: Int | None = Field(default=None, ge=1, le=65535)
    tls: HealthTls | None = None
    send: str | None = Field(default=None, min_length=1, max_length=4096)
    expect: str | None = Field(default=None, min_length=1, max_length=1024)
    grpc: str | None = None
    ttl: Timeout | None = None
    exec: tuple[str, ...] | None = Field(default=None, min_length=1)
    interval: Timeout = "2s"  # type: ignore[assignment]
    timeout: Timeout | None = None
    rise: Int = Field(default=2, ge=1, le=255)
    fall: Int = Field(default=3, ge=1, le=255)
    jitter: Number = Field(default=0.1, ge=0, le=0.5)
    fast: Timeout | None = None
    slow: Timeout | None = None
    slow_max: Timeout | None = None

    @field_validator("path")
    @classmethod
    def _path(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(r"/[\x21-\x22\x24-\x7e]*", value):
            raise ValueError('a path starts with "/" and has neither "#" nor blanks')
        return value

    @field_validator("headers")
    @classmethod
    def _headers(cls, value: dict[str, str]) -> dict[str, str]:
        for name, text in value.items():
            if not TOKEN.fullmatch(name):
                raise ValueError(f'"{name}" is not a header name')
            if name.lower() in {"host", "connection", "content-length", "transfer-encoding", "upgrade"}:
                raise ValueError(
                    f'"{name}" is written by the check itself'
                    + ('; say host = "NAME"' if name.lower() == "host" else "")
                )
            check_text(text, f'the value of "{name}"')
        return value

    @field_validator("host")
    @classmethod
    def _host(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(r"[A-Za-z0-9._:\[\]-]{1,255}", value):
            raise ValueError(f'"{value}" is not what a Host field says; write "name" or "name:port"')
        return value

    @field_validator("status", "degraded")
    @classmethod
    def _statuses(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        checks.parse_statuses(value)
        return value

    @field_validator("pattern")
    @classmethod
    def _pattern(cls, value: str | None) -> str | None:
        return value if value is None else checks.check_pattern(value)

    @field_validator("values")
    @classmethod
    def _pointers(cls, value: dict[str, Any]) -> dict[str, Any]:
        for pointer in value:
            checks.check_pointer(pointer)
        return value

    @field_validator("identity")
    @classmethod
    def _identity(cls, value: str | None) -> str | None:
        if value is not None and not TOKEN.fullmatch(value):
            raise ValueError(f'"{value}" is not a header name')
        return value

    @field_validator("send", "expect")
    @classmethod
    def _bytes(cls, value: str | None) -> str | None:
        if value is not None and not checks.parse_bytes(value):
            raise ValueError("has no bytes in it")
        return value

    @field_validator("grpc")
    @classmethod
    def _grpc_service(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(r"[\x21-\x7e]{0,255}", value):
            raise ValueError(
                'grpc is the name of a gRPC service like "orders.v1.Orders", or "" for the server'
            )
        return value

    @field_validator("interval", "timeout", "ttl", "fast", "slow", "slow_max")
    @classmethod
    def _at_a_time(cls, value: int | None) -> int | None:
        if value is not None and not 10 <= value <= 86_400_000:
            raise ValueError("times of a health check are from 10ms to 1d")
        return value

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        kind = self.type or checks.implied(self.given)
        wrong = self.misfit("https" if kind == "http" and self.type is None else kind) if kind else None
        if wrong is not None:
            raise ValueError(wrong)
        self._check_times()
        return self

    @property
    def given(self) -> set[str]:
        """Keys that say something."""
        unsaid = {key: field.default for key, field in type(self).model_fields.items()}
        unsaid |= {"type": self.type, "interval": parse_duration(unsaid["interval"])}
        return {key for key, default in unsaid.items() if getattr(self, key) != default}

    def misfit(self, kind: str) -> str | None:
        """Why this cannot be a check of that kind; None when it can."""
        for key in sorted(self.given - checks.KEYS[kind]):
            return f"{key} means nothing to a check of type {kind}"
        needed = {"exec": self.exec, "ttl": self.ttl, "udp": self.send}
        return f"a check of type {kind} needs {checks.NEEDS[kind]}" if needed.get(kind, "") is None else None

    def _check_times(self) -> None:
        said = {key: getattr(self, key) for key in ("interval", "timeout", "fast", "slow", "slow_max")}
        for low, high in (
            ("timeout", "interval"),
            ("fast", "interval"),
            ("interval", "slow"),
            ("slow", "slow_max"),
        ):
            if said[low] is not None and said[high] is not None and said[low] > said[high]:
                raise ValueError(f"{low} must not be longer than {high}")

    @property
    def timeout_ms(self) -> int:
        return self.timeout or min(PROBE_TIMEOUT, self.interval)

    @property
    def fast_ms(self) -> int:
        return self.fast or min(FAST, self.interval)

    @property
    def slow_ms(self) -> int:
        return self.slow or max(SLOW if self.slow_max is None else min(SLOW, self.slow_max), self.interval)

    @property
    def slow_max_ms(self) -> int:
        return self.slow_max or max(SLOW_MAX, self.slow_ms)

    def check(self, kind: str | None, *, over_tls: bool) -> CheckType:
        """The kind of check for a service of this kind ("http", "tcp", ...; None: not said). A service that
        names no path is connected to, and that is all.
        """
        if self.type is not None:
            return self.type
        said = checks.implied(self.given)
        if said in {"exec", "ttl", "grpc"}:
            return said  # type: ignore[return-value]
        if kind in {"grpc", "websocket", "udp"}:
            return kind  # type: ignore[return-value]
        if said == "http":
            return "https" if over_tls or self.tls is not None else "http"
        return "tcp"


class Service(Table):
    kind: Kind = "http"
    balance: Balance = "round_robin"
    endpoints: tuple[Endpoint, ...] = ()
    discover: Discover | None = None
    split: dict[str, Number] | None = None
    sticky: Sticky | None = None
    hash: Hash = Hash()
    slow_start: Duration | None = None
    panic: Number = Field(default=0.5, ge=0, le=1)
    breaker: Breaker = Breaker()
    health: Health | None = None
    timeouts: ServiceTimeouts = ServiceTimeouts()
    retries: Retries = Retries()
    limits: ServiceLimits = ServiceLimits()
    host: str = "preserve"
    proxy_protocol: Literal["v1", "v2"] | None = None
    tls: ServiceTls | None = None

    @field_validator("host")
    @classmethod
    def _host_mode(cls, value: str) -> str:
        kind, _, text = value.partition(":")
        if value in {"preserve", "endpoint"} or (
            kind == "literal" and re.fullmatch(r"[A-Za-z0-9._:\[\]-]+", text)
        ):
            return value
        raise ValueError('host is "preserve", "endpoint" or "literal:NAME"')

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        seen: set[str] = set()
        for endpoint in self.endpoints:
            if endpoint.address in seen:
                raise ValueError(f'the endpoint "{endpoint.address}" stands there twice')
            seen.add(endpoint.address)
            if (why := self.refuses(endpoint)) is not None:
                raise ValueError(why)
        self._check_split()
        self._check_health()
        return self

    def _check_health(self) -> None:
        if self.health is None:
            return
        kind = self.health.check(self.kind, over_tls=self.tls is not None or self.kind == "https")
        wrong = self.health.misfit("https" if kind == "http" and self.health.type is None else kind)
        if wrong is not None:
            raise ValueError(f"health of a service of kind {self.kind}: {wrong}")

    def refuses(self, endpoint: Endpoint) -> str | None:
        """Why an endpoint cannot be one of this service; None for one that can."""
        unix, over_tls = endpoint.address.startswith("unix:"), self.over_tls(endpoint)
        if self.host == "endpoint" and unix:
            return f'host = "endpoint" cannot stand with "{endpoint.address}", which names no host'
        if over_tls and self.proxy_protocol is not None:
            return f'proxy_protocol cannot stand with "{endpoint.address}", which is spoken to over TLS'
        if over_tls and unix and not self._named:
            return f'"{endpoint.address}" names no host to verify; give tls a name, or verify = false'
        return None

    def over_tls(self, endpoint: Endpoint) -> bool:
        """By the endpoint's own word, else by whether the service has `tls` or is of the kind "https"."""
        if endpoint.tls is not None:
            return endpoint.tls
        return self.tls is not None or self.kind == "https"

    @property
    def _named(self) -> bool:
        return self.tls is not None and (self.tls.name is not None or not self.tls.verify)

    def _check_split(self) -> None:
        if self.split is None:
            return
        for version, share in self.split.items():
            check_name(version, "a version")
            if share < 0:
                raise ValueError(f'the share of "{version}" is negative')
        if sum(self.split.values()) <= 0:
            raise ValueError("the shares of split add up to 0; one of them must be above 0")

    @property
    def slow_start_ms(self) -> int:
        """As configured; on by default where a newcomer would otherwise be flooded."""
        if self.slow_start is not None:
            return self.slow_start
        return 10_000 if self.balance in {"least_connections", "least_response_time"} else 0


class HeaderEdits(Table):
    set: dict[str, str] = {}
    remove: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _legal(self) -> Self:
        for name in (*self.set, *self.remove):
            if not TOKEN.fullmatch(name):
                raise ValueError(f'"{name}" is not a header name')
            if name.lower() in WRITTEN_BY_PROXY:
                raise ValueError(f'"{name}" is written by the proxy itself and cannot be edited here')
        for name, value in self.set.items():
            check_text(value, f'the value of "{name}"')
        return self


class Respond(Table):
    status: Int = Field(default=200, ge=200, le=599)
    body: str = ""
    content_type: str = "text/plain; charset=utf-8"

    @field_validator("content_type")
    @classmethod
    def _content_type(cls, value: str) -> str:
        return check_text(value, "the content type")


class Redirect(Table):
    to: str
    status: Literal[301, 302, 303, 307, 308] = 308

    @field_validator("to")
    @classmethod
    def _template(cls, value: str) -> str:
        for name in re.findall(r"\{(.*?)\}", value):
            if name not in {"scheme", "host", "path", "query"}:
                raise ValueError(f'"{{{name}}}" is unknown; use {{scheme}}, {{host}}, {{path}} or {{query}}')
        if not re.fullmatch(r"[\x21-\x7e]+", value):
            raise ValueError("a redirect's target is one URI without blanks")
        return value


class RouteLog(Table):
    sample: Number | None = Field(default=None, ge=0, le=1)
    slow: Timeout | None = None
    errors: Bool | None = None


class Route(Table):
    name: str | None = None
    listener: str | None = None
    host: str | None = None
    path: str = "/"
    methods: tuple[str, ...] = ()
    headers: dict[str, str] = {}
    service: str | None = None
    respond: Respond | None = None
    redirect: Redirect | None = None
    strip_prefix: Bool = False
    rewrite: str | None = None
    upgrade: tuple[str, ...] = ("websocket",)
    request_headers: HeaderEdits = HeaderEdits()
    response_headers: HeaderEdits = HeaderEdits()
    log: RouteLog = RouteLog()

    @field_validator("name")
    @classmethod
    def _name(cls, value: str | None) -> str | None:
        if value is not None and not 0 < len(check_text(value, "a route's name").encode()) <= TEXT_MAX:
            raise ValueError(f"a route's name has 1 to {TEXT_MAX} bytes")
        return value

    @field_validator("path", "rewrite")
    @classmethod
    def _path(cls, value: str | None) -> str | None:
        if value is not None and not PATH.fullmatch(value):
            raise ValueError('a path starts with "/" and has neither "?" nor "#" nor blanks')
        return value

    @field_validator("path")
    @classmethod
    def _canonical(cls, value: str) -> str:
        canonical_path(value)
        return value

    @field_validator("host")
    @classmethod
    def _host(cls, value: str | None) -> str | None:
        if value is not None and (not HOST_PATTERN.fullmatch(value) or len(value) > 253):
            raise ValueError('a host is a name without port, like "api.example.com" or "*.example.com"')
        return value.lower() if value else value

    @field_validator("methods")
    @classmethod
    def _methods(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for method in value:
            if not TOKEN.fullmatch(method):
                raise ValueError(f'"{method}" is not a method')
        return value

    @field_validator("upgrade")
    @classmethod
    def _protocols(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            parts = name.split("/", 1)
            if not all(TOKEN.fullmatch(part) for part in parts) or parts[0].lower() in {"h2c", "h2"}:
                raise ValueError(f'"{name}" is not a protocol to upgrade to; write names like "websocket"')
        return value

    @field_validator("headers")
    @classmethod
    def _headers(cls, value: dict[str, str]) -> dict[str, str]:
        for name, wanted in value.items():
            if not TOKEN.fullmatch(name):
                raise ValueError(f'"{name}" is not a header name')
            check_text(wanted, f'the value of "{name}"')
        return value

    @model_validator(mode="after")
    def _one_target(self) -> Self:
        targets = [name for name in ("service", "respond", "redirect") if getattr(self, name) is not None]
        if len(targets) != 1:
            said = " and ".join(targets) or "none of them"
            raise ValueError(f"a route needs exactly one of service, respond, redirect; this one has {said}")
        if self.strip_prefix and self.rewrite is not None:
            raise ValueError("strip_prefix and rewrite exclude each other")
        return self

    @property
    def title(self) -> str:
        """Its name, or what it matches."""
        return self.name or f"{self.host or '*'}{self.path}"[:TEXT_MAX]


class Config(Table):
    proxy: Proxy = Proxy()
    control: Control = Control()
    listeners: dict[Name, Listener] = {}
    services: dict[ServiceName, Service] = {}
    routes: tuple[Route, ...] = ()
