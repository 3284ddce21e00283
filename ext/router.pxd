"""Routes: host (exact, then `*.suffix`, longest first), longest path prefix, then method and header conditions.

Compiled once per snapshot; a look-up allocates nothing. A prefix matches whole segments: "/orders" matches "/orders"
and "/orders/7", not "/ordersx"; a prefix that ends in "/" matches what starts with it.
"""

from libc.stdint cimport uint32_t
from turnout.ext.headers cimport head_t
from turnout.ext.snapshot cimport route_t, snapshot_t

cdef route_t *route_find(const snapshot_t *s, uint32_t listener_slot, const char *head, const head_t *h) noexcept nogil
"""The route of a request, NULL when none matches. `head` is what h's offsets count from."""

cdef uint32_t route_location(const route_t *r, const char *scheme, const char *head, const head_t *h, char *out,
                             uint32_t cap) noexcept nogil
"""The Location of a ROUTE_REDIRECT written to out; 0 when it does not fit."""
