"""See listing.pxd."""

from libc.stdint cimport int64_t, uint32_t, uint64_t
from turnout.ext.balance cimport (
    PARTS, SMALL, UNSEEDED, balancer_t, is_smooth, node_t, part_t, permitted, rnd, rnd_below, sound, state_t, tier_t,
    well,
)
from turnout.ext.breaker cimport BRK_TICK_MS
from turnout.ext.ring cimport ring_build
from turnout.ext.scoreboard cimport BRK_OPEN, brk_deadline, brk_state, sb_fence, sb_load, sb_load64, sb_t
from turnout.ext.snapshot cimport service_t

cdef enum:
    RAMP_STEP_MS = 20
    WARM_STEPS = 1024

cdef uint64_t NEVER = <uint64_t>0 - 1


cdef inline void due_at(state_t *st, uint64_t ms) noexcept nogil:
    if ms < st.recheck_ms:
        st.recheck_ms = ms


cdef void list_service(balancer_t *s, state_t *st, uint64_t now_ms) noexcept nogil:
    cdef uint32_t i, k
    cdef part_t *p
    cdef bint served = False
    st.changes = sb_load64(&s.sb.header.changes)
    sb_fence()
    st.recheck_ms = NEVER
    for i in range(st.n_parts):
        p = &st.parts[i]
        survey(s, st, p, now_ms)
        served |= p.n_sound > 0 and (p.share > 0 or not st.service.split)
    for i in range(st.n_parts):
        p = &st.parts[i]
        p.panic = in_panic(st.service, p) and (p.n_sound > 0 or not served)
        for k in range(p.n_tiers):
            list_tier(s, st, &p.tiers[k], p.panic)


cdef bint in_panic(const service_t *service, const part_t *p) noexcept nogil:
    """Too few are sound, of those the operator lets through. Not as long as one priority has enough; nor, see above, with
    nobody at all while another group serves: that one gets the requests then."""
    cdef uint32_t i
    cdef bint any = False
    for i in range(p.n_tiers):
        if p.tiers[i].n_able == 0:
            continue
        any = True
        if p.tiers[i].n_sound * <uint64_t>100 >= p.tiers[i].n_able * <uint64_t>service.panic_pct:
            return False
    return any


cdef void survey(balancer_t *s, state_t *st, part_t *p, uint64_t now_ms) noexcept nogil:
    cdef uint32_t i
    p.share = sb_load(&s.sb.group[p.slot].share)
    p.n_sound = 0
    for i in range(p.n_tiers):
        survey_tier(s, st, &p.tiers[i], now_ms)
        p.n_sound += p.tiers[i].n_sound


cdef void survey_tier(balancer_t *s, state_t *st, tier_t *t, uint64_t now_ms) noexcept nogil:
    """Who is permitted, with what weight, and who is well."""
    cdef uint32_t i
    cdef node_t *node
    t.n_able = 0
    t.n_sound = 0
    for i in range(t.n):
        node = t.members[i]
        node.offer = 0
        node.well = well(s.sb, st.service, node.slot, now_ms)
        node.trial = not sound(s.sb, st.service, node.slot)
        if not node.well:
            due_at(st, reopens_ms(s.sb, st.service, node.slot, now_ms))
        if permitted(s.sb, node.slot, node.generation, False):
            node.offer = ramped(s.sb, st, node.slot, now_ms)
            t.n_able += 1
            t.n_sound += not node.trial


cdef uint64_t reopens_ms(const sb_t *sb, const service_t *service, uint32_t slot, uint64_t now_ms) noexcept nogil:
    """When a shut breaker lets a probe through."""
    cdef uint64_t word = sb_load64(&sb.breaker[slot].word)
    if service.breaker.failures == 0 or brk_state(word) != BRK_OPEN:
        return NEVER
    return (now_ms // BRK_TICK_MS + <uint32_t>(brk_deadline(word) - <uint32_t>(now_ms // BRK_TICK_MS))) * BRK_TICK_MS


cdef uint32_t ramped(const sb_t *sb, state_t *st, uint32_t slot, uint64_t now_ms) noexcept nogil:
    """The weight in force in parts: slow start takes it up in a line, from one part for each unit."""
    cdef uint32_t weight = sb_load(&sb.endpoint[slot].weight)
    cdef uint64_t since = sb_load64(&sb.endpoint[slot].slow_start_ms)
    cdef uint64_t span = st.service.slow_start_ms
    cdef uint64_t parts = PARTS
    if span and since and now_ms < since + span:
        due_at(st, now_ms + RAMP_STEP_MS)
        parts = (now_ms - since) * PARTS // span if now_ms > since else 0
    return weight * <uint32_t>(parts if parts else 1)


cdef void list_tier(balancer_t *s, state_t *st, tier_t *t, bint panic) noexcept nogil:
    cdef uint32_t i, n = 0
    cdef uint64_t total = 0
    cdef node_t *node
    cdef bint heaped
    for i in range(t.n):
        node = t.members[i]
        if not node.well and not panic:
            node.offer = 0
        n += node.offer > 0
        total += node.offer
    heaped = n > SMALL and is_smooth(st.service)
    leave_heap(t)
    keep_credits(s, t, heaped, total)
    fill_list(t, total, heaped)
    if heaped:
        heap_build(t)
    if t.alias != NULL:
        alias_build(t)
    if t.ring != NULL:
        update_ring(s, t)


cdef void fill_list(tier_t *t, uint64_t total, bint heaped) noexcept nogil:
    cdef uint32_t i
    cdef uint64_t before = 0
    cdef node_t *node
    t.n_listed = 0
    t.trials = 0
    t.total = total
    t.heaped = heaped
    t.surveyed_ms = 0
    for i in range(t.n):
        node = t.members[i]
        node.weight = node.offer
        node.before = before
        before += node.weight
        if node.weight:
            t.listed[t.n_listed] = node
            t.n_listed += 1
            t.trials += node.trial
    if t.cursor >= t.n_listed:
        t.cursor = 0


# ---- the smooth scheduler ---------------------------------------------------------------------------------------

cdef void keep_credits(balancer_t *s, tier_t *t, bint heaped, uint64_t total) noexcept nogil:
    """What everyone is owed, carried over to new weights: scaled with them, within bounds. A newcomer starts at a random
    place in the round; a tier of newcomers in the middle of one."""
    cdef uint32_t i, seeded = 0
    for i in range(t.n):
        seeded += t.members[i].credit != UNSEEDED
    for i in range(t.n):
        if t.members[i].offer:
            keep_credit(s, t, t.members[i], heaped, total)
        elif heaped != t.heaped:
            t.members[i].credit = UNSEEDED
    if seeded == 0 and not heaped and total:
        warm_up(s, t)


cdef void keep_credit(balancer_t *s, tier_t *t, node_t *node, bint heaped, uint64_t total) noexcept nogil:
    cdef int64_t limit = <int64_t>(period(node.offer) if heaped else total)
    if node.credit == UNSEEDED:
        node.credit = <int64_t>(rnd(s) % <uint64_t>limit)
        node.debt = 0
        if not heaped:
            node.credit = -node.credit
    elif heaped and not t.heaped:
        node.credit = <int64_t>(-<double>node.credit / <double>(t.total if t.total else 1) * limit)
    elif t.heaped and not heaped:
        node.credit = -<int64_t>(<double>node.credit / period(node.weight if node.weight else node.offer) * limit)
    elif node.weight and node.weight != node.offer:
        node.credit = <int64_t>(<double>node.credit * (node.weight / <double>node.offer if heaped
                                                       else node.offer / <double>node.weight))
    if node.credit > limit:
        node.credit = limit
    if node.credit < (0 if heaped else -limit):
        node.credit = 0 if heaped else -limit


cdef void warm_up(balancer_t *s, tier_t *t) noexcept nogil:
    """Start a round somewhere: as if a random number of picks had been made."""
    cdef uint32_t i, k, best, steps
    cdef uint64_t total = 0, divisor = 0
    for i in range(t.n):
        t.members[i].credit = 0
        total += t.members[i].offer
        divisor = common_divisor(divisor, t.members[i].offer)
    steps = rnd_below(s, <uint32_t>(total // divisor if total // divisor < WARM_STEPS else WARM_STEPS))
    for k in range(steps):
        best = 0
        for i in range(t.n):
            t.members[i].credit += t.members[i].offer
            if t.members[i].credit > t.members[best].credit:
                best = i
        t.members[best].credit -= <int64_t>total


cdef uint64_t common_divisor(uint64_t a, uint64_t b) noexcept nogil:
    while b:
        a, b = b, a % b
    return a


cdef void heap_build(tier_t *t) noexcept nogil:
    cdef uint32_t i
    for i in range(t.n_listed):
        t.heap[i].node = t.listed[i]
        t.heap[i].deadline = t.vt + <uint64_t>t.listed[i].credit
    for i in range(t.n_listed // 4 + 1):
        sift_down(t.heap, t.n_listed, t.n_listed // 4 - i)


cdef void leave_heap(tier_t *t) noexcept nogil:
    cdef uint32_t i
    if t.heaped:
        for i in range(t.n_listed):
            t.heap[i].node.credit = <int64_t>(t.heap[i].deadline - t.vt)


# ---- alias tables ------------------------------------------------------------------------------------------------

cdef void alias_build(tier_t *t) noexcept nogil:
    """Vose's method: every column holds one entry's share of 1/n and the rest from another."""
    cdef uint32_t i, n = t.n_listed
    cdef uint32_t small = 0, large = n          # two stacks in `work`, growing towards each other
    cdef uint32_t a, b
    cdef uint64_t rest
    for i in range(n):
        t.listed[i].before = <uint64_t>t.listed[i].weight * n        # borrowed; restored below
        if t.listed[i].before < t.total:
            t.work[small] = i
            small += 1
        else:
            large -= 1
            t.work[large] = i
    while small and large < n:
        small -= 1
        a = t.work[small]
        b = t.work[large]
        t.alias[a].threshold = <uint32_t>(<double>t.listed[a].before / <double>t.total * 4294967296.0)
        t.alias[a].other = b
        rest = t.listed[b].before + t.listed[a].before - t.total
        t.listed[b].before = rest
        if rest < t.total:
            large += 1
            t.work[small] = b
            small += 1
    while small:
        small -= 1
        t.alias[t.work[small]].other = t.work[small]
    while large < n:
        t.alias[t.work[large]].other = t.work[large]
        large += 1
    rest = 0
    for i in range(n):
        t.listed[i].before = rest
        rest += t.listed[i].weight


# ---- rings -------------------------------------------------------------------------------------------------------

cdef uint32_t ring_shift(const sb_t *sb, const tier_t *t) noexcept nogil:
    """Halvings of everyone's points that make them fit. Follows from the weights in force alone, so that all workers build
    the same ring; it is 0 up to a total weight of 1638, and only where it changes do keys of others move."""
    cdef uint64_t points = 0
    cdef uint32_t i, shift = 0
    for i in range(t.n):
        points += <uint64_t>sb_load(&sb.endpoint[t.members[i].slot].weight) * POINTS
    while points >> shift > ring_cap(t.n) - t.n:
        shift += 1
    return shift


cdef inline uint32_t points_of(uint32_t weight, uint32_t shift) noexcept nogil:
    cdef uint32_t points = weight * <uint32_t>POINTS >> shift
    return points if points or weight == 0 else 1


cdef void update_ring(balancer_t *s, tier_t *t) noexcept nogil:
    """Points in use follow weight and ramp; the ring is built anew only when somebody needs more than it has in there."""
    cdef uint32_t shift = ring_shift(s.sb, t)
    cdef uint32_t i, weight, points
    cdef bint short_of = False
    cdef node_t *node
    for i in range(t.n):
        node = t.members[i]
        weight = sb_load(&s.sb.endpoint[node.slot].weight)
        points = points_of(weight, shift)
        short_of |= points > t.built[i]
        node.points = 0
        if node.weight and weight:
            node.points = <uint32_t>(<uint64_t>points * node.weight // (<uint64_t>weight * PARTS))
            node.points += node.points == 0
    if short_of:
        rebuild_ring(s, t, shift)


cdef void rebuild_ring(balancer_t *s, tier_t *t, uint32_t shift) noexcept nogil:
    cdef uint32_t i
    for i in range(t.n):
        t.built[i] = points_of(sb_load(&s.sb.endpoint[t.members[i].slot].weight), shift)
        s.owners[i].identity = t.members[i].member.identity
        s.owners[i].slot = t.members[i].slot
        s.owners[i].points = t.built[i]
    ring_build(t.ring, s.owners, t.n, s.scratch)
