"""See listener.pxd."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset
from turnout.ext.conn cimport conn_close, conn_deadline, conn_new, conn_watch
from turnout.ext.core cimport CF_PROXY, CF_RAW, CF_READABLE, CF_WATCHED, CONN_CLIENT, CS_IDLE, conn_t, core_t
from turnout.ext.exchange cimport client_event
from turnout.ext.kernel cimport (
    AF_INET, AF_INET6, EAGAIN, ECONNABORTED, EINTR, EMFILE, ENFILE, ENOBUFS, ENOMEM, EPOLL_CTL_ADD, EPOLL_CTL_DEL,
    EPOLLEXCLUSIVE, EPOLLIN, EPOLLOUT, SOCK_CLOEXEC, SOCK_NONBLOCK, accept4, close, epoll_ctl, epoll_event, errno,
    getsockname, ntohs,
    sockaddr, sockaddr_in, sockaddr_in6, sockaddr_storage, socklen_t,
)
from turnout.ext.scoreboard cimport sb_load
from turnout.ext.snapshot cimport LISTEN_TCP, listener_t, snapshot_listener
from turnout.ext.tls cimport tls_serve

cdef enum:
    ACCEPTS_PER_TURN = 64


cdef uint16_t peer_address(const sockaddr *from_, uint8_t *address) noexcept nogil:
    cdef const sockaddr_in *v4
    cdef const sockaddr_in6 *v6
    memset(address, 0, 16)
    if from_.sa_family == AF_INET:
        v4 = <const sockaddr_in *>from_
        address[10] = 0xff
        address[11] = 0xff
        memcpy(address + 12, &v4.sin_addr, 4)
        return ntohs(v4.sin_port)
    if from_.sa_family == AF_INET6:
        v6 = <const sockaddr_in6 *>from_
        memcpy(address, &v6.sin6_addr, 16)
        return ntohs(v6.sin6_port)
    return 0


cdef int socket_family(int fd) noexcept nogil:
    cdef sockaddr_storage own
    cdef socklen_t n = sizeof(own)
    memset(&own, 0, sizeof(own))
    getsockname(fd, <sockaddr *>&own, &n)
    return (<sockaddr *>&own).sa_family


cdef bint listener_full(core_t *core, conn_t *l) noexcept nogil:
    cdef const listener_t *conf = snapshot_listener(core.snapshot, l.listener)
    cdef uint64_t open_ = 0
    cdef uint32_t w
    if conf == NULL or conf.connections == 0:
        return False
    for w in range(core.sb.workers):
        open_ += sb_load(&core.sb.listen_open[w][l.listener])
    return open_ >= conf.connections


cdef void listener_pause(core_t *core, conn_t *l) noexcept nogil:
    if l.flags & CF_WATCHED:
        epoll_ctl(core.epfd, EPOLL_CTL_DEL, l.fd, NULL)
        l.flags &= ~<uint32_t>CF_WATCHED
    core.starved = 1


cdef void listener_resume(core_t *core, conn_t *l) noexcept nogil:
    cdef epoll_event event
    if l.flags & CF_WATCHED:
        return
    event.events = <uint32_t>EPOLLIN | <uint32_t>EPOLLEXCLUSIVE
    event.data.u64 = (<uint64_t>l.generation << 32) | l.index
    if epoll_ctl(core.epfd, EPOLL_CTL_ADD, l.fd, &event) == 0:
        l.flags |= CF_WATCHED


cdef void listener_event(core_t *core, conn_t *l) noexcept nogil:
    cdef sockaddr_storage from_
    cdef socklen_t n
    cdef int fd, i
    for i in range(ACCEPTS_PER_TURN):
        if listener_full(core, l):
            listener_pause(core, l)
            return
        n = sizeof(from_)
        fd = accept4(l.fd, <sockaddr *>&from_, &n, SOCK_NONBLOCK | SOCK_CLOEXEC)
        if fd >= 0:
            accepted(core, l, fd, &from_)
        elif errno == EINTR or errno == ECONNABORTED:
            continue
        else:
            if errno == EMFILE or errno == ENFILE or errno == ENOBUFS or errno == ENOMEM:
                listener_pause(core, l)
            return


cdef void accepted(core_t *core, conn_t *l, int fd, const sockaddr_storage *from_) noexcept nogil:
    cdef const listener_t *conf = snapshot_listener(core.snapshot, l.listener)
    cdef conn_t *c = conn_new(core, fd, CONN_CLIENT) if conf != NULL else NULL
    if c == NULL:
        close(fd)
        return
    c.state = CS_IDLE
    if conf.protocol == LISTEN_TCP:
        c.flags |= CF_RAW
    if conf.proxied:
        c.flags |= CF_PROXY
    c.port = peer_address(<const sockaddr *>from_, c.address)
    c.listener = l.listener
    if conf.tls != NULL and not tls_serve(core, c, conf.tls.ctx):
        conn_close(core, c)
        return
    if not conn_watch(core, c, <uint32_t>EPOLLOUT if c.tls != NULL else 0):
        conn_close(core, c)
        return
    client_enter(core, c, l.listener)
    conn_deadline(core, c, conf.header_ms)
    # The request is often there already: one read now saves a turn; the edge comes anyway.
    c.flags |= CF_READABLE
    client_event(core, c)


cdef void client_enter(core_t *core, conn_t *c, uint16_t listener) noexcept nogil:
    c.listener = listener
    c.prev = NULL
    c.next = core.clients
    if core.clients != NULL:
        core.clients.prev = c
    core.clients = c
    core.n_clients += 1
    core.sb.slab[core.sb.me].accepted += 1
    core.sb.slab[core.sb.me].clients = core.n_clients
    core.sb.listen_open[core.sb.me][listener] += 1
