"""See conn.pxd."""

from libc.stdint cimport int32_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, realloc
from turnout.ext.buffers cimport buf_give, buf_left, buf_t
from turnout.ext.core cimport (
    CF_BLOCKED, CF_DEAD, CF_DEAF, CF_OUT_ARMED, CF_PEER_SHUT, CF_READABLE, CF_READY, CF_WATCHED, CONN_FREE, SLAB_CONNS,
    conn_t, core_t,
)
from turnout.ext.kernel cimport (
    EAGAIN, EINTR, EINVAL, ENOMEM, ENOSYS, EPERM, EPOLLERR, EPOLLET, EPOLLHUP, EPOLLIN, EPOLLOUT, EPOLLRDHUP, EPOLL_CTL_ADD, EPOLL_CTL_MOD,
    MSG_DONTWAIT, MSG_MORE, MSG_NOSIGNAL, MSG_PEEK, SHUT_WR, SOL_SOCKET, SO_ERROR, SO_LINGER, close, epoll_ctl,
    SPLICE_F_MORE, SPLICE_F_MOVE, SPLICE_F_NONBLOCK,
    epoll_event, errno, getsockopt, linger_t, recv, send, setsockopt, shutdown, socklen_t, splice,
)
from turnout.ext.timers cimport wheel_drop
from turnout.ext.tls cimport tls_close, tls_edges, tls_end, tls_quiet, tls_recv, tls_send


cdef int conn_slab_grow(core_t *core) noexcept nogil:
    cdef conn_t **slab = <conn_t **>realloc(core.slab, (core.n_slab + 1) * sizeof(conn_t *))
    cdef conn_t *chunk
    cdef uint32_t i
    if slab == NULL:
        return -1
    core.slab = slab
    chunk = <conn_t *>calloc(SLAB_CONNS, sizeof(conn_t))
    if chunk == NULL:
        return -1
    slab[core.n_slab] = chunk
    for i in range(SLAB_CONNS):
        chunk[i].fd = -1
        chunk[i].index = core.n_slab * SLAB_CONNS + i
        chunk[i].next = &chunk[i + 1] if i + 1 < SLAB_CONNS else core.free_conns
    core.free_conns = chunk
    core.n_slab += 1
    return 0


cdef conn_t *conn_new(core_t *core, int32_t fd, int kind) noexcept nogil:
    cdef conn_t *c
    if core.free_conns == NULL and conn_slab_grow(core) < 0:
        return NULL
    c = core.free_conns
    core.free_conns = c.next
    c.fd = fd
    c.kind = kind
    c.next = NULL
    return c


cdef void conn_close(core_t *core, conn_t *c) noexcept nogil:
    if c.inb != NULL:
        buf_give(&core.buffers, c.inb)
        c.inb = NULL
    if c.tls != NULL:
        tls_close(c)
    wheel_drop(&core.wheel, &c.timer)
    if c.flags & CF_READY:
        ready_unlink(core, c)
    if c.fd >= 0:
        close(c.fd)
    c.fd = -1
    c.kind = CONN_FREE
    c.state = 0
    c.flags = 0
    c.served = 0
    c.generation += 1
    c.x = NULL
    c.endpoint = NULL
    c.prev = NULL
    c.next = core.free_conns
    core.free_conns = c


cdef void ready_unlink(core_t *core, conn_t *c) noexcept nogil:
    cdef conn_t *before = NULL
    cdef conn_t *at = core.ready
    while at != NULL and at != c:
        before = at
        at = at.ready_next
    if at == NULL:
        return
    if before == NULL:
        core.ready = c.ready_next
    else:
        before.ready_next = c.ready_next
    if core.ready_last == c:
        core.ready_last = before
    core.n_ready -= 1
    c.ready_next = NULL


cdef bint conn_watch(core_t *core, conn_t *c, uint32_t extra) noexcept nogil:
    cdef epoll_event event
    event.events = <uint32_t>EPOLLIN | <uint32_t>EPOLLRDHUP | EPOLLET | extra
    event.data.u64 = (<uint64_t>c.generation << 32) | c.index
    if epoll_ctl(core.epfd, EPOLL_CTL_ADD, c.fd, &event) < 0:
        return False
    c.flags |= CF_WATCHED
    if extra & <uint32_t>EPOLLOUT:
        c.flags |= CF_OUT_ARMED
    return True


cdef void watch_anew(core_t *core, conn_t *c) noexcept nogil:
    """Bring the interest set up to the flags. What is there already comes as an edge again."""
    cdef epoll_event event
    event.events = <uint32_t>EPOLLRDHUP | EPOLLET
    if not c.flags & CF_DEAF:
        event.events |= <uint32_t>EPOLLIN
    if c.flags & CF_OUT_ARMED:
        event.events |= <uint32_t>EPOLLOUT
    event.data.u64 = (<uint64_t>c.generation << 32) | c.index
    epoll_ctl(core.epfd, EPOLL_CTL_MOD, c.fd, &event)


cdef void arm_out(core_t *core, conn_t *c) noexcept nogil:
    if not c.flags & CF_OUT_ARMED and c.flags & CF_WATCHED:
        c.flags |= CF_OUT_ARMED
        watch_anew(core, c)


cdef void conn_deafen(core_t *core, conn_t *c) noexcept nogil:
    if not c.flags & CF_DEAF and c.flags & CF_WATCHED:
        c.flags |= CF_DEAF
        watch_anew(core, c)


cdef void conn_hear(core_t *core, conn_t *c) noexcept nogil:
    if c.flags & CF_DEAF:
        c.flags &= ~<uint32_t>CF_DEAF
        watch_anew(core, c)


cdef conn_t *conn_of_event(core_t *core, uint64_t data) noexcept nogil:
    cdef uint32_t index = <uint32_t>data
    cdef conn_t *c = &core.slab[index // SLAB_CONNS][index % SLAB_CONNS]
    if c.generation != <uint32_t>(data >> 32) or c.kind == CONN_FREE:
        core.sb.slab[core.sb.me].stale_events += 1
        return NULL
    return c


cdef int conn_recv(conn_t *c, char *p, uint32_t n) noexcept nogil:
    cdef ssize_t got
    if c.tls != NULL:
        return tls_recv(c, p, n)
    while True:
        got = recv(c.fd, p, n, 0)
        if got > 0:
            # A short read drained the socket; the end of the stream, if seen, still has to be read.
            if <uint32_t>got < n and not c.flags & (CF_PEER_SHUT | CF_DEAD):
                c.flags &= ~<uint32_t>CF_READABLE
            return <int>got
        if got == 0:
            c.flags |= CF_PEER_SHUT
            return 0
        if errno == EINTR:
            continue
        c.flags &= ~<uint32_t>CF_READABLE
        if errno == EAGAIN:
            return IO_BLOCKED
        c.flags |= CF_DEAD
        return IO_ERROR


cdef int conn_send(core_t *core, conn_t *c, const char *p, uint32_t n, bint more) noexcept nogil:
    cdef int flags = MSG_NOSIGNAL | MSG_MORE if more else MSG_NOSIGNAL
    cdef ssize_t put
    if c.tls != NULL:
        return tls_send(c, p, n, more)
    while True:
        put = send(c.fd, p, n, flags)
        if put >= 0:
            if <uint32_t>put < n:
                c.flags |= CF_BLOCKED
                arm_out(core, c)
            return <int>put
        if errno == EINTR:
            continue
        if errno == EAGAIN:
            c.flags |= CF_BLOCKED
            arm_out(core, c)
            return IO_BLOCKED
        c.flags |= CF_DEAD
        return IO_ERROR


cdef int conn_splice_in(conn_t *c, buf_t *b, uint32_t n) noexcept nogil:
    cdef ssize_t got
    while True:
        got = splice(c.fd, NULL, b.pipe_in, NULL, n, SPLICE_F_MOVE | SPLICE_F_NONBLOCK)
        if got > 0:
            return <int>got
        if got == 0:
            c.flags |= CF_PEER_SHUT
            return 0
        if errno == EINTR:
            continue
        if errno == EINVAL or errno == ENOSYS or errno == EPERM or errno == ENOMEM:
            return IO_COPY
        c.flags &= ~<uint32_t>CF_READABLE
        if errno == EAGAIN:
            return IO_BLOCKED
        c.flags |= CF_DEAD
        return IO_ERROR


cdef int conn_splice_out(core_t *core, conn_t *c, buf_t *b, bint more) noexcept nogil:
    """Until the socket says itself that it is full: a short splice may have other reasons. SIGPIPE is ignored (Python does
    that), since there is no flag against it."""
    cdef unsigned int flags = SPLICE_F_MOVE | SPLICE_F_NONBLOCK | (SPLICE_F_MORE if more else 0)
    cdef uint32_t total = 0
    cdef ssize_t put
    while total < buf_left(b):
        put = splice(b.pipe_out, NULL, c.fd, NULL, buf_left(b) - total, flags)
        if put > 0:
            total += <uint32_t>put
        elif put < 0 and errno == EINTR:
            continue
        elif put < 0 and errno == EAGAIN:
            c.flags |= CF_BLOCKED
            arm_out(core, c)
            return <int>total if total else IO_BLOCKED
        else:
            c.flags |= CF_DEAD
            return IO_ERROR
    return <int>total


cdef void conn_reset_on_close(conn_t *c) noexcept nogil:
    cdef linger_t reset
    reset.l_onoff = 1
    reset.l_linger = 0
    setsockopt(c.fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset))


cdef bint conn_broken(conn_t *c) noexcept nogil:
    cdef int why = 0
    cdef socklen_t n = sizeof(why)
    return c.flags & CF_DEAD and getsockopt(c.fd, SOL_SOCKET, SO_ERROR, &why, &n) == 0 and why != 0


cdef bint conn_quiet(conn_t *c) noexcept nogil:
    cdef char byte
    cdef ssize_t got
    if c.tls != NULL:
        return tls_quiet(c)
    got = recv(c.fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT)
    return got < 0 and errno == EAGAIN


cdef int conn_end(conn_t *c) noexcept nogil:
    if c.tls != NULL:
        tls_end(c)
    return shutdown(c.fd, SHUT_WR)


cdef void conn_edges(conn_t *c, uint32_t events) noexcept nogil:
    if events & <uint32_t>EPOLLIN:
        c.flags |= CF_READABLE
    if events & <uint32_t>EPOLLOUT:
        c.flags &= ~<uint32_t>CF_BLOCKED
    if events & <uint32_t>EPOLLRDHUP:
        c.flags |= CF_PEER_SHUT | CF_READABLE
    if events & <uint32_t>(EPOLLHUP | EPOLLERR):
        c.flags |= CF_DEAD | CF_READABLE
    if c.tls != NULL:
        tls_edges(c, events)


cdef void conn_ready(core_t *core, conn_t *c) noexcept nogil:
    if c.flags & CF_READY:
        return
    c.flags |= CF_READY
    c.ready_next = NULL
    if core.ready_last != NULL:
        core.ready_last.ready_next = c
    else:
        core.ready = c
    core.ready_last = c
    core.n_ready += 1


cdef conn_t *conn_next_ready(core_t *core) noexcept nogil:
    cdef conn_t *c = core.ready
    if c == NULL:
        return NULL
    core.ready = c.ready_next
    if core.ready == NULL:
        core.ready_last = NULL
    core.n_ready -= 1
    c.ready_next = NULL
    c.flags &= ~<uint32_t>CF_READY
    return c


def _sizes():
    """Test access: bytes of the structs whose size is promised."""
    return {"conn_t": sizeof(conn_t)}
