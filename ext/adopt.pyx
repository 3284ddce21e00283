"""See adopt.pxd."""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memset
from turnout.ext.arena cimport ARENA_CHUNK, arena_free, arena_t, arena_take
from turnout.ext.balance cimport (
    SMALL, UNSEEDED, alias_t, balancer_t, is_keyed, is_smooth, node_t, part_t, state_t, tier_t, turn_t,
)
from turnout.ext.listing cimport leave_heap, list_service, ring_cap
from turnout.ext.ring cimport ring_free, ring_member_t, ring_new, ring_scratch, ring_t
from turnout.ext.scoreboard cimport sb_load, sb_t
from turnout.ext.snapshot cimport group_t, member_t, service_t, snapshot_t

cdef extern from "stdlib.h" nogil:
    void *aligned_alloc(size_t align, size_t n)

cdef enum:
    STATE_BYTES = 512         # of a service's state, about: without members, ...
    NODE_BYTES = 80           # ... and for each of them

# What a snapshot is being made into, until it is in force.
cdef struct plan_t:
    balancer_t *s
    const snapshot_t *snapshot
    state_t **states          # by service slot, of services that are new or have changed
    uint8_t *kept             # by service slot; 1: the snapshot shares the service with the one before
    arena_t *arena            # of the state that is being made
    bint failed               # memory ran out


cdef int balancer_init(balancer_t *s, sb_t *sb, uint64_t seed) noexcept nogil:
    cdef uint32_t i
    memset(s, 0, sizeof(balancer_t))
    s.sb = sb
    s.random = seed
    s.states = <state_t **>calloc(sb.services, sizeof(state_t *))
    s.nodes = <node_t *>aligned_alloc(64, sb.endpoints * sizeof(node_t))
    s.lag = <int64_t *>calloc(sb.groups, sizeof(int64_t))
    s.lag_generation = <uint32_t *>calloc(sb.groups, sizeof(uint32_t))
    if s.states == NULL or s.nodes == NULL or s.lag == NULL or s.lag_generation == NULL:
        return -1
    memset(s.nodes, 0, sb.endpoints * sizeof(node_t))
    for i in range(sb.endpoints):
        s.nodes[i].slot = i
    return 0


cdef void balancer_clear(balancer_t *s) noexcept nogil:
    if s.states != NULL:
        free_states(s.states, s.sb.services)
    free(s.nodes)
    free(s.lag)
    free(s.lag_generation)
    free(s.scratch)
    free(s.owners)
    memset(s, 0, sizeof(balancer_t))


cdef void free_states(state_t **states, uint32_t n) noexcept nogil:
    cdef uint32_t i
    for i in range(n):
        free_state(states[i])
    free(states)


cdef void free_state(state_t *st) noexcept nogil:
    cdef uint32_t g, k
    if st == NULL:
        return
    for g in range(st.n_parts):
        for k in range(st.parts[g].n_tiers):
            ring_free(st.parts[g].tiers[k].ring)
    arena_free(&st.arena)
    free(st)


cdef void *piece(plan_t *plan, uint64_t n, uint64_t size) noexcept nogil:
    """Zeroed, for as long as the plan's arena lives."""
    cdef void *p = arena_take(plan.arena, n * size)
    if p == NULL:
        plan.failed = True
    return p


cdef int balancer_adopt(balancer_t *s, const snapshot_t *snap, uint64_t now_ms) noexcept nogil:
    """A ring takes its time: it is built when the first request needs it, once for all changes until then."""
    cdef plan_t plan
    cdef uint32_t i
    plan.s = s
    plan.snapshot = snap
    plan.failed = False
    plan.states = <state_t **>calloc(s.sb.services, sizeof(state_t *))
    plan.kept = <uint8_t *>calloc(s.sb.services, 1)
    if plan.states == NULL or plan.kept == NULL or not make_states(&plan):
        if plan.states != NULL:
            free_states(plan.states, s.sb.services)
        free(plan.kept)
        return -1
    take_over(&plan)
    for i in range(s.sb.services):
        if plan.states[i] != NULL and not is_keyed(plan.states[i].service):
            list_service(s, plan.states[i], now_ms)
    free(plan.states)
    free(plan.kept)
    return 0


cdef bint make_states(plan_t *plan) noexcept nogil:
    """Everything that takes memory. Nothing in force is touched."""
    cdef uint32_t i
    cdef const service_t *service
    cdef const state_t *before
    for i in range(plan.snapshot.n_services):
        service = plan.snapshot.services[i]
        before = plan.s.states[service.slot]
        plan.kept[service.slot] = before != NULL and before.service == service
        if not plan.kept[service.slot] and not make_state(plan, service):
            return False
    return make_room(plan)


cdef bint make_state(plan_t *plan, const service_t *service) noexcept nogil:
    cdef uint32_t g
    cdef state_t *st = <state_t *>calloc(1, sizeof(state_t))
    if st == NULL:
        return False
    plan.states[service.slot] = st
    plan.arena = &st.arena
    st.service = service
    st.arena.step = min_step(service.n_members)
    st.parts = <part_t *>piece(plan, service.n_groups, sizeof(part_t))
    if plan.failed:
        return False
    st.n_parts = service.n_groups
    for g in range(service.n_groups):
        if not make_part(plan, service, &service.groups[g], &st.parts[g]):
            return False
    return index_members(plan, st)


cdef size_t min_step(uint32_t members) noexcept nogil:
    """Of an arena: about what so many members take."""
    cdef size_t n = STATE_BYTES + <size_t>members * NODE_BYTES
    return n if n < ARENA_CHUNK else ARENA_CHUNK


cdef inline node_t *node_of(const plan_t *plan, const service_t *service, uint32_t member) noexcept nogil:
    return &plan.s.nodes[service.members[member].slot]


cdef bint make_part(plan_t *plan, const service_t *service, const group_t *group, part_t *p) noexcept nogil:
    """One tier for each priority, in order."""
    cdef uint32_t i, n = 0
    cdef int64_t at = -1
    cdef uint32_t *size = <uint32_t *>piece(plan, group.n, sizeof(uint32_t))
    cdef uint32_t *priority = <uint32_t *>piece(plan, group.n, sizeof(uint32_t))
    if plan.failed:
        return False
    while next_priority(service, group, &at, &size[n] if n < group.n else NULL):
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


cdef bint next_priority(const service_t *service, const group_t *group, int64_t *at, uint32_t *size) noexcept nogil:
    """The lowest above *at, and how many members have it."""
    cdef uint32_t i
    cdef int64_t priority, best = -1
    for i in range(group.n):
        priority = service.members[group.members[i]].priority
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
        if service.members[group.members[i]].priority == t.priority:
            t.members[t.n] = node_of(plan, service, group.members[i])
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
        m = &st.service.members[i]
        k = <uint32_t>m.identity & st.mask
        while st.by_identity[k] != NULL:
            k = (k + 1) & st.mask
        st.by_identity[k] = &plan.s.nodes[m.slot]
    return True


cdef bint make_room(plan_t *plan) noexcept nogil:
    """What rings are built in: as much as the largest of them needs."""
    cdef balancer_t *s = plan.s
    cdef uint32_t i, points = 0, members = 0
    cdef const service_t *service
    cdef void *p
    for i in range(plan.snapshot.n_services):
        service = plan.snapshot.services[i]
        if is_keyed(service) and not plan.kept[service.slot]:
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


cdef inline bint goes(const plan_t *plan, uint32_t slot) noexcept nogil:
    """There is a state that is replaced, or not needed any more."""
    return plan.s.states[slot] != NULL and not plan.kept[slot]


cdef void take_over(plan_t *plan) noexcept nogil:
    """Put the plan in force, with all that is kept. Endpoints may have moved from service to service."""
    cdef balancer_t *s = plan.s
    cdef uint32_t i
    for i in range(s.sb.services):
        if goes(plan, i):
            leave_heaps(s.states[i])
    for i in range(s.sb.services):
        if plan.states[i] != NULL:
            inherit(plan, plan.states[i], s.states[i])
    for i in range(s.sb.services):
        if goes(plan, i):
            leave_nodes(s.states[i])
    for i in range(s.sb.services):
        if plan.states[i] != NULL:
            enter(s, plan.states[i])
    for i in range(s.sb.services):
        if goes(plan, i):
            forget_nodes(s.states[i])
            free_state(s.states[i])
            s.states[i] = NULL
        if plan.states[i] != NULL:
            s.states[i] = plan.states[i]


cdef void leave_nodes(state_t *st) noexcept nogil:
    cdef uint32_t i
    for i in range(st.mask + 1):
        if st.by_identity[i] != NULL:
            st.by_identity[i].member = NULL


cdef void forget_nodes(state_t *st) noexcept nogil:
    """Those that no service has now."""
    cdef uint32_t i
    for i in range(st.mask + 1):
        if st.by_identity[i] != NULL and st.by_identity[i].member == NULL:
            st.by_identity[i].tier = NULL


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


cdef void enter(balancer_t *s, state_t *st) noexcept nogil:
    cdef uint32_t g, k, i, generation
    cdef part_t *p
    for i in range(st.service.n_members):
        enter_member(s, &st.service.members[i])
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


cdef void enter_member(balancer_t *s, const member_t *m) noexcept nogil:
    cdef node_t *node = &s.nodes[m.slot]
    node.member = m
    if node.generation != m.generation:
        node.generation = m.generation
        node.credit = UNSEEDED
        node.weight = 0
        node.latency_us = 0
        node.settled_us = 0
        node.others_us = 0
        node.others_weight = 0
        node.merged_us = 0
        s.sb.epstat[s.sb.me][m.slot].ewma_us = 0


cdef void balance_lags(balancer_t *s, const state_t *st) noexcept nogil:
    """Groups have come or gone: what is owed adds up to nothing again."""
    cdef uint32_t g
    cdef int64_t sum = 0
    for g in range(st.n_parts):
        sum += s.lag[st.parts[g].slot]
    for g in range(st.n_parts):
        s.lag[st.parts[g].slot] -= sum // <int64_t>(st.n_parts - g)
        sum -= sum // <int64_t>(st.n_parts - g)
