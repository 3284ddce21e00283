"""See endpoint.pxd."""

from libc.stdint cimport int32_t, uint32_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy
from turnout.ext.conn cimport conn_close, conn_deadline, conn_new, conn_quiet, conn_watch
from turnout.ext.core cimport (
    CF_DATAGRAM, CF_DEAD, CF_PEER_SHUT, CF_READABLE, CF_REUSED, CONN_UPSTREAM, CS_BUSY, CS_CONNECTING, CS_POOLED, conn_t,
    core_t, endpoint_t,
)
from turnout.ext.kernel cimport (
    AF_UNIX, EADDRNOTAVAIL, EINPROGRESS, ENOBUFS, ENOMEM, EPOLLOUT, IPPROTO_TCP, SO_ERROR, SOCK_CLOEXEC, SOCK_DGRAM, SOCK_NONBLOCK,
    SOCK_STREAM, SOL_SOCKET, TCP_NODELAY, close, connect, errno, getsockopt, setsockopt, sockaddr, socket, socklen_t,
)
from turnout.ext.openssl cimport SSL_CTX, openssl
from turnout.ext.packets cimport endpoint_gone
from turnout.ext.scoreboard cimport OUT_1XX, OUT_CONNECT
from turnout.ext.select cimport select_tell
from turnout.ext.snapshot cimport member_t, service_t, snapshot_t
from turnout.ext.tls cimport tls_connect, tls_context


cdef endpoint_t *endpoint_get(core_t *core, const member_t *member) noexcept nogil:
    cdef endpoint_t *e = core.endpoints[member.slot]
    if e != NULL and e.generation == member.generation:
        if e.ctx != member.ctx:
            use_context(core, e, member.ctx)
        return e
    if member.address_len > sizeof(e.address):
        return NULL
    if e == NULL:
        e = <endpoint_t *>calloc(1, sizeof(endpoint_t))
        if e == NULL:
            return NULL
        core.endpoints[member.slot] = e
    use_context(core, e, member.ctx)
    e.slot = member.slot
    e.generation = member.generation
    e.gone = 0
    e.address_len = <unsigned short>member.address_len
    memcpy(e.address, member.address, member.address_len)
    return e


cdef void use_context(core_t *core, endpoint_t *e, SSL_CTX *ctx) noexcept nogil:
    """What comes is made with ctx (NULL: plain); what is kept of before is not used any more."""
    pool_drop(core, e)
    if e.session != NULL:
        openssl.SSL_SESSION_free(e.session)
        e.session = NULL
    if e.ctx != NULL:
        openssl.SSL_CTX_free(e.ctx)
    if ctx != NULL:
        openssl.SSL_CTX_up_ref(ctx)
    e.ctx = ctx


cdef void endpoint_free(core_t *core, endpoint_t *e) noexcept nogil:
    use_context(core, e, NULL)
    free(e)


cdef void pool_unlink(endpoint_t *e, conn_t *u) noexcept nogil:
    if u.prev != NULL:
        u.prev.next = u.next
    else:
        e.idle = u.next
    if u.next != NULL:
        u.next.prev = u.prev
    else:
        e.idle_last = u.prev
    u.next = NULL
    u.prev = NULL
    e.n_idle -= 1


cdef void pool_drop(core_t *core, endpoint_t *e) noexcept nogil:
    while e.idle != NULL:
        endpoint_close(core, e.idle)


cdef void count_open(core_t *core, endpoint_t *e) noexcept nogil:
    core.sb.epstat[core.sb.me][e.slot].open = e.n_open
    core.sb.epstat[core.sb.me][e.slot].idle = e.n_idle
    core.sb.slab[core.sb.me].upstreams = core.n_upstreams


cdef bint spent(conn_t *u, bint careful) noexcept nogil:
    """Whether a pooled connection, or one that is to be pooled, is no good."""
    if u.flags & CF_DATAGRAM:
        return u.flags & (CF_READABLE | CF_DEAD) != 0
    return u.flags & (CF_PEER_SHUT | CF_DEAD) or ((careful or u.flags & CF_READABLE) and not conn_quiet(u))


cdef conn_t *endpoint_reuse(core_t *core, endpoint_t *e, bint datagrams, bint careful) noexcept nogil:
    cdef conn_t *u
    while e.idle != NULL:
        u = e.idle
        # Readable may be an edge older than the last read: only a look tells. And what comes to the service may have
        # changed from connections to datagrams.
        if (u.flags & CF_DATAGRAM != 0) != datagrams or spent(u, careful):
            endpoint_discard(core, u)
            continue
        u.flags &= ~<uint32_t>CF_READABLE
        pool_unlink(e, u)
        u.state = CS_BUSY
        u.flags |= CF_REUSED
        return u
    return NULL


cdef conn_t *endpoint_connect(core_t *core, endpoint_t *e, const member_t *member, bint datagrams, bint *refused) noexcept nogil:
    cdef const sockaddr *address = <const sockaddr *>e.address
    cdef int one = 1
    cdef int fd = socket(address.sa_family, (SOCK_DGRAM if datagrams else SOCK_STREAM) | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)
    cdef conn_t *u
    if fd < 0:
        return NULL
    if address.sa_family != AF_UNIX and not datagrams:
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one))
    if connect(fd, address, e.address_len) < 0 and errno != EINPROGRESS:
        refused[0] = errno != EADDRNOTAVAIL and errno != ENOBUFS and errno != ENOMEM
        close(fd)
        return NULL
    u = conn_new(core, fd, CONN_UPSTREAM)
    if u == NULL:
        close(fd)
        return NULL
    if (member.ctx != NULL and not tls_connect(core, u, member.ctx, member.tls_name.p, member.tls_ip, e.session)
            or not conn_watch(core, u, 0 if datagrams else <uint32_t>EPOLLOUT)):
        conn_close(core, u)
        return NULL
    if datagrams:
        u.flags |= CF_DATAGRAM
        memcpy(u.address, &core.now_ms, sizeof(core.now_ms))
    u.endpoint = e
    u.owner = e.generation
    u.state = CS_CONNECTING
    e.n_open += 1
    core.n_upstreams += 1
    count_open(core, e)
    return u


cdef void endpoint_keep(core_t *core, endpoint_t *e, conn_t *u, const service_t *service) noexcept nogil:
    u.served += 1
    # The slot may have gone to another endpoint meanwhile, which has another address; or TLS is another by now.
    if (e.gone or u.owner != e.generation or tls_context(u) != e.ctx or core.draining or service.proxy_version
            or e.n_idle >= service.pool_max or u.inb != NULL
            or (service.pool_requests and u.served >= service.pool_requests) or spent(u, False)):
        endpoint_discard(core, u)
        return
    u.flags &= ~<uint32_t>CF_READABLE
    u.state = CS_POOLED
    u.x = NULL
    u.prev = NULL
    u.next = e.idle
    if e.idle != NULL:
        e.idle.prev = u
    else:
        e.idle_last = u
    e.idle = u
    e.n_idle += 1
    core.sb.epstat[core.sb.me][e.slot].idle = e.n_idle
    conn_deadline(core, u, service.pool_idle_ms)


cdef void endpoint_close(core_t *core, conn_t *u) noexcept nogil:
    cdef endpoint_t *e = u.endpoint
    if u.state == CS_POOLED:
        pool_unlink(e, u)
    e.n_open -= 1
    core.n_upstreams -= 1
    conn_close(core, u)
    count_open(core, e)


cdef void endpoint_discard(core_t *core, conn_t *u) noexcept nogil:
    cdef int why = 0
    cdef socklen_t n = sizeof(why)
    if u.flags & CF_DATAGRAM and u.flags & (CF_READABLE | CF_DEAD):
        getsockopt(u.fd, SOL_SOCKET, SO_ERROR, &why, &n)
        if why == 0 or endpoint_gone(why):
            select_tell(core.selector, u.endpoint.slot, u.owner, OUT_CONNECT if why else OUT_1XX, core.now_us)
    endpoint_close(core, u)


cdef void endpoints_adopt(core_t *core, const snapshot_t *snap) noexcept nogil:
    cdef uint32_t i, k
    cdef const member_t *m
    cdef endpoint_t *e
    for i in range(core.sb.endpoints):
        if core.endpoints[i] != NULL:
            core.endpoints[i].gone = 1
    for i in range(snap.n_services):
        for k in range(snap.services[i].n_members):
            m = &snap.services[i].members[k]
            e = core.endpoints[m.slot]
            if e != NULL and e.generation == m.generation:
                e.gone = 0
    for i in range(core.sb.endpoints):
        if core.endpoints[i] != NULL and core.endpoints[i].gone:
            use_context(core, core.endpoints[i], NULL)
