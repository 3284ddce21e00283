"""See contexts.pxd."""

import hashlib
import weakref

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcmp, memcpy, memset, strlen
from turnout.ext.arena cimport arena_free, arena_t, arena_take
from turnout.ext.core cimport CF_RAW, conn_t, tls_t
from turnout.ext.document cimport TEXT_LINE, TEXT_TOKEN, Table, table_open, text_copy
from turnout.ext.openssl cimport (
    BIO, CRYPTO_EX_INDEX_SSL_CTX, EVP_CIPHER, EVP_CIPHER_CTX, EVP_MAC_CTX, EVP_PKEY, OSSL_PARAM, OSSL_PARAM_OCTET_STRING,
    OSSL_PARAM_UTF8_STRING, SSL, SSL_AD_UNRECOGNIZED_NAME, SSL_CTRL_CHAIN_CERT, SSL_CTRL_MODE,
    SSL_CTRL_SET_GROUPS_LIST, SSL_CTRL_SET_MAX_PROTO_VERSION, SSL_CTRL_SET_MIN_PROTO_VERSION,
    SSL_CTRL_SET_READ_AHEAD, SSL_CTRL_SET_SESS_CACHE_MODE, SSL_CTRL_SET_TLSEXT_SERVERNAME_CB,
    SSL_CTRL_SET_TLSEXT_STATUS_REQ_CB, SSL_CTRL_SET_TLSEXT_STATUS_REQ_OCSP_RESP, SSL_CTX,
    SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER, SSL_MODE_ENABLE_PARTIAL_WRITE, SSL_MODE_RELEASE_BUFFERS,
    SSL_OP_CIPHER_SERVER_PREFERENCE, SSL_OP_NO_RENEGOTIATION, SSL_OP_NO_TICKET, SSL_OP_PRIORITIZE_CHACHA, SSL_SESS_CACHE_CLIENT, SSL_SESS_CACHE_NO_INTERNAL, SSL_SESS_CACHE_OFF,
    SSL_SESSION, SSL_TLSEXT_ERR_ALERT_FATAL, SSL_TLSEXT_ERR_NOACK, SSL_TLSEXT_ERR_OK, SSL_VERIFY_FAIL_IF_NO_PEER_CERT,
    SSL_VERIFY_NONE, SSL_VERIFY_PEER, TLS1_2_VERSION, TLS1_3_VERSION, TLSEXT_NAMETYPE_host_name, X509, openssl,
    openssl_load,
)
from turnout.ext.select cimport hash_bytes
from turnout.ext.snapshot cimport (
    TICKET_KEYS, listener_tls_t, listener_t, snapshot_listener, ticket_key_t, tickets_t, tls_name_t,
)

cdef enum:
    CERTIFICATES_MAX = 4      # of one context: one for each kind of key
    NAME_MAX = 253            # bytes of a host name
    TICKET_LIFE_S = 86400
    TICKET_NAME = 16          # bytes; of a key's 80, before 32 for the MAC and 32 for the cipher

cdef tuple VERSIONS = ("1.2", "1.3")
cdef tuple CLIENT_MODES = ("off", "optional", "required")

# What hangs on an SSL_CTX: OCSP responses, by certificate. Freed with it.
cdef struct extra_t:
    uint32_t n
    X509 *certificate[CERTIFICATES_MAX]   # the SSL_CTX holds them
    uint8_t *staple[CERTIFICATES_MAX]     # owned; NULL: none
    uint32_t staple_n[CERTIFICATES_MAX]

cdef int extra_index = -1
cdef EVP_CIPHER *ticket_cipher = NULL      # fetched once: a look-up costs more than a ticket
cdef uint32_t n_contexts = 0
cached = weakref.WeakValueDictionary()    # digest of what it was made from -> Context


cdef void extra_free(void *parent, void *p, void *ad, int index, long n, void *argument) noexcept nogil:
    global n_contexts
    cdef extra_t *e = <extra_t *>p
    cdef uint32_t i
    if e == NULL:
        return
    for i in range(e.n):
        free(e.staple[i])
    free(e)
    n_contexts -= 1


cdef int library_ready() except -1:
    global extra_index, ticket_cipher
    openssl_load()
    if ticket_cipher == NULL:
        ticket_cipher = openssl.EVP_CIPHER_fetch(NULL, b"AES-256-CBC", NULL)
        if ticket_cipher == NULL:
            raise OSError("OpenSSL has no AES-256-CBC")
    if extra_index < 0:
        extra_index = openssl.CRYPTO_get_ex_new_index(CRYPTO_EX_INDEX_SSL_CTX, 0, NULL, NULL, NULL, extra_free)
        if extra_index < 0:
            raise MemoryError
    return 0


cdef str problem():
    """OpenSSL's reason for what has just failed; empties its queue."""
    cdef unsigned long code
    cdef const char *text
    reason = "OpenSSL gives no reason"
    while True:
        code = openssl.ERR_get_error()
        if code == 0:
            return reason
        text = openssl.ERR_reason_error_string(code)
        if text != NULL:
            reason = text.decode()


cdef class Context:
    def __dealloc__(self):
        if self.ctx != NULL:
            openssl.SSL_CTX_free(self.ctx)


cdef Context context_new(bint server):
    global n_contexts
    cdef Context c = Context.__new__(Context)
    cdef extra_t *e
    library_ready()
    openssl.ERR_clear_error()
    c.ctx = openssl.SSL_CTX_new(openssl.TLS_server_method() if server else openssl.TLS_client_method())
    e = <extra_t *>calloc(1, sizeof(extra_t))
    if c.ctx == NULL or e == NULL or openssl.SSL_CTX_set_ex_data(c.ctx, extra_index, e) != 1:
        free(e)
        raise MemoryError
    n_contexts += 1
    openssl.SSL_CTX_ctrl(c.ctx, SSL_CTRL_MODE, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER
                         | SSL_MODE_RELEASE_BUFFERS, NULL)
    openssl.SSL_CTX_ctrl(c.ctx, SSL_CTRL_SET_READ_AHEAD, 1, NULL)
    openssl.SSL_CTX_set_options(c.ctx, SSL_OP_NO_RENEGOTIATION)
    if server:
        # The order of the configuration counts, except that who puts ChaCha20 first has no AES in hardware.
        openssl.SSL_CTX_set_options(c.ctx, SSL_OP_CIPHER_SERVER_PREFERENCE | SSL_OP_PRIORITIZE_CHACHA)
    return c


# ---- what both sides have ---------------------------------------------------------------------------------------

cdef int use_protocol(SSL_CTX *ctx, Table t) except -1:
    cdef bytes text
    cdef int low = TLS1_2_VERSION + t.choice("min", VERSIONS), high = TLS1_2_VERSION + t.choice("max", VERSIONS)
    if low > high:
        t.fail("min", "is above max")
    openssl.SSL_CTX_ctrl(ctx, SSL_CTRL_SET_MIN_PROTO_VERSION, low, NULL)
    openssl.SSL_CTX_ctrl(ctx, SSL_CTRL_SET_MAX_PROTO_VERSION, high, NULL)
    text = plain(t, "ciphers")
    if openssl.SSL_CTX_set_cipher_list(ctx, text) != 1:
        t.fail("ciphers", f"{text.decode()!r} names no cipher that OpenSSL knows ({problem()})")
    text = plain(t, "ciphersuites")
    if openssl.SSL_CTX_set_ciphersuites(ctx, text) != 1:
        t.fail("ciphersuites", f"{text.decode()!r} holds what is not a cipher suite of TLS 1.3 ({problem()})")
    text = plain(t, "curves")
    if openssl.SSL_CTX_ctrl(ctx, SSL_CTRL_SET_GROUPS_LIST, 0, <void *><char *>text) != 1:
        t.fail("curves", f"{text.decode()!r} holds what is not a curve ({problem()})")
    return 0


cdef bytes plain(Table t, str key):
    text = t.string(key)
    if not text or not text.isascii() or not text.isprintable():
        t.fail(key, "is empty or holds more than printable ASCII")
    return text.encode()


cdef BIO *pem(bytes text) except NULL:
    cdef BIO *b = openssl.BIO_new_mem_buf(<const char *>text, <int>len(text))
    if b == NULL:
        raise MemoryError
    return b


cdef int use_certificate(SSL_CTX *ctx, Table t) except -1:
    """chain (leaf first) and key of a table."""
    cdef bytes chain = t.string("chain").encode(), key = t.string("key").encode()
    cdef BIO *b = pem(chain)
    cdef X509 *leaf = openssl.PEM_read_bio_X509(b, NULL, NULL, <void *><const char *>b"")
    cdef X509 *more
    cdef bint good = leaf != NULL and openssl.SSL_CTX_use_certificate(ctx, leaf) == 1
    if leaf != NULL:
        openssl.X509_free(leaf)
    while good:
        more = openssl.PEM_read_bio_X509(b, NULL, NULL, <void *><const char *>b"")
        if more == NULL:
            break
        good = openssl.SSL_CTX_ctrl(ctx, SSL_CTRL_CHAIN_CERT, 0, more) == 1     # takes it over
        if not good:
            openssl.X509_free(more)
    openssl.BIO_free(b)
    if not good:
        t.fail("chain", f"is not a certificate that OpenSSL takes ({problem()})")
    openssl.ERR_clear_error()
    return use_key(ctx, t, key)


cdef int use_key(SSL_CTX *ctx, Table t, bytes text) except -1:
    cdef BIO *b = pem(text)
    cdef EVP_PKEY *key = openssl.PEM_read_bio_PrivateKey(b, NULL, NULL, <void *><const char *>b"")
    cdef bint good = key != NULL and openssl.SSL_CTX_use_PrivateKey(ctx, key) == 1
    openssl.BIO_free(b)
    if key != NULL:
        openssl.EVP_PKEY_free(key)
    if not good:
        t.fail("key", f"is not the private key of the certificate ({problem()})")
    return 0


cdef int use_authorities(SSL_CTX *ctx, Table t, str key, bint name_them) except -1:
    """Trust the certificates of a PEM; `name_them`: tell clients that these are the ones."""
    cdef bytes text = t.string(key).encode()
    cdef BIO *b = pem(text)
    cdef X509 *authority
    cdef uint32_t n = 0
    while True:
        authority = openssl.PEM_read_bio_X509(b, NULL, NULL, <void *><const char *>b"")
        if authority == NULL:
            break
        openssl.X509_STORE_add_cert(openssl.SSL_CTX_get_cert_store(ctx), authority)
        if name_them:
            openssl.SSL_CTX_add_client_CA(ctx, authority)
        openssl.X509_free(authority)
        n += 1
    openssl.BIO_free(b)
    openssl.ERR_clear_error()
    if n == 0:
        t.fail(key, "holds no certificate")
    return 0


# ---- a server's side --------------------------------------------------------------------------------------------

cdef int read_server(Table t, arena_t *arena, listener_tls_t *out, list keep) except -1:
    cdef list certificates = t.tables("certificates"), contexts = t.items("contexts")
    cdef Context c
    cdef list made = []
    library_ready()
    out.strict = t.flag("strict_sni")
    t.text("client_header", arena, TEXT_TOKEN, &out.client_header)
    if not contexts:
        t.fail("contexts", "is empty")
    for places in contexts:
        if (type(places) is not list or not 0 < len(places) <= CERTIFICATES_MAX
                or not all(type(i) is int and 0 <= i < len(certificates) for i in places)):
            t.fail("contexts", f"holds what is not a list of 1 to {CERTIFICATES_MAX} indices of certificates")
        made.append(server_context(t, [certificates[i] for i in places]))
    keep.extend(made)
    c = made[0]
    out.ctx = c.ctx
    read_names(t, arena, out, made)
    for table in certificates:
        (<Table>table).done()
    return t.done()


cdef Context server_context(Table t, list certificates):
    cdef Table row
    cdef bytes key = digest(("server", [(<Table>table).values for table in certificates], {
        name: value for name, value in t.values.items() if name not in ("certificates", "contexts", "names")}))
    cdef Context c = cached.get(key)
    if c is None:
        c = context_new(True)
        use_protocol(c.ctx, t)
        for row in certificates:
            use_certificate(c.ctx, row)
            use_staple(c.ctx, row)
        serve_clients(c.ctx, t)
        cached[key] = c
    else:
        take_all([t, *certificates])
    return c


cdef bytes digest(object parts):
    return hashlib.sha256(repr(parts).encode(errors="surrogatepass")).digest()


cdef int take_all(list tables) except -1:
    """The same rows have been read before and were right."""
    cdef Table t
    for t in tables:
        t.taken.update(t.values)
    return 0


cdef int use_staple(SSL_CTX *ctx, Table t) except -1:
    """The OCSP response, hexadecimal or empty, for the certificate that was used last."""
    cdef extra_t *e = <extra_t *>openssl.SSL_CTX_get_ex_data(ctx, extra_index)
    cdef bytes der
    try:
        der = bytes.fromhex(t.string("ocsp"))
    except ValueError:
        t.fail("ocsp", "is not hexadecimal")
    if not der:
        return 0
    e.staple[e.n] = <uint8_t *>malloc(len(der))
    if e.staple[e.n] == NULL:
        raise MemoryError
    memcpy(e.staple[e.n], <const char *>der, len(der))
    e.staple_n[e.n] = <uint32_t>len(der)
    e.certificate[e.n] = openssl.SSL_CTX_get0_certificate(ctx)
    e.n += 1
    return 0


cdef int serve_clients(SSL_CTX *ctx, Table t) except -1:
    """All that is not the certificate: who must show one, names, ALPN, tickets, stapling."""
    cdef uint32_t mode = t.choice("client", CLIENT_MODES)
    cdef str authority = t.string("client_ca")
    cdef bytes identity = digest(("sessions", mode, authority))
    openssl.SSL_CTX_set_verify(ctx, SSL_VERIFY_NONE if mode == 0 else SSL_VERIFY_PEER if mode == 1
                               else SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL)
    if mode:
        use_authorities(ctx, t, "client_ca", True)
    # A ticket is good only where the same is asked of clients: 32 bytes is the longest that OpenSSL takes.
    openssl.SSL_CTX_set_session_id_context(ctx, <const unsigned char *><const char *>identity, 32)
    openssl.SSL_CTX_ctrl(ctx, SSL_CTRL_SET_SESS_CACHE_MODE, SSL_SESS_CACHE_OFF, NULL)
    openssl.SSL_CTX_set_timeout(ctx, TICKET_LIFE_S)
    openssl.SSL_CTX_set_tlsext_ticket_key_evp_cb(ctx, ticket_key)
    openssl.SSL_CTX_set_num_tickets(ctx, 0)     # tls.pyx chooses the moment
    openssl.SSL_CTX_set_alpn_select_cb(ctx, choose_protocol, NULL)
    openssl.SSL_CTX_callback_ctrl(ctx, SSL_CTRL_SET_TLSEXT_SERVERNAME_CB, <void *>choose_certificate)
    openssl.SSL_CTX_callback_ctrl(ctx, SSL_CTRL_SET_TLSEXT_STATUS_REQ_CB, <void *>staple)
    return 0


cdef int read_names(Table t, arena_t *arena, listener_tls_t *out, list contexts) except -1:
    """name -> context; the first row for a name counts."""
    cdef list rows = t.items("names")
    cdef uint32_t size = 1
    cdef uint64_t h
    cdef tls_name_t *at
    cdef bytes name
    cdef Context c
    while size < 2 * len(rows) + 1:
        size *= 2
    out.names = <tls_name_t *>arena_take(arena, size * sizeof(tls_name_t))
    if out.names == NULL:
        raise MemoryError
    out.mask = size - 1
    for row in rows:
        if type(row) is not list or len(row) != 2 or type(row[1]) is not int or not 0 <= row[1] < len(contexts):
            t.fail("names", "holds what is not a name with the index of a context")
        name = name_of(t, row[0])
        h = hash_bytes(name, <uint32_t>len(name))
        at = find_name(out, <const char *>name, <uint32_t>len(name))
        if at.ctx == NULL:
            c = contexts[row[1]]
            text_copy(arena, name, &at.name)
            at.hash = h
            at.ctx = c.ctx
    return 0


cdef bytes name_of(Table t, object value):
    """As it is looked up: "*.example.com" is ".example.com"."""
    if (type(value) is not str or not value.isascii() or value != value.lower() or not 0 < len(value) <= NAME_MAX
            or "*" in value.removeprefix("*.")):
        t.fail("names", f"{value!r} is not a host name or *.suffix in lower case")
    return value[1:].encode() if value.startswith("*.") else value.encode()


cdef tls_name_t *find_name(const listener_tls_t *l, const char *p, uint32_t n) noexcept nogil:
    """Its place, or the free one where it would go."""
    cdef uint64_t h = hash_bytes(p, n)
    cdef uint32_t i = <uint32_t>h & l.mask
    cdef tls_name_t *at
    while True:
        at = &l.names[i]
        if at.ctx == NULL or (at.hash == h and at.name.n == n and memcmp(at.name.p, p, n) == 0):
            return at
        i = (i + 1) & l.mask


# ---- what a handshake asks --------------------------------------------------------------------------------------

cdef tls_t *tls_of(const SSL *ssl) noexcept nogil:
    return <tls_t *>openssl.SSL_get_ex_data(ssl, 0)


cdef SSL_CTX *context_for(const listener_tls_t *l, const char *asked) noexcept nogil:
    """The context for a name: the exact one, else a wildcard's for all but the first label. NULL: none."""
    cdef char name[NAME_MAX + 1]
    cdef uint32_t n = 0, dot = 0
    cdef SSL_CTX *ctx
    while asked[n]:
        if n == NAME_MAX:
            return NULL
        name[n] = <char>(asked[n] + 32) if c'A' <= asked[n] <= c'Z' else asked[n]
        n += 1
    if n and name[n - 1] == c'.':
        n -= 1
    ctx = find_name(l, name, n).ctx
    if ctx != NULL:
        return ctx
    while dot < n and name[dot] != c'.':
        dot += 1
    return find_name(l, name + dot, n - dot).ctx if 0 < dot < n else NULL


cdef int choose_certificate(SSL *ssl, int *alert, void *argument) noexcept nogil:
    cdef tls_t *t = tls_of(ssl)
    cdef const listener_t *l = snapshot_listener(t.core.snapshot, t.c.listener)
    cdef const char *asked = openssl.SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name)
    cdef SSL_CTX *ctx = NULL
    if l == NULL or l.tls == NULL:
        return SSL_TLSEXT_ERR_NOACK
    if asked != NULL:
        ctx = context_for(l.tls, asked)
    if ctx == NULL and l.tls.strict:
        alert[0] = SSL_AD_UNRECOGNIZED_NAME
        return SSL_TLSEXT_ERR_ALERT_FATAL
    if ctx == NULL:
        return SSL_TLSEXT_ERR_NOACK
    if ctx != openssl.SSL_get_SSL_CTX(ssl):
        openssl.SSL_set_SSL_CTX(ssl, ctx)
    return SSL_TLSEXT_ERR_OK


cdef int choose_protocol(SSL *ssl, const unsigned char **out, unsigned char *out_n, const unsigned char *offered,
                         unsigned int n, void *argument) noexcept nogil:
    """http/1.1 or http/1.0; a client that wants neither is refused (RFC 7301 3.2). Where no HTTP is spoken, none."""
    cdef unsigned int at = 0
    if tls_of(ssl).c.flags & CF_RAW:
        return SSL_TLSEXT_ERR_NOACK
    while at < n and at + 1 + offered[at] <= n:
        if offered[at] == 8 and memcmp(offered + at + 1, b"http/1.", 7) == 0 and (
                offered[at + 8] == c'1' or offered[at + 8] == c'0'):
            out[0] = offered + at + 1
            out_n[0] = 8
            return SSL_TLSEXT_ERR_OK
        at += 1 + offered[at]
    return SSL_TLSEXT_ERR_ALERT_FATAL


cdef int staple(SSL *ssl, void *argument) noexcept nogil:
    cdef const extra_t *e = <const extra_t *>openssl.SSL_CTX_get_ex_data(openssl.SSL_get_SSL_CTX(ssl), extra_index)
    cdef const X509 *used = openssl.SSL_get_certificate(ssl)
    cdef void *copy
    cdef uint32_t i
    for i in range(e.n):
        if e.certificate[i] == used:
            copy = openssl.CRYPTO_malloc(e.staple_n[i], b"", 0)
            if copy == NULL:
                return SSL_TLSEXT_ERR_NOACK
            memcpy(copy, e.staple[i], e.staple_n[i])
            openssl.SSL_ctrl(ssl, SSL_CTRL_SET_TLSEXT_STATUS_REQ_OCSP_RESP, e.staple_n[i], copy)
            return SSL_TLSEXT_ERR_OK
    return SSL_TLSEXT_ERR_NOACK


cdef int ticket_key(SSL *ssl, unsigned char *name, unsigned char *iv, EVP_CIPHER_CTX *cipher, EVP_MAC_CTX *mac,
                    int seal) noexcept nogil:
    """SSL_CTX_set_tlsext_ticket_key_evp_cb(3). New tickets under the first key; one under another key is renewed."""
    cdef const tickets_t *keys = &tls_of(ssl).core.snapshot.tickets
    cdef const ticket_key_t *key = NULL
    cdef uint32_t i
    if seal:
        if keys.n == 0 or openssl.RAND_bytes(iv, 16) != 1:
            return 0
        key = &keys.keys[0]
        memcpy(name, key.name, TICKET_NAME)
        if openssl.EVP_EncryptInit_ex(cipher, ticket_cipher, NULL, key.cipher, iv) != 1:
            return -1
        return 1 if set_mac(mac, key) else -1
    for i in range(keys.n):
        if memcmp(keys.keys[i].name, name, TICKET_NAME) == 0:
            key = &keys.keys[i]
            break
    if key == NULL:
        return 0
    if openssl.EVP_DecryptInit_ex(cipher, ticket_cipher, NULL, key.cipher, iv) != 1 or not set_mac(mac, key):
        return -1
    return 1 if i == 0 else 2


cdef bint set_mac(EVP_MAC_CTX *mac, const ticket_key_t *key) noexcept nogil:
    cdef OSSL_PARAM p[3]
    p[0].key = b"key"
    p[0].data_type = OSSL_PARAM_OCTET_STRING
    p[0].data = <void *>key.mac
    p[0].data_size = 32
    p[0].return_size = 0
    p[1].key = b"digest"
    p[1].data_type = OSSL_PARAM_UTF8_STRING
    p[1].data = <void *><const char *>b"SHA256"
    p[1].data_size = 6
    p[1].return_size = 0
    p[2].key = NULL
    p[2].data_type = 0
    p[2].data = NULL
    p[2].data_size = 0
    p[2].return_size = 0
    return openssl.EVP_MAC_CTX_set_params(mac, p) == 1


cdef int read_tickets(Table t, tickets_t *out) except -1:
    """Hexadecimal digits of 80 bytes each: name, MAC key, cipher key. The first one seals, all of them open."""
    cdef list keys = t.items("ticket_keys")
    cdef bytes raw
    if len(keys) > TICKET_KEYS:
        t.fail("ticket_keys", f"are {len(keys)}, more than {TICKET_KEYS}")
    for text in keys:
        try:
            raw = bytes.fromhex(text)
        except (ValueError, TypeError):
            raw = b""
        if len(raw) != sizeof(ticket_key_t):
            t.fail("ticket_keys", "holds what is not 160 hexadecimal digits")
        memcpy(&out.keys[out.n], <const char *>raw, sizeof(ticket_key_t))
        out.n += 1
    return 0


# ---- a client's side --------------------------------------------------------------------------------------------

cdef Context read_client(Table t):
    cdef bytes key = digest(("client", t.values))
    cdef Context c = cached.get(key)
    cdef bint verify
    if c is not None:
        take_all([t])
        return c
    c = context_new(False)
    use_protocol(c.ctx, t)
    verify = t.flag("verify")
    openssl.SSL_CTX_set_verify(c.ctx, SSL_VERIFY_PEER if verify else SSL_VERIFY_NONE, NULL)
    if verify:
        use_authorities(c.ctx, t, "ca", False)
    else:
        t.string("ca")
    if t.string("chain"):
        use_certificate(c.ctx, t)
    else:
        t.string("key")
    openssl.SSL_CTX_set_alpn_protos(c.ctx, b"\x08http/1.1", 9)
    openssl.SSL_CTX_ctrl(c.ctx, SSL_CTRL_SET_SESS_CACHE_MODE, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL, NULL)
    openssl.SSL_CTX_sess_set_new_cb(c.ctx, keep_session)
    t.done()
    cached[key] = c
    return c


cdef int keep_session(SSL *ssl, SSL_SESSION *session) noexcept nogil:
    """The newest one for its endpoint; 1: it is ours now."""
    cdef conn_t *c = tls_of(ssl).c
    if c.endpoint == NULL:
        return 0
    if c.endpoint.session != NULL:
        openssl.SSL_SESSION_free(c.endpoint.session)
    c.endpoint.session = session
    return 1


def check_server(row):
    """Whether the `tls` of a listener's row can be served. ValueError begins with the key that is wrong."""
    cdef arena_t arena
    cdef listener_tls_t out
    memset(&arena, 0, sizeof(arena))
    try:
        read_server(table_open(row), &arena, &out, [])
    finally:
        arena_free(&arena)


def check_client(row):
    """Likewise for the `tls` of a service's row."""
    read_client(table_open(row))


def _contexts():
    """Test access: SSL_CTX objects of this process that are not freed."""
    return n_contexts
