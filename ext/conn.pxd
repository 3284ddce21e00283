"""Connections: the slab they live in, their place in the epoll set, the one way to read and the one way to write.

Edge-triggered throughout: an event sets a flag, the flag is cleared by the read or write that finds the end. A
descriptor is added to the set once; EPOLLOUT is asked for only after the kernel first took less than it was given.
Every socket read and write of the engine goes through conn_recv and conn_send, plain or over TLS (tls.pxd), or, where bytes
pass on as they are between plain connections, through conn_splice_in and conn_splice_out.
"""

from libc.stdint cimport int32_t, uint32_t, uint64_t
from turnout.ext.buffers cimport buf_t
from turnout.ext.core cimport conn_t, core_t
from turnout.ext.timers cimport wheel_arm, wheel_disarm

cdef enum:
    IO_BLOCKED = -1           # nothing now; an edge will come
    IO_ERROR = -2             # broken for good
    IO_PLAIN = -3             # plain HTTP where TLS was expected
    IO_COPY = -4              # no splice from here: the bytes have to be read

cdef int conn_slab_grow(core_t *core) noexcept nogil
cdef conn_t *conn_new(core_t *core, int32_t fd, int kind) noexcept nogil
"""Takes over fd; NULL (fd still the caller's) when memory is out."""
cdef void conn_close(core_t *core, conn_t *c) noexcept nogil
"""Close the descriptor, give its buffer back and free the place. Its exchange and lists are the caller's matter."""
cdef bint conn_watch(core_t *core, conn_t *c, uint32_t extra) noexcept nogil
"""Add to the epoll set; `extra` e.g. EPOLLOUT while connecting. False when the kernel refuses."""
cdef conn_t *conn_of_event(core_t *core, uint64_t data) noexcept nogil
"""The connection an event is for; NULL when that descriptor has been closed since (counted in stale_events)."""

cdef int conn_recv(conn_t *c, char *p, uint32_t n) noexcept nogil
"""Bytes read, 0 at the end of the stream, IO_BLOCKED or IO_ERROR. IO_PLAIN from a client whose first bytes on a TLS
connection were plain HTTP: the connection is plain from then on."""
cdef int conn_send(core_t *core, conn_t *c, const char *p, uint32_t n, bint more) noexcept nogil
"""Bytes taken (fewer than n: the rest waits for an edge), IO_BLOCKED or IO_ERROR. `more`: another send, a shutdown or
a close follows at once, and may share a packet with these bytes."""
cdef int conn_splice_in(conn_t *c, buf_t *b, uint32_t n) noexcept nogil
"""As conn_recv, up to n bytes of a plain connection into an empty pipe; or IO_COPY. A short read says nothing about what is
left in the socket."""
cdef int conn_splice_out(core_t *core, conn_t *c, buf_t *b, bint more) noexcept nogil
"""As conn_send, from a pipe to a plain connection; b is left as it was."""
cdef void conn_deafen(core_t *core, conn_t *c) noexcept nogil
"""Until conn_hear no event says that bytes have come. Ends and errors are told as ever."""
cdef void conn_hear(core_t *core, conn_t *c) noexcept nogil
"""Undo conn_deafen, if it was done. An edge comes for what has come meanwhile."""
cdef void conn_reset_on_close(conn_t *c) noexcept nogil
"""Closing sends a reset instead of a clean end: for whoever counts on the end being clean, only that tells."""
cdef bint conn_broken(conn_t *c) noexcept nogil
"""Whether a connection that epoll calls dead had an error, rather than an end on both sides. Takes the error away."""
cdef bint conn_quiet(conn_t *c) noexcept nogil
"""Whether an idle connection is still good: no byte, no end waiting in the kernel (one MSG_PEEK)."""
cdef int conn_end(conn_t *c) noexcept nogil
"""Tell the peer that nothing more comes; what it sends can still be read. -1: the connection is broken."""
cdef void conn_edges(conn_t *c, uint32_t events) noexcept nogil
"""Set the flags of a connection from what epoll said."""

cdef void conn_ready(core_t *core, conn_t *c) noexcept nogil
"""Put into the run queue of this turn, once."""
cdef conn_t *conn_next_ready(core_t *core) noexcept nogil

cdef inline bint client_leaves(const core_t *core, const conn_t *c) noexcept nogil:
    """Whether a client's connection ends with its exchange: the worker drains, or the listener goes."""
    return core.draining or core.retired[c.listener]

cdef inline void conn_deadline(core_t *core, conn_t *c, uint64_t ms) noexcept nogil:
    """Fire the connection's timer this many milliseconds from now; 0: never."""
    if ms:
        wheel_arm(&core.wheel, &c.timer, core.now_ms + ms)
    else:
        wheel_disarm(&c.timer)
