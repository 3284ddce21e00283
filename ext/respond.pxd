"""What a client gets: heads rewritten from what an upstream sent, the proxy's own answers, and the end of an exchange."""

from libc.stdint cimport uint32_t
from turnout.ext.core cimport conn_t, core_t, exch_t
from turnout.ext.headers cimport head_t

cdef void exchange_free(core_t *core, exch_t *x) noexcept nogil
cdef exch_t *exchange_new(core_t *core) noexcept nogil
cdef exch_t *exchange_slim(core_t *core, exch_t *x) noexcept nogil
"""x in as few bytes as an exchange can do with that has no head left to rewrite, only to log; the client's input buffer
goes back. Returns x itself when there is no memory; else x must not be used any more."""

cdef uint32_t respond_head(core_t *core, exch_t *x, const head_t *h, const char *base, char *out, uint32_t cap) noexcept nogil
"""Write the response head for this client: status line, end-to-end fields, edits of the route, framing of x.down.out,
connection control, sticky cookie. Returns its length, 0 when it does not fit."""

cdef bint respond_interim(core_t *core, exch_t *x, const head_t *h, const char *base) noexcept nogil
"""Pass a 1xx on. False: the client is gone."""

cdef void respond_local(core_t *core, exch_t *x, uint32_t status, int cause, const char *reason) noexcept nogil
"""Answer from the proxy itself and finish: a short text that says which, JSON if the client accepts it. Any upstream
connection must have been closed. `reason` is static storage. A client that speaks no HTTP is cut off instead."""

cdef void respond_fixed(core_t *core, exch_t *x, const char *location, uint32_t location_n) noexcept nogil
"""Answer with the route's own response or redirect, and finish."""

cdef void respond_flush_local(core_t *core, exch_t *x) noexcept nogil
"""Go on writing a local answer after the client took some."""

cdef void respond_finish(core_t *core, exch_t *x) noexcept nogil
"""The exchange is over: account, free it, and let its connection go on, linger or close."""

cdef void respond_abort(core_t *core, exch_t *x) noexcept nogil
"""The answer cannot be completed: account and cut the connection so that the client notices."""

cdef void client_close(core_t *core, conn_t *c) noexcept nogil
"""Close a client connection that has no exchange."""

cdef void client_linger(core_t *core, conn_t *c) noexcept nogil
"""Close after the client has had time to read the answer: nothing more is sent, what comes is dropped."""
