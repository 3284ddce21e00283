"""Memory that is taken piece by piece and given back at once. Pieces come zeroed and aligned for any type.

In a debug build every piece is an allocation of its own, so that a sanitizer sees a step over its end.
"""

from libc.stdlib cimport calloc, free

cdef extern from *:
    int TURNOUT_DEBUG

cdef enum:
    ARENA_CHUNK = 65536
    ARENA_ALIGN = 16

cdef struct chunk_t:
    chunk_t *next
    size_t used
    size_t cap
    size_t pad                # keeps what follows aligned

cdef struct arena_t:
    chunk_t *chunks           # the one being filled first
    size_t step               # bytes of a chunk; 0: ARENA_CHUNK

cdef inline void *arena_take(arena_t *a, size_t n) noexcept nogil:
    """n zero bytes that live as long as the arena, NULL when memory is out. n may be 0."""
    cdef chunk_t *c = a.chunks
    cdef size_t cap = a.step if a.step else ARENA_CHUNK
    n = (n + ARENA_ALIGN) // ARENA_ALIGN * ARENA_ALIGN if not TURNOUT_DEBUG else n
    if c == NULL or c.cap - c.used < n or TURNOUT_DEBUG:
        cap = n if TURNOUT_DEBUG or n > cap else cap
        c = <chunk_t *>calloc(1, sizeof(chunk_t) + cap)
        if c == NULL:
            return NULL
        c.cap = cap
        c.next = a.chunks
        a.chunks = c
    c.used += n
    return <char *>(c + 1) + (c.used - n)

cdef inline void arena_free(arena_t *a) noexcept nogil:
    cdef chunk_t *c
    while a.chunks != NULL:
        c = a.chunks
        a.chunks = c.next
        free(c)
