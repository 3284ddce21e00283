"""The client side of an exchange: from bytes to a request, its route, and on to selection.

A client connection is IDLE, then HEAD while a request head comes in, then EXCHANGE until it is answered, and IDLE again.
Pipelined requests wait in its input buffer; nothing is read while an exchange runs, except its body.
"""

from turnout.ext.core cimport conn_t, core_t, exch_t
from turnout.ext.snapshot cimport listener_t

cdef void client_event(core_t *core, conn_t *c) noexcept nogil
"""Something happened at a client connection (flags are up to date), or its turn in the run queue has come."""
cdef void client_timeout(core_t *core, conn_t *c) noexcept nogil
cdef void exchange_open(core_t *core, conn_t *c, exch_t *x, const listener_t *listener) noexcept nogil
"""Bind a new exchange to its connection and to the snapshot in force. x.req is the caller's matter."""
cdef void exchange_select(core_t *core, exch_t *x) noexcept nogil
"""x.route leads to a service: go on to an endpoint of it. May end the exchange."""
cdef void client_cut(core_t *core, conn_t *c) noexcept nogil
"""Close it whatever it does; an exchange counts as cancelled by the proxy."""
