"""See datagram.pxd."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcmp, memcpy
from turnout.ext.account cimport account_attempt, account_settled
from turnout.ext.conn cimport conn_close, conn_deadline, conn_new, conn_ready
from turnout.ext.core cimport (
    CF_ALONE, CF_DATAGRAM, CF_DEAD, CF_RAW, CF_READABLE, CF_WATCHED, CONN_CLIENT, CS_BUSY, CS_LINGER, SF_ENDED, SF_FLUSHED, XF_ANSWERED,
    XF_CLOSE, XF_SENT, XS_TUNNEL, conn_t, core_t, endpoint_t, exch_t,
)
from turnout.ext.endpoint cimport endpoint_keep, endpoint_since_ms
from turnout.ext.kernel cimport (
    EINTR, EMSGSIZE, EPOLL_CTL_DEL, MSG_DONTWAIT, epoll_ctl, errno, sockaddr,
)
from turnout.ext.listener cimport client_enter, listener_full, peer_address, socket_family
from turnout.ext.packets cimport (
    CONTROL_BYTES, batch_address, batch_forward, batch_local, batch_receive, batch_scope, batch_send, batch_t, endpoint_gone, iovec,
    mmsghdr, recvmmsg, same_name, sockaddr_in6, tell_local,
)
from turnout.ext.relay cimport relay_datagrams
from turnout.ext.respond cimport exchange_slim, respond_finish
from turnout.ext.scoreboard cimport CAUSE_CONNECT, CAUSE_NONE, OUT_1XX, OUT_CONNECT, sb_worker_t
from turnout.ext.select cimport PICK_PROBE, PICK_SETTLED
from turnout.ext.sessions cimport sessions_add, sessions_close, sessions_drop, sessions_find, sessions_open, sessions_t, source_t, via
from turnout.ext.snapshot cimport listener_t, snapshot_listener
from turnout.ext.tunnel cimport tunnel_deadline, tunnel_end

cdef enum:
    ROUNDS = 4                # batches of one socket in one turn; then others have theirs
    ANSWERS = 16              # answers of one session that are read at once
    PROVEN_MS = 1000          # a socket that no ICMP error has reached for so long: somebody is there

# What of a listener's conn_t is used otherwise than by a TCP one: address[0] family, address[1] whether answers name the
# address they come from, served its sessions, next the list of those that take new senders, CS_LINGER once it does not.
cdef struct datagrams_t:
    sessions_t sessions
    conn_t *listeners         # that take new senders
    batch_t from_clients
    batch_t to_clients
    uint32_t n_out            # gathered in to_clients
    conn_t *out               # ... to be sent over this listener


cdef inline datagrams_t *mine(core_t *core) noexcept nogil:
    return <datagrams_t *>core.datagrams


cdef inline sb_worker_t *counts(core_t *core) noexcept nogil:
    return core.sb.slab[core.sb.me]


# ---- memory -----------------------------------------------------------------------------------------------------

cdef bint batch_open(batch_t *b) noexcept nogil:
    """The bytes are taken from the kernel page by page as datagrams need them."""
    b.n = DATAGRAMS
    b.size = DATAGRAM_MAX
    b.head = <mmsghdr *>calloc(DATAGRAMS, sizeof(mmsghdr))
    b.data = <iovec *>calloc(DATAGRAMS, sizeof(iovec))
    b.peer = <sockaddr_in6 *>calloc(DATAGRAMS, sizeof(sockaddr_in6))
    b.control = calloc(DATAGRAMS, CONTROL_BYTES)
    b.bytes = <char *>malloc(<size_t>DATAGRAMS * DATAGRAM_MAX)
    b.run = <mmsghdr *>calloc(DATAGRAMS, sizeof(mmsghdr))
    return b.head != NULL and b.data != NULL and b.peer != NULL and b.control != NULL and b.bytes != NULL and b.run != NULL


cdef void batch_close(batch_t *b) noexcept nogil:
    free(b.head)
    free(b.data)
    free(b.peer)
    free(b.control)
    free(b.bytes)
    free(b.run)


cdef int datagram_listen(core_t *core, conn_t *l) noexcept nogil:
    cdef datagrams_t *d = mine(core)
    if d == NULL:
        d = <datagrams_t *>calloc(1, sizeof(datagrams_t))
        core.datagrams = d
        if d == NULL:
            return -1
        if sessions_open(&d.sessions) < 0 or not batch_open(&d.from_clients) or not batch_open(&d.to_clients):
            datagrams_free(core)
            return -1
    l.flags |= CF_DATAGRAM
    l.address[0] = <uint8_t>socket_family(l.fd)
    l.address[1] = tell_local(l.fd, l.address[0])
    l.next = d.listeners
    d.listeners = l
    return 0


cdef void datagrams_free(core_t *core) noexcept nogil:
    cdef datagrams_t *d = mine(core)
    if d == NULL:
        return
    batch_close(&d.from_clients)
    batch_close(&d.to_clients)
    sessions_close(&d.sessions)
    free(d)
    core.datagrams = NULL


# ---- listeners --------------------------------------------------------------------------------------------------

cdef void closes(core_t *core, conn_t *l) noexcept nogil:
    if mine(core) != NULL and mine(core).out == l:
        datagram_flush(core)
    conn_close(core, l)


cdef void takes_nobody(core_t *core, conn_t *l) noexcept nogil:
    cdef conn_t **at = &mine(core).listeners
    while at[0] != NULL and at[0] != l:
        at = &at[0].next
    if at[0] == l:
        at[0] = l.next
    l.next = NULL
    l.state = CS_LINGER


cdef void datagram_linger(core_t *core, conn_t *l) noexcept nogil:
    takes_nobody(core, l)
    if l.served == 0:
        closes(core, l)


cdef void datagram_deaf(core_t *core, conn_t *l) noexcept nogil:
    if l.flags & CF_WATCHED:
        epoll_ctl(core.epfd, EPOLL_CTL_DEL, l.fd, NULL)
        l.flags &= ~<uint16_t>CF_WATCHED
    datagram_linger(core, l)


cdef conn_t *heir_of(core_t *core, const conn_t *l) noexcept nogil:
    """Who takes new senders at the address of a listener that does not: it was removed and has come back."""
    cdef conn_t *other = mine(core).listeners
    while other != NULL and not same_name(l.fd, other.fd):
        other = other.next
    return other


# ---- sessions ---------------------------------------------------------------------------------------------------

cdef conn_t *session_of(core_t *core, conn_t *l, const source_t *from_) noexcept nogil:
    """The client that a datagram is of: a session that stands, else a new one, or one of this datagram alone. NULL when
    nobody new is taken or it could not be made."""
    cdef const listener_t *listener = snapshot_listener(core.snapshot, l.listener)
    cdef conn_t *c = NULL
    if l.state == CS_LINGER or (listener != NULL and listener.sessions):
        c = sessions_find(&mine(core).sessions, l, from_)
    if c != NULL:
        return c
    if l.state == CS_LINGER:
        l = heir_of(core, l)
        return session_of(core, l, from_) if l != NULL else NULL
    return session_new(core, l, listener, from_) if listener != NULL else NULL


cdef conn_t *session_new(core_t *core, conn_t *l, const listener_t *listener, const source_t *from_) noexcept nogil:
    """NULL when it could not be made: said in the log and counted, if there was a route."""
    cdef conn_t *c
    cdef uint32_t generation
    if listener_full(core, l):
        return NULL
    c = conn_new(core, -1, CONN_CLIENT)
    if c == NULL:
        return NULL
    c.flags = CF_RAW | CF_DATAGRAM
    c.endpoint = <endpoint_t *>l
    c.port = from_.port
    c.owner = from_.scope
    memcpy(c.address, from_.address, 16)
    if not listener.sessions:
        c.flags |= CF_ALONE
    elif not sessions_add(&mine(core).sessions, c):
        conn_close(core, c)
        return NULL
    l.served += 1
    client_enter(core, c, l.listener)
    generation = c.generation
    relay_datagrams(core, c, listener)
    return c if c.generation == generation else NULL


cdef void datagram_forget(core_t *core, conn_t *c) noexcept nogil:
    cdef conn_t *l = via(c)
    if not c.flags & CF_ALONE:
        sessions_drop(&mine(core).sessions, c)
    l.served -= 1
    if l.served == 0 and l.state == CS_LINGER:
        closes(core, l)


cdef void datagram_bound(core_t *core, exch_t *x) noexcept nogil:
    x.status = 0
    x.cause = CAUSE_NONE
    x.reason = NULL
    x.flags |= XF_ANSWERED | XF_CLOSE | XF_SENT
    x.up.flags = SF_ENDED | SF_FLUSHED
    x.down.flags = SF_ENDED | SF_FLUSHED
    x.state = XS_TUNNEL
    x.upstream.state = CS_BUSY
    x.connected_us = core.now_us
    conn_deadline(core, x.upstream, 0)
    if x.listener.sessions:
        tunnel_deadline(core, exchange_slim(core, x))


cdef void session_failed(core_t *core, conn_t *c) noexcept nogil:
    """The endpoint's machine says that nobody listens there. That it answered before does not count against that."""
    c.x.pick.flags &= ~<uint32_t>PICK_SETTLED
    tunnel_end(core, c.x, OUT_CONNECT, CAUSE_CONNECT, b"nobody listens at the endpoint", False)


cdef void datagram_over(core_t *core, conn_t *c) noexcept nogil:
    """The one datagram is on its way, and the socket is good for the next. That nothing speaks against it yet tells the
    breaker only of a socket that has been used for a while, or somebody who is gone would come back with each datagram."""
    cdef exch_t *x = c.x
    cdef conn_t *u = x.upstream
    if not x.pick.flags & PICK_PROBE and core.now_ms - endpoint_since_ms(u) < PROVEN_MS:
        x.pick.flags |= PICK_SETTLED
    account_attempt(core, x, OUT_1XX)
    x.upstream = NULL
    u.x = NULL
    endpoint_keep(core, u.endpoint, u, x.service)
    respond_finish(core, x)


# ---- from clients -----------------------------------------------------------------------------------------------

cdef void datagram_event(core_t *core, conn_t *l) noexcept nogil:
    cdef datagrams_t *d = mine(core)
    cdef uint32_t i, generation = l.generation
    cdef int n, turn
    for turn in range(ROUNDS):
        for i in range(DATAGRAMS):
            batch_receive(&d.from_clients, i, True, l.address[1])
        n = recvmmsg(l.fd, d.from_clients.head, DATAGRAMS, MSG_DONTWAIT, NULL)
        if n <= 0:
            return
        counts(core).datagrams_in += <uint32_t>n
        deliver(core, l, <uint32_t>n)
        if n < DATAGRAMS or l.generation != generation:
            return


cdef inline void source_of(const batch_t *b, uint32_t i, source_t *out) noexcept nogil:
    out.port = peer_address(<const sockaddr *>&b.peer[i], out.address)
    out.scope = batch_scope(b, i)


cdef void deliver(core_t *core, conn_t *l, uint32_t n) noexcept nogil:
    """Datagrams of one sender that follow each other go on together, when they belong together."""
    cdef const batch_t *b = &mine(core).from_clients
    cdef const listener_t *listener = snapshot_listener(core.snapshot, l.listener)
    cdef bint together = l.state != CS_LINGER and listener != NULL and listener.sessions
    cdef uint32_t i = 0, stop, generation = l.generation
    cdef source_t from_, other
    while i < n and l.generation == generation:
        source_of(b, i, &from_)
        stop = i + 1
        while stop < n and together:
            source_of(b, stop, &other)
            if other.port != from_.port or other.scope != from_.scope or memcmp(other.address, from_.address, 16) != 0:
                break
            stop += 1
        send_up(core, l, &from_, i, stop)
        i = stop
    # The listener is gone with the last of its sessions.
    counts(core).datagrams_dropped += n - i


cdef void send_up(core_t *core, conn_t *l, const source_t *from_, uint32_t at, uint32_t stop) noexcept nogil:
    """Entries at to stop, all of one sender. When the endpoint turns out to be gone another one is tried, once."""
    cdef conn_t *c
    cdef int turn
    cdef uint32_t generation = l.generation
    cdef uint8_t local[16]
    if l.address[1]:
        batch_local(&mine(core).from_clients, at, local)
    for turn in range(2):
        c = session_of(core, l, from_) if l.generation == generation else NULL
        if c == NULL:
            break
        if via(c).address[1]:
            memcpy(c.x.local, local, 16)
        if not write_up(core, c, &at, stop):
            session_failed(core, c)
            continue
        if c.flags & CF_ALONE:
            datagram_over(core, c)
        else:
            tunnel_deadline(core, c.x)
        return
    counts(core).datagrams_dropped += stop - at


cdef bint write_up(core_t *core, conn_t *c, uint32_t *at, uint32_t stop) noexcept nogil:
    """Move *at on over what the kernel takes, and over what it will not have. False: the endpoint is not there."""
    cdef batch_t *b = &mine(core).from_clients
    cdef exch_t *x = c.x
    cdef uint32_t k
    cdef int n
    for k in range(at[0], stop):
        batch_forward(b, k)
    if x.sent_us == 0:
        x.sent_us = core.now_us
    while at[0] < stop:
        n = batch_send(b, x.upstream.fd, at[0], stop)
        if n < 0 and errno == EINTR:
            continue
        if n < 0 and endpoint_gone(errno):
            return False
        if n < 0:
            counts(core).datagrams_dropped += 1
            n = 1
        else:
            count_up(x, b, at[0], <uint32_t>n)
        at[0] += <uint32_t>n
    return True


cdef inline void count_up(exch_t *x, const batch_t *b, uint32_t at, uint32_t n) noexcept nogil:
    cdef uint32_t k
    for k in range(at, at + n):
        x.up.bytes += b.data[k].iov_len
        x.up.wire += b.data[k].iov_len


# ---- to clients -------------------------------------------------------------------------------------------------

cdef void datagram_answer(core_t *core, exch_t *x) noexcept nogil:
    cdef conn_t *c = x.client
    cdef conn_t *u = x.upstream
    cdef const listener_t *listener = x.listener
    cdef uint32_t asked, got, turn
    cdef int n
    for turn in range(ROUNDS):
        asked = out_room(core, via(c))
        n = receive_answers(core, u, asked)
        if n < 0:
            u.flags &= ~<uint16_t>(CF_READABLE | CF_DEAD)
            if n == -2:
                session_failed(core, c)
            return
        got = <uint32_t>n
        gather(core, x, got)
        c.served += got
        if listener.responses and c.served >= listener.responses:
            tunnel_end(core, x, OUT_1XX, CAUSE_NONE, b"it has all its answers", False)
            return
        if got < asked:
            u.flags &= ~<uint16_t>CF_READABLE
            return
    conn_ready(core, u)


cdef uint32_t out_room(core_t *core, conn_t *l) noexcept nogil:
    """How many answers over this listener may be read now, at least one."""
    cdef datagrams_t *d = mine(core)
    if d.n_out == DATAGRAMS or (d.n_out and d.out != l):
        datagram_flush(core)
    d.out = l
    return DATAGRAMS - d.n_out if DATAGRAMS - d.n_out < ANSWERS else ANSWERS


cdef int receive_answers(core_t *core, conn_t *u, uint32_t asked) noexcept nogil:
    """Into the next entries of to_clients. -1: nothing there, -2: the endpoint is not there."""
    cdef datagrams_t *d = mine(core)
    cdef uint32_t i
    cdef int n
    for i in range(asked):
        batch_receive(&d.to_clients, d.n_out + i, False, False)
    while True:
        n = recvmmsg(u.fd, &d.to_clients.head[d.n_out], asked, MSG_DONTWAIT, NULL)
        if n > 0:
            return n
        if n < 0 and endpoint_gone(errno):
            return -2
        # Too large for the path, says the way there: about a datagram that is lost. Reading took the error away.
        if n == 0 or (errno != EINTR and errno != EMSGSIZE):
            return -1


cdef void gather(core_t *core, exch_t *x, uint32_t n) noexcept nogil:
    cdef datagrams_t *d = mine(core)
    cdef conn_t *c = x.client
    cdef uint32_t i
    if x.first_us == 0:
        x.first_us = core.now_us
        account_settled(core, x, OUT_1XX)
    for i in range(d.n_out, d.n_out + n):
        x.down.bytes += d.to_clients.head[i].msg_len
        x.down.wire += d.to_clients.head[i].msg_len
        batch_address(&d.to_clients, i, via(c).address[0], c.address, c.owner, c.port, x.local,
                      via(c).address[1])
    d.n_out += n
    tunnel_deadline(core, x)


cdef void datagram_flush(core_t *core) noexcept nogil:
    """One that the kernel refuses is dropped, and the rest go on."""
    cdef datagrams_t *d = mine(core)
    cdef uint32_t at = 0
    cdef int n
    if d == NULL or d.n_out == 0:
        return
    while at < d.n_out:
        n = batch_send(&d.to_clients, d.out.fd, at, d.n_out)
        if n > 0:
            counts(core).datagrams_out += <uint32_t>n
            at += <uint32_t>n
        elif errno != EINTR:
            counts(core).datagrams_dropped += 1
            at += 1
    d.n_out = 0
