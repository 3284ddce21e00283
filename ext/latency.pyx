"""See latency.pxd."""

from libc.stdint cimport int64_t, uint32_t, uint64_t
from turnout.ext.balance cimport balancer_t, node_t, tier_t
from turnout.ext.scoreboard cimport (
    OUT_5XX, OUT_CANCEL, OUT_CONNECT, OUT_RESET, OUT_STALE, OUT_TIMEOUT, sb_epstat_t, sb_t,
)

cdef inline double decay(uint64_t us) noexcept nogil:
    """exp(-us / TAU_US) to a thousandth."""
    cdef double r = us / <double>TAU_US
    cdef uint32_t i
    if r < 1 / 64.0:
        return 1 - r + r * r / 2
    r = 1 / (1 + r / 1024)
    for i in range(10):
        r *= r
    return r


cdef double merged_worker(const sb_epstat_t *e, uint64_t now_us, double *sum, double *weights) noexcept nogil:
    """Add one worker's estimate, of less weight the older it is; returns the weight."""
    cdef double d
    if e.ewma_us <= 0:
        return 0
    d = decay(now_us - e.ewma_at_us if now_us > e.ewma_at_us else 0) + 1e-12
    sum[0] += e.ewma_us * d
    weights[0] += d
    return d


cdef void merge_latency(const sb_t *sb, node_t *node, uint64_t now_us) noexcept nogil:
    """The mean of the workers' estimates, fresh ones counting more; it fades when nobody has had a sample lately."""
    cdef double sum = 0, weights = 0, freshest = 0, d
    cdef uint32_t w
    for w in range(sb.workers):
        if w != sb.me:
            d = merged_worker(&sb.epstat[w][node.slot], now_us, &sum, &weights)
            freshest = d if d > freshest else freshest
    node.others_us = <float>sum
    node.others_weight = <float>weights
    d = merged_worker(&sb.epstat[sb.me][node.slot], now_us, &sum, &weights)
    freshest = d if d > freshest else freshest
    node.merged_us = now_us
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


cdef void learn(balancer_t *s, uint32_t slot, int outcome, uint64_t first_us, uint64_t now_us) noexcept nogil:
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
    node.settled_us = <float>((node.others_us + us) / (node.others_weight + 1))
    node.latency_us = node.settled_us
    if node.tier != NULL and node.tier.mean_us == 0:
        node.tier.surveyed_ms = 0            # there is a mean from now on


cdef double penalty(double own, double mean, double us) noexcept nogil:
    cdef double worst = PENALTY * (own if own > mean else mean)
    worst = worst if worst > us else us
    worst = worst if worst > 1000 else 1000
    return worst if worst < PENALTY_MAX_US else PENALTY_MAX_US
