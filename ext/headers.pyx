"""See headers.pxd."""

from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport memset, strlen

cdef enum:
    NAME_MAX = 32

# By header_id; lower case.
cdef const char *NAMES[28]
NAMES[:] = [
    b"", b"host", b"connection", b"content-length", b"transfer-encoding", b"te", b"trailer", b"upgrade", b"expect",
    b"keep-alive", b"proxy-connection", b"proxy-authenticate", b"proxy-authorization", b"x-forwarded-for",
    b"x-forwarded-proto", b"x-forwarded-host", b"forwarded", b"x-request-id", b"cookie", b"set-cookie", b"accept",
    b"content-type", b"date", b"idempotency-key", b"retry-after", b"via", b"x-real-ip", b"",
]

# ids[by_length[n]] .. ids[by_length[n + 1]] are the names of n bytes.
cdef uint8_t ids[28]
cdef uint8_t by_length[NAME_MAX + 2]


cdef void index_names() noexcept nogil:
    cdef uint32_t n, i, at = 0
    memset(by_length, 0, sizeof(by_length))
    for n in range(NAME_MAX + 1):
        by_length[n] = <uint8_t>at
        for i in range(1, H_N):
            if strlen(NAMES[i]) == n:
                ids[at] = <uint8_t>i
                at += 1
    by_length[NAME_MAX + 1] = <uint8_t>at


index_names()


cdef inline char lower(char c) noexcept nogil:
    return c + 32 if c'A' <= c <= c'Z' else c


cdef bint equals_lower(const char *a, const char *lower_case, uint32_t n) noexcept nogil:
    cdef uint32_t i
    for i in range(n):
        if lower(a[i]) != lower_case[i]:
            return False
    return True


cdef uint8_t header_lookup(const char *name, uint32_t n) noexcept nogil:
    cdef uint32_t i
    if n == 0 or n > NAME_MAX:
        return H_OTHER
    for i in range(by_length[n], by_length[n + 1]):
        if lower(name[0]) == NAMES[ids[i]][0] and equals_lower(name, NAMES[ids[i]], n):
            return ids[i]
    return H_OTHER


cdef inline bint blank(char c) noexcept nogil:
    return c == c' ' or c == c'\t'


cdef bint token_listed(const char *value, uint32_t n, const char *token, uint32_t token_len) noexcept nogil:
    cdef uint32_t at = 0, stop, end
    while at < n:
        stop = at
        while stop < n and value[stop] != c',' and value[stop] != c';':
            stop += 1
        end = stop
        while at < end and blank(value[at]):
            at += 1
        while end > at and blank(value[end - 1]):
            end -= 1
        if end - at == token_len and equals_lower(value + at, token, token_len):
            return True
        while stop < n and value[stop] != c',':
            stop += 1
        at = stop + 1
    return False


cdef bint cookie_find(const char *value, uint32_t n, const char *name, uint32_t name_len,
                      uint32_t *off, uint32_t *length) noexcept nogil:
    cdef uint32_t at = 0, stop, end
    while at < n:
        stop = at
        while stop < n and value[stop] != c';':
            stop += 1
        while at < stop and blank(value[at]):
            at += 1
        end = stop
        while end > at and blank(value[end - 1]):
            end -= 1
        if end - at > name_len and value[at + name_len] == c'=' and same(value + at, name, name_len):
            off[0] = at + name_len + 1
            length[0] = end - off[0]
            return True
        at = stop + 1
    return False


cdef bint same(const char *a, const char *b, uint32_t n) noexcept nogil:
    cdef uint32_t i
    for i in range(n):
        if a[i] != b[i]:
            return False
    return True


# ---- for tests --------------------------------------------------------------------------------------------------

def _lookup(size_t address, uint32_t n):
    """Test access to header_lookup."""
    return header_lookup(<const char *>address, n)


def _token_listed(size_t address, uint32_t n, bytes token):
    """Test access to token_listed."""
    return bool(token_listed(<const char *>address, n, token, <uint32_t>len(token)))


def _cookie(size_t address, uint32_t n, bytes name):
    """Test access to cookie_find: the place and length of the cookie's value, or None."""
    cdef uint32_t off = 0, length = 0
    if not cookie_find(<const char *>address, n, name, <uint32_t>len(name), &off, &length):
        return None
    return off, length
