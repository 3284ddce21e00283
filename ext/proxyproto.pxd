"""The PROXY protocol, versions 1 and 2 (haproxy.org/download/2.9/doc/proxy-protocol.txt): who the client of a connection
is, said by the proxy in front.

Pure functions over bytes; never read p[n] or beyond.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t

cdef enum:
    PROXY_BAD = -1            # no header, or one that does not hold together
    PROXY_MORE = -2           # not all there yet
    PROXY_MAX = 4096          # bytes of the longest header taken; a longer one is PROXY_BAD
    PROXY_OUT_MAX = 107       # bytes of the longest one written

cdef struct proxied_t:
    uint8_t known             # 0: LOCAL, UNKNOWN, UNSPEC or a unix socket: the connection's own addresses count
    uint16_t source_port
    uint16_t target_port
    uint8_t source[16]        # the client's address, IPv4 mapped into IPv6
    uint8_t target[16]        # the one it connected to

cdef int proxy_parse(const char *p, uint32_t n, proxied_t *out) noexcept nogil
"""Length of the header at p[0:n], else PROXY_BAD or PROXY_MORE. Version 2's additional fields are checked to lie within it
and skipped; a datagram's header is PROXY_BAD."""

cdef int proxy_likely(const char *p, uint32_t n) noexcept nogil
"""Whether p[0:n] starts like a header: 1 it does, 0 it does not, PROXY_MORE when that cannot be told yet."""

cdef uint32_t proxy_write(uint32_t version, const proxied_t *who, char *out) noexcept nogil
"""The header for `who` written to `out` (PROXY_OUT_MAX bytes); its length. version: 1 or 2."""
