"""What Python may ask about TLS before a snapshot is made."""

from typing import Any

def check_server(row: dict[str, Any]) -> None:
    """Raises ValueError, "KEY: what is wrong", for a `tls` of a listener's row (snapshot.pyi) that OpenSSL
    does not take, and OSError without OpenSSL 3.
    """

def check_client(row: dict[str, Any]) -> None:
    """Likewise for the `tls` of a service's row."""

def _contexts() -> int: ...
