"""See tls.pxd."""

from libc.stdint cimport uint16_t, uint32_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy
from turnout.ext.conn cimport IO_BLOCKED, IO_ERROR, IO_PLAIN
from turnout.ext.core cimport (
    CF_BLOCKED, CF_DEAD, CF_PEER_SHUT, CF_READABLE, CONN_UPSTREAM, TF_DONE, TF_DRAINED, TF_ENDED, TF_FAILED, TF_LATE,
    TF_LIVE, TF_MORE, TF_READ_NEEDS_OUT, TF_SEND_NEEDS_IN, TF_TICKET, TF_USED, conn_t, core_t, tls_t,
)
from turnout.ext.kernel cimport (
    EAGAIN, EINTR, EPOLLOUT, MSG_MORE, MSG_NOSIGNAL, errno, recv, send,
)
from turnout.ext.openssl cimport (
    BIO, BIO_CTRL_DUP, BIO_CTRL_FLUSH, BIO_FLAGS_READ, BIO_FLAGS_RWS, BIO_FLAGS_SHOULD_RETRY, BIO_FLAGS_WRITE,
    BIO_METHOD, BIO_TYPE_SOURCE_SINK, ERR_LIB_SSL, SSL, SSL_AD_REASON_OFFSET, SSL_CTRL_SET_TLSEXT_HOSTNAME, SSL_CTX,
    SSL_ERROR_SSL, SSL_ERROR_WANT_READ, SSL_ERROR_WANT_WRITE, SSL_ERROR_ZERO_RETURN, SSL_R_CALLBACK_FAILED,
    SSL_R_CERTIFICATE_VERIFY_FAILED, SSL_R_HTTP_REQUEST, SSL_R_HTTPS_PROXY_REQUEST, SSL_R_NO_APPLICATION_PROTOCOL,
    SSL_R_NO_PROTOCOLS_AVAILABLE, SSL_R_NO_SHARED_CIPHER, SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE,
    SSL_R_UNSUPPORTED_PROTOCOL, SSL_R_VERSION_TOO_HIGH, SSL_R_VERSION_TOO_LOW, SSL_R_WRONG_VERSION_NUMBER, SSL_SESSION,
    TLS1_3_VERSION, TLSEXT_NAMETYPE_host_name, X509, X509_V_ERR_CERT_HAS_EXPIRED, X509_V_ERR_CERT_NOT_YET_VALID,
    X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT, X509_V_ERR_HOSTNAME_MISMATCH, X509_V_ERR_INVALID_PURPOSE,
    X509_V_ERR_IP_ADDRESS_MISMATCH, X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN,
    X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY, X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE, XN_FLAG_RFC2253, openssl,
)
from turnout.ext.scoreboard cimport (
    TLS_ALPN, TLS_CERTIFICATE, TLS_CIPHER, TLS_CLOSED, TLS_NAME, TLS_PLAIN, TLS_PROTOCOL, TLS_REFUSED, TLS_TIMEOUT,
    TLS_VERSION, sb_tls_t,
)

cdef enum:
    RECORD_BYTES = 16384      # plaintext of the largest record
    SUBJECT_MAX = 1024        # bytes of a client certificate's subject that are passed on

cdef BIO_METHOD *socket_bio = NULL


# ---- between OpenSSL and the socket -----------------------------------------------------------------------------

cdef int bio_write(BIO *b, const char *p, int n) noexcept nogil:
    cdef tls_t *t = <tls_t *>openssl.BIO_get_data(b)
    cdef ssize_t put
    openssl.BIO_clear_flags(b, BIO_FLAGS_RWS | BIO_FLAGS_SHOULD_RETRY)
    while True:
        put = send(t.c.fd, p, n, MSG_NOSIGNAL | (MSG_MORE if t.flags & TF_MORE else 0))
        if put >= 0:
            t.flags |= TF_LIVE
            return <int>put
        if errno != EINTR:
            break
    if errno == EAGAIN:
        openssl.BIO_set_flags(b, BIO_FLAGS_WRITE | BIO_FLAGS_SHOULD_RETRY)
    return -1


cdef int bio_read(BIO *b, char *p, int n) noexcept nogil:
    cdef tls_t *t = <tls_t *>openssl.BIO_get_data(b)
    cdef ssize_t got
    openssl.BIO_clear_flags(b, BIO_FLAGS_RWS | BIO_FLAGS_SHOULD_RETRY)
    if t.flags & TF_DRAINED:
        openssl.BIO_set_flags(b, BIO_FLAGS_READ | BIO_FLAGS_SHOULD_RETRY)
        return -1
    while True:
        got = recv(t.c.fd, p, n, 0)
        if got > 0:
            # As in conn_recv: a short read has drained the socket, unless its end is still to be read.
            if got < n and not t.c.flags & (CF_PEER_SHUT | CF_DEAD):
                t.flags |= TF_DRAINED
            return <int>got
        if got == 0 or errno != EINTR:
            break
    if got < 0 and errno == EAGAIN:
        t.flags |= TF_DRAINED
        openssl.BIO_set_flags(b, BIO_FLAGS_READ | BIO_FLAGS_SHOULD_RETRY)
    return <int>got


cdef long bio_ctrl(BIO *b, int command, long n, void *p) noexcept nogil:
    return command == BIO_CTRL_FLUSH or command == BIO_CTRL_DUP


cdef int bio_ready() noexcept nogil:
    global socket_bio
    if socket_bio == NULL:
        socket_bio = openssl.BIO_meth_new(openssl.BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, b"turnout")
        if socket_bio == NULL:
            return -1
        openssl.BIO_meth_set_write(socket_bio, bio_write)
        openssl.BIO_meth_set_read(socket_bio, bio_read)
        openssl.BIO_meth_set_ctrl(socket_bio, bio_ctrl)
    return 0


# ---- coming and going -------------------------------------------------------------------------------------------

cdef tls_t *tls_new(core_t *core, conn_t *c, SSL_CTX *ctx) noexcept nogil:
    cdef tls_t *t = <tls_t *>calloc(1, sizeof(tls_t))
    cdef BIO *b = NULL
    if t != NULL and bio_ready() == 0:
        t.ssl = openssl.SSL_new(ctx)
        b = openssl.BIO_new(socket_bio)
    if b == NULL or t.ssl == NULL:
        if b != NULL:
            openssl.BIO_free(b)
        if t != NULL and t.ssl != NULL:
            openssl.SSL_free(t.ssl)
        free(t)
        openssl.ERR_clear_error()
        return NULL
    t.core = core
    t.c = c
    openssl.BIO_set_data(b, t)
    openssl.BIO_set_init(b, 1)
    openssl.SSL_set_bio(t.ssl, b, b)
    openssl.SSL_set_ex_data(t.ssl, 0, t)
    c.tls = t
    core.n_tls += 1
    return t


cdef bint tls_serve(core_t *core, conn_t *c, SSL_CTX *ctx) noexcept nogil:
    cdef tls_t *t = tls_new(core, c, ctx)
    if t == NULL:
        return False
    openssl.SSL_set_accept_state(t.ssl)
    return True


cdef bint tls_connect(core_t *core, conn_t *c, SSL_CTX *ctx, const char *name, bint is_ip, SSL_SESSION *session) noexcept nogil:
    cdef tls_t *t = tls_new(core, c, ctx)
    if t == NULL:
        return False
    openssl.SSL_set_connect_state(t.ssl)
    if name[0] and is_ip:
        openssl.X509_VERIFY_PARAM_set1_ip_asc(openssl.SSL_get0_param(t.ssl), name)
    elif name[0]:
        openssl.SSL_ctrl(t.ssl, SSL_CTRL_SET_TLSEXT_HOSTNAME, TLSEXT_NAMETYPE_host_name, <void *>name)
        openssl.SSL_set1_host(t.ssl, name)
    if session != NULL:
        openssl.SSL_set_session(t.ssl, session)
    return True


cdef void tls_free(conn_t *c) noexcept nogil:
    c.tls.core.n_tls -= 1
    openssl.SSL_free(c.tls.ssl)
    free(c.tls.subject)
    free(c.tls)
    c.tls = NULL


cdef void tls_close(conn_t *c) noexcept nogil:
    cdef tls_t *t = c.tls
    if not t.flags & (TF_DONE | TF_FAILED) and peer_reached(t):
        count_failure(t, TLS_TIMEOUT if t.flags & TF_LATE else TLS_CLOSED)
    tls_end(c)
    tls_free(c)


cdef void tls_end(conn_t *c) noexcept nogil:
    cdef tls_t *t = c.tls
    if t.flags & TF_DONE and not t.flags & (TF_FAILED | TF_ENDED) and not c.flags & CF_DEAD:
        t.flags |= TF_ENDED
        t.flags &= ~<uint32_t>TF_MORE
        openssl.SSL_shutdown(t.ssl)
        openssl.ERR_clear_error()


cdef void tls_late(conn_t *c) noexcept nogil:
    c.tls.flags |= TF_LATE


# ---- failure ----------------------------------------------------------------------------------------------------

cdef sb_tls_t *stats(const tls_t *t) noexcept nogil:
    return &t.core.sb.slab[t.core.sb.me].tls[1 if t.c.kind == CONN_UPSTREAM else 0]


cdef bint peer_reached(const tls_t *t) noexcept nogil:
    """False while a TCP connection is still being made: its failure is not TLS's."""
    return t.c.kind != CONN_UPSTREAM or t.flags & TF_LIVE


cdef void count_failure(tls_t *t, int why) noexcept nogil:
    t.flags |= TF_FAILED
    stats(t).failures[why] += 1


cdef uint32_t first_reason() noexcept nogil:
    """The first reason of libssl in the error queue, 0 for none; empties the queue."""
    cdef unsigned long code
    cdef uint32_t reason = 0
    while True:
        code = openssl.ERR_get_error()
        if code == 0:
            return reason
        if reason == 0 and ((code >> 23) & 0xff) == ERR_LIB_SSL:
            reason = <uint32_t>(code & 0x7fffff)


cdef const char *verify_phrase(long result) noexcept nogil:
    if result == X509_V_ERR_CERT_HAS_EXPIRED:
        return b"the endpoint's certificate has expired"
    if result == X509_V_ERR_CERT_NOT_YET_VALID:
        return b"the endpoint's certificate is not valid yet"
    if result == X509_V_ERR_HOSTNAME_MISMATCH or result == X509_V_ERR_IP_ADDRESS_MISMATCH:
        return b"the endpoint's certificate is for another name"
    if (result == X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT or result == X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN
            or result == X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY
            or result == X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE):
        return b"the endpoint's certificate is not signed by a CA that this service trusts"
    if result == X509_V_ERR_INVALID_PURPOSE:
        return b"the endpoint's certificate is not meant for servers"
    return b"the endpoint's certificate cannot be verified"


cdef int failure_of(uint32_t reason) noexcept nogil:
    if reason == SSL_R_HTTP_REQUEST or reason == SSL_R_HTTPS_PROXY_REQUEST:
        return TLS_PLAIN
    if reason == SSL_R_CERTIFICATE_VERIFY_FAILED or reason == SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE:
        return TLS_CERTIFICATE
    if reason == SSL_R_NO_SHARED_CIPHER:
        return TLS_CIPHER
    if (reason == SSL_R_UNSUPPORTED_PROTOCOL or reason == SSL_R_VERSION_TOO_LOW or reason == SSL_R_VERSION_TOO_HIGH
            or reason == SSL_R_NO_PROTOCOLS_AVAILABLE):
        return TLS_VERSION
    if reason == SSL_R_NO_APPLICATION_PROTOCOL:
        return TLS_ALPN
    if reason == SSL_R_CALLBACK_FAILED:
        return TLS_NAME
    if reason >= SSL_AD_REASON_OFFSET:
        return TLS_REFUSED
    return TLS_PROTOCOL


cdef const char *phrase_of(const tls_t *t, int failure, uint32_t reason) noexcept nogil:
    if failure == TLS_CERTIFICATE:
        return verify_phrase(openssl.SSL_get_verify_result(t.ssl))
    if failure == TLS_REFUSED:
        return b"the endpoint refused the TLS connection"
    if failure == TLS_VERSION or failure == TLS_CIPHER:
        return b"the endpoint and this service have no TLS version or cipher in common"
    if failure == TLS_CLOSED and t.flags & TF_DONE:
        return b"the endpoint closed the connection right after the TLS handshake"
    if failure == TLS_CLOSED:
        return b"the endpoint closed the connection during the TLS handshake"
    if reason == SSL_R_WRONG_VERSION_NUMBER:
        return b"the endpoint does not speak TLS"
    return b"the TLS handshake with the endpoint failed"


cdef int fail(tls_t *t, int error) noexcept nogil:
    """A fatal failure, of which SSL_get_error said `error`: remember it and say what the caller's caller gets."""
    cdef conn_t *c = t.c
    cdef uint32_t reason = first_reason()
    cdef int failure = failure_of(reason) if error == SSL_ERROR_SSL else TLS_CLOSED
    if peer_reached(t) and (failure == TLS_REFUSED or not t.flags & TF_USED):
        t.reason = phrase_of(t, failure, reason)
    if peer_reached(t) and not t.flags & TF_DONE:
        count_failure(t, failure)
    t.flags |= TF_FAILED
    if failure == TLS_PLAIN and not t.flags & TF_DONE and c.kind != CONN_UPSTREAM:
        tls_free(c)
        c.flags |= CF_READABLE
        return IO_PLAIN
    c.flags |= CF_DEAD
    c.flags &= ~<uint32_t>CF_READABLE
    return IO_ERROR


# ---- handshake --------------------------------------------------------------------------------------------------

cdef int handshake(tls_t *t) noexcept nogil:
    """1 when done, IO_BLOCKED with the flags saying on what, IO_ERROR, IO_PLAIN."""
    cdef int got, error
    openssl.ERR_clear_error()
    got = openssl.SSL_do_handshake(t.ssl)
    if got == 1:
        finished(t)
        return 1
    error = openssl.SSL_get_error(t.ssl, got)
    if error == SSL_ERROR_WANT_READ:
        t.flags |= TF_SEND_NEEDS_IN
        t.c.flags |= CF_BLOCKED
        t.c.flags &= ~<uint32_t>CF_READABLE
        return IO_BLOCKED
    if error == SSL_ERROR_WANT_WRITE:
        t.flags |= TF_READ_NEEDS_OUT
        t.c.flags |= CF_BLOCKED
        t.c.flags &= ~<uint32_t>CF_READABLE
        return IO_BLOCKED
    return fail(t, error)


cdef void finished(tls_t *t) noexcept nogil:
    cdef sb_tls_t *s = stats(t)
    cdef int version = 1 if openssl.SSL_version(t.ssl) >= TLS1_3_VERSION else 0
    t.flags |= TF_DONE
    t.flags &= ~<uint32_t>(TF_SEND_NEEDS_IN | TF_READ_NEEDS_OUT)
    t.c.flags &= ~<uint32_t>CF_BLOCKED
    if openssl.SSL_session_reused(t.ssl):
        s.resumed[version] += 1
    else:
        s.full[version] += 1
    if t.c.kind != CONN_UPSTREAM:
        if version and t.core.snapshot.tickets.n:
            t.flags |= TF_TICKET
        keep_subject(t, openssl.SSL_get0_peer_certificate(t.ssl))


cdef void keep_subject(tls_t *t, X509 *certificate) noexcept nogil:
    """A certificate that did not verify has ended the handshake, so one that is there is good."""
    cdef char text[SUBJECT_MAX]
    cdef BIO *b
    cdef int n
    if certificate == NULL:
        return
    b = openssl.BIO_new(openssl.BIO_s_mem())
    if b == NULL:
        return
    openssl.X509_NAME_print_ex(b, openssl.X509_get_subject_name(certificate), 0, XN_FLAG_RFC2253)
    n = openssl.BIO_read(b, text, SUBJECT_MAX)
    openssl.BIO_free(b)
    t.subject = <char *>malloc(<size_t>(n if n > 0 else 0) + 1)
    if t.subject != NULL:
        memcpy(t.subject, text, <size_t>(n if n > 0 else 0))
        t.subject[n if n > 0 else 0] = 0


cdef int tls_greet(conn_t *c) noexcept nogil:
    if c.tls.flags & TF_FAILED:
        return IO_ERROR
    return 1 if c.tls.flags & TF_DONE else handshake(c.tls)


cdef void tls_any_protocol(conn_t *c) noexcept nogil:
    openssl.SSL_set_alpn_protos(c.tls.ssl, NULL, 0)


# ---- the pair ---------------------------------------------------------------------------------------------------

cdef int tls_recv(conn_t *c, char *p, uint32_t n) noexcept nogil:
    cdef tls_t *t = c.tls
    cdef uint32_t total = 0
    cdef int got
    if t.flags & TF_FAILED:
        return IO_ERROR
    if not t.flags & TF_DONE:
        got = handshake(t)
        if got != 1:
            return got
    openssl.ERR_clear_error()
    while total < n:
        got = openssl.SSL_read(t.ssl, p + total, <int>(n - total))
        if got <= 0:
            return <int>total if total else read_stopped(t, openssl.SSL_get_error(t.ssl, got))
        total += <uint32_t>got
        if t.flags & TF_DRAINED and not openssl.SSL_has_pending(t.ssl):
            c.flags &= ~<uint32_t>CF_READABLE
            return <int>total
    c.flags |= CF_READABLE    # the buffer is full: there may be more, in the socket or in OpenSSL
    return <int>total


cdef int read_stopped(tls_t *t, int error) noexcept nogil:
    cdef conn_t *c = t.c
    if error == SSL_ERROR_WANT_READ:
        if t.flags & TF_TICKET:
            send_ticket(t, 0)
        c.flags &= ~<uint32_t>CF_READABLE
        return IO_BLOCKED
    if error == SSL_ERROR_WANT_WRITE:
        t.flags |= TF_READ_NEEDS_OUT
        c.flags |= CF_BLOCKED
        c.flags &= ~<uint32_t>CF_READABLE
        return IO_BLOCKED
    if error == SSL_ERROR_ZERO_RETURN:
        c.flags |= CF_PEER_SHUT
        return 0
    return fail(t, error)


cdef int tls_send(conn_t *c, const char *p, uint32_t n, bint more) noexcept nogil:
    cdef tls_t *t = c.tls
    cdef uint32_t total = 0, part
    cdef int put
    if t.flags & TF_FAILED:
        return IO_ERROR
    if not t.flags & TF_DONE:
        put = handshake(t)
        if put != 1:
            return IO_ERROR if put == IO_PLAIN else put
    openssl.ERR_clear_error()
    if t.flags & TF_TICKET:
        send_ticket(t, TF_MORE)
    while total < n:
        part = n - total if n - total < RECORD_BYTES else RECORD_BYTES
        if more or part < n - total:
            t.flags |= TF_MORE
        else:
            t.flags &= ~<uint32_t>TF_MORE
        put = openssl.SSL_write(t.ssl, p + total, <int>part)
        if put <= 0:
            put = write_stopped(t, openssl.SSL_get_error(t.ssl, put))
            return <int>total if total and put == IO_BLOCKED else put
        t.flags |= TF_USED
        total += <uint32_t>put
    return <int>total


cdef void send_ticket(tls_t *t, uint32_t more) noexcept nogil:
    """Seal the session for the client's next connection (TLS 1.3): in one packet with the first answer (TF_MORE), if the
    request came with the end of the handshake. Else at once, since a client may wait to see the end of its handshake
    acknowledged before it sends anything (RFC 896), and acknowledging alone takes the kernel 40 ms. What the socket does
    not take goes with the next write."""
    t.flags &= ~<uint32_t>(TF_TICKET | TF_MORE)
    t.flags |= more
    if openssl.SSL_new_session_ticket(t.ssl) == 1:
        openssl.SSL_do_handshake(t.ssl)
        openssl.ERR_clear_error()


cdef int write_stopped(tls_t *t, int error) noexcept nogil:
    cdef conn_t *c = t.c
    if error == SSL_ERROR_WANT_WRITE:
        c.flags |= CF_BLOCKED
        return IO_BLOCKED
    if error == SSL_ERROR_WANT_READ:
        t.flags |= TF_SEND_NEEDS_IN
        c.flags |= CF_BLOCKED
        return IO_BLOCKED
    return fail(t, error)


cdef bint tls_quiet(conn_t *c) noexcept nogil:
    cdef tls_t *t = c.tls
    cdef char byte
    cdef int got
    if t.flags & TF_FAILED or not t.flags & TF_DONE:
        return False
    t.flags &= ~<uint32_t>TF_DRAINED
    openssl.ERR_clear_error()
    got = openssl.SSL_peek(t.ssl, &byte, 1)
    return got <= 0 and read_stopped(t, openssl.SSL_get_error(t.ssl, got)) == IO_BLOCKED


cdef void tls_edges(conn_t *c, uint32_t events) noexcept nogil:
    cdef tls_t *t = c.tls
    if c.flags & CF_READABLE:
        t.flags &= ~<uint32_t>TF_DRAINED
        if t.flags & TF_SEND_NEEDS_IN:
            t.flags &= ~<uint32_t>TF_SEND_NEEDS_IN
            c.flags &= ~<uint32_t>CF_BLOCKED
    if events & <uint32_t>EPOLLOUT and t.flags & TF_READ_NEEDS_OUT:
        t.flags &= ~<uint32_t>TF_READ_NEEDS_OUT
        c.flags |= CF_READABLE


# ---- what is told of it -----------------------------------------------------------------------------------------

cdef const char *tls_reason(const conn_t *c, const char *other) noexcept nogil:
    return c.tls.reason if c.tls != NULL and c.tls.reason != NULL else other


cdef SSL_CTX *tls_context(const conn_t *c) noexcept nogil:
    return openssl.SSL_get_SSL_CTX(c.tls.ssl) if c.tls != NULL else NULL


cdef const char *tls_version(const conn_t *c) noexcept nogil:
    return b"TLSv1.3" if openssl.SSL_version(c.tls.ssl) >= TLS1_3_VERSION else b"TLSv1.2"


cdef const char *tls_cipher(const conn_t *c) noexcept nogil:
    return openssl.SSL_CIPHER_get_name(openssl.SSL_get_current_cipher(c.tls.ssl))


cdef const char *tls_sni(const conn_t *c) noexcept nogil:
    return openssl.SSL_get_servername(c.tls.ssl, TLSEXT_NAMETYPE_host_name)


cdef const char *tls_subject(const conn_t *c) noexcept nogil:
    return c.tls.subject if c.tls != NULL else NULL
