"""The upstream side of an exchange: attempts one after another until one is answered.

    begin -> pick -> reuse or connect -> send -> [WAITING] -> head -> [RESPONDING] -> finish
                 ^                                   |
                 +---- failed: retry_allowed? -------+---> answer from the proxy (502, 503, 504)

A failure is named where it is noticed (reason, outcome, phrase) and judged in one place, `attempt_failed`.
Every function here may end the exchange: the caller must not touch it afterwards unless told that it lives.
"""

from turnout.ext.core cimport conn_t, core_t, exch_t

cdef void upstream_begin(core_t *core, exch_t *x) noexcept nogil
"""Pick an endpoint and start an attempt, queue, or answer 503."""
cdef void upstream_event(core_t *core, conn_t *u) noexcept nogil
"""Something happened at an upstream connection (flags are up to date)."""
cdef void upstream_unreachable(core_t *core, exch_t *x) noexcept nogil
"""The connection that an exchange waits for has failed: on to another endpoint, or the exchange ends."""
cdef void upstream_timeout(core_t *core, conn_t *u) noexcept nogil
cdef void upstream_body(core_t *core, exch_t *x) noexcept nogil
"""The client sent more of its body, or the upstream can take more."""
cdef void upstream_asked(core_t *core, exch_t *x) noexcept nogil
"""The client has sent its whole request: it has no deadline any more. One that also shut its side may still read, or be
gone; the two look alike until something is written, so before the answer it is kept for half_close_ms."""
cdef void upstream_response(core_t *core, exch_t *x) noexcept nogil
"""The client can take more of the answer."""
cdef void upstream_interim(core_t *core, exch_t *x) noexcept nogil
"""The client can take more of the interim answers: nothing is read from the endpoint while some wait."""
cdef void upstream_cancel(core_t *core, exch_t *x, int cause, const char *reason) noexcept nogil
"""The client has left: the upstream request is cancelled (its connection closed) and the exchange ends unanswered."""
cdef void upstream_drop(core_t *core, exch_t *x, int outcome) noexcept nogil
"""Leave the current attempt, if any: connection closed, pick closed with `outcome`, queue place given up."""
cdef void queue_wake(core_t *core, unsigned int service_slot) noexcept nogil
"""An endpoint of this service has room: the first in its queue tries again this turn."""
