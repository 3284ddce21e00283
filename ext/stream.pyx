"""See stream.pxd."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset
from turnout.ext.buffers cimport (
    BUF_LARGE, BUF_PIPE, BUF_SMALL, HEADROOM, LARGE_BYTES, PIPE_BYTES, SMALL_BYTES, buf_data, buf_give, buf_give_chain, buf_left, buf_room,
    buf_t, buf_tail, buf_take, pool_close, pool_init,
)
from turnout.ext.conn cimport (
    IO_BLOCKED, IO_COPY, IO_ERROR, conn_deafen, conn_hear, conn_recv, conn_send, conn_splice_in, conn_splice_out,
)
from turnout.ext.core cimport (
    CF_BLOCKED, CF_CLOSE, CF_READABLE, SF_COPY, SF_ENDED, SF_FLUSHED, SF_FULL, SF_READ, SF_SOURCE_EOF, conn_t, core_t, stream_t,
)
from turnout.ext.framing cimport (
    BODY_CHUNKED, BODY_CLOSE, BODY_LENGTH, CHUNK_DONE, CHUNK_TRAILERS, FRAME_END, FRAME_MALFORMED, body_feed,
    chunk_frame,
)
from turnout.ext.headers cimport head_t
from turnout.ext.http1 cimport HEAD_NEED_MORE, head_limits_t, parse_trailers
from turnout.ext.text cimport out_field, out_length, out_open, out_put, out_t

cdef enum:
    READS_PER_TURN = 8        # then others have their turn
    TRAILERS_MAX = 8192       # bytes of a trailer section

cdef head_limits_t TRAILER_LIMITS
TRAILER_LIMITS.line = TRAILERS_MAX
TRAILER_LIMITS.head = TRAILERS_MAX
TRAILER_LIMITS.fields = 100

# One thread runs an engine; a parsed trailer section is used before the next is read.
cdef head_t trailers


cdef void stream_append(stream_t *s, buf_t *b) noexcept nogil:
    b.next = NULL
    if s.last != NULL:
        s.last.next = b
    else:
        s.first = b
    s.last = b


cdef void stream_prepend(stream_t *s, buf_t *b) noexcept nogil:
    b.next = s.first
    s.first = b
    if s.last == NULL:
        s.last = b


cdef void stream_clear(core_t *core, stream_t *s) noexcept nogil:
    if s.first != NULL:
        buf_give_chain(&core.buffers, s.first)
        s.first = NULL
        s.last = NULL
    if s.raw != NULL:
        buf_give(&core.buffers, s.raw)
        s.raw = NULL


cdef buf_t *buf_copy(core_t *core, const char *p, unsigned int n) noexcept nogil:
    cdef buf_t *b = buf_take(&core.buffers, BUF_LARGE if n > SMALL_BYTES else BUF_SMALL)
    if b == NULL:
        return NULL
    if buf_room(b) < n:
        buf_give(&core.buffers, b)
        return NULL
    memcpy(buf_tail(b), p, n)
    b.end += n
    return b


cdef bint stream_append_copy(core_t *core, stream_t *s, const char *p, unsigned int n) noexcept nogil:
    cdef buf_t *b
    cdef uint32_t part
    while n:
        part = n if n < SMALL_BYTES else SMALL_BYTES
        b = buf_copy(core, p, part)
        if b == NULL:
            return False
        stream_append(s, b)
        p += part
        n -= part
    return True


cdef int stream_feed(core_t *core, stream_t *s, buf_t *b, buf_t **rest) noexcept nogil:
    cdef uint32_t data = 0, used = 0, n = buf_left(b)
    cdef int verdict
    rest[0] = NULL
    if s.body.kind == BODY_CHUNKED and s.body.phase == CHUNK_TRAILERS:
        return feed_trailers(core, s, b, rest)
    verdict = body_feed(&s.body, buf_data(b), n, &data, &used)
    if verdict == FRAME_MALFORMED:
        buf_give(&core.buffers, b)
        return FEED_MALFORMED
    s.bytes += data
    if s.most and s.bytes > s.most:
        buf_give(&core.buffers, b)
        return FEED_TOO_LARGE
    if verdict == FRAME_END and s.body.kind == BODY_CHUNKED:
        return finish_chunked(core, s, b, data, used, rest)
    if used < n:
        rest[0] = buf_copy(core, buf_data(b) + used, n - used)
        if rest[0] == NULL:
            buf_give(&core.buffers, b)
            return FEED_MEMORY
    emit(core, s, b, data)
    if verdict == FRAME_END:
        s.flags |= SF_ENDED
    return FEED_OK


cdef void emit(core_t *core, stream_t *s, buf_t *b, uint32_t data) noexcept nogil:
    """Queue the first `data` bytes of b, framed for the sink; takes b."""
    if data == 0:
        buf_give(&core.buffers, b)
        return
    b.end = b.off + data
    if s.out == BODY_CHUNKED:
        b.off -= chunk_frame(buf_data(b), data)
        b.end += 2
    stream_append(s, b)


cdef int finish_chunked(core_t *core, stream_t *s, buf_t *b, uint32_t data, uint32_t used, buf_t **rest) noexcept nogil:
    """The last chunk is in; the trailer section starts at `used`. Takes b."""
    cdef uint32_t n = buf_left(b)
    cdef buf_t *tail
    cdef int got
    if n - used >= 2 and buf_data(b)[used] == c'\r' and buf_data(b)[used + 1] == c'\n':
        return finish_bare(core, s, b, data, used + 2, rest)
    tail = buf_copy(core, buf_data(b) + used, n - used)
    emit(core, s, b, data)
    if tail == NULL:
        return FEED_MEMORY
    return feed_trailers(core, s, tail, rest)


cdef int finish_bare(core_t *core, stream_t *s, buf_t *b, uint32_t data, uint32_t used, buf_t **rest) noexcept nogil:
    """No trailers: what ends the body for the sink fits where its old framing stood. Takes b."""
    cdef uint32_t n = buf_left(b)
    if used < n:
        rest[0] = buf_copy(core, buf_data(b) + used, n - used)
        if rest[0] == NULL:
            buf_give(&core.buffers, b)
            return FEED_MEMORY
    b.end = b.off + data
    if s.out == BODY_CHUNKED:
        if data:
            b.off -= chunk_frame(buf_data(b), data)
            b.end += 2
        memcpy(buf_tail(b), b"0\r\n\r\n", 5)
        b.end += 5
    if buf_left(b):
        stream_append(s, b)
    else:
        buf_give(&core.buffers, b)
    s.body.phase = CHUNK_DONE
    s.flags |= SF_ENDED
    return FEED_OK


cdef int feed_trailers(core_t *core, stream_t *s, buf_t *b, buf_t **rest) noexcept nogil:
    """Collect the trailer section in s.raw until it is whole. Takes b."""
    cdef int used
    cdef uint32_t n = buf_left(b)
    if s.raw == NULL:
        s.raw = b
    else:
        if buf_room(s.raw) < n:
            buf_give(&core.buffers, b)
            return FEED_MALFORMED
        memcpy(buf_tail(s.raw), buf_data(b), n)
        s.raw.end += n
        buf_give(&core.buffers, b)
    used = parse_trailers(buf_data(s.raw), buf_left(s.raw), &TRAILER_LIMITS, &trailers)
    if used == HEAD_NEED_MORE:
        return FEED_OK if buf_left(s.raw) < TRAILERS_MAX else FEED_MALFORMED
    if used < 0:
        return FEED_MALFORMED
    if s.out == BODY_CHUNKED and not emit_trailers(core, s):
        return FEED_MEMORY
    s.raw.off += <uint32_t>used
    if buf_left(s.raw):
        rest[0] = s.raw
    else:
        buf_give(&core.buffers, s.raw)
    s.raw = NULL
    s.body.phase = CHUNK_DONE
    s.flags |= SF_ENDED
    return FEED_OK


cdef void write_trailers(out_t *o, const char *base, const head_t *h) noexcept nogil:
    cdef uint32_t i
    out_put(o, b"0\r\n", 3)
    for i in range(h.n_fields):
        if not h.fields[i].skip:
            out_field(o, base + h.fields[i].name, h.fields[i].name_len, base + h.fields[i].value,
                      h.fields[i].value_len)
    out_put(o, b"\r\n", 2)


cdef bint emit_trailers(core_t *core, stream_t *s) noexcept nogil:
    cdef buf_t *b = buf_take(&core.buffers, BUF_SMALL)
    cdef out_t o
    if b == NULL:
        return False
    out_open(&o, buf_tail(b), buf_room(b))
    write_trailers(&o, buf_data(s.raw), &trailers)
    b.end += out_length(&o)
    stream_append(s, b)
    return True


cdef bint last_chunk(out_t *o, const char *p, uint32_t n) noexcept nogil:
    """The end of a chunked body whose trailer section stands at p[0:n]."""
    if parse_trailers(p, n, &TRAILER_LIMITS, &trailers) < 0:
        return False
    write_trailers(o, p, &trailers)
    return True


cdef int stream_end(core_t *core, stream_t *s) noexcept nogil:
    cdef buf_t *b
    s.flags |= SF_ENDED
    if s.out != BODY_CHUNKED:
        return FEED_OK
    b = buf_copy(core, b"0\r\n\r\n", 5)
    if b == NULL:
        return FEED_MEMORY
    stream_append(s, b)
    return FEED_OK


cdef inline bint more_follows(const stream_t *s, const buf_t *b, const conn_t *sink) noexcept nogil:
    """Another buffer, or the end of the connection: its FIN goes with the last bytes."""
    return b.next != NULL or (s.flags & SF_ENDED and sink.flags & CF_CLOSE)


cdef int stream_flush(core_t *core, stream_t *s, conn_t *sink) noexcept nogil:
    cdef buf_t *b
    cdef int put
    while s.first != NULL:
        if sink.flags & CF_BLOCKED:
            return 0
        b = s.first
        if b.klass == BUF_PIPE:
            put = conn_splice_out(core, sink, b, more_follows(s, b, sink))
        else:
            put = conn_send(core, sink, buf_data(b), buf_left(b), more_follows(s, b, sink))
        if put < 0:
            return 0 if put == IO_BLOCKED else -1
        s.wire += <uint32_t>put
        b.off += <uint32_t>put
        if b.off < b.end:
            return 0
        s.first = b.next
        if s.first == NULL:
            s.last = NULL
        buf_give(&core.buffers, b)
    return 1


cdef inline bint splices(const stream_t *s, const conn_t *source, const conn_t *sink) noexcept nogil:
    """Whether bytes pass on as they are, out of one socket into another."""
    return (s.body.kind == s.out and s.out != BODY_CHUNKED and not s.flags & SF_COPY
            and source.tls == NULL and sink.tls == NULL)


cdef inline uint32_t class_for(const stream_t *s, const conn_t *source, const conn_t *sink) noexcept nogil:
    """What to read into. Small until there is proof of more, or a promise: a pipe costs more than a small copy."""
    if s.flags & SF_FULL or (s.body.kind == BODY_LENGTH and s.body.left > SMALL_BYTES):
        return BUF_PIPE if splices(s, source, sink) else BUF_LARGE
    return BUF_SMALL


cdef inline int fill(const stream_t *s, conn_t *source, buf_t *b) noexcept nogil:
    """One read into an empty buffer; as conn_recv and conn_splice_in."""
    if b.klass != BUF_PIPE:
        return conn_recv(source, buf_tail(b), buf_room(b))
    if s.body.kind == BODY_LENGTH and s.body.left < PIPE_BYTES:
        return conn_splice_in(source, b, <uint32_t>s.body.left)
    return conn_splice_in(source, b, PIPE_BYTES)


cdef inline void note_size(stream_t *s, const buf_t *b) noexcept nogil:
    """Whether what has just been read calls for a large buffer next time."""
    if buf_left(b) >= SMALL_BYTES if b.klass == BUF_PIPE else buf_room(b) == 0:
        s.flags |= SF_FULL
    else:
        s.flags &= ~<uint32_t>SF_FULL


cdef int read_failed(core_t *core, stream_t *s, conn_t *source, int why) noexcept nogil:
    if why == IO_BLOCKED:
        conn_hear(core, source)
        return PUMP_SOURCE
    if why == IO_COPY:
        s.flags |= SF_COPY
        return -1
    return PUMP_SOURCE_BROKEN if why == IO_ERROR else source_ended(core, s)


cdef int read_some(core_t *core, stream_t *s, conn_t *source, const conn_t *sink, buf_t **rest) noexcept nogil:
    """One read, decoded and queued. -1: go on, else the pump_result that ends the turn."""
    cdef buf_t *b = buf_take(&core.buffers, class_for(s, source, sink))
    cdef int got
    if b == NULL:
        return PUMP_MEMORY
    got = fill(s, source, b)
    if got <= 0:
        buf_give(&core.buffers, b)
        return read_failed(core, s, source, got)
    b.end += <uint32_t>got
    s.flags |= SF_READ
    note_size(s, b)
    got = stream_feed(core, s, b, rest)
    if got < 0:
        return PUMP_MALFORMED if got == FEED_MALFORMED else PUMP_TOO_LARGE if got == FEED_TOO_LARGE else PUMP_MEMORY
    return -1


cdef int source_ended(core_t *core, stream_t *s) noexcept nogil:
    s.flags |= SF_SOURCE_EOF
    if s.body.kind != BODY_CLOSE:
        return PUMP_CUT
    return -1 if stream_end(core, s) == FEED_OK else PUMP_MEMORY


cdef inline void hold_back(core_t *core, const stream_t *s, conn_t *source) noexcept nogil:
    """Every segment for a session that waits for its sink would wake the worker for nothing: a tenth of what bulk costs.
    Only where the source is not used for anything after this stream."""
    if s.first.klass == BUF_PIPE and s.body.kind == BODY_CLOSE and not s.flags & SF_ENDED:
        conn_deafen(core, source)


cdef int stream_pump(core_t *core, stream_t *s, conn_t *source, conn_t *sink, buf_t **rest) noexcept nogil:
    cdef int turn = 0, stop
    rest[0] = NULL
    while True:
        stop = stream_flush(core, s, sink)
        if stop < 0:
            return PUMP_SINK_BROKEN
        if stop == 0:
            hold_back(core, s, source)
            return PUMP_SINK
        if s.flags & SF_ENDED:
            s.flags |= SF_FLUSHED
            return PUMP_DONE
        if not source.flags & CF_READABLE:
            conn_hear(core, source)
            return PUMP_SOURCE
        if turn == READS_PER_TURN:
            return PUMP_AGAIN
        turn += 1
        stop = read_some(core, s, source, sink, rest)
        if stop >= 0:
            return stop


# ---- for tests --------------------------------------------------------------------------------------------------

cdef bytes taken(core_t *core, buf_t *b):
    """The bytes of a chain, which is given back."""
    out = b""
    cdef buf_t *at = b
    while at != NULL:
        out += buf_data(at)[:buf_left(at)]
        at = at.next
    buf_give_chain(&core.buffers, b)
    return out


def _relay(int kind, uint64_t left, int out, list pieces):
    """Test access: raw pieces of a body through one stream, and the end of the connection behind them if nothing ended
    before: (FEED_*, what a sink of body_kind `out` gets, what stood behind the body, whether it ended, buffers lost)."""
    cdef core_t *core = <core_t *>calloc(1, sizeof(core_t))
    cdef stream_t s
    cdef buf_t *rest = NULL
    cdef int verdict = FEED_OK
    if core == NULL:
        raise MemoryError
    memset(&s, 0, sizeof(s))
    pool_init(&core.buffers, 16 * LARGE_BYTES)
    s.body.kind = <uint8_t>kind
    s.body.left = left
    s.out = <uint8_t>out
    wire = behind = b""
    for piece in pieces:
        if s.flags & SF_ENDED:
            behind += piece
            continue
        verdict = stream_feed(core, &s, buf_copy(core, piece, <uint32_t>len(piece)), &rest)
        wire += taken(core, s.first)
        s.first = s.last = NULL
        if verdict < 0:
            break
        if rest != NULL:
            behind += taken(core, rest)
    if verdict == FEED_OK and kind == BODY_CLOSE:
        verdict = stream_end(core, &s)
        wire += taken(core, s.first)
        s.first = s.last = NULL
    ended = bool(s.flags & SF_ENDED)
    stream_clear(core, &s)
    lost = core.buffers.n_used[BUF_SMALL] + core.buffers.n_used[BUF_LARGE]
    pool_close(&core.buffers)
    free(core)
    return verdict, wire, behind, ended, lost
