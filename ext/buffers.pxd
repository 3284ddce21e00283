"""Buffers borrowed only while bytes are in flight.

Last in, first out, so the buffer taken next is the one still in cache. Every buffer has HEADROOM bytes in front of its
data: a rewritten head or a chunk's size line is put there, so that what goes out is one contiguous run.

A buffer of class BUF_PIPE is a pipe: its bytes never come into user space. off and end count them, there is nothing to look
at and no room; conn_splice_in fills it and conn_splice_out empties it.
"""

from libc.stdint cimport int32_t, uint32_t, uint64_t

cdef enum:
    HEADROOM = 1024
    TAILROOM = 16
    BUF_SMALL = 0             # heads and small bodies
    BUF_LARGE = 1             # bodies
    BUF_PIPE = 2              # bytes that pass on as they are
    BUF_CLASSES = 3
    SMALL_BYTES = 34816       # holds the largest head (32 kB) and a 16 kB body with its head
    LARGE_BYTES = 524288
    PIPE_BYTES = 1048576      # the largest pipe that Linux gives to everybody

cdef struct buf_t:
    buf_t *next               # the owner's chain, or the pool's free list
    uint32_t cap              # bytes that may be filled from base
    uint32_t off              # first byte not yet consumed, from base
    uint32_t end              # past the last byte filled, from base
    uint32_t klass
    int32_t pipe_out          # BUF_PIPE: the ends to read and to write
    int32_t pipe_in
    char base[1]              # HEADROOM + cap + TAILROOM bytes; data starts at HEADROOM

cdef struct buf_pool_t:
    buf_t *free[BUF_CLASSES]
    uint32_t n_free[BUF_CLASSES]
    uint32_t n_used[BUF_CLASSES]
    uint32_t keep[BUF_CLASSES]    # free buffers kept; the rest goes back to the allocator
    uint64_t large_max            # large buffers in use at most; past it buf_take gives a small one. A pipe is two
    uint32_t pipeless             # so many pipes are not even tried after one could not be opened

cdef void pool_init(buf_pool_t *pool, uint64_t large_bytes_max) noexcept nogil
cdef void pool_close(buf_pool_t *pool) noexcept nogil
cdef buf_t *buf_take(buf_pool_t *pool, uint32_t klass) noexcept nogil
"""An empty buffer with off = end = HEADROOM, NULL when memory is out. The caller owns it until buf_give. Where there is no
pipe to be had it is a large one, where there is no large one a small one."""
cdef void buf_give(buf_pool_t *pool, buf_t *b) noexcept nogil
cdef bint buf_slide(buf_t *b) noexcept nogil
"""Make room behind the data, moving it to the front if need be; False when the buffer is full of it."""
cdef void buf_give_chain(buf_pool_t *pool, buf_t *b) noexcept nogil

cdef inline uint32_t buf_left(const buf_t *b) noexcept nogil:
    return b.end - b.off

cdef inline uint32_t buf_room(const buf_t *b) noexcept nogil:
    return HEADROOM + b.cap - b.end

cdef inline char *buf_data(buf_t *b) noexcept nogil:
    return &b.base[0] + b.off

cdef inline char *buf_tail(buf_t *b) noexcept nogil:
    return &b.base[0] + b.end
