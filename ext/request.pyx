"""See request.pxd."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy, strlen
from turnout.ext.core cimport SF_ENDED, XF_TRUSTED, XF_UPGRADE, core_t, exch_t
from turnout.ext.edits cimport put_fields, put_upgrade
from turnout.ext.framing cimport BODY_CHUNKED, BODY_LENGTH
from turnout.ext.headers cimport (
    HEAD_ABSOLUTE, H_EXPECT, H_FORWARDED, H_HOST, H_X_FORWARDED_FOR, H_X_FORWARDED_HOST, H_X_FORWARDED_PROTO, H_X_REQUEST_ID,
    M_OPTIONS, field_t, head_t,
)
from turnout.ext.router cimport route_cut
from turnout.ext.snapshot cimport (
    FWD_RFC7239, FWD_X, HOST_ENDPOINT, HOST_LITERAL, cidr_t, listener_t, text_t,
)
from turnout.ext.tls cimport tls_subject
from turnout.ext.text cimport address_parse, address_text, out_field, out_put, out_t, out_text, out_uint

cdef enum:
    ID_MAX = 64
    FIELD_MAX = 8192          # bytes of a forwarded field kept from a trusted proxy


cdef void request_head(core_t *core, exch_t *x, out_t *o) noexcept nogil:
    cdef const head_t *h = &x.req
    out_put(o, x.head + h.start, h.method_len)
    out_put(o, b" ", 1)
    put_target(x, o)
    out_put(o, b" HTTP/1.1\r\nHost: ", 17)
    put_host(x, o)
    out_put(o, b"\r\n", 2)
    put_fields(o, h, x.head, &x.route.request, dropped(x))
    if x.listener.forwarded & FWD_X:
        put_x_forwarded(x, o)
    if x.listener.forwarded & FWD_RFC7239:
        put_forwarded(x, o)
    put_subject(x, o)
    out_field(o, b"X-Request-ID", 12, x.request_id, x.id_len)
    if x.up.out == BODY_CHUNKED:
        out_put(o, b"Transfer-Encoding: chunked\r\n", 28)
    elif h.content_length >= 0:
        out_put(o, b"Content-Length: ", 16)
        out_uint(o, <uint64_t>h.content_length)
        out_put(o, b"\r\n", 2)
    if x.flags & XF_UPGRADE:
        put_upgrade(o, h, x.head)
    out_put(o, b"\r\n", 2)


cdef void put_subject(const exch_t *x, out_t *o) noexcept nogil:
    """Who the client has proved to be, where its listener passes that on."""
    cdef const char *subject = tls_subject(x.client)
    if subject != NULL and x.listener.tls != NULL and x.listener.tls.client_header.n:
        out_field(o, x.listener.tls.client_header.p, x.listener.tls.client_header.n, subject, <uint32_t>strlen(subject))


cdef uint64_t dropped(const exch_t *x) noexcept nogil:
    """Fields that this proxy writes itself, and those about the client that only a trusted proxy may say."""
    cdef uint64_t drop = (<uint64_t>1 << H_HOST) | (<uint64_t>1 << H_X_REQUEST_ID)
    if x.listener.forwarded & FWD_X or not x.flags & XF_TRUSTED:
        drop |= (<uint64_t>1 << H_X_FORWARDED_FOR) | (<uint64_t>1 << H_X_FORWARDED_PROTO)
        drop |= <uint64_t>1 << H_X_FORWARDED_HOST
    if x.listener.forwarded & FWD_RFC7239 or not x.flags & XF_TRUSTED:
        drop |= <uint64_t>1 << H_FORWARDED
    if x.req.minor == 0:
        drop |= <uint64_t>1 << H_EXPECT
    return drop


cdef void put_target(const exch_t *x, out_t *o) noexcept nogil:
    cdef const head_t *h = &x.req
    cdef uint32_t cut = 0
    if h.method == M_OPTIONS and h.flags & HEAD_ABSOLUTE and h.path < h.authority and not h.query:
        out_put(o, b"*", 1)
        return
    if x.route.rewrite and x.head[h.path] == c'/':
        cut = put_rewritten(x, o, route_cut(x.route, x.head + h.path, h.path_len))
    out_put(o, x.head + h.path + cut, h.path_len - cut)
    if h.query:
        out_put(o, b"?", 1)
        out_put(o, x.head + h.query, h.query_len)


cdef uint32_t put_rewritten(const exch_t *x, out_t *o, uint32_t cut) noexcept nogil:
    """What replaces the matched prefix, and exactly one "/" before what follows; returns where that starts."""
    cdef text_t to = x.route.prefix_to
    cdef bint ends = to.n > 0 and to.p[to.n - 1] == c'/'
    cdef bint goes_on = cut < x.req.path_len
    cdef bint starts = goes_on and x.head[x.req.path + cut] == c'/'
    out_text(o, to)
    if goes_on and ends and starts:
        return cut + 1
    if (goes_on and not ends and not starts) or (not goes_on and to.n == 0):
        out_put(o, b"/", 1)
    return cut


cdef void put_host(const exch_t *x, out_t *o) noexcept nogil:
    if x.service.host_mode == HOST_ENDPOINT:
        out_text(o, x.pick.member.name)
    elif x.service.host_mode == HOST_LITERAL:
        out_text(o, x.service.host)
    else:
        out_put(o, x.head + x.req.authority, x.req.authority_len)


cdef void put_kept(const exch_t *x, out_t *o, uint8_t field_id, const char *name, uint32_t name_n) noexcept nogil:
    """`name: ` and the values of all fields of this kind, joined; nothing but the name when there is none."""
    cdef uint32_t i, n = 0
    cdef const field_t *f
    out_put(o, name, name_n)
    out_put(o, b": ", 2)
    for i in range(x.req.n_fields):
        f = &x.req.fields[i]
        if f.id == field_id and f.value_len:
            if n:
                out_put(o, b", ", 2)
            out_put(o, x.head + f.value, f.value_len)
            n += 1


cdef bint has_field(const exch_t *x, uint8_t field_id) noexcept nogil:
    return x.flags & XF_TRUSTED and x.req.first[field_id] != 0


cdef void put_x_forwarded(const exch_t *x, out_t *o) noexcept nogil:
    cdef char address[48]
    cdef uint32_t n = address_text(x.client.address, address)
    if has_field(x, H_X_FORWARDED_FOR):
        put_kept(x, o, H_X_FORWARDED_FOR, b"X-Forwarded-For", 15)
        out_put(o, b", ", 2)
        out_put(o, address, n)
        out_put(o, b"\r\n", 2)
    else:
        out_field(o, b"X-Forwarded-For", 15, address, n)
    if has_field(x, H_X_FORWARDED_PROTO):
        put_kept(x, o, H_X_FORWARDED_PROTO, b"X-Forwarded-Proto", 17)
        out_put(o, b"\r\n", 2)
    elif x.client.tls != NULL:
        out_put(o, b"X-Forwarded-Proto: https\r\n", 26)
    else:
        out_put(o, b"X-Forwarded-Proto: http\r\n", 25)
    if has_field(x, H_X_FORWARDED_HOST):
        put_kept(x, o, H_X_FORWARDED_HOST, b"X-Forwarded-Host", 16)
        out_put(o, b"\r\n", 2)
    elif x.req.authority_len:
        out_field(o, b"X-Forwarded-Host", 16, x.head + x.req.authority, x.req.authority_len)


cdef void put_forwarded(const exch_t *x, out_t *o) noexcept nogil:
    """RFC 7239 4: our element behind those that a trusted proxy sent."""
    cdef char address[48]
    cdef uint32_t n = address_text(x.client.address, address)
    cdef bint v6 = False
    cdef uint32_t i
    for i in range(n):
        v6 = v6 or address[i] == c':'
    if has_field(x, H_FORWARDED):
        put_kept(x, o, H_FORWARDED, b"Forwarded", 9)
        out_put(o, b", for=", 6)
    else:
        out_put(o, b"Forwarded: for=", 15)
    out_put(o, b'"[', 2 if v6 else 0)
    out_put(o, address, n)
    out_put(o, b']"', 2 if v6 else 0)
    if x.req.authority_len:
        out_put(o, b';host="', 7)
        out_put(o, x.head + x.req.authority, x.req.authority_len)
        out_put(o, b'"', 1)
    if x.client.tls != NULL:
        out_put(o, b";proto=https\r\n", 14)
    else:
        out_put(o, b";proto=http\r\n", 13)


cdef bint in_network(const uint8_t *address, const cidr_t *net) noexcept nogil:
    cdef uint32_t whole = net.bits // 8, part = net.bits % 8
    if memcmp(address, net.address, whole) != 0:
        return False
    return part == 0 or ((address[whole] ^ net.address[whole]) >> (8 - part)) == 0


cdef bint peer_trusted(const listener_t *listener, const uint8_t *address) noexcept nogil:
    cdef uint32_t i
    for i in range(listener.n_trusted):
        if in_network(address, &listener.trusted[i]):
            return True
    return False


cdef bint last_entry(const char *p, uint32_t *n, const char **start, uint32_t *length) noexcept nogil:
    """Cut the last comma-separated entry off p[0:*n]; white space around it is dropped."""
    cdef uint32_t at = n[0], stop
    if at == 0:
        return False
    while at > 0 and p[at - 1] != c',':
        at -= 1
    stop = n[0]
    n[0] = at - 1 if at else 0
    while at < stop and (p[at] == c' ' or p[at] == c'\t'):
        at += 1
    while stop > at and (p[stop - 1] == c' ' or p[stop - 1] == c'\t'):
        stop -= 1
    start[0] = p + at
    length[0] = stop - at
    return True


cdef void request_source(exch_t *x) noexcept nogil:
    cdef uint8_t address[16]
    cdef const char *start
    cdef uint32_t left, length
    cdef uint32_t i
    cdef const field_t *f
    memcpy(x.source, x.client.address, 16)
    if x.listener.n_trusted == 0 or not peer_trusted(x.listener, x.client.address):
        return
    x.flags |= XF_TRUSTED
    if not x.req.first[<int>H_X_FORWARDED_FOR]:
        return
    i = x.req.n_fields
    while i > 0:
        i -= 1
        f = &x.req.fields[i]
        if f.id != H_X_FORWARDED_FOR:
            continue
        left = f.value_len
        while last_entry(x.head + f.value, &left, &start, &length):
            if not address_parse(start, length, address):
                return
            memcpy(x.source, address, 16)
            if not peer_trusted(x.listener, address):
                return


cdef bint plain_id(const char *p, uint32_t n) noexcept nogil:
    """Visible ASCII without what would need quoting in a log or in JSON."""
    cdef uint32_t i
    if n == 0 or n > ID_MAX:
        return False
    for i in range(n):
        if p[i] <= c' ' or p[i] > c'~' or p[i] == c'"' or p[i] == c'\\':
            return False
    return True


cdef uint64_t random_next(core_t *core) noexcept nogil:
    """splitmix64: unique enough for ids, not a secret."""
    cdef uint64_t z
    core.random += <uint64_t>0x9E3779B97F4A7C15ULL
    z = core.random
    z = (z ^ (z >> 30)) * <uint64_t>0xBF58476D1CE4E5B9ULL
    z = (z ^ (z >> 27)) * <uint64_t>0x94D049BB133111EBULL
    return z ^ (z >> 31)


cdef void hex_digits(uint64_t v, char *out) noexcept nogil:
    cdef int i
    cdef uint32_t d
    for i in range(15, -1, -1):
        d = <uint32_t>(v & 15)
        out[i] = <char>(d + (c'0' if d < 10 else c'a' - 10))
        v >>= 4


cdef void request_identity(core_t *core, exch_t *x) noexcept nogil:
    cdef const field_t *f
    if x.req.first[<int>H_X_REQUEST_ID]:
        f = &x.req.fields[x.req.first[<int>H_X_REQUEST_ID] - 1]
        if plain_id(x.head + f.value, f.value_len):
            memcpy(x.request_id, x.head + f.value, f.value_len)
            x.id_len = <uint8_t>f.value_len
            return
    hex_digits(random_next(core), x.request_id)
    hex_digits(random_next(core), x.request_id + 16)
    x.id_len = 32
