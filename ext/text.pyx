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


cdef bint is_port(const char *p, size_t n) noexcept nogil:
    """":" and up to five digits, or nothing at all."""
    cdef size_t i
    if n == 0:
        return True
    if p[0] != c':' or n > 6:
        return False
    for i in range(1, n):
        if not c'0' <= p[i] <= c'9':
            return False
    return True


cdef bint address_parse(const char *p, uint32_t n, uint8_t *address) noexcept nogil:
    cdef char text[48]
    cdef const char *stop = p + n
    cdef int family = AF_INET6
    memset(address, 0, 16)
    if n and p[0] == c'[':
        p += 1
        stop = <const char *>memchr(p, c']', n - 1)
        if stop == NULL or not is_port(stop + 1, n - <size_t>(stop - p) - 2):
            return False
    elif n and memchr(p, c'.', n) != NULL:
        stop = <const char *>memchr(p, c':', n)
        if stop == NULL or memchr(p, c'.', <size_t>(stop - p)) == NULL:
            stop = p + n
        elif not is_port(stop, n - <size_t>(stop - p)):
            return False
        family = AF_INET if memchr(p, c':', <size_t>(stop - p)) == NULL else AF_INET6
    n = <uint32_t>(stop - p)
    if n == 0 or n >= sizeof(text) or memchr(p, 0, n) != NULL:
        return False
    memcpy(text, p, n)
    text[n] = 0
    if family == AF_INET:
        memcpy(address, MAPPED, 12)
        address += 12
    return inet_pton(family, text, address) == 1


# ---- for tests --------------------------------------------------------------------------------------------------

def _write(size_t address, uint32_t cap, list pieces):
    """Test access to out_*: bytes, (name, value) pairs and numbers, to an address; (length, whether it was too much)."""
    cdef out_t o
    out_open(&o, <char *>address, cap)
    for piece in pieces:
        if isinstance(piece, bytes):
            out_put(&o, piece, <uint32_t>len(piece))
        elif isinstance(piece, tuple):
            out_field(&o, piece[0], <uint32_t>len(piece[0]), piece[1], <uint32_t>len(piece[1]))
        else:
            out_uint(&o, piece)
    return out_length(&o), bool(o.full)


def _address_text(bytes packed):
    """Test access to address_text."""
    cdef char out[46]
    assert len(packed) == 16
    return out[:address_text(packed, out)]


def _address_parse(size_t address, uint32_t n):
    """Test access to address_parse: 16 bytes or None."""
    cdef uint8_t packed[16]
    if not address_parse(<const char *>address, n, packed):
        return None
    return (<char *>packed)[:16]
