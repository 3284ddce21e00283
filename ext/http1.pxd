"""HTTP/1.x heads (RFC 9112) as pure functions over bytes: no allocation, no state, no copy.

Return value of every parser: bytes consumed (> 0), HEAD_MALFORMED, HEAD_NEED_MORE or one of the limits.
The caller owns the bytes and the table; the table's offsets count from `p`. `seen` is how many bytes an
earlier call already looked at without finding the head's end: a head that arrives byte by byte costs linear time.
Never reads p[n] or beyond.
"""

from libc.stdint cimport uint32_t
from turnout.ext.headers cimport head_t

cdef enum:
    HEAD_MALFORMED = -1       # 400
    HEAD_NEED_MORE = -2
    HEAD_LINE_TOO_LONG = -3   # 414
    HEAD_TOO_LARGE = -4       # 431: bytes or fields
    HEAD_BAD_VERSION = -5     # 505: HTTP/2 and above in an HTTP/1 line

cdef struct head_limits_t:
    uint32_t line             # bytes of the request line
    uint32_t head             # bytes of the head
    uint32_t fields           # at most HEAD_FIELDS_MAX

cdef int parse_request(const char *p, uint32_t n, uint32_t seen, const head_limits_t *limits, head_t *h) noexcept nogil
cdef int parse_response(const char *p, uint32_t n, uint32_t seen, const head_limits_t *limits, head_t *h) noexcept nogil
cdef int parse_trailers(const char *p, uint32_t n, const head_limits_t *limits, head_t *h) noexcept nogil
"""The trailer section after the last chunk, its closing empty line included. Fields that must not stand in
trailers (framing, routing, authentication: RFC 9110 6.5.1) get skip = 1. An empty section is 2 bytes, 0 fields."""

cdef const char *head_error() noexcept nogil
"""One short phrase for the last malformed head that this process parsed: what was wrong. Static storage."""
