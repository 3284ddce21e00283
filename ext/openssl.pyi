def version() -> str:
    """Of the OpenSSL that TLS uses. Raises OSError when there is none."""
