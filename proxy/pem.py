"""What files of certificates and keys hold, in PEM and DER form."""

from __future__ import annotations

import datetime
import logging
from dataclasses import dataclass
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from cryptography.x509 import ocsp
from cryptography.x509.oid import NameOID

log = logging.getLogger("turnout.tls")

KINDS: tuple[tuple[type, str], ...] = (
    (rsa.RSAPublicKey, "rsa"),
    (ec.EllipticCurvePublicKey, "ec"),
    (ed25519.Ed25519PublicKey, "ed25519"),
    (ed448.Ed448PublicKey, "ed448"),
)


class UnusableError(Exception):
    """What a file holds cannot be used; the text says why."""


@dataclass(frozen=True)
class Certificate:
    """A chain with its key, as PEM. `path` is the file as written, `kind` of the key, `names` what it is for:
    DNS names in lower case, "*.example.com" among them. `ocsp` is a response in hexadecimal, or empty.
    """

    path: str
    chain: str
    key: str
    kind: str
    names: tuple[str, ...]
    expires: datetime.datetime
    ocsp: str = ""

    @property
    def row(self) -> dict[str, Any]:
        return {"chain": self.chain, "key": self.key, "ocsp": self.ocsp}


def certificate_of(path: str, chain: bytes, key: bytes) -> Certificate:
    """Raises UnusableError for what is no certificate, no key, or no pair; warns of one not valid now."""
    try:
        found = x509.load_pem_x509_certificates(chain)
    except ValueError:
        raise UnusableError(f'"{path}" holds no certificate in PEM form') from None
    leaf = found[0]
    public = leaf.public_key()
    _check_pair(path, found, key)
    now = datetime.datetime.now(datetime.UTC)
    if leaf.not_valid_after_utc < now:
        log.warning("%s: the certificate expired on %s", path, _day(leaf.not_valid_after_utc))
    elif leaf.not_valid_before_utc > now:
        log.warning("%s: the certificate is not valid before %s", path, _day(leaf.not_valid_before_utc))
    return Certificate(
        path,
        "".join(_pem(certificate) for certificate in found),
        key.decode("ascii", "replace"),
        next((kind for type_, kind in KINDS if isinstance(public, type_)), type(public).__name__),
        names_of(leaf),
        leaf.not_valid_after_utc,
    )


def _check_pair(path: str, found: list[x509.Certificate], key: bytes) -> None:
    try:
        private = load_pem_private_key(key, None)
    except TypeError:
        raise UnusableError("the key is encrypted; give it without a passphrase") from None
    except ValueError:
        raise UnusableError("the key's file holds no private key in PEM form") from None
    own = _bits(private.public_key())
    if _bits(found[0].public_key()) == own:
        return
    if any(_bits(certificate.public_key()) == own for certificate in found[1:]):
        raise UnusableError(
            f'the key belongs to a certificate of "{path}" that is not the first; put it first'
        )
    raise UnusableError(f'the key does not match the certificate "{path}"')


def _bits(key: Any) -> bytes:
    out: bytes = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return out


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(Encoding.PEM).decode()


def _day(moment: datetime.datetime) -> str:
    return moment.strftime("%Y-%m-%d")


def names_of(certificate: x509.Certificate) -> tuple[str, ...]:
    """DNS names that clients may ask for: the alternative names, or the common name where there are none."""
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        names = extension.value.get_values_for_type(x509.DNSName)
    except x509.ExtensionNotFound:
        names = [str(item.value) for item in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    return tuple(
        dict.fromkeys(name.lower().rstrip(".") for name in names if _is_host(name.lower().rstrip(".")))
    )


def _is_host(name: str) -> bool:
    bare = name.removeprefix("*.")
    return bool(bare) and len(name) < 254 and name.isascii() and not set(bare) & set("* /:@\t")


def staple_of(chain: bytes, response: bytes) -> str:
    """An OCSP response (DER) for the first certificate of a chain, in hexadecimal. Raises UnusableError."""
    try:
        found = ocsp.load_der_ocsp_response(response)
        serial = found.serial_number
    except ValueError:
        raise UnusableError("is not a successful OCSP response in DER form") from None
    if serial != x509.load_pem_x509_certificates(chain)[0].serial_number:
        raise UnusableError("is an OCSP response for another certificate")
    return response.hex()


def authorities_of(raw: bytes) -> str:
    """The certificates of a PEM file and nothing else of it. Raises UnusableError when there is none."""
    try:
        return "".join(_pem(certificate) for certificate in x509.load_pem_x509_certificates(raw))
    except ValueError:
        raise UnusableError("holds no certificate in PEM form") from None
