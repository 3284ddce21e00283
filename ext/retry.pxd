"""Whether a failed attempt is tried again: one decision, one place (RFC 9110 9.2.2).

Tried again only when no byte can have been processed, or the method may be repeated; never past the attempts, never
without the whole request at hand, never without a token of the service's budget.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t
from turnout.ext.snapshot cimport retry_conf_t
from turnout.ext.scoreboard cimport sb_svcstat_t

# What is known of the failed attempt.
cdef struct attempt_t:
    uint8_t reason            # retry_reason
    uint8_t method            # method_id
    uint8_t sent              # 1: request bytes were handed to the kernel on a live connection
    uint8_t replayable        # 1: head and whole body are still at hand
    uint8_t answered          # 1: response bytes already went to the client
    uint8_t keyed             # 1: the request has an Idempotency-Key
    uint32_t tries            # attempts so far, this one included, those on stale reused connections not
    uint32_t stale_tries      # attempts before this one that met a stale reused connection (bounded by themselves)
    uint16_t status           # RETRY_STATUS

cdef bint retry_allowed(const retry_conf_t *conf, const attempt_t *attempt) noexcept nogil
"""The rule without the budget."""
cdef void budget_earn(const retry_conf_t *conf, sb_svcstat_t *stat, double elapsed_s) noexcept nogil
"""Once per request: its share, and the floor for the time since the last call, of which ten seconds count at most (so a
first call earns ten seconds' worth). Capped at ten seconds of the floor plus 100 tokens."""
cdef bint budget_spend(sb_svcstat_t *stat) noexcept nogil
"""Take one token; 0 when there is none (counted in retries_denied)."""
