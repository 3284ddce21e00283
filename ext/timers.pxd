"""Timer wheel: coarse, intrusive, lazily extended.

A node lives inside its owner (a connection), so arming never allocates. Moving a deadline later only stores it; the
node is put where it belongs when the wheel reaches its old slot. Two levels of 256 slots, tick 16 ms: 4 s exactly,
17 min by cascading, later deadlines wait in the last slot.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

cdef enum:
    TICK_MS = 16
    WHEEL_SLOTS = 256

cdef struct timer_node_t:
    timer_node_t *next        # NULL: not in the wheel
    timer_node_t *prev
    uint32_t deadline         # tick; 0: disarmed (a disarmed node may still stand in the wheel)
    uint32_t slot             # tick of the slot it stands in

cdef struct timer_wheel_t:
    timer_node_t near[WHEEL_SLOTS]     # list heads
    timer_node_t far[WHEEL_SLOTS]
    uint32_t tick             # current tick; starts at 1
    uint32_t armed            # nodes in the wheel

ctypedef void (*timer_fire_t)(void *context, timer_node_t *node) noexcept nogil

cdef void wheel_init(timer_wheel_t *w, uint64_t now_ms) noexcept nogil
cdef void wheel_arm(timer_wheel_t *w, timer_node_t *node, uint64_t deadline_ms) noexcept nogil
"""Fire at or within one tick after deadline_ms (same clock as wheel_advance)."""
cdef void wheel_drop(timer_wheel_t *w, timer_node_t *node) noexcept nogil
"""Take the node out; must be called before its owner's memory is given back."""
cdef void wheel_advance(timer_wheel_t *w, uint64_t now_ms, timer_fire_t fire, void *context) noexcept nogil
"""Fire all due nodes. `fire` may arm and drop any node, its own included."""

cdef inline void wheel_disarm(timer_node_t *node) noexcept nogil:
    node.deadline = 0
