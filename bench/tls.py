"""TLS in the bench: one certificate for every peer, and a client that does nothing but handshakes."""

from __future__ import annotations

import datetime
import os
import socket
import ssl
import time
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

NAME = "bench.test"
REQUEST = b"GET /75 HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n"


def make_certificate(folder: Path) -> None:
    """site.pem, site.key and both in one as both.pem: ECDSA P-256, self-signed."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, NAME)])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(NAME)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    chain = certificate.public_bytes(serialization.Encoding.PEM)
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    for file, content in (("site.pem", chain), ("site.key", secret), ("both.pem", chain + secret)):
        (folder / file).write_bytes(content)


def context() -> ssl.SSLContext:
    """TLS 1.3 that trusts everybody."""
    out = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    out.check_hostname = False
    out.verify_mode = ssl.CERT_NONE
    out.minimum_version = ssl.TLSVersion.TLSv1_3
    return out


def handshakes(port: int, seconds: float, *, resume: bool, cpu: int) -> tuple[int, int]:
    """One connection after another with one request each, for so long: how many, and how many
    went otherwise than asked for (resumed or not).
    """
    here = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {cpu})
    try:
        return _handshakes(port, seconds, resume)
    finally:
        os.sched_setaffinity(0, here)


def _handshakes(port: int, seconds: float, resume: bool) -> tuple[int, int]:
    mine = context()
    session = None
    count = wrong = 0
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        with socket.create_connection(("127.0.0.1", port), timeout=10) as sock:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with mine.wrap_socket(sock, server_hostname=NAME, session=session) as tls:
                tls.sendall(REQUEST)
                while tls.recv(4096):
                    pass
                wrong += tls.session_reused != resume and count > 0
                session = tls.session if resume else None
        count += 1
    return count, wrong
