"""What is used of OpenSSL 3, as a table of functions filled in when TLS is first configured.

Nothing of OpenSSL is needed to build: types are opaque, prototypes and numbers stand here as the manual pages of
OpenSSL 3.0 and its public headers have them (https://docs.openssl.org/3.0/man3/), and libssl.so.3 and libcrypto.so.3
are opened at run time. Whatever OpenSSL calls a macro over SSL_ctrl or SSL_CTX_ctrl is called so here too.
"""

from libc.stdint cimport uint64_t

cdef extern from *:
    """
    typedef struct turnout_SSL SSL;
    typedef struct turnout_SSL_CTX SSL_CTX;
    typedef struct turnout_SSL_METHOD SSL_METHOD;
    typedef struct turnout_SSL_SESSION SSL_SESSION;
    typedef struct turnout_SSL_CIPHER SSL_CIPHER;
    typedef struct turnout_BIO BIO;
    typedef struct turnout_BIO_METHOD BIO_METHOD;
    typedef struct turnout_X509 X509;
    typedef struct turnout_X509_NAME X509_NAME;
    typedef struct turnout_X509_STORE X509_STORE;
    typedef struct turnout_X509_VERIFY_PARAM X509_VERIFY_PARAM;
    typedef struct turnout_EVP_PKEY EVP_PKEY;
    typedef struct turnout_EVP_CIPHER EVP_CIPHER;
    typedef struct turnout_EVP_CIPHER_CTX EVP_CIPHER_CTX;
    typedef struct turnout_EVP_MAC_CTX EVP_MAC_CTX;
    """
    ctypedef struct SSL:
        pass
    ctypedef struct SSL_CTX:
        pass
    ctypedef struct SSL_METHOD:
        pass
    ctypedef struct SSL_SESSION:
        pass
    ctypedef struct SSL_CIPHER:
        pass
    ctypedef struct BIO:
        pass
    ctypedef struct BIO_METHOD:
        pass
    ctypedef struct X509:
        pass
    ctypedef struct X509_NAME:
        pass
    ctypedef struct X509_STORE:
        pass
    ctypedef struct X509_VERIFY_PARAM:
        pass
    ctypedef struct EVP_PKEY:
        pass
    ctypedef struct EVP_CIPHER:
        pass
    ctypedef struct EVP_CIPHER_CTX:
        pass
    ctypedef struct EVP_MAC_CTX:
        pass

cdef struct OSSL_PARAM:       # OSSL_PARAM(3)
    const char *key
    unsigned int data_type
    void *data
    size_t data_size
    size_t return_size

cdef enum:
    OSSL_PARAM_UTF8_STRING = 4
    OSSL_PARAM_OCTET_STRING = 5
    # SSL_get_error(3)
    SSL_ERROR_SSL = 1
    SSL_ERROR_WANT_READ = 2
    SSL_ERROR_WANT_WRITE = 3
    SSL_ERROR_SYSCALL = 5
    SSL_ERROR_ZERO_RETURN = 6
    # commands of SSL_ctrl and SSL_CTX_ctrl
    SSL_CTRL_MODE = 33
    SSL_CTRL_SET_READ_AHEAD = 41
    SSL_CTRL_SET_SESS_CACHE_MODE = 44
    SSL_CTRL_SET_TLSEXT_SERVERNAME_CB = 53
    SSL_CTRL_SET_TLSEXT_HOSTNAME = 55
    SSL_CTRL_SET_TLSEXT_STATUS_REQ_CB = 63
    SSL_CTRL_SET_TLSEXT_STATUS_REQ_OCSP_RESP = 71
    SSL_CTRL_CHAIN_CERT = 89
    SSL_CTRL_SET_GROUPS_LIST = 92
    SSL_CTRL_SET_MIN_PROTO_VERSION = 123
    SSL_CTRL_SET_MAX_PROTO_VERSION = 124
    # SSL_CTX_set_mode(3)
    SSL_MODE_ENABLE_PARTIAL_WRITE = 0x01
    SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER = 0x02
    SSL_MODE_RELEASE_BUFFERS = 0x10
    # SSL_CTX_set_session_cache_mode(3)
    SSL_SESS_CACHE_OFF = 0
    SSL_SESS_CACHE_CLIENT = 0x0001
    SSL_SESS_CACHE_NO_INTERNAL = 0x0300
    # SSL_CTX_set_verify(3)
    SSL_VERIFY_NONE = 0
    SSL_VERIFY_PEER = 1
    SSL_VERIFY_FAIL_IF_NO_PEER_CERT = 2
    TLS1_2_VERSION = 0x0303
    TLS1_3_VERSION = 0x0304
    TLSEXT_NAMETYPE_host_name = 0
    SSL_TLSEXT_ERR_OK = 0
    SSL_TLSEXT_ERR_ALERT_FATAL = 2
    SSL_TLSEXT_ERR_NOACK = 3
    SSL_AD_UNRECOGNIZED_NAME = 112
    # BIO_set_flags, BIO_ctrl(3)
    BIO_FLAGS_READ = 0x01
    BIO_FLAGS_WRITE = 0x02
    BIO_FLAGS_RWS = 0x07
    BIO_FLAGS_SHOULD_RETRY = 0x08
    BIO_CTRL_DUP = 12
    BIO_CTRL_FLUSH = 11
    BIO_TYPE_SOURCE_SINK = 0x0400
    CRYPTO_EX_INDEX_SSL_CTX = 1
    # errors: library and the reasons that are told apart (sslerr.h); an alert received is 1000 and its number
    ERR_LIB_SSL = 20
    SSL_R_CERTIFICATE_VERIFY_FAILED = 134
    SSL_R_HTTPS_PROXY_REQUEST = 155
    SSL_R_HTTP_REQUEST = 156
    SSL_R_VERSION_TOO_HIGH = 166
    SSL_R_NO_PROTOCOLS_AVAILABLE = 191
    SSL_R_NO_SHARED_CIPHER = 193
    SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE = 199
    SSL_R_CALLBACK_FAILED = 234
    SSL_R_NO_APPLICATION_PROTOCOL = 235
    SSL_R_UNSUPPORTED_PROTOCOL = 258
    SSL_R_WRONG_VERSION_NUMBER = 267
    SSL_R_VERSION_TOO_LOW = 396
    SSL_AD_REASON_OFFSET = 1000
    # X509_STORE_CTX_get_error(3)
    X509_V_OK = 0
    X509_V_ERR_CERT_NOT_YET_VALID = 9
    X509_V_ERR_CERT_HAS_EXPIRED = 10
    X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT = 18
    X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN = 19
    X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY = 20
    X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE = 21
    X509_V_ERR_INVALID_PURPOSE = 26
    X509_V_ERR_HOSTNAME_MISMATCH = 62
    X509_V_ERR_IP_ADDRESS_MISMATCH = 64

cdef enum:
    XN_FLAG_RFC2253 = 0x1110317       # X509_NAME_print_ex(3)
    SSL_OP_PRIORITIZE_CHACHA = 1 << 21
    SSL_OP_CIPHER_SERVER_PREFERENCE = 1 << 22
    SSL_OP_NO_RENEGOTIATION = 1 << 30
    SSL_OP_NO_TICKET = 1 << 14

cdef struct openssl_t:
    unsigned long (*OpenSSL_version_num)() noexcept nogil
    const char *(*OpenSSL_version)(int) noexcept nogil
    void (*ERR_clear_error)() noexcept nogil
    unsigned long (*ERR_get_error)() noexcept nogil
    const char *(*ERR_reason_error_string)(unsigned long) noexcept nogil
    void *(*CRYPTO_malloc)(size_t, const char *, int) noexcept nogil
    int (*CRYPTO_get_ex_new_index)(int, long, void *, void *, void *,
                                   void (*)(void *, void *, void *, int, long, void *) noexcept nogil) noexcept nogil
    int (*RAND_bytes)(unsigned char *, int) noexcept nogil

    BIO *(*BIO_new)(const BIO_METHOD *) noexcept nogil
    int (*BIO_free)(BIO *) noexcept nogil
    BIO *(*BIO_new_mem_buf)(const void *, int) noexcept nogil
    const BIO_METHOD *(*BIO_s_mem)() noexcept nogil
    int (*BIO_read)(BIO *, void *, int) noexcept nogil
    void (*BIO_set_data)(BIO *, void *) noexcept nogil
    void *(*BIO_get_data)(BIO *) noexcept nogil
    void (*BIO_set_init)(BIO *, int) noexcept nogil
    void (*BIO_set_flags)(BIO *, int) noexcept nogil
    void (*BIO_clear_flags)(BIO *, int) noexcept nogil
    int (*BIO_get_new_index)() noexcept nogil
    BIO_METHOD *(*BIO_meth_new)(int, const char *) noexcept nogil
    int (*BIO_meth_set_write)(BIO_METHOD *, int (*)(BIO *, const char *, int) noexcept nogil) noexcept nogil
    int (*BIO_meth_set_read)(BIO_METHOD *, int (*)(BIO *, char *, int) noexcept nogil) noexcept nogil
    int (*BIO_meth_set_ctrl)(BIO_METHOD *, long (*)(BIO *, int, long, void *) noexcept nogil) noexcept nogil

    X509 *(*PEM_read_bio_X509)(BIO *, X509 **, void *, void *) noexcept nogil
    EVP_PKEY *(*PEM_read_bio_PrivateKey)(BIO *, EVP_PKEY **, void *, void *) noexcept nogil
    void (*X509_free)(X509 *) noexcept nogil
    void (*EVP_PKEY_free)(EVP_PKEY *) noexcept nogil
    X509_NAME *(*X509_get_subject_name)(const X509 *) noexcept nogil
    int (*X509_NAME_print_ex)(BIO *, const X509_NAME *, int, unsigned long) noexcept nogil
    int (*X509_STORE_add_cert)(X509_STORE *, X509 *) noexcept nogil
    int (*X509_VERIFY_PARAM_set1_ip_asc)(X509_VERIFY_PARAM *, const char *) noexcept nogil

    EVP_CIPHER *(*EVP_CIPHER_fetch)(void *, const char *, const char *) noexcept nogil
    int (*EVP_EncryptInit_ex)(EVP_CIPHER_CTX *, const EVP_CIPHER *, void *, const unsigned char *,
                              const unsigned char *) noexcept nogil
    int (*EVP_DecryptInit_ex)(EVP_CIPHER_CTX *, const EVP_CIPHER *, void *, const unsigned char *,
                              const unsigned char *) noexcept nogil
    int (*EVP_MAC_CTX_set_params)(EVP_MAC_CTX *, const OSSL_PARAM *) noexcept nogil

    const SSL_METHOD *(*TLS_server_method)() noexcept nogil
    const SSL_METHOD *(*TLS_client_method)() noexcept nogil
    SSL_CTX *(*SSL_CTX_new)(const SSL_METHOD *) noexcept nogil
    void (*SSL_CTX_free)(SSL_CTX *) noexcept nogil
    int (*SSL_CTX_up_ref)(SSL_CTX *) noexcept nogil
    long (*SSL_CTX_ctrl)(SSL_CTX *, int, long, void *) noexcept nogil
    long (*SSL_CTX_callback_ctrl)(SSL_CTX *, int, void *) noexcept nogil
    uint64_t (*SSL_CTX_set_options)(SSL_CTX *, uint64_t) noexcept nogil
    int (*SSL_CTX_set_cipher_list)(SSL_CTX *, const char *) noexcept nogil
    int (*SSL_CTX_set_ciphersuites)(SSL_CTX *, const char *) noexcept nogil
    int (*SSL_CTX_use_certificate)(SSL_CTX *, X509 *) noexcept nogil
    X509 *(*SSL_CTX_get0_certificate)(const SSL_CTX *) noexcept nogil
    int (*SSL_CTX_use_PrivateKey)(SSL_CTX *, EVP_PKEY *) noexcept nogil
    void (*SSL_CTX_set_verify)(SSL_CTX *, int, void *) noexcept nogil
    X509_STORE *(*SSL_CTX_get_cert_store)(const SSL_CTX *) noexcept nogil
    int (*SSL_CTX_add_client_CA)(SSL_CTX *, X509 *) noexcept nogil
    int (*SSL_CTX_set_session_id_context)(SSL_CTX *, const unsigned char *, unsigned int) noexcept nogil
    long (*SSL_CTX_set_timeout)(SSL_CTX *, long) noexcept nogil
    int (*SSL_CTX_set_num_tickets)(SSL_CTX *, size_t) noexcept nogil
    int (*SSL_CTX_set_tlsext_ticket_key_evp_cb)(
        SSL_CTX *, int (*)(SSL *, unsigned char *, unsigned char *, EVP_CIPHER_CTX *, EVP_MAC_CTX *, int) noexcept nogil
    ) noexcept nogil
    void (*SSL_CTX_set_alpn_select_cb)(
        SSL_CTX *, int (*)(SSL *, const unsigned char **, unsigned char *, const unsigned char *, unsigned int,
                           void *) noexcept nogil, void *
    ) noexcept nogil
    int (*SSL_CTX_set_alpn_protos)(SSL_CTX *, const unsigned char *, unsigned int) noexcept nogil
    void (*SSL_CTX_sess_set_new_cb)(SSL_CTX *, int (*)(SSL *, SSL_SESSION *) noexcept nogil) noexcept nogil
    int (*SSL_CTX_set_ex_data)(SSL_CTX *, int, void *) noexcept nogil
    void *(*SSL_CTX_get_ex_data)(const SSL_CTX *, int) noexcept nogil

    SSL *(*SSL_new)(SSL_CTX *) noexcept nogil
    void (*SSL_free)(SSL *) noexcept nogil
    long (*SSL_ctrl)(SSL *, int, long, void *) noexcept nogil
    void (*SSL_set_bio)(SSL *, BIO *, BIO *) noexcept nogil
    int (*SSL_set_ex_data)(SSL *, int, void *) noexcept nogil
    void *(*SSL_get_ex_data)(const SSL *, int) noexcept nogil
    int (*SSL_set_alpn_protos)(SSL *, const unsigned char *, unsigned int) noexcept nogil
    void (*SSL_set_accept_state)(SSL *) noexcept nogil
    void (*SSL_set_connect_state)(SSL *) noexcept nogil
    int (*SSL_do_handshake)(SSL *) noexcept nogil
    int (*SSL_read)(SSL *, void *, int) noexcept nogil
    int (*SSL_peek)(SSL *, void *, int) noexcept nogil
    int (*SSL_write)(SSL *, const void *, int) noexcept nogil
    int (*SSL_new_session_ticket)(SSL *) noexcept nogil
    int (*SSL_shutdown)(SSL *) noexcept nogil
    int (*SSL_get_error)(const SSL *, int) noexcept nogil
    int (*SSL_has_pending)(const SSL *) noexcept nogil
    const char *(*SSL_get_servername)(const SSL *, int) noexcept nogil
    SSL_CTX *(*SSL_set_SSL_CTX)(SSL *, SSL_CTX *) noexcept nogil
    SSL_CTX *(*SSL_get_SSL_CTX)(const SSL *) noexcept nogil
    int (*SSL_session_reused)(const SSL *) noexcept nogil
    int (*SSL_version)(const SSL *) noexcept nogil
    const SSL_CIPHER *(*SSL_get_current_cipher)(const SSL *) noexcept nogil
    const char *(*SSL_CIPHER_get_name)(const SSL_CIPHER *) noexcept nogil
    X509 *(*SSL_get_certificate)(const SSL *) noexcept nogil
    X509 *(*SSL_get0_peer_certificate)(const SSL *) noexcept nogil
    long (*SSL_get_verify_result)(const SSL *) noexcept nogil
    int (*SSL_set_session)(SSL *, SSL_SESSION *) noexcept nogil
    void (*SSL_SESSION_free)(SSL_SESSION *) noexcept nogil
    int (*SSL_set1_host)(SSL *, const char *) noexcept nogil
    X509_VERIFY_PARAM *(*SSL_get0_param)(SSL *) noexcept nogil

cdef openssl_t openssl

cdef int openssl_load() except -1
"""Fill the table in, once for the process. OSError when OpenSSL 3 is not there."""
