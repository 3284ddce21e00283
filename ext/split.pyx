"""See split.pxd."""

from libc.stdint cimport int64_t, uint32_t, uint64_t
from turnout.ext.balance cimport balancer_t, part_t, state_t
from turnout.ext.scoreboard cimport SHARE_UNIT

cdef inline bint takes_part(const part_t *p) noexcept nogil:
    return p.share > 0 and not p.barred


cdef void shares_in_force(const state_t *st, uint32_t *k, uint64_t *sum) noexcept nogil:
    cdef uint32_t i
    k[0] = 0
    sum[0] = 0
    for i in range(st.n_parts):
        if takes_part(&st.parts[i]):
            k[0] += 1
            sum[0] += st.parts[i].share


cdef inline int64_t earned(const part_t *p, uint64_t sum) noexcept nogil:
    """By one request. While others are barred, what they would have had goes to the rest by their shares."""
    return <int64_t>(p.share if sum == SHARE_UNIT else p.share * <uint64_t>SHARE_UNIT // sum)


cdef part_t *choose_part(const balancer_t *s, const state_t *st) noexcept nogil:
    cdef uint32_t k, i
    cdef uint64_t sum
    cdef int64_t owed, time, best_time = 0, most = 0, step
    cdef part_t *p
    cdef part_t *best = NULL
    cdef part_t *fallback = NULL
    cdef int64_t best_step = 1
    shares_in_force(st, &k, &sum)
    for i in range(st.n_parts):
        p = &st.parts[i]
        if not takes_part(p):
            continue
        step = earned(p, sum)
        owed = s.lag[p.slot] + step
        if fallback == NULL or owed > most:
            fallback = p
            most = owed
        if k < 2 or owed * <int64_t>(2 * k - 2) < SHARE_UNIT:
            continue
        # requests until it would be owed too much, times step and 2k-2
        time = <int64_t>(2 * k - 3) * SHARE_UNIT - owed * <int64_t>(2 * k - 2)
        if best == NULL or time * best_step < best_time * step:
            best = p
            best_time = time
            best_step = step
    return best if best != NULL else fallback


cdef void give_part(balancer_t *s, const state_t *st, const part_t *chosen) noexcept nogil:
    cdef uint32_t i, k
    cdef uint64_t sum
    cdef int64_t given = 0
    shares_in_force(st, &k, &sum)
    for i in range(st.n_parts):
        if takes_part(&st.parts[i]):
            s.lag[st.parts[i].slot] += earned(&st.parts[i], sum)
            given += earned(&st.parts[i], sum)
    s.lag[chosen.slot] -= given
