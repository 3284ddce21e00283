"""See buffers.pxd."""

from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memmove, memset
from turnout.ext.kernel cimport F_SETPIPE_SZ, O_CLOEXEC, O_NONBLOCK, close, fcntl, pipe2

cdef enum:
    KEEP_SMALL = 64
    KEEP_LARGE = 4
    KEEP_PIPES = 16
    PIPELESS = 1000           # the descriptors, or what pipes of this user may hold, ran out: others get theirs first


cdef inline uint32_t class_bytes(uint32_t klass) noexcept nogil:
    return LARGE_BYTES if klass == BUF_LARGE else SMALL_BYTES if klass == BUF_SMALL else 0


cdef void pool_init(buf_pool_t *pool, uint64_t large_bytes_max) noexcept nogil:
    memset(pool, 0, sizeof(buf_pool_t))
    pool.keep[BUF_SMALL] = KEEP_SMALL
    pool.keep[BUF_LARGE] = KEEP_LARGE
    pool.keep[BUF_PIPE] = KEEP_PIPES
    pool.large_max = large_bytes_max // LARGE_BYTES


cdef void pool_close(buf_pool_t *pool) noexcept nogil:
    cdef uint32_t klass
    cdef buf_t *b
    for klass in range(BUF_CLASSES):
        while pool.free[klass] != NULL:
            b = pool.free[klass]
            pool.free[klass] = b.next
            buf_free(b)
        pool.n_free[klass] = 0


cdef void buf_free(buf_t *b) noexcept nogil:
    if b.klass == BUF_PIPE:
        close(b.pipe_in)
        close(b.pipe_out)
    free(b)


cdef buf_t *buf_new(uint32_t klass) noexcept nogil:
    cdef buf_t *b = <buf_t *>malloc(sizeof(buf_t) + HEADROOM + class_bytes(klass) + TAILROOM)
    if b != NULL:
        b.cap = class_bytes(klass)
        b.klass = klass
    return b


cdef bint pipe_open(buf_t *b) noexcept nogil:
    cdef int ends[2]
    if pipe2(ends, O_NONBLOCK | O_CLOEXEC) < 0:
        return False
    b.pipe_out = ends[0]
    b.pipe_in = ends[1]
    if fcntl(ends[1], F_SETPIPE_SZ, PIPE_BYTES) == PIPE_BYTES:
        return True
    close(ends[0])
    close(ends[1])
    return False


cdef buf_t *pipe_new(buf_pool_t *pool) noexcept nogil:
    cdef buf_t *b
    if pool.pipeless:
        pool.pipeless -= 1
        return NULL
    b = buf_new(BUF_PIPE)
    if b != NULL and pipe_open(b):
        return b
    free(b)
    pool.pipeless = PIPELESS
    return NULL


cdef inline uint64_t large_left(const buf_pool_t *pool) noexcept nogil:
    cdef uint64_t used = pool.n_used[BUF_LARGE] + 2 * <uint64_t>pool.n_used[BUF_PIPE]
    return pool.large_max - used if used < pool.large_max else 0


cdef buf_t *buf_take(buf_pool_t *pool, uint32_t klass) noexcept nogil:
    cdef buf_t *b = NULL
    if klass == BUF_PIPE and large_left(pool) < 2:
        klass = BUF_LARGE
    if klass == BUF_PIPE and pool.free[klass] == NULL:
        b = pipe_new(pool)
        if b == NULL:
            klass = BUF_LARGE
    if klass == BUF_LARGE and large_left(pool) == 0:
        klass = BUF_SMALL
    if b == NULL:
        b = kept_or_new(pool, klass)
    if b == NULL:
        return NULL
    pool.n_used[klass] += 1
    b.next = NULL
    b.off = HEADROOM
    b.end = HEADROOM
    return b


cdef inline buf_t *kept_or_new(buf_pool_t *pool, uint32_t klass) noexcept nogil:
    cdef buf_t *b = pool.free[klass]
    if b == NULL:
        return buf_new(klass)
    pool.free[klass] = b.next
    pool.n_free[klass] -= 1
    return b


cdef void buf_give(buf_pool_t *pool, buf_t *b) noexcept nogil:
    pool.n_used[b.klass] -= 1
    # A pipe with bytes left in it is of no more use.
    if pool.n_free[b.klass] >= pool.keep[b.klass] or (b.klass == BUF_PIPE and b.off < b.end):
        buf_free(b)
        return
    b.next = pool.free[b.klass]
    pool.free[b.klass] = b
    pool.n_free[b.klass] += 1


cdef bint buf_slide(buf_t *b) noexcept nogil:
    cdef uint32_t n = buf_left(b)
    if buf_room(b):
        return True
    if b.off <= HEADROOM:
        return False
    memmove(&b.base[0] + HEADROOM, buf_data(b), n)
    b.off = HEADROOM
    b.end = HEADROOM + n
    return True


cdef void buf_give_chain(buf_pool_t *pool, buf_t *b) noexcept nogil:
    cdef buf_t *next
    while b != NULL:
        next = b.next
        buf_give(pool, b)
        b = next


# ---- for tests --------------------------------------------------------------------------------------------------

cdef class _Pool:
    """Test access: a pool, and the buffers taken from it by number."""

    cdef buf_pool_t pool
    cdef list taken

    def __cinit__(self, uint64_t large_bytes_max):
        pool_init(&self.pool, large_bytes_max)
        self.taken = []

    def __dealloc__(self):
        pool_close(&self.pool)

    cdef buf_t *at(self, uint32_t i):
        return <buf_t *><size_t>self.taken[i]

    def take(self, uint32_t klass):
        cdef buf_t *b = buf_take(&self.pool, klass)
        if b == NULL:
            raise MemoryError
        self.taken.append(<size_t>b)
        return len(self.taken) - 1

    def give(self, uint32_t i):
        buf_give(&self.pool, self.at(i))

    def give_chain(self, list numbers):
        cdef buf_t *first = NULL
        for i in reversed(numbers):
            self.at(i).next = first
            first = self.at(i)
        buf_give_chain(&self.pool, first)

    def fill(self, uint32_t i, bytes data):
        """Put data behind what is there; only as much as there is room for."""
        cdef buf_t *b = self.at(i)
        cdef uint32_t n = min(<uint32_t>len(data), buf_room(b))
        memcpy(buf_tail(b), <const char *>data, n)
        b.end += n
        return n

    def eat(self, uint32_t i, uint32_t n):
        cdef buf_t *b = self.at(i)
        b.off += min(n, buf_left(b))

    def grow_down(self, uint32_t i, bytes data):
        """Put data before what is there, as a framing does."""
        cdef buf_t *b = self.at(i)
        assert len(data) <= b.off
        b.off -= <uint32_t>len(data)
        memcpy(buf_data(b), <const char *>data, len(data))

    def pad(self, uint32_t i):
        """Write all of the room behind the data, and TAILROOM behind that."""
        cdef buf_t *b = self.at(i)
        memset(buf_tail(b), 0xa5, buf_room(b) + TAILROOM)

    def slide(self, uint32_t i):
        return bool(buf_slide(self.at(i)))

    def data(self, uint32_t i):
        return buf_data(self.at(i))[:buf_left(self.at(i))]

    def room(self, uint32_t i):
        return buf_room(self.at(i))

    def klass(self, uint32_t i):
        return self.at(i).klass

    def ends(self, uint32_t i):
        """(descriptor to read, descriptor to write) of a pipe"""
        return self.at(i).pipe_out, self.at(i).pipe_in

    def hold(self, uint32_t i, uint32_t n):
        """Say that n bytes are in a pipe."""
        self.at(i).end += n

    @property
    def pipes(self):
        """(used, free)"""
        return self.pool.n_used[BUF_PIPE], self.pool.n_free[BUF_PIPE]

    @property
    def counts(self):
        """(small used, small free, large used, large free)"""
        return self.pool.n_used[0], self.pool.n_free[0], self.pool.n_used[1], self.pool.n_free[1]
