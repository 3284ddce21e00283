"""Account: the one place where an attempt and an exchange are counted."""

from libc.stdint cimport uint64_t
from turnout.ext.core cimport core_t, exch_t

cdef void account_attempt(core_t *core, exch_t *x, int outcome) noexcept nogil
"""Close the exchange's open pick with its outcome: select_release, endpoint totals, histograms. x.first_us, pick_us,
connected_us and the streams' byte counts describe the attempt. Does nothing when no pick is open (XF_PICKED)."""

cdef void account_settled(core_t *core, exch_t *x, int outcome) noexcept nogil
"""A tunnel stands: its latency is what it took so far, and breaker and estimate learn of it now. The pick stays open
until account_attempt."""

cdef void account_exchange(core_t *core, exch_t *x) noexcept nogil
"""The exchange is over: listener and route counters, proxy time, access log. Called exactly once per exchange."""
