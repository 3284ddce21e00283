"""See strategies.pxd."""

from libc.stdint cimport int64_t, uint32_t, uint64_t, uint8_t
from turnout.ext.balance cimport FULL, SMALL, YES, balancer_t, can_take, draw_t, node_t, rnd, take_node, tier_t
from turnout.ext.latency cimport latency_of, survey_latency
from turnout.ext.listing cimport period, sift_down
from turnout.ext.ring cimport ring_find, ring_next, ring_t
from turnout.ext.scoreboard cimport sb_groupflight, sb_inflight, sb_t
from turnout.ext.snapshot cimport (
    BAL_CONSISTENT_HASH, BAL_IP_HASH, BAL_LEAST_CONNECTIONS, BAL_LEAST_RESPONSE_TIME, BAL_RANDOM, service_t,
)

cdef enum:
    SAMPLES = 5               # compared by least_* of a long list
    PROPOSALS = 16            # candidates tried before all are looked at


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


# ---- the smooth scheduler ---------------------------------------------------------------------------------------

cdef inline bint all_can(const draw_t *d, const tier_t *t) noexcept nogil:
    return not t.trials and d.ask.n_tried == 0 and d.ask.service.connections == 0


cdef inline uint32_t gather(draw_t *d, const tier_t *t, node_t **room, node_t ***able) noexcept nogil:
    """Everyone who can take it, of a small list: the list itself when that is all of them, else `room`."""
    cdef uint32_t i, n = 0
    cdef int v
    if all_can(d, t):
        able[0] = t.listed
        return t.n_listed
    able[0] = room
    for i in range(t.n_listed):
        v = can_take(d, t.listed[i])
        if v == YES:
            room[n] = t.listed[i]
            n += 1
        elif v == FULL:
            d.full = True
    return n


cdef void drop(node_t **room, node_t ***able, uint32_t *n, const node_t *node) noexcept nogil:
    """Leave one out; the others keep their order, and the list stays whole."""
    cdef uint32_t i, k = 0
    for i in range(n[0]):
        if able[0][i] != node:
            room[k] = able[0][i]
            k += 1
    n[0] = k
    able[0] = room


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
    cdef node_t *room[SMALL]
    cdef node_t **able
    cdef uint32_t n, i
    if t.heaped:
        return pick_heap(d, t)
    n = gather(d, t, room, &able)
    while n:
        i = most_owed(able, n)
        if take_node(d, able[i]):
            settle(able, n, able[i])
            return True
        drop(room, &able, &n, able[i])
    return False


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
        v = can_take(d, node)
        if v == YES and take_node(d, node):
            t.vt = deadline
            return True
        d.full |= v == FULL
    return pick_any(d, t)


cdef void charge(node_t *node) noexcept nogil:
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

cdef inline node_t *drawn(balancer_t *s, const tier_t *t) noexcept nogil:
    """Anyone, by weight."""
    cdef uint64_t r = rnd(s)
    cdef uint32_t i = <uint32_t>(((r >> 32) * t.n_listed) >> 32)
    return t.listed[i] if <uint32_t>r < t.alias[i].threshold else t.listed[t.alias[i].other]


cdef bint pick_random(draw_t *d, tier_t *t) noexcept nogil:
    cdef uint32_t k
    cdef node_t *node
    for k in range(PROPOSALS):
        node = drawn(d.s, t)
        if can_take(d, node) == YES and take_node(d, node):
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
            v = can_take(d, t.listed[i])
            total += t.listed[i].weight if v == YES else 0
            d.full |= v == FULL
        if total == 0:
            return False
        mark = rnd(d.s) % total
        for i in range(t.n_listed):
            if can_take(d, t.listed[i]) != YES:
                continue
            if mark < t.listed[i].weight:
                if take_node(d, t.listed[i]):
                    return True
                break
            mark -= t.listed[i].weight
    return False


# ---- least connections ------------------------------------------------------------------------------------------

cdef bint pick_least_connections(draw_t *d, tier_t *t) noexcept nogil:
    cdef node_t *room[SMALL]
    cdef node_t *ties[SMALL]
    cdef node_t **able
    cdef uint32_t n, n_ties, i
    if t.n_listed > SMALL:
        return pick_sampled(d, t)
    n = gather(d, t, room, &able)
    while n:
        n_ties = least_loaded(d.s.sb, able, n, ties)
        i = most_owed(ties, n_ties)
        if take_node(d, ties[i]):
            settle(ties, n_ties, ties[i])
            bound_credit(ties[i], t.total)
            return True
        drop(room, &able, &n, ties[i])
    return False


cdef inline void bound_credit(node_t *node, uint64_t total) noexcept nogil:
    """Ties are other sets every time, so credits could drift."""
    if node.credit < -<int64_t>total:
        node.credit = -<int64_t>total


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
            if can_take(d, node) != YES:
                continue
            cost = (time_cost(d, t, node) if by_time else sb_inflight(d.s.sb, node.slot) / <double>node.weight)
            if best == NULL or cost < least:
                best = node
                least = cost
        if best != NULL and take_node(d, best):
            return True
    return pick_any(d, t)


# ---- least response time ----------------------------------------------------------------------------------------

cdef inline double time_cost(draw_t *d, const tier_t *t, node_t *node) noexcept nogil:
    """Expected latency x (in flight + 1) / weight."""
    cdef int64_t flight = sb_inflight(d.s.sb, node.slot)
    return latency_of(d.s.sb, t, node, flight, d.ask.now_us) * (flight + 1) / node.weight


cdef bint pick_least_time(draw_t *d, tier_t *t) noexcept nogil:
    cdef node_t *room[SMALL]
    cdef node_t **able
    cdef uint32_t n, i, k, best
    cdef double cost, least
    if t.n_listed > SMALL:
        return pick_sampled(d, t)
    survey_latency(t, d.ask.now_ms)
    n = gather(d, t, room, &able)
    while n:
        t.cursor = t.cursor + 1 if t.cursor + 1 < n else 0
        best = t.cursor
        least = time_cost(d, t, able[best])
        for i in range(1, n):
            k = t.cursor + i if t.cursor + i < n else t.cursor + i - n
            cost = time_cost(d, t, able[k])
            if cost < least:
                least = cost
                best = k
        if take_node(d, able[best]):
            return True
        drop(room, &able, &n, able[best])
    return False


# ---- hashing ----------------------------------------------------------------------------------------------------

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
            v = can_take(d, node)
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
        if can_take(d, t.listed[i]) == YES:
            return True
    return False
