"""Signing keys of sticky cookies: given in the file, or derived from a secret that is made once and kept in
the state directory. A kept secret makes cookies outlive restarts; it never leaves the machine.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
from pathlib import Path

FILE_NAME = "sticky.key"
KEY_BYTES = 16
SECRET_BYTES = 32


class KeyFileError(Exception):
    """The kept secret cannot be read or written; the text says why."""


def signing_key(material: bytes, service: str) -> str:
    """The key of a service's cookies as 32 hexadecimal digits; other services have other keys."""
    return hashlib.blake2b(service.encode(), key=_bounded(material), digest_size=KEY_BYTES).hexdigest()


def _bounded(material: bytes) -> bytes:
    """BLAKE2b takes keys of at most 64 bytes."""
    return material if len(material) <= hashlib.blake2b.MAX_KEY_SIZE else hashlib.blake2b(material).digest()


def kept_secret(directory: Path) -> bytes:
    """The secret in `directory`, made if there is none (mode 0600). Raises KeyFileError."""
    path = directory / FILE_NAME
    try:
        if not path.exists():
            _write_new(path, secrets.token_bytes(SECRET_BYTES))
        secret = path.read_bytes()
    except OSError as error:
        raise KeyFileError(f"{path}: {error.strerror}") from None
    if len(secret) != SECRET_BYTES:
        raise KeyFileError(
            f"{path}: has {len(secret)} bytes, not {SECRET_BYTES}; delete it and a new one is made"
        )
    return secret


def _write_new(path: Path, content: bytes) -> None:
    """The whole file or none, on disk before it has its name; a file that came meanwhile stays as it is."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):
            path.hardlink_to(temporary)
    finally:
        temporary.unlink()
