"""See datagram.pxd."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcmp, memcpy
from turnout.ext.account cimport account_attempt, account_settled
from turnout.ext.conn cimport conn_close, conn_deadline, conn_new, conn_ready
from turnout.ext.core cimport (
    CF_DATAGRAM, CF_DEAD, CF_RAW, CF_READABLE, CF_WATCHED, CONN_CLIENT, CS_BUSY, CS_LINGER, SF_ENDED, SF_FLUSHED, XF_ANSWERED,
    XF_CLOSE, XF_SENT, XS_TUNNEL, conn_t, core_t, endpoint_t, exch_t,
)
from turnout.ext.endpoint cimport endpoint_keep
from turnout.ext.kernel cimport (
    AF_INET, EINTR, EMSGSIZE, EPOLL_CTL_DEL, MSG_DONTWAIT, epoll_ctl, errno, sockaddr,
)
from turnout.ext.listener cimport client_enter, listener_full, peer_address, socket_family
from turnout.ext.packets cimport (
    CONTROL_BYTES, endpoint_gone, batch_address, batch_forward, batch_local, batch_receive, batch_send, batch_t, iovec, mmsghdr, recvmmsg,
    sockaddr_in6, tell_local,
)
from turnout.ext.relay cimport relay_datagrams
from turnout.ext.respond cimport exchange_slim, respond_finish
from turnout.ext.scoreboard cimport CAUSE_CONNECT, CAUSE_NONE, OUT_1XX, OUT_CONNECT, sb_worker_t
from turnout.ext.select cimport PICK_SETTLED, hash_bytes
from turnout.ext.snapshot cimport listener_t, snapshot_listener
from turnout.ext.tunnel cimport tunnel_deadline, tunnel_end

cdef enum:
    TABLE_MIN = 1024          # places of a new table, a power of two
    ROUNDS = 4                # batches of one socket in one turn; then others have theirs
    ANSWERS = 16              # answers of one session that are read at once

# What of a listener's conn_t is used otherwise than by a TCP one: address[0] family, address[1] whether answers name the
# address they come from, served its sessions, CS_LINGER once it is deaf.
cdef struct datagrams_t:
    conn_t **table            # sessions by listener and source, open addressing, linear probing
    uint32_t places           # a power of two
    uint32_t n
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
        d.places = TABLE_MIN
        d.table = <conn_t **>calloc(TABLE_MIN, sizeof(conn_t *))
        if not batch_open(&d.from_clients) or not batch_open(&d.to_clients) or d.table == NULL:
            datagrams_free(core)
            return -1
    l.flags |= CF_DATAGRAM
    l.address[0] = <uint8_t>socket_family(l.fd)
    l.address[1] = tell_local(l.fd, l.address[0])
    return 0


cdef void datagrams_free(core_t *core) noexcept nogil:
    cdef datagrams_t *d = mine(core)
    if d == NULL:
        return
    batch_close(&d.from_clients)
    batch_close(&d.to_clients)
    free(d.table)
    free(d)
    core.datagrams = NULL


# ---- the table --------------------------------------------------------------------------------------------------

cdef inline uint32_t place_of(const datagrams_t *d, const conn_t *l, const uint8_t *address, uint16_t port) noexcept nogil:
    cdef uint8_t key[24]
    memcpy(key, address, 16)
    memcpy(key + 16, &port, 2)
    memcpy(key + 18, &l.index, 4)
    key[22] = 0
    key[23] = 0
    return <uint32_t>hash_bytes(<const char *>key, 24) & (d.places - 1)


cdef inline conn_t *via(const conn_t *c) noexcept nogil:
    """The listener of a session."""
    return <conn_t *>c.endpoint


cdef inline uint32_t home_of(const datagrams_t *d, const conn_t *c) noexcept nogil:
    return place_of(d, via(c), c.address, c.port)


cdef conn_t *table_find(const datagrams_t *d, const conn_t *l, const uint8_t *address, uint16_t port) noexcept nogil:
    cdef uint32_t at = place_of(d, l, address, port)
    cdef conn_t *c
    while d.table[at] != NULL:
        c = d.table[at]
        if c.port == port and via(c) == l and memcmp(c.address, address, 16) == 0:
            return c
        at = (at + 1) & (d.places - 1)
    return NULL


cdef inline void table_set(datagrams_t *d, conn_t *c) noexcept nogil:
    cdef uint32_t at = home_of(d, c)
    while d.table[at] != NULL:
        at = (at + 1) & (d.places - 1)
    d.table[at] = c


cdef bint table_add(datagrams_t *d, conn_t *c) noexcept nogil:
    """At most half full; False when memory is out."""
    cdef conn_t **old = d.table
    cdef uint32_t i, n = d.places
    if (d.n + 1) * 2 > n:
        d.table = <conn_t **>calloc(<size_t>n * 2, sizeof(conn_t *))
        if d.table == NULL:
            d.table = old
            return False
        d.places = n * 2
        for i in range(n):
            if old[i] != NULL:
                table_set(d, old[i])
        free(old)
    table_set(d, c)
    d.n += 1
    return True


cdef void table_drop(datagrams_t *d, conn_t *c) noexcept nogil:
    """Whoever stands behind the gap and may stand in it moves up, so that there are no markers to clear away."""
    cdef uint32_t mask = d.places - 1, gap = home_of(d, c), at
    while d.table[gap] != c:
        if d.table[gap] == NULL:
            return
        gap = (gap + 1) & mask
    d.n -= 1
    at = gap
    while True:
        at = (at + 1) & mask
        if d.table[at] == NULL:
            break
        if ((at - home_of(d, d.table[at])) & mask) >= ((at - gap) & mask):
            d.table[gap] = d.table[at]
            gap = at
    d.table[gap] = NULL


# ---- sessions ---------------------------------------------------------------------------------------------------

cdef conn_t *session_new(core_t *core, conn_t *l, const listener_t *listener, const uint8_t *address,
                         uint16_t port) noexcept nogil:
    """The session of a sender, NULL when it could not be made: said in the log and counted, if there was a route."""
    cdef datagrams_t *d = mine(core)
    cdef conn_t *c
    cdef uint32_t generation
    if listener_full(core, l):
        return NULL
    c = conn_new(core, -1, CONN_CLIENT)
    if c == NULL:
        return NULL
    c.flags = CF_RAW | CF_DATAGRAM
    c.endpoint = <endpoint_t *>l
    c.port = port
    memcpy(c.address, address, 16)
    if not table_add(d, c):
        conn_close(core, c)
        return NULL
    l.served += 1
    client_enter(core, c, l.listener)
    generation = c.generation
    relay_datagrams(core, c, listener)
    return c if c.generation == generation else NULL


cdef void datagram_forget(core_t *core, conn_t *c) noexcept nogil:
    cdef conn_t *l = via(c)
    table_drop(mine(core), c)
    l.served -= 1
    if l.served == 0 and l.state == CS_LINGER:
        if mine(core).out == l:
            datagram_flush(core)
        conn_close(core, l)


cdef void datagram_deaf(core_t *core, conn_t *l) noexcept nogil:
    if l.flags & CF_WATCHED:
        epoll_ctl(core.epfd, EPOLL_CTL_DEL, l.fd, NULL)
        l.flags &= ~<uint16_t>CF_WATCHED
    l.state = CS_LINGER
    if l.served == 0:
        if mine(core) != NULL and mine(core).out == l:
            datagram_flush(core)
        conn_close(core, l)


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
    """Without sessions: the one datagram is on its way, and the socket is good for the next."""
    cdef exch_t *x = c.x
    cdef conn_t *u = x.upstream
    account_attempt(core, x, OUT_1XX)
    x.upstream = NULL
    u.x = NULL
    endpoint_keep(core, u.endpoint, u, x.service)
    respond_finish(core, x)


# ---- from clients -----------------------------------------------------------------------------------------------

cdef void datagram_event(core_t *core, conn_t *l) noexcept nogil:
    cdef datagrams_t *d = mine(core)
    cdef const listener_t *listener = snapshot_listener(core.snapshot, l.listener)
    cdef uint32_t i
    cdef int n, turn
    for turn in range(ROUNDS):
        for i in range(DATAGRAMS):
            batch_receive(&d.from_clients, i, True, l.address[1])
        n = recvmmsg(l.fd, d.from_clients.head, DATAGRAMS, MSG_DONTWAIT, NULL)
        if n <= 0:
            return
        counts(core).datagrams_in += <uint32_t>n
        if listener == NULL:
            counts(core).datagrams_dropped += <uint32_t>n
        else:
            deliver(core, l, listener, <uint32_t>n)
        if n < DATAGRAMS:
            return


cdef void deliver(core_t *core, conn_t *l, const listener_t *listener, uint32_t n) noexcept nogil:
    """Datagrams of one sender that follow each other go on together."""
    cdef datagrams_t *d = mine(core)
    cdef uint8_t address[16]
    cdef uint8_t other[16]
    cdef uint16_t port, other_port
    cdef uint32_t i = 0, stop
    while i < n:
        port = peer_address(<const sockaddr *>&d.from_clients.peer[i], address)
        stop = i + 1
        while stop < n and listener.sessions:
            other_port = peer_address(<const sockaddr *>&d.from_clients.peer[stop], other)
            if other_port != port or memcmp(address, other, 16) != 0:
                break
            stop += 1
        send_up(core, l, listener, address, port, i, stop)
        i = stop


cdef void send_up(core_t *core, conn_t *l, const listener_t *listener, const uint8_t *address, uint16_t port, uint32_t i,
                  uint32_t stop) noexcept nogil:
    """Entries i to stop, all of one sender. When the endpoint turns out to be gone another one is tried, once."""
    cdef conn_t *c
    cdef int turn, sent
    cdef uint8_t local[16]
    if l.address[1]:
        batch_local(&mine(core).from_clients, i, local)
    for turn in range(2):
        c = table_find(mine(core), l, address, port) if listener.sessions else NULL
        if c == NULL:
            c = session_new(core, l, listener, address, port)
        if c == NULL:
            break
        if l.address[1]:
            memcpy(c.x.local, local, 16)
        sent = write_up(core, c, i, stop)
        if sent < 0:
            session_failed(core, c)
            continue
        counts(core).datagrams_dropped += stop - i - <uint32_t>sent
        if listener.sessions:
            tunnel_deadline(core, c.x)
        else:
            datagram_over(core, c)
        return
    counts(core).datagrams_dropped += stop - i


cdef int write_up(core_t *core, conn_t *c, uint32_t i, uint32_t stop) noexcept nogil:
    """How many the kernel took, which passes over those that it will not have; -1: the endpoint is not there."""
    cdef batch_t *b = &mine(core).from_clients
    cdef exch_t *x = c.x
    cdef uint32_t k, at = i
    cdef int n, taken = 0
    for k in range(i, stop):
        batch_forward(b, k)
    if x.sent_us == 0:
        x.sent_us = core.now_us
    while at < stop:
        n = batch_send(b, x.upstream.fd, at, stop)
        if n < 0 and errno == EINTR:
            continue
        if n < 0 and endpoint_gone(errno) and taken == 0:
            return -1
        if n < 0:
            at += 1
            continue
        for k in range(at, at + <uint32_t>n):
            x.up.bytes += b.data[k].iov_len
            x.up.wire += b.data[k].iov_len
        at += <uint32_t>n
        taken += n
    return taken


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
        batch_address(&d.to_clients, i, via(c).address[0], c.address, c.port, x.local, via(c).address[1])
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
