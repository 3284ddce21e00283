"""Certificates, keys and authorities: read from their files when a configuration is frozen, checked, and put
into rows of a snapshot's document. No worker reads a file.
"""

from __future__ import annotations

import functools
import ipaddress
import os
import ssl
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from turnout.ext.contexts import check_client, check_server
from turnout.proxy.config import ConfigError, Problem
from turnout.proxy.model import (
    ClientCertificates,
    Config,
    ListenerTls,
    Service,
    ServiceTls,
    TlsCertificate,
    TlsProtocol,
)

if TYPE_CHECKING:
    from turnout.proxy.pem import Certificate

SYSTEM_AUTHORITIES = (
    "/etc/ssl/certs/ca-certificates.crt",  # Debian, Arch
    "/etc/pki/tls/certs/ca-bundle.crt",  # Fedora
    "/etc/ssl/ca-bundle.pem",  # SUSE
    "/etc/ssl/cert.pem",  # Alpine
)
Row = dict[str, Any]
Signature = tuple[int, int, int] | None


@dataclass(frozen=True)
class TlsRows:
    """`listeners` and `services` by name: the `tls` of their rows, None without."""

    listeners: Mapping[str, Row | None] = field(default_factory=dict)
    services: Mapping[str, Row | None] = field(default_factory=dict)
    certificates: tuple[tuple[str, Certificate], ...] = ()
    """With the place in the configuration that names them: "[listeners.web] tls"."""

    @property
    def serving(self) -> bool:
        """Whether any listener speaks TLS."""
        return any(row is not None for row in self.listeners.values())


@dataclass(frozen=True)
class _Read:
    """One table of the configuration, and what came of it."""

    table: ListenerTls | ServiceTls | None
    row: Row
    seen: Mapping[Path, Signature]
    certificates: tuple[tuple[str, Certificate], ...]


class TlsFiles:
    """`file` is the configuration, beside which relative paths start. `seen` are the files of the rows that
    were read last, as they were then.
    """

    def __init__(self, file: str) -> None:
        self.file = file
        self.folder = Path(file).absolute().parent
        self.seen: dict[Path, Signature] = {}
        self._read: dict[str, _Read] = {}

    def read(self, config: Config, over_tls: Collection[str], *, again: bool = True) -> TlsRows:
        """`over_tls`: services that speak TLS to any of their endpoints. Unless `again`, only tables that are
        new are read. Raises ConfigError with everything that is wrong; then what was read before stays.
        """
        tables: dict[str, ListenerTls | ServiceTls | None] = {
            f"[listeners.{name}] tls": listener.tls
            for name, listener in config.listeners.items()
            if listener.tls is not None
        }
        tables |= {f"[services.{name}] tls": config.services[name].tls for name in over_tls}
        problems: list[Problem] = []
        seen: dict[Path, Signature] = {}
        read = {where: self._table(where, table, again, seen, problems) for where, table in tables.items()}
        if again or not problems:
            self.seen = seen
        if problems:
            raise ConfigError(problems)
        self._read = {where: done for where, done in read.items() if done is not None}
        return TlsRows(
            {name: self._row(f"[listeners.{name}] tls") for name in config.listeners},
            {name: self._row(f"[services.{name}] tls") for name in config.services},
            tuple(found for done in self._read.values() for found in done.certificates),
        )

    def _row(self, where: str) -> Row | None:
        return self._read[where].row if where in self._read else None

    def _table(
        self,
        where: str,
        table: ListenerTls | ServiceTls | None,
        again: bool,
        seen: dict[Path, Signature],
        problems: list[Problem],
    ) -> _Read | None:
        """None: there are problems with it."""
        before = self._read.get(where)
        if before is not None and not again and before.table == table:
            seen |= before.seen
            return before
        reading = _Reading(self.file, self.folder)
        row = (
            reading.listener(where, table)
            if isinstance(table, ListenerTls)
            else reading.service(where, table or ServiceTls())
        )
        seen |= reading.seen
        problems += reading.problems
        return None if row is None else _Read(table, row, reading.seen, tuple(reading.certificates))

    def look(self) -> dict[Path, Signature]:
        """The files that were read last, as they are now; `seen` as they were then."""
        return {path: signature(path) for path in self.seen}


def signature(path: Path) -> Signature:
    """Changes with the file; None without one."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


class _Reading:
    """One pass over a configuration: collects problems instead of stopping at the first."""

    def __init__(self, file: str, folder: Path) -> None:
        self.file = file
        self.folder = folder
        self.seen: dict[Path, Signature] = {}
        self.problems: list[Problem] = []
        self.certificates: list[tuple[str, Certificate]] = []

    @functools.cached_property
    def pem(self) -> ModuleType:
        """Imported by who has certificates: it takes a tenth of a second."""
        from turnout.proxy import pem  # noqa: PLC0415

        return pem

    def listener(self, where: str, tls: ListenerTls) -> Row | None:
        before = len(self.problems)
        found = [self._certificate(f"{where}{place}", conf) for place, conf in _places(tls)]
        client = tls.client or ClientCertificates(mode="off")
        authority = "" if client.mode == "off" else self._authorities(f"{where}.client.ca", client.ca)
        certificates = [certificate for certificate in found if certificate is not None]
        if len(self.problems) > before:
            return None
        contexts, names = contexts_of(certificates)
        row = {
            **protocol_row(tls),
            "certificates": [certificate.row for certificate in certificates],
            "contexts": contexts,
            "names": names,
            "strict_sni": tls.strict_sni,
            "client": client.mode,
            "client_ca": authority,
            "client_header": client.header or "",
        }
        self._check(where, check_server, row)
        return row

    def service(self, where: str, tls: ServiceTls) -> Row | None:
        before = len(self.problems)
        authority = self._authorities(f"{where}.ca", tls.ca) if tls.verify else ""
        own = None
        if tls.cert is not None and tls.key is not None:
            own = self._certificate(where, TlsCertificate(cert=tls.cert, key=tls.key))
        if len(self.problems) > before:
            return None
        row = {
            **protocol_row(tls),
            "verify": tls.verify,
            "ca": authority,
            "chain": own.chain if own else "",
            "key": own.key if own else "",
        }
        self._check(where, check_client, row)
        return row

    def _check(self, where: str, check: Any, row: Row) -> None:
        """Whether OpenSSL takes it."""
        try:
            check(row)
        except ValueError as error:
            self._problem(f"{where}.{str(error).partition(':')[0]}", str(error).partition(": ")[2])
        except OSError as error:
            self._problem(where, str(error))

    def _problem(self, where: str, what: str) -> None:
        self.problems.append(Problem(self.file, where, what))

    # ---- files -------------------------------------------------------------------------------------------

    def _certificate(self, where: str, conf: TlsCertificate) -> Certificate | None:
        chain = self._file(f"{where}.cert", conf.cert)
        key = self._file(f"{where}.key", conf.key)
        staple = self._file(f"{where}.ocsp", conf.ocsp) if conf.ocsp is not None else b""
        if chain is None or key is None or staple is None:
            return None
        try:
            out: Certificate = self.pem.certificate_of(conf.cert, chain, key)
        except self.pem.UnusableError as error:
            self._problem(where, str(error))
            return None
        if staple:
            try:
                out = replace(out, ocsp=self.pem.staple_of(chain, staple))
            except self.pem.UnusableError as error:
                self._problem(f"{where}.ocsp", f'"{conf.ocsp}" {error}')
        self.certificates.append((where, out))
        return out

    def _authorities(self, where: str, path: str | None) -> str:
        if path is None:
            path = system_authorities()
        if path is None:
            self._problem(where, "is missing, and this machine has no list of CAs; name a PEM file")
            return ""
        raw = self._file(where, path)
        if raw is None:
            return ""
        try:
            found: str = self.pem.authorities_of(raw)
        except self.pem.UnusableError as error:
            self._problem(where, f'"{path}" {error}')
            return ""
        return found

    def _file(self, where: str, path: str) -> bytes | None:
        full = self.folder / Path(path).expanduser()
        self.seen[full] = signature(full)
        try:
            return full.read_bytes()
        except OSError as error:
            self._problem(where, f'"{path}" cannot be read: {error.strerror}')
            return None


def _places(tls: ListenerTls) -> Iterator[tuple[str, TlsCertificate]]:
    if tls.cert is not None and tls.key is not None:
        yield "", TlsCertificate(cert=tls.cert, key=tls.key, ocsp=tls.ocsp)
    for number, certificate in enumerate(tls.certificates, 1):
        yield f".certificates[{number}]", certificate


@functools.cache
def system_authorities() -> str | None:
    """Where this machine keeps the CAs that it trusts."""
    own = ssl.get_default_verify_paths().cafile
    return next((path for path in (own, *SYSTEM_AUTHORITIES) if path and os.access(path, os.R_OK)), None)


# ---- rows ------------------------------------------------------------------------------------------------


def protocol_row(tls: TlsProtocol) -> Row:
    return {
        "min": tls.min,
        "max": tls.max,
        "ciphers": tls.ciphers,
        "ciphersuites": tls.ciphersuites,
        "curves": tls.curves,
    }


def contexts_of(certificates: list[Certificate]) -> tuple[list[list[int]], list[list[str | int]]]:
    """Which certificates serve together (one for each kind of key), and which of these sets serves a name.
    The first set is that of the first certificate. Where several of a kind are for a name, the first counts.
    """
    chosen: dict[str, dict[str, int]] = {}
    for place, certificate in enumerate(certificates):
        for name in certificate.names:
            chosen.setdefault(name, {}).setdefault(certificate.kind, place)
    first = certificates[0].names
    contexts = [sorted(chosen[first[0]].values()) if first else [0]]
    names: list[list[str | int]] = []
    for name, places in chosen.items():
        together = sorted(places.values())
        if together not in contexts:
            contexts.append(together)
        names.append([name, contexts.index(together)])
    return contexts, names


def name_for(service: Service, address: str) -> str:
    """What an endpoint is asked for and has to prove to be; empty when nobody knows."""
    if service.tls is not None and service.tls.name is not None:
        return service.tls.name
    if address.startswith("unix:"):
        return ""
    host = address.rpartition(":")[0].strip("[]")
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        return host.rstrip(".").lower()
