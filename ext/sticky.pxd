"""Sticky sessions.

By cookie: stateless and signed. The value carries service, version, endpoint (member identity) and expiry under a
SipHash-2-4 tag of 128 bits, so a client can neither choose nor forge an endpoint. By source address: a bounded table
in the scoreboard, shared by all workers.
"""

from libc.stdint cimport uint32_t, uint64_t
from turnout.ext.scoreboard cimport sb_t
from turnout.ext.snapshot cimport member_t, service_t

cdef enum:
    STICKY_COOKIE_MAX = 512   # bytes of a whole Set-Cookie value, name and attributes included, without path and domain

cdef enum sticky_verdict:
    STICKY_NONE = 0
    STICKY_BOUND = 1          # *identity names the endpoint
    STICKY_BAD = 2            # expired, forged or of another service: counts as broken, re-issue

cdef int sticky_read(const service_t *service, const char *value, uint32_t n, uint64_t wall_s, uint64_t *identity,
                     uint64_t *expires_s) noexcept nogil
"""Check a cookie's value. wall_s: Unix time."""

cdef uint32_t sticky_write(const service_t *service, const member_t *member, uint64_t expires_s, uint64_t wall_s, char *out,
                           uint32_t cap) noexcept nogil
"""A whole Set-Cookie value (name=value and attributes); 0 when it does not fit."""

cdef uint64_t sticky_source_get(sb_t *sb, uint64_t source, uint64_t now_ms, uint32_t *slot, uint32_t *generation) noexcept nogil
"""1 and the endpoint bound to a source hash (service mixed in), 0 when none or expired. The slot may have another owner
by now: compare the generation."""

cdef void sticky_source_put(sb_t *sb, uint64_t source, uint32_t slot, uint32_t generation, uint64_t expires_ms) noexcept nogil
"""Bind a source, or bind it anew. May come to nothing when another worker writes the same entry at that moment, and may
drop another source's binding, the one of a short run that expires first."""
