"""A bounded writer for heads: whole pieces or nothing, overflow remembered."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy
from turnout.ext.snapshot cimport text_t

cdef struct out_t:
    char *start
    char *at
    char *end
    bint full                 # something did not fit; what was written is useless

cdef inline void out_open(out_t *o, char *p, uint32_t cap) noexcept nogil:
    o.start = p
    o.at = p
    o.end = p + cap
    o.full = False

cdef inline uint32_t out_length(const out_t *o) noexcept nogil:
    return <uint32_t>(o.at - o.start)

cdef inline void out_put(out_t *o, const char *p, uint32_t n) noexcept nogil:
    if <size_t>(o.end - o.at) < n:
        o.full = True
        return
    memcpy(o.at, p, n)
    o.at += n

cdef inline void out_text(out_t *o, text_t t) noexcept nogil:
    out_put(o, t.p, t.n)

cdef inline void out_field(out_t *o, const char *name, uint32_t name_n, const char *value, uint32_t n) noexcept nogil:
    """name: value CRLF"""
    if <size_t>(o.end - o.at) < <size_t>name_n + n + 4:
        o.full = True
        return
    memcpy(o.at, name, name_n)
    o.at += name_n
    o.at[0] = c':'
    o.at[1] = c' '
    o.at += 2
    memcpy(o.at, value, n)
    o.at += n
    o.at[0] = c'\r'
    o.at[1] = c'\n'
    o.at += 2

cdef inline void out_uint(out_t *o, uint64_t v) noexcept nogil:
    cdef char digits[20]
    cdef uint32_t i = 20
    while True:
        i -= 1
        digits[i] = <char>(c'0' + v % 10)
        v = v // 10
        if v == 0:
            break
    out_put(o, &digits[i], 20 - i)

cdef uint32_t address_text(const uint8_t *address, char *out) noexcept nogil
"""An address of 16 bytes as text (RFC 5952; mapped IPv4 as IPv4), at most 46 bytes; returns its length."""

cdef bint address_parse(const char *p, uint32_t n, uint8_t *address) noexcept nogil
"""The reverse, for IPv4, IPv6 and [IPv6]:port or IPv4:port."""
