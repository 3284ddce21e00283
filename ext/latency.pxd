"""Latency estimates: peak EWMA of the time to the first byte, one per worker and endpoint, merged over the workers."""

from libc.stdint cimport int64_t, uint32_t, uint64_t
from turnout.ext.balance cimport balancer_t, node_t, tier_t
from turnout.ext.scoreboard cimport sb_t

cdef enum:
    MERGE_MS = 100            # estimates of other workers are at most this old; own ones are not
    TAU_US = 10000000         # of the estimate
    PENALTY = 4               # a failure counts as this many times the larger of own and mean latency
    PENALTY_MAX_US = 5000000

cdef void survey_latency(tier_t *t, uint64_t now_ms) noexcept nogil
"""Mean and best of the listed, at most MERGE_MS old."""
cdef void merge_latency(const sb_t *sb, node_t *node, uint64_t now_us) noexcept nogil
cdef void learn(balancer_t *s, uint32_t slot, int outcome, uint64_t first_us, uint64_t now_us) noexcept nogil
"""Feed this worker's estimate: up to a peak at once, down slowly. A failure is a penalty, however fast it came."""

cdef inline double latency_of(const sb_t *sb, const tier_t *t, node_t *node, int64_t flight, uint64_t now_us) noexcept nogil:
    """What a response of an endpoint with `flight` requests is expected to take, microseconds. One without samples costs
    nothing while it has no request and the mean while it has: one request at a time until there is a sample. What fades
    stays above half the best one's, so that it is tried again before it looks like a gift."""
    if now_us > node.merged_us + MERGE_MS * 1000:
        merge_latency(sb, node, now_us)
    if node.latency_us > 0:
        return node.latency_us if node.latency_us > t.best_us / 2 else t.best_us / 2
    if flight == 0:
        return 0
    return t.mean_us if t.mean_us > 0 else 1.0
