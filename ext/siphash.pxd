"""SipHash-2-4 with 128 bits (Aumasson and Bernstein, 2012; the reference's variant with long output): a hash under a key, for
what clients must neither choose nor forge.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

cdef extern from "<endian.h>" nogil:
    uint64_t le64toh(uint64_t)
    uint64_t htole64(uint64_t)

cdef struct sip_t:
    uint64_t a, b, c, d


cdef inline uint64_t rotl(uint64_t v, int n) noexcept nogil:
    return v << n | v >> (64 - n)


cdef inline void sip_rounds(sip_t *s, int n) noexcept nogil:
    cdef int i
    for i in range(n):
        s.a += s.b
        s.b = rotl(s.b, 13) ^ s.a
        s.a = rotl(s.a, 32)
        s.c += s.d
        s.d = rotl(s.d, 16) ^ s.c
        s.a += s.d
        s.d = rotl(s.d, 21) ^ s.a
        s.c += s.b
        s.b = rotl(s.b, 17) ^ s.c
        s.c = rotl(s.c, 32)


cdef inline void sip_word(sip_t *s, uint64_t word) noexcept nogil:
    s.d ^= word
    sip_rounds(s, 2)
    s.a ^= word


cdef inline uint64_t word_at(const void *p) noexcept nogil:
    cdef uint64_t v
    memcpy(&v, p, 8)
    return le64toh(v)


cdef inline void word_to(void *p, uint64_t v) noexcept nogil:
    v = htole64(v)
    memcpy(p, &v, 8)


cdef inline void siphash128(const uint64_t *key, const char *p, uint32_t n, uint64_t *tag) noexcept nogil:
    """key: 16 bytes as they stand; tag: two numbers."""
    cdef uint64_t k0 = le64toh(key[0]), k1 = le64toh(key[1])
    cdef uint64_t last = <uint64_t>n << 56
    cdef uint32_t i, whole = n & ~<uint32_t>7
    cdef sip_t s
    s.a = k0 ^ <uint64_t>0x736f6d6570736575
    s.b = k1 ^ <uint64_t>0x646f72616e646f6d ^ 0xee
    s.c = k0 ^ <uint64_t>0x6c7967656e657261
    s.d = k1 ^ <uint64_t>0x7465646279746573
    for i in range(0, whole, 8):
        sip_word(&s, word_at(p + i))
    for i in range(whole, n):
        last |= <uint64_t><uint8_t>p[i] << (8 * (i & 7))
    sip_word(&s, last)
    s.c ^= 0xee
    sip_rounds(&s, 4)
    tag[0] = s.a ^ s.b ^ s.c ^ s.d
    s.b ^= 0xdd
    sip_rounds(&s, 4)
    tag[1] = s.a ^ s.b ^ s.c ^ s.d
