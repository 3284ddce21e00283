"""See ring.pxd."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc, qsort
from libc.string cimport memcpy, memset

cdef enum:
    RADIX_BITS = 11
    RADIX = 1 << RADIX_BITS

cdef enum:
    POINTS_PER_HASH = 4


# ---- MurmurHash3 ------------------------------------------------------------------------------------------------

cdef inline uint64_t rotl(uint64_t x, int r) noexcept nogil:
    return (x << r) | (x >> (64 - r))


cdef inline uint64_t mixed1(uint64_t k) noexcept nogil:
    return rotl(k * <uint64_t>0x87c37b91114253d5, 31) * <uint64_t>0x4cf5ad432745937f


cdef inline uint64_t mixed2(uint64_t k) noexcept nogil:
    return rotl(k * <uint64_t>0x4cf5ad432745937f, 33) * <uint64_t>0x87c37b91114253d5


cdef inline uint64_t finished(uint64_t k) noexcept nogil:
    k = (k ^ (k >> 33)) * <uint64_t>0xff51afd7ed558ccd
    k = (k ^ (k >> 33)) * <uint64_t>0xc4ceb9fe1a85ec53
    return k ^ (k >> 33)


cdef void murmur128(const char *p, uint32_t n, uint64_t *out) noexcept nogil:
    cdef uint64_t h1 = 0, h2 = 0
    cdef uint64_t k[2]
    cdef uint32_t left = n
    while left >= 16:
        memcpy(k, p, 16)
        h1 = (rotl(h1 ^ mixed1(k[0]), 27) + h2) * 5 + 0x52dce729
        h2 = (rotl(h2 ^ mixed2(k[1]), 31) + h1) * 5 + 0x38495ab5
        p += 16
        left -= 16
    if left:
        k[0] = 0
        k[1] = 0
        memcpy(k, p, left)
        h2 ^= mixed2(k[1])
        h1 ^= mixed1(k[0])
    h1 ^= n
    h2 ^= n
    h1 += h2
    h2 += h1
    h1 = finished(h1)
    h2 = finished(h2)
    out[0] = h1 + h2
    out[1] = h2 + out[0]


# ---- the ring ---------------------------------------------------------------------------------------------------

cdef ring_t *ring_new(uint32_t cap) noexcept nogil:
    cdef ring_t *r = <ring_t *>calloc(1, sizeof(ring_t))
    if r == NULL:
        return NULL
    r.cap = cap
    r.hash = <uint32_t *>malloc(<size_t>cap * sizeof(uint32_t))
    r.owner = <owner_t *>malloc(<size_t>cap * sizeof(owner_t))
    r.bucket = <uint32_t *>malloc((<size_t>1 << bucket_bits(cap)) * sizeof(uint32_t))
    if r.hash == NULL or r.owner == NULL or r.bucket == NULL:
        ring_free(r)
        return NULL
    return r


cdef void ring_free(ring_t *r) noexcept nogil:
    if r != NULL:
        free(r.hash)
        free(r.owner)
        free(r.bucket)
        free(r)


cdef uint32_t bucket_bits(uint32_t n) noexcept nogil:
    """Of a table with about one point a bucket."""
    cdef uint32_t bits = 1
    while bits < 31 and (<uint32_t>1 << bits) < n:
        bits += 1
    return bits


cdef uint64_t ring_scratch(uint32_t cap) noexcept nogil:
    return <uint64_t>cap * (2 * sizeof(uint64_t) + sizeof(owner_t))


cdef int by_identity(const void *a, const void *b) noexcept nogil:
    cdef uint64_t x = (<const ring_member_t *>a).identity
    cdef uint64_t y = (<const ring_member_t *>b).identity
    return (x > y) - (x < y)


cdef void ring_build(ring_t *r, ring_member_t *members, uint32_t n, void *scratch) noexcept nogil:
    cdef uint64_t *keys = <uint64_t *>scratch
    cdef uint64_t *other = keys + r.cap
    cdef owner_t *owners = <owner_t *>(other + r.cap)
    cdef uint32_t i
    qsort(members, n, sizeof(ring_member_t), by_identity)
    r.n = 0
    for i in range(n):
        place_points(r, &members[i], keys, owners)
    sort_pass(keys, other, r.n, 32)
    sort_pass(other, keys, r.n, 32 + RADIX_BITS)
    sort_pass(keys, other, r.n, 32 + 2 * RADIX_BITS)
    for i in range(r.n):
        r.hash[i] = <uint32_t>(other[i] >> 32)
        r.owner[i] = owners[<uint32_t>other[i]]
    index_buckets(r)


cdef void place_points(ring_t *r, const ring_member_t *m, uint64_t *keys, owner_t *owners) noexcept nogil:
    """Append a member's points: hash above, running number below, so that equal hashes stay in order of identity."""
    cdef uint64_t seed[2]
    cdef uint64_t h[2]
    cdef uint32_t rank
    h[0] = h[1] = 0
    seed[0] = m.identity
    for rank in range(m.points):
        if r.n == r.cap:
            return
        if rank % POINTS_PER_HASH == 0:
            seed[1] = rank // POINTS_PER_HASH
            murmur128(<const char *>seed, sizeof(seed), h)
        keys[r.n] = ((h[rank % 4 // 2] >> (32 * (rank % 2))) << 32) | r.n
        owners[r.n].slot = m.slot
        owners[r.n].rank = rank
        r.n += 1


cdef void sort_pass(const uint64_t *source, uint64_t *target, uint32_t n, uint32_t shift) noexcept nogil:
    """One stable pass of a radix sort."""
    cdef uint32_t starts[RADIX]
    cdef uint32_t i, digit, count, total = 0
    memset(starts, 0, sizeof(starts))
    for i in range(n):
        starts[(source[i] >> shift) & (RADIX - 1)] += 1
    for i in range(RADIX):
        count = starts[i]
        starts[i] = total
        total += count
    for i in range(n):
        digit = <uint32_t>(source[i] >> shift) & (RADIX - 1)
        target[starts[digit]] = source[i]
        starts[digit] += 1


cdef void index_buckets(ring_t *r) noexcept nogil:
    cdef uint32_t bits = bucket_bits(r.n)
    cdef uint32_t i, at = 0
    r.shift = 32 - bits
    for i in range(<uint32_t>1 << bits):
        while at < r.n and r.hash[at] >> r.shift < i:
            at += 1
        r.bucket[i] = at


# ---- for tests and measurements ---------------------------------------------------------------------------------

def _murmur(bytes data not None):
    cdef uint64_t out[2]
    murmur128(data, <uint32_t>len(data), out)
    return out[0], out[1]


cdef class _Ring:
    cdef ring_t *ring
    cdef ring_member_t *members
    cdef void *scratch
    cdef uint32_t n

    def __cinit__(self, members not None):
        cdef uint32_t i
        cdef uint32_t points = sum([count for _, _, count in members])
        self.n = len(members)
        self.ring = ring_new(points)
        self.members = <ring_member_t *>calloc(self.n + 1, sizeof(ring_member_t))
        self.scratch = malloc(ring_scratch(points) + 1)
        if self.ring == NULL or self.members == NULL or self.scratch == NULL:
            raise MemoryError
        for i, (identity, slot, count) in enumerate(members):
            self.members[i].identity = identity
            self.members[i].slot = slot
            self.members[i].points = count
        self.build()

    def __dealloc__(self):
        ring_free(self.ring)
        free(self.members)
        free(self.scratch)

    def build(self):
        with nogil:
            ring_build(self.ring, self.members, self.n, self.scratch)

    def points(self):
        return [(self.ring.hash[i], self.ring.owner[i].slot, self.ring.owner[i].rank) for i in range(self.ring.n)]

    def find(self, uint64_t key):
        return self.ring.owner[ring_find(self.ring, key)].slot if self.ring.n else None
