"""See upstream.pxd."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy
from turnout.ext.account cimport account_attempt
from turnout.ext.buffers cimport (
    BUF_LARGE, BUF_SMALL, HEADROOM, buf_data, buf_give, buf_left, buf_room, buf_slide, buf_t, buf_tail, buf_take,
)
from turnout.ext.conn cimport IO_BLOCKED, IO_ERROR, client_leaves, conn_deadline, conn_quiet, conn_ready, conn_recv, conn_send
from turnout.ext.core cimport (
    CF_BLOCKED, CF_DATAGRAM, CF_DEAD, CF_PEER_SHUT, CF_READABLE, CF_REUSED, CS_BUSY, CS_CONNECTING, CS_POOLED, SCRATCH_BYTES,
    SF_ENDED, SF_FLUSHED, SF_READ, TRIED_MAX, XF_ANSWERED, XF_CLIENT_10, XF_CLOSE, XF_EXPECT, XF_FRESH, XF_FROM_POOL, XF_HEAD_ONLY,
    XF_PICKED, XF_RAW, XF_REPLAYABLE, XF_SAMPLED, XF_SENT, XF_STICKY_ISSUE, XF_UP_DEAF, XF_UP_KEEP, XF_UPGRADE,
    XS_CONNECTING, XS_QUEUED,
    XS_RESPONDING, XS_START, XS_TUNNEL, XS_WAITING, conn_t, core_t, endpoint_t, exch_t, service_state_t,
)
from turnout.ext.datagram cimport datagram_answer, datagram_bound
from turnout.ext.endpoint cimport endpoint_close, endpoint_connect, endpoint_discard, endpoint_get, endpoint_keep, endpoint_reuse
from turnout.ext.framing cimport (
    BODY_CHUNKED, BODY_CLOSE, BODY_LENGTH, BODY_NONE, CHUNK_ROOM_BEFORE, CHUNK_SIZE, size_line,
)
from turnout.ext.headers cimport (
    H_IDEMPOTENCY_KEY, H_UPGRADE, HEAD_CHUNKED, HEAD_CLOSE, HEAD_KEEP_ALIVE, HEAD_UPGRADE, M_DELETE, M_GET, M_HEAD, M_OPTIONS, M_PUT, M_TRACE,
    field_t, head_t,
)
from turnout.ext.http1 cimport HEAD_NEED_MORE, head_limits_t, parse_response
from turnout.ext.kernel cimport clock_us
from turnout.ext.preface cimport preface_write
from turnout.ext.proxyproto cimport PROXY_OUT_MAX
from turnout.ext.relay cimport relay_dialled
from turnout.ext.request cimport request_head
from turnout.ext.respond cimport respond_abort, respond_finish, respond_head, respond_interim, respond_local
from turnout.ext.retry cimport attempt_t, budget_spend, retry_allowed
from turnout.ext.scoreboard cimport (
    CAUSE_CLIENT, CAUSE_CONNECT, CAUSE_NONE, CAUSE_PROXY, CAUSE_TIMEOUT, CAUSE_UPSTREAM, OUT_1XX, OUT_2XX, OUT_CANCEL,
    OUT_CONNECT, OUT_RESET, OUT_STALE, OUT_TIMEOUT, RETRY_CONNECT, RETRY_RESET, RETRY_STALE, RETRY_STATUS,
    RETRY_TIMEOUT, sb_svcstat_t,
)
from turnout.ext.select cimport PICK_BROKEN, PICK_BUSY, PICK_OK, PICK_STICKY, ask_t, hash_bytes, select_pick
from turnout.ext.snapshot cimport NEVER_MS, RETRY_ON_STATUS
from turnout.ext.stream cimport (
    FEED_OK, PUMP_AGAIN, PUMP_CUT, PUMP_DONE, PUMP_MALFORMED, PUMP_MEMORY, PUMP_SINK, PUMP_SINK_BROKEN,
    PUMP_SOURCE, PUMP_SOURCE_BROKEN, PUMP_TOO_LARGE, buf_copy, last_chunk, stream_append, stream_append_copy,
    stream_clear, stream_feed, stream_flush, stream_prepend, stream_pump,
)
from turnout.ext.tls cimport tls_any_protocol, tls_late, tls_reason
from turnout.ext.tunnel cimport tunnel_run, tunnel_upgrade
from turnout.ext.text cimport out_length, out_open, out_put, out_t

cdef extern from "<strings.h>" nogil:
    int strncasecmp(const char *, const char *, size_t)

cdef enum:
    INTERIM_MAX = 100         # 1xx responses before a final one

cdef head_limits_t RESPONSE_LIMITS
RESPONSE_LIMITS.line = 8192
RESPONSE_LIMITS.head = 32768
RESPONSE_LIMITS.fields = 100

# One thread runs an engine; a parsed response head is used before the next is read.
cdef head_t answer


cdef inline sb_svcstat_t *svcstat(core_t *core, const exch_t *x) noexcept nogil:
    return &core.sb.svcstat[core.sb.me][x.service.slot]


# ---- picking ----------------------------------------------------------------------------------------------------

cdef void upstream_begin(core_t *core, exch_t *x) noexcept nogil:
    cdef uint32_t slot = x.service.slot
    cdef bint waited = x.state == XS_QUEUED
    cdef int verdict = PICK_BUSY if not waited and others_wait(core, x) else pick(core, x)
    if verdict == PICK_BUSY and waited:
        return
    if waited:
        queue_leave(core, x)
        # There may be room for more than one.
        queue_wake(core, slot)
    if verdict == PICK_OK:
        attempt(core, x)
    elif verdict == PICK_BUSY and not x.client.flags & CF_DATAGRAM and queue_enter(core, x):
        return
    elif verdict == PICK_BUSY:
        svcstat(core, x).queue_full += 1
        respond_local(core, x, 503, CAUSE_PROXY, b"every endpoint of the service is at its limit and the queue is full")
    elif x.cause != CAUSE_NONE:
        respond_local(core, x, x.status if x.status else 502, x.cause, x.reason)
    else:
        respond_local(core, x, 503, CAUSE_PROXY, b"no endpoint of the service can take requests")


cdef int pick(core_t *core, exch_t *x) noexcept nogil:
    cdef ask_t ask
    cdef int verdict
    ask.service = x.service
    ask.key = x.key
    ask.bound = x.bound
    ask.source = hash_bytes(<const char *>x.source, 16)
    ask.now_ms = core.now_ms
    ask.now_us = core.now_us
    ask.n_tried = x.n_tried
    memcpy(ask.tried, x.tried, sizeof(ask.tried))
    verdict = select_pick(core.selector, &ask, &x.pick)
    if verdict != PICK_OK:
        return verdict
    x.flags |= XF_PICKED
    x.last = x.pick.member
    x.pick_us = core.now_us
    x.connected_us = 0
    x.sent_us = 0
    x.first_us = 0
    if x.service.sticky.kind == 1 and (not x.pick.flags & PICK_STICKY or x.service.sticky.sliding):
        x.flags |= XF_STICKY_ISSUE
        if not x.pick.flags & PICK_STICKY:
            x.bound_until_s = 0
    return PICK_OK


# ---- the queue of a service -------------------------------------------------------------------------------------

cdef bint others_wait(core_t *core, const exch_t *x) noexcept nogil:
    """Whether a new request has to stand behind others, though there may be room by now. Not behind one that some
    endpoints have failed: it waits for those left. A bound session may have an endpoint that takes no others."""
    cdef const exch_t *first = core.services[x.service.slot].queue
    return first != NULL and first.n_tried == 0 and x.tries == 0 and not x.bound


cdef bint queue_enter(core_t *core, exch_t *x) noexcept nogil:
    """At the end; a request that had its place before and lost its endpoint, at the front."""
    cdef service_state_t *q = &core.services[x.service.slot]
    if x.tries:
        queue_insert_first(q, x)
    elif q.n_queued < x.service.queue:
        queue_insert_last(q, x)
    else:
        return False
    q.n_queued += 1
    x.queued_us = core.now_us
    x.state = XS_QUEUED
    svcstat(core, x).queue_waits += 1
    svcstat(core, x).queued = q.n_queued
    conn_deadline(core, x.client, x.service.queue_ms)
    return True


cdef void queue_insert_last(service_state_t *q, exch_t *x) noexcept nogil:
    x.next = NULL
    x.prev = q.queue_last
    if q.queue_last != NULL:
        q.queue_last.next = x
    else:
        q.queue = x
    q.queue_last = x


cdef void queue_insert_first(service_state_t *q, exch_t *x) noexcept nogil:
    x.prev = NULL
    x.next = q.queue
    if q.queue != NULL:
        q.queue.prev = x
    else:
        q.queue_last = x
    q.queue = x


cdef void queue_leave(core_t *core, exch_t *x) noexcept nogil:
    cdef service_state_t *q = &core.services[x.service.slot]
    if x.prev != NULL:
        x.prev.next = x.next
    else:
        q.queue = x.next
    if x.next != NULL:
        x.next.prev = x.prev
    else:
        q.queue_last = x.prev
    x.next = NULL
    x.prev = NULL
    q.n_queued -= 1
    x.state = XS_START
    svcstat(core, x).queued = q.n_queued
    svcstat(core, x).queue_wait_us += core.now_us - x.queued_us
    conn_deadline(core, x.client, 0)


cdef void queue_wake(core_t *core, unsigned int service_slot) noexcept nogil:
    cdef service_state_t *q = &core.services[service_slot]
    if q.queue != NULL:
        conn_ready(core, q.queue.client)


# ---- an attempt -------------------------------------------------------------------------------------------------

cdef bint must_not_repeat(const exch_t *x) noexcept nogil:
    return not (x.service.retry.methods >> x.req.method) & 1


cdef void attempt(core_t *core, exch_t *x) noexcept nogil:
    cdef endpoint_t *e = endpoint_get(core, x.pick.member)
    cdef conn_t *u = NULL
    cdef bint refused = False
    x.flags &= ~<uint32_t>(XF_FROM_POOL | XF_SENT | XF_UP_KEEP | XF_UP_DEAF)
    x.up.flags &= ~<uint32_t>SF_FLUSHED
    if e == NULL:
        account_attempt(core, x, OUT_CANCEL)
        respond_local(core, x, 503, CAUSE_PROXY, b"the proxy is out of memory")
        return
    x.tries += 1
    if not x.flags & XF_FRESH and not x.service.proxy_version:
        u = endpoint_reuse(core, e, x.client.flags & CF_DATAGRAM != 0, must_not_repeat(x))
    if u != NULL:
        x.flags |= XF_FROM_POOL
        x.connected_us = core.now_us
        x.state = XS_WAITING
    else:
        u = endpoint_connect(core, e, x.pick.member, x.client.flags & CF_DATAGRAM != 0, &refused)
        if u == NULL and not refused:
            upstream_drop(core, x, OUT_CANCEL)
            respond_local(core, x, 503, CAUSE_PROXY, b"the proxy is out of descriptors, ports or memory")
            return
        if u == NULL:
            attempt_failed(core, x, RETRY_CONNECT, OUT_CONNECT, b"the endpoint refused the connection")
            return
        x.state = XS_CONNECTING
        conn_deadline(core, u, x.service.connect_ms)
    u.x = x
    x.upstream = u
    send_request(core, x)


cdef void send_request(core_t *core, exch_t *x) noexcept nogil:
    """Write the head and what is at hand of the body in one piece; the rest goes through the stream."""
    cdef conn_t *u = x.upstream
    cdef out_t o
    cdef char header[PROXY_OUT_MAX]
    cdef int put
    cdef uint32_t n
    if x.client.flags & CF_DATAGRAM:
        datagram_bound(core, x)
        return
    if x.flags & XF_RAW:
        u.flags |= CF_BLOCKED     # nothing to send yet: the edge tells when it is connected
        if u.tls != NULL:
            tls_any_protocol(u)
        return
    out_open(&o, core.scratch, SCRATCH_BYTES)
    out_put(&o, header, preface_write(x, header))
    request_head(core, x, &o)
    put_body_at_hand(x, &o)
    n = out_length(&o)
    if o.full:
        upstream_drop(core, x, OUT_CANCEL)
        respond_local(core, x, 431, CAUSE_CLIENT, b"the request head is too large to pass on")
        return
    put = conn_send(core, u, core.scratch, n, False)
    if put == IO_ERROR:
        x.up.wire = 0
        broken_before_answer(core, x)
        return
    if put == IO_BLOCKED:
        put = 0
    x.up.wire = <uint32_t>put
    if not stream_append_copy(core, &x.up, core.scratch + put, n - <uint32_t>put):
        upstream_drop(core, x, OUT_CANCEL)
        respond_local(core, x, 503, CAUSE_PROXY, b"the proxy is out of memory")
        return
    if put > 0:
        request_went(core, x)
    # Also when the endpoint took only part of it: whatever deadline the connection had is replaced.
    if x.state != XS_CONNECTING:
        upstream_body(core, x)


cdef void request_went(core_t *core, exch_t *x) noexcept nogil:
    """The first bytes of the request are in the kernel's hands on a live connection."""
    x.flags |= XF_SENT
    x.sent_us = core.now_us
    if x.state == XS_CONNECTING:
        x.connected_us = core.now_us
        x.state = XS_WAITING
        x.upstream.state = CS_BUSY
    if x.flags & XF_SAMPLED:
        x.proxy_us += clock_us() - core.now_us


cdef void put_body_at_hand(exch_t *x, out_t *o) noexcept nogil:
    if x.up.out != BODY_CHUNKED:
        out_put(o, &x.head_buf.base[0] + x.body_off, x.body_n)
        return
    if x.body_n:
        put_chunk(o, &x.head_buf.base[0] + x.body_off, x.body_n)
    if x.trailer_n and not last_chunk(o, &x.head_buf.base[0] + x.trailer_off, x.trailer_n):
        o.full = True


cdef void put_chunk(out_t *o, const char *p, uint32_t n) noexcept nogil:
    cdef char size[CHUNK_ROOM_BEFORE]
    cdef uint32_t before = size_line(n, size + CHUNK_ROOM_BEFORE)
    out_put(o, size + CHUNK_ROOM_BEFORE - before, before)
    out_put(o, p, n)
    out_put(o, b"\r\n", 2)


# ---- events -----------------------------------------------------------------------------------------------------

cdef bint body_moves(const exch_t *x, const conn_t *u) noexcept nogil:
    """Whether there is something to write to the endpoint, and room for it or a reason to learn that it is gone."""
    if x.up.flags & SF_FLUSHED or (u.flags & CF_BLOCKED and not u.flags & CF_DEAD):
        return False
    return x.up.first != NULL or x.up.flags & SF_ENDED or x.client.flags & CF_READABLE


cdef void upstream_event(core_t *core, conn_t *u) noexcept nogil:
    cdef exch_t *x = u.x
    if x == NULL:
        pooled_event(core, u)
    elif x.client.flags & CF_DATAGRAM:
        datagram_answer(core, x)
    elif x.state == XS_TUNNEL:
        tunnel_run(core, x)
    elif x.flags & XF_RAW:
        relay_dialled(core, x)
    else:
        attempt_event(core, u)


cdef void attempt_event(core_t *core, conn_t *u) noexcept nogil:
    cdef exch_t *x = u.x
    if body_moves(x, u):
        upstream_body(core, x)
        if u.x != x:
            return
    if u.flags & (CF_READABLE | CF_PEER_SHUT | CF_DEAD):
        # What the client has no room for stays where it is, and gives the client no more time.
        if x.down.first != NULL and x.client.flags & CF_BLOCKED:
            return
        if x.state == XS_RESPONDING:
            upstream_response(core, x)
        elif x.state == XS_WAITING or x.state == XS_CONNECTING:
            read_answer(core, x)


cdef void pooled_event(core_t *core, conn_t *u) noexcept nogil:
    """Bytes or an end make a pooled connection useless. An edge may be older than the last read, or say no more than
    that the socket takes bytes again."""
    if u.flags & (CF_PEER_SHUT | CF_DEAD) or (u.flags & CF_READABLE and (u.flags & CF_DATAGRAM or not conn_quiet(u))):
        endpoint_discard(core, u)
    else:
        u.flags &= ~<uint32_t>CF_READABLE


cdef void upstream_body(core_t *core, exch_t *x) noexcept nogil:
    cdef buf_t *rest
    cdef conn_t *u = x.upstream
    cdef uint64_t before = x.up.wire
    cdef int stop
    if x.flags & XF_UP_DEAF or x.up.flags & SF_FLUSHED:
        return
    stop = stream_pump(core, &x.up, x.client, u, &rest)
    if rest != NULL:
        x.rest = rest
    if x.up.wire > before and not x.flags & XF_SENT:
        request_went(core, x)
    if x.up.flags & SF_READ:
        x.flags &= ~<uint32_t>XF_REPLAYABLE
    body_stopped(core, x, stop)


cdef void body_stopped(core_t *core, exch_t *x, int stop) noexcept nogil:
    cdef conn_t *u = x.upstream
    if stop == PUMP_DONE:
        if x.state == XS_WAITING:
            conn_deadline(core, u, x.service.response_ms)
        upstream_asked(core, x)
    elif stop == PUMP_SOURCE or stop == PUMP_AGAIN:
        resume_client(core, x)
        body_deadline(core, x)
        if x.state == XS_WAITING:
            conn_deadline(core, u, 0)
        if stop == PUMP_AGAIN:
            conn_ready(core, u)
    elif stop == PUMP_SINK:
        pause_client(core, x)
        if x.state == XS_WAITING:
            conn_deadline(core, u, x.service.response_ms)
    elif stop == PUMP_SINK_BROKEN:
        upstream_deaf(core, x)
    elif x.flags & XF_ANSWERED:
        # The answer is already on its way; what is wrong with the request cannot be told any more.
        upstream_drop(core, x, OUT_CANCEL)
        x.cause = CAUSE_CLIENT
        respond_abort(core, x)
    elif stop == PUMP_MALFORMED:
        upstream_drop(core, x, OUT_CANCEL)
        respond_local(core, x, 400, CAUSE_CLIENT, b"the chunked request body is malformed")
    elif stop == PUMP_TOO_LARGE:
        upstream_drop(core, x, OUT_CANCEL)
        respond_local(core, x, 413, CAUSE_CLIENT, b"the request body is larger than this listener allows")
    elif stop == PUMP_MEMORY:
        upstream_drop(core, x, OUT_CANCEL)
        respond_local(core, x, 503, CAUSE_PROXY, b"the proxy is out of memory")
    elif stop == PUMP_CUT:
        upstream_drop(core, x, OUT_CANCEL)
        respond_local(core, x, 400, CAUSE_CLIENT, b"the request body ended early")
    else:
        upstream_cancel(core, x, CAUSE_CLIENT, b"the client left while sending")


cdef void upstream_asked(core_t *core, exch_t *x) noexcept nogil:
    cdef conn_t *c = x.client
    if not c.flags & CF_PEER_SHUT or x.flags & XF_ANSWERED:
        if x.down.first == NULL:
            conn_deadline(core, c, 0)
    elif x.listener.half_close_ms == 0:
        upstream_cancel(core, x, CAUSE_CLIENT, b"the client shut its side before the answer was complete")
    else:
        conn_deadline(core, c, x.listener.half_close_ms if x.listener.half_close_ms != NEVER_MS else 0)


cdef void body_deadline(core_t *core, exch_t *x) noexcept nogil:
    """Idle limit, and the average rate that a body must keep up with."""
    cdef uint64_t idle = x.listener.body_idle_ms, due
    if idle == 0:
        conn_deadline(core, x.client, 0)
        return
    if x.body_base_ms == 0:
        x.body_base_ms = core.now_ms
    if x.listener.body_rate:
        due = x.body_base_ms + idle + x.up.bytes * 1000 // x.listener.body_rate
        if due < core.now_ms + idle:
            idle = due - core.now_ms if due > core.now_ms else 1
    conn_deadline(core, x.client, idle)


cdef void pause_client(core_t *core, exch_t *x) noexcept nogil:
    if x.paused_ms == 0:
        x.paused_ms = core.now_ms
    if not x.down.first:
        conn_deadline(core, x.client, 0)


cdef void resume_client(core_t *core, exch_t *x) noexcept nogil:
    if x.paused_ms and x.body_base_ms:
        x.body_base_ms += core.now_ms - x.paused_ms
    x.paused_ms = 0


cdef void upstream_deaf(core_t *core, exch_t *x) noexcept nogil:
    """Writing failed. The endpoint may have answered before it closed: that answer counts."""
    x.flags |= XF_UP_DEAF
    stream_clear(core, &x.up)
    if x.state == XS_CONNECTING:
        broken_before_answer(core, x)
        return
    if x.down.first == NULL:
        conn_deadline(core, x.client, 0)
    x.upstream.flags |= CF_READABLE
    if x.state == XS_WAITING:
        conn_deadline(core, x.upstream, x.service.response_ms)
        read_answer(core, x)


cdef void broken_before_answer(core_t *core, exch_t *x) noexcept nogil:
    if x.state == XS_CONNECTING:
        attempt_failed(core, x, RETRY_CONNECT, OUT_CONNECT,
                       tls_reason(x.upstream, b"the endpoint could not be reached"))
    elif x.flags & XF_FROM_POOL:
        attempt_failed(core, x, RETRY_STALE, OUT_STALE, b"the endpoint closed a kept connection")
    else:
        attempt_failed(core, x, RETRY_RESET, OUT_RESET,
                       tls_reason(x.upstream, b"the endpoint closed the connection without an answer"))


cdef void upstream_unreachable(core_t *core, exch_t *x) noexcept nogil:
    broken_before_answer(core, x)


cdef void upstream_timeout(core_t *core, conn_t *u) noexcept nogil:
    cdef exch_t *x = u.x
    if x == NULL:
        endpoint_close(core, u)
    elif x.state == XS_CONNECTING:
        if u.tls != NULL:
            tls_late(u)
        attempt_failed(core, x, RETRY_CONNECT, OUT_CONNECT, b"connecting to the endpoint took too long")
    elif x.state == XS_WAITING:
        attempt_failed(core, x, RETRY_TIMEOUT, OUT_TIMEOUT, b"the endpoint did not answer in time")
    else:
        x.cause = CAUSE_TIMEOUT
        x.reason = b"the endpoint stopped sending its answer"
        upstream_drop(core, x, OUT_TIMEOUT)
        respond_abort(core, x)


# ---- the answer -------------------------------------------------------------------------------------------------

cdef void read_answer(core_t *core, exch_t *x) noexcept nogil:
    """Read until the final response head is whole, passing interim responses on."""
    cdef conn_t *u = x.upstream
    cdef uint32_t seen
    cdef int got, verdict
    if u.inb == NULL:
        u.inb = buf_take(&core.buffers, BUF_SMALL)
        if u.inb == NULL:
            upstream_drop(core, x, OUT_CANCEL)
            respond_local(core, x, 503, CAUSE_PROXY, b"the proxy is out of memory")
            return
    while True:
        seen = buf_left(u.inb)
        got = conn_recv(u, buf_tail(u.inb), buf_room(u.inb))
        if got <= 0:
            if got != IO_BLOCKED:
                answer_missing(core, x)
            elif seen == 0:
                buf_give(&core.buffers, u.inb)
                u.inb = NULL
            return
        u.inb.end += <uint32_t>got
        if x.first_us == 0:
            x.first_us = core.now_us
        verdict = take_heads(core, x, seen)
        if verdict <= 0:
            return
        if not u.flags & CF_READABLE:
            return


cdef void answer_missing(core_t *core, exch_t *x) noexcept nogil:
    if x.first_us == 0:
        broken_before_answer(core, x)
    else:
        attempt_failed(core, x, RETRY_RESET, OUT_RESET, b"the endpoint closed the connection inside its answer's head")


cdef bint upgraded(const exch_t *x, const char *base) noexcept nogil:
    """Whether the answer switches to the protocol that was asked for."""
    cdef const field_t *asked
    cdef const field_t *given
    if answer.status != 101 or not x.flags & XF_UPGRADE or not answer.flags & HEAD_UPGRADE:
        return False
    asked = &x.req.fields[x.req.first[<int>H_UPGRADE] - 1]
    given = &answer.fields[answer.first[<int>H_UPGRADE] - 1]
    return given.value_len == asked.value_len and strncasecmp(base + given.value, x.head + asked.value, asked.value_len) == 0


cdef int take_heads(core_t *core, exch_t *x, uint32_t seen) noexcept nogil:
    """Parse what is there. 1: read on, 0: the answer has begun or the exchange went elsewhere."""
    cdef conn_t *u = x.upstream
    cdef int used
    while True:
        used = parse_response(buf_data(u.inb), buf_left(u.inb), seen, &RESPONSE_LIMITS, &answer)
        if used == HEAD_NEED_MORE:
            if buf_slide(u.inb):
                return 1
            used = -1
        if used > 0 and upgraded(x, buf_data(u.inb)):
            tunnel_upgrade(core, x, &answer, <uint32_t>used)
            return 0
        if used < 0 or answer.status == 101:
            attempt_failed(core, x, RETRY_RESET, OUT_RESET, b"the endpoint's answer is malformed")
            return 0
        if answer.status >= 200:
            begin_answer(core, x, <uint32_t>used)
            return 0
        if x.interim >= INTERIM_MAX:
            attempt_failed(core, x, RETRY_RESET, OUT_RESET, b"the endpoint sent too many interim answers")
            return 0
        x.interim += 1
        if not respond_interim(core, x, &answer, buf_data(u.inb)):
            upstream_cancel(core, x, CAUSE_CLIENT, b"the client left")
            return 0
        u.inb.off += <uint32_t>used
        seen = 0
        if x.down.first != NULL:
            # The time is the client's now.
            conn_deadline(core, u, 0)
            conn_deadline(core, x.client, x.listener.body_idle_ms)
            return 0
        if buf_left(u.inb) == 0:
            u.inb.off = HEADROOM
            u.inb.end = HEADROOM
            return 1


cdef void upstream_interim(core_t *core, exch_t *x) noexcept nogil:
    cdef int left = stream_flush(core, &x.down, x.client)
    cdef conn_t *u = x.upstream
    if left < 0:
        upstream_cancel(core, x, CAUSE_CLIENT, b"the client left")
    elif left == 0:
        conn_deadline(core, x.client, x.listener.body_idle_ms)
    elif u != NULL:
        conn_deadline(core, x.client, 0)
        upstream_body(core, x)
        if x.client.x != x or x.upstream != u or x.state != XS_WAITING:
            return
        if x.up.flags & SF_FLUSHED:
            conn_deadline(core, u, x.service.response_ms)
        if u.inb == NULL or buf_left(u.inb) == 0 or take_heads(core, x, 0) > 0:
            read_answer(core, x)


cdef inline bint status_retried(const exch_t *x, uint32_t status) noexcept nogil:
    cdef uint32_t bit = status - 100
    return x.service.retry.on & RETRY_ON_STATUS and bit < 512 and (x.service.retry.statuses[bit >> 6] >> (bit & 63)) & 1


cdef void answer_framing(exch_t *x) noexcept nogil:
    """RFC 9112 6.3."""
    cdef bint old_client = x.flags & XF_CLIENT_10
    x.flags |= XF_UP_KEEP
    if x.flags & XF_HEAD_ONLY or answer.status == 204 or answer.status == 304:
        x.down.body.kind = BODY_NONE
    elif answer.flags & HEAD_CHUNKED:
        x.down.body.kind = BODY_CHUNKED
        x.down.body.phase = CHUNK_SIZE
    elif answer.content_length >= 0:
        x.down.body.kind = BODY_LENGTH if answer.content_length else BODY_NONE
        x.down.body.left = <uint64_t>answer.content_length
    else:
        x.down.body.kind = BODY_CLOSE
        x.flags &= ~<uint32_t>XF_UP_KEEP
    x.down.out = x.down.body.kind
    if x.down.body.kind == BODY_CHUNKED or x.down.body.kind == BODY_CLOSE:
        x.down.out = BODY_CLOSE if old_client else BODY_CHUNKED
        if old_client:
            x.flags |= XF_CLOSE
    if x.down.body.kind == BODY_NONE:
        x.down.flags |= SF_ENDED
    if answer.flags & HEAD_CLOSE or (answer.minor == 0 and not answer.flags & HEAD_KEEP_ALIVE):
        x.flags &= ~<uint32_t>XF_UP_KEEP


cdef void begin_answer(core_t *core, exch_t *x, uint32_t used) noexcept nogil:
    cdef conn_t *u = x.upstream
    cdef buf_t *b = u.inb
    cdef buf_t *rest = NULL
    cdef bint clean = x.down.first == NULL
    cdef uint32_t n
    x.status = answer.status
    if status_retried(x, answer.status):
        x.cause = CAUSE_UPSTREAM
        x.reason = b"no other endpoint could take the request after the first one's answer"
        if retry(core, x, RETRY_STATUS, OUT_2XX + answer.status // 100 - 2):
            return
    answer_framing(x)
    if client_leaves(core, x.client) or ends_early(x, buf_left(b) - used):
        x.flags |= XF_CLOSE
    x.flags |= XF_ANSWERED
    x.state = XS_RESPONDING
    x.cause = CAUSE_NONE
    x.reason = NULL
    n = respond_head(core, x, &answer, buf_data(b), core.scratch, SCRATCH_BYTES)
    u.inb = NULL
    b.off += used
    if n == 0:
        buf_give(&core.buffers, b)
        upstream_drop(core, x, OUT_RESET)
        respond_local(core, x, 502, CAUSE_UPSTREAM, b"the answer's head is too large to pass on")
        return
    if not lead_with_head(core, x, b, n, &rest):
        upstream_drop(core, x, OUT_RESET)
        answer_unfit(core, x, clean)
        return
    if rest != NULL:
        buf_give(&core.buffers, rest)
        x.flags &= ~<uint32_t>XF_UP_KEEP
    upstream_response(core, x)


cdef bint ends_early(const exch_t *x, uint32_t have) noexcept nogil:
    """Whether the answer will be over before the request is, as far as can be told: the connection cannot go on then.
    A client that waits for 100 and gets a final answer may never send its body."""
    if x.up.flags & SF_ENDED:
        return False
    if x.flags & XF_UP_DEAF or x.flags & XF_EXPECT and x.up.bytes == 0 and x.interim == 0:
        return True
    return x.down.body.kind == BODY_NONE or (x.down.body.kind == BODY_LENGTH and x.down.body.left <= have)


cdef void answer_unfit(core_t *core, exch_t *x, bint clean) noexcept nogil:
    """The first bytes of the body are no body. `clean`: nothing of the answer has been written to the client."""
    cdef const char *phrase = b"the body of the endpoint's answer is malformed"
    if clean:
        stream_clear(core, &x.down)
        x.flags &= ~<uint32_t>XF_ANSWERED
        respond_local(core, x, 502, CAUSE_UPSTREAM, phrase)
        return
    x.cause = CAUSE_UPSTREAM
    x.reason = phrase
    respond_abort(core, x)


cdef bint lead_with_head(core_t *core, exch_t *x, buf_t *b, uint32_t n, buf_t **rest) noexcept nogil:
    """Queue the rewritten head (n bytes of scratch) with the body bytes of b behind it; takes b."""
    cdef bint body = buf_left(b) and x.down.body.kind != BODY_NONE
    cdef buf_t *head
    if buf_left(b) and not body:
        x.flags &= ~<uint32_t>XF_UP_KEEP
    if x.down.first == NULL and body:
        return head_in_front(core, x, b, n, rest)
    # Nothing behind the head, or interim answers still wait for the client: the head in a buffer of its own.
    head = buf_copy(core, core.scratch, n)
    if head == NULL:
        buf_give(&core.buffers, b)
        return False
    stream_append(&x.down, head)
    if body:
        return stream_feed(core, &x.down, b, rest) == FEED_OK
    buf_give(&core.buffers, b)
    return True


cdef bint head_in_front(core_t *core, exch_t *x, buf_t *b, uint32_t n, buf_t **rest) noexcept nogil:
    """The new head goes into the room before the body, where the old one stood, so that one write carries both."""
    cdef buf_t *first
    if stream_feed(core, &x.down, b, rest) < 0:
        return False
    first = x.down.first
    if first != NULL and first.off >= n:
        first.off -= n
        memcpy(buf_data(first), core.scratch, n)
        return True
    first = buf_copy(core, core.scratch, n)
    if first == NULL:
        return False
    stream_prepend(&x.down, first)
    return True


cdef void upstream_response(core_t *core, exch_t *x) noexcept nogil:
    cdef conn_t *u = x.upstream
    cdef buf_t *rest
    cdef int stop = stream_pump(core, &x.down, u, x.client, &rest)
    if rest != NULL:
        buf_give(&core.buffers, rest)
        x.flags &= ~<uint32_t>XF_UP_KEEP
    if x.flags & XF_SAMPLED and stop == PUMP_DONE:
        x.proxy_us += clock_us() - core.now_us
    if stop == PUMP_DONE:
        answered(core, x)
    elif stop == PUMP_SOURCE or stop == PUMP_AGAIN:
        conn_deadline(core, u, x.service.idle_ms)
        if x.up.flags & SF_ENDED or x.flags & XF_UP_DEAF:
            conn_deadline(core, x.client, 0)
        if stop == PUMP_AGAIN:
            conn_ready(core, u)
    elif stop == PUMP_SINK:
        conn_deadline(core, u, 0)
        conn_deadline(core, x.client, x.listener.body_idle_ms)
    elif stop == PUMP_SINK_BROKEN:
        upstream_cancel(core, x, CAUSE_CLIENT, b"the client left")
    else:
        x.cause = CAUSE_PROXY if stop == PUMP_MEMORY else CAUSE_UPSTREAM
        x.reason = b"the endpoint's answer was cut short or malformed"
        upstream_drop(core, x, OUT_RESET)
        respond_abort(core, x)


cdef void answered(core_t *core, exch_t *x) noexcept nogil:
    """The whole answer is with the client."""
    cdef conn_t *u = x.upstream
    cdef uint32_t slot = x.service.slot
    cdef bint keep = x.flags & XF_UP_KEEP and x.up.flags & SF_FLUSHED and not x.flags & XF_UP_DEAF
    account_attempt(core, x, OUT_1XX + x.status // 100 - 1)
    x.upstream = NULL
    u.x = NULL
    if keep:
        endpoint_keep(core, u.endpoint, u, x.service)
    else:
        endpoint_close(core, u)
    respond_finish(core, x)
    queue_wake(core, slot)


# ---- when it goes wrong -----------------------------------------------------------------------------------------

cdef void upstream_drop(core_t *core, exch_t *x, int outcome) noexcept nogil:
    cdef conn_t *u = x.upstream
    if x.state == XS_QUEUED:
        queue_leave(core, x)
        if outcome == OUT_TIMEOUT:
            svcstat(core, x).queue_timeouts += 1
    if x.flags & XF_PICKED:
        account_attempt(core, x, outcome)
        queue_wake(core, x.service.slot)
    if u != NULL:
        x.upstream = NULL
        u.x = NULL
        endpoint_close(core, u)
    stream_clear(core, &x.up)


cdef void upstream_cancel(core_t *core, exch_t *x, int cause, const char *reason) noexcept nogil:
    upstream_drop(core, x, OUT_CANCEL)
    x.cause = cause
    x.reason = reason
    if not x.flags & XF_ANSWERED:
        x.status = 0
    respond_abort(core, x)


cdef bint retry(core_t *core, exch_t *x, int reason, int outcome) noexcept nogil:
    """Give the attempt up for another one, if the rules and the budget allow it."""
    cdef attempt_t a
    a.reason = reason
    a.method = x.req.method
    a.sent = x.flags & XF_SENT != 0
    a.replayable = x.flags & XF_REPLAYABLE != 0
    a.answered = x.flags & XF_ANSWERED != 0
    a.keyed = x.req.first[<int>H_IDEMPOTENCY_KEY] != 0
    a.tries = x.tries
    a.stale_tries = x.stale_tries
    a.status = x.status
    if not retry_allowed(&x.service.retry, &a):
        return False
    if reason != RETRY_STALE and not budget_spend(svcstat(core, x)):
        return False
    svcstat(core, x).retries[reason] += 1
    if reason == RETRY_STALE:
        x.stale_tries += 1
        x.tries -= 1
        x.flags |= XF_FRESH
    elif x.n_tried < TRIED_MAX:
        x.tried[x.n_tried] = x.pick.slot
        x.n_tried += 1
    upstream_drop(core, x, outcome)
    x.state = XS_START
    upstream_begin(core, x)
    return True


cdef void attempt_failed(core_t *core, exch_t *x, int reason, int outcome, const char *phrase) noexcept nogil:
    cdef bint late = reason == RETRY_TIMEOUT or (reason == RETRY_CONNECT and x.upstream != NULL
                                                 and not x.upstream.flags & CF_DEAD)
    x.reason = phrase
    x.cause = CAUSE_CONNECT if reason == RETRY_CONNECT else CAUSE_TIMEOUT if late else CAUSE_UPSTREAM
    x.status = 504 if late else 502
    if retry(core, x, reason, outcome):
        return
    upstream_drop(core, x, outcome)
    respond_local(core, x, 504 if late else 502, x.cause, phrase)
