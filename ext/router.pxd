"""Routes: host (exact, then `*.suffix`, longest first, then routes without a host), longest path prefix, then the route
with more conditions (methods, header fields), then the order of the file. A route whose conditions do not hold gives way
to the next one in this order, over all prefixes and hosts that match.

A host is compared without case, port and trailing dot; `*.suffix` stands for one label or more. A prefix matches whole
segments: "/orders" matches "/orders" and "/orders/7", not "/ordersx"; a prefix that ends in "/" matches what starts with it.

Prefixes are canonical: percent-decoded, no empty and no dot segment. A request's path goes upstream as it came, and an
upstream may read it in more than one way: "//" as one slash or two, "%2F" as a slash or as part of a segment. It is
therefore matched twice, read literally (everything decoded but %2F) and read merged (everything decoded, slashes
merged). Whatever a literal prefix match finds is found by every reading between the two as well; so if both agree on a
route, all readings do. If they do not, or the path holds a dot segment ("." or "..", also encoded or followed by ";") or
%00, it is doubtful: no route takes it, and no rule for a longer prefix is passed by. Clients resolve dot segments before
they send (RFC 3986 5.2.4). A percent sign without two digits stands for itself.

Compiled once per snapshot; a look-up allocates nothing: one pass over the host, one over the path, one hash probe per
segment boundary at which some prefix of the table ends. How the table is laid out is the .pyx's own affair.
"""

from libc.stdint cimport uint32_t
from turnout.ext.arena cimport arena_t
from turnout.ext.headers cimport head_t
from turnout.ext.snapshot cimport route_t, snapshot_t

cdef enum:
    PREFIX_MAX = 1023         # bytes of a canonical prefix
    HOST_MAX = 255

cdef route_t *route_find(const snapshot_t *s, uint32_t listener_slot, const char *head, const head_t *h) noexcept nogil
"""The route of a request, NULL when none matches. `head` is what h's offsets count from."""

cdef bint route_doubtful(const char *head, const head_t *h) noexcept nogil
"""Why there was no route: whether the path may have been refused for being readable in more than one way (400, not 404)."""

cdef uint32_t route_cut(const route_t *r, const char *path, uint32_t n) noexcept nogil
"""How many bytes of a path that r matched its prefix takes up: more than r.prefix.n where the path has percent signs."""

cdef uint32_t route_location(const route_t *r, const char *scheme, const char *head, const head_t *h, char *out,
                             uint32_t cap) noexcept nogil
"""The Location of a ROUTE_REDIRECT written to out; 0 when it does not fit. {host} comes without its port, {query} with its
"?" or empty, {path} with one slash in front however many came: "//elsewhere" would be another host."""

cdef int router_compile(arena_t *arena, snapshot_t *s, list matches) except -1
"""Build s.router. matches, one per route: (listener indices, hosts, path, methods, header conditions) as checked by
snapshot.pyx: hosts as b"name" or b".suffix", methods as method_id or bytes, conditions as (name, value or None)."""

cdef str path_problem(bytes path)
"""What makes it unfit for a canonical prefix; None when nothing does."""
