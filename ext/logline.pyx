"""See logline.pxd."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.errno cimport ENOSPC
from libc.string cimport memcpy, memmove, strlen
from turnout.ext.core cimport CF_DATAGRAM, XF_FROM_POOL, XF_RAW, core_t, exch_t, log_t
from turnout.ext.kernel cimport EAGAIN, EINTR, errno, write
from turnout.ext.scoreboard cimport CAUSE_NONE, CAUSE_N
from turnout.ext.select cimport PICK_STICKY
from turnout.ext.tls cimport tls_cipher, tls_sni, tls_subject, tls_version
from turnout.ext.text cimport address_text, out_length, out_open, out_put, out_t, out_text, out_uint

cdef enum:
    RECORD_MAX = 16384        # bytes of one record; longer values are cut
    VALUE_MAX = 2048          # bytes of one value before escaping

cdef const char *CAUSE_NAMES[CAUSE_N]
CAUSE_NAMES[:] = [b"none", b"client", b"proxy", b"connect", b"upstream", b"timeout"]


cdef bint log_wanted(const core_t *core, const exch_t *x) noexcept nogil:
    cdef uint64_t dice
    if x.route == NULL:
        return True
    if x.route.log_errors and (x.cause != CAUSE_NONE or not x.flags & XF_RAW and (x.status >= 500 or x.status == 0)):
        return True
    # A tunnel is as slow as it was to stand.
    if x.route.slow_ms and (x.settled_us if x.settled_us else x.done_us) - x.start_us >= <uint64_t>x.route.slow_ms * 1000:
        return True
    if x.route.log_per_million >= 1000000:
        return True
    # Any mixing of the exchange's own times is even enough to sample by.
    dice = (x.start_us ^ (<uint64_t>x.client.index << 20) ^ x.client.served) * <uint64_t>0x9E3779B97F4A7C15ULL
    return (dice >> 32) % 1000000 < x.route.log_per_million


cdef void log_flush(core_t *core) noexcept nogil:
    cdef log_t *log = &core.log
    cdef uint32_t at = 0, lines = 0, i
    cdef ssize_t put
    if log.fd < 0:
        log.n = 0
    while at < log.n:
        put = write(log.fd, log.data + at, log.n - at)
        if put < 0 and errno == EINTR:
            continue
        if put <= 0:
            break
        at += <uint32_t>put
    if at < log.n and (errno == EAGAIN or errno == ENOSPC):
        # The reader is behind: the rest, which may start inside a line, waits. Records that find no room are dropped.
        memmove(log.data, log.data + at, log.n - at)
        log.n -= at
        return
    for i in range(at, log.n):
        lines += log.data[i] == c'\n'
    core.sb.slab[core.sb.me].log_dropped += lines
    log.n = 0


cdef void put_escaped(out_t *o, const char *p, uint32_t n) noexcept nogil:
    """A JSON string. Bytes above ASCII are written as the code points of the same number, so any bytes make valid JSON."""
    cdef uint32_t i, run = 0
    cdef uint8_t c
    cdef char code[6]
    if n > VALUE_MAX:
        n = VALUE_MAX
    out_put(o, b'"', 1)
    for i in range(n):
        c = <uint8_t>p[i]
        if 0x20 <= c < 0x7f and c != c'"' and c != c'\\':
            continue
        out_put(o, p + run, i - run)
        run = i + 1
        if c == c'"' or c == c'\\':
            code[0] = c'\\'
            code[1] = <char>c
            out_put(o, code, 2)
            continue
        memcpy(code, b"\\u00", 4)
        code[4] = b"0123456789abcdef"[c >> 4]
        code[5] = b"0123456789abcdef"[c & 15]
        out_put(o, code, 6)
    out_put(o, p + run, n - run)
    out_put(o, b'"', 1)


cdef void put_key(out_t *o, const char *key) noexcept nogil:
    out_put(o, b', "', 3)
    out_put(o, key, <uint32_t>strlen(key))
    out_put(o, b'": ', 3)


cdef void put_string(out_t *o, const char *key, const char *p, uint32_t n) noexcept nogil:
    put_key(o, key)
    put_escaped(o, p, n)


cdef void put_bool(out_t *o, const char *key, bint v) noexcept nogil:
    put_key(o, key)
    out_put(o, b"true" if v else b"false", 4 if v else 5)


cdef void put_number(out_t *o, const char *key, uint64_t v) noexcept nogil:
    put_key(o, key)
    out_uint(o, v)


cdef void put_two(out_t *o, uint32_t v) noexcept nogil:
    cdef char two[2]
    two[0] = <char>(c'0' + v // 10 % 10)
    two[1] = <char>(c'0' + v % 10)
    out_put(o, two, 2)


cdef void put_ms(out_t *o, const char *key, uint64_t from_us, uint64_t to_us) noexcept nogil:
    """A time in milliseconds with three decimals; null when either end did not happen."""
    cdef uint64_t us = to_us - from_us
    put_key(o, key)
    if from_us == 0 or to_us < from_us:
        out_put(o, b"null", 4)
        return
    out_uint(o, us // 1000)
    out_put(o, b".", 1)
    out_uint(o, us // 100 % 10)
    put_two(o, <uint32_t>(us % 100))


cdef void put_time(out_t *o, uint64_t wall_ms) noexcept nogil:
    """RFC 3339 in UTC with milliseconds (days to a civil date: Hinnant, "chrono-compatible low-level date algorithms")."""
    cdef uint64_t s = wall_ms // 1000, day = s // 86400
    cdef uint32_t left = <uint32_t>(s % 86400)
    cdef uint64_t z = day + 719468
    cdef uint64_t era = z // 146097
    cdef uint32_t doe = <uint32_t>(z - era * 146097)
    cdef uint32_t yoe = (doe - doe // 1460 + doe // 36524 - doe // 146096) // 365
    cdef uint32_t doy = doe - (365 * yoe + yoe // 4 - yoe // 100)
    cdef uint32_t mp = (5 * doy + 2) // 153
    cdef uint32_t month = mp + 3 if mp < 10 else mp - 9
    out_uint(o, yoe + era * 400 + (1 if month <= 2 else 0))
    out_put(o, b"-", 1)
    put_two(o, month)
    out_put(o, b"-", 1)
    put_two(o, doy - (153 * mp + 2) // 5 + 1)
    out_put(o, b"T", 1)
    put_two(o, left // 3600)
    out_put(o, b":", 1)
    put_two(o, left // 60 % 60)
    out_put(o, b":", 1)
    put_two(o, left % 60)
    out_put(o, b".", 1)
    out_uint(o, wall_ms // 100 % 10)
    put_two(o, <uint32_t>(wall_ms % 100))
    out_put(o, b"Z", 1)


cdef void put_request(out_t *o, const exch_t *x) noexcept nogil:
    cdef char address[48]
    put_string(o, b"client", address, address_text(x.source, address))
    put_string(o, b"listener", x.listener.name.p, x.listener.name.n)
    if x.flags & XF_RAW:
        put_string(o, b"protocol", b"UDP" if x.client.flags & CF_DATAGRAM else b"TCP", 3)
        if x.req.authority_len:
            put_string(o, b"server_name", x.head + x.req.authority, x.req.authority_len)
        return
    if x.head == NULL:
        return
    put_string(o, b"method", x.head + x.req.start, x.req.method_len)
    put_string(o, b"host", x.head + x.req.authority, x.req.authority_len)
    put_string(o, b"path", x.head + x.req.path, x.req.path_len)
    if x.req.query:
        put_string(o, b"query", x.head + x.req.query, x.req.query_len)
    put_string(o, b"protocol", b"HTTP/1.1" if x.req.minor else b"HTTP/1.0", 8)


cdef void put_tls(out_t *o, const exch_t *x) noexcept nogil:
    cdef const char *name
    if x.client.tls == NULL:
        return
    put_string(o, b"tls", tls_version(x.client), 7)
    name = tls_cipher(x.client)
    put_string(o, b"cipher", name, <uint32_t>strlen(name))
    name = tls_sni(x.client)
    if name != NULL:
        put_string(o, b"sni", name, <uint32_t>strlen(name))
    name = tls_subject(x.client)
    if name != NULL:
        put_string(o, b"client_subject", name, <uint32_t>strlen(name))


cdef void put_route(out_t *o, const exch_t *x) noexcept nogil:
    if x.route == NULL:
        return
    put_string(o, b"route", x.route.name.p, x.route.name.n)
    if x.service == NULL:
        return
    put_string(o, b"service", x.service.name.p, x.service.name.n)
    if x.last != NULL:
        put_string(o, b"version", x.last.version.p, x.last.version.n)
        put_string(o, b"endpoint", x.last.name.p, x.last.name.n)
        if not x.flags & XF_RAW:
            put_bool(o, b"reused", x.flags & XF_FROM_POOL)
        put_bool(o, b"sticky", x.pick.flags & PICK_STICKY)
    put_number(o, b"tries", x.tries + x.stale_tries)


cdef void put_outcome(out_t *o, const exch_t *x) noexcept nogil:
    if not x.flags & XF_RAW:
        put_number(o, b"status", x.status)
    put_string(o, b"cause", CAUSE_NAMES[x.cause], <uint32_t>strlen(CAUSE_NAMES[x.cause]))
    if x.reason != NULL:
        put_string(o, b"reason", x.reason, <uint32_t>strlen(x.reason))
    put_number(o, b"bytes_in", x.bytes_in)
    put_number(o, b"bytes_out", x.bytes_out)
    put_ms(o, b"total_ms", x.start_us, x.done_us)
    if x.service == NULL:
        return
    put_ms(o, b"queue_ms", x.queued_us, x.pick_us)
    put_ms(o, b"connect_ms", 0 if x.flags & XF_FROM_POOL else x.pick_us, x.connected_us)
    if not x.flags & XF_RAW:
        put_ms(o, b"first_byte_ms", x.pick_us, x.first_us)


cdef void log_record(core_t *core, const exch_t *x) noexcept nogil:
    cdef log_t *log = &core.log
    cdef out_t o
    if log.cap - log.n < RECORD_MAX:
        log_flush(core)
    if log.cap - log.n < RECORD_MAX:
        core.sb.slab[core.sb.me].log_dropped += 1
        return
    out_open(&o, log.data + log.n, log.cap - log.n)
    out_put(&o, b'{"time": "', 10)
    put_time(&o, core.wall_ms)
    out_put(&o, b'"', 1)
    put_string(&o, b"id", x.request_id, x.id_len)
    put_request(&o, x)
    put_tls(&o, x)
    put_route(&o, x)
    put_outcome(&o, x)
    out_put(&o, b"}\n", 2)
    if o.full:
        core.sb.slab[core.sb.me].log_dropped += 1
    else:
        log.n += out_length(&o)


# ---- for tests --------------------------------------------------------------------------------------------------

def _escaped(bytes value, uint32_t cap=RECORD_MAX):
    """Test access to put_escaped: the JSON string, None when it does not fit."""
    cdef bytearray room = bytearray(cap)
    cdef out_t o
    out_open(&o, room, cap)
    put_escaped(&o, value, <uint32_t>len(value))
    return None if o.full else bytes(room[: out_length(&o)])


def _time(uint64_t wall_ms):
    """Test access to put_time."""
    cdef char room[64]
    cdef out_t o
    out_open(&o, room, sizeof(room))
    put_time(&o, wall_ms)
    return room[: out_length(&o)]


def _ms(uint64_t from_us, uint64_t to_us):
    """Test access to put_ms: the number."""
    cdef char room[64]
    cdef out_t o
    out_open(&o, room, sizeof(room))
    put_ms(&o, b"total_ms", from_us, to_us)
    return room[: out_length(&o)].removeprefix(b', "total_ms": ')
