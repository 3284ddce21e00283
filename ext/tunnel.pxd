"""Tunnels: bytes pass both ways as they come, until both ends are done.

Out of an upgrade that the endpoint accepted with 101, out of a connection to a TCP listener, and, with datagrams in place of
bytes (datagram.pxd moves them), out of a UDP session. A tunnel is an
exchange in XS_TUNNEL: in flight at its endpoint, limited, drained, counted and logged like any other. Its two streams are
of kind BODY_CLOSE; an end on one side is passed on to the other and the rest of the tunnel stays (half-close). One
timer, the client's: idle time, or the moment by which the tunnel has to be gone.
"""

from libc.stdint cimport int64_t
from turnout.ext.core cimport core_t, exch_t
from turnout.ext.headers cimport head_t
from turnout.ext.snapshot cimport snapshot_t

cdef void tunnel_upgrade(core_t *core, exch_t *x, const head_t *h, unsigned int used) noexcept nogil
"""The endpoint's 101 (h, `used` bytes at the front of its input) goes to the client, and what follows passes through. What
the client sent behind its request head was held back until now."""

cdef void tunnel_open(core_t *core, exch_t *x) noexcept nogil
"""The endpoint of a TCP connection is connected: what was read of the client goes there first."""

cdef void tunnel_run(core_t *core, exch_t *x) noexcept nogil
"""Move what can be moved either way."""

cdef void tunnel_timeout(core_t *core, exch_t *x) noexcept nogil

cdef void tunnel_deadline(core_t *core, exch_t *x) noexcept nogil
"""Something has passed: the idle time begins anew."""

cdef void tunnel_end(core_t *core, exch_t *x, int outcome, int cause, const char *reason, bint reset) noexcept nogil
"""`reset`: one side broke, the other is told by the same. `reason` is static storage."""

cdef void tunnels_retire(core_t *core, int64_t listener) noexcept nogil
"""The worker drains (-1), or a listener goes: each of its tunnels may come to its own end for half of its service's
tunnel_drain_ms, and is closed at a moment of its own in the other half, so that clients do not all come back at once."""

cdef void tunnels_adopt(core_t *core, snapshot_t *snap) noexcept nogil
"""Tunnels go on under a new snapshot; those whose listener, route or endpoint it does not have are retired."""
