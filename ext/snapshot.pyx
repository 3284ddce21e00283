"""See snapshot.pxd."""

import ipaddress
import socket
import struct

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset
from turnout.ext.arena cimport ARENA_CHUNK, arena_free, arena_t, arena_take
from turnout.ext.contexts cimport Context, read_client, read_server, read_tickets
from turnout.ext.document cimport (
    TEXT_ANY, TEXT_LINE, TEXT_TOKEN, Table, table_of, table_open, text_copy, text_problem,
)
from turnout.ext.headers cimport (
    HEAD_FIELDS_MAX, M_CONNECT, M_DELETE, M_GET, M_HEAD, M_OPTIONS, M_OTHER, M_PATCH, M_POST, M_PUT, M_TRACE, head_t,
    header_lookup,
)
from turnout.ext.http1 cimport head_limits_t, parse_request
from turnout.ext.kernel cimport clock_us
from turnout.ext.router cimport (
    path_problem, route_cut, route_doubtful, route_find, route_location, router_compile,
)
from turnout.ext.scoreboard cimport SHARE_UNIT
from turnout.ext.select cimport TRIED_MAX

cdef enum:
    U32 = 0xFFFFFFFF
    SLOT_MAX = 65535          # a connection keeps its listener's slot in 16 bits; the others follow
    HEAD_MAX = 65536          # bytes of a head: it has to fit the engine's scratch space with what is added
    NAME_BYTES = 255
    STATUS_LOW = 100
    STATUS_N = 512            # bits of a set of statuses
    BLOCK_BYTES = 1536        # of a service, about: without members, ...
    MEMBER_BYTES = 288        # ... and of each of them

cdef tuple STRATEGIES = (
    "round_robin", "least_connections", "weighted_round_robin", "ip_hash", "random", "least_response_time",
    "consistent_hash",
)
cdef tuple PROTOCOLS = ("http", "tcp", "udp")
cdef tuple KEY_SOURCES = ("source_ip", "header", "cookie", "query", "path")
cdef tuple HOST_MODES = ("preserve", "endpoint", "literal")
cdef tuple STICKY_KINDS = ("none", "cookie", "source")
cdef tuple SAME_SITES = ("unset", "lax", "strict", "none")
cdef tuple ACTIONS = ("service", "respond", "redirect")
cdef tuple EDITS = ("set", "remove")
cdef dict FORWARDED = {"x": FWD_X, "rfc7239": FWD_RFC7239}
cdef dict FAILURES = {"connect": BRK_ON_CONNECT, "timeout": BRK_ON_TIMEOUT, "reset": BRK_ON_RESET, "5xx": BRK_ON_5XX}
cdef dict RETRIES = {
    "connect": RETRY_ON_CONNECT, "stale": RETRY_ON_STALE, "reset": RETRY_ON_RESET, "timeout": RETRY_ON_TIMEOUT,
    "status": RETRY_ON_STATUS,
}
cdef dict METHODS = {
    "GET": M_GET, "HEAD": M_HEAD, "POST": M_POST, "PUT": M_PUT, "DELETE": M_DELETE, "OPTIONS": M_OPTIONS, "PATCH": M_PATCH,
    "TRACE": M_TRACE, "CONNECT": M_CONNECT,
}
# Fields that carry framing, routing or the connection itself: the proxy writes them from what it parsed.
cdef frozenset NOT_EDITABLE = frozenset((
    b"connection", b"content-length", b"expect", b"host", b"keep-alive", b"proxy-connection", b"te", b"trailer",
    b"transfer-encoding", b"upgrade",
))


cdef void *take(arena_t *arena, size_t n) except NULL:
    cdef void *p = arena_take(arena, n)
    if p == NULL:
        raise MemoryError
    return p


# ---- pieces -----------------------------------------------------------------------------------------------------

cdef uint32_t read_slot(Table t, set used) except? 77:
    cdef uint32_t slot = t.number("slot", SLOT_MAX)
    if slot in used:
        t.fail("slot", f"{slot} is given twice")
    used.add(slot)
    return slot


cdef int read_name(Table t, str key, arena_t *arena, text_t *out) except -1:
    t.text(key, arena, TEXT_LINE, out)
    if out.n == 0 or out.n > NAME_BYTES:
        t.fail(key, f"has {out.n} bytes, not 1 to {NAME_BYTES}")
    return 0


cdef int read_statuses(Table t, uint64_t *bits) except -1:
    for status in t.items("statuses"):
        if type(status) is not int or not STATUS_LOW <= status < STATUS_LOW + STATUS_N:
            t.fail("statuses", f"holds what is not a number from {STATUS_LOW} to {STATUS_LOW + STATUS_N - 1}")
        bits[<uint32_t>(status - STATUS_LOW) // 64] |= <uint64_t>1 << (<uint32_t>(status - STATUS_LOW) % 64)
    return 0


cdef int read_trusted(Table t, arena_t *arena, listener_t *l) except -1:
    cdef list networks = t.items("trusted")
    cdef bytes packed
    cdef uint32_t i = 0
    l.trusted = <cidr_t *>take(arena, len(networks) * sizeof(cidr_t))
    for value in networks:
        try:
            network = ipaddress.ip_network(value)
        except (ValueError, TypeError):
            t.fail("trusted", f"{value!r} is not a network such as 10.0.0.0/8")
        packed = network.network_address.packed
        l.trusted[i].bits = network.prefixlen + (96 if network.version == 4 else 0)
        if network.version == 4:
            packed = b"\0" * 10 + b"\xff\xff" + packed
        memcpy(l.trusted[i].address, <const char *>packed, 16)
        i += 1
    l.n_trusted = i
    return 0


cdef bytes socket_address(str text):
    """"10.0.0.1:80", "[::1]:80" or "unix:/path" as struct sockaddr; None when it is none of them."""
    if text.startswith("unix:/"):
        path = text[5:].encode()
        return struct.pack("=H", socket.AF_UNIX) + path + b"\0" if len(path) < 108 and 0 not in path else None
    host, _, port = text.rpartition(":")
    if not (port.isascii() and port.isdigit() and len(port) <= 5 and 0 < int(port) < 65536):
        return None
    try:
        if host.startswith("[") and host.endswith("]"):
            packed = socket.inet_pton(socket.AF_INET6, host.removeprefix("[").removesuffix("]"))
            return struct.pack("=H", socket.AF_INET6) + struct.pack("!HI", int(port), 0) + packed + b"\0\0\0\0"
        return struct.pack("=H", socket.AF_INET) + struct.pack("!H", int(port)) + socket.inet_pton(socket.AF_INET, host) + b"\0" * 8
    except (OSError, ValueError):
        return None


cdef list client_headers(snapshot_t *s):
    """Fields that tell of verified clients: nobody else may send them, on whatever listener."""
    cdef set names = set()
    cdef uint32_t i
    for i in range(s.n_listeners):
        if s.listeners[i].tls != NULL and s.listeners[i].tls.client_header.n:
            names.add(s.listeners[i].tls.client_header.p[:s.listeners[i].tls.client_header.n].lower())
    return sorted(names)


cdef int read_edits(Table t, str key, arena_t *arena, edits_t *out, list removed) except -1:
    """The edits of a table, and the removal of some more fields (lower case)."""
    cdef list tables = t.tables(key)
    cdef edit_t *e
    cdef Table row
    out.items = <edit_t *>take(arena, (len(tables) + len(removed)) * sizeof(edit_t))
    for name in removed:
        add_removal(arena, &out.items[out.n], name)
        out.n += 1
    for row in tables:
        e = &out.items[out.n]
        e.kind = <uint8_t>row.choice("kind", EDITS)
        row.text("name", arena, TEXT_TOKEN, &e.name)
        text_copy(arena, e.name.p[:e.name.n].lower(), &e.lower)
        row.text("value", arena, TEXT_LINE, &e.value)
        if e.name.n == 0 or e.lower.p[:e.lower.n] in NOT_EDITABLE:
            row.fail("name", "is not a field that may be edited")
        e.id = header_lookup(e.name.p, e.name.n)
        row.done()
        out.n += 1
    return 0


cdef int add_removal(arena_t *arena, edit_t *e, bytes name) except -1:
    e.kind = EDIT_REMOVE
    text_copy(arena, name, &e.name)
    text_copy(arena, name, &e.lower)
    e.id = header_lookup(e.name.p, e.name.n)
    return 0


# ---- tables -----------------------------------------------------------------------------------------------------

cdef int read_listener_tls(Table t, arena_t *arena, listener_t *l, list contexts) except -1:
    t.text("hsts", arena, TEXT_LINE, &l.hsts)
    if t.none("tls"):
        return 0
    l.tls = <listener_tls_t *>take(arena, sizeof(listener_tls_t))
    return read_server(t.table("tls"), arena, l.tls, contexts)


cdef int read_listener(Table t, arena_t *arena, listener_t *l, set used, list contexts) except -1:
    l.slot = read_slot(t, used)
    read_name(t, "name", arena, &l.name)
    l.protocol = <uint8_t>t.choice("protocol", PROTOCOLS)
    l.port = <uint16_t>t.number("port", 65535)
    l.header_ms = t.number("header_ms", U32)
    l.body_idle_ms = t.number("body_idle_ms", U32)
    l.body_rate = t.number("body_rate", U32)
    l.half_close_ms = t.number("half_close_ms", U32)
    l.keepalive_ms = t.number("keepalive_ms", U32)
    l.keepalive_requests = t.number("keepalive_requests", U32)
    l.line_max = t.number("line_max", HEAD_MAX)
    l.head_max = t.number("head_max", HEAD_MAX)
    l.fields_max = t.number("fields_max", HEAD_FIELDS_MAX)
    l.body_max = t.number("body_max", <uint64_t>1 << 62)
    l.connections = t.number("connections", U32)
    l.forwarded = <uint8_t>t.bits("forwarded", FORWARDED)
    l.proxied = t.flag("proxied")
    l.sessions = t.flag("sessions")
    l.responses = t.number("responses", U32)
    read_trusted(t, arena, l)
    read_listener_tls(t, arena, l, contexts)
    return t.done()


cdef int read_member_tls(Table t, arena_t *arena, member_t *m) except -1:
    """Who it has to be over TLS; with what is its service's matter."""
    if t.none("tls"):
        return 0
    t.text("tls", arena, TEXT_LINE, &m.tls_name)
    m.tls = 1
    try:
        ipaddress.ip_address(m.tls_name.p[:m.tls_name.n].decode())
        m.tls_ip = 1
    except ValueError:
        pass
    return 0


cdef int read_member(Table t, arena_t *arena, member_t *m, set used) except -1:
    cdef bytes address
    m.slot = read_slot(t, used)
    m.generation = t.number("generation", U32)
    m.weight = t.number("weight", 65535)
    m.priority = t.number("priority", U32)
    m.identity = t.number("identity", 0xFFFFFFFFFFFFFFFF)
    if m.identity == 0:
        t.fail("identity", "0 is nobody's")
    read_name(t, "name", arena, &m.name)
    t.text("version", arena, TEXT_LINE, &m.version)
    address = socket_address(t.string("address"))
    if address is None:
        t.fail("address", f"{t.string('address')!r} is not IPv4:port, [IPv6]:port or unix:/path")
    m.address = memcpy(take(arena, len(address)), <const char *>address, len(address))
    m.address_len = <uint32_t>len(address)
    read_member_tls(t, arena, m)
    return t.done()


cdef int read_breaker(Table t, breaker_conf_t *b) except -1:
    b.failures = t.number("failures", U32)
    b.open_ms = t.number("open_ms", U32)
    b.open_max_ms = t.number("open_max_ms", U32)
    b.jitter_pct = t.number("jitter_pct", 100)
    b.probes = t.number("probes", U32)
    b.successes = t.number("successes", U32)
    if b.failures and (b.probes == 0 or b.successes == 0):
        t.fail("probes", "and successes: with 0 of them it would never close again")
    b.on = t.bits("on", FAILURES)
    read_statuses(t, b.statuses)
    b.last = t.flag("last")
    return t.done()


cdef int read_sticky(Table t, arena_t *arena, sticky_conf_t *s) except -1:
    cdef str key = t.string("key")
    cdef bytes secret
    s.kind = <uint8_t>t.choice("kind", STICKY_KINDS)
    s.sliding = t.flag("sliding")
    s.secure = t.flag("secure")
    s.http_only = t.flag("http_only")
    s.same_site = <uint8_t>t.choice("same_site", SAME_SITES)
    t.text("name", arena, TEXT_TOKEN, &s.name)
    if s.name.n > NAME_BYTES or (s.kind == 1 and s.name.n == 0):
        t.fail("name", f"has {s.name.n} bytes, not 1 to {NAME_BYTES}")
    read_cookie_text(t, "path", arena, &s.path)
    read_cookie_text(t, "domain", arena, &s.domain)
    s.ttl_s = t.number("ttl_s", U32)
    if len(key) != (32 if s.kind == 1 else 0):
        t.fail("key", "has to be 32 hexadecimal digits with a cookie and empty without")
    if s.kind == 1:
        try:
            secret = bytes.fromhex(key)
        except ValueError:
            t.fail("key", "is not hexadecimal")
        if len(secret) != 16:
            t.fail("key", "is not hexadecimal")
        memcpy(s.key, <const char *>secret, 16)
    return t.done()


cdef int read_cookie_text(Table t, str key, arena_t *arena, text_t *out) except -1:
    t.text(key, arena, TEXT_LINE, out)
    if out.n > NAME_BYTES or b";" in out.p[:out.n]:
        t.fail(key, f"holds a ';' or more than {NAME_BYTES} bytes")
    return 0


cdef int read_retry(Table t, retry_conf_t *r) except -1:
    r.attempts = t.number("attempts", TRIED_MAX)
    r.on = t.bits("on", RETRIES)
    for method in t.items("methods"):
        if type(method) is not str or method not in METHODS:
            t.fail("methods", f"{method!r} is none of {', '.join(METHODS)}")
        r.methods |= <uint32_t>1 << <uint32_t>METHODS[method]
    r.budget = t.real("budget")
    r.floor_per_s = t.real("floor_per_s")
    read_statuses(t, r.statuses)
    return t.done()


# ---- services ---------------------------------------------------------------------------------------------------

cdef Block block_new(size_t members):
    """Without anything in it, and room for so many members in one piece."""
    cdef Block b = Block.__new__(Block)
    b.arena.step = min(<size_t>BLOCK_BYTES + members * MEMBER_BYTES, <size_t>ARENA_CHUNK)
    b.ptr = <service_t *>take(&b.arena, sizeof(service_t))
    return b


cdef object read_settings(Table t, arena_t *arena, service_t *v):
    """All but slot, members and groups. Returns the Context for TLS to endpoints, None without."""
    read_name(t, "name", arena, &v.name)
    v.strategy = <uint8_t>t.choice("strategy", STRATEGIES)
    v.key_source = <uint8_t>t.choice("key_source", KEY_SOURCES)
    t.text("key_name", arena, TEXT_TOKEN, &v.key_name)
    if v.key_name.n == 0 and v.key_source in (KEY_HEADER, KEY_COOKIE, KEY_QUERY):
        t.fail("key_name", "is needed with this key_source")
    v.host_mode = <uint8_t>t.choice("host_mode", HOST_MODES)
    t.text("host", arena, TEXT_LINE, &v.host)
    if v.host_mode == HOST_LITERAL and v.host.n == 0:
        t.fail("host", "is needed with this host_mode")
    v.proxy_version = <uint8_t>t.number("proxy_version", 2)
    v.split = t.flag("split")
    v.load_pct = t.number("load_pct", 1000000)
    v.slow_start_ms = t.number("slow_start_ms", U32)
    v.panic_pct = t.number("panic_pct", 100)
    v.connections = t.number("connections", 0x7FFFFFFF)
    v.queue = t.number("queue", U32)
    v.queue_ms = t.number("queue_ms", U32)
    v.connect_ms = t.number("connect_ms", U32)
    v.response_ms = t.number("response_ms", U32)
    v.idle_ms = t.number("idle_ms", U32)
    v.tunnel_ms = t.number("tunnel_ms", U32)
    v.session_ms = t.number("session_ms", U32)
    v.tunnel_drain_ms = t.number("tunnel_drain_ms", U32)
    v.pool_idle_ms = t.number("pool_idle_ms", U32)
    v.pool_max = t.number("pool_max", U32)
    v.pool_requests = t.number("pool_requests", U32)
    read_breaker(t.table("breaker"), &v.breaker)
    read_sticky(t.table("sticky"), arena, &v.sticky)
    read_retry(t.table("retry"), &v.retry)
    return None if t.none("tls") else read_client(t.table("tls"))


cdef int text_again(arena_t *arena, text_t *text) except -1:
    """The same text, in another arena."""
    text.p = <const char *>memcpy(take(arena, <size_t>text.n + 1), text.p, <size_t>text.n + 1)
    return 0


cdef int copy_settings(arena_t *arena, const service_t *old, service_t *v) except -1:
    """As read_settings, from another block."""
    v[0] = old[0]
    text_again(arena, &v.name)
    text_again(arena, &v.key_name)
    text_again(arena, &v.host)
    text_again(arena, &v.sticky.name)
    text_again(arena, &v.sticky.path)
    text_again(arena, &v.sticky.domain)
    return 0


cdef int copy_member(arena_t *arena, const member_t *old, member_t *m) except -1:
    m[0] = old[0]
    text_again(arena, &m.name)
    text_again(arena, &m.version)
    if m.tls:
        text_again(arena, &m.tls_name)
    m.address = memcpy(take(arena, m.address_len), old.address, m.address_len)
    return 0


cdef int read_groups(Table t, Block b, set used, dict places) except -1:
    """Every member is in exactly one. places: index in the table -> place among the members; None: the same."""
    cdef service_t *v = b.ptr
    cdef list tables = t.tables("groups")
    cdef uint32_t i
    cdef uint64_t shares = 0
    if not tables or (len(tables) > 1 and not v.split):
        t.fail("groups", "has to hold one group, or more with split")
    v.groups = <group_t *>take(&b.arena, len(tables) * sizeof(group_t))
    v.n_groups = <uint32_t>len(tables)
    for i in range(v.n_members):
        v.members[i].group = U32
    for i in range(v.n_groups):
        read_group(tables[i], b, i, used, places)
        shares += v.groups[i].share
    if shares != 0 and shares != SHARE_UNIT:
        t.fail("groups", f"have shares that add up to {shares}, not to {SHARE_UNIT} or 0")
    for i in range(v.n_members):
        if v.members[i].group == U32:
            t.fail("groups", f"do not hold member {named(places, i)}")
    return 0


cdef int read_group(Table t, Block b, uint32_t index, set used, dict places) except -1:
    cdef group_t *g = &b.ptr.groups[index]
    cdef member_t *m
    cdef uint32_t i
    g.slot = read_slot(t, used)
    t.text("version", &b.arena, TEXT_LINE, &g.version)
    g.share = t.number("share", SHARE_UNIT)
    g.n = t.indices("members", &b.arena, b.ptr.n_members if places is None else U32, &g.members)
    for i in range(g.n):
        if places is not None:
            g.members[i] = places.get(g.members[i], b.ptr.n_members)
        m = &b.ptr.members[g.members[i]]
        if g.members[i] == b.ptr.n_members or m.group != U32:
            t.fail("members", f"{t.items('members')[i]} is not of this service, or in another group already")
        m.group = index
    return t.done()


cdef object named(dict places, uint32_t place):
    """What the table calls a member."""
    return place if places is None else next(index for index, at in places.items() if at == place)


cdef int bind_members(Table t, Block b, dict places) except -1:
    """What they have from their service."""
    cdef uint32_t i
    for i in range(b.ptr.n_members):
        b.ptr.members[i].service = b.ptr.slot
        b.ptr.members[i].ctx = NULL
        if b.ptr.members[i].tls:
            if b.context is None:
                t.fail("tls", f"is needed: member {named(places, i)} speaks TLS")
            b.ptr.members[i].ctx = (<Context>b.context).ctx
    if len({b.ptr.members[i].identity for i in range(b.ptr.n_members)}) != b.ptr.n_members:
        t.fail("members", "two of them have the same identity")
    return 0


cdef Block read_service(Table t, list rows, set owned, list used):
    """rows: the members' tables of the whole document; owned: indices of those that have their service."""
    cdef Block b = block_new(len(t.items("members")))
    cdef service_t *v = b.ptr
    cdef uint32_t *indices
    cdef uint32_t i
    cdef dict places = {}
    v.slot = read_slot(t, used[2])
    b.context = read_settings(t, &b.arena, v)
    v.n_members = t.indices("members", &b.arena, <uint32_t>len(rows), &indices)
    v.members = <member_t *>take(&b.arena, v.n_members * sizeof(member_t))
    for i in range(v.n_members):
        if indices[i] in owned:
            t.fail("members", f"{indices[i]} belongs to another service already")
        owned.add(indices[i])
        places[indices[i]] = i
        read_member(rows[indices[i]], &b.arena, &v.members[i], used[1])
    read_groups(t, b, used[3], places)
    bind_members(t, b, places)
    t.done()
    return b


cdef Block read_change(Table t, Snapshot base, list used):
    """A service that is new, or has changed since base."""
    cdef uint32_t slot = read_slot(t, used[2])
    cdef Block old = base.blocks.get(slot)
    cdef Block b = block_new(len(t.items("members")))
    cdef Table settings
    if t.none("settings"):
        if old is None:
            t.fail("settings", "is needed: the service is new")
        copy_settings(&b.arena, old.ptr, b.ptr)
        b.context = old.context
    else:
        settings = t.table("settings")
        b.context = read_settings(settings, &b.arena, b.ptr)
        settings.done()
    b.ptr.slot = slot
    read_members(t, b, old, base.ptr.endpoint_slots, used[1])
    read_groups(t, b, used[3], None)
    bind_members(t, b, None)
    t.done()
    return b


cdef int read_members(Table t, Block b, Block old, uint32_t slots, set used) except -1:
    """Each is a table, or the slot of one that the service had before and that is the same."""
    cdef list items = t.items("members")
    cdef service_t *v = b.ptr
    cdef uint32_t i
    cdef uint32_t *place = <uint32_t *>calloc(slots + 1, sizeof(uint32_t))     # by slot, in old, plus one
    if place == NULL:
        raise MemoryError
    try:
        if old is not None:
            for i in range(old.ptr.n_members):
                place[old.ptr.members[i].slot] = i + 1
        v.n_members = <uint32_t>len(items)
        v.members = <member_t *>take(&b.arena, v.n_members * sizeof(member_t))
        for i in range(v.n_members):
            item = items[i]
            if type(item) is not int:
                read_member(table_of(t, "members", i, item), &b.arena, &v.members[i], used)
            elif not 0 <= item < slots or place[<uint32_t>item] == 0:
                t.fail("members", f"{item} is not the slot of a member that the service had before")
            else:
                copy_member(&b.arena, &old.ptr.members[place[<uint32_t>item] - 1], &v.members[i])
    finally:
        free(place)
    return 0


# ---- routes -----------------------------------------------------------------------------------------------------

cdef int read_route(Table t, arena_t *arena, snapshot_t *s, route_t *r, set used, list matches) except -1:
    r.slot = read_slot(t, used)
    read_name(t, "name", arena, &r.name)
    r.action = <uint8_t>t.choice("action", ACTIONS)
    read_target(t, arena, s, r)
    if not t.none("prefix_to"):
        t.text("prefix_to", arena, TEXT_LINE, &r.prefix_to)
        r.rewrite = 1
        if r.prefix_to.n and (r.prefix_to.p[0] != c'/' or not set(b" ?#").isdisjoint(r.prefix_to.p[:r.prefix_to.n])):
            t.fail("prefix_to", "has to be empty or a path")
    read_upgrades(t, arena, r)
    read_edits(t, "request", arena, &r.request, client_headers(s))
    read_edits(t, "response", arena, &r.response, [])
    r.log_per_million = t.number("log_per_million", 1000000)
    r.slow_ms = t.number("slow_ms", U32)
    r.log_errors = t.flag("log_errors")
    matches.append(read_match(t, arena, s, r))
    return t.done()


cdef int read_target(Table t, arena_t *arena, snapshot_t *s, route_t *r) except -1:
    """What a route leads to: a service, or an answer of the proxy's own."""
    cdef bint leads = False
    if not t.none("service"):
        if s.n_services == 0:
            t.fail("service", "there is none")
        r.service = t.number("service", s.n_services - 1)
        leads = True
    if leads != (r.action == ROUTE_SERVICE):
        t.fail("service", "goes with action service, and only with it")
    r.status = <uint16_t>t.number("status", 999)
    t.text("body", arena, TEXT_ANY, &r.body)
    t.text("content_type", arena, TEXT_LINE, &r.content_type)
    t.text("location", arena, TEXT_LINE, &r.location)
    if r.action == ROUTE_RESPOND and not 200 <= r.status <= 599:
        t.fail("status", f"{r.status} is not from 200 to 599")
    if r.action == ROUTE_REDIRECT and (r.status not in (301, 302, 303, 307, 308) or r.location.n == 0):
        t.fail("status", f"{r.status} with location {r.location.p[:r.location.n].decode()!r} is not a redirect")
    return check_location(t, r.location.p[:r.location.n].decode())


cdef int read_upgrades(Table t, arena_t *arena, route_t *r) except -1:
    cdef list names = t.items("upgrades")
    for name in names:
        if type(name) is not str or any(
            not part or text_problem(part, TEXT_TOKEN) is not None for part in name.encode(errors="replace").split(b"/", 1)
        ):
            t.fail("upgrades", f"{name!r} is not a protocol's name")
    text_copy(arena, "".join(f",{name.lower()}," for name in names).encode(), &r.upgrades)
    return 0


cdef int check_location(Table t, str location) except -1:
    rest = location
    for name in ("{scheme}", "{host}", "{path}", "{query}"):
        rest = rest.replace(name, "")
    if "{" in rest or "}" in rest:
        t.fail("location", f"{location!r} holds a brace that is not {{scheme}}, {{host}}, {{path}} or {{query}}")
    return 0


cdef tuple read_match(Table t, arena_t *arena, snapshot_t *s, route_t *r):
    """What a request must be like: (listener indices, hosts, path, methods, header conditions) as bytes, for the router."""
    cdef uint32_t *unused
    cdef str problem
    cdef list hosts = [host_of(t, value) for value in t.items("hosts")]
    cdef list methods = [method_of(t, value) for value in t.items("methods")]
    cdef list listeners = t.items("listeners")
    t.indices("listeners", arena, s.n_listeners, &unused)
    for listener in listeners:
        check_protocol(t, &s.listeners[<uint32_t>listener], r, bool(hosts))
    t.text("path", arena, TEXT_ANY, &r.prefix)
    problem = path_problem(r.prefix.p[:r.prefix.n])
    if problem is not None:
        t.fail("path", problem)
    return (listeners, hosts, r.prefix.p[:r.prefix.n], methods, [condition_of(row) for row in t.tables("headers")])


cdef int check_protocol(Table t, listener_t *l, const route_t *r, bint hosts) except -1:
    if l.protocol != LISTEN_HTTP and r.action != ROUTE_SERVICE:
        t.fail("action", f"at listener {l.name.p[:l.name.n].decode()!r}, where no HTTP is spoken, has to be a service")
    l.names |= hosts
    return 0


cdef bytes host_of(Table t, object value):
    if type(value) is not str or not value.isascii() or value != value.lower() or not 0 < len(value) <= NAME_BYTES:
        t.fail("hosts", f"{value!r} is not a host name in lower case")
    name = value[2:] if value.startswith("*.") else value
    if not name or name.startswith(".") or name.endswith(".") or not set(name).isdisjoint("*/@, \t?#%"):
        t.fail("hosts", f"{value!r} is not a host name or *.suffix")
    if ":" in name and not (name.startswith("[") and name.endswith("]")):
        t.fail("hosts", f"{value!r} holds a port")
    return value[1:].encode() if value.startswith("*.") else value.encode()


cdef object method_of(Table t, object value):
    """A method_id, or the name of a method that has none."""
    if type(value) is not str or not value or text_problem(value.encode(errors="replace"), TEXT_TOKEN) is not None:
        t.fail("methods", f"{value!r} is not a method")
    return METHODS.get(value, value.encode())


cdef tuple condition_of(Table t):
    """(name in lower case, value or None for any)"""
    cdef str name = t.string("name")
    value = None
    if not t.none("value"):
        value = t.string("value").encode(errors="replace")
        if text_problem(value, TEXT_LINE) is not None or value != value.strip(b" \t"):
            t.fail("value", "could never be a field's value")
    if not name or text_problem(name.encode(errors="replace"), TEXT_TOKEN) is not None:
        t.fail("name", f"{name!r} is not a field name")
    t.done()
    return name.lower().encode(), value


# ---- the whole --------------------------------------------------------------------------------------------------

cdef Frame read_frame(Table t, Table whole):
    """whole: the document, which has the services."""
    cdef Frame f = Frame.__new__(Frame)
    cdef snapshot_t *s = &f.part
    cdef arena_t *arena = &f.arena
    cdef list listeners = t.tables("listeners"), routes = t.tables("routes")
    cdef list matches = []
    cdef set used = set()
    cdef uint32_t i
    f.contexts = []
    s.listeners = <listener_t *>take(arena, len(listeners) * sizeof(listener_t))
    s.routes = <route_t *>take(arena, len(routes) * sizeof(route_t))
    s.n_listeners = <uint32_t>len(listeners)
    s.n_routes = <uint32_t>len(routes)
    s.n_services = <uint32_t>len(whole.items("services"))
    for i in range(s.n_listeners):
        read_listener(listeners[i], arena, &s.listeners[i], used, f.contexts)
    s.listener_slots = max(used, default=-1) + 1
    used.clear()
    for i in range(s.n_routes):
        read_route(routes[i], arena, s, &s.routes[i], used, matches)
        if s.routes[i].action == ROUTE_SERVICE and s.routes[i].service >= f.needs:
            f.needs = s.routes[i].service + 1
    s.route_slots = max(used, default=-1) + 1
    router_compile(arena, s, matches)
    read_tickets(t, &s.tickets)
    return f


cdef dict read_blocks(Table t, list used):
    """The services of a whole document."""
    cdef list rows = t.tables("members")
    cdef set owned = set()
    cdef Table row
    cdef Block b
    cdef dict blocks = {}
    for row in t.tables("services"):
        b = read_service(row, rows, owned, used)
        blocks[b.ptr.slot] = b
    for i in range(len(rows)):
        if i not in owned:
            (<Table>rows[i]).fail("slot", "this member belongs to no service")
    return blocks


cdef dict read_changes(Table t, Snapshot base, list used):
    """The services of a snapshot made from another one: slots of those that are the same, tables of others."""
    cdef Block b
    cdef dict blocks = {}
    for i, item in enumerate(t.items("services")):
        if type(item) is not int:
            b = read_change(table_of(t, "services", i, item), base, used)
        else:
            b = base.blocks.get(item)
            if b is None or item in blocks:
                t.fail("services", f"{item} is not the slot of a service there was before, or stands twice")
        blocks[b.ptr.slot] = b
    return blocks


cdef uint32_t take_slot(uint8_t *seen, uint32_t slot, str kind) except? 77:
    if seen[slot]:
        raise ValueError(f"{kind} slot {slot} is given twice")
    seen[slot] = 1
    return slot + 1


cdef int count_slots(snapshot_t *s) except -1:
    """The highest of each kind, plus one. Each is given once, over all services."""
    cdef uint8_t *seen = <uint8_t *>calloc(2, SLOT_MAX + 1)
    cdef uint32_t i, k
    if seen == NULL:
        raise MemoryError
    try:
        for i in range(s.n_services):
            s.service_slots = max(s.service_slots, s.services[i].slot + 1)
            for k in range(s.services[i].n_members):
                s.endpoint_slots = max(s.endpoint_slots, take_slot(seen, s.services[i].members[k].slot, "endpoint"))
            for k in range(s.services[i].n_groups):
                s.group_slots = max(s.group_slots,
                                    take_slot(seen + SLOT_MAX + 1, s.services[i].groups[k].slot, "group"))
    finally:
        free(seen)
    return 0


cdef Frame framed(Table t):
    cdef Table frame = t.table("frame")
    cdef Frame f = read_frame(frame, t)
    frame.done()
    return f


cdef int assemble(Snapshot self, Table t) except -1:
    cdef snapshot_t *s = self.ptr
    cdef Block b
    s[0] = self.frame.part
    s.version = self.version
    s.n_services = <uint32_t>len(self.blocks)
    if s.n_services < self.frame.needs:
        t.fail("services", f"has {s.n_services} of them, routes lead to {self.frame.needs}")
    s.services = <const service_t **>calloc(s.n_services + 1, sizeof(service_t *))
    if s.services == NULL:
        raise MemoryError
    for i, b in enumerate(self.blocks.values()):
        s.services[<uint32_t>i] = b.ptr
    return count_slots(s)


cdef class Frame:
    def __dealloc__(self):
        arena_free(&self.arena)


cdef class Block:
    def __dealloc__(self):
        arena_free(&self.arena)


cdef class Snapshot:
    def __cinit__(self, document, Snapshot base=None):
        cdef Table t = table_open(document)
        cdef list used = [set(), set(), set(), set()]
        self.ptr = <snapshot_t *>calloc(1, sizeof(snapshot_t))
        if self.ptr == NULL:
            raise MemoryError
        if base is None:
            self.frame = read_frame(t, t)
            self.blocks = read_blocks(t, used)
        else:
            if t.number("base", <uint64_t>1 << 62) != base.version:
                t.fail("base", f"is not {base.version}, the version of the snapshot that is to be changed")
            self.frame = base.frame if t.none("frame") else framed(t)
            self.blocks = read_changes(t, base, used)
        self.version = t.number("version", <uint64_t>1 << 62)
        t.done()
        assemble(self, t)

    def __dealloc__(self):
        if self.ptr != NULL:
            free(self.ptr.services)
        free(self.ptr)

    @property
    def slots(self):
        return {
            "listeners": self.ptr.listener_slots, "services": self.ptr.service_slots, "groups": self.ptr.group_slots,
            "endpoints": self.ptr.endpoint_slots, "routes": self.ptr.route_slots,
        }

    # ---- for tests and measurements

    def _route(self, uint32_t listener, bytes head):
        cdef head_t h
        cdef char location[4096]
        cdef uint32_t n
        cdef const route_t *r
        parse(head, &h)
        r = route_find(self.ptr, listener, head, &h)
        if r == NULL:
            return {"route": None, "doubtful": bool(route_doubtful(head, &h))}
        n = route_location(r, b"http", head, &h, location, sizeof(location)) if r.action == ROUTE_REDIRECT else 0
        return {
            "route": r.name.p[:r.name.n].decode(), "cut": route_cut(r, <const char *>head + h.path, h.path_len),
            "location": location[:n], "doubtful": bool(route_doubtful(head, &h)),
        }

    def _route_ns(self, uint32_t listener, bytes head, uint32_t times):
        """Nanoseconds per look-up."""
        cdef head_t h
        cdef const char *p = head
        cdef uint32_t i
        cdef uint64_t start, found = 0
        parse(head, &h)
        with nogil:
            start = clock_us()
            for i in range(times):
                found += <uint64_t>route_find(self.ptr, listener, p, &h)
            start = clock_us() - start
        return start * 1000 / <double>times if found else 0.0

    def _member(self, uint32_t index):
        cdef const member_t *m = NULL
        cdef uint32_t i
        for i in range(self.ptr.n_services):
            if index < self.ptr.services[i].n_members:
                m = &self.ptr.services[i].members[index]
                break
            index -= self.ptr.services[i].n_members
        if m == NULL:
            raise IndexError("no such member")
        return {
            "slot": m.slot, "generation": m.generation, "weight": m.weight, "identity": m.identity, "service": m.service,
            "group": m.group, "name": m.name.p[:m.name.n].decode(), "version": m.version.p[:m.version.n].decode(),
            "address": (<const char *>m.address)[:m.address_len],
        }

    def _shares(self, uint32_t slot, Snapshot other not None):
        return self.blocks[slot] is other.blocks[slot]


cdef int parse(bytes head, head_t *h) except -1:
    cdef head_limits_t limits
    limits.line = HEAD_MAX
    limits.head = HEAD_MAX
    limits.fields = HEAD_FIELDS_MAX
    if parse_request(head, <uint32_t>len(head), 0, &limits, h) != len(head):
        raise ValueError("not one whole request head")
    return 0
