"""Header fields: names to small integers, and the tests a proxy makes on values.

A parsed head is a table of offsets into the caller's bytes; nothing is copied, nothing is owned.
"""

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t

cdef enum:
    HEAD_FIELDS_MAX = 100     # 431 past it

# Names the proxy acts on. H_OTHER is every other name.
cdef enum header_id:
    H_OTHER = 0
    H_HOST
    H_CONNECTION
    H_CONTENT_LENGTH
    H_TRANSFER_ENCODING
    H_TE
    H_TRAILER
    H_UPGRADE
    H_EXPECT
    H_KEEP_ALIVE
    H_PROXY_CONNECTION
    H_PROXY_AUTHENTICATE
    H_PROXY_AUTHORIZATION
    H_X_FORWARDED_FOR
    H_X_FORWARDED_PROTO
    H_X_FORWARDED_HOST
    H_FORWARDED
    H_X_REQUEST_ID
    H_COOKIE
    H_SET_COOKIE
    H_ACCEPT
    H_CONTENT_TYPE
    H_DATE
    H_IDEMPOTENCY_KEY
    H_RETRY_AFTER
    H_VIA
    H_X_REAL_IP
    H_N

# skip = 1 for the hop-by-hop fields (RFC 9110 7.6.1: Connection, Keep-Alive, Proxy-Connection, TE, Transfer-Encoding,
# Upgrade), for Content-Length, which the serialiser writes anew from what was parsed, and for what Connection names. A
# Connection field cannot name away Host, Cookie, Set-Cookie, Content-Type, Date, Expect, Trailer or Idempotency-Key.
cdef struct field_t:
    uint32_t name             # offset from the head's first byte
    uint32_t value            # offset of the value, optional white space trimmed
    uint32_t value_len
    uint16_t name_len
    uint8_t id                # header_id
    uint8_t skip              # 1: not forwarded as it stands, see below

cdef enum method_id:
    M_OTHER = 0
    M_GET
    M_HEAD
    M_POST
    M_PUT
    M_DELETE
    M_OPTIONS
    M_PATCH
    M_TRACE
    M_CONNECT

cdef enum head_flag:
    HEAD_CHUNKED = 1          # Transfer-Encoding: chunked, and nothing else
    HEAD_CLOSE = 2            # Connection: close
    HEAD_KEEP_ALIVE = 4       # Connection: keep-alive (matters for HTTP/1.0)
    HEAD_EXPECT = 8           # Expect: 100-continue
    HEAD_UPGRADE = 16         # Connection: upgrade and an Upgrade field
    HEAD_TRAILERS = 32        # TE: trailers
    HEAD_ABSOLUTE = 64        # absolute-form target: authority comes from it, not from Host

# A request or response head. Offsets count from the head's first byte.
cdef struct head_t:
    uint32_t length           # bytes of the whole head, the empty line included
    uint32_t target           # request: what follows the method; response: the reason phrase
    uint32_t target_len
    uint32_t path             # request: path without the query ("*" for OPTIONS *; "/" where absolute-form has none)
    uint32_t path_len
    uint32_t query            # request: after "?", not including it
    uint32_t query_len        # 0 with query == 0: none
    uint32_t authority        # request: host[:port] from absolute-form or Host
    uint32_t authority_len
    uint32_t start            # where the start line begins: 0, or 2 behind one tolerated empty line (RFC 9112 2.2)
    uint32_t method_len       # the method's name stands at `start`
    int64_t content_length    # -1: no field
    uint16_t status           # response only
    uint16_t n_fields
    uint16_t first[28]        # by header_id: index+1 of the first such field, 0: none (H_N entries used)
    uint8_t method            # method_id
    uint8_t minor             # HTTP/1.minor
    uint8_t flags             # head_flag
    field_t fields[HEAD_FIELDS_MAX]

cdef uint8_t header_lookup(const char *name, uint32_t n) noexcept nogil
"""header_id of a name, case-insensitively; H_OTHER when it is none of them."""

cdef bint token_listed(const char *value, uint32_t n, const char *token, uint32_t token_len) noexcept nogil
"""Whether a comma-separated list holds `token` (ASCII case-insensitive). `token` must be lower case."""

cdef bint equals_lower(const char *a, const char *lower, uint32_t n) noexcept nogil
"""ASCII case-insensitive equality of n bytes; `lower` must be lower case already."""

cdef bint cookie_find(const char *value, uint32_t n, const char *name, uint32_t name_len,
                      uint32_t *off, uint32_t *length) noexcept nogil
"""The value of one cookie in a Cookie field (RFC 6265 4.2.1); offsets count from `value`."""
