"""TLS of checks: contexts that are shared by targets with the same settings, and failures in words."""

from __future__ import annotations

import asyncio
import ssl
import time
from pathlib import Path
from typing import Any, NamedTuple

from cryptography import x509

from turnout.control.health.outcome import Outcome, failed
from turnout.control.health.target import Target
from turnout.proxy.model import HealthTls, ServiceTls

VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}
DAY_S = 86_400
EXPIRED, NOT_YET, NAME, ADDRESS = 10, 9, 62, 64
UNTRUSTED = {18, 19, 20, 21}
"""OpenSSL's codes of what a verification ended with."""


class UnusableError(Exception):
    """The settings of a check cannot be used; text says why."""


class Wanted(NamedTuple):
    """What makes one context different from another. Files count with their times."""

    verify: bool
    ca: str | None
    cert: str | None
    key: str | None
    min: str
    max: str
    ciphers: str
    alpn: str
    files: tuple[tuple[str, int], ...]


class Contexts:
    """By settings. Paths are relative to `folder`, that of the configuration file."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._made: dict[Wanted, ssl.SSLContext] = {}

    def of(self, target: Target, alpn: str = "http/1.1") -> ssl.SSLContext:
        """Raises UnusableError."""
        wanted = self._wanted(target, alpn)
        found = self._made.get(wanted)
        if found is None:
            found = self._made[wanted] = _make(wanted)
        return found

    def _wanted(self, target: Target, alpn: str) -> Wanted:
        base = target.manner.tls or ServiceTls()
        own = target.health.tls or HealthTls(verify=base.verify, ca=base.ca)
        files = [self._path(path) for path in (own.ca, base.cert, base.key)]
        stamps = tuple((path, _stamp(path)) for path in files if path is not None)
        ca, cert, key = files
        return Wanted(own.verify, ca, cert, key, base.min, base.max, base.ciphers, alpn, stamps)

    def _path(self, path: str | None) -> str | None:
        return path if path is None else str(self._folder / Path(path).expanduser())


def _stamp(path: str) -> int:
    try:
        return Path(path).stat().st_mtime_ns
    except OSError:
        return 0


def _make(wanted: Wanted) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=wanted.ca)
        if wanted.cert is not None:
            context.load_cert_chain(wanted.cert, wanted.key)
        context.set_ciphers(wanted.ciphers)
    except OSError as error:
        name = wanted.ca if wanted.cert is None else wanted.cert if wanted.ca is None else "a file"
        raise UnusableError(f"{name} of the check's tls cannot be used: {error.strerror or error}") from None
    context.minimum_version, context.maximum_version = VERSIONS[wanted.min], VERSIONS[wanted.max]
    context.set_alpn_protocols([wanted.alpn])
    if not wanted.verify:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def judge_expiry(target: Target, not_after: str | None) -> Outcome | str:
    """Of a certificate that was good when the connection was made: a failure once it has run out, else a word
    of warning, empty for none. `not_after` as ssl has it.
    """
    if not_after is None:
        return ""
    left = ssl.cert_time_to_seconds(not_after) - time.time()
    if left <= 0:
        return failed(f"certificate expired {_days(-left)} ago")
    warn = target.health.tls.warn if target.health.tls is not None else HealthTls().warn
    return f"certificate expires in {_days(left)}" if left * 1000 < warn else ""


def _days(seconds: float) -> str:
    days = int(seconds // DAY_S)
    if days >= 1:
        return f"{days} day{'s' if days > 1 else ''}"
    hours = int(seconds // 3600)
    return f"{hours} hour{'s' if hours > 1 else ''}" if hours else "less than an hour"


async def explain(error: ssl.SSLError, target: Target) -> Outcome:
    """What was wrong with a handshake."""
    if not isinstance(error, ssl.SSLCertVerificationError):
        return failed(_of_protocol(error))
    if error.verify_code in UNTRUSTED:
        return failed("certificate is signed by nobody who is trusted")
    if error.verify_code not in {EXPIRED, NOT_YET, NAME, ADDRESS}:
        return failed(f"certificate refused: {error.verify_message}")
    certificate = await _shown(target)
    if certificate is None:
        return failed(f"certificate refused: {error.verify_message}")
    return failed(_of_certificate(error.verify_code, certificate, target))


def _of_protocol(error: ssl.SSLError) -> str:
    if error.reason in {
        "WRONG_VERSION_NUMBER",
        "RECORD_LAYER_FAILURE",
        "PACKET_LENGTH_TOO_LONG",
        "HTTP_REQUEST",
    }:
        return "does not speak TLS"
    return f"TLS handshake failed: {(error.reason or str(error)).lower().replace('_', ' ')}"


def _of_certificate(code: int, certificate: x509.Certificate, target: Target) -> str:
    now = time.time()
    if code == EXPIRED:
        return f"certificate expired {_days(now - certificate.not_valid_after_utc.timestamp())} ago"
    if code == NOT_YET:
        return f"certificate is not valid for another {_days(_begins(certificate) - now)}"
    return f"certificate is for {_names(certificate)}, not for {target.name}"


def _begins(certificate: x509.Certificate) -> float:
    return certificate.not_valid_before_utc.timestamp()


def _names(certificate: x509.Certificate) -> str:
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return "no name"
    names = [*found.get_values_for_type(x509.DNSName), *map(str, found.get_values_for_type(x509.IPAddress))]
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more or "no name"


async def _shown(target: Target) -> x509.Certificate | None:
    """The certificate that an endpoint shows, looked at without trusting it: a failed verification does not
    say what it saw.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        _, writer = await connect(target, context)
        shown = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        writer.transport.abort()
        return x509.load_der_x509_certificate(shown)
    except (OSError, ValueError, TypeError):
        return None


async def connect(
    target: Target, context: ssl.SSLContext | None
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """To where the target is checked."""
    secure: dict[str, Any] = {} if context is None else {"ssl": context, "server_hostname": target.name}
    if target.unix:
        return await asyncio.open_unix_connection(target.unix, **secure)
    return await asyncio.open_connection(target.host, target.port, **secure)
