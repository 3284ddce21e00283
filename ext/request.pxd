"""The request head as an upstream gets it."""

from libc.stdint cimport uint8_t, uint64_t
from turnout.ext.core cimport core_t, exch_t
from turnout.ext.snapshot cimport listener_t
from turnout.ext.text cimport out_t

cdef void request_head(core_t *core, exch_t *x, out_t *o) noexcept nogil
"""Request line, Host, end-to-end fields, edits of the route, forwarded fields, request id, framing. o.full when it does
not fit."""

cdef void request_source(exch_t *x) noexcept nogil
"""Set x.source and XF_TRUSTED from the peer's address and, if that is trusted, from X-Forwarded-For (or Forwarded): the
last address in it that is not itself trusted."""

cdef bint peer_trusted(const listener_t *listener, const uint8_t *address) noexcept nogil
"""Whether an address is in one of the listener's trusted networks."""

cdef void request_identity(core_t *core, exch_t *x) noexcept nogil
"""Set x.request_id: the client's X-Request-ID if it is short and plain, else a new one."""

cdef uint64_t random_next(core_t *core) noexcept nogil
"""Unique enough for ids and jitter; not a secret."""
