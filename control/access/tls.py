"""TLS of the control listener."""

from __future__ import annotations

import asyncio
import logging
import ssl
from pathlib import Path

from cryptography import x509
from cryptography.x509.oid import ExtensionOID

from turnout.proxy.config import ConfigError, Problem
from turnout.proxy.model import ControlTls

log = logging.getLogger("turnout.access")

LOOK_S = 10.0
VERIFY = {"optional": ssl.CERT_OPTIONAL, "required": ssl.CERT_REQUIRED}


def context(tls: ControlTls, file: Path) -> ssl.SSLContext:
    """Of a configuration file's `[control] tls`. Raises ConfigError that names the file that is wrong."""
    out = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    out.minimum_version = ssl.TLSVersion.TLSv1_2
    out.set_alpn_protocols(["http/1.1"])
    load_chain(out, tls, file)
    if tls.client_ca is not None:
        try:
            out.load_verify_locations(_path(tls.client_ca, file))
        except (OSError, ssl.SSLError) as error:
            raise _problem(file, "client_ca", tls.client_ca, error) from None
        out.verify_mode = VERIFY[tls.client]
    return out


class Chain:
    """The certificate of a context, and its key: read again when their files have changed."""

    def __init__(self, context: ssl.SSLContext, tls: ControlTls, file: Path) -> None:
        self._context = context
        self._tls = tls
        self._file = file
        self._loaded = self._seen = self._look()

    async def tend(self) -> None:
        """Until it is cancelled. Files are read once they are the same at two looks: a pair is not replaced
        in one stroke.
        """
        while True:
            await asyncio.sleep(LOOK_S)
            self.look()

    def look(self) -> None:
        """Once. What cannot be used is said, and what was shown is shown still."""
        before, self._seen = self._seen, self._look()
        if before != self._seen or self._seen == self._loaded:
            return
        self._loaded = self._seen
        try:
            load_chain(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), self._tls, self._file)
            load_chain(self._context, self._tls, self._file)
        except ConfigError as error:
            log.error("the certificate of the control listener is not renewed: %s", error)  # noqa: TRY400
        else:
            log.info("the certificate of the control listener is renewed")

    def _look(self) -> tuple[object, ...]:
        return tuple(_stamp(_path(name, self._file)) for name in (self._tls.cert, self._tls.key))


def _stamp(path: Path) -> object:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size


def load_chain(into: ssl.SSLContext, tls: ControlTls, file: Path) -> None:
    """What new connections are shown from here on. Raises ConfigError, and `into` may be of no use then."""
    for key in ("cert", "key"):
        try:
            _path(getattr(tls, key), file).read_bytes()
        except OSError as error:
            raise _problem(file, key, getattr(tls, key), error) from None
    try:
        into.load_cert_chain(_path(tls.cert, file), _path(tls.key, file), password=_no_password)
    except (ssl.SSLError, ValueError) as error:
        raise _problem(file, "cert", f"{tls.cert} with key {tls.key}", error) from None


def names(tls: ControlTls, file: Path) -> frozenset[str]:
    """Host names that the certificate is for, in lower case."""
    try:
        certificate = x509.load_pem_x509_certificate(_path(tls.cert, file).read_bytes())
        found = certificate.extensions.get_extension_for_oid(ExtensionOID.SUBJECT_ALTERNATIVE_NAME)
    except (OSError, ValueError, x509.ExtensionNotFound):
        return frozenset()
    alternative = found.value
    assert isinstance(alternative, x509.SubjectAlternativeName)
    return frozenset(name.lower() for name in alternative.get_values_for_type(x509.DNSName))


def _path(name: str, file: Path) -> Path:
    return file.absolute().parent / Path(name).expanduser()


def _no_password() -> str:
    raise ValueError("the key has a password; a key without one is needed")


def _problem(file: Path, key: str, name: str, error: Exception) -> ConfigError:
    why = getattr(error, "reason", None) or getattr(error, "strerror", None) or str(error)
    return ConfigError([Problem(str(file), f"[control] tls.{key}", f"{name} cannot be used: {why}")])
