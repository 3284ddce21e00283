"""See retry.pxd."""

from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memset
from turnout.ext.scoreboard cimport RETRY_STALE, RETRY_STATUS

cdef enum:
    STALE_MAX = 3             # after a stale connection the next one is fresh, so more come of churn only
    WINDOW_S = 10             # of the floor that may be saved up
    SAVED_MAX = 100           # and of the share


cdef inline bint listed(const retry_conf_t *conf, uint32_t status) noexcept nogil:
    cdef uint32_t bit = status - 100
    return bit < 512 and (conf.statuses[bit >> 6] >> (bit & 63)) & 1


cdef inline bint repeatable(const retry_conf_t *conf, const attempt_t *a) noexcept nogil:
    """Nothing of the request can have been processed, or twice is as good as once."""
    return not a.sent or a.keyed or (conf.methods >> a.method) & 1


cdef inline bint tries_left(const retry_conf_t *conf, const attempt_t *a) noexcept nogil:
    if a.reason == RETRY_STALE:
        return a.stale_tries < STALE_MAX
    return a.tries <= conf.attempts


cdef bint retry_allowed(const retry_conf_t *conf, const attempt_t *attempt) noexcept nogil:
    if attempt.answered or not attempt.replayable or not (conf.on >> attempt.reason) & 1:
        return False
    if attempt.reason == RETRY_STATUS and not listed(conf, attempt.status):
        return False
    return repeatable(conf, attempt) and tries_left(conf, attempt)


cdef void budget_earn(const retry_conf_t *conf, sb_svcstat_t *stat, double elapsed_s) noexcept nogil:
    cdef double cap = conf.floor_per_s * WINDOW_S + SAVED_MAX
    cdef double budget = stat.budget + conf.budget
    if elapsed_s > 0:
        budget += conf.floor_per_s * (elapsed_s if elapsed_s < WINDOW_S else <double>WINDOW_S)
    stat.budget = budget if budget < cap else cap


cdef bint budget_spend(sb_svcstat_t *stat) noexcept nogil:
    # Ten tenths add up to a hair less than one.
    if stat.budget < 1 - 1e-9:
        stat.retries_denied += 1
        return False
    stat.budget = stat.budget - 1 if stat.budget > 1 else 0.0
    return True


# ---- test access --------------------------------------------------------------------------------------------------

cdef int read_conf(retry_conf_t *c, dict conf) except -1:
    memset(c, 0, sizeof(retry_conf_t))
    c.attempts = conf.get("attempts", 2)
    c.on = conf.get("on", 31)
    c.methods = conf.get("methods", 0)
    c.budget = conf.get("budget", 0.2)
    c.floor_per_s = conf.get("floor_per_s", 10.0)
    for status in conf.get("statuses", ()):
        c.statuses[(status - 100) // 64] |= <uint64_t>1 << <uint32_t>((status - 100) % 64)
    return 0


def _allowed(dict conf, *, reason=0, method=0, sent=False, replayable=True, answered=False, keyed=False, tries=1,
             stale_tries=0, status=0):
    cdef retry_conf_t c
    cdef attempt_t a
    read_conf(&c, conf)
    a.reason, a.method, a.sent, a.replayable = reason, method, sent, replayable
    a.answered, a.keyed, a.tries, a.stale_tries, a.status = answered, keyed, tries, stale_tries, status
    return bool(retry_allowed(&c, &a))


cdef class _Budget:
    cdef retry_conf_t conf
    cdef sb_svcstat_t stat

    def __cinit__(self, **conf):
        read_conf(&self.conf, conf)
        memset(&self.stat, 0, sizeof(sb_svcstat_t))

    @property
    def tokens(self):
        return self.stat.budget

    @property
    def denied(self):
        return self.stat.retries_denied

    def earn(self, double elapsed_s):
        budget_earn(&self.conf, &self.stat, elapsed_s)

    def spend(self):
        return bool(budget_spend(&self.stat))
