"""The consistent-hash ring: 32 bits of hash around, points owned by endpoint slots.

A member's points come from MurmurHash3 of its identity and their rank alone: four of every hash of (identity, rank / 4).
A member that leaves gives up its own points and nothing else moves; one with less weight uses a prefix of its points, so
whoever looks up may also ignore points by their rank instead of building anew.
Points are sorted; a table over the top bits of the hash says where to begin, so that a look-up costs two cache misses
whatever the size.
"""

from libc.stdint cimport uint32_t, uint64_t

cdef struct owner_t:
    uint32_t slot
    uint32_t rank             # among its member's points, from 0

cdef struct ring_t:
    uint32_t n                # points
    uint32_t cap
    uint32_t shift            # of a hash: what is left is its bucket
    uint32_t *hash            # [n] ascending
    owner_t *owner            # [n]
    uint32_t *bucket          # first point at or after the bucket's start

cdef struct ring_member_t:
    uint64_t identity
    uint32_t slot
    uint32_t points

cdef ring_t *ring_new(uint32_t cap) noexcept nogil
"""Room for cap points. NULL: out of memory. Pages exist once they are used."""
cdef void ring_free(ring_t *r) noexcept nogil
cdef uint64_t ring_scratch(uint32_t cap) noexcept nogil
"""Bytes that ring_build needs to work in."""
cdef void ring_build(ring_t *r, ring_member_t *members, uint32_t n, void *scratch) noexcept nogil
"""Place the members' points, at most cap in total. Sorts `members` by identity; their order does not matter."""

cdef inline uint32_t ring_find(const ring_t *r, uint64_t key) noexcept nogil:
    """The first point at or after a key, around the end; needs r.n > 0."""
    cdef uint32_t h = <uint32_t>(key >> 32)
    cdef uint32_t i = r.bucket[h >> r.shift]
    while i < r.n and r.hash[i] < h:
        i += 1
    return i if i < r.n else 0

cdef inline uint32_t ring_next(const ring_t *r, uint32_t i) noexcept nogil:
    return i + 1 if i + 1 < r.n else 0

cdef void murmur128(const char *p, uint32_t n, uint64_t *out) noexcept nogil
"""MurmurHash3 x64 128 with seed 0: two words."""
