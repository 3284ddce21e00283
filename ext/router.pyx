"""See router.pxd."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memchr, memcmp, strlen
from turnout.ext.arena cimport arena_t, arena_take
from turnout.ext.document cimport text_copy
from turnout.ext.headers cimport H_OTHER, M_OTHER, equals_lower, field_t, head_t, header_lookup
from turnout.ext.snapshot cimport route_t, snapshot_t, text_t
from turnout.ext.text cimport out_length, out_open, out_put, out_t

cdef enum:
    READ_PLAIN = 0            # as it stands
    READ_DECODED              # needs decoding, and may be doubtful
    READ_REFUSED              # dot segment or %00

# A header condition: the field is there, and one of its lines has this value.
cdef struct condition_t:
    text_t name               # lower case
    text_t value
    uint8_t id                # header_id
    uint8_t any               # 1: any value

# One route at one host and prefix.
cdef struct candidate_t:
    const route_t *route
    uint32_t methods          # bit method_id; 0 with n_others 0: any
    uint32_t n_others
    text_t *others            # methods without an id
    condition_t *conditions
    uint32_t n_conditions

# The routes of one prefix; parent: the longest shorter prefix in the table that matches wherever this one does.
cdef struct prefix_t:
    text_t text
    uint64_t hash
    candidate_t *candidates
    uint32_t n
    prefix_t *parent

cdef struct paths_t:
    uint64_t lengths[16]      # bit n, up to PREFIX_MAX: some prefix has n bytes
    prefix_t **buckets        # open addressing
    uint32_t mask
    uint32_t longest

# parent: the next shorter wildcard; only wildcards (".suffix") have one.
cdef struct host_t:
    text_t name
    uint64_t hash
    paths_t *paths
    host_t *parent

cdef struct hosts_t:
    host_t **buckets          # exact names and ".suffix"; NULL: neither
    uint32_t mask
    uint8_t wildcards         # 1: there are some
    paths_t *rest             # routes without a host; NULL: none

cdef struct router_t:
    uint32_t n                # listener slots
    hosts_t **by_slot         # NULL: no route

cdef uint64_t HASH_SEED = 0xCBF29CE484222325ULL


cdef inline uint64_t hash_step(uint64_t h, char c) noexcept nogil:
    """FNV-1a; the keys are the configuration's, so nobody outside can make them collide."""
    return (h ^ <uint8_t>c) * <uint64_t>0x100000001B3ULL


cdef inline char lower(char c) noexcept nogil:
    return c + 32 if c'A' <= c <= c'Z' else c


# ---- paths ------------------------------------------------------------------------------------------------------

cdef inline int digit(char c) noexcept nogil:
    if c'0' <= c <= c'9':
        return c - c'0'
    if c'a' <= (c | 32) <= c'f':
        return (c | 32) - c'a' + 10
    return -1


cdef inline uint32_t decode(const char *p, uint32_t left, char *out) noexcept nogil:
    """The character at p, percent-decoded; returns the bytes it takes up."""
    cdef int high, low
    out[0] = p[0]
    if p[0] != c'%' or left < 3:
        return 1
    high = digit(p[1])
    low = digit(p[2])
    if high < 0 or low < 0:
        return 1
    out[0] = <char>(high * 16 + low)
    return 3


cdef inline bint plain(const char *p, uint32_t n) noexcept nogil:
    """No percent sign, no empty segment, none that starts with a dot: both readings are the path itself."""
    cdef uint32_t i
    cdef char before = 0
    for i in range(n):
        if p[i] == c'%' or (before == c'/' and (p[i] == c'/' or p[i] == c'.')):
            return False
        before = p[i]
    return True


cdef int read_path(const char *p, uint32_t n, char *literal, uint32_t *n_literal, char *merged,
                   uint32_t *n_merged) noexcept nogil:
    """Both readings, cut off after PREFIX_MAX + 1 bytes. An encoded slash is a zero byte in `literal`."""
    cdef uint32_t at = 0, used, dots = 0
    cdef bint dotty = False                 # the segment so far is nothing but dots
    cdef bint slash
    cdef char c
    n_literal[0] = 0
    n_merged[0] = 0
    while at < n:
        used = decode(p + at, n - at, &c)
        at += used
        slash = c == c'/'
        if c == 0 or (dotty and dots and (slash or c == c';')):
            return READ_REFUSED
        if n_literal[0] <= PREFIX_MAX:
            literal[n_literal[0]] = 0 if slash and used == 3 else c
            n_literal[0] += 1
        if n_merged[0] <= PREFIX_MAX and not (slash and n_merged[0] and merged[n_merged[0] - 1] == c'/'):
            merged[n_merged[0]] = c
            n_merged[0] += 1
        dotty = slash or (dotty and c == c'.' and dots < 2)
        dots = 0 if slash else dots + 1
    return READ_REFUSED if dotty and dots else READ_DECODED


cdef prefix_t *longest_prefix(const paths_t *t, const char *p, uint32_t n) noexcept nogil:
    cdef uint32_t i, limit = n if n < t.longest else t.longest
    cdef uint64_t h = HASH_SEED
    cdef prefix_t *best = NULL
    cdef prefix_t *found
    for i in range(1, limit + 1):
        h = hash_step(h, p[i - 1])
        if (p[i - 1] == c'/' or i == n or p[i] == c'/') and (t.lengths[i // 64] >> (i % 64)) & 1:
            found = prefix_at(t, h, p, i)
            if found != NULL:
                best = found
    return best


cdef prefix_t *prefix_at(const paths_t *t, uint64_t h, const char *p, uint32_t n) noexcept nogil:
    cdef uint32_t at = <uint32_t>(h >> 32) & t.mask
    cdef prefix_t *e
    while t.buckets[at] != NULL:
        e = t.buckets[at]
        if e.hash == h and e.text.n == n and memcmp(e.text.p, p, n) == 0:
            return e
        at = (at + 1) & t.mask
    return NULL


# ---- conditions -------------------------------------------------------------------------------------------------

cdef bint method_holds(const candidate_t *c, const char *head, const head_t *h) noexcept nogil:
    cdef uint32_t i
    if c.methods == 0 and c.n_others == 0:
        return True
    if h.method != M_OTHER:
        return (c.methods >> h.method) & 1
    for i in range(c.n_others):
        if c.others[i].n == h.method_len and memcmp(c.others[i].p, head + h.start, h.method_len) == 0:
            return True
    return False


cdef bint condition_holds(const condition_t *c, const char *head, const head_t *h) noexcept nogil:
    cdef uint32_t i
    cdef const field_t *f
    if c.id != H_OTHER and h.first[c.id] == 0:
        return False
    for i in range(h.n_fields):
        f = &h.fields[i]
        if f.id != c.id or f.name_len != c.name.n or not equals_lower(head + f.name, c.name.p, f.name_len):
            continue
        if c.any or (f.value_len == c.value.n and memcmp(head + f.value, c.value.p, f.value_len) == 0):
            return True
    return False


cdef const route_t *chosen(const prefix_t *e, const char *head, const head_t *h) noexcept nogil:
    cdef uint32_t i, k
    cdef const candidate_t *c
    for i in range(e.n):
        c = &e.candidates[i]
        if not method_holds(c, head, h):
            continue
        for k in range(c.n_conditions):
            if not condition_holds(&c.conditions[k], head, h):
                break
        else:
            return c.route
    return NULL


# ---- hosts ------------------------------------------------------------------------------------------------------

cdef inline uint32_t bare_host(const char *p, uint32_t n) noexcept nogil:
    """Length of the host without port and trailing dot."""
    cdef const char *stop
    if n and p[0] == c'[':
        stop = <const char *>memchr(p, c']', n)
        return <uint32_t>(stop - p) + 1 if stop != NULL else n
    stop = <const char *>memchr(p, c':', n)
    if stop != NULL:
        n = <uint32_t>(stop - p)
    if n and p[n - 1] == c'.':
        n -= 1
    return n


cdef host_t *host_at(const hosts_t *t, uint64_t h, const char *p, uint32_t n) noexcept nogil:
    cdef uint32_t at = <uint32_t>(h >> 32) & t.mask
    cdef host_t *e
    while t.buckets[at] != NULL:
        e = t.buckets[at]
        if e.hash == h and e.name.n == n and equals_lower(p, e.name.p, n):
            return e
        at = (at + 1) & t.mask
    return NULL


cdef void hosts_of(const hosts_t *t, const char *p, uint32_t n, host_t **exact, host_t **wild) noexcept nogil:
    """The exact entry of a host and its longest wildcard, NULL where there is none. Hashed from the end, so that one pass
    meets every suffix."""
    cdef uint64_t h = HASH_SEED
    cdef uint32_t i = n
    cdef host_t *found
    exact[0] = NULL
    wild[0] = NULL
    if t.buckets == NULL or n == 0 or n > HOST_MAX or p[0] == c'.':
        return
    while i > 0:
        i -= 1
        h = hash_step(h, lower(p[i]))
        if p[i] == c'.' and t.wildcards:
            found = host_at(t, h, p + i, n - i)
            if found != NULL:
                wild[0] = found
    exact[0] = host_at(t, h, p, n)


# ---- look-up ----------------------------------------------------------------------------------------------------

cdef const route_t *find_in(const paths_t *t, const char *path, uint32_t n, const char *head,
                            const head_t *h) noexcept nogil:
    cdef const prefix_t *e = longest_prefix(t, path, n)
    cdef const route_t *r
    while e != NULL:
        r = chosen(e, head, h)
        if r != NULL:
            return r
        e = e.parent
    return NULL


cdef const route_t *find_path(const hosts_t *t, host_t *exact, host_t *wild, const char *path, uint32_t n,
                              const char *head, const head_t *h) noexcept nogil:
    cdef const route_t *r = NULL
    if exact != NULL:
        r = find_in(exact.paths, path, n, head, h)
    while r == NULL and wild != NULL:
        r = find_in(wild.paths, path, n, head, h)
        wild = wild.parent
    if r == NULL and t.rest != NULL:
        r = find_in(t.rest, path, n, head, h)
    return r


cdef const route_t *find_decoded(const hosts_t *t, host_t *exact, host_t *wild, const char *path, uint32_t n,
                                 const char *head, const head_t *h) noexcept nogil:
    """The route that both readings of the path lead to."""
    cdef char literal[PREFIX_MAX + 1]
    cdef char merged[PREFIX_MAX + 1]
    cdef uint32_t n_literal = 0, n_merged = 0
    cdef const route_t *r
    if read_path(path, n, literal, &n_literal, merged, &n_merged) == READ_REFUSED:
        return NULL
    r = find_path(t, exact, wild, literal, n_literal, head, h)
    return r if r == find_path(t, exact, wild, merged, n_merged, head, h) else NULL


cdef route_t *route_find(const snapshot_t *s, uint32_t listener_slot, const char *head, const head_t *h) noexcept nogil:
    cdef const router_t *router = <const router_t *>s.router
    cdef const hosts_t *t
    cdef const char *path = head + h.path
    cdef uint32_t n = h.path_len
    cdef host_t *exact
    cdef host_t *wild
    if listener_slot >= router.n or router.by_slot[listener_slot] == NULL:
        return NULL
    t = router.by_slot[listener_slot]
    hosts_of(t, head + h.authority, bare_host(head + h.authority, h.authority_len), &exact, &wild)
    if n == 0 or path[0] != c'/':           # OPTIONS *
        path = b"/"
        n = 1
    if plain(path, n):
        return <route_t *>find_path(t, exact, wild, path, n, head, h)
    return <route_t *>find_decoded(t, exact, wild, path, n, head, h)


cdef bint route_doubtful(const char *head, const head_t *h) noexcept nogil:
    cdef char literal[PREFIX_MAX + 1]
    cdef char merged[PREFIX_MAX + 1]
    cdef uint32_t n_literal = 0, n_merged = 0
    cdef const char *path = head + h.path
    if h.path_len == 0 or path[0] != c'/' or plain(path, h.path_len):
        return False
    if read_path(path, h.path_len, literal, &n_literal, merged, &n_merged) == READ_REFUSED:
        return True
    return n_literal != n_merged or memcmp(literal, merged, n_literal) != 0


cdef uint32_t route_cut(const route_t *r, const char *path, uint32_t n) noexcept nogil:
    cdef uint32_t at = 0, k
    cdef char c
    for k in range(r.prefix.n):
        if at >= n:
            break
        at += decode(path + at, n - at, &c)
    return at


# ---- redirects --------------------------------------------------------------------------------------------------

cdef void put_path(out_t *o, const char *p, uint32_t n) noexcept nogil:
    while n and (p[0] == c'/' or p[0] == c'\\'):
        p += 1
        n -= 1
    out_put(o, b"/", 1)
    out_put(o, p, n)


cdef uint32_t put_piece(out_t *o, const char *name, uint32_t left, const char *scheme, const char *head,
                        const head_t *h) noexcept nogil:
    """What a {name} stands for; returns the bytes of the template it takes up, 0 when it is none."""
    if left >= 8 and memcmp(name, b"{scheme}", 8) == 0:
        out_put(o, scheme, <uint32_t>strlen(scheme))
        return 8
    if left >= 6 and memcmp(name, b"{host}", 6) == 0:
        out_put(o, head + h.authority, bare_host(head + h.authority, h.authority_len))
        return 6
    if left >= 6 and memcmp(name, b"{path}", 6) == 0:
        put_path(o, head + h.path, h.path_len if head[h.path] == c'/' else 0)
        return 6
    if left >= 7 and memcmp(name, b"{query}", 7) == 0:
        if h.query:
            out_put(o, b"?", 1)
            out_put(o, head + h.query, h.query_len)
        return 7
    return 0


cdef uint32_t route_location(const route_t *r, const char *scheme, const char *head, const head_t *h, char *out,
                             uint32_t cap) noexcept nogil:
    cdef out_t o
    cdef uint32_t at = 0, used
    out_open(&o, out, cap)
    while at < r.location.n:
        used = put_piece(&o, r.location.p + at, r.location.n - at, scheme, head, h)
        if used == 0:
            out_put(&o, r.location.p + at, 1)
            used = 1
        at += used
    return 0 if o.full else out_length(&o)


# ---- compiling --------------------------------------------------------------------------------------------------

cdef void *take(arena_t *arena, size_t n) except NULL:
    cdef void *p = arena_take(arena, n)
    if p == NULL:
        raise MemoryError
    return p


cdef str path_problem(bytes path):
    cdef set segments
    if not path.startswith(b"/"):
        return "does not start with '/'"
    if len(path) > PREFIX_MAX:
        return f"is longer than {PREFIX_MAX} bytes"
    if b"//" in path or b"\0" in path:
        return "holds an empty segment or a zero byte"
    segments = {segment.partition(b";")[0] for segment in path.split(b"/")}
    if b"." in segments or b".." in segments:
        return "holds a dot segment"
    return None


cdef uint64_t hash_of(bytes text):
    cdef uint64_t h = HASH_SEED
    for c in text:
        h = hash_step(h, <char><uint8_t>c)
    return h


cdef uint32_t buckets_for(size_t n):
    """A power of two that leaves at least half of the buckets empty, less one."""
    return (1 << (2 * n).bit_length()) - 1 if n else 1


cdef int compile_condition(arena_t *arena, tuple condition, condition_t *out) except -1:
    cdef bytes name = condition[0]
    text_copy(arena, name, &out.name)
    out.id = header_lookup(out.name.p, out.name.n)
    out.any = condition[1] is None
    return text_copy(arena, condition[1] or b"", &out.value)


cdef int compile_candidate(arena_t *arena, const route_t *r, tuple match, candidate_t *out) except -1:
    cdef list others = [m for m in match[3] if type(m) is bytes]
    cdef list conditions = match[4]
    cdef uint32_t i
    out.route = r
    for method in match[3]:
        if type(method) is int:
            out.methods |= <uint32_t>1 << <uint32_t>method
    out.others = <text_t *>take(arena, len(others) * sizeof(text_t))
    out.n_others = <uint32_t>len(others)
    for i in range(out.n_others):
        text_copy(arena, others[i], &out.others[i])
    out.conditions = <condition_t *>take(arena, len(conditions) * sizeof(condition_t))
    out.n_conditions = <uint32_t>len(conditions)
    for i in range(out.n_conditions):
        compile_condition(arena, conditions[i], &out.conditions[i])
    return 0


cdef list by_conditions(list indices, list matches):
    """More conditions first, then the order of the file."""
    return sorted(indices, key=lambda i: (-(bool(matches[i][3]) + len(matches[i][4])), i))


cdef prefix_t *compile_prefix(arena_t *arena, snapshot_t *s, bytes path, list indices, list matches) except NULL:
    cdef prefix_t *e = <prefix_t *>take(arena, sizeof(prefix_t))
    cdef uint32_t i
    text_copy(arena, path, &e.text)
    e.hash = hash_of(path)
    e.n = <uint32_t>len(indices)
    e.candidates = <candidate_t *>take(arena, e.n * sizeof(candidate_t))
    for place, i in enumerate(by_conditions(indices, matches)):
        compile_candidate(arena, &s.routes[i], matches[i], &e.candidates[<uint32_t>place])
    return e


cdef paths_t *compile_paths(arena_t *arena, snapshot_t *s, dict routes, list matches) except NULL:
    """routes: path -> indices"""
    cdef paths_t *t = <paths_t *>take(arena, sizeof(paths_t))
    cdef prefix_t *e
    cdef uint32_t at
    cdef bytes path
    t.mask = buckets_for(len(routes))
    t.buckets = <prefix_t **>take(arena, (<size_t>t.mask + 1) * sizeof(prefix_t *))
    for path in sorted(routes, key=len):
        e = compile_prefix(arena, s, path, routes[path], matches)
        e.parent = longest_prefix(t, e.text.p, e.text.n)
        at = <uint32_t>(e.hash >> 32) & t.mask
        while t.buckets[at] != NULL:
            at = (at + 1) & t.mask
        t.buckets[at] = e
        t.lengths[e.text.n // 64] |= <uint64_t>1 << (e.text.n % 64)
        t.longest = e.text.n
    return t


cdef hosts_t *compile_hosts(arena_t *arena, snapshot_t *s, dict hosts, list matches) except NULL:
    """hosts: name -> path -> indices; name None: no host"""
    cdef hosts_t *t = <hosts_t *>take(arena, sizeof(hosts_t))
    cdef host_t *e
    cdef host_t *exact
    cdef uint32_t at
    cdef bytes name
    if None in hosts:
        t.rest = compile_paths(arena, s, hosts.pop(None), matches)
    if not hosts:
        return t
    t.mask = buckets_for(len(hosts))
    t.buckets = <host_t **>take(arena, (<size_t>t.mask + 1) * sizeof(host_t *))
    for name in sorted(hosts, key=len):
        e = <host_t *>take(arena, sizeof(host_t))
        text_copy(arena, name, &e.name)
        e.hash = hash_of(name[::-1])
        e.paths = compile_paths(arena, s, hosts[name], matches)
        if name.startswith(b"."):
            t.wildcards = 1
            hosts_of(t, e.name.p + 1, e.name.n - 1, &exact, &e.parent)
        at = <uint32_t>(e.hash >> 32) & t.mask
        while t.buckets[at] != NULL:
            at = (at + 1) & t.mask
        t.buckets[at] = e
    return t


cdef dict grouped(list matches):
    """listener index -> host or None -> path -> indices of routes"""
    cdef dict out = {}
    for i, (listeners, hosts, path, _methods, _conditions) in enumerate(matches):
        for listener in listeners:
            for host in hosts or [None]:
                out.setdefault(listener, {}).setdefault(host, {}).setdefault(path, []).append(i)
    return out


cdef int router_compile(arena_t *arena, snapshot_t *s, list matches) except -1:
    cdef uint32_t listener
    cdef router_t *router = <router_t *>take(arena, sizeof(router_t))
    router.n = s.listener_slots
    router.by_slot = <hosts_t **>take(arena, router.n * sizeof(hosts_t *))
    s.router = router
    for listener, hosts in grouped(matches).items():
        router.by_slot[s.listeners[listener].slot] = compile_hosts(arena, s, hosts, matches)
    return 0
