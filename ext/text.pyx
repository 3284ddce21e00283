"""See text.pxd."""

from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport memchr, memcmp, memcpy, memset, strlen

cdef extern from "<arpa/inet.h>" nogil:
    int AF_INET, AF_INET6
    const char *inet_ntop(int, const void *, char *, unsigned int)
    int inet_pton(int, const char *, void *)

cdef const uint8_t *MAPPED = b"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\xff\xff"


cdef uint32_t address_text(const uint8_t *address, char *out) noexcept nogil:
    if memcmp(address, MAPPED, 12) == 0:
        return ipv4_text(address + 12, out)
    if inet_ntop(AF_INET6, address, out, 46) == NULL:
        return 0
    return <uint32_t>strlen(out)


cdef uint32_t ipv4_text(const uint8_t *octets, char *out) noexcept nogil:
    cdef uint32_t i, v, n = 0
    for i in range(4):
        v = octets[i]
        if i:
            out[n] = c'.'
            n += 1
        if v >= 100:
            out[n] = <char>(c'0' + v // 100)
            n += 1
        if v >= 10:
            out[n] = <char>(c'0' + v // 10 % 10)
            n += 1
        out[n] = <char>(c'0' + v % 10)
        n += 1
    return n


cdef bint address_parse(const char *p, uint32_t n, uint8_t *address) noexcept nogil:
    cdef char text[48]
    cdef const char *stop
    if n and p[0] == c'[':
        stop = <const char *>memchr(p, c']', n)
        if stop == NULL:
            return False
        p += 1
        n = <uint32_t>(stop - p)
    elif n and memchr(p, c'.', n) != NULL:
        stop = <const char *>memchr(p, c':', n)
        if stop != NULL and memchr(p, c'.', <size_t>(stop - p)) != NULL:
            n = <uint32_t>(stop - p)
    if n == 0 or n >= sizeof(text):
        return False
    memcpy(text, p, n)
    text[n] = 0
    if inet_pton(AF_INET6, text, address) == 1:
        return True
    memcpy(address, MAPPED, 12)
    if inet_pton(AF_INET, text, address + 12) == 1:
        return True
    memset(address, 0, 16)
    return False
