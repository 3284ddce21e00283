"""See select.pxd."""

from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset
from turnout.ext.adopt cimport balancer_adopt, balancer_clear, balancer_init
from turnout.ext.balance cimport (
    FULL, YES, add_flight, add_groupflight, balancer_t, draw_t, eligible, node_t, part_t, permitted, rnd, sound,
    state_t, svcstat, take, tier_t,
)
from turnout.ext.breaker cimport (
    BRK_FAILURE, BRK_NEUTRAL, BRK_PROBE_SUCCESS, BRK_SUCCESS, brk_is_failure, brk_report, brk_untrip,
)
from turnout.ext.latency cimport learn
from turnout.ext.listing cimport refresh
from turnout.ext.ring cimport murmur128
from turnout.ext.scoreboard cimport (
    OUT_2XX, OUT_CANCEL, OUT_STALE, sb_inflight, sb_load, sb_load64, sb_map, sb_svcstat_t, sb_t, sb_unmap,
)
from turnout.ext.snapshot cimport Snapshot, breaker_conf_t, member_t, service_t, snapshot_t
from turnout.ext.split cimport choose_part, give_part
from turnout.ext.sticky cimport sticky_source_get, sticky_source_put
from turnout.ext.strategies cimport charge, pick_in_tier

import time

from turnout.ext.scoreboard import OUTCOMES

cdef struct selector_t:
    balancer_t balancer


cdef selector_t *selector_new(sb_t *sb, uint64_t seed) noexcept nogil:
    cdef selector_t *s = <selector_t *>calloc(1, sizeof(selector_t))
    if s != NULL and balancer_init(&s.balancer, sb, seed) != 0:
        selector_free(s)
        return NULL
    return s


cdef void selector_free(selector_t *s) noexcept nogil:
    if s != NULL:
        balancer_clear(&s.balancer)
        free(s)


cdef int select_adopt(selector_t *s, const snapshot_t *snap, uint64_t now_ms) noexcept nogil:
    return balancer_adopt(&s.balancer, snap, now_ms)


cdef uint64_t hash_bytes(const char *p, uint32_t n) noexcept nogil:
    cdef uint64_t h[2]
    murmur128(p, n, h)
    return h[0]


cdef const member_t *select_member(const selector_t *s, const service_t *service, uint32_t slot, uint32_t generation) noexcept nogil:
    cdef const node_t *node = &s.balancer.nodes[slot]
    if node.member == NULL or node.generation != generation or node.member.service != service.slot:
        return NULL
    return node.member


# ---- picks ------------------------------------------------------------------------------------------------------

cdef int select_pick(selector_t *s, const ask_t *ask, pick_t *out) noexcept nogil:
    cdef state_t *st = state_of(&s.balancer, ask)
    cdef draw_t d
    d.s = &s.balancer
    d.ask = ask
    d.out = out
    d.panic = False
    d.full = False
    if st != NULL:
        refresh(&s.balancer, st, ask.now_ms)
    if ask.service.sticky.kind:
        return pick_sticky(&d, st)
    return PICK_OK if pick_new(&d, st) else missed(&d)


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


cdef inline state_t *state_of(const balancer_t *s, const ask_t *ask) noexcept nogil:
    """NULL: the request knows the service as it was in an older snapshot."""
    cdef state_t *st = s.states[ask.service.slot]
    return st if st != NULL and st.service == ask.service else NULL


# ---- tiers and groups -------------------------------------------------------------------------------------------

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


cdef inline bint has_listed(const part_t *p) noexcept nogil:
    cdef uint32_t i
    for i in range(p.n_tiers):
        if p.tiers[i].n_listed:
            return True
    return False


cdef part_t *last_part(const balancer_t *s, const state_t *st, const ask_t *ask) noexcept nogil:
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


cdef const member_t *with_identity(const balancer_t *s, const state_t *st, const ask_t *ask) noexcept nogil:
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
    return &ask.service.members[i]


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
            if node.member != NULL and node.generation == generation and node.member.service == ask.service.slot:
                return node.member
            return NULL
        return with_slot(ask, slot, generation)
    return NULL


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


# ---- releases ---------------------------------------------------------------------------------------------------

cdef void select_release(selector_t *s, const service_t *service, pick_t *pick, int outcome, int status,
                         uint64_t first_us, uint64_t now_us) noexcept nogil:
    cdef uint32_t slot = pick.slot
    cdef sb_t *sb = s.balancer.sb
    if pick.member == NULL:
        return
    add_flight(sb, slot, -1)
    add_groupflight(sb, pick.group, -1)
    select_settle(s, service, pick, outcome, status, first_us, now_us)
    pick.member = NULL


cdef void select_settle(selector_t *s, const service_t *service, pick_t *pick, int outcome, int status,
                        uint64_t first_us, uint64_t now_us) noexcept nogil:
    if pick.flags & PICK_SETTLED or sb_load(&s.balancer.sb.endpoint[pick.slot].generation) != pick.generation:
        return
    pick.flags |= PICK_SETTLED
    if service.breaker.failures:
        tell_breaker(&s.balancer, service, pick, outcome, status, now_us // 1000)
    learn(&s.balancer, pick.slot, outcome, first_us, now_us)


cdef void select_tell(selector_t *s, uint32_t slot, uint32_t generation, int outcome, uint64_t now_us) noexcept nogil:
    cdef pick_t pick
    memset(&pick, 0, sizeof(pick_t))
    pick.slot = slot
    pick.generation = generation
    pick.member = s.balancer.nodes[slot].member
    if pick.member != NULL and pick.member.generation == generation:
        select_settle(s, s.balancer.states[pick.member.service].service, &pick, outcome, 0, 0, now_us)


cdef void tell_breaker(balancer_t *s, const service_t *service, const pick_t *pick, int outcome, int status,
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


cdef bint others_sound(const balancer_t *s, uint32_t slot) noexcept nogil:
    """Is there somebody else in the service for new sessions? Looks at the scoreboard itself. When two workers trip the
    last two in the same instant, both see afterwards that nobody is left, and both take it back."""
    cdef uint32_t i, k
    cdef const state_t *st
    if s.nodes[slot].member == NULL:
        return True
    st = s.states[s.nodes[slot].member.service]
    for i in range(st.n_parts):
        if st.service.split and sb_load(&s.sb.group[st.parts[i].slot].share) == 0:
            continue
        for k in range(st.parts[i].n_tiers):
            if others_in(s, st.service, &st.parts[i].tiers[k], slot):
                return True
    return False


cdef bint others_in(const balancer_t *s, const service_t *service, const tier_t *t, uint32_t slot) noexcept nogil:
    cdef uint32_t i
    cdef const node_t *node
    for i in range(t.n):
        node = t.members[i]
        if node.slot != slot and permitted(s.sb, node.slot, node.generation, False) and sound(s.sb, service, node.slot):
            return True
    return False


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
        return snapshot.ptr.services[index]

    def pick(self, uint32_t service, *, uint64_t key=0, uint64_t bound=0, uint64_t source=0, uint64_t now_ms=1000,
             tried=(), Snapshot snapshot=None):
        cdef ask_t ask
        cdef _Pick p = _Pick.__new__(_Pick)
        cdef uint32_t i
        snapshot = self.snapshot if snapshot is None else snapshot
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
        return self.selector.balancer.lag[group]

    def bench(self, uint32_t service, uint64_t times, uint64_t now_ms=1000):
        """Nanoseconds per pick and release."""
        cdef ask_t ask
        cdef pick_t p
        cdef uint64_t i, missed = 0
        memset(&ask, 0, sizeof(ask))
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
