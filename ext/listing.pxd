"""Lists: who may get new sessions, with what weight, and what each strategy needs to find them quickly."""

from libc.stdint cimport int64_t, uint32_t, uint64_t
from turnout.ext.balance cimport balancer_t, state_t, tier_t, turn_t
from turnout.ext.scoreboard cimport sb_load64

cdef enum:
    PERIOD_BITS = 40          # a deadline scheduler's period is 2^40 / weight
    POINTS = 160              # on the ring, for each unit of weight
    RING_POINTS = 1 << 18     # of a whole ring, unless that is fewer than POINTS a member

cdef void list_service(balancer_t *s, state_t *st, uint64_t now_ms) noexcept nogil
"""Make the lists of a service anew from the scoreboard."""
cdef void leave_heap(tier_t *t) noexcept nogil
"""Deadlines become times to wait, in `credit`. The heap is of no use until the tier is listed again."""

cdef inline void refresh(balancer_t *s, state_t *st, uint64_t now_ms) noexcept nogil:
    if st.changes != sb_load64(&s.sb.header.changes) or now_ms >= st.recheck_ms:
        list_service(s, st, now_ms)

cdef inline uint64_t period(uint32_t weight) noexcept nogil:
    return (<uint64_t>1 << PERIOD_BITS) // weight

cdef inline uint32_t ring_cap(uint32_t n) noexcept nogil:
    """Points are never more: see ring_shift. One more for each member, for those that round to none."""
    cdef uint32_t most = n * POINTS
    return (most if most > RING_POINTS else RING_POINTS) + n

cdef inline bint sooner(uint64_t a, uint64_t b) noexcept nogil:
    """Deadlines wrap around."""
    return <int64_t>(a - b) < 0

cdef inline void sift_down(turn_t *heap, uint32_t n, uint32_t i) noexcept nogil:
    cdef turn_t moved = heap[i]
    cdef uint32_t child, k, best
    while True:
        child = 4 * i + 1
        if child >= n:
            break
        best = child
        for k in range(child + 1, child + 4 if child + 4 < n else n):
            if sooner(heap[k].deadline, heap[best].deadline):
                best = k
        if not sooner(heap[best].deadline, moved.deadline):
            break
        heap[i] = heap[best]
        i = best
    heap[i] = moved
