"""PROXY headers on connections: taken from clients, written to endpoints (proxyproto.pxd has the format).

A listener with proxy_protocol takes the header of a `trusted` peer, which must send one; from then on the connection is
the client's that it names: its address is what is logged, forwarded, hashed and bound. Anybody else must not send one. The
header is looked at where it lies in the kernel and taken off in one piece, so that whatever reads next (TLS, HTTP,
a ClientHello, a tunnel) finds the byte behind it.
"""

from turnout.ext.core cimport conn_t, core_t, exch_t
from turnout.ext.snapshot cimport listener_t

cdef enum preface:
    PREFACE_DONE = 0          # CF_PROXY is off
    PREFACE_WAIT              # not all there
    PREFACE_LATER             # an outsider that has said nothing yet, where the endpoint may speak first
    PREFACE_GONE              # the peer left
    PREFACE_REFUSED

cdef int preface_take(conn_t *c, const listener_t *listener) noexcept nogil
"""Look at the first bytes of a client with CF_PROXY; preface."""

cdef const char *preface_reason(const conn_t *c, const listener_t *listener) noexcept nogil
"""Why it was refused; static storage."""

cdef unsigned int preface_write(const exch_t *x, char *out) noexcept nogil
"""The header for x's endpoint written to `out` (PROXY_OUT_MAX bytes), as its service wants it; 0 when it wants none. The
target is the address of ours that the client's connection came in at."""
