"""Listening sockets of one worker."""

from libc.stdint cimport uint32_t
from turnout.ext.core cimport conn_t, core_t

cdef void listener_event(core_t *core, conn_t *l) noexcept nogil
"""Accept what waits, a bounded number at a time; each new connection reads at once."""
cdef void listener_pause(core_t *core, conn_t *l) noexcept nogil
"""Leave connections in the accept queue: out of descriptors, or at the listener's limit."""
cdef void listener_resume(core_t *core, conn_t *l) noexcept nogil
cdef bint listener_full(core_t *core, conn_t *l) noexcept nogil
"""Whether the listener's connection limit, over all workers, is reached."""
