"""From a snapshot to what selection works on, and what of the former one is kept: credits, rings, debts of groups."""

from libc.stdint cimport uint64_t
from turnout.ext.balance cimport balancer_t
from turnout.ext.scoreboard cimport sb_t
from turnout.ext.snapshot cimport snapshot_t

cdef int balancer_init(balancer_t *s, sb_t *sb, uint64_t seed) noexcept nogil
"""-1: out of memory; balancer_clear is due in any case."""
cdef void balancer_clear(balancer_t *s) noexcept nogil
"""Free what it holds, not the struct."""
cdef int balancer_adopt(balancer_t *s, const snapshot_t *snap, uint64_t now_ms) noexcept nogil
"""Make ready for a snapshot; -1 when memory is out, and nothing has changed then."""
