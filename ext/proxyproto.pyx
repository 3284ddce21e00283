"""See proxyproto.pxd."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t
from libc.string cimport memchr, memcmp, memcpy, memset
from turnout.ext.text cimport address_parse, address_text, out_length, out_open, out_put, out_t, out_uint

cdef enum:
    V1_MAX = 107              # bytes of a line, CRLF included
    V2_HEAD = 16
    SIGNATURE = 12
    LOCAL = 0x20              # version and command
    PROXY = 0x21
    UNSPEC = 0x00             # family and transport
    TCP4 = 0x11
    TCP6 = 0x21
    UNIX = 0x31
    TCP4_BYTES = 12
    TCP6_BYTES = 36
    UNIX_BYTES = 216
    TLV_HEAD = 3

cdef const char *V2 = b"\r\n\r\n\x00\r\nQUIT\n"
cdef const uint8_t *MAPPED = b"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\xff\xff"


cdef inline bint starts(const char *p, uint32_t n, const char *with_, uint32_t m) noexcept nogil:
    """Whether p[0:n] and with_[0:m] are the same as far as both go."""
    return memcmp(p, with_, n if n < m else m) == 0


cdef int proxy_likely(const char *p, uint32_t n) noexcept nogil:
    if starts(p, n, b"PROXY ", 6):
        return 1 if n >= 6 else PROXY_MORE
    if starts(p, n, V2, SIGNATURE):
        return 1 if n >= SIGNATURE else PROXY_MORE
    return 0


cdef int proxy_parse(const char *p, uint32_t n, proxied_t *out) noexcept nogil:
    memset(out, 0, sizeof(proxied_t))
    if starts(p, n, b"PROXY ", 6):
        return parse_line(p, n, out)
    if starts(p, n, V2, SIGNATURE):
        return parse_binary(<const uint8_t *>p, n, out)
    return PROXY_BAD


# ---- version 1 --------------------------------------------------------------------------------------------------

cdef int parse_line(const char *p, uint32_t n, proxied_t *out) noexcept nogil:
    cdef uint32_t most = n if n < V1_MAX else V1_MAX, end
    cdef const char *cr = <const char *>memchr(p, c'\r', most)
    end = <uint32_t>(cr - p) if cr != NULL else most
    if memchr(p, c'\n', end) != NULL:
        return PROXY_BAD
    if cr == NULL:
        return PROXY_MORE if n < V1_MAX else PROXY_BAD
    if end + 2 > V1_MAX:
        return PROXY_BAD
    if end + 1 == n:
        return PROXY_MORE
    if p[end + 1] != c'\n' or not read_line(p + 6, end - 6, out):
        return PROXY_BAD
    return <int>end + 2


cdef bint read_line(const char *p, uint32_t n, proxied_t *out) noexcept nogil:
    """What stands between "PROXY " and CRLF."""
    cdef bint v6 = n > 5 and memcmp(p, b"TCP6 ", 5) == 0
    cdef uint32_t at = 5
    if n >= 7 and memcmp(p, b"UNKNOWN", 7) == 0:
        return n == 7 or p[7] == c' '
    if not v6 and not (n > 5 and memcmp(p, b"TCP4 ", 5) == 0):
        return False
    if not (read_address(p, n, &at, v6, out.source) and read_address(p, n, &at, v6, out.target)
            and read_port(p, n, &at, &out.source_port) and read_port(p, n, &at, &out.target_port)):
        return False
    out.known = 1
    return at == n + 1


cdef uint32_t word(const char *p, uint32_t n, uint32_t *at) noexcept nogil:
    """The length of the word at p[at]; at moves behind the blank that ends it, or past the end by one."""
    cdef uint32_t start = at[0]
    while at[0] < n and p[at[0]] != c' ':
        at[0] += 1
    at[0] += 1
    return at[0] - 1 - start if start <= n else 0


cdef bint read_address(const char *p, uint32_t n, uint32_t *at, bint v6, uint8_t *address) noexcept nogil:
    cdef uint32_t start = at[0], size = word(p, n, at), i
    cdef bint colon = False
    for i in range(start, start + size):
        if not (c'0' <= p[i] <= c'9' or c'a' <= p[i] <= c'f' or c'A' <= p[i] <= c'F' or p[i] == c'.' or p[i] == c':'):
            return False
        colon = colon or p[i] == c':'
    return size > 0 and colon == v6 and address_parse(p + start, size, address)


cdef bint read_port(const char *p, uint32_t n, uint32_t *at, uint16_t *port) noexcept nogil:
    cdef uint32_t start = at[0], size = word(p, n, at), i, value = 0
    if size == 0 or size > 5 or (size > 1 and p[start] == c'0'):
        return False
    for i in range(start, start + size):
        if not c'0' <= p[i] <= c'9':
            return False
        value = value * 10 + <uint32_t>(p[i] - c'0')
    port[0] = <uint16_t>value
    return value < 65536


# ---- version 2 --------------------------------------------------------------------------------------------------

cdef inline uint32_t big16(const uint8_t *p) noexcept nogil:
    return (<uint32_t>p[0] << 8) | p[1]


cdef int parse_binary(const uint8_t *p, uint32_t n, proxied_t *out) noexcept nogil:
    cdef uint32_t size, addresses = 0
    if n > 12 and p[12] != LOCAL and p[12] != PROXY:
        return PROXY_BAD
    if n > 13 and p[12] == PROXY:
        if p[13] == TCP4:
            addresses = TCP4_BYTES
        elif p[13] == TCP6:
            addresses = TCP6_BYTES
        elif p[13] == UNIX:
            addresses = UNIX_BYTES
        elif p[13] != UNSPEC:
            return PROXY_BAD
    if n < V2_HEAD:
        return PROXY_MORE
    size = big16(p + 14)
    if size + V2_HEAD > PROXY_MAX or size < addresses:
        return PROXY_BAD
    if n < V2_HEAD + size:
        return PROXY_MORE
    if p[12] == LOCAL or p[13] == UNSPEC:
        return <int>(V2_HEAD + size)      # what follows means nothing
    if not fields_fit(p + V2_HEAD + addresses, size - addresses):
        return PROXY_BAD
    if p[13] == TCP4:
        copy_v4(p + V2_HEAD, out)
    elif p[13] == TCP6:
        copy_v6(p + V2_HEAD, out)
    return <int>(V2_HEAD + size)


cdef bint fields_fit(const uint8_t *p, uint32_t n) noexcept nogil:
    """Type, length and value, again and again, up to the end."""
    cdef uint32_t size
    while n >= TLV_HEAD:
        size = TLV_HEAD + big16(p + 1)
        if size > n:
            return False
        p += size
        n -= size
    return n == 0


cdef void copy_v4(const uint8_t *p, proxied_t *out) noexcept nogil:
    memcpy(out.source, MAPPED, 12)
    memcpy(out.target, MAPPED, 12)
    memcpy(out.source + 12, p, 4)
    memcpy(out.target + 12, p + 4, 4)
    out.source_port = <uint16_t>big16(p + 8)
    out.target_port = <uint16_t>big16(p + 10)
    out.known = 1


cdef void copy_v6(const uint8_t *p, proxied_t *out) noexcept nogil:
    memcpy(out.source, p, 16)
    memcpy(out.target, p + 16, 16)
    out.source_port = <uint16_t>big16(p + 32)
    out.target_port = <uint16_t>big16(p + 34)
    out.known = 1


# ---- writing ----------------------------------------------------------------------------------------------------

cdef inline bint is_v4(const uint8_t *address) noexcept nogil:
    return memcmp(address, MAPPED, 12) == 0


cdef uint32_t proxy_write(uint32_t version, const proxied_t *who, char *out) noexcept nogil:
    cdef bint v4 = is_v4(who.source) and is_v4(who.target)
    if version == 1:
        return write_line(who, v4, out)
    return write_binary(who, v4, <uint8_t *>out)


cdef void put_address(out_t *o, const uint8_t *address, bint v4) noexcept nogil:
    """One of a pair; where the other is IPv6, an IPv4 address is written as the IPv6 address it is mapped to."""
    cdef char text[48]
    cdef uint32_t n = address_text(address, text)
    if not v4 and is_v4(address):
        out_put(o, b"::ffff:", 7)
    out_put(o, text, n)
    out_put(o, b" ", 1)


cdef uint32_t write_line(const proxied_t *who, bint v4, char *out) noexcept nogil:
    cdef out_t o
    out_open(&o, out, PROXY_OUT_MAX)
    if not who.known:
        out_put(&o, b"PROXY UNKNOWN\r\n", 15)
        return out_length(&o)
    out_put(&o, b"PROXY TCP4 " if v4 else b"PROXY TCP6 ", 11)
    put_address(&o, who.source, v4)
    put_address(&o, who.target, v4)
    out_uint(&o, who.source_port)
    out_put(&o, b" ", 1)
    out_uint(&o, who.target_port)
    out_put(&o, b"\r\n", 2)
    return out_length(&o)


cdef inline void put16(uint8_t *p, uint32_t v) noexcept nogil:
    p[0] = <uint8_t>(v >> 8)
    p[1] = <uint8_t>v


cdef uint32_t write_binary(const proxied_t *who, bint v4, uint8_t *out) noexcept nogil:
    cdef uint32_t size = 0 if not who.known else TCP4_BYTES if v4 else TCP6_BYTES
    cdef uint32_t each = 4 if v4 else 16
    memcpy(out, V2, SIGNATURE)
    out[12] = PROXY
    out[13] = UNSPEC if not who.known else TCP4 if v4 else TCP6
    put16(out + 14, size)
    if size:
        memcpy(out + V2_HEAD, who.source + 16 - each, each)
        memcpy(out + V2_HEAD + each, who.target + 16 - each, each)
        put16(out + V2_HEAD + 2 * each, who.source_port)
        put16(out + V2_HEAD + 2 * each + 2, who.target_port)
    return V2_HEAD + size


# ---- for tests --------------------------------------------------------------------------------------------------

def _parse_at(size_t address, uint32_t n):
    """(bytes, (source, port, target, port) or None for an unknown client), "more" or "bad"."""
    cdef proxied_t who
    cdef int used = proxy_parse(<const char *>address, n, &who)
    if used < 0:
        return "more" if used == PROXY_MORE else "bad"
    return used, (((<char *>who.source)[:16], who.source_port, (<char *>who.target)[:16], who.target_port)
                  if who.known else None)


def _likely_at(size_t address, uint32_t n):
    return proxy_likely(<const char *>address, n)


def _write(uint32_t version, who):
    cdef proxied_t w
    cdef char out[PROXY_OUT_MAX]
    memset(&w, 0, sizeof(w))
    if who is not None:
        source, w.source_port, target, w.target_port = who
        memcpy(w.source, <const char *>source, 16)
        memcpy(w.target, <const char *>target, 16)
        w.known = 1
    return out[:proxy_write(version, &w, out)]
