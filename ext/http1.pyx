"""See http1.pxd."""

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memchr, memcmp, memcpy, memset, strlen
from turnout.ext.headers cimport (
    H_CONNECTION, H_CONTENT_LENGTH, H_CONTENT_TYPE, H_COOKIE, H_DATE, H_EXPECT, H_HOST, H_IDEMPOTENCY_KEY, H_KEEP_ALIVE,
    H_OTHER, H_PROXY_CONNECTION, H_SET_COOKIE, H_TE, H_TRAILER, H_TRANSFER_ENCODING, H_UPGRADE, HEAD_ABSOLUTE,
    HEAD_CHUNKED, HEAD_CLOSE, HEAD_EXPECT, HEAD_FIELDS_MAX, HEAD_KEEP_ALIVE, HEAD_TRAILERS, HEAD_UPGRADE, M_CONNECT,
    M_DELETE, M_GET, M_HEAD, M_OPTIONS, M_OTHER, M_PATCH, M_POST, M_PUT, M_TRACE, equals_lower, field_t, head_t,
    header_lookup, token_listed,
)

import time

cdef extern from *:
    int __builtin_ctzll(unsigned long long) nogil

cdef extern from "<endian.h>" nogil:
    uint64_t le64toh(uint64_t)

cdef enum:
    METHOD_MAX = 32
    MAX_LENGTH_DIGITS = 18    # a content length below 10**18
    MAX_PORT_DIGITS = 5
    MAX_OPTIONS = 100         # of all Connection fields: each is looked for among the fields

# Classes of bytes (RFC 9110 5.6.2, 5.5; RFC 3986), one bit each.
cdef enum:
    IS_TOKEN = 1
    IS_TARGET = 2             # visible ASCII but "#"
    IS_VALUE = 4              # visible, blank or obs-text
    IS_HOST = 8               # reg-name; with ":" what stands in an IP literal
    HAS_DIGIT = 16

cdef uint8_t bytes_are[256]
cdef const char *error = b"malformed"


cdef void classify() noexcept nogil:
    cdef uint32_t c
    cdef bint alnum
    for c in range(256):
        alnum = c'0' <= c <= c'9' or c'a' <= c <= c'z' or c'A' <= c <= c'Z'
        bytes_are[c] = 0
        if alnum or (c and memchr(b"!#$%&'*+-.^_`|~", <int>c, 15) != NULL):
            bytes_are[c] |= IS_TOKEN
        if 0x21 <= c <= 0x7e and c != c'#':
            bytes_are[c] |= IS_TARGET
        if c == c'\t' or (c >= 0x20 and c != 0x7f):
            bytes_are[c] |= IS_VALUE
        if alnum or (c and memchr(b"-._~!$&'()*+,;=%", <int>c, 16) != NULL):
            bytes_are[c] |= IS_HOST
        if c'0' <= c <= c'9':
            bytes_are[c] |= HAS_DIGIT


classify()


cdef const char *head_error() noexcept nogil:
    return error


cdef inline int bad(const char *why) noexcept nogil:
    global error
    error = why
    return HEAD_MALFORMED


cdef inline bint all_are(const char *p, uint32_t n, uint8_t kind) noexcept nogil:
    cdef uint32_t i
    for i in range(n):
        if not bytes_are[<uint8_t>p[i]] & kind:
            return False
    return True


# ---- whether it is all there ------------------------------------------------------------------------------------

cdef bint head_ends(const char *p, uint32_t n, uint32_t seen) noexcept nogil:
    """Whether an empty line, or a LF that ends no line, stands in what an earlier call has not looked at."""
    cdef uint32_t at = seen
    cdef const char *lf
    while at < n:
        lf = <const char *>memchr(p + at, c'\n', n - at)
        if lf == NULL:
            return False
        at = <uint32_t>(lf - p)
        if at == 0 or p[at - 1] != c'\r' or (at >= 3 and memcmp(lf - 3, b"\r\n\r", 3) == 0):
            return True
        at += 1
    return False


cdef inline uint32_t within(uint32_t n, const head_limits_t *limits) noexcept nogil:
    """Bytes past the limit are not looked at, so that the verdict is the same with and without them."""
    return n if n < limits.head else limits.head


cdef int not_yet(const char *p, uint32_t n, const head_limits_t *limits) noexcept nogil:
    """The head's end is missing: wait, or is it too long already? A line of limits.line bytes may still get its CRLF."""
    cdef uint32_t start = 2 if n >= 2 and p[0] == c'\r' and p[1] == c'\n' else 0
    if n - start > limits.line + 1 and memchr(p + start, c'\n', limits.line + 2) == NULL:
        return HEAD_LINE_TOO_LONG
    return HEAD_TOO_LARGE if n >= limits.head else HEAD_NEED_MORE


cdef void head_clear(head_t *h) noexcept nogil:
    memset(h, 0, <size_t>(<char *>&h.fields[0] - <char *>h))
    h.content_length = -1


# ---- fields -----------------------------------------------------------------------------------------------------

cdef inline uint64_t stops_value(uint64_t w) noexcept nogil:
    """Bit 7 of each byte of w that is a control byte; the lowest one set is exact, those above it may not be."""
    cdef uint64_t ones = <uint64_t>0x0101010101010101ULL
    cdef uint64_t high = <uint64_t>0x8080808080808080ULL
    cdef uint64_t low = (w - ones * 0x20) & ~w & high
    cdef uint64_t x = w ^ (ones * 0x7f)
    return low | ((x - ones) & ~x & high)


cdef inline uint32_t value_end(const char *p, uint32_t at, uint32_t n) noexcept nogil:
    """First byte from `at` that may not stand in a value; n when there is none. Eight bytes a step."""
    cdef uint64_t w, stops
    while at + 8 <= n:
        memcpy(&w, p + at, 8)
        stops = stops_value(le64toh(w))
        if stops == 0:
            at += 8
            continue
        at += <uint32_t>__builtin_ctzll(stops) >> 3
        if p[at] != c'\t':
            return at
        at += 1
    while at < n and bytes_are[<uint8_t>p[at]] & IS_VALUE:
        at += 1
    return at


cdef int parse_field(const char *p, uint32_t n, uint32_t at, field_t *f) noexcept nogil:
    """One field line from `at`: the offset behind it, or a negative verdict."""
    cdef uint32_t start = at, end
    while at < n and bytes_are[<uint8_t>p[at]] & IS_TOKEN:
        at += 1
    if at == n:
        return HEAD_NEED_MORE
    if p[at] != c':' or at == start:
        return name_error(p[at], at == start)
    if at - start > 0xffff:
        return HEAD_TOO_LARGE
    f.name = start
    f.name_len = <uint16_t>(at - start)
    at += 1
    while at < n and (p[at] == c' ' or p[at] == c'\t'):
        at += 1
    f.value = at
    at = value_end(p, at, n)
    if at + 1 >= n:
        return HEAD_NEED_MORE if at == n or p[at] == c'\r' else value_error(p[at])
    if p[at] != c'\r' or p[at + 1] != c'\n':
        return value_error(p[at])
    end = at
    while end > f.value and (p[end - 1] == c' ' or p[end - 1] == c'\t'):
        end -= 1
    f.value_len = end - f.value
    f.id = header_lookup(p + f.name, f.name_len)
    f.skip = 0
    return <int>at + 2


cdef int name_error(char c, bint first) noexcept nogil:
    if c == c' ' or c == c'\t':
        return bad(b"a line of the head starts with white space (obsolete folding)" if first
                   else b"white space stands before the colon of a field")
    if first and c == c':':
        return bad(b"a field has no name")
    return bad(b"a field name has a byte that may not stand there")


cdef int value_error(char c) noexcept nogil:
    if c == c'\n':
        return bad(b"a line of the head ends with a bare LF")
    if c == c'\r':
        return bad(b"a bare CR stands in the head")
    return bad(b"a field value has a control byte")


cdef int parse_fields(const char *p, uint32_t n, uint32_t at, const head_limits_t *limits, head_t *h) noexcept nogil:
    """Field lines up to and including the empty line: the offset behind it, or a negative verdict."""
    cdef field_t *f
    cdef int next
    cdef uint32_t most = limits.fields if limits.fields < HEAD_FIELDS_MAX else HEAD_FIELDS_MAX
    while True:
        if at >= n:
            return HEAD_NEED_MORE
        if p[at] == c'\r':
            if at + 1 >= n:
                return HEAD_NEED_MORE
            if p[at + 1] != c'\n':
                return bad(b"a bare CR stands in the head")
            return <int>at + 2
        if p[at] == c'\n':
            return bad(b"a line of the head ends with a bare LF")
        if h.n_fields >= most:
            return HEAD_TOO_LARGE
        f = &h.fields[h.n_fields]
        next = parse_field(p, n, at, f)
        if next < 0:
            return next
        h.n_fields += 1
        if f.id != H_OTHER and not h.first[f.id]:
            h.first[f.id] = h.n_fields
        elif f.id == H_HOST or f.id == H_CONTENT_LENGTH or f.id == H_TRANSFER_ENCODING:
            return bad(b"Host, Content-Length or Transfer-Encoding stands there more than once")
        at = <uint32_t>next


# ---- what the fields mean ---------------------------------------------------------------------------------------

cdef inline field_t *field_of(head_t *h, uint32_t id) noexcept nogil:
    return &h.fields[h.first[id] - 1] if h.first[id] else NULL


cdef int read_length(const char *p, const field_t *f, head_t *h) noexcept nogil:
    cdef uint32_t i
    cdef int64_t v = 0
    if f.value_len == 0 or f.value_len > MAX_LENGTH_DIGITS or not all_are(p + f.value, f.value_len, HAS_DIGIT):
        return bad(b"Content-Length is not a number of at most 18 digits")
    for i in range(f.value_len):
        v = v * 10 + (p[f.value + i] - c'0')
    h.content_length = v
    return 0


cdef bint tab_behind(const char *p, const field_t *f) noexcept nogil:
    """Whether the white space behind a value, allowed as it is, holds a tab: some peers take that for more of the value."""
    cdef uint32_t at = f.value + f.value_len
    while p[at] == c' ':
        at += 1
    return p[at] == c'\t'


cdef int read_framing(const char *p, head_t *h) noexcept nogil:
    """RFC 9112 6.1, 6.2; where it leaves a choice, the strict one."""
    cdef field_t *length = field_of(h, H_CONTENT_LENGTH)
    cdef field_t *coding = field_of(h, H_TRANSFER_ENCODING)
    if length != NULL:
        length.skip = 1
        if tab_behind(p, length):
            return bad(b"a tab stands behind Content-Length")
        if read_length(p, length, h) < 0:
            return HEAD_MALFORMED
    if coding == NULL:
        return 0
    coding.skip = 1
    if length != NULL:
        return bad(b"both Content-Length and Transfer-Encoding are there")
    if h.minor == 0:
        return bad(b"Transfer-Encoding in HTTP/1.0")
    if tab_behind(p, coding) or coding.value_len != 7 or not equals_lower(p + coding.value, b"chunked", 7):
        return bad(b"Transfer-Encoding is something else than chunked")
    h.flags |= HEAD_CHUNKED
    return 0


cdef bint never_named_away(uint8_t id) noexcept nogil:
    return (id == H_HOST or id == H_COOKIE or id == H_SET_COOKIE or id == H_CONTENT_TYPE or id == H_DATE
            or id == H_EXPECT or id == H_TRAILER or id == H_IDEMPOTENCY_KEY)


cdef void name_away(const char *p, const char *token, uint32_t n, head_t *h) noexcept nogil:
    """Fields that a Connection option names are hop-by-hop (RFC 9110 7.6.1)."""
    cdef uint32_t i
    cdef field_t *f
    for i in range(h.n_fields):
        f = &h.fields[i]
        if f.name_len == n and not never_named_away(f.id) and equal_names(p + f.name, token, n):
            f.skip = 1


cdef bint equal_names(const char *a, const char *b, uint32_t n) noexcept nogil:
    cdef uint32_t i
    for i in range(n):
        if a[i] != b[i] and ((a[i] ^ b[i]) != 32 or not (c'a' <= (a[i] | 32) <= c'z')):
            return False
    return True


cdef void connection_option(const char *p, const char *token, uint32_t n, head_t *h) noexcept nogil:
    if n == 5 and equals_lower(token, b"close", 5):
        h.flags |= HEAD_CLOSE
    elif n == 10 and equals_lower(token, b"keep-alive", 10):
        h.flags |= HEAD_KEEP_ALIVE
    elif n == 7 and equals_lower(token, b"upgrade", 7):
        if h.first[<int>H_UPGRADE]:
            h.flags |= HEAD_UPGRADE
    elif n:
        name_away(p, token, n, h)


cdef int read_connection(const char *p, const field_t *f, uint32_t *options, head_t *h) noexcept nogil:
    cdef uint32_t at = f.value, end = f.value + f.value_len, stop, last
    while at < end:
        while at < end and (p[at] == c' ' or p[at] == c'\t' or p[at] == c','):
            at += 1
        stop = at
        while stop < end and p[stop] != c',':
            stop += 1
        last = stop
        while last > at and (p[last - 1] == c' ' or p[last - 1] == c'\t'):
            last -= 1
        options[0] += last > at
        if options[0] > MAX_OPTIONS:
            return bad(b"Connection has more than 100 options")
        connection_option(p, p + at, last - at, h)
        at = stop
    return 0


cdef int read_hops(const char *p, head_t *h) noexcept nogil:
    cdef uint32_t i, options = 0
    cdef field_t *f
    for i in range(h.n_fields):
        f = &h.fields[i]
        if f.id == H_CONNECTION:
            f.skip = 1
            if read_connection(p, f, &options, h) < 0:
                return HEAD_MALFORMED
        elif f.id == H_KEEP_ALIVE or f.id == H_PROXY_CONNECTION or f.id == H_UPGRADE:
            f.skip = 1
        elif f.id == H_TE:
            f.skip = 1
            if token_listed(p + f.value, f.value_len, b"trailers", 8):
                h.flags |= HEAD_TRAILERS
    return 0


# ---- requests ---------------------------------------------------------------------------------------------------

cdef uint8_t method_of(const char *p, uint32_t n) noexcept nogil:
    if n == 3:
        return M_GET if memcmp(p, b"GET", 3) == 0 else M_PUT if memcmp(p, b"PUT", 3) == 0 else M_OTHER
    if n == 4:
        return M_POST if memcmp(p, b"POST", 4) == 0 else M_HEAD if memcmp(p, b"HEAD", 4) == 0 else M_OTHER
    if n == 5:
        return M_PATCH if memcmp(p, b"PATCH", 5) == 0 else M_TRACE if memcmp(p, b"TRACE", 5) == 0 else M_OTHER
    if n == 6:
        return M_DELETE if memcmp(p, b"DELETE", 6) == 0 else M_OTHER
    if n == 7:
        return (M_OPTIONS if memcmp(p, b"OPTIONS", 7) == 0 else M_CONNECT if memcmp(p, b"CONNECT", 7) == 0
                else M_OTHER)
    return M_OTHER


cdef void split_path(const char *p, uint32_t start, uint32_t end, head_t *h) noexcept nogil:
    cdef const char *mark = <const char *>memchr(p + start, c'?', end - start)
    h.path = start
    h.path_len = end - start
    if mark != NULL:
        h.path_len = <uint32_t>(mark - p) - start
        h.query = <uint32_t>(mark - p) + 1
        h.query_len = end - h.query


cdef int absolute_form(const char *p, head_t *h) noexcept nogil:
    """RFC 9112 3.2.2. Without a path of its own the path is the second slash of "://"."""
    cdef uint32_t at = h.target, end = h.target + h.target_len, stop
    if h.target_len > 7 and equals_lower(p + at, b"http://", 7):
        at += 7
    elif h.target_len > 8 and equals_lower(p + at, b"https://", 8):
        at += 8
    else:
        return bad(b"the request target is neither a path nor an http URI")
    stop = at
    while stop < end and p[stop] != c'/' and p[stop] != c'?':
        stop += 1
    if stop == at:
        return bad(b"the request target has no host")
    h.flags |= HEAD_ABSOLUTE
    h.authority = at
    h.authority_len = stop - at
    if stop < end and p[stop] == c'/':
        split_path(p, stop, end, h)
        return 0
    h.path = at - 1
    h.path_len = 1
    if stop < end:
        h.query = stop + 1
        h.query_len = end - h.query
    return 0


cdef int read_target(const char *p, head_t *h) noexcept nogil:
    cdef char first = p[h.target]
    if h.method == M_CONNECT:
        h.authority = h.target
        h.authority_len = h.target_len
        h.path = h.target
        return 0
    if first == c'/':
        split_path(p, h.target, h.target + h.target_len, h)
        return 0
    if first == c'*' and h.target_len == 1 and h.method == M_OPTIONS:
        h.path = h.target
        h.path_len = 1
        return 0
    return absolute_form(p, h)


cdef int read_version(const char *p, uint32_t n, uint32_t at, head_t *h) noexcept nogil:
    """"HTTP/1.x" CRLF at `at`: the offset behind it, or a negative verdict."""
    cdef uint32_t have = n - at
    if memcmp(p + at, b"HTTP/", have if have < 5 else 5) != 0:
        return bad(b"the request line does not end with HTTP/1.0 or HTTP/1.1")
    if have > 5 and c'2' <= p[at + 5] <= c'9':
        return HEAD_BAD_VERSION
    if memcmp(p + at, b"HTTP/1.", have if have < 7 else 7) != 0:
        return bad(b"the request line does not end with HTTP/1.0 or HTTP/1.1")
    if have < 10:
        return HEAD_NEED_MORE
    if not bytes_are[<uint8_t>p[at + 7]] & HAS_DIGIT:
        return bad(b"the request line does not end with HTTP/1.0 or HTTP/1.1")
    if p[at + 8] != c'\r' or p[at + 9] != c'\n':
        return bad(b"the request line does not end with CRLF")
    # A higher minor version is understood as 1.1 (RFC 9110 2.5).
    h.minor = 0 if p[at + 7] == c'0' else 1
    return <int>at + 10


cdef int request_line(const char *p, uint32_t n, const head_limits_t *limits, head_t *h) noexcept nogil:
    cdef uint32_t at = 0
    if n >= 2 and p[0] == c'\r' and p[1] == c'\n':
        at = 2
    elif n == 1 and p[0] == c'\r':
        return HEAD_NEED_MORE
    h.start = at
    # What needs more than this is too long (not_yet says so).
    n = n if n - at < limits.line + 2 else at + limits.line + 2
    while at < n and bytes_are[<uint8_t>p[at]] & IS_TOKEN and at - h.start < METHOD_MAX:
        at += 1
    if at == n:
        return HEAD_NEED_MORE
    if p[at] != c' ' or at == h.start:
        return bad(b"the request line does not start with a method and one space")
    h.method_len = at - h.start
    h.method = method_of(p + h.start, h.method_len)
    at += 1
    h.target = at
    while at < n and bytes_are[<uint8_t>p[at]] & IS_TARGET:
        at += 1
    if at == n:
        return HEAD_NEED_MORE
    if p[at] != c' ' or at == h.target:
        return bad(b"the request target has a byte that may not stand there")
    h.target_len = at - h.target
    if read_target(p, h) < 0:
        return HEAD_MALFORMED
    if at + 1 == n:
        return HEAD_NEED_MORE
    return read_version(p, n, at + 1, h)


cdef bint is_host(const char *p, uint32_t n) noexcept nogil:
    """A name, an IPv4 address or an IP literal in brackets, then perhaps ":" and a port (RFC 3986 3.2)."""
    cdef uint32_t at = 0
    if n and p[0] == c'[':
        at = 1
        while at < n and (bytes_are[<uint8_t>p[at]] & IS_HOST or p[at] == c':'):
            at += 1
        if at == 1 or at == n or p[at] != c']':
            return False
        at += 1
    else:
        while at < n and bytes_are[<uint8_t>p[at]] & IS_HOST:
            at += 1
        if at == 0:
            return False
    if at == n:
        return True
    return p[at] == c':' and n - at <= MAX_PORT_DIGITS + 1 and all_are(p + at + 1, n - at - 1, HAS_DIGIT)


cdef uint32_t without_port(const char *p, uint32_t n, const char *port, uint32_t port_n) noexcept nogil:
    """The length of an authority when an empty port or this one is taken off."""
    if n and p[n - 1] == c':':
        return n - 1
    if n > port_n and p[n - port_n - 1] == c':' and memcmp(p + n - port_n, port, port_n) == 0:
        return n - port_n - 1
    return n


cdef bint same_authority(const char *p, const head_t *h, const field_t *host) noexcept nogil:
    """Whether Host says what the absolute-form target says; the scheme's port may be there or not."""
    cdef bint secure = p[h.target + 4] == c's' or p[h.target + 4] == c'S'
    cdef const char *port = b"443" if secure else b"80"
    cdef uint32_t port_n = 3 if secure else 2
    cdef uint32_t n = without_port(p + h.authority, h.authority_len, port, port_n)
    if without_port(p + host.value, host.value_len, port, port_n) != n:
        return False
    return equal_names(p + h.authority, p + host.value, n)


cdef int read_host(const char *p, head_t *h) noexcept nogil:
    """RFC 9112 3.2: exactly one Host in HTTP/1.1, and it must be a host. absolute-form must not say another one."""
    cdef field_t *host = field_of(h, H_HOST)
    if host == NULL:
        if h.minor:
            return bad(b"Host is missing")
    elif not is_host(p + host.value, host.value_len):
        return bad(b"Host is not a host")
    elif not h.authority_len:
        h.authority = host.value
        h.authority_len = host.value_len
    if h.flags & HEAD_ABSOLUTE or h.method == M_CONNECT:
        if not is_host(p + h.authority, h.authority_len):
            return bad(b"the request target's host is not a host")
    if h.flags & HEAD_ABSOLUTE and host != NULL and not same_authority(p, h, host):
        return bad(b"Host and the request target name different hosts")
    return 0


cdef void read_expect(const char *p, head_t *h) noexcept nogil:
    cdef field_t *f = field_of(h, H_EXPECT)
    if f != NULL and token_listed(p + f.value, f.value_len, b"100-continue", 12):
        h.flags |= HEAD_EXPECT


cdef int parse_request(const char *p, uint32_t n, uint32_t seen, const head_limits_t *limits, head_t *h) noexcept nogil:
    cdef int at
    n = within(n, limits)
    if seen and not head_ends(p, n, seen) and not_yet(p, n, limits) == HEAD_NEED_MORE:
        return HEAD_NEED_MORE
    head_clear(h)
    at = request_line(p, n, limits, h)
    if at > 0:
        at = parse_fields(p, n, <uint32_t>at, limits, h)
    if at < 0:
        return not_yet(p, n, limits) if at == HEAD_NEED_MORE else at
    h.length = <uint32_t>at
    if read_framing(p, h) < 0 or read_host(p, h) < 0 or read_hops(p, h) < 0:
        return HEAD_MALFORMED
    if h.method == M_CONNECT and (h.flags & HEAD_CHUNKED or h.content_length > 0):
        return bad(b"CONNECT has a body")
    read_expect(p, h)
    return at


# ---- responses --------------------------------------------------------------------------------------------------

cdef int status_line(const char *p, uint32_t n, head_t *h) noexcept nogil:
    cdef uint32_t at = 9, i
    if memcmp(p, b"HTTP/1.", n if n < 7 else 7) != 0:
        return bad(b"the status line does not start with HTTP/1.0 or HTTP/1.1")
    if n < 14:
        return HEAD_NEED_MORE
    if not bytes_are[<uint8_t>p[7]] & HAS_DIGIT or p[8] != c' ' or not all_are(p + 9, 3, HAS_DIGIT):
        return bad(b"the status line has no three-digit status")
    h.minor = 0 if p[7] == c'0' else 1
    for i in range(3):
        h.status = h.status * 10 + <uint16_t>(p[9 + i] - c'0')
    if h.status < 100 or h.status > 599:
        return bad(b"the status is not between 100 and 599")
    at = 12
    if p[at] == c' ':
        at += 1
    elif p[at] != c'\r':
        return bad(b"the status line has no space behind the status")
    h.target = at
    at = value_end(p, at, n)
    h.target_len = at - h.target
    if at + 1 >= n:
        return HEAD_NEED_MORE
    if p[at] != c'\r' or p[at + 1] != c'\n':
        return bad(b"the status line does not end with CRLF")
    return <int>at + 2


cdef int parse_response(const char *p, uint32_t n, uint32_t seen, const head_limits_t *limits, head_t *h) noexcept nogil:
    cdef int at
    n = within(n, limits)
    if seen and n < limits.head and not head_ends(p, n, seen):
        return HEAD_NEED_MORE
    head_clear(h)
    at = status_line(p, n, h)
    if at > 0:
        at = parse_fields(p, n, <uint32_t>at, limits, h)
    if at < 0:
        return HEAD_TOO_LARGE if at == HEAD_NEED_MORE and n >= limits.head else at
    h.length = <uint32_t>at
    if read_framing(p, h) < 0 or read_hops(p, h) < 0:
        return HEAD_MALFORMED
    if h.status < 200 and (h.flags & HEAD_CHUNKED or h.content_length > 0):
        return bad(b"an interim answer has a body")
    return at


# ---- trailers ---------------------------------------------------------------------------------------------------

cdef bint named(const char *p, const field_t *f, const char *name) noexcept nogil:
    return f.name_len == strlen(name) and equals_lower(p + f.name, name, f.name_len)


cdef bint forbidden_trailer(const char *p, const field_t *f) noexcept nogil:
    """RFC 9110 6.5.1: nothing about framing, routing, who asks or how to process may come after the body. What has an
    id is something that this proxy acts on or vouches for."""
    return (f.id != H_OTHER or named(p, f, b"authorization") or named(p, f, b"www-authenticate")
            or named(p, f, b"content-encoding") or named(p, f, b"content-range") or named(p, f, b"range")
            or named(p, f, b"cache-control") or named(p, f, b"max-forwards"))


cdef int parse_trailers(const char *p, uint32_t n, const head_limits_t *limits, head_t *h) noexcept nogil:
    cdef int at
    cdef uint32_t i
    cdef field_t *f
    n = within(n, limits)
    head_clear(h)
    at = parse_fields(p, n, 0, limits, h)
    if at < 0:
        return HEAD_TOO_LARGE if at == HEAD_NEED_MORE and n >= limits.head else at
    h.length = <uint32_t>at
    for i in range(h.n_fields):
        f = &h.fields[i]
        f.skip = forbidden_trailer(p, f)
    return at


# ---- for tests --------------------------------------------------------------------------------------------------

cdef dict described(const char *p, const head_t *h, int used):
    cdef uint32_t i
    return {
        "length": used,
        "method": p[h.start : h.start + h.method_len],
        "target": p[h.target : h.target + h.target_len],
        "path": p[h.path : h.path + h.path_len],
        "query": p[h.query : h.query + h.query_len] if h.query else None,
        "authority": p[h.authority : h.authority + h.authority_len],
        "minor": h.minor,
        "status": h.status,
        "content_length": h.content_length,
        "flags": h.flags,
        "fields": [
            (p[h.fields[i].name : h.fields[i].name + h.fields[i].name_len],
             p[h.fields[i].value : h.fields[i].value + h.fields[i].value_len],
             bool(h.fields[i].skip))
            for i in range(h.n_fields)
        ],
    }


cdef object parsed(str kind, const char *p, uint32_t n, uint32_t seen, uint32_t line, uint32_t head, uint32_t fields):
    cdef head_limits_t limits
    cdef head_t h
    cdef int used
    limits.line = line
    limits.head = head
    limits.fields = fields
    if kind == "request":
        used = parse_request(p, n, seen, &limits, &h)
    elif kind == "response":
        used = parse_response(p, n, seen, &limits, &h)
    else:
        used = parse_trailers(p, n, &limits, &h)
    if used == HEAD_MALFORMED:
        return error.decode()
    return described(p, &h, used) if used > 0 else used


def _parse(str kind, bytes raw, uint32_t seen=0, *, uint32_t line=8192, uint32_t head=32768, uint32_t fields=100):
    """Test access: a dict of what was parsed, a negative verdict, or the phrase of a malformed head."""
    return parsed(kind, raw, <uint32_t>len(raw), seen, line, head, fields)


def _parse_at(str kind, size_t address, uint32_t n, uint32_t seen=0, *, uint32_t line=8192, uint32_t head=32768,
              uint32_t fields=100):
    """Test access: _parse of n bytes at an address, for heads at the edge of an unreadable page."""
    return parsed(kind, <const char *>address, n, seen, line, head, fields)


def _bench(str kind, bytes raw, uint64_t times):
    """Nanoseconds per parse of a request's or response's head."""
    cdef head_limits_t limits
    cdef head_t h
    cdef const char *p = raw
    cdef uint32_t n = <uint32_t>len(raw)
    cdef bint request = kind == "request"
    cdef uint64_t i
    cdef int used = 0
    limits.line, limits.head, limits.fields = 8192, 32768, 100
    started = time.perf_counter_ns()
    with nogil:
        for i in range(times):
            used = parse_request(p, n, 0, &limits, &h) if request else parse_response(p, n, 0, &limits, &h)
    spent = time.perf_counter_ns() - started
    if used != <int>n:
        raise ValueError(f"not one whole head: {used}")
    return spent / times
