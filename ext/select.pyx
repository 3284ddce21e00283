"""See select.pxd.

What is derived from the scoreboard (who may be picked, weights, heaps, alias tables, points in use) is a *list* per tier:
the members of one priority in one group. It is made anew, without allocating, when the scoreboard's `changes` has moved or
something in it has become due (a breaker's open time, a step of a ramp); between two such moments a pick reads of the
scoreboard only what changes with every request: in-flight counts and breaker words.

Up to SMALL listed members every strategy looks at all of them, with true sums over all workers. Above, it looks at a
few: the smooth scheduler is a heap of deadlines, least_* compare SAMPLES endpoints drawn by weight, random draws from an
alias table. Whoever is refused then (tried, full, probe taken) is passed over; after PROPOSALS refusals all are looked at.

In-flight sums are those of this instant, but two workers that pick in the same instant do not see each other. Latency
estimates of other workers are at most MERGE_MS old, own ones are not.
"""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memset
from turnout.ext.arena cimport arena_free, arena_t, arena_take
from turnout.ext.breaker cimport (
    BRK_FAILURE, BRK_NEUTRAL, BRK_PROBE_FAILURE, BRK_PROBE_NEUTRAL, BRK_PROBE_SUCCESS, BRK_SUCCESS, BRK_TICK_MS,
    brk_admit, brk_due, brk_is_failure, brk_open_to, brk_report, brk_untrip,
)
from turnout.ext.ring cimport (
    murmur128, ring_build, ring_find, ring_free, ring_member_t, ring_new, ring_next, ring_scratch, ring_t,
)
from turnout.ext.scoreboard cimport (
    ADMIN_DRAIN, ADMIN_READY, BRK_CLOSED, BRK_OPEN, HEALTH_UP, OUT_2XX, OUT_5XX, OUT_CANCEL, OUT_CONNECT, OUT_RESET, OUT_STALE,
    OUT_TIMEOUT, SHARE_UNIT, brk_deadline, brk_state, sb_endpoint_t, sb_epstat_t, sb_fence, sb_groupflight, sb_inflight,
    sb_load, sb_load64, sb_map, sb_storei, sb_svcstat_t, sb_unmap,
)
from turnout.ext.snapshot cimport (
    BAL_CONSISTENT_HASH, BAL_IP_HASH, BAL_LEAST_CONNECTIONS, BAL_LEAST_RESPONSE_TIME, BAL_RANDOM, BAL_ROUND_ROBIN,
    BAL_WEIGHTED_ROUND_ROBIN, Snapshot, breaker_conf_t, group_t,
)
from turnout.ext.sticky cimport sticky_source_get, sticky_source_put

import time

from turnout.ext.scoreboard import OUTCOMES

cdef extern from "stdlib.h" nogil:
    void *aligned_alloc(size_t align, size_t n)

cdef enum:
    SMALL = 64                # listed members up to which all are looked at
    SAMPLES = 5               # compared by least_* above it
    PROPOSALS = 16            # candidates tried before all are looked at
    PARTS = 256               # of a weight: the steps of a ramp
    POINTS = 160              # on the ring, for each unit of weight
    RING_POINTS = 1 << 18     # of a whole ring, unless that is fewer than POINTS a member
    RAMP_STEP_MS = 20
    MERGE_MS = 100
    TAU_US = 10000000         # of the latency estimate
    PENALTY = 4               # a failure counts as this many times the larger of own and mean latency
    PENALTY_MAX_US = 5000000
    LEASE_MAX_MS = 300000     # a killed worker's probe comes back after this at the latest
    WARM_STEPS = 1024

cdef enum:
    PERIOD_BITS = 40          # a deadline scheduler's period is 2^40 / weight

cdef int64_t UNSEEDED = <int64_t>(<uint64_t>1 << 63)
cdef uint64_t NEVER = <uint64_t>0 - 1

cdef enum verdict:
    YES = 0
    NO
    FULL                      # but for its limit

# An endpoint, under its slot. Outlives snapshots. The first cache line is what a pick reads.
cdef struct node_t:
    const member_t *member    # in the adopted snapshot; NULL: it is not in there
    uint32_t slot
    uint32_t generation
    uint32_t weight           # in parts, in force; 0: not listed
    uint32_t points           # of the ring's that are in use
    int64_t credit            # smooth scheduler: parts owed. Heaped: taken out of the heap, time until its turn
    uint64_t before           # weights listed before this one
    uint64_t debt             # heaped: time to add when its turn comes, for picks made past the scheduler
    float latency_us          # estimate of all workers, decayed until merged_ms; 0: no sample
    float settled_us          # the same without decay
    uint64_t merged_ms
    tier_t *tier
    uint32_t offer            # weight it would be listed with, health and breaker left aside
    uint8_t well              # health and breaker agree
    uint8_t pad[3]
    uint64_t pad2[4]

cdef struct turn_t:
    uint64_t deadline
    node_t *node

cdef struct alias_t:
    uint32_t threshold        # of 2^32: below it the entry's own
    uint32_t other

# The members of one priority in one group.
cdef struct tier_t:
    part_t *part
    uint32_t priority
    uint32_t n
    node_t **members          # in the order of the file
    uint32_t n_listed
    uint32_t cursor           # where a scan among equals begins
    node_t **listed           # who may get new sessions, in the order of the file
    uint64_t total            # weight of the listed
    uint32_t n_able           # permitted
    uint32_t n_sound           # of them, sound
    bint heaped
    uint64_t vt               # the deadline served last
    turn_t *heap              # 4-ary, by deadline
    alias_t *alias
    uint32_t *work            # [n]
    ring_t *ring
    uint32_t *built           # [n] points in the ring
    float mean_us             # of the listed that have samples; 0: none has
    float best_us
    uint64_t surveyed_ms

# A version group.
cdef struct part_t:
    uint32_t slot
    uint32_t share
    uint32_t n_tiers
    tier_t *tiers             # by priority
    bint panic
    bint barred               # during one pick: found nobody

# A service in the adopted snapshot.
cdef struct state_t:
    const service_t *service
    uint64_t changes
    uint64_t recheck_ms
    uint32_t n_parts
    part_t *parts
    uint32_t mask
    node_t **by_identity      # open addressing

cdef struct selector_t:
    sb_t *sb
    uint64_t random
    const snapshot_t *snapshot
    arena_t *arena            # of the states
    state_t **states          # by service slot
    node_t *nodes             # by endpoint slot
    int64_t *lag              # by group slot: share asked for less share given, in millionths of a request
    uint32_t *lag_generation
    void *scratch             # for ring_build
    uint32_t scratch_points
    ring_member_t *owners
    uint32_t owners_cap

# One selection on its way.
cdef struct draw_t:
    selector_t *s
    const ask_t *ask
    pick_t *out
    bint panic
    bint full                 # somebody was passed over for its limit alone


cdef inline uint64_t rnd(selector_t *s) noexcept nogil:
    """splitmix64"""
    cdef uint64_t z
    s.random += <uint64_t>0x9E3779B97F4A7C15
    z = s.random
    z = (z ^ (z >> 30)) * <uint64_t>0xBF58476D1CE4E5B9
    z = (z ^ (z >> 27)) * <uint64_t>0x94D049BB133111EB
    return z ^ (z >> 31)


cdef inline uint32_t rnd_below(selector_t *s, uint32_t n) noexcept nogil:
    return <uint32_t>(((rnd(s) >> 32) * n) >> 32)


cdef uint64_t hash_bytes(const char *p, uint32_t n) noexcept nogil:
    cdef uint64_t h[2]
    murmur128(p, n, h)
    return h[0]


# ---- eligibility ------------------------------------------------------------------------------------------------

cdef inline bint permitted(const sb_t *sb, uint32_t slot, uint32_t generation, bint bound) noexcept nogil:
    """By the operator."""
    cdef const sb_endpoint_t *e = &sb.endpoint[slot]
    cdef uint32_t admin = sb_load(&e.admin)
    if sb_load(&e.generation) != generation:
        return False
    if bound:
        return admin == ADMIN_READY or admin == ADMIN_DRAIN
    return admin == ADMIN_READY and sb_load(&e.weight) > 0


cdef inline bint well(const sb_t *sb, const service_t *service, uint32_t slot, uint64_t now_ms) noexcept nogil:
    """Health is up and the breaker not shut. A half-open breaker is not, even while all its probes are taken."""
    cdef uint64_t word
    if sb_load(&sb.endpoint[slot].health) != HEALTH_UP:
        return False
    if service.breaker.failures == 0:
        return True
    word = sb_load64(&sb.breaker[slot].word)
    return brk_state(word) != BRK_OPEN or brk_due(word, now_ms)


cdef inline bint sound(const sb_t *sb, const service_t *service, uint32_t slot) noexcept nogil:
    """Well, and not on trial."""
    return (sb_load(&sb.endpoint[slot].health) == HEALTH_UP
            and (service.breaker.failures == 0 or brk_state(sb_load64(&sb.breaker[slot].word)) == BRK_CLOSED))


cdef inline bint was_tried(const ask_t *ask, uint32_t slot) noexcept nogil:
    cdef uint32_t i
    for i in range(ask.n_tried):
        if ask.tried[i] == slot:
            return True
    return False


cdef inline int can_now(const draw_t *d, uint32_t slot) noexcept nogil:
    """The part of eligibility that changes with every request."""
    cdef const sb_t *sb = d.s.sb
    cdef const service_t *service = d.ask.service
    if d.ask.n_tried and was_tried(d.ask, slot):
        return NO
    if service.breaker.failures and not d.panic and not brk_open_to(sb_load64(&sb.breaker[slot].word), &service.breaker,
                                                                    d.ask.now_ms):
        return NO
    if service.connections and sb_inflight(sb, slot) >= service.connections:
        return FULL
    return YES


cdef int eligible(const draw_t *d, uint32_t slot, uint32_t generation, bint bound) noexcept nogil:
    """The predicate. Of a listed member everything but can_now is known already."""
    if not permitted(d.s.sb, slot, generation, bound):
        return NO
    if not d.panic and not well(d.s.sb, d.ask.service, slot, d.ask.now_ms):
        return NO
    return can_now(d, slot)


cdef inline uint32_t lease_ms(const service_t *service) noexcept nogil:
    """How long a probe may be under way."""
    cdef uint64_t ms = <uint64_t>service.connect_ms + service.response_ms + service.idle_ms
    return <uint32_t>ms if ms < LEASE_MAX_MS else LEASE_MAX_MS


cdef inline void add_flight(const sb_t *sb, uint32_t slot, int32_t n) noexcept nogil:
    cdef int32_t *mine = &sb.inflight[sb.me][slot]
    sb_storei(mine, mine[0] + n)


cdef inline void add_groupflight(const sb_t *sb, uint32_t group, int32_t n) noexcept nogil:
    cdef int32_t *mine = &sb.groupflight[sb.me][group]
    sb_storei(mine, mine[0] + n)


cdef bint take(draw_t *d, const member_t *member, uint32_t slot, uint32_t generation, uint32_t group) noexcept nogil:
    """Count the request in; then limit and breaker have the last word, since others may have been as fast. Two workers
    that meet at the last place both step back, so a limit is never exceeded."""
    cdef sb_t *sb = d.s.sb
    cdef const service_t *service = d.ask.service
    cdef uint32_t epoch = 0
    cdef uint32_t flags = PICK_PANIC if d.panic else 0
    cdef int let = 1
    add_flight(sb, slot, 1)
    if service.connections:
        sb_fence()
        if sb_inflight(sb, slot) > service.connections:
            add_flight(sb, slot, -1)
            d.full = True
            return False
    if service.breaker.failures and brk_state(sb_load64(&sb.breaker[slot].word)) != BRK_CLOSED:
        let = brk_admit(sb, slot, &service.breaker, lease_ms(service), d.ask.now_ms, &epoch)
        if let == 0 and not d.panic:         # panic asks all the same: it is how a breaker gets its trials then
            add_flight(sb, slot, -1)
            return False
    add_groupflight(sb, group, 1)
    d.out.member = member
    d.out.slot = slot
    d.out.generation = generation
    d.out.group = group
    d.out.epoch = epoch
    d.out.flags = flags | (PICK_PROBE if let == 2 else 0)
    return True


cdef inline bint take_node(draw_t *d, const node_t *node) noexcept nogil:
    return take(d, node.member, node.slot, node.generation, node.tier.part.slot)


# ---- lists ------------------------------------------------------------------------------------------------------

cdef inline bint is_smooth(const service_t *service) noexcept nogil:
    return service.strategy == BAL_ROUND_ROBIN or service.strategy == BAL_WEIGHTED_ROUND_ROBIN


cdef inline bint is_keyed(const service_t *service) noexcept nogil:
    return service.strategy == BAL_IP_HASH or service.strategy == BAL_CONSISTENT_HASH


cdef inline void due_at(state_t *st, uint64_t ms) noexcept nogil:
    if ms < st.recheck_ms:
        st.recheck_ms = ms


cdef inline void refresh(selector_t *s, state_t *st, uint64_t now_ms) noexcept nogil:
    if st.changes != sb_load64(&s.sb.header.changes) or now_ms >= st.recheck_ms:
        list_service(s, st, now_ms)


cdef void list_service(selector_t *s, state_t *st, uint64_t now_ms) noexcept nogil:
    cdef uint32_t i
    st.changes = sb_load64(&s.sb.header.changes)
    sb_fence()
    st.recheck_ms = NEVER
    for i in range(st.n_parts):
        list_part(s, st, &st.parts[i], now_ms)


cdef void list_part(selector_t *s, state_t *st, part_t *p, uint64_t now_ms) noexcept nogil:
    cdef uint32_t i
    p.share = sb_load(&s.sb.group[p.slot].share)
    for i in range(p.n_tiers):
        survey(s, st, &p.tiers[i], now_ms)
    p.panic = in_panic(st.service, p)
    for i in range(p.n_tiers):
        list_tier(s, st, &p.tiers[i], p.panic)


cdef bint in_panic(const service_t *service, const part_t *p) noexcept nogil:
    """Too few are sound, of those the operator lets through. Not as long as one priority has enough."""
    cdef uint32_t i
    cdef bint any = False
    for i in range(p.n_tiers):
        if p.tiers[i].n_able == 0:
            continue
        any = True
        if p.tiers[i].n_sound * <uint64_t>100 >= p.tiers[i].n_able * <uint64_t>service.panic_pct:
            return False
    return any


cdef void survey(selector_t *s, state_t *st, tier_t *t, uint64_t now_ms) noexcept nogil:
    """Who is permitted, with what weight, and who is well."""
    cdef uint32_t i
    cdef node_t *node
    t.n_able = 0
    t.n_sound = 0
    for i in range(t.n):
        node = t.members[i]
        node.offer = 0
        node.well = well(s.sb, st.service, node.slot, now_ms)
        if not node.well:
            due_at(st, reopens_ms(s.sb, st.service, node.slot, now_ms))
        if permitted(s.sb, node.slot, node.generation, False):
            node.offer = ramped(s.sb, st, node.slot, now_ms)
            t.n_able += 1
            t.n_sound += sound(s.sb, st.service, node.slot)


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


cdef void list_tier(selector_t *s, state_t *st, tier_t *t, bint panic) noexcept nogil:
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
    if t.cursor >= t.n_listed:
        t.cursor = 0


# ---- the smooth scheduler ---------------------------------------------------------------------------------------

cdef inline uint64_t period(uint32_t weight) noexcept nogil:
    return (<uint64_t>1 << PERIOD_BITS) // weight


cdef void keep_credits(selector_t *s, tier_t *t, bint heaped, uint64_t total) noexcept nogil:
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


cdef void keep_credit(selector_t *s, tier_t *t, node_t *node, bint heaped, uint64_t total) noexcept nogil:
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


cdef void warm_up(selector_t *s, tier_t *t) noexcept nogil:
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


cdef inline uint32_t gather(draw_t *d, const tier_t *t, node_t **able) noexcept nogil:
    """Everyone who can take it, of a small list."""
    cdef uint32_t i, n = 0
    cdef int v
    for i in range(t.n_listed):
        v = can_now(d, t.listed[i].slot)
        if v == YES:
            able[n] = t.listed[i]
            n += 1
        elif v == FULL:
            d.full = True
    return n


cdef inline void drop(node_t **able, uint32_t *n, uint32_t i) noexcept nogil:
    """Take one out; the others keep their order."""
    n[0] -= 1
    for i in range(i, n[0]):
        able[i] = able[i + 1]


cdef inline uint32_t most_owed(node_t *const *able, uint32_t n) noexcept nogil:
    cdef uint32_t i, best = 0
    for i in range(1, n):
        if able[i].credit + able[i].weight > able[best].credit + able[best].weight:
            best = i
    return best


cdef inline void settle(node_t *const *able, uint32_t n, node_t *chosen) noexcept nogil:
    """Everyone earns its weight, who was chosen pays for all."""
    cdef uint32_t i
    cdef int64_t total = 0
    for i in range(n):
        able[i].credit += able[i].weight
        total += able[i].weight
    chosen.credit -= total


cdef bint pick_smooth(draw_t *d, tier_t *t) noexcept nogil:
    cdef node_t *able[SMALL]
    cdef uint32_t n, i
    if t.heaped:
        return pick_heap(d, t)
    n = gather(d, t, able)
    while n:
        i = most_owed(able, n)
        if take_node(d, able[i]):
            settle(able, n, able[i])
            return True
        drop(able, &n, i)
    return False


cdef inline bint sooner(uint64_t a, uint64_t b) noexcept nogil:
    """Deadlines wrap around."""
    return <int64_t>(a - b) < 0


cdef void sift_down(turn_t *heap, uint32_t n, uint32_t i) noexcept nogil:
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


cdef void heap_build(tier_t *t) noexcept nogil:
    cdef uint32_t i
    for i in range(t.n_listed):
        t.heap[i].node = t.listed[i]
        t.heap[i].deadline = t.vt + <uint64_t>t.listed[i].credit
    for i in range(t.n_listed // 4 + 1):
        sift_down(t.heap, t.n_listed, t.n_listed // 4 - i)


cdef void leave_heap(tier_t *t) noexcept nogil:
    """Deadlines become times to wait."""
    cdef uint32_t i
    if t.heaped:
        for i in range(t.n_listed):
            t.heap[i].node.credit = <int64_t>(t.heap[i].deadline - t.vt)


cdef bint pick_heap(draw_t *d, tier_t *t) noexcept nogil:
    """Earliest deadline first; who cannot take it loses its turn."""
    cdef uint32_t k
    cdef uint64_t deadline
    cdef node_t *node
    cdef int v
    for k in range(PROPOSALS):
        node = t.heap[0].node
        deadline = t.heap[0].deadline
        if node.debt:
            t.heap[0].deadline += node.debt
            node.debt = 0
            sift_down(t.heap, t.n_listed, 0)
            continue
        t.heap[0].deadline += period(node.weight)
        sift_down(t.heap, t.n_listed, 0)
        v = can_now(d, node.slot)
        if v == YES and take_node(d, node):
            t.vt = deadline
            return True
        d.full |= v == FULL
    return pick_any(d, t)


cdef void charge(node_t *node) noexcept nogil:
    """A pick past the scheduler, for a bound session: the next turn comes later, by one round at most."""
    cdef tier_t *t = node.tier
    cdef int64_t least = -<int64_t>(t.total - node.weight)
    if node.weight == 0:
        return
    if t.heaped:
        node.debt = period(node.weight)
    elif node.credit > least:
        node.credit -= <int64_t>t.total
        if node.credit < least:
            node.credit = least


# ---- random -----------------------------------------------------------------------------------------------------

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


cdef inline node_t *drawn(selector_t *s, const tier_t *t) noexcept nogil:
    """Anyone, by weight."""
    cdef uint64_t r = rnd(s)
    cdef uint32_t i = <uint32_t>(((r >> 32) * t.n_listed) >> 32)
    return t.listed[i] if <uint32_t>r < t.alias[i].threshold else t.listed[t.alias[i].other]


cdef bint pick_random(draw_t *d, tier_t *t) noexcept nogil:
    cdef uint32_t k
    cdef node_t *node
    for k in range(PROPOSALS):
        node = drawn(d.s, t)
        if can_now(d, node.slot) == YES and take_node(d, node):
            return True
    return pick_any(d, t)


cdef bint pick_any(draw_t *d, tier_t *t) noexcept nogil:
    """Look at everyone; drawn by weight among those who can."""
    cdef uint32_t i, k
    cdef uint64_t total, mark
    cdef int v
    for k in range(PROPOSALS):
        total = 0
        for i in range(t.n_listed):
            v = can_now(d, t.listed[i].slot)
            total += t.listed[i].weight if v == YES else 0
            d.full |= v == FULL
        if total == 0:
            return False
        mark = rnd(d.s) % total
        for i in range(t.n_listed):
            if can_now(d, t.listed[i].slot) != YES:
                continue
            if mark < t.listed[i].weight:
                if take_node(d, t.listed[i]):
                    return True
                break
            mark -= t.listed[i].weight
    return False


# ---- least connections ------------------------------------------------------------------------------------------

cdef bint pick_least_connections(draw_t *d, tier_t *t) noexcept nogil:
    cdef node_t *able[SMALL]
    cdef node_t *ties[SMALL]
    cdef uint32_t n, n_ties, i
    if t.n_listed > SMALL:
        return pick_sampled(d, t)
    n = gather(d, t, able)
    while n:
        n_ties = least_loaded(d.s.sb, able, n, ties)
        i = most_owed(ties, n_ties)
        if take_node(d, ties[i]):
            settle(ties, n_ties, ties[i])
            bound_credit(ties[i], t.total)
            return True
        drop_node(able, &n, ties[i])
    return False


cdef inline void bound_credit(node_t *node, uint64_t total) noexcept nogil:
    """Ties are other sets every time, so credits could drift."""
    if node.credit < -<int64_t>total:
        node.credit = -<int64_t>total


cdef void drop_node(node_t **able, uint32_t *n, const node_t *node) noexcept nogil:
    cdef uint32_t i
    for i in range(n[0]):
        if able[i] == node:
            drop(able, n, i)
            return


cdef uint32_t least_loaded(const sb_t *sb, node_t *const *able, uint32_t n, node_t **ties) noexcept nogil:
    """All with the least in flight for their weight."""
    cdef uint32_t i, k = 0
    cdef int64_t load, best = 0
    cdef uint64_t weight = 1
    for i in range(n):
        load = sb_inflight(sb, able[i].slot)
        if k and load * <int64_t>weight > best * <int64_t>able[i].weight:
            continue
        if k and load * <int64_t>weight < best * <int64_t>able[i].weight:
            k = 0
        if k == 0:
            best = load
            weight = able[i].weight
        ties[k] = able[i]
        k += 1
    return k


cdef bint pick_sampled(draw_t *d, tier_t *t) noexcept nogil:
    """The best of a few drawn by weight, of a long list."""
    cdef uint32_t k, round
    cdef node_t *node
    cdef node_t *best
    cdef double cost, least = 0
    cdef bint by_time = d.ask.service.strategy == BAL_LEAST_RESPONSE_TIME
    if by_time:
        survey_latency(t, d.ask.now_ms)
    for round in range(PROPOSALS // SAMPLES):
        best = NULL
        for k in range(SAMPLES):
            node = drawn(d.s, t)
            if can_now(d, node.slot) != YES:
                continue
            cost = (time_cost(d, t, node) if by_time else sb_inflight(d.s.sb, node.slot) / <double>node.weight)
            if best == NULL or cost < least:
                best = node
                least = cost
        if best != NULL and take_node(d, best):
            return True
    return pick_any(d, t)


# ---- least response time ----------------------------------------------------------------------------------------

cdef double decay(uint64_t us) noexcept nogil:
    """exp(-us / TAU_US) to a thousandth."""
    cdef double r = 1.0 / (1.0 + us / (1024.0 * TAU_US))
    cdef uint32_t i
    for i in range(10):
        r *= r
    return r


cdef void merge_latency(const sb_t *sb, node_t *node, uint64_t now_us) noexcept nogil:
    """The mean of the workers' estimates, fresh ones counting more; it fades when nobody has had a sample lately."""
    cdef double sum = 0, weights = 0, freshest = 0, us, d
    cdef uint64_t at
    cdef uint32_t w
    for w in range(sb.workers):
        us = sb.epstat[w][node.slot].ewma_us
        if us <= 0:
            continue
        at = sb.epstat[w][node.slot].ewma_at_us
        d = decay(now_us - at if now_us > at else 0) + 1e-12
        sum += us * d
        weights += d
        freshest = d if d > freshest else freshest
    node.merged_ms = now_us // 1000
    node.settled_us = <float>(sum / weights) if weights > 0 else 0
    node.latency_us = <float>(node.settled_us * freshest)


cdef void survey_latency(tier_t *t, uint64_t now_ms) noexcept nogil:
    cdef uint32_t i, n = 0
    cdef double sum = 0
    cdef float us
    if t.surveyed_ms and now_ms < t.surveyed_ms + MERGE_MS:
        return
    t.surveyed_ms = now_ms
    t.best_us = 0
    for i in range(t.n_listed):
        us = t.listed[i].settled_us
        if us > 0:
            n += 1
            sum += us
            t.best_us = us if t.best_us == 0 or us < t.best_us else t.best_us
    t.mean_us = <float>(sum / n) if n else 0


cdef inline double time_cost(draw_t *d, const tier_t *t, node_t *node) noexcept nogil:
    """Latency x (in flight + 1) / weight. An endpoint without samples costs nothing while it has no request and the mean
    while it has: one request at a time until there is a sample. What fades stays above half the best one's, so that it
    is tried again before it looks like a gift."""
    cdef int64_t flight = sb_inflight(d.s.sb, node.slot)
    cdef double us
    if d.ask.now_ms > node.merged_ms + MERGE_MS:
        merge_latency(d.s.sb, node, d.ask.now_us)
    us = node.latency_us
    if us <= 0:
        if flight == 0:
            return 0
        us = t.mean_us if t.mean_us > 0 else 1.0
    elif us < t.best_us / 2:
        us = t.best_us / 2
    return us * (flight + 1) / node.weight


cdef bint pick_least_time(draw_t *d, tier_t *t) noexcept nogil:
    cdef node_t *able[SMALL]
    cdef uint32_t n, i, best
    cdef double cost, least
    if t.n_listed > SMALL:
        return pick_sampled(d, t)
    survey_latency(t, d.ask.now_ms)
    n = gather(d, t, able)
    while n:
        t.cursor = t.cursor + 1 if t.cursor + 1 < n else 0
        best = t.cursor
        least = time_cost(d, t, able[best])
        for i in range(n):
            cost = time_cost(d, t, able[i])
            if cost < least:
                least = cost
                best = i
        if take_node(d, able[best]):
            return True
        drop(able, &n, best)
    return False


cdef void learn(selector_t *s, uint32_t slot, int outcome, uint64_t first_us, uint64_t now_us) noexcept nogil:
    """Feed this worker's estimate: up to a peak at once, down slowly. A failure is a penalty, however fast it came."""
    cdef sb_epstat_t *e = &s.sb.epstat[s.sb.me][slot]
    cdef node_t *node = &s.nodes[slot]
    cdef double us = first_us, d
    if outcome == OUT_CANCEL or outcome == OUT_STALE:
        return
    if outcome == OUT_5XX or outcome == OUT_CONNECT or outcome == OUT_RESET or outcome == OUT_TIMEOUT:
        us = penalty(e.ewma_us, node.tier.mean_us if node.tier != NULL else 0, us)
    elif first_us == 0:
        return
    if e.ewma_us > 0 and us < e.ewma_us:
        d = decay(now_us - e.ewma_at_us if now_us > e.ewma_at_us else 0)
        us = e.ewma_us * d + us * (1 - d)
    e.ewma_us = us
    e.ewma_at_us = now_us
    node.merged_ms = 0


cdef double penalty(double own, double mean, double us) noexcept nogil:
    cdef double worst = PENALTY * (own if own > mean else mean)
    worst = worst if worst > us else us
    worst = worst if worst > 1000 else 1000
    return worst if worst < PENALTY_MAX_US else PENALTY_MAX_US


# ---- hashing ----------------------------------------------------------------------------------------------------

cdef inline uint32_t ring_cap(uint32_t n) noexcept nogil:
    """Points are never more: see ring_shift. One more for each member, for those that round to none."""
    cdef uint32_t most = n * POINTS
    return (most if most > RING_POINTS else RING_POINTS) + n


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


cdef void update_ring(selector_t *s, tier_t *t) noexcept nogil:
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


cdef void rebuild_ring(selector_t *s, tier_t *t, uint32_t shift) noexcept nogil:
    cdef uint32_t i
    for i in range(t.n):
        t.built[i] = points_of(sb_load(&s.sb.endpoint[t.members[i].slot].weight), shift)
        s.owners[i].identity = t.members[i].member.identity
        s.owners[i].slot = t.members[i].slot
        s.owners[i].points = t.built[i]
    ring_build(t.ring, s.owners, t.n, s.scratch)


cdef bint pick_hashed(draw_t *d, tier_t *t) noexcept nogil:
    """The first on the ring from the key on who can take it; with bounded load, who is also below its share."""
    cdef const service_t *service = d.ask.service
    cdef uint64_t places = 0
    if service.strategy == BAL_CONSISTENT_HASH and service.load_pct:
        places = all_places(d.s.sb, service, t)
        if walk(d, t, places):
            return True
    return walk(d, t, 0)


cdef uint64_t all_places(const sb_t *sb, const service_t *service, const tier_t *t) noexcept nogil:
    """load_pct of what will be in flight, rounded up: the capacities add up to this."""
    cdef int64_t flight = sb_groupflight(sb, t.part.slot)
    cdef uint64_t pct = service.load_pct if service.load_pct > 100 else 100
    return (<uint64_t>(flight if flight > 0 else 0) + 1) * pct // 100 + 1 if (
        (<uint64_t>(flight if flight > 0 else 0) + 1) * pct % 100) else (
        <uint64_t>(flight if flight > 0 else 0) + 1) * pct // 100


cdef inline uint64_t capacity(const tier_t *t, const node_t *node, uint64_t places) noexcept nogil:
    """Its part of all places by weight. Rounded cumulatively, so that nothing is lost between them; at least 1."""
    cdef uint64_t own = places * (node.before + node.weight) // t.total - places * node.before // t.total
    return own if own else 1


cdef bint walk(draw_t *d, tier_t *t, uint64_t places) noexcept nogil:
    """places: 0 for no bound."""
    cdef const ring_t *r = t.ring
    cdef uint32_t at, k
    cdef node_t *node
    cdef int v
    if r.n == 0:
        return False
    at = ring_find(r, d.ask.key)
    for k in range(r.n):
        node = &d.s.nodes[r.owner[at].slot]
        if r.owner[at].rank < node.points:
            v = can_now(d, node.slot)
            d.full |= v == FULL
            if v == YES and (places == 0 or sb_inflight(d.s.sb, node.slot) < <int64_t>capacity(t, node, places)):
                if take_node(d, node):
                    return True
        if k == 8 * t.n and not anyone(d, t):
            return False
        at = ring_next(r, at)
    return False


cdef bint anyone(draw_t *d, const tier_t *t) noexcept nogil:
    cdef uint32_t i
    for i in range(t.n_listed):
        if can_now(d, t.listed[i].slot) == YES:
            return True
    return False


# ---- tiers and groups -------------------------------------------------------------------------------------------

cdef bint pick_in_tier(draw_t *d, tier_t *t) noexcept nogil:
    cdef uint8_t strategy = d.ask.service.strategy
    if t.n_listed == 0:
        return False
    if strategy == BAL_LEAST_CONNECTIONS:
        return pick_least_connections(d, t)
    if strategy == BAL_LEAST_RESPONSE_TIME:
        return pick_least_time(d, t)
    if strategy == BAL_RANDOM:
        return pick_random(d, t)
    if strategy == BAL_IP_HASH or strategy == BAL_CONSISTENT_HASH:
        return pick_hashed(d, t)
    return pick_smooth(d, t)


cdef bint pick_in_part(draw_t *d, part_t *p) noexcept nogil:
    """In the first priority that has somebody."""
    cdef uint32_t i
    d.panic = p.panic
    for i in range(p.n_tiers):
        if pick_in_tier(d, &p.tiers[i]):
            if p.panic:
                svcstat(d).panics += 1
            return True
    return False


cdef inline sb_svcstat_t *svcstat(const draw_t *d) noexcept nogil:
    return &d.s.sb.svcstat[d.s.sb.me][d.ask.service.slot]


cdef inline bint has_listed(const part_t *p) noexcept nogil:
    cdef uint32_t i
    for i in range(p.n_tiers):
        if p.tiers[i].n_listed:
            return True
    return False


# ---- the split --------------------------------------------------------------------------------------------------
#
# R. Tijdeman, The chairman assignment problem (1980): with k groups, give request n to the one whose deadline is first
# among those that are owed at least 1/(2k-2) of a request. For fixed shares each group then has been given what it was
# owed, to within 1 - 1/(2k-2) of a request, at every n; no method can promise less. (Largest deficit alone promises that
# for two groups only.) `lag` is what a group is owed, exactly, in millionths; it adds up to 0 over the groups.

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


cdef part_t *choose_part(const selector_t *s, const state_t *st) noexcept nogil:
    """Whose turn it is; NULL when nobody takes part. Changes nothing: see give_part."""
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


cdef void give_part(selector_t *s, const state_t *st, const part_t *chosen) noexcept nogil:
    cdef uint32_t i, k
    cdef uint64_t sum
    cdef int64_t given = 0
    shares_in_force(st, &k, &sum)
    for i in range(st.n_parts):
        if takes_part(&st.parts[i]):
            s.lag[st.parts[i].slot] += earned(&st.parts[i], sum)
            given += earned(&st.parts[i], sum)
    s.lag[chosen.slot] -= given


cdef part_t *last_part(const selector_t *s, const state_t *st, const ask_t *ask) noexcept nogil:
    """The group of the endpoint tried last, when it is one of this service's."""
    cdef const node_t *node
    if ask.n_tried == 0 or ask.tried[ask.n_tried - 1] >= s.sb.endpoints:
        return NULL
    node = &s.nodes[ask.tried[ask.n_tried - 1]]
    if node.tier == NULL or node.tier.part < st.parts or node.tier.part >= st.parts + st.n_parts:
        return NULL
    return node.tier.part


cdef bint pick_split(draw_t *d, state_t *st) noexcept nogil:
    """A group by the shares, then in it. A retry stays in its group if it can, and is not counted a second time."""
    cdef part_t *p
    cdef uint32_t i
    for i in range(st.n_parts):
        st.parts[i].barred = not has_listed(&st.parts[i])
    p = last_part(d.s, st, d.ask)
    if p != NULL:
        if pick_in_part(d, p):
            return True
        p.barred = True
    while True:
        p = choose_part(d.s, st)
        if p == NULL:
            return False
        if pick_in_part(d, p):
            if d.ask.n_tried == 0:
                give_part(d.s, st, p)
            return True
        p.barred = True


# ---- sticky sessions --------------------------------------------------------------------------------------------

cdef inline uint64_t source_key(const ask_t *ask) noexcept nogil:
    """The source with the service mixed in; never 0."""
    cdef uint64_t k = (ask.source ^ ((<uint64_t>ask.service.slot + 1) * <uint64_t>0x9E3779B97F4A7C15))
    k = (k ^ (k >> 32)) * <uint64_t>0xD6E8FEB86659FD93
    return (k ^ (k >> 32)) | 1


cdef const member_t *with_identity(const selector_t *s, const state_t *st, const ask_t *ask) noexcept nogil:
    cdef uint32_t i
    cdef const node_t *node
    if st == NULL:
        for i in range(ask.service.n_members):
            if member_at(ask, i).identity == ask.bound:
                return member_at(ask, i)
        return NULL
    i = <uint32_t>ask.bound & st.mask
    while st.by_identity[i] != NULL:
        node = st.by_identity[i]
        if node.member.identity == ask.bound:
            return node.member
        i = (i + 1) & st.mask
    return NULL


cdef inline const member_t *member_at(const ask_t *ask, uint32_t i) noexcept nogil:
    return &ask.snapshot.members[ask.service.members[i]]


cdef const member_t *with_slot(const ask_t *ask, uint32_t slot, uint32_t generation) noexcept nogil:
    cdef uint32_t i
    cdef const member_t *m
    for i in range(ask.service.n_members):
        m = member_at(ask, i)
        if m.slot == slot and m.generation == generation:
            return m
    return NULL


cdef const member_t *bound_member(const draw_t *d, const state_t *st, bint *had) noexcept nogil:
    """Whom the session is bound to; NULL with *had: to somebody who is no longer there."""
    cdef const ask_t *ask = d.ask
    cdef uint32_t slot = 0, generation = 0
    cdef const node_t *node
    had[0] = False
    if ask.service.sticky.kind == 1 and ask.bound:
        had[0] = True
        return with_identity(d.s, st, ask)
    if ask.service.sticky.kind == 2 and sticky_source_get(d.s.sb, source_key(ask), ask.now_ms, &slot, &generation):
        had[0] = True
        if st != NULL and slot < d.s.sb.endpoints:
            node = &d.s.nodes[slot]
            if node.member != NULL and node.generation == generation and node.member.service == service_index(ask):
                return node.member
            return NULL
        return with_slot(ask, slot, generation)
    return NULL


cdef inline uint32_t service_index(const ask_t *ask) noexcept nogil:
    return <uint32_t>(ask.service - ask.snapshot.services)


cdef bint pick_bound(draw_t *d, const state_t *st, const member_t *m) noexcept nogil:
    d.panic = st != NULL and st.parts[m.group].panic
    if eligible(d, m.slot, m.generation, True) != YES:
        return False
    if not take(d, m, m.slot, m.generation, d.ask.service.groups[m.group].slot):
        return False
    if d.panic:
        svcstat(d).panics += 1
    if st != NULL:
        charge(&d.s.nodes[m.slot])
    d.out.flags |= PICK_STICKY
    return True


cdef void bind_source(const draw_t *d) noexcept nogil:
    """New, moved, or renewed."""
    cdef const ask_t *ask = d.ask
    if not d.out.flags & PICK_STICKY or ask.service.sticky.sliding:
        sticky_source_put(d.s.sb, source_key(ask), d.out.slot, d.out.generation,
                          ask.now_ms + <uint64_t>ask.service.sticky.ttl_s * 1000)


cdef int pick_sticky(draw_t *d, state_t *st) noexcept nogil:
    """Where the session is bound, else where a new one would go. Each session's break is counted once: by the attempt that
    could not honour the binding, or that follows a failure of whom it was bound to."""
    cdef bint had
    cdef const member_t *m = bound_member(d, st, &had)
    cdef sb_svcstat_t *stat = svcstat(d)
    cdef bint first = d.ask.n_tried == 0
    if m != NULL and pick_bound(d, st, m):
        stat.sticky_hits += first
    elif not pick_new(d, st):
        return missed(d)
    elif had:
        d.out.flags |= PICK_BROKEN
        stat.sticky_broken += first or (m != NULL and d.ask.tried[d.ask.n_tried - 1] == m.slot)
    else:
        stat.sticky_new += first
    if d.ask.service.sticky.kind == 2:
        bind_source(d)
    return PICK_OK


# ---- picks ------------------------------------------------------------------------------------------------------

cdef inline bint pick_new(draw_t *d, state_t *st) noexcept nogil:
    if st == NULL:
        return pick_aside(d)
    if st.n_parts == 1 and not st.service.split:
        return pick_in_part(d, st.parts)
    return pick_split(d, st)


cdef bint pick_aside(draw_t *d) noexcept nogil:
    """For a request that outlived its snapshot (retried or queued over a reload): least in flight for its weight among the
    members it knows, those of the group it was in first. Schedulers, rings and shares belong to the new snapshot."""
    cdef const ask_t *ask = d.ask
    cdef uint32_t i
    cdef int64_t group = -1
    d.panic = False
    for i in range(ask.service.n_members):
        if ask.n_tried and member_at(ask, i).slot == ask.tried[ask.n_tried - 1]:
            group = member_at(ask, i).group
    return (group >= 0 and take_least(d, group)) or take_least(d, -1)


cdef bint take_least(draw_t *d, int64_t group) noexcept nogil:
    """group: index, -1 for all."""
    cdef const ask_t *ask = d.ask
    cdef const member_t *m
    cdef const member_t *best = NULL
    cdef uint32_t i
    cdef int v
    cdef double cost, least = 0
    for i in range(ask.service.n_members):
        m = member_at(ask, i)
        if group >= 0 and m.group != group:
            continue
        v = eligible(d, m.slot, m.generation, False)
        d.full |= v == FULL
        if v != YES:
            continue
        cost = (sb_inflight(d.s.sb, m.slot) + 1) / <double>sb_load(&d.s.sb.endpoint[m.slot].weight)
        if best == NULL or cost < least:
            best = m
            least = cost
    return best != NULL and take(d, best, best.slot, best.generation, ask.service.groups[best.group].slot)


cdef inline int missed(draw_t *d) noexcept nogil:
    d.out.member = NULL
    if d.full:
        return PICK_BUSY
    svcstat(d).no_endpoint += 1
    return PICK_NONE


cdef inline state_t *state_of(const selector_t *s, const ask_t *ask) noexcept nogil:
    """NULL: the request belongs to another snapshot than the adopted one."""
    return s.states[ask.service.slot] if ask.snapshot == s.snapshot else NULL


cdef int select_pick(selector_t *s, const ask_t *ask, pick_t *out) noexcept nogil:
    cdef state_t *st = state_of(s, ask)
    cdef draw_t d
    d.s = s
    d.ask = ask
    d.out = out
    d.panic = False
    d.full = False
    if st != NULL:
        refresh(s, st, ask.now_ms)
    if ask.service.sticky.kind:
        return pick_sticky(&d, st)
    return PICK_OK if pick_new(&d, st) else missed(&d)


# ---- releases ---------------------------------------------------------------------------------------------------

cdef void select_release(selector_t *s, const service_t *service, pick_t *pick, int outcome, int status,
                         uint64_t first_us, uint64_t now_us) noexcept nogil:
    cdef uint32_t slot = pick.slot
    if pick.member == NULL:
        return
    add_flight(s.sb, slot, -1)
    add_groupflight(s.sb, pick.group, -1)
    select_settle(s, service, pick, outcome, status, first_us, now_us)
    pick.member = NULL


cdef void select_settle(selector_t *s, const service_t *service, pick_t *pick, int outcome, int status,
                        uint64_t first_us, uint64_t now_us) noexcept nogil:
    if pick.flags & PICK_SETTLED or sb_load(&s.sb.endpoint[pick.slot].generation) != pick.generation:
        return
    pick.flags |= PICK_SETTLED
    if service.breaker.failures:
        tell_breaker(s, service, pick, outcome, status, now_us // 1000)
    learn(s, pick.slot, outcome, first_us, now_us)


cdef void tell_breaker(selector_t *s, const service_t *service, const pick_t *pick, int outcome, int status,
                       uint64_t now_ms) noexcept nogil:
    cdef const breaker_conf_t *conf = &service.breaker
    cdef bint probe = pick.flags & PICK_PROBE != 0
    cdef bint failed = brk_is_failure(conf, outcome, status)
    cdef int event = BRK_NEUTRAL if outcome == OUT_CANCEL or outcome == OUT_STALE else BRK_SUCCESS
    cdef bint may_trip = True
    cdef uint64_t tripped
    if failed:
        event = BRK_FAILURE
        may_trip = conf.last or others_sound(s, pick.slot)
    elif not probe and sb_load64(&s.sb.breaker[pick.slot].word) == 0:
        return
    if probe:
        event += BRK_PROBE_SUCCESS - BRK_SUCCESS
    tripped = brk_report(s.sb, pick.slot, conf, event, pick.epoch, now_ms, <uint32_t>rnd(s), may_trip)
    if tripped and not probe and not conf.last and not others_sound(s, pick.slot):
        brk_untrip(s.sb, pick.slot, tripped, now_ms)


cdef bint others_sound(const selector_t *s, uint32_t slot) noexcept nogil:
    """Is there somebody else in the service for new sessions? Looks at the scoreboard itself. When two workers trip the
    last two in the same instant, both see afterwards that nobody is left, and both take it back."""
    cdef uint32_t i, k
    cdef const state_t *st
    if s.nodes[slot].member == NULL:
        return True
    st = s.states[s.snapshot.services[s.nodes[slot].member.service].slot]
    for i in range(st.n_parts):
        if st.service.split and sb_load(&s.sb.group[st.parts[i].slot].share) == 0:
            continue
        for k in range(st.parts[i].n_tiers):
            if others_in(s, st.service, &st.parts[i].tiers[k], slot):
                return True
    return False


cdef bint others_in(const selector_t *s, const service_t *service, const tier_t *t, uint32_t slot) noexcept nogil:
    cdef uint32_t i
    cdef const node_t *node
    for i in range(t.n):
        node = t.members[i]
        if node.slot != slot and permitted(s.sb, node.slot, node.generation, False) and sound(s.sb, service, node.slot):
            return True
    return False


# ---- snapshots --------------------------------------------------------------------------------------------------

cdef selector_t *selector_new(sb_t *sb, uint64_t seed) noexcept nogil:
    cdef selector_t *s = <selector_t *>calloc(1, sizeof(selector_t))
    cdef uint32_t i
    if s == NULL:
        return NULL
    s.sb = sb
    s.random = seed
    s.states = <state_t **>calloc(sb.services, sizeof(state_t *))
    s.nodes = <node_t *>aligned_alloc(64, sb.endpoints * sizeof(node_t))
    s.lag = <int64_t *>calloc(sb.groups, sizeof(int64_t))
    s.lag_generation = <uint32_t *>calloc(sb.groups, sizeof(uint32_t))
    s.arena = <arena_t *>calloc(1, sizeof(arena_t))
    if s.states == NULL or s.nodes == NULL or s.lag == NULL or s.lag_generation == NULL or s.arena == NULL:
        selector_free(s)
        return NULL
    memset(s.nodes, 0, sb.endpoints * sizeof(node_t))
    for i in range(sb.endpoints):
        s.nodes[i].slot = i
    return s


cdef void selector_free(selector_t *s) noexcept nogil:
    if s == NULL:
        return
    if s.states != NULL:
        free_rings(s.states, s.sb.services)
    free(s.states)
    free(s.nodes)
    free(s.lag)
    free(s.lag_generation)
    free(s.scratch)
    free(s.owners)
    if s.arena != NULL:
        arena_free(s.arena)
    free(s.arena)
    free(s)


cdef void free_rings(state_t **states, uint32_t n) noexcept nogil:
    cdef uint32_t i, g, k
    for i in range(n):
        if states[i] == NULL:
            continue
        for g in range(states[i].n_parts):
            for k in range(states[i].parts[g].n_tiers):
                ring_free(states[i].parts[g].tiers[k].ring)


# What a snapshot is being made into, until it is in force.
cdef struct plan_t:
    selector_t *s
    const snapshot_t *snapshot
    arena_t *arena
    state_t **states
    bint failed               # memory ran out


cdef void *piece(plan_t *plan, uint64_t n, uint64_t size) noexcept nogil:
    """Zeroed; of at least one byte's worth when memory is out, so that only `failed` need be looked at."""
    cdef void *p = arena_take(plan.arena, n * size)
    if p == NULL:
        plan.failed = True
    return p


cdef int select_adopt(selector_t *s, const snapshot_t *snap, uint64_t now_ms) noexcept nogil:
    cdef plan_t plan
    cdef uint32_t i
    plan.s = s
    plan.snapshot = snap
    plan.failed = False
    plan.arena = <arena_t *>calloc(1, sizeof(arena_t))
    plan.states = <state_t **>calloc(s.sb.services, sizeof(state_t *))
    if plan.arena == NULL or plan.states == NULL or not make_states(&plan):
        if plan.states != NULL:
            free_rings(plan.states, s.sb.services)
        free(plan.states)
        if plan.arena != NULL:
            arena_free(plan.arena)
        free(plan.arena)
        return -1
    take_over(&plan)
    for i in range(snap.n_services):
        list_service(s, s.states[snap.services[i].slot], now_ms)
    return 0


cdef bint make_states(plan_t *plan) noexcept nogil:
    """Everything that takes memory. Nothing in force is touched."""
    cdef uint32_t i, g
    cdef const service_t *service
    cdef state_t *st
    for i in range(plan.snapshot.n_services):
        service = &plan.snapshot.services[i]
        st = <state_t *>piece(plan, 1, sizeof(state_t))
        if plan.failed:
            return False
        st.service = service
        st.parts = <part_t *>piece(plan, service.n_groups, sizeof(part_t))
        if plan.failed:
            return False
        plan.states[service.slot] = st
        st.n_parts = service.n_groups
        for g in range(service.n_groups):
            if not make_part(plan, service, &service.groups[g], &st.parts[g]):
                return False
        if not index_members(plan, st):
            return False
    return make_room(plan)


cdef inline node_t *node_of(const plan_t *plan, uint32_t member) noexcept nogil:
    return &plan.s.nodes[plan.snapshot.members[member].slot]


cdef bint make_part(plan_t *plan, const service_t *service, const group_t *group, part_t *p) noexcept nogil:
    """One tier for each priority, in order."""
    cdef uint32_t i, n = 0
    cdef int64_t at = -1
    cdef uint32_t *size = <uint32_t *>piece(plan, group.n, sizeof(uint32_t))
    cdef uint32_t *priority = <uint32_t *>piece(plan, group.n, sizeof(uint32_t))
    if plan.failed:
        return False
    while next_priority(plan.snapshot, group, &at, &size[n] if n < group.n else NULL):
        priority[n] = <uint32_t>at
        n += 1
    p.slot = group.slot
    p.tiers = <tier_t *>piece(plan, n, sizeof(tier_t))
    if plan.failed:
        return False
    for i in range(n):
        p.n_tiers = i + 1
        p.tiers[i].part = p
        p.tiers[i].priority = priority[i]
        if not make_tier(plan, service, group, &p.tiers[i], size[i]):
            return False
    return True


cdef bint next_priority(const snapshot_t *snap, const group_t *group, int64_t *at, uint32_t *size) noexcept nogil:
    """The lowest above *at, and how many members have it."""
    cdef uint32_t i
    cdef int64_t priority, best = -1
    for i in range(group.n):
        priority = snap.members[group.members[i]].priority
        if priority > at[0] and (best < 0 or priority < best):
            best = priority
            size[0] = 0
        if priority == best:
            size[0] += 1
    at[0] = best
    return best >= 0


cdef bint make_tier(plan_t *plan, const service_t *service, const group_t *group, tier_t *t, uint32_t n) noexcept nogil:
    cdef uint32_t i
    t.members = <node_t **>piece(plan, n, sizeof(node_t *))
    t.listed = <node_t **>piece(plan, n, sizeof(node_t *))
    if plan.failed:
        return False
    for i in range(group.n):
        if plan.snapshot.members[group.members[i]].priority == t.priority:
            t.members[t.n] = node_of(plan, group.members[i])
            t.n += 1
    if is_smooth(service) and n > SMALL:
        t.heap = <turn_t *>piece(plan, n, sizeof(turn_t))
    if is_keyed(service):
        t.built = <uint32_t *>piece(plan, n, sizeof(uint32_t))
        t.ring = ring_new(ring_cap(n))
        plan.failed |= t.ring == NULL
    elif not is_smooth(service):
        t.alias = <alias_t *>piece(plan, n, sizeof(alias_t))
        t.work = <uint32_t *>piece(plan, n, sizeof(uint32_t))
    return not plan.failed


cdef bint index_members(plan_t *plan, state_t *st) noexcept nogil:
    cdef uint32_t i, k, size = 2
    cdef const member_t *m
    while size < 2 * st.service.n_members + 1:
        size *= 2
    st.mask = size - 1
    st.by_identity = <node_t **>piece(plan, size, sizeof(node_t *))
    if plan.failed:
        return False
    for i in range(st.service.n_members):
        m = &plan.snapshot.members[st.service.members[i]]
        k = <uint32_t>m.identity & st.mask
        while st.by_identity[k] != NULL:
            k = (k + 1) & st.mask
        st.by_identity[k] = &plan.s.nodes[m.slot]
    return True


cdef bint make_room(plan_t *plan) noexcept nogil:
    """What rings are built in: as much as the largest of them needs."""
    cdef selector_t *s = plan.s
    cdef uint32_t i, points = 0, members = 0
    cdef const service_t *service
    cdef void *p
    for i in range(plan.snapshot.n_services):
        service = &plan.snapshot.services[i]
        if is_keyed(service):
            members = service.n_members if service.n_members > members else members
    points = ring_cap(members) if members else 0
    if points > s.scratch_points:
        p = malloc(ring_scratch(points))
        if p == NULL:
            return False
        free(s.scratch)
        s.scratch = p
        s.scratch_points = points
    if members > s.owners_cap:
        p = malloc(members * sizeof(ring_member_t))
        if p == NULL:
            return False
        free(s.owners)
        s.owners = <ring_member_t *>p
        s.owners_cap = members
    return True


cdef void take_over(plan_t *plan) noexcept nogil:
    """Put the plan in force, with all that is kept."""
    cdef selector_t *s = plan.s
    cdef uint32_t i
    for i in range(s.sb.services):
        if s.states[i] != NULL:
            leave_heaps(s.states[i])
    for i in range(s.sb.services):
        if plan.states[i] != NULL:
            inherit(plan, plan.states[i], s.states[i])
    for i in range(s.sb.endpoints):
        s.nodes[i].member = NULL
    s.snapshot = plan.snapshot
    for i in range(s.sb.services):
        if plan.states[i] != NULL:
            enter(s, plan.states[i])
    for i in range(s.sb.endpoints):
        if s.nodes[i].member == NULL:
            s.nodes[i].tier = NULL
    free_rings(s.states, s.sb.services)
    free(s.states)
    arena_free(s.arena)
    free(s.arena)
    s.states = plan.states
    s.arena = plan.arena


cdef void leave_heaps(state_t *st) noexcept nogil:
    cdef uint32_t g, k
    for g in range(st.n_parts):
        for k in range(st.parts[g].n_tiers):
            leave_heap(&st.parts[g].tiers[k])


cdef void inherit(plan_t *plan, state_t *st, state_t *old) noexcept nogil:
    """From the tier of the same group slot and priority: ring and what credits mean."""
    cdef uint32_t g, k
    cdef tier_t *t
    cdef tier_t *before
    for g in range(st.n_parts):
        for k in range(st.parts[g].n_tiers):
            t = &st.parts[g].tiers[k]
            before = counterpart(old, t)
            if before != NULL:
                t.heaped = before.heaped
                t.total = before.total
                t.cursor = before.cursor
                keep_ring(t, before)
            mark_moved(plan, t, before)


cdef tier_t *counterpart(state_t *old, const tier_t *t) noexcept nogil:
    cdef uint32_t g, k
    if old == NULL:
        return NULL
    for g in range(old.n_parts):
        if old.parts[g].slot != t.part.slot:
            continue
        for k in range(old.parts[g].n_tiers):
            if old.parts[g].tiers[k].priority == t.priority:
                return &old.parts[g].tiers[k]
    return NULL


cdef void mark_moved(plan_t *plan, tier_t *t, const tier_t *before) noexcept nogil:
    """Whoever comes from elsewhere starts as a newcomer."""
    cdef uint32_t i
    for i in range(t.n):
        if before == NULL or t.members[i].tier != before:
            t.members[i].credit = UNSEEDED
            t.members[i].weight = 0


cdef void keep_ring(tier_t *t, tier_t *before) noexcept nogil:
    """A ring follows from identities, slots and weights; the same members in the same order have the same one."""
    cdef uint32_t i
    cdef ring_t *ring = t.ring
    if ring == NULL or before.ring == NULL or t.n != before.n:
        return
    for i in range(t.n):
        if t.members[i] != before.members[i] or t.members[i].tier != before:
            return
    for i in range(t.n):
        t.built[i] = before.built[i]
    t.ring = before.ring
    before.ring = ring


cdef void enter(selector_t *s, state_t *st) noexcept nogil:
    cdef uint32_t g, k, i, generation
    cdef part_t *p
    for i in range(st.service.n_members):
        enter_member(s, &s.snapshot.members[st.service.members[i]])
    for g in range(st.n_parts):
        p = &st.parts[g]
        generation = sb_load(&s.sb.group[p.slot].generation)
        if s.lag_generation[p.slot] != generation:
            s.lag_generation[p.slot] = generation
            s.lag[p.slot] = 0
        for k in range(p.n_tiers):
            for i in range(p.tiers[k].n):
                p.tiers[k].members[i].tier = &p.tiers[k]
    balance_lags(s, st)


cdef void enter_member(selector_t *s, const member_t *m) noexcept nogil:
    cdef node_t *node = &s.nodes[m.slot]
    node.member = m
    if node.generation != m.generation:
        node.generation = m.generation
        node.credit = UNSEEDED
        node.weight = 0
        node.latency_us = 0
        node.settled_us = 0
        node.merged_ms = 0
        s.sb.epstat[s.sb.me][m.slot].ewma_us = 0


cdef void balance_lags(selector_t *s, const state_t *st) noexcept nogil:
    """Groups have come or gone: what is owed adds up to nothing again."""
    cdef uint32_t g
    cdef int64_t sum = 0
    for g in range(st.n_parts):
        sum += s.lag[st.parts[g].slot]
    for g in range(st.n_parts):
        s.lag[st.parts[g].slot] -= sum // <int64_t>(st.n_parts - g)
        sum -= sum // <int64_t>(st.n_parts - g)


# ---- for tests and measurements ---------------------------------------------------------------------------------

RESULTS = ("ok", "none", "busy")
FLAGS = {"sticky": PICK_STICKY, "broken": PICK_BROKEN, "probe": PICK_PROBE, "panic": PICK_PANIC}


def _hash(bytes data not None):
    return hash_bytes(data, <uint32_t>len(data))


cdef class _Pick:
    """An open pick; keeps its snapshot."""
    cdef pick_t pick
    cdef Snapshot snapshot
    cdef const service_t *service


cdef class _Selector:
    cdef sb_t sb
    cdef selector_t *selector
    cdef Snapshot snapshot

    def __cinit__(self, int scoreboard_fd, uint32_t worker, uint64_t seed=1):
        if sb_map(&self.sb, scoreboard_fd, worker) != 0:
            raise ValueError(f"descriptor {scoreboard_fd} is not a scoreboard")
        if worker >= self.sb.workers:
            raise ValueError(f"worker {worker}: the scoreboard has {self.sb.workers}")
        self.selector = selector_new(&self.sb, seed)
        if self.selector == NULL:
            raise MemoryError

    def __dealloc__(self):
        selector_free(self.selector)
        sb_unmap(&self.sb)

    def adopt(self, Snapshot snapshot not None, uint64_t now_ms=1000):
        if snapshot.ptr.endpoint_slots > self.sb.endpoints or snapshot.ptr.group_slots > self.sb.groups:
            raise ValueError("the snapshot needs a larger scoreboard")
        if select_adopt(self.selector, snapshot.ptr, now_ms) != 0:
            raise MemoryError
        self.snapshot = snapshot

    cdef const service_t *_service(self, Snapshot snapshot, uint32_t index) except NULL:
        if snapshot is None or index >= snapshot.ptr.n_services:
            raise IndexError(f"service {index}: there is none")
        return &snapshot.ptr.services[index]

    def pick(self, uint32_t service, *, uint64_t key=0, uint64_t bound=0, uint64_t source=0, uint64_t now_ms=1000,
             tried=(), Snapshot snapshot=None):
        cdef ask_t ask
        cdef _Pick p = _Pick.__new__(_Pick)
        cdef uint32_t i
        snapshot = self.snapshot if snapshot is None else snapshot
        ask.snapshot = snapshot.ptr if snapshot is not None else NULL
        ask.service = p.service = self._service(snapshot, service)
        ask.key, ask.bound, ask.source = key, bound, source
        ask.now_ms, ask.now_us = now_ms, now_ms * 1000
        if len(tried) > TRIED_MAX:
            raise ValueError(f"{len(tried)} tried: at most {TRIED_MAX}")
        ask.n_tried = <uint32_t>len(tried)
        for i in range(ask.n_tried):
            ask.tried[i] = tried[i]
        p.snapshot = snapshot
        result = select_pick(self.selector, &ask, &p.pick)
        if result != PICK_OK:
            return {"result": RESULTS[result]}
        flags = {name: bool(p.pick.flags & bit) for name, bit in FLAGS.items()}
        name = p.pick.member.name.p[:p.pick.member.name.n].decode()
        return {"result": "ok", "slot": p.pick.slot, "generation": p.pick.generation, "group": p.pick.group, "name": name,
                "open": p, **flags}

    def release(self, pick, outcome="2xx", int status=200, uint64_t first_us=1000, uint64_t now_us=1000000):
        cdef _Pick p = pick["open"]
        if p.pick.member == NULL:
            raise ValueError("released already")
        select_release(self.selector, p.service, &p.pick, OUTCOMES.index(outcome), status, first_us, now_us)

    def lag(self, uint32_t group):
        return self.selector.lag[group]

    def bench(self, uint32_t service, uint64_t times, uint64_t now_ms=1000):
        """Nanoseconds per pick and release."""
        cdef ask_t ask
        cdef pick_t p
        cdef uint64_t i, missed = 0
        memset(&ask, 0, sizeof(ask))
        ask.snapshot = self.snapshot.ptr
        ask.service = self._service(self.snapshot, service)
        started = time.perf_counter_ns()
        with nogil:
            for i in range(times):
                ask.key = i * <uint64_t>0x9E3779B97F4A7C15
                ask.now_us = now_ms * 1000 + i // 8
                ask.now_ms = ask.now_us // 1000
                if select_pick(self.selector, &ask, &p) == PICK_OK:
                    select_release(self.selector, ask.service, &p, OUT_2XX, 200, 900 + (i & 127), ask.now_us)
                else:
                    missed += 1
        spent = time.perf_counter_ns() - started
        if missed:
            raise RuntimeError(f"{missed} of {times} picks found nobody")
        return spent / times
