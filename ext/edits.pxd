"""Which header fields go on to the other side, and what a route changes about them."""

from libc.stdint cimport uint64_t
from turnout.ext.headers cimport head_t
from turnout.ext.snapshot cimport edits_t
from turnout.ext.text cimport out_t

cdef void put_fields(out_t *o, const head_t *h, const char *base, const edits_t *edits, uint64_t drop) noexcept nogil
"""The end-to-end fields, without those whose header_id has its bit in `drop` and those that the edits remove or replace;
then what the edits set."""
cdef void put_upgrade(out_t *o, const head_t *h, const char *base) noexcept nogil
"""Connection: upgrade and the Upgrade field of a head that has one."""
cdef void put_edits(out_t *o, const edits_t *edits) noexcept nogil
"""Only what the edits set."""
