"""See framing.pxd."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

cdef extern from "<string.h>" nogil:
    void *memmove(void *, const void *, size_t)

cdef enum:
    EXTENSION_MAX = 256       # bytes of one chunk's extensions
    OVERHEAD_MAX = 16384      # framing bytes beyond what the data is worth
    SIZE_BITS = 60            # a size of 2**60 and above is refused
    SIZE_DIGITS = 16          # and one written with more digits, zeros or not


cdef int hex_value(char c) noexcept nogil:
    if c'0' <= c <= c'9':
        return c - c'0'
    if c'a' <= c <= c'f':
        return c - c'a' + 10
    if c'A' <= c <= c'F':
        return c - c'A' + 10
    return -1


cdef bint extension_byte(char c) noexcept nogil:
    """What may stand in a chunk extension: no control byte but a tab."""
    return <uint8_t>c >= 0x20 and <uint8_t>c != 0x7f or c == c'\t'


cdef int chunk_step(body_t *b, char c) noexcept nogil:
    """One framing byte through the machine; FRAME_MALFORMED, or FRAME_END when the trailer section comes next."""
    cdef int digit
    b.overhead += 1
    if b.overhead > OVERHEAD_MAX:
        return FRAME_MALFORMED
    if b.phase == CHUNK_SIZE or b.phase == CHUNK_SIZE_MORE:
        digit = hex_value(c)
        if digit >= 0:
            b.extension = 1 if b.phase == CHUNK_SIZE else b.extension + 1
            if b.left >> (SIZE_BITS - 4) or b.extension > SIZE_DIGITS:
                return FRAME_MALFORMED
            b.left = (b.left << 4) | <uint64_t>digit
            b.phase = CHUNK_SIZE_MORE
            return FRAME_MORE
        if b.phase == CHUNK_SIZE:
            return FRAME_MALFORMED
        if c == c'\r':
            b.phase = CHUNK_SIZE_LF
        elif c == c';':
            b.phase = CHUNK_EXT
            b.extension = 0
        else:
            return FRAME_MALFORMED
    elif b.phase == CHUNK_EXT:
        b.extension += 1
        if c == c'\r':
            b.phase = CHUNK_SIZE_LF
        elif not extension_byte(c) or b.extension > EXTENSION_MAX:
            return FRAME_MALFORMED
    elif b.phase == CHUNK_SIZE_LF:
        if c != c'\n':
            return FRAME_MALFORMED
        b.phase = CHUNK_DATA if b.left else CHUNK_TRAILERS
        return FRAME_MORE if b.left else FRAME_END
    elif b.phase == CHUNK_DATA_CR:
        if c != c'\r':
            return FRAME_MALFORMED
        b.phase = CHUNK_DATA_LF
    elif b.phase == CHUNK_DATA_LF:
        if c != c'\n':
            return FRAME_MALFORMED
        b.phase = CHUNK_SIZE
    else:
        return FRAME_MALFORMED
    return FRAME_MORE


cdef int chunk_decode(body_t *b, char *p, uint32_t n, uint32_t *data, uint32_t *used) noexcept nogil:
    cdef uint32_t at = 0, out = 0, take
    cdef int verdict = FRAME_MORE
    while at < n and verdict == FRAME_MORE:
        if b.phase != CHUNK_DATA:
            verdict = chunk_step(b, p[at])
            at += 1
            continue
        take = n - at if b.left > n - at else <uint32_t>b.left
        if out != at:
            memmove(p + out, p + at, take)
        at += take
        out += take
        b.left -= take
        # Data pays for framing: a byte of it earns eight, so honest small chunks pass and a flood of empty ones does not.
        b.overhead -= take * 8 if b.overhead > take * 8 else b.overhead
        if b.left == 0:
            b.phase = CHUNK_DATA_CR
    data[0] = out
    used[0] = at
    return verdict


cdef int body_feed(body_t *b, char *p, uint32_t n, uint32_t *data, uint32_t *used) noexcept nogil:
    cdef uint32_t take
    if b.kind == BODY_CHUNKED:
        return chunk_decode(b, p, n, data, used)
    if b.kind == BODY_CLOSE:
        data[0] = n
        used[0] = n
        return FRAME_MORE
    take = n if b.left > n else <uint32_t>b.left
    b.left -= take
    data[0] = take
    used[0] = take
    return FRAME_MORE if b.left else FRAME_END


cdef uint32_t size_line(uint32_t n, char *end) noexcept nogil:
    """Write "<hex>CRLF" so that it ends at `end`; returns its length."""
    cdef char *at = end
    at -= 1
    at[0] = c'\n'
    at -= 1
    at[0] = c'\r'
    while True:
        at -= 1
        at[0] = b"0123456789abcdef"[n & 15]
        n >>= 4
        if n == 0:
            return <uint32_t>(end - at)


cdef uint32_t chunk_frame(char *data, uint32_t n) noexcept nogil:
    data[n] = c'\r'
    data[n + 1] = c'\n'
    return size_line(n, data)


# ---- for tests --------------------------------------------------------------------------------------------------

cdef class _Body:
    """Test access: one body, fed where its bytes stand."""

    cdef body_t body

    def __cinit__(self, int kind, uint64_t left=0):
        self.body.kind = <uint8_t>kind
        self.body.left = left

    def feed(self, size_t address, uint32_t n):
        """(FRAME_*, bytes of plain data now at the address, raw bytes consumed)"""
        cdef uint32_t data = 0, used = 0
        verdict = body_feed(&self.body, <char *>address, n, &data, &used)
        return verdict, data, used

    @property
    def phase(self):
        return self.body.phase


def _frame(bytes data):
    """Test access: `data` as one chunk."""
    cdef bytearray room = bytearray(CHUNK_ROOM_BEFORE) + data + bytearray(CHUNK_ROOM_AFTER)
    cdef char *p = room
    before = chunk_frame(p + CHUNK_ROOM_BEFORE, <uint32_t>len(data))
    return bytes(room[CHUNK_ROOM_BEFORE - before :])
