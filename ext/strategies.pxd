"""The seven strategies.

Up to SMALL listed members every strategy looks at all of them, with true sums over all workers. Above, it looks at a
few: the smooth scheduler is a heap of deadlines, least_* compare SAMPLES endpoints drawn by weight, random draws from an
alias table. Whoever is refused then (tried, full, probe taken) is passed over; after PROPOSALS refusals all are looked at.
In-flight sums are those of this instant, but two workers that pick in the same instant do not see each other.
"""

from turnout.ext.balance cimport draw_t, node_t, tier_t

cdef bint pick_in_tier(draw_t *d, tier_t *t) noexcept nogil
"""Pick by the service's strategy; d.out is filled and the request counted in. 0: nobody could take it, see d.full."""
cdef void charge(node_t *node) noexcept nogil
"""A pick past the scheduler, for a bound session: the next turn comes later, by one round at most."""
