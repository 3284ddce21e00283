"""Selection: which endpoint gets a request, and what its outcome teaches.

pick -> release, exactly one of each. A pick counts the request in this worker's in-flight slab at once, so that every
other worker sees it; release takes it out and feeds breaker and latency estimate. One eligibility predicate for all
strategies (`eligible`): health up, admin ready (or drain for a bound session), weight above 0 for new sessions, not
tried before, below its limit, let through by its breaker.
State that survives snapshots (credits, heaps, rings, split sequence) is owned by the selector under scoreboard slots;
`select_adopt` is called once for each new snapshot, before its first pick, and is where all allocation happens.
The parts it is made of: balance.pxd.
"""

from libc.stdint cimport int32_t, uint8_t, uint32_t, uint64_t
from turnout.ext.scoreboard cimport sb_t
from turnout.ext.snapshot cimport member_t, service_t, snapshot_t

cdef enum:
    TRIED_MAX = 8

cdef enum pick_result:
    PICK_OK = 0
    PICK_NONE                 # nobody can take it: 503
    PICK_BUSY                 # somebody could but for the limits: queue

cdef enum pick_flag:
    PICK_STICKY = 1           # went where it was bound
    PICK_BROKEN = 2           # had a binding that could not be honoured
    PICK_PROBE = 4            # half-open trial
    PICK_PANIC = 8
    PICK_SETTLED = 16         # its outcome is known already

# What a request brings to its selection. Filled by the exchange; lives on its stack.
cdef struct ask_t:
    const service_t *service
    uint64_t key              # hash of the key for ip_hash and consistent_hash; see select_key
    uint64_t bound            # member identity a valid sticky cookie or table entry names; 0: none
    uint64_t source           # hash of the client's address, for sticky by source
    uint64_t now_ms           # CLOCK_MONOTONIC
    uint64_t now_us
    uint32_t n_tried
    uint32_t tried[TRIED_MAX] # endpoint slots

cdef struct pick_t:
    const member_t *member    # NULL: no pick is open
    uint32_t slot
    uint32_t generation
    uint32_t group            # slot
    uint32_t flags            # pick_flag
    uint32_t epoch            # of the breaker, with PICK_PROBE

cdef struct selector_t        # opaque, select.pyx

cdef selector_t *selector_new(sb_t *sb, uint64_t seed) noexcept nogil
cdef void selector_free(selector_t *s) noexcept nogil
cdef int select_adopt(selector_t *s, const snapshot_t *snap, uint64_t now_ms) noexcept nogil
"""Make ready for a snapshot: keep the state of what stays, seed what is new, make room for rings. -1: out of memory."""

cdef const member_t *select_member(const selector_t *s, const service_t *service, uint32_t slot, uint32_t generation) noexcept nogil
"""The member of a service of the adopted snapshot that has this slot; NULL: it is not, or no longer, there."""

cdef int select_pick(selector_t *s, const ask_t *ask, pick_t *out) noexcept nogil
"""pick_result. On PICK_OK the caller owes one select_release."""

cdef void select_release(selector_t *s, const service_t *service, pick_t *pick, int outcome, int status,
                         uint64_t first_us, uint64_t now_us) noexcept nogil
"""Close a pick: in-flight, breaker, latency estimate. first_us: time to first response byte, 0 when there was none.
Clears pick.member."""

cdef void select_settle(selector_t *s, const service_t *service, pick_t *pick, int outcome, int status,
                        uint64_t first_us, uint64_t now_us) noexcept nogil
"""Teach breaker and latency estimate the outcome of a pick that stays open: a tunnel stands and may stand for hours.
What select_release says of it later teaches nothing more."""

cdef void select_tell(selector_t *s, uint32_t slot, uint32_t generation, int outcome, uint64_t now_us) noexcept nogil
"""The same of an endpoint for which no pick is open: what came of a datagram whose pick was closed long ago."""

cdef uint64_t hash_bytes(const char *p, uint32_t n) noexcept nogil
"""The engine's key hash: low 64 bits of MurmurHash3 x64 128, seed 0; equal to mmh3.hash64(..., signed=False)[0]."""
