"""The server name in a TLS ClientHello (RFC 8446 4.1.2, RFC 6066 3), without decrypting anything.

A pure function over bytes; never reads p[n] or beyond. The handshake message may be cut into several records.
"""

from libc.stdint cimport uint32_t

cdef enum:
    HELLO_OTHER = -1          # no TLS, or a ClientHello that does not hold together
    HELLO_MORE = -2           # not all there yet
    HELLO_MAX = 16640         # bytes looked at; past them it counts as HELLO_OTHER
    HELLO_NAME_MAX = 255

cdef int hello_name(const char *p, uint32_t n, char *name) noexcept nogil
"""The length of the server name written to `name` (HELLO_NAME_MAX bytes, lower case, no trailing dot), 0 when there is
none, else HELLO_OTHER or HELLO_MORE."""
cdef int hello_plain_name(const char *p, char *name) noexcept nogil
"""Likewise of a name that somebody else read; NUL-terminated or NULL. 0 also for one that is no name."""
