"""Listening sockets of one worker."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t
from turnout.ext.core cimport conn_t, core_t
from turnout.ext.kernel cimport sockaddr

cdef void listener_event(core_t *core, conn_t *l) noexcept nogil
"""Accept what waits, a bounded number at a time; each new connection reads at once."""
cdef void listener_pause(core_t *core, conn_t *l) noexcept nogil
"""Leave connections in the accept queue: out of descriptors, or at the listener's limit."""
cdef void listener_resume(core_t *core, conn_t *l) noexcept nogil
cdef bint listener_full(core_t *core, conn_t *l) noexcept nogil
"""Whether the listener's connection limit, over all workers, is reached."""
cdef void client_enter(core_t *core, conn_t *c, uint16_t listener) noexcept nogil
"""A new client of a listener: into the list of clients, and counted. client_close takes it out."""
cdef uint16_t peer_address(const sockaddr *from_, uint8_t *address) noexcept nogil
"""The port of a socket address; its 16 bytes of address, IPv4 mapped, go to `address`. All zero for a unix socket."""
cdef int socket_family(int fd) noexcept nogil
"""AF_INET, AF_INET6 or AF_UNIX."""
