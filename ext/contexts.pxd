"""SSL_CTX objects: certificates, versions, ciphers, verification, tickets. Made from a snapshot's document, with the GIL.

A Context owns one reference to an SSL_CTX; OpenSSL counts another for every connection made with it, so that a
connection never outlives it. Rows that say the same share one Context, over snapshots too: what has not changed keeps
its SSL_CTX, and upstream connections and sessions made with it stay good.
What a handshake looks up (names, ticket keys) it finds in the snapshot in force at that moment.
"""

from turnout.ext.arena cimport arena_t
from turnout.ext.document cimport Table
from turnout.ext.openssl cimport SSL_CTX
from turnout.ext.snapshot cimport listener_tls_t, tickets_t

cdef class Context:
    cdef SSL_CTX *ctx
    cdef object __weakref__

cdef int read_server(Table t, arena_t *arena, listener_tls_t *out, list keep) except -1
"""The `tls` table of a listener. Contexts that it needs are added to `keep`, whose owner must outlive `out`."""
cdef Context read_client(Table t)
"""The `tls` table of a service."""
cdef int read_tickets(Table t, tickets_t *out) except -1
"""The `ticket_keys` of a document."""
