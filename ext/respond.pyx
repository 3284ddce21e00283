"""See respond.pxd."""

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset, strlen
from turnout.ext.account cimport account_exchange
from turnout.ext.buffers cimport SMALL_BYTES, buf_give, buf_left, buf_t
from turnout.ext.conn cimport client_leaves, conn_close, conn_deadline, conn_end, conn_ready, conn_reset_on_close, conn_send
from turnout.ext.core cimport (
    CF_DATAGRAM, CF_DEAD, CF_PEER_SHUT, CF_READABLE, CS_EXCHANGE, CS_IDLE, CS_LINGER, SCRATCH_BYTES, SF_ENDED, XF_CLIENT_10, XF_CLOSE, XF_HEAD_ONLY, XF_RAW, XF_SLIM,
    XF_STICKY_ISSUE, XS_DONE, XS_LOCAL, conn_t, core_t, exch_t,
)
from turnout.ext.datagram cimport datagram_forget
from turnout.ext.edits cimport put_edits, put_fields, put_upgrade
from turnout.ext.framing cimport BODY_CHUNKED
from turnout.ext.headers cimport H_ACCEPT, field_t, head_t, token_listed
from turnout.ext.sticky cimport STICKY_COOKIE_MAX, sticky_write
from turnout.ext.stream cimport buf_copy, stream_append, stream_append_copy, stream_clear, stream_flush
from turnout.ext.text cimport out_field, out_length, out_open, out_put, out_t, out_text, out_uint

cdef enum:
    LINGER_MS = 2000
    DRAIN_IDLE_MS = 1000      # while draining: for one more request, which is told to close


cdef exch_t *exchange_new(core_t *core) noexcept nogil:
    cdef exch_t *x = core.free_exchanges
    if x != NULL:
        core.free_exchanges = x.next
    else:
        x = <exch_t *>malloc(sizeof(exch_t))
        if x == NULL:
            return NULL
    # The parsed head is the last field and by far the largest; its parser fills it.
    memset(x, 0, <size_t>(<char *>&x.req - <char *>x))
    core.n_exchanges += 1
    return x


cdef void exchange_free(core_t *core, exch_t *x) noexcept nogil:
    stream_clear(core, &x.up)
    stream_clear(core, &x.down)
    if x.rest != NULL:
        buf_give(&core.buffers, x.rest)
    if x.snapshot != NULL:
        x.snapshot.refs -= 1
    core.n_exchanges -= 1
    if x.flags & XF_SLIM:
        free(x)
    else:
        recycle(core, x)


cdef void recycle(core_t *core, exch_t *x) noexcept nogil:
    x.next = core.free_exchanges
    core.free_exchanges = x


cdef exch_t *exchange_slim(core_t *core, exch_t *x) noexcept nogil:
    cdef size_t own = <size_t>(<char *>&x.req.fields - <char *>x)
    cdef exch_t *s = <exch_t *>malloc(own + x.req.method_len + x.req.authority_len + x.req.path_len + x.req.query_len)
    cdef char *at = <char *>s + own
    if s == NULL:
        return x
    memcpy(s, x, own)
    s.flags |= XF_SLIM
    s.head = at
    s.head_buf = NULL
    s.req.n_fields = 0
    at = keep_text(s, x.head, &s.req.start, x.req.method_len, at)
    at = keep_text(s, x.head, &s.req.authority, x.req.authority_len, at)
    at = keep_text(s, x.head, &s.req.path, x.req.path_len, at)
    if x.req.query:
        at = keep_text(s, x.head, &s.req.query, x.req.query_len, at)
    s.client.x = s
    s.upstream.x = s
    if s.client.inb != NULL:
        buf_give(&core.buffers, s.client.inb)
        s.client.inb = NULL
    recycle(core, x)
    return s


cdef char *keep_text(exch_t *s, const char *head, uint32_t *offset, uint32_t n, char *at) noexcept nogil:
    """Copy n bytes that stood at head[*offset] to `at`, in front of which s.head starts; where the next may go."""
    if n:
        memcpy(at, head + offset[0], n)
    offset[0] = <uint32_t>(at - s.head)
    return at + n


cdef void put_status(out_t *o, uint32_t status, const char *reason, uint32_t n) noexcept nogil:
    out_put(o, b"HTTP/1.1 ", 9)
    out_uint(o, status)
    out_put(o, b" ", 1)
    out_put(o, reason, n)
    out_put(o, b"\r\n", 2)


cdef void put_length(out_t *o, uint64_t n) noexcept nogil:
    out_put(o, b"Content-Length: ", 16)
    out_uint(o, n)
    out_put(o, b"\r\n", 2)


cdef void put_connection(out_t *o, const exch_t *x) noexcept nogil:
    if x.flags & XF_CLOSE:
        out_put(o, b"Connection: close\r\n", 19)
    elif x.flags & XF_CLIENT_10:
        out_put(o, b"Connection: keep-alive\r\n", 24)


cdef void put_hsts(out_t *o, const exch_t *x) noexcept nogil:
    if x.listener.hsts.n and x.client.tls != NULL:
        out_field(o, b"Strict-Transport-Security", 25, x.listener.hsts.p, x.listener.hsts.n)


cdef void put_sticky(core_t *core, out_t *o, exch_t *x) noexcept nogil:
    cdef char cookie[STICKY_COOKIE_MAX + 1024]
    cdef uint64_t now_s = core.wall_ms // 1000
    cdef uint64_t until = now_s + x.service.sticky.ttl_s
    cdef uint32_t n
    if x.bound_until_s and not x.service.sticky.sliding:
        until = x.bound_until_s
    n = sticky_write(x.service, x.pick.member, until, now_s, cookie, sizeof(cookie))
    if n:
        out_field(o, b"Set-Cookie", 10, cookie, n)


cdef uint32_t respond_head(core_t *core, exch_t *x, const head_t *h, const char *base, char *out, uint32_t cap) noexcept nogil:
    cdef out_t o
    out_open(&o, out, cap)
    put_status(&o, h.status, base + h.target, h.target_len)
    put_fields(&o, h, base, &x.route.response, 0)
    if x.down.out == BODY_CHUNKED:
        out_put(&o, b"Transfer-Encoding: chunked\r\n", 28)
    elif h.content_length >= 0 and h.status >= 200 and h.status != 204:
        put_length(&o, <uint64_t>h.content_length)
    if x.flags & XF_STICKY_ISSUE:
        put_sticky(core, &o, x)
    put_hsts(&o, x)
    if h.status == 101:
        put_upgrade(&o, h, base)
    else:
        put_connection(&o, x)
    out_put(&o, b"\r\n", 2)
    return 0 if o.full else out_length(&o)


cdef bint respond_interim(core_t *core, exch_t *x, const head_t *h, const char *base) noexcept nogil:
    cdef out_t o
    cdef uint32_t i
    cdef buf_t *b
    if x.flags & XF_CLIENT_10:
        return True
    out_open(&o, core.scratch, SCRATCH_BYTES)
    put_status(&o, h.status, base + h.target, h.target_len)
    for i in range(h.n_fields):
        if not h.fields[i].skip:
            out_field(&o, base + h.fields[i].name, h.fields[i].name_len, base + h.fields[i].value, h.fields[i].value_len)
    out_put(&o, b"\r\n", 2)
    if o.full:
        return True
    b = buf_copy(core, core.scratch, out_length(&o))
    if b == NULL:
        return False
    stream_append(&x.down, b)
    return stream_flush(core, &x.down, x.client) >= 0


cdef const char *status_text(uint32_t status) noexcept nogil:
    """Reason phrases of what the proxy itself answers (RFC 9110 15)."""
    if status == 200:
        return b"OK"
    if status == 301:
        return b"Moved Permanently"
    if status == 302:
        return b"Found"
    if status == 303:
        return b"See Other"
    if status == 307:
        return b"Temporary Redirect"
    if status == 308:
        return b"Permanent Redirect"
    if status == 400:
        return b"Bad Request"
    if status == 403:
        return b"Forbidden"
    if status == 404:
        return b"Not Found"
    if status == 405:
        return b"Method Not Allowed"
    if status == 408:
        return b"Request Timeout"
    if status == 410:
        return b"Gone"
    if status == 413:
        return b"Content Too Large"
    if status == 414:
        return b"URI Too Long"
    if status == 429:
        return b"Too Many Requests"
    if status == 431:
        return b"Request Header Fields Too Large"
    if status == 500:
        return b"Internal Server Error"
    if status == 501:
        return b"Not Implemented"
    if status == 502:
        return b"Bad Gateway"
    if status == 503:
        return b"Service Unavailable"
    if status == 504:
        return b"Gateway Timeout"
    if status == 505:
        return b"HTTP Version Not Supported"
    return b""


cdef bint wants_json(const exch_t *x) noexcept nogil:
    cdef uint32_t i
    cdef const field_t *f
    if x.head == NULL or not x.req.n_fields:
        return False
    for i in range(x.req.n_fields):
        f = &x.req.fields[i]
        if f.id == H_ACCEPT and (
            token_listed(x.head + f.value, f.value_len, b"application/json", 16)
            or token_listed(x.head + f.value, f.value_len, b"application/problem+json", 24)
        ):
            return True
    return False


cdef void put_explanation(out_t *o, const exch_t *x, uint32_t status, const char *reason, bint json) noexcept nogil:
    """The body of a proxy-made answer. `reason` and the request id need no escaping."""
    cdef const char *phrase = status_text(status)
    if json:
        out_put(o, b'{"status": ', 11)
        out_uint(o, status)
        out_put(o, b', "title": "', 12)
        out_put(o, phrase, <uint32_t>strlen(phrase))
        out_put(o, b'", "detail": "', 14)
        out_put(o, reason, <uint32_t>strlen(reason))
        out_put(o, b'", "request_id": "', 18)
        out_put(o, x.request_id, x.id_len)
        out_put(o, b'"}\n', 3)
        return
    out_uint(o, status)
    out_put(o, b" ", 1)
    out_put(o, phrase, <uint32_t>strlen(phrase))
    out_put(o, b": ", 2)
    out_put(o, reason, <uint32_t>strlen(reason))
    out_put(o, b"\n", 1)


cdef void respond_local(core_t *core, exch_t *x, uint32_t status, int cause, const char *reason) noexcept nogil:
    if x.flags & XF_RAW:
        x.cause = cause
        x.reason = reason
        respond_abort(core, x)
    else:
        answer_local(core, x, status, cause, reason)


cdef void answer_local(core_t *core, exch_t *x, uint32_t status, int cause, const char *reason) noexcept nogil:
    cdef char body[512]
    cdef out_t b, o
    cdef const char *phrase = status_text(status)
    cdef bint json = wants_json(x)
    out_open(&b, body, sizeof(body))
    put_explanation(&b, x, status, reason, json)
    x.cause = cause
    x.reason = reason
    start_local(core, x, status)
    out_open(&o, core.scratch, SCRATCH_BYTES)
    put_status(&o, status, phrase, <uint32_t>strlen(phrase))
    if json:
        out_put(&o, b"Content-Type: application/json\r\n", 32)
    else:
        out_put(&o, b"Content-Type: text/plain; charset=utf-8\r\n", 41)
    if status == 503:
        out_put(&o, b"Retry-After: 1\r\n", 16)
    if x.id_len:
        out_field(&o, b"X-Request-ID", 12, x.request_id, x.id_len)
    put_length(&o, out_length(&b))
    put_hsts(&o, x)
    put_connection(&o, x)
    out_put(&o, b"\r\n", 2)
    if not x.flags & XF_HEAD_ONLY:
        out_put(&o, body, out_length(&b))
    send_local(core, x, &o, NULL, 0)


cdef void start_local(core_t *core, exch_t *x, uint32_t status) noexcept nogil:
    """Whatever was on its way to the client has not been sent (the caller saw to it) or was interim and whole."""
    x.status = <uint16_t>status
    x.state = XS_LOCAL
    stream_clear(core, &x.up)
    if not x.up.flags & SF_ENDED or client_leaves(core, x.client):
        x.flags |= XF_CLOSE


cdef void respond_fixed(core_t *core, exch_t *x, const char *location, uint32_t location_n) noexcept nogil:
    cdef out_t o
    cdef const char *phrase = status_text(x.route.status)
    cdef bint bodiless = x.route.status == 204 or x.route.status == 304
    cdef uint32_t n = 0 if bodiless or x.flags & XF_HEAD_ONLY else x.route.body.n
    start_local(core, x, x.route.status)
    out_open(&o, core.scratch, SCRATCH_BYTES)
    put_status(&o, x.route.status, phrase, <uint32_t>strlen(phrase))
    if location_n:
        out_field(&o, b"Location", 8, location, location_n)
    if x.route.content_type.n:
        out_field(&o, b"Content-Type", 12, x.route.content_type.p, x.route.content_type.n)
    put_edits(&o, &x.route.response)
    if not bodiless:
        put_length(&o, x.route.body.n)
    put_hsts(&o, x)
    put_connection(&o, x)
    out_put(&o, b"\r\n", 2)
    if o.full:
        respond_abort(core, x)
        return
    if out_length(&o) + n <= SMALL_BYTES:
        out_put(&o, x.route.body.p, n)     # one write for both
        n = 0
    send_local(core, x, &o, x.route.body.p, n)


cdef void send_local(core_t *core, exch_t *x, out_t *o, const char *body, uint32_t n) noexcept nogil:
    """Queue what was written, and n bytes of body behind it, and write."""
    cdef buf_t *b = buf_copy(core, o.start, out_length(o))
    if b == NULL:
        respond_abort(core, x)
        return
    stream_append(&x.down, b)
    if not stream_append_copy(core, &x.down, body, n):
        respond_abort(core, x)
        return
    respond_flush_local(core, x)


cdef void respond_flush_local(core_t *core, exch_t *x) noexcept nogil:
    cdef int done = stream_flush(core, &x.down, x.client)
    if done < 0:
        x.flags |= XF_CLOSE
        respond_finish(core, x)
    elif done:
        respond_finish(core, x)
    else:
        conn_deadline(core, x.client, x.listener.body_idle_ms)


cdef void respond_finish(core_t *core, exch_t *x) noexcept nogil:
    cdef conn_t *c = x.client
    cdef buf_t *rest = x.rest
    cdef bint unread = not x.up.flags & SF_ENDED
    cdef bint close = x.flags & XF_CLOSE or unread
    cdef uint32_t keepalive_ms = DRAIN_IDLE_MS if client_leaves(core, c) else x.listener.keepalive_ms
    x.state = XS_DONE
    x.bytes_out = x.down.wire
    x.done_us = core.now_us
    account_exchange(core, x)
    x.rest = NULL
    c.x = NULL
    c.served += 1
    if rest != NULL:
        buf_give(&core.buffers, c.inb)
        c.inb = rest
    elif c.inb != NULL and buf_left(c.inb) == 0:
        buf_give(&core.buffers, c.inb)
        c.inb = NULL
    exchange_free(core, x)
    core.sb.slab[core.sb.me].clients_active -= 1
    if c.flags & CF_DEAD:
        client_close(core, c)
    elif close:
        if unread or c.inb != NULL or c.flags & CF_READABLE:
            client_linger(core, c)
        else:
            client_close(core, c)
    else:
        c.state = CS_IDLE
        conn_deadline(core, c, keepalive_ms)
        if c.inb != NULL or c.flags & (CF_READABLE | CF_PEER_SHUT):
            conn_ready(core, c)


cdef void respond_abort(core_t *core, exch_t *x) noexcept nogil:
    cdef conn_t *c = x.client
    # For a body that runs to the end of the connection only a reset tells that it is not whole.
    conn_reset_on_close(c)
    c.flags |= CF_DEAD
    stream_clear(core, &x.down)
    respond_finish(core, x)


cdef void client_close(core_t *core, conn_t *c) noexcept nogil:
    if c.prev != NULL:
        c.prev.next = c.next
    else:
        core.clients = c.next
    if c.next != NULL:
        c.next.prev = c.prev
    core.n_clients -= 1
    core.sb.slab[core.sb.me].clients = core.n_clients
    core.sb.listen_open[core.sb.me][c.listener] -= 1
    if c.flags & CF_DATAGRAM:
        datagram_forget(core, c)
    conn_close(core, c)


cdef void client_linger(core_t *core, conn_t *c) noexcept nogil:
    if c.inb != NULL:
        buf_give(&core.buffers, c.inb)
        c.inb = NULL
    if conn_end(c) < 0:
        client_close(core, c)
        return
    c.state = CS_LINGER
    conn_deadline(core, c, LINGER_MS)
    if c.flags & CF_READABLE:
        conn_ready(core, c)
