"""See relay.pxd."""

from libc.stdint cimport uint32_t
from libc.string cimport memcpy, memset
from turnout.ext.buffers cimport BUF_SMALL, buf_data, buf_give, buf_left, buf_room, buf_t, buf_tail, buf_take
from turnout.ext.conn cimport IO_BLOCKED, IO_ERROR, conn_recv
from turnout.ext.core cimport (
    CF_BLOCKED, CF_DEAD, CF_READABLE, CS_HEAD, XF_CLOSE, XF_FRESH, XF_RAW, conn_t, core_t, exch_t,
)
from turnout.ext.exchange cimport exchange_open, exchange_select
from turnout.ext.headers cimport M_OTHER, head_t
from turnout.ext.hello cimport HELLO_MORE, HELLO_NAME_MAX, hello_name, hello_plain_name
from turnout.ext.request cimport request_identity, request_source
from turnout.ext.respond cimport client_close, exchange_free, exchange_new, respond_local
from turnout.ext.router cimport route_find
from turnout.ext.scoreboard cimport CAUSE_PROXY
from turnout.ext.snapshot cimport listener_t, snapshot_listener
from turnout.ext.tls cimport tls_greet, tls_sni
from turnout.ext.tunnel cimport tunnel_open
from turnout.ext.upstream cimport upstream_unreachable

# One thread runs an engine. The router's view of a connection: "/" and behind it the server name.
cdef char sought[HELLO_NAME_MAX + 1]
cdef head_t view


cdef void relay_event(core_t *core, conn_t *c) noexcept nogil:
    cdef const listener_t *listener = snapshot_listener(core.snapshot, c.listener)
    cdef int name = 0
    if listener == NULL or c.flags & CF_DEAD:
        client_close(core, c)
        return
    if c.tls != NULL:
        if not greeted(core, c, &name):
            return
    elif listener.names and not read_name(core, c, &name):
        return
    relay_begin(core, c, listener, <uint32_t>name)


cdef bint greeted(core_t *core, conn_t *c, int *name) noexcept nogil:
    """Whether the handshake is done and the server name known; False: not yet, or the client is gone."""
    cdef int got = tls_greet(c)
    if got == IO_BLOCKED:
        return False
    if got != 1:
        client_close(core, c)
        return False
    name[0] = hello_plain_name(tls_sni(c), &sought[1])
    return True


cdef bint read_name(core_t *core, conn_t *c, int *name) noexcept nogil:
    """Read until the server name is known; False: not yet, or the client is gone."""
    cdef int got
    while True:
        if c.inb == NULL:
            c.inb = buf_take(&core.buffers, BUF_SMALL)
            if c.inb == NULL:
                client_close(core, c)
                return False
        got = conn_recv(c, buf_tail(c.inb), buf_room(c.inb))
        if got == IO_BLOCKED:
            if buf_left(c.inb) == 0:
                buf_give(&core.buffers, c.inb)
                c.inb = NULL
            return False
        if got <= 0:
            client_close(core, c)
            return False
        c.inb.end += <uint32_t>got
        c.state = CS_HEAD
        name[0] = hello_name(buf_data(c.inb), buf_left(c.inb), &sought[1])
        if name[0] != HELLO_MORE:
            name[0] = name[0] if name[0] > 0 else 0
            return True


cdef void relay_begin(core_t *core, conn_t *c, const listener_t *listener, uint32_t name) noexcept nogil:
    """`name`: length of the server name in `sought`."""
    cdef exch_t *x = exchange_new(core)
    if x == NULL:
        client_close(core, c)
        return
    exchange_open(core, c, x, listener)
    x.flags |= XF_RAW | XF_CLOSE
    # Datagrams without sessions find sockets in the pool; whoever may get an answer has one of its own.
    if listener.sessions:
        x.flags |= XF_FRESH
    memset(&x.req, 0, <size_t>(<char *>&x.req.fields - <char *>&x.req))
    if c.inb != NULL:
        x.body_off = c.inb.off
        x.body_n = buf_left(c.inb)
        c.inb.off = c.inb.end
        keep_name(x, name)
    request_identity(core, x)
    request_source(x)
    find_route(x, name)
    if x.route == NULL:
        respond_local(core, x, 0, CAUSE_PROXY, b"no route for this server name")
    else:
        exchange_select(core, x)


cdef void relay_datagrams(core_t *core, conn_t *c, const listener_t *listener) noexcept nogil:
    relay_begin(core, c, listener, 0)


cdef void keep_name(exch_t *x, uint32_t name) noexcept nogil:
    """For the access log: behind what the client sent there is room."""
    cdef buf_t *b = x.head_buf
    x.head = &b.base[0]
    if name and name <= buf_room(b):
        memcpy(buf_tail(b), &sought[1], name)
        x.req.authority = b.end
        x.req.authority_len = name


cdef void find_route(exch_t *x, uint32_t name) noexcept nogil:
    memset(&view, 0, <size_t>(<char *>&view.fields - <char *>&view))
    sought[0] = c'/'
    view.path_len = 1
    view.authority = 1
    view.authority_len = name
    view.method = M_OTHER
    x.route = route_find(x.snapshot, x.listener.slot, sought, &view)


cdef void relay_dialled(core_t *core, exch_t *x) noexcept nogil:
    cdef conn_t *u = x.upstream
    cdef int got = 1
    if u.tls != NULL and (u.flags & CF_DEAD or not u.flags & CF_BLOCKED):
        got = tls_greet(u)            # of a dead one too: what it said before it died is why
    elif u.flags & CF_DEAD:
        got = IO_ERROR
    elif u.flags & CF_BLOCKED:
        return
    if got == 1:
        if u.tls != NULL:
            u.flags |= CF_READABLE    # no edge tells of what was read ahead
        tunnel_open(core, x)
    elif got != IO_BLOCKED:
        upstream_unreachable(core, x)
