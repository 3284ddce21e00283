"""See buffers.pxd."""

from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memmove, memset

cdef enum:
    KEEP_SMALL = 64
    KEEP_LARGE = 4


cdef inline uint32_t class_bytes(uint32_t klass) noexcept nogil:
    return LARGE_BYTES if klass == BUF_LARGE else SMALL_BYTES


cdef void pool_init(buf_pool_t *pool, uint64_t large_bytes_max) noexcept nogil:
    memset(pool, 0, sizeof(buf_pool_t))
    pool.keep[BUF_SMALL] = KEEP_SMALL
    pool.keep[BUF_LARGE] = KEEP_LARGE
    pool.large_max = large_bytes_max // LARGE_BYTES


cdef void pool_close(buf_pool_t *pool) noexcept nogil:
    cdef uint32_t klass
    cdef buf_t *b
    for klass in range(BUF_CLASSES):
        while pool.free[klass] != NULL:
            b = pool.free[klass]
            pool.free[klass] = b.next
            free(b)
        pool.n_free[klass] = 0


cdef buf_t *buf_take(buf_pool_t *pool, uint32_t klass) noexcept nogil:
    cdef buf_t *b
    if klass == BUF_LARGE and pool.n_used[BUF_LARGE] >= pool.large_max:
        klass = BUF_SMALL
    b = pool.free[klass]
    if b != NULL:
        pool.free[klass] = b.next
        pool.n_free[klass] -= 1
    else:
        b = <buf_t *>malloc(sizeof(buf_t) + HEADROOM + class_bytes(klass) + TAILROOM)
        if b == NULL:
            return NULL
        b.cap = class_bytes(klass)
        b.klass = klass
    pool.n_used[klass] += 1
    b.next = NULL
    b.off = HEADROOM
    b.end = HEADROOM
    return b


cdef void buf_give(buf_pool_t *pool, buf_t *b) noexcept nogil:
    pool.n_used[b.klass] -= 1
    if pool.n_free[b.klass] >= pool.keep[b.klass]:
        free(b)
        return
    b.next = pool.free[b.klass]
    pool.free[b.klass] = b
    pool.n_free[b.klass] += 1


cdef bint buf_slide(buf_t *b) noexcept nogil:
    cdef uint32_t n = buf_left(b)
    if buf_room(b):
        return True
    if b.off == HEADROOM:
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
