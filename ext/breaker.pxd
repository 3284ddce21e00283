"""Circuit breaker: one 64-bit word per endpoint in the scoreboard, changed by compare-and-swap only.

                failures in a row                  open time over, at a pick
      ┌────────┐ ───────────────► ┌──────┐ ─────────────────────► ┌───────────┐ ◄─┐ probe taken or given back,
      │ CLOSED │                  │ OPEN │                        │ HALF_OPEN │ ──┘ lease over
      └────────┘                  └──────┘ ◄───────────────────── └───────────┘
           ▲                                  a probe failed            │
           └────────────────────────────────────────────────────────────┘
                              enough probes succeeded

HALF_OPEN lets `probes` requests through at a time, over all workers. Each carries the epoch in which it was let
through. Probes that a killed worker took with it come back when the lease is over: a new epoch begins with all tokens,
and what belongs to an older one no longer counts. A success of an endpoint without failures writes nothing.
The first trip of a row shuts out for open_ms; the time doubles with each trip that comes while the endpoint has not
been well for as long as it was last shut out. An epoch comes again after sixteen: a probe that is reported only then
may be taken for one of the new epoch. (CLOSED forgets the streak at the first report after its deadline.)
Times are CLOCK_MONOTONIC in ticks of 16 ms, 32 bits of them: deadlines are right within a year of now.
"""

from libc.stdint cimport uint32_t, uint64_t
from turnout.ext.scoreboard cimport (
    BRK_CLOSED, BRK_HALF_OPEN, BRK_OPEN, BRK_STATES, brk_deadline, brk_probes, brk_state, sb_t,
)
from turnout.ext.snapshot cimport breaker_conf_t

# What happens to a breaker. ASK: a pick wants through. The others close a pick: of a probe, or of an ordinary request.
cdef enum brk_event:
    BRK_ASK_EARLY = 0         # before the deadline
    BRK_ASK_DUE               # after it
    BRK_SUCCESS
    BRK_FAILURE
    BRK_NEUTRAL               # cancelled, stale: says nothing
    BRK_PROBE_SUCCESS
    BRK_PROBE_FAILURE
    BRK_PROBE_NEUTRAL
    BRK_EVENTS

# What is done about it; brk_table[state][event].
cdef enum brk_action:
    BRK_KEEP = 0              # nothing
    BRK_CLEAR                 # failures = 0
    BRK_COUNT                 # one more failure; at the threshold: OPEN
    BRK_FIRST                 # HALF_OPEN, new epoch, one token taken
    BRK_TAKE                  # a token, if one is left; renews the lease
    BRK_RENEW                 # the same; if none is left: new epoch, one token taken
    BRK_PASS                  # token back, one more success; enough: CLOSED
    BRK_REOPEN                # OPEN, longer
    BRK_RETURN                # token back

cdef enum:
    BRK_FAILURES_MAX = 1023   # what the word can hold; larger settings count as this
    BRK_PROBES_MAX = 63
    BRK_SUCCESSES_MAX = 63
    BRK_TICK_MS = 16

cdef inline bint brk_due(uint64_t word, uint64_t now_ms) noexcept nogil:
    return <int>(<uint32_t>(now_ms // BRK_TICK_MS) - brk_deadline(word)) >= 0

cdef inline bint brk_open_to(uint64_t word, const breaker_conf_t *conf, uint64_t now_ms) noexcept nogil:
    """Would a pick be let through now? Looks, takes nothing."""
    if brk_state(word) == BRK_CLOSED or conf.failures == 0:
        return True
    if brk_state(word) == BRK_HALF_OPEN and brk_probes(word) < conf.probes:
        return True
    return brk_due(word, now_ms)

cdef bint brk_is_failure(const breaker_conf_t *conf, int outcome, int status) noexcept nogil
"""Does an outcome count as a failure of the endpoint?"""

cdef uint64_t brk_next(uint64_t word, int event, const breaker_conf_t *conf, uint32_t lease_ms, uint64_t now_ms,
                       uint32_t random, bint may_trip) noexcept nogil
"""The word after an event; the whole machine, without side effects. may_trip 0: CLOSED stays CLOSED."""

cdef int brk_admit(sb_t *sb, uint32_t slot, const breaker_conf_t *conf, uint32_t lease_ms, uint64_t now_ms,
                   uint32_t *epoch) noexcept nogil
"""Let one request through: 0 no, 1 yes, 2 as a probe of *epoch. A probe must be reported exactly once."""

cdef uint64_t brk_report(sb_t *sb, uint32_t slot, const breaker_conf_t *conf, int event, uint32_t epoch, uint64_t now_ms,
                         uint32_t random, bint may_trip) noexcept nogil
"""Close a request. `epoch` matters for the PROBE events only: of another epoch they count for nothing. Returns the word
that made it OPEN when this report tripped it out of CLOSED, else 0 (a failed probe only shuts again what was shut)."""

cdef void brk_untrip(sb_t *sb, uint32_t slot, uint64_t tripped, uint64_t now_ms) noexcept nogil
"""Take back a trip (the word brk_report returned) unless the breaker has moved on: CLOSED with the failures it had, the
streak one less. `trips` keeps what it counted."""
