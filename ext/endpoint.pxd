"""A worker's side of an endpoint: its address and its idle connections, most recently used first.

An idle connection with anything to read is dead: data nobody asked for, or the end of the stream.
"""

from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memcpy
from turnout.ext.core cimport conn_t, core_t, endpoint_t
from turnout.ext.snapshot cimport member_t, service_t, snapshot_t

cdef endpoint_t *endpoint_get(core_t *core, const member_t *member) noexcept nogil
"""This worker's endpoint for a member; NULL when memory is out."""
cdef conn_t *endpoint_reuse(core_t *core, endpoint_t *e, bint datagrams, bint careful) noexcept nogil
"""An idle connection taken out of the pool, NULL when there is none. `careful`: ask the kernel whether it is still
good (for requests that must not be sent twice)."""
cdef conn_t *endpoint_connect(core_t *core, endpoint_t *e, const member_t *member, bint datagrams, bint *refused) noexcept nogil
"""A new connection on its way; writing to it at once is allowed. NULL when it cannot be: *refused is set when that is
the endpoint's doing, left alone when this process is out of descriptors, ports or memory."""
cdef void endpoint_keep(core_t *core, endpoint_t *e, conn_t *u, const service_t *service) noexcept nogil
"""Put a connection into the pool, or close it when the pool is full, the endpoint gone or the connection spent."""
cdef void endpoint_close(core_t *core, conn_t *u) noexcept nogil
"""Close an upstream connection, pooled or not."""
cdef void endpoint_discard(core_t *core, conn_t *u) noexcept nogil
"""Close a pooled connection that is no good any more. A socket for datagrams says what became of the last one: an ICMP error
or an answer, and the breaker hears of it."""
cdef inline uint64_t endpoint_since_ms(const conn_t *u) noexcept nogil:
    """When a socket for datagrams was opened."""
    cdef uint64_t ms
    memcpy(&ms, u.address, sizeof(ms))
    return ms
cdef void endpoint_free(core_t *core, endpoint_t *e) noexcept nogil
"""Close its idle connections and free it; the others must have been closed."""
cdef void endpoints_adopt(core_t *core, const snapshot_t *snap) noexcept nogil
"""Endpoints that the snapshot no longer has lose their idle connections."""
