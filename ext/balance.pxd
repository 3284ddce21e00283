"""What selection works on: endpoints, tiers, groups and services as the parts of it share them, and the predicate.

select -> split, strategies (who) -> latency; listing makes the lists that they pick from; adopt makes all of it from a
snapshot. Everything belongs to one worker's thread.

What is derived from the scoreboard (who may be picked, weights, heaps, alias tables, points in use) is a *list* per tier:
the members of one priority in one group. It is made anew, without allocating, when the scoreboard's `changes` has moved or
something in it has become due (a breaker's open time, a step of a ramp). Between two such moments a pick reads of the
scoreboard only what changes with every request: in-flight counts, and the breaker words of those on trial.
"""

from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t, uint8_t
from turnout.ext.arena cimport arena_t
from turnout.ext.breaker cimport brk_admit, brk_due, brk_open_to
from turnout.ext.ring cimport ring_member_t, ring_t
from turnout.ext.scoreboard cimport (
    ADMIN_DRAIN, ADMIN_READY, BRK_CLOSED, BRK_OPEN, HEALTH_UP, brk_state, sb_endpoint_t, sb_fence, sb_inflight,
    sb_load, sb_load64, sb_storei, sb_svcstat_t, sb_t,
)
from turnout.ext.select cimport PICK_PANIC, PICK_PROBE, ask_t, pick_t
from turnout.ext.snapshot cimport (
    BAL_CONSISTENT_HASH, BAL_IP_HASH, BAL_ROUND_ROBIN, BAL_WEIGHTED_ROUND_ROBIN, member_t, service_t,
)

cdef enum:
    SMALL = 64                # listed members up to which all are looked at
    PARTS = 256               # of a weight: the steps of a ramp
    LEASE_MAX_MS = 300000     # a killed worker's probe comes back after this at the latest

cdef extern from *:
    """
    #define UNSEEDED ((long long)(1ULL << 63))
    """
    const int64_t UNSEEDED    # a credit that is not there yet

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
    uint32_t trial            # its breaker is not closed, or its health is down
    int64_t credit            # smooth scheduler: parts owed. Heaped: taken out of the heap, time until its turn
    uint64_t before           # weights listed before this one
    float latency_us          # estimate of all workers, decayed until merged_us; 0: no sample
    float settled_us          # the same without decay
    uint64_t merged_us
    uint64_t debt             # heaped: time to add when its turn comes, for picks made past the scheduler
    float others_us           # the other workers' estimates at merged_us: times their weights, and these
    float others_weight
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
    uint32_t n_sound          # of them, sound
    uint32_t trials           # of the listed: whose breaker is not closed, or that are down
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
    uint32_t n_sound
    uint32_t n_tiers
    tier_t *tiers             # by priority
    bint panic
    bint barred               # during one pick: found nobody

# A service in the adopted snapshot. It stays for as long as snapshots share the service.
cdef struct state_t:
    const service_t *service
    arena_t arena             # what it consists of, rings apart
    uint64_t changes
    uint64_t recheck_ms
    uint32_t n_parts
    part_t *parts
    uint32_t mask
    node_t **by_identity      # open addressing

cdef struct balancer_t:
    sb_t *sb
    uint64_t random
    state_t **states          # by service slot; NULL: no such service
    node_t *nodes             # by endpoint slot
    int64_t *lag              # by group slot: share asked for less share given, in millionths of a request
    uint32_t *lag_generation
    void *scratch             # for ring_build
    uint32_t scratch_points
    ring_member_t *owners
    uint32_t owners_cap

# One selection on its way.
cdef struct draw_t:
    balancer_t *s
    const ask_t *ask
    pick_t *out
    bint panic
    bint full                 # somebody was passed over for its limit alone

cdef inline uint64_t rnd(balancer_t *s) noexcept nogil:
    """splitmix64"""
    cdef uint64_t z
    s.random += <uint64_t>0x9E3779B97F4A7C15
    z = s.random
    z = (z ^ (z >> 30)) * <uint64_t>0xBF58476D1CE4E5B9
    z = (z ^ (z >> 27)) * <uint64_t>0x94D049BB133111EB
    return z ^ (z >> 31)

cdef inline uint32_t rnd_below(balancer_t *s, uint32_t n) noexcept nogil:
    return <uint32_t>(((rnd(s) >> 32) * n) >> 32)

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

cdef inline int can_now(const draw_t *d, uint32_t slot, bint trial) noexcept nogil:
    """The part of eligibility that changes with every request. trial: its breaker may be other than closed."""
    cdef const sb_t *sb = d.s.sb
    cdef const service_t *service = d.ask.service
    if d.ask.n_tried and was_tried(d.ask, slot):
        return NO
    if trial and not d.panic and not brk_open_to(sb_load64(&sb.breaker[slot].word), &service.breaker, d.ask.now_ms):
        return NO
    if service.connections and sb_inflight(sb, slot) >= service.connections:
        return FULL
    return YES

cdef inline int eligible(const draw_t *d, uint32_t slot, uint32_t generation, bint bound) noexcept nogil:
    """The predicate. Of a listed member everything but can_now is known already."""
    if not permitted(d.s.sb, slot, generation, bound):
        return NO
    if not d.panic and not well(d.s.sb, d.ask.service, slot, d.ask.now_ms):
        return NO
    return can_now(d, slot, True)

cdef inline int can_take(const draw_t *d, const node_t *node) noexcept nogil:
    """`eligible` for one that is listed. While `changes` stands still, so does the state of its breaker."""
    return can_now(d, node.slot, node.trial)

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

cdef inline bint take(draw_t *d, const member_t *member, uint32_t slot, uint32_t generation, uint32_t group) noexcept nogil:
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

cdef inline bint is_smooth(const service_t *service) noexcept nogil:
    return service.strategy == BAL_ROUND_ROBIN or service.strategy == BAL_WEIGHTED_ROUND_ROBIN

cdef inline bint is_keyed(const service_t *service) noexcept nogil:
    return service.strategy == BAL_IP_HASH or service.strategy == BAL_CONSISTENT_HASH

cdef inline sb_svcstat_t *svcstat(const draw_t *d) noexcept nogil:
    return &d.s.sb.svcstat[d.s.sb.me][d.ask.service.slot]
