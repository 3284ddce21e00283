"""See hello.pxd."""

from libc.stdint cimport uint8_t, uint32_t

cdef enum:
    RECORD_HANDSHAKE = 22
    RECORD_HEADER = 5
    RECORD_MAX = 16384
    CLIENT_HELLO = 1
    EXT_SERVER_NAME = 0
    NAME_HOST = 0
    FIXED = 34                # legacy_version and random

# A cursor over the handshake message that steps over record headers. `short` and `bad` stay set once they are.
cdef struct cursor_t:
    const uint8_t *p
    uint32_t n                # bytes at hand
    uint32_t at
    uint32_t record           # bytes left of the current record
    bint short_               # ran out of bytes
    bint bad


cdef void next_record(cursor_t *c) noexcept nogil:
    """At a record's header: an unbroken run of handshake records of TLS 1.x, none of them empty."""
    cdef uint32_t have = c.n - c.at
    if have < RECORD_HEADER:
        # What is there may tell already that this is something else.
        c.bad = (have > 0 and c.p[c.at] != RECORD_HANDSHAKE) or (have > 1 and c.p[c.at + 1] != 3)
        c.short_ = not c.bad
        return
    c.record = (<uint32_t>c.p[c.at + 3] << 8) | c.p[c.at + 4]
    c.bad = (c.p[c.at] != RECORD_HANDSHAKE or c.p[c.at + 1] != 3 or c.record == 0 or c.record > RECORD_MAX)
    c.at += RECORD_HEADER


cdef inline uint32_t take(cursor_t *c) noexcept nogil:
    """One byte of the message; 0 when there is none."""
    if c.short_ or c.bad:
        return 0
    if c.record == 0:
        next_record(c)
        if c.short_ or c.bad:
            return 0
    if c.at == c.n:
        c.short_ = True
        return 0
    c.record -= 1
    c.at += 1
    return c.p[c.at - 1]


cdef inline uint32_t take16(cursor_t *c) noexcept nogil:
    cdef uint32_t high = take(c)
    return (high << 8) | take(c)


cdef void skip(cursor_t *c, uint32_t n) noexcept nogil:
    cdef uint32_t step
    while n and not (c.short_ or c.bad):
        if c.record == 0:
            next_record(c)
            continue
        step = c.n - c.at
        if step == 0:
            c.short_ = True
            return
        step = min(step, min(n, c.record))
        c.at += step
        c.record -= step
        n -= step


cdef inline bint name_byte(uint32_t ch, char *out) noexcept nogil:
    out[0] = <char>(ch + 32 if 65 <= ch <= 90 else ch)
    return 32 < ch < 127


cdef inline int name_length(const char *name, uint32_t size) noexcept nogil:
    """Without the dot at the end."""
    return <int>(size - 1 if name[size - 1] == c'.' else size)


cdef int hello_plain_name(const char *p, char *name) noexcept nogil:
    cdef uint32_t n = 0
    while p != NULL and p[n]:
        if n == HELLO_NAME_MAX or not name_byte(<uint8_t>p[n], &name[n]):
            return 0
        n += 1
    return name_length(name, n) if n else 0


cdef int name_of_extension(cursor_t *c, uint32_t left, char *name) noexcept nogil:
    """RFC 6066 3: a list with one host name. Its length; 0 when it holds none."""
    cdef uint32_t size, i, ch
    if left < 5 or take16(c) != left - 2:
        c.bad = c.bad or not c.short_
        return 0
    if take(c) != NAME_HOST:
        skip(c, left - 3)
        return 0
    size = take16(c)
    if size == 0 or size > HELLO_NAME_MAX or size != left - 5:
        c.bad = c.bad or not c.short_
        return 0
    for i in range(size):
        ch = take(c)
        if not name_byte(ch, &name[i]):
            c.bad = c.bad or not c.short_
            return 0
    return name_length(name, size)


cdef int name_of_extensions(cursor_t *c, uint32_t left, char *name) noexcept nogil:
    cdef uint32_t kind, size
    while left >= 4 and not (c.short_ or c.bad):
        kind = take16(c)
        size = take16(c)
        left -= 4
        if size > left:
            c.bad = c.bad or not c.short_
            return 0
        if kind == EXT_SERVER_NAME:
            return name_of_extension(c, size, name)
        skip(c, size)
        left -= size
    if left:
        c.bad = c.bad or not c.short_
    return 0


cdef void skip_field(cursor_t *c, uint32_t *left, uint32_t width) noexcept nogil:
    """A length of `width` bytes and what it counts, all of it within what is left of the message."""
    cdef uint32_t size = take(c) if width == 1 else take16(c)
    if c.short_ or c.bad:
        return
    if width + size > left[0]:
        c.bad = True
        return
    left[0] -= width + size
    skip(c, size)


cdef int name_of_message(cursor_t *c, char *name) noexcept nogil:
    cdef uint32_t left
    if take(c) != CLIENT_HELLO:
        c.bad = c.bad or not c.short_
    left = take(c) << 16
    left |= take16(c)
    if left > HELLO_MAX or left < FIXED + 4:
        c.bad = c.bad or not c.short_
    skip(c, FIXED)
    left -= FIXED
    skip_field(c, &left, 1)       # legacy_session_id
    skip_field(c, &left, 2)       # cipher_suites
    skip_field(c, &left, 1)       # legacy_compression_methods
    if c.short_ or c.bad or left == 0:
        return 0
    if left < 2 or take16(c) != left - 2:
        c.bad = c.bad or not c.short_
    return name_of_extensions(c, left - 2, name)


cdef int hello_name(const char *p, uint32_t n, char *name) noexcept nogil:
    cdef cursor_t c
    cdef int found
    c.p = <const uint8_t *>p
    c.n = n
    c.at = 0
    c.record = 0
    c.short_ = False
    c.bad = False
    found = name_of_message(&c, name)
    if c.bad:
        return HELLO_OTHER
    if c.short_:
        return HELLO_MORE if n < HELLO_MAX else HELLO_OTHER
    return found


def _name_at(size_t address, uint32_t size):
    """Test access: the name (b"" for none), "more" or "other"."""
    cdef char name[HELLO_NAME_MAX]
    cdef int n = hello_name(<const char *>address, size, name)
    return {HELLO_MORE: "more", HELLO_OTHER: "other"}.get(n) or name[:n]
