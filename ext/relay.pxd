"""TCP listeners: from an accepted connection to an exchange without HTTP.

    accepted -> [TLS handshake, or ClientHello when routes of the listener name hosts] -> route -> selection -> connect
        -> [TLS handshake] -> tunnel

A failed connect is tried at another endpoint like a request's: nothing was sent. The server name is that of the handshake where the listener has
TLS, else it is read, not decrypted; a connection without one, or without TLS, takes the route without a host.
"""

from turnout.ext.core cimport conn_t, core_t, exch_t
from turnout.ext.snapshot cimport listener_t

cdef void relay_event(core_t *core, conn_t *c) noexcept nogil
"""Something happened at the client of a TCP listener that has no exchange yet."""

cdef void relay_datagrams(core_t *core, conn_t *c, const listener_t *listener) noexcept nogil
"""The client of a UDP session goes the same way. Closed when it has no route or endpoint."""

cdef void relay_dialled(core_t *core, exch_t *x) noexcept nogil
"""Something happened at the connection to the endpoint (flags are up to date)."""
