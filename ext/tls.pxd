"""TLS under a connection: handshake, records, the end. Whatever is above conn_recv and conn_send knows nothing of it.

A connection has a tls_t from accept or connect until it closes. The handshake is made by whichever of read and write
comes first. Both follow conn.pxd: edge-triggered, IO_BLOCKED once the socket (not only OpenSSL's buffer) has been
drained or is full. A TLS connection has EPOLLOUT in its interest set from the beginning, since either direction may
have to wait for either event: tls_edges turns events into the flags that those above look at.

OpenSSL reads and writes through a BIO of our own: a short read is remembered, so that a drained socket is not asked
again, and all but the last record of a write are sent with MSG_MORE, so that the kernel sends large segments.
While nothing is under way OpenSSL keeps no buffer (SSL_MODE_RELEASE_BUFFERS).
"""

from libc.stdint cimport uint32_t
from turnout.ext.core cimport conn_t, core_t, tls_t
from turnout.ext.openssl cimport SSL_CTX, SSL_SESSION

cdef bint tls_serve(core_t *core, conn_t *c, SSL_CTX *ctx) noexcept nogil
"""Make an accepted connection the server's side of TLS; False when memory is out."""
cdef bint tls_connect(core_t *core, conn_t *c, SSL_CTX *ctx, const char *name, bint is_ip, SSL_SESSION *session) noexcept nogil
"""Make a connection on its way the client's side. `name` (NUL-terminated, "" for none) is what the peer is asked for and
must prove to be; `session` is offered for resumption when not NULL."""
cdef void tls_close(conn_t *c) noexcept nogil
"""Say goodbye unless the connection is broken or being reset, and free. Called before the descriptor is closed."""

cdef int tls_greet(conn_t *c) noexcept nogil
"""Make the handshake, where nothing is to be read or written yet: 1 when it is done, else as tls_recv."""
cdef void tls_any_protocol(conn_t *c) noexcept nogil
"""Offer no application protocol; before the handshake."""
cdef int tls_recv(conn_t *c, char *p, uint32_t n) noexcept nogil
"""As conn_recv. 0 only after the peer's close_notify; an end without one is IO_ERROR. IO_PLAIN: the peer speaks plain
HTTP; the connection is plain from now on, and what it sent is lost in part."""
cdef int tls_send(conn_t *c, const char *p, uint32_t n, bint more) noexcept nogil
"""As conn_send. After IO_BLOCKED the same bytes, maybe more of them, must be given again."""
cdef bint tls_quiet(conn_t *c) noexcept nogil
"""As conn_quiet; takes in session tickets."""
cdef void tls_end(conn_t *c) noexcept nogil
"""close_notify: nothing more comes from here."""
cdef void tls_edges(conn_t *c, uint32_t events) noexcept nogil
"""Tell what an event of epoll means for the pair; called after the plain flags are set."""
cdef void tls_late(conn_t *c) noexcept nogil
"""The connection's deadline has passed: a handshake that is not done counts as too slow."""

cdef const char *tls_reason(const conn_t *c, const char *other) noexcept nogil
"""What was wrong, in words for a proxy-made answer: static storage. `other` when TLS was not at fault."""
cdef SSL_CTX *tls_context(const conn_t *c) noexcept nogil
"""What the connection was made with; NULL for a plain one."""
cdef const char *tls_version(const conn_t *c) noexcept nogil
cdef const char *tls_cipher(const conn_t *c) noexcept nogil
cdef const char *tls_sni(const conn_t *c) noexcept nogil
"""What the client asked for, NULL for nothing. Not checked: any bytes but NUL."""
cdef const char *tls_subject(const conn_t *c) noexcept nogil
"""Of the client's verified certificate (RFC 2253, printable ASCII); NULL when it showed none."""
