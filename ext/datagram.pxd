"""UDP: sessions by client address, and datagrams without one.

A session is an exchange in XS_TUNNEL like a TCP connection's: picked once, in flight at its endpoint, limited, retired,
counted and logged the same way. Its client is a conn_t without a descriptor (CF_DATAGRAM) that holds address, port and timer;
its upstream connection is a connected UDP socket of its own, so that an ICMP error is known to be this endpoint's. It ends when
nothing passes for the service's session_ms, or after as many answers as the listener says.

    listener socket --recvmmsg--> by source: session --sendmmsg--> endpoint's socket
    endpoint's socket --recvmmsg--> answers of all sessions of a turn --sendmmsg--> listener socket

A listener without sessions picks an endpoint for each datagram, over pooled sockets, and passes no answers back. An ICMP error
that comes when the datagram is long on its way is told to the breaker by whoever finds it (endpoint.pyx).
Sessions of a worker stand in a hash table (sessions.pxd), so no datagram allocates. What the kernel does not take at once is
dropped and counted, as on any network. Neighbours in a batch that go to one peer leave as one message (packets.pxd).
"""

from libc.stdint cimport uint32_t
from turnout.ext.core cimport conn_t, core_t, exch_t

cdef enum:
    DATAGRAM_MAX = 65536      # bytes
    DATAGRAMS = 64            # in one batch

cdef int datagram_listen(core_t *core, conn_t *l) noexcept nogil
"""Get ready to read from a UDP listener's socket; -1: no memory."""
cdef void datagram_linger(core_t *core, conn_t *l) noexcept nogil
"""Take no new senders. The sessions there are go on over the socket until the last of them ends; then it closes."""
cdef void datagram_deaf(core_t *core, conn_t *l) noexcept nogil
"""The same when somebody else reads from the socket: what clients send is theirs from here on, only answers still go out."""
cdef void datagram_event(core_t *core, conn_t *l) noexcept nogil
"""Datagrams of clients wait."""
cdef void datagram_bound(core_t *core, exch_t *x) noexcept nogil
"""The session has its endpoint and a socket to it."""
cdef void datagram_answer(core_t *core, exch_t *x) noexcept nogil
"""Answers, or an error, wait at the endpoint's socket."""
cdef void datagram_forget(core_t *core, conn_t *c) noexcept nogil
"""The session's client is being closed."""
cdef void datagram_flush(core_t *core) noexcept nogil
"""Send what answers were gathered; at the end of each turn."""
cdef void datagrams_free(core_t *core) noexcept nogil
