"""See sessions.pxd."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp, memcpy, memset
from turnout.ext.core cimport conn_t, endpoint_t
from turnout.ext.kernel cimport getrandom
from turnout.ext.siphash cimport siphash128

cdef enum:
    PLACES_MIN = 1024         # of a new table, a power of two


cdef int sessions_open(sessions_t *s) noexcept nogil:
    s.places = PLACES_MIN
    s.n = 0
    getrandom(s.key, sizeof(s.key), 0)
    s.table = <conn_t **>calloc(PLACES_MIN, sizeof(conn_t *))
    return 0 if s.table != NULL else -1


cdef void sessions_close(sessions_t *s) noexcept nogil:
    free(s.table)
    s.table = NULL


cdef uint32_t place_of(const sessions_t *s, const conn_t *l, const uint8_t *address, uint32_t scope,
                       uint16_t port) noexcept nogil:
    cdef char key[26]
    cdef uint64_t tag[2]
    memcpy(key, address, 16)
    memcpy(key + 16, &scope, 4)
    memcpy(key + 20, &l.index, 4)
    memcpy(key + 24, &port, 2)
    siphash128(s.key, key, sizeof(key), tag)
    return <uint32_t>tag[0] & (s.places - 1)


cdef inline uint32_t home_of(const sessions_t *s, const conn_t *c) noexcept nogil:
    return place_of(s, via(c), c.address, c.owner, c.port)


cdef conn_t *sessions_find(const sessions_t *s, const conn_t *l, const source_t *from_) noexcept nogil:
    cdef uint32_t at = place_of(s, l, from_.address, from_.scope, from_.port)
    cdef conn_t *c
    while s.table[at] != NULL:
        c = s.table[at]
        if c.port == from_.port and via(c) == l and c.owner == from_.scope and memcmp(c.address, from_.address, 16) == 0:
            return c
        at = (at + 1) & (s.places - 1)
    return NULL


cdef void put(sessions_t *s, conn_t *c) noexcept nogil:
    cdef uint32_t at = home_of(s, c)
    while s.table[at] != NULL:
        at = (at + 1) & (s.places - 1)
    s.table[at] = c


cdef bint sessions_add(sessions_t *s, conn_t *c) noexcept nogil:
    cdef conn_t **old = s.table
    cdef uint32_t i, n = s.places
    if (s.n + 1) * 2 > n:
        s.table = <conn_t **>calloc(<size_t>n * 2, sizeof(conn_t *))
        if s.table == NULL:
            s.table = old
            return False
        s.places = n * 2
        for i in range(n):
            if old[i] != NULL:
                put(s, old[i])
        free(old)
    put(s, c)
    s.n += 1
    return True


cdef void sessions_drop(sessions_t *s, const conn_t *c) noexcept nogil:
    """Whoever stands behind the gap and may stand in it moves up, so that there are no markers to clear away."""
    cdef uint32_t mask = s.places - 1, gap = home_of(s, c), at
    while s.table[gap] != c:
        if s.table[gap] == NULL:
            return
        gap = (gap + 1) & mask
    s.n -= 1
    at = gap
    while True:
        at = (at + 1) & mask
        if s.table[at] == NULL:
            break
        if ((at - home_of(s, s.table[at])) & mask) >= ((at - gap) & mask):
            s.table[gap] = s.table[at]
            gap = at
    s.table[gap] = NULL


# ---- test access ------------------------------------------------------------------------------------------------

cdef class _Sessions:
    """A table, and room for so many sessions in it; a session is called by its number."""

    cdef sessions_t s
    cdef conn_t *conns
    cdef conn_t listeners[4]
    cdef list unused

    def __cinit__(self, uint32_t room):
        cdef uint32_t i
        memset(&self.s, 0, sizeof(sessions_t))
        memset(self.listeners, 0, sizeof(self.listeners))
        for i in range(4):
            self.listeners[i].index = i
        self.unused = list(range(room))
        self.conns = <conn_t *>calloc(room, sizeof(conn_t))
        if self.conns == NULL or sessions_open(&self.s) < 0:
            raise MemoryError

    def __dealloc__(self):
        free(self.conns)
        sessions_close(&self.s)

    def __len__(self):
        return self.s.n

    @property
    def places(self):
        return self.s.places

    def add(self, uint32_t listener, bytes address, uint32_t scope, uint16_t port):
        number = self.unused.pop()
        cdef conn_t *c = &self.conns[<uint32_t>number]
        assert len(address) == 16
        c.endpoint = <endpoint_t *>&self.listeners[listener & 3]
        memcpy(c.address, <const char *>address, 16)
        c.owner = scope
        c.port = port
        if not sessions_add(&self.s, c):
            raise MemoryError
        return number

    def find(self, uint32_t listener, bytes address, uint32_t scope, uint16_t port):
        cdef source_t from_
        assert len(address) == 16
        memcpy(from_.address, <const char *>address, 16)
        from_.scope = scope
        from_.port = port
        cdef const conn_t *c = sessions_find(&self.s, &self.listeners[listener & 3], &from_)
        return None if c == NULL else c - self.conns

    def drop(self, uint32_t number):
        cdef uint32_t before = self.s.n
        sessions_drop(&self.s, &self.conns[number])
        if self.s.n < before:
            self.unused.append(number)

    def home(self, uint32_t number):
        return home_of(&self.s, &self.conns[number])
