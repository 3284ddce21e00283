"""See exchange.pxd."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcmp
from turnout.ext.buffers cimport BUF_SMALL, buf_data, buf_give, buf_left, buf_room, buf_slide, buf_t, buf_tail, buf_take
from turnout.ext.conn cimport IO_BLOCKED, IO_PLAIN, client_leaves, conn_deadline, conn_ready, conn_recv
from turnout.ext.core cimport (
    CF_BLOCKED, CF_CLOSE, CF_DEAD, CF_PEER_SHUT, CF_PROXY, CF_RAW, CF_READABLE, CS_EXCHANGE, CS_HEAD, CS_IDLE, CS_LINGER,
    SF_ENDED, SF_FLUSHED, XF_ANSWERED, XF_CLIENT_10, XF_CLOSE, XF_EXPECT, XF_HEAD_ONLY, XF_RAW, XF_REPLAYABLE,
    XF_SAMPLED, XF_STICKY_ISSUE, XF_UPGRADE, XS_CONNECTING, XS_LOCAL, XS_QUEUED, XS_RESPONDING, XS_TUNNEL, XS_WAITING,
    conn_t, core_t, exch_t,
)
from turnout.ext.framing cimport (
    BODY_CHUNKED, BODY_LENGTH, BODY_NONE, CHUNK_DONE, CHUNK_SIZE, FRAME_END, FRAME_MALFORMED, body_feed,
)
from turnout.ext.headers cimport (
    H_COOKIE, H_UPGRADE, HEAD_CHUNKED, HEAD_CLOSE, HEAD_EXPECT, HEAD_KEEP_ALIVE, HEAD_UPGRADE, M_CONNECT, M_HEAD, cookie_find, equals_lower, field_t, head_t,
)
from turnout.ext.http1 cimport (
    HEAD_BAD_VERSION, HEAD_LINE_TOO_LONG, HEAD_NEED_MORE, HEAD_TOO_LARGE, head_error,
    head_limits_t, parse_request, parse_trailers,
)
from turnout.ext.preface cimport (
    PREFACE_DONE, PREFACE_GONE, PREFACE_LATER, PREFACE_REFUSED, PREFACE_WAIT, preface_reason, preface_take,
)
from turnout.ext.relay cimport relay_event
from turnout.ext.request cimport request_identity, request_source
from turnout.ext.respond cimport (
    client_close, client_linger, exchange_free, exchange_new, respond_abort, respond_fixed, respond_flush_local,
    respond_local,
)
from turnout.ext.retry cimport budget_earn
from turnout.ext.router cimport route_doubtful, route_find, route_location
from turnout.ext.scoreboard cimport CAUSE_CLIENT, CAUSE_PROXY, CAUSE_TIMEOUT, OUT_CANCEL, OUT_TIMEOUT
from turnout.ext.select cimport hash_bytes
from turnout.ext.snapshot cimport (
    BAL_CONSISTENT_HASH, BAL_IP_HASH, KEY_COOKIE, KEY_HEADER, KEY_PATH, KEY_QUERY, ROUTE_REDIRECT,
    ROUTE_RESPOND, listener_t, route_service, snapshot_listener, text_t,
)
from turnout.ext.sticky cimport STICKY_BAD, STICKY_BOUND, sticky_read
from turnout.ext.stream cimport buf_copy
from turnout.ext.tls cimport tls_late
from turnout.ext.tunnel cimport tunnel_run, tunnel_timeout
from turnout.ext.upstream cimport (
    upstream_asked, upstream_begin, upstream_body, upstream_cancel, upstream_drop, upstream_interim, upstream_response,
)

cdef extern from "<string.h>" nogil:
    void *memmem(const void *, size_t, const void *, size_t)

cdef enum:
    LINGER_READ = 65536
    LINGER_READS = 16
    LOCATION_MAX = 8192
    UPGRADE_MAX = 64          # bytes of a protocol's name
    SAMPLE_MASK = 15          # one exchange in 16 has its time in the proxy measured

# One thread runs an engine.
cdef char dropped[LINGER_READ]
cdef char location[LOCATION_MAX]


cdef void client_event(core_t *core, conn_t *c) noexcept nogil:
    if c.state == CS_EXCHANGE:
        exchange_event(core, c.x)
    elif c.state == CS_LINGER:
        linger_read(core, c)
    elif c.flags & CF_DEAD:
        client_close(core, c)
    elif c.flags & CF_PROXY and not introduced(core, c):
        return
    elif c.flags & CF_RAW:
        relay_event(core, c)
    elif c.inb != NULL and c.state == CS_IDLE:
        client_parse(core, c, 0)
    elif c.flags & (CF_READABLE | CF_PEER_SHUT):
        client_read(core, c)


cdef bint introduced(core_t *core, conn_t *c) noexcept nogil:
    """Whether it is known whose connection it is, or may become known later. Refused: cut, and logged like a request."""
    cdef const listener_t *listener = snapshot_listener(core.snapshot, c.listener)
    cdef int verdict = preface_take(c, listener) if listener != NULL else PREFACE_GONE
    cdef exch_t *x
    if verdict == PREFACE_DONE or verdict == PREFACE_LATER:
        return True
    if verdict == PREFACE_WAIT:
        return False
    x = exchange_new(core) if verdict == PREFACE_REFUSED else NULL
    if x == NULL:
        client_close(core, c)
        return False
    exchange_open(core, c, x, listener)
    nothing_known(core, x)
    x.flags |= XF_RAW
    request_source(x)
    respond_local(core, x, 0, CAUSE_CLIENT, preface_reason(c, listener))
    return False


# ---- between exchanges ------------------------------------------------------------------------------------------

cdef void client_read(core_t *core, conn_t *c) noexcept nogil:
    cdef uint32_t seen
    cdef int got
    if c.inb == NULL:
        c.inb = buf_take(&core.buffers, BUF_SMALL)
        if c.inb == NULL:
            client_close(core, c)
            return
    seen = buf_left(c.inb)
    got = conn_recv(c, buf_tail(c.inb), buf_room(c.inb))
    if got == IO_BLOCKED:
        if seen == 0:
            buf_give(&core.buffers, c.inb)
            c.inb = NULL
        return
    if got == IO_PLAIN:
        plain_refused(core, c)
        return
    if got <= 0:
        client_close(core, c)
        return
    c.inb.end += <uint32_t>got
    client_parse(core, c, seen)


cdef void client_parse(core_t *core, conn_t *c, uint32_t seen) noexcept nogil:
    """Start an exchange if a whole head is there."""
    cdef exch_t *x = exchange_new(core)
    cdef const listener_t *listener = snapshot_listener(core.snapshot, c.listener)
    cdef head_limits_t limits
    cdef int used
    if x == NULL or listener == NULL:
        if x != NULL:
            exchange_free(core, x)
        client_close(core, c)
        return
    limits.line = listener.line_max
    limits.head = listener.head_max
    limits.fields = listener.fields_max
    used = parse_request(buf_data(c.inb), buf_left(c.inb), seen, &limits, &x.req)
    if used == HEAD_NEED_MORE and buf_slide(c.inb):
        exchange_free(core, x)
        if c.state == CS_IDLE:
            c.state = CS_HEAD
            if c.served:
                conn_deadline(core, c, listener.header_ms)
        if c.flags & (CF_READABLE | CF_PEER_SHUT):
            client_read(core, c)
        return
    exchange_open(core, c, x, listener)
    if used > 0:
        c.inb.off += <uint32_t>used
        exchange_begin(core, x)
    else:
        head_refused(core, x, HEAD_TOO_LARGE if used == HEAD_NEED_MORE else used)



cdef void exchange_open(core_t *core, conn_t *c, exch_t *x, const listener_t *listener) noexcept nogil:
    x.client = c
    x.listener = listener
    x.snapshot = core.snapshot
    x.snapshot.refs += 1
    x.start_us = core.now_us
    x.head_buf = c.inb
    x.head = buf_data(c.inb) if c.inb != NULL else NULL
    x.flags = XF_REPLAYABLE
    c.x = x
    c.state = CS_EXCHANGE
    core.sb.slab[core.sb.me].clients_active += 1
    conn_deadline(core, c, 0)


cdef void plain_refused(core_t *core, conn_t *c) noexcept nogil:
    """Somebody speaks plain HTTP to a TLS listener and is told so in plain HTTP; what it sent is not looked at."""
    cdef exch_t *x = exchange_new(core)
    cdef const listener_t *listener = snapshot_listener(core.snapshot, c.listener)
    if x == NULL or listener == NULL:
        if x != NULL:
            exchange_free(core, x)
        client_close(core, c)
        return
    exchange_open(core, c, x, listener)
    nothing_known(core, x)
    respond_local(core, x, 400, CAUSE_CLIENT, b"this listener speaks HTTPS; plain HTTP was sent to it")


cdef void nothing_known(core_t *core, exch_t *x) noexcept nogil:
    """There is no request head that may be used, and the connection closes."""
    x.head = NULL
    x.req.n_fields = 0
    x.req.method_len = 0
    x.req.path_len = 0
    x.req.query_len = 0
    x.req.authority_len = 0
    x.req.target_len = 0
    x.flags |= XF_CLOSE
    request_identity_new(core, x)


cdef void head_refused(core_t *core, exch_t *x, int why) noexcept nogil:
    """Nothing of a refused head is used, and nothing behind it: the connection closes."""
    nothing_known(core, x)
    if why == HEAD_LINE_TOO_LONG:
        respond_local(core, x, 414, CAUSE_CLIENT, b"the request line is longer than this listener allows")
    elif why == HEAD_TOO_LARGE:
        respond_local(core, x, 431, CAUSE_CLIENT, b"the request head is larger than this listener allows")
    elif why == HEAD_BAD_VERSION:
        respond_local(core, x, 505, CAUSE_CLIENT, b"only HTTP/1.0 and HTTP/1.1 are spoken here")
    else:
        respond_local(core, x, 400, CAUSE_CLIENT, head_error())


cdef void request_identity_new(core_t *core, exch_t *x) noexcept nogil:
    cdef int i
    for i in range(28):
        x.req.first[i] = 0
    request_identity(core, x)


# ---- a request --------------------------------------------------------------------------------------------------

cdef void exchange_begin(core_t *core, exch_t *x) noexcept nogil:
    cdef const head_t *h = &x.req
    x.bytes_in = h.length
    if (core.now_us ^ <uint64_t>x.client.served) & SAMPLE_MASK == 0:
        x.flags |= XF_SAMPLED
    request_identity(core, x)
    request_source(x)
    connection_control(core, x)
    if not take_body_at_hand(core, x):
        respond_local(core, x, 400, CAUSE_CLIENT, b"the chunked request body is malformed")
    elif h.method == M_CONNECT:
        respond_local(core, x, 501, CAUSE_CLIENT, b"CONNECT is not served here")
    elif x.listener.body_max and (h.content_length > <long long>x.listener.body_max
                                  or x.up.bytes > x.listener.body_max):
        respond_local(core, x, 413, CAUSE_CLIENT, b"the request body is larger than this listener allows")
    else:
        exchange_route(core, x)


cdef void connection_control(core_t *core, exch_t *x) noexcept nogil:
    cdef const head_t *h = &x.req
    if h.method == M_HEAD:
        x.flags |= XF_HEAD_ONLY
    if h.minor == 0:
        x.flags |= XF_CLIENT_10
        if not h.flags & HEAD_KEEP_ALIVE:
            x.flags |= XF_CLOSE
            x.client.flags |= CF_CLOSE
    elif h.flags & HEAD_EXPECT:
        x.flags |= XF_EXPECT
    if h.flags & HEAD_CLOSE:
        x.client.flags |= CF_CLOSE
    if h.flags & HEAD_CLOSE or client_leaves(core, x.client):
        x.flags |= XF_CLOSE
    if x.listener.keepalive_requests and x.client.served + 1 >= x.listener.keepalive_requests:
        x.flags |= XF_CLOSE


cdef bint take_body_at_hand(core_t *core, exch_t *x) noexcept nogil:
    """Decode, where it stands, what came with the head. What stands behind the body stays in the input buffer."""
    cdef buf_t *b = x.head_buf
    cdef const head_t *h = &x.req
    cdef uint32_t data = 0, used = 0
    cdef int verdict
    if h.flags & HEAD_CHUNKED:
        x.up.body.kind = BODY_CHUNKED
        x.up.body.phase = CHUNK_SIZE
    elif h.content_length > 0:
        x.up.body.kind = BODY_LENGTH
        x.up.body.left = <uint64_t>h.content_length
    else:
        x.up.flags = SF_ENDED
        return True
    x.up.out = x.up.body.kind
    x.up.most = x.listener.body_max
    x.body_off = b.off
    verdict = body_feed(&x.up.body, buf_data(b), buf_left(b), &data, &used)
    x.body_n = data
    b.off += used
    x.up.bytes = data
    if verdict == FRAME_END and x.up.body.kind == BODY_CHUNKED:
        return take_trailers_at_hand(x)
    if verdict == FRAME_END:
        x.up.flags = SF_ENDED
    return verdict != FRAME_MALFORMED


cdef head_limits_t TRAILERS
TRAILERS.line = 8192
TRAILERS.head = 8192
TRAILERS.fields = 100
cdef head_t trailers


cdef bint take_trailers_at_hand(exch_t *x) noexcept nogil:
    cdef buf_t *b = x.head_buf
    cdef int used = parse_trailers(buf_data(b), buf_left(b), &TRAILERS, &trailers)
    if used == HEAD_NEED_MORE:
        return True
    if used < 0:
        return False
    x.trailer_off = b.off
    x.trailer_n = <uint32_t>used
    b.off += <uint32_t>used
    x.up.body.phase = CHUNK_DONE
    x.up.flags = SF_ENDED
    return True


cdef void exchange_route(core_t *core, exch_t *x) noexcept nogil:
    cdef uint32_t n = 0
    x.route = route_find(x.snapshot, x.listener.slot, x.head, &x.req)
    if x.route == NULL and route_doubtful(x.head, &x.req):
        respond_local(core, x, 400, CAUSE_CLIENT, b"the path may be read in more than one way")
    elif x.route == NULL:
        respond_local(core, x, 404, CAUSE_PROXY, b"no route for this host and path")
    elif x.route.action == ROUTE_RESPOND:
        respond_fixed(core, x, NULL, 0)
    elif x.route.action == ROUTE_REDIRECT:
        n = route_location(x.route, b"https" if x.client.tls != NULL else b"http", x.head, &x.req, location, LOCATION_MAX)
        if n:
            respond_fixed(core, x, location, n)
        else:
            respond_local(core, x, 414, CAUSE_CLIENT, b"the redirect would be too long")
    else:
        exchange_select(core, x)


cdef void exchange_select(core_t *core, exch_t *x) noexcept nogil:
    cdef uint64_t *earned
    x.service = route_service(x.snapshot, x.route)
    earned = &core.services[x.service.slot].earned_us
    # The first request of a service finds its floor saved up.
    budget_earn(&x.service.retry, &core.sb.svcstat[core.sb.me][x.service.slot],
                <double>(core.now_us - earned[0]) / 1e6)
    earned[0] = core.now_us
    if x.service.strategy == BAL_IP_HASH or x.service.strategy == BAL_CONSISTENT_HASH:
        x.key = balance_key(x)
    if x.service.sticky.kind == 1:
        read_sticky(core, x)
    if x.flags & XF_RAW:
        upstream_begin(core, x)
    elif unfinished_body(core, x):
        ask_upgrade(x)
        upstream_begin(core, x)
    else:
        respond_local(core, x, 503, CAUSE_PROXY, b"the proxy is out of memory")


cdef void ask_upgrade(exch_t *x) noexcept nogil:
    """One protocol, that the route passes on, in a request without a body (RFC 9110 7.8). Any other wish is not passed on, and
    the request is served as if it had not been there."""
    cdef const field_t *f
    cdef char name[UPGRADE_MAX + 2]
    cdef uint32_t i, n
    if not x.req.flags & HEAD_UPGRADE or x.up.body.kind != BODY_NONE or x.flags & XF_CLIENT_10:
        return
    f = &x.req.fields[x.req.first[<int>H_UPGRADE] - 1]
    n = f.value_len
    if n == 0 or n > UPGRADE_MAX:
        return
    name[0] = c','
    name[n + 1] = c','
    for i in range(n):
        name[i + 1] = x.head[f.value + i] + 32 if c'A' <= x.head[f.value + i] <= c'Z' else x.head[f.value + i]
        if name[i + 1] == c',':
            return
    if memmem(x.route.upgrades.p, x.route.upgrades.n, name, n + 2) != NULL:
        x.flags |= XF_UPGRADE


cdef bint unfinished_body(core_t *core, exch_t *x) noexcept nogil:
    """A body that comes later: whatever of it still stands raw in the input buffer belongs to the stream."""
    cdef buf_t *b = x.head_buf
    if x.up.flags & SF_ENDED:
        return True
    if buf_left(b):
        # Only the start of a trailer section can be left over; it is put together in the stream.
        x.up.raw = buf_copy(core, buf_data(b), buf_left(b))
        if x.up.raw == NULL:
            return False
        b.off = b.end
        x.flags &= ~<uint32_t>XF_REPLAYABLE
    conn_deadline(core, x.client, x.listener.body_idle_ms)
    return True


cdef void read_sticky(core_t *core, exch_t *x) noexcept nogil:
    cdef uint32_t i, off = 0, n = 0
    cdef const field_t *f
    cdef uint64_t identity = 0, until = 0
    cdef text_t name = x.service.sticky.name
    for i in range(x.req.n_fields):
        f = &x.req.fields[i]
        if f.id != H_COOKIE or not cookie_find(x.head + f.value, f.value_len, name.p, name.n, &off, &n):
            continue
        if sticky_read(x.service, x.head + f.value + off, n, core.wall_ms // 1000, &identity, &until) == STICKY_BOUND:
            x.bound = identity
            x.bound_until_s = until
        else:
            core.sb.svcstat[core.sb.me][x.service.slot].sticky_broken += 1
        return


cdef uint64_t balance_key(exch_t *x) noexcept nogil:
    cdef const char *p = NULL
    cdef uint32_t n = 0
    cdef uint8_t source = x.service.key_source
    if x.service.strategy == BAL_IP_HASH or x.flags & XF_RAW:
        return hash_bytes(<const char *>x.source, 16)
    if source == KEY_PATH:
        return hash_bytes(x.head + x.req.path, x.req.path_len)
    if source == KEY_HEADER:
        key_header(x, &p, &n)
    elif source == KEY_COOKIE:
        key_cookie(x, &p, &n)
    elif source == KEY_QUERY:
        key_query(x, &p, &n)
    if p != NULL:
        return hash_bytes(p, n)
    return hash_bytes(<const char *>x.source, 16)


cdef void key_header(exch_t *x, const char **p, uint32_t *n) noexcept nogil:
    cdef uint32_t i
    cdef const field_t *f
    cdef text_t name = x.service.key_name
    for i in range(x.req.n_fields):
        f = &x.req.fields[i]
        if f.name_len == name.n and equals_lower(x.head + f.name, name.p, name.n):
            p[0] = x.head + f.value
            n[0] = f.value_len
            return


cdef void key_cookie(exch_t *x, const char **p, uint32_t *n) noexcept nogil:
    cdef uint32_t i, off = 0
    cdef const field_t *f
    for i in range(x.req.n_fields):
        f = &x.req.fields[i]
        if f.id == H_COOKIE and cookie_find(x.head + f.value, f.value_len, x.service.key_name.p, x.service.key_name.n,
                                            &off, n):
            p[0] = x.head + f.value + off
            return


cdef void key_query(exch_t *x, const char **p, uint32_t *n) noexcept nogil:
    """The value of the first `name=value` of the query, undecoded."""
    cdef const char *q = x.head + x.req.query
    cdef uint32_t at = 0, stop
    cdef text_t name = x.service.key_name
    while at < x.req.query_len:
        stop = at
        while stop < x.req.query_len and q[stop] != c'&':
            stop += 1
        if stop - at > name.n and q[at + name.n] == c'=' and memcmp(q + at, name.p, name.n) == 0:
            p[0] = q + at + name.n + 1
            n[0] = stop - at - name.n - 1
            return
        at = stop + 1


# ---- while it runs ----------------------------------------------------------------------------------------------

cdef void exchange_event(core_t *core, exch_t *x) noexcept nogil:
    cdef conn_t *c = x.client
    if x.state == XS_TUNNEL:
        tunnel_run(core, x)
        return
    if c.flags & CF_DEAD:
        upstream_cancel(core, x, CAUSE_CLIENT, b"the client left before the answer was complete")
        return
    if x.state == XS_QUEUED:
        # Woken because there may be room; whoever is not first only had bytes of its body come in.
        if c.flags & CF_PEER_SHUT and x.listener.half_close_ms == 0:
            upstream_asked(core, x)
        elif core.services[x.service.slot].queue == x:
            upstream_begin(core, x)
        return
    if x.state == XS_LOCAL:
        if not c.flags & CF_BLOCKED:
            respond_flush_local(core, x)
        return
    if x.down.first != NULL and not c.flags & CF_BLOCKED:
        if x.state == XS_RESPONDING:
            upstream_response(core, x)
        else:
            upstream_interim(core, x)
        if c.x != x:
            return
    if (not x.up.flags & SF_ENDED and c.flags & CF_READABLE and x.upstream != NULL and x.state != XS_CONNECTING
            and not x.upstream.flags & CF_BLOCKED):
        upstream_body(core, x)
        if c.x != x:
            return
    if c.flags & CF_PEER_SHUT and x.up.flags & SF_ENDED:
        upstream_asked(core, x)


cdef void client_timeout(core_t *core, conn_t *c) noexcept nogil:
    if c.tls != NULL:
        tls_late(c)
    if c.state == CS_EXCHANGE:
        exchange_timeout(core, c.x)
    elif c.state == CS_HEAD and not c.flags & CF_RAW:
        head_timeout(core, c)
    else:
        client_close(core, c)


cdef void head_timeout(core_t *core, conn_t *c) noexcept nogil:
    cdef exch_t *x = exchange_new(core)
    cdef const listener_t *listener = snapshot_listener(core.snapshot, c.listener)
    if x == NULL or listener == NULL:
        if x != NULL:
            exchange_free(core, x)
        client_close(core, c)
        return
    exchange_open(core, c, x, listener)
    c.inb.off = c.inb.end
    nothing_known(core, x)
    respond_local(core, x, 408, CAUSE_TIMEOUT, b"the request head did not arrive in time")


cdef void exchange_timeout(core_t *core, exch_t *x) noexcept nogil:
    if x.state == XS_TUNNEL:
        tunnel_timeout(core, x)
    elif x.state == XS_QUEUED and x.client.flags & CF_PEER_SHUT:
        upstream_cancel(core, x, CAUSE_CLIENT, b"the client shut its side and is taken to have left")
    elif x.state == XS_QUEUED:
        upstream_drop(core, x, OUT_TIMEOUT)
        respond_local(core, x, 503, CAUSE_TIMEOUT, b"waited too long for a free endpoint")
    elif x.down.first != NULL:
        upstream_cancel(core, x, CAUSE_TIMEOUT, b"the client did not read its answer in time")
    elif not x.up.flags & SF_ENDED and not x.flags & XF_ANSWERED:
        upstream_drop(core, x, OUT_CANCEL)
        respond_local(core, x, 408, CAUSE_TIMEOUT, b"the request body did not arrive in time")
    elif not x.flags & XF_ANSWERED:
        upstream_cancel(core, x, CAUSE_CLIENT, b"the client shut its side and is taken to have left")
    else:
        upstream_cancel(core, x, CAUSE_TIMEOUT, b"the request body stopped while the answer was under way")


cdef void client_cut(core_t *core, conn_t *c) noexcept nogil:
    if c.x != NULL:
        upstream_cancel(core, c.x, CAUSE_PROXY, b"the proxy is stopping")
    else:
        client_close(core, c)


cdef void linger_read(core_t *core, conn_t *c) noexcept nogil:
    """Read and drop until the client is done or its time is over; a few reads a turn."""
    cdef int got, turn
    for turn in range(LINGER_READS):
        got = conn_recv(c, dropped, LINGER_READ)
        if got == IO_BLOCKED:
            return
        if got <= 0:
            client_close(core, c)
            return
    conn_ready(core, c)
