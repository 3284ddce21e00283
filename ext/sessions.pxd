"""The table of a worker's UDP sessions, by the listener and the source of their datagrams.

Open addressing with linear probing, at most half full, grown by doubling. Places come from SipHash under a key of the
table's own, so that senders cannot choose sources that stand in each other's way. A session is the conn_t of its client,
which the table does not own; its listener stands in `endpoint`, the scope of its address in `owner`.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from turnout.ext.core cimport conn_t

# Where a datagram came from.
cdef struct source_t:
    uint8_t address[16]       # IPv4 mapped into IPv6
    uint32_t scope            # interface of a link-local address, else 0
    uint16_t port

cdef struct sessions_t:
    conn_t **table
    uint32_t places           # a power of two
    uint32_t n
    uint64_t key[2]

cdef inline conn_t *via(const conn_t *c) noexcept nogil:
    """The listener of a session."""
    return <conn_t *>c.endpoint

cdef int sessions_open(sessions_t *s) noexcept nogil
"""Empty, under a random key; -1: no memory."""
cdef void sessions_close(sessions_t *s) noexcept nogil
cdef conn_t *sessions_find(const sessions_t *s, const conn_t *l, const source_t *from_) noexcept nogil
cdef bint sessions_add(sessions_t *s, conn_t *c) noexcept nogil
"""c has its listener and source, and no other session has the same. False: no memory."""
cdef void sessions_drop(sessions_t *s, const conn_t *c) noexcept nogil
"""Nothing when it is not there."""
