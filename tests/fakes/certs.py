"""A certificate authority and what it signs, for tests: ECDSA P-256 or RSA 2048, as PEM."""

from __future__ import annotations

import datetime
import functools
import ipaddress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

NOW = datetime.datetime.now(datetime.UTC).replace(microsecond=0)
DAY = datetime.timedelta(days=1)


@functools.cache
def rsa_key(number: int = 0) -> rsa.RSAPrivateKey:
    """Slow to make: a few are shared by the tests of a process."""
    return rsa.generate_private_key(65537, 2048)


def make_key(kind: str) -> Any:
    return ec.generate_private_key(ec.SECP256R1()) if kind == "ec" else rsa_key()


def key_pem(key: Any) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ).decode()


def general_name(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(text)


@dataclass(frozen=True)
class Leaf:
    """`chain` is the leaf alone: the authority stands in the clients' trust."""

    chain: str
    key: str
    certificate: x509.Certificate

    def write(self, folder: Path, name: str = "site") -> tuple[str, str]:
        """NAME.pem and NAME.key in a folder; their paths."""
        certificate, key = folder / f"{name}.pem", folder / f"{name}.key"
        certificate.write_text(self.chain)
        key.write_text(self.key)
        key.chmod(0o600)
        return str(certificate), str(key)


@dataclass(frozen=True)
class Authority:
    name: str = "Test CA"
    key: Any = field(default_factory=lambda: make_key("ec"))

    @functools.cached_property
    def certificate(self) -> x509.Certificate:
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, self.name)])
        builder = self._builder(subject, subject, self.key, -DAY, 30 * DAY)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        return builder.sign(self.key, hashes.SHA256())

    @functools.cached_property
    def pem(self) -> str:
        return self.certificate.public_bytes(serialization.Encoding.PEM).decode()

    def leaf(
        self,
        *names: str,
        kind: str = "ec",
        common: str | None = None,
        starts: datetime.timedelta = -DAY,
        ends: datetime.timedelta = 10 * DAY,
        client: bool = False,
        organization: str | None = None,
    ) -> Leaf:
        """Names are DNS names or addresses; `ends` counts from now, negative for one that has expired."""
        key = make_key(kind)
        subject = [x509.NameAttribute(NameOID.COMMON_NAME, common or (names[0] if names else "leaf"))]
        if organization is not None:
            subject.append(x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization))
        builder = self._builder(x509.Name(subject), self.certificate.subject, key, starts, ends)
        if names:
            alternative = x509.SubjectAlternativeName([general_name(name) for name in names])
            builder = builder.add_extension(alternative, critical=False)
        use = ExtendedKeyUsageOID.CLIENT_AUTH if client else ExtendedKeyUsageOID.SERVER_AUTH
        builder = builder.add_extension(x509.ExtendedKeyUsage([use]), critical=False)
        certificate = builder.sign(self.key, hashes.SHA256())
        return Leaf(certificate.public_bytes(serialization.Encoding.PEM).decode(), key_pem(key), certificate)

    def _builder(
        self,
        subject: x509.Name,
        issuer: x509.Name,
        key: Any,
        starts: datetime.timedelta,
        ends: datetime.timedelta,
    ) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(min(NOW + starts, NOW + ends - DAY))
            .not_valid_after(NOW + ends)
        )
