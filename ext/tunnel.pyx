"""See tunnel.pxd."""

from libc.stdint cimport int64_t, uint16_t, uint32_t, uint64_t
from turnout.ext.account cimport account_settled
from turnout.ext.buffers cimport buf_data, buf_give, buf_left, buf_t
from turnout.ext.conn cimport client_leaves, conn_broken, conn_deadline, conn_end, conn_ready, conn_reset_on_close
from turnout.ext.core cimport (
    CF_DATAGRAM, CF_PROXY, CF_READABLE, CS_BUSY, CS_EXCHANGE, SCRATCH_BYTES, SF_ENDED, SF_FLUSHED, XF_ANSWERED, XF_CLOSE, XF_SENT,
    XS_TUNNEL, conn_t, core_t, exch_t, stream_t,
)
from turnout.ext.framing cimport BODY_CLOSE
from turnout.ext.headers cimport head_t
from turnout.ext.preface cimport PREFACE_GONE, PREFACE_REFUSED, preface_reason, preface_take, preface_write
from turnout.ext.proxyproto cimport PROXY_OUT_MAX
from turnout.ext.request cimport random_next
from turnout.ext.respond cimport exchange_slim, respond_abort, respond_finish, respond_head
from turnout.ext.scoreboard cimport (
    CAUSE_CLIENT, CAUSE_NONE, CAUSE_PROXY, CAUSE_TIMEOUT, CAUSE_UPSTREAM, OUT_1XX, OUT_CANCEL, OUT_RESET,
)
from turnout.ext.select cimport select_member
from turnout.ext.snapshot cimport listener_t, member_t, route_service, route_t, snapshot_listener, snapshot_t
from turnout.ext.stream cimport (
    PUMP_AGAIN, PUMP_DONE, PUMP_MALFORMED, PUMP_MEMORY, PUMP_SINK, PUMP_SINK_BROKEN, PUMP_SOURCE, PUMP_SOURCE_BROKEN,
    buf_copy, stream_append, stream_clear, stream_flush, stream_pump,
)
from turnout.ext.upstream cimport upstream_drop


# ---- the beginning ----------------------------------------------------------------------------------------------

cdef void raw_stream(stream_t *s) noexcept nogil:
    s.body.kind = BODY_CLOSE
    s.out = BODY_CLOSE
    s.flags = 0


cdef bint pass_on(core_t *core, stream_t *s, const char *p, uint32_t n) noexcept nogil:
    """Queue a copy of n bytes; they count as relayed."""
    cdef buf_t *b
    if n == 0:
        return True
    b = buf_copy(core, p, n)
    if b == NULL:
        return False
    stream_append(s, b)
    s.bytes += n
    return True


cdef exch_t *stand(core_t *core, exch_t *x) noexcept nogil:
    """From here on x is a tunnel; everything of the request that has to be passed on is queued. x may move."""
    x.cause = CAUSE_NONE
    x.reason = NULL
    x.flags |= XF_ANSWERED | XF_CLOSE | XF_SENT
    x.state = XS_TUNNEL
    x.upstream.state = CS_BUSY
    conn_deadline(core, x.upstream, 0)
    account_settled(core, x, OUT_1XX)
    x = exchange_slim(core, x)
    tunnel_deadline(core, x)
    # The world may have changed while the endpoint was asked.
    if client_leaves(core, x.client) or (x.snapshot != core.snapshot and not rebind(core, x, core.snapshot)):
        retire(core, x)
    return x


cdef void tunnel_upgrade(core_t *core, exch_t *x, const head_t *h, unsigned int used) noexcept nogil:
    cdef buf_t *b = x.upstream.inb
    cdef buf_t *held = x.head_buf
    cdef buf_t *head
    cdef uint32_t n
    cdef bint whole
    x.status = 101
    n = respond_head(core, x, h, buf_data(b), core.scratch, SCRATCH_BYTES)
    x.upstream.inb = NULL
    b.off += used
    stream_clear(core, &x.up)
    raw_stream(&x.up)
    raw_stream(&x.down)
    head = buf_copy(core, core.scratch, n) if n else NULL
    if head != NULL:
        stream_append(&x.down, head)
    whole = (head != NULL and pass_on(core, &x.down, buf_data(b), buf_left(b))
             and pass_on(core, &x.up, buf_data(held), buf_left(held)))
    buf_give(&core.buffers, b)
    held.off = held.end
    begin(core, x, whole)


cdef void tunnel_open(core_t *core, exch_t *x) noexcept nogil:
    cdef char header[PROXY_OUT_MAX]
    cdef uint32_t n = preface_write(x, header)
    cdef buf_t *b = buf_copy(core, header, n) if n else NULL
    x.status = 0
    x.connected_us = core.now_us
    x.first_us = core.now_us
    raw_stream(&x.up)
    raw_stream(&x.down)
    if b != NULL:
        stream_append(&x.up, b)
    # Accepted or connected with bytes or an end already waiting: the edge for them may have come before.
    x.client.flags |= CF_READABLE
    begin(core, x, (b != NULL or n == 0)
          and (x.body_n == 0 or pass_on(core, &x.up, &x.head_buf.base[0] + x.body_off, x.body_n)))


cdef void begin(core_t *core, exch_t *x, bint whole) noexcept nogil:
    x = stand(core, x)
    if whole:
        tunnel_run(core, x)
    else:
        tunnel_end(core, x, OUT_CANCEL, CAUSE_PROXY, b"the proxy is out of memory", True)


# ---- while it stands --------------------------------------------------------------------------------------------

cdef void tunnel_deadline(core_t *core, exch_t *x) noexcept nogil:
    cdef uint64_t ms = x.service.session_ms if x.client.flags & CF_DATAGRAM else x.service.tunnel_ms
    if x.until_ms:
        if x.until_ms <= core.now_ms:
            ms = 1
        elif x.until_ms - core.now_ms < ms:
            ms = x.until_ms - core.now_ms
    conn_deadline(core, x.client, ms)


cdef int move(core_t *core, stream_t *s, conn_t *source, conn_t *sink) noexcept nogil:
    """One direction; pump_result. An end is passed on once everything before it is written."""
    cdef buf_t *rest
    cdef int stop
    if s.flags & SF_FLUSHED:
        return PUMP_DONE
    stop = stream_pump(core, s, source, sink, &rest)
    if stop == PUMP_DONE:
        conn_end(sink)
    elif stop == PUMP_AGAIN:
        conn_ready(core, source)
    return stop


cdef int move_up(core_t *core, exch_t *x) noexcept nogil:
    """From the client. An outsider's first bytes go nowhere before it is clear that they are no PROXY header."""
    cdef conn_t *c = x.client
    cdef int verdict
    if c.flags & CF_PROXY and c.flags & CF_READABLE:
        verdict = preface_take(c, x.listener)
        if verdict == PREFACE_REFUSED:
            return PUMP_MALFORMED
        if verdict == PREFACE_GONE:
            c.flags &= ~<uint16_t>CF_PROXY
    if c.flags & CF_PROXY:
        return PUMP_SINK if stream_flush(core, &x.up, x.upstream) == 0 else PUMP_SOURCE
    return move(core, &x.up, c, x.upstream)


cdef inline void deafen(core_t *core, stream_t *s, conn_t *sink) noexcept nogil:
    """The sink takes no more. What it sent before it closed still counts: its own direction finds the end of it."""
    stream_clear(core, s)
    s.flags |= SF_ENDED | SF_FLUSHED
    sink.flags |= CF_READABLE


cdef inline uint64_t moved(const exch_t *x) noexcept nogil:
    return x.up.wire + x.down.wire + x.up.bytes + x.down.bytes


cdef inline void note_end(exch_t *x, int up) noexcept nogil:
    """Who ended first; of two in one turn, the client."""
    if x.reason == NULL:
        x.reason = b"closed by the client" if up == PUMP_DONE else b"closed by the endpoint"


cdef void tunnel_run(core_t *core, exch_t *x) noexcept nogil:
    cdef uint64_t before = moved(x)
    cdef int up = move_up(core, x)
    cdef int down
    if up == PUMP_SINK_BROKEN:
        deafen(core, &x.up, x.upstream)
    down = move(core, &x.down, x.upstream, x.client)
    if up == PUMP_MEMORY or down == PUMP_MEMORY:
        tunnel_end(core, x, OUT_CANCEL, CAUSE_PROXY, b"the proxy is out of memory", True)
    elif up == PUMP_MALFORMED:
        tunnel_end(core, x, OUT_CANCEL, CAUSE_CLIENT, preface_reason(x.client, x.listener), True)
    elif up == PUMP_SOURCE_BROKEN or down == PUMP_SINK_BROKEN or (up == PUMP_SINK and conn_broken(x.client)):
        tunnel_end(core, x, OUT_CANCEL, CAUSE_CLIENT, b"the client cut the connection", True)
    elif down == PUMP_SOURCE_BROKEN:
        tunnel_end(core, x, OUT_RESET, CAUSE_UPSTREAM, b"the endpoint cut the connection", True)
    elif down == PUMP_DONE and x.up.flags & SF_FLUSHED:
        note_end(x, up)
        tunnel_end(core, x, OUT_1XX, CAUSE_NONE, x.reason, False)
    else:
        tunnel_goes_on(core, x, up, down, before)


cdef inline void tunnel_goes_on(core_t *core, exch_t *x, int up, int down, uint64_t before) noexcept nogil:
    if up == PUMP_DONE or down == PUMP_DONE:
        note_end(x, up)
    if moved(x) != before:
        tunnel_deadline(core, x)


cdef void tunnel_timeout(core_t *core, exch_t *x) noexcept nogil:
    if x.until_ms and x.until_ms <= core.now_ms:
        tunnel_end(core, x, OUT_CANCEL, CAUSE_PROXY, b"its time was over: the proxy drains, or what it went through is gone", False)
    else:
        tunnel_end(core, x, OUT_CANCEL, CAUSE_TIMEOUT, b"nothing passed for the idle time", False)


cdef void tunnel_end(core_t *core, exch_t *x, int outcome, int cause, const char *reason, bint reset) noexcept nogil:
    x.cause = <unsigned char>cause
    x.reason = reason
    if reset:
        conn_reset_on_close(x.upstream)
    upstream_drop(core, x, outcome)
    if reset:
        respond_abort(core, x)
    else:
        respond_finish(core, x)


# ---- when the world changes -------------------------------------------------------------------------------------

cdef void retire(core_t *core, exch_t *x) noexcept nogil:
    cdef uint64_t within = x.service.tunnel_drain_ms
    if x.until_ms:
        return
    x.until_ms = core.now_ms + within // 2 + random_next(core) % (within - within // 2 + 1)
    tunnel_deadline(core, x)


cdef inline exch_t *tunnel_of(conn_t *c) noexcept nogil:
    return c.x if c.state == CS_EXCHANGE and c.x.state == XS_TUNNEL else NULL


cdef void tunnels_retire(core_t *core, int64_t listener) noexcept nogil:
    cdef conn_t *c = core.clients
    while c != NULL:
        if tunnel_of(c) != NULL and (listener < 0 or c.listener == listener):
            retire(core, c.x)
        c = c.next


cdef const route_t *same_route(const snapshot_t *s, const exch_t *x) noexcept nogil:
    """The same route (its identity is its slot) to the same service."""
    cdef const route_t *route = NULL
    cdef uint32_t i
    if s.routes == x.snapshot.routes:
        route = x.route
    else:
        for i in range(s.n_routes):
            if s.routes[i].slot == x.route.slot:
                route = &s.routes[i]
    if route == NULL or route_service(s, route) == NULL or route_service(s, route).slot != x.service.slot:
        return NULL
    return route


cdef bint rebind(core_t *core, exch_t *x, snapshot_t *s) noexcept nogil:
    """Point the tunnel into a new snapshot, so that it does not keep the old one alive for as long as it stands."""
    cdef const listener_t *listener = snapshot_listener(s, x.listener.slot)
    cdef const route_t *route = same_route(s, x)
    cdef const member_t *member = NULL
    if listener == NULL or route == NULL:
        return False
    member = select_member(core.selector, route_service(s, route), x.pick.slot, x.pick.generation)
    if member == NULL:
        return False
    x.listener = listener
    x.route = route
    x.service = route_service(s, route)
    x.pick.member = member
    x.last = member
    x.snapshot.refs -= 1
    x.snapshot = s
    s.refs += 1
    return True


cdef void tunnels_adopt(core_t *core, snapshot_t *snap) noexcept nogil:
    cdef conn_t *c = core.clients
    while c != NULL:
        if tunnel_of(c) != NULL and not rebind(core, c.x, snap):
            retire(core, c.x)
        c = c.next
