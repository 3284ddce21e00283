"""See openssl.pxd."""

cdef extern from "<dlfcn.h>" nogil:
    int RTLD_NOW, RTLD_LOCAL
    void *dlopen(const char *, int)
    void *dlsym(void *, const char *)

cdef enum:
    OPENSSL_3 = 0x30000000

cdef bint loaded = False


cdef int need(void *library, const char *name, void **out) except -1:
    out[0] = dlsym(library, name)
    if out[0] == NULL:
        raise OSError(f"OpenSSL 3 has no function {name.decode()}")
    return 0


cdef void *opened(const char *name) except NULL:
    """The library of this name; what Python's own ssl module has loaded is not loaded again."""
    cdef void *library = dlopen(name, RTLD_NOW | RTLD_LOCAL)
    if library == NULL:
        raise OSError(f"TLS needs OpenSSL 3: {name.decode()} cannot be loaded; install it (Debian, Ubuntu: libssl3)")
    return library


cdef int openssl_load() except -1:
    global loaded
    if loaded:
        return 0
    load_crypto(opened(b"libcrypto.so.3"))
    load_contexts(opened(b"libssl.so.3"))
    load_connections(opened(b"libssl.so.3"))
    if openssl.OpenSSL_version_num() < OPENSSL_3:
        raise OSError(f"TLS needs OpenSSL 3, not {openssl.OpenSSL_version(0).decode()}")
    loaded = True
    return 0


cdef int load_crypto(void *h) except -1:
    need(h, b"OpenSSL_version_num", <void **>&openssl.OpenSSL_version_num)
    need(h, b"OpenSSL_version", <void **>&openssl.OpenSSL_version)
    need(h, b"ERR_clear_error", <void **>&openssl.ERR_clear_error)
    need(h, b"ERR_get_error", <void **>&openssl.ERR_get_error)
    need(h, b"ERR_reason_error_string", <void **>&openssl.ERR_reason_error_string)
    need(h, b"CRYPTO_malloc", <void **>&openssl.CRYPTO_malloc)
    need(h, b"CRYPTO_get_ex_new_index", <void **>&openssl.CRYPTO_get_ex_new_index)
    need(h, b"RAND_bytes", <void **>&openssl.RAND_bytes)
    need(h, b"BIO_new", <void **>&openssl.BIO_new)
    need(h, b"BIO_free", <void **>&openssl.BIO_free)
    need(h, b"BIO_new_mem_buf", <void **>&openssl.BIO_new_mem_buf)
    need(h, b"BIO_s_mem", <void **>&openssl.BIO_s_mem)
    need(h, b"BIO_read", <void **>&openssl.BIO_read)
    need(h, b"BIO_set_data", <void **>&openssl.BIO_set_data)
    need(h, b"BIO_get_data", <void **>&openssl.BIO_get_data)
    need(h, b"BIO_set_init", <void **>&openssl.BIO_set_init)
    need(h, b"BIO_set_flags", <void **>&openssl.BIO_set_flags)
    need(h, b"BIO_clear_flags", <void **>&openssl.BIO_clear_flags)
    need(h, b"BIO_get_new_index", <void **>&openssl.BIO_get_new_index)
    need(h, b"BIO_meth_new", <void **>&openssl.BIO_meth_new)
    need(h, b"BIO_meth_set_write", <void **>&openssl.BIO_meth_set_write)
    need(h, b"BIO_meth_set_read", <void **>&openssl.BIO_meth_set_read)
    need(h, b"BIO_meth_set_ctrl", <void **>&openssl.BIO_meth_set_ctrl)
    need(h, b"PEM_read_bio_X509", <void **>&openssl.PEM_read_bio_X509)
    need(h, b"PEM_read_bio_PrivateKey", <void **>&openssl.PEM_read_bio_PrivateKey)
    need(h, b"X509_free", <void **>&openssl.X509_free)
    need(h, b"EVP_PKEY_free", <void **>&openssl.EVP_PKEY_free)
    need(h, b"X509_get_subject_name", <void **>&openssl.X509_get_subject_name)
    need(h, b"X509_NAME_print_ex", <void **>&openssl.X509_NAME_print_ex)
    need(h, b"X509_STORE_add_cert", <void **>&openssl.X509_STORE_add_cert)
    need(h, b"X509_VERIFY_PARAM_set1_ip_asc", <void **>&openssl.X509_VERIFY_PARAM_set1_ip_asc)
    need(h, b"EVP_CIPHER_fetch", <void **>&openssl.EVP_CIPHER_fetch)
    need(h, b"EVP_EncryptInit_ex", <void **>&openssl.EVP_EncryptInit_ex)
    need(h, b"EVP_DecryptInit_ex", <void **>&openssl.EVP_DecryptInit_ex)
    need(h, b"EVP_MAC_CTX_set_params", <void **>&openssl.EVP_MAC_CTX_set_params)
    return 0


cdef int load_contexts(void *h) except -1:
    need(h, b"TLS_server_method", <void **>&openssl.TLS_server_method)
    need(h, b"TLS_client_method", <void **>&openssl.TLS_client_method)
    need(h, b"SSL_CTX_new", <void **>&openssl.SSL_CTX_new)
    need(h, b"SSL_CTX_free", <void **>&openssl.SSL_CTX_free)
    need(h, b"SSL_CTX_up_ref", <void **>&openssl.SSL_CTX_up_ref)
    need(h, b"SSL_CTX_ctrl", <void **>&openssl.SSL_CTX_ctrl)
    need(h, b"SSL_CTX_callback_ctrl", <void **>&openssl.SSL_CTX_callback_ctrl)
    need(h, b"SSL_CTX_set_options", <void **>&openssl.SSL_CTX_set_options)
    need(h, b"SSL_CTX_set_cipher_list", <void **>&openssl.SSL_CTX_set_cipher_list)
    need(h, b"SSL_CTX_set_ciphersuites", <void **>&openssl.SSL_CTX_set_ciphersuites)
    need(h, b"SSL_CTX_use_certificate", <void **>&openssl.SSL_CTX_use_certificate)
    need(h, b"SSL_CTX_get0_certificate", <void **>&openssl.SSL_CTX_get0_certificate)
    need(h, b"SSL_CTX_use_PrivateKey", <void **>&openssl.SSL_CTX_use_PrivateKey)
    need(h, b"SSL_CTX_set_verify", <void **>&openssl.SSL_CTX_set_verify)
    need(h, b"SSL_CTX_get_cert_store", <void **>&openssl.SSL_CTX_get_cert_store)
    need(h, b"SSL_CTX_add_client_CA", <void **>&openssl.SSL_CTX_add_client_CA)
    need(h, b"SSL_CTX_set_session_id_context", <void **>&openssl.SSL_CTX_set_session_id_context)
    need(h, b"SSL_CTX_set_timeout", <void **>&openssl.SSL_CTX_set_timeout)
    need(h, b"SSL_CTX_set_num_tickets", <void **>&openssl.SSL_CTX_set_num_tickets)
    need(h, b"SSL_CTX_set_tlsext_ticket_key_evp_cb", <void **>&openssl.SSL_CTX_set_tlsext_ticket_key_evp_cb)
    need(h, b"SSL_CTX_set_alpn_select_cb", <void **>&openssl.SSL_CTX_set_alpn_select_cb)
    need(h, b"SSL_CTX_set_alpn_protos", <void **>&openssl.SSL_CTX_set_alpn_protos)
    need(h, b"SSL_CTX_sess_set_new_cb", <void **>&openssl.SSL_CTX_sess_set_new_cb)
    need(h, b"SSL_CTX_set_ex_data", <void **>&openssl.SSL_CTX_set_ex_data)
    need(h, b"SSL_CTX_get_ex_data", <void **>&openssl.SSL_CTX_get_ex_data)
    return 0


cdef int load_connections(void *h) except -1:
    need(h, b"SSL_new", <void **>&openssl.SSL_new)
    need(h, b"SSL_free", <void **>&openssl.SSL_free)
    need(h, b"SSL_ctrl", <void **>&openssl.SSL_ctrl)
    need(h, b"SSL_set_bio", <void **>&openssl.SSL_set_bio)
    need(h, b"SSL_set_ex_data", <void **>&openssl.SSL_set_ex_data)
    need(h, b"SSL_get_ex_data", <void **>&openssl.SSL_get_ex_data)
    need(h, b"SSL_set_alpn_protos", <void **>&openssl.SSL_set_alpn_protos)
    need(h, b"SSL_set_accept_state", <void **>&openssl.SSL_set_accept_state)
    need(h, b"SSL_set_connect_state", <void **>&openssl.SSL_set_connect_state)
    need(h, b"SSL_do_handshake", <void **>&openssl.SSL_do_handshake)
    need(h, b"SSL_read", <void **>&openssl.SSL_read)
    need(h, b"SSL_peek", <void **>&openssl.SSL_peek)
    need(h, b"SSL_write", <void **>&openssl.SSL_write)
    need(h, b"SSL_new_session_ticket", <void **>&openssl.SSL_new_session_ticket)
    need(h, b"SSL_shutdown", <void **>&openssl.SSL_shutdown)
    need(h, b"SSL_get_error", <void **>&openssl.SSL_get_error)
    need(h, b"SSL_has_pending", <void **>&openssl.SSL_has_pending)
    need(h, b"SSL_get_servername", <void **>&openssl.SSL_get_servername)
    need(h, b"SSL_set_SSL_CTX", <void **>&openssl.SSL_set_SSL_CTX)
    need(h, b"SSL_get_SSL_CTX", <void **>&openssl.SSL_get_SSL_CTX)
    need(h, b"SSL_session_reused", <void **>&openssl.SSL_session_reused)
    need(h, b"SSL_version", <void **>&openssl.SSL_version)
    need(h, b"SSL_get_current_cipher", <void **>&openssl.SSL_get_current_cipher)
    need(h, b"SSL_CIPHER_get_name", <void **>&openssl.SSL_CIPHER_get_name)
    need(h, b"SSL_get_certificate", <void **>&openssl.SSL_get_certificate)
    need(h, b"SSL_get0_peer_certificate", <void **>&openssl.SSL_get0_peer_certificate)
    need(h, b"SSL_get_verify_result", <void **>&openssl.SSL_get_verify_result)
    need(h, b"SSL_set_session", <void **>&openssl.SSL_set_session)
    need(h, b"SSL_SESSION_free", <void **>&openssl.SSL_SESSION_free)
    need(h, b"SSL_set1_host", <void **>&openssl.SSL_set1_host)
    need(h, b"SSL_get0_param", <void **>&openssl.SSL_get0_param)
    return 0


def version():
    """Of the OpenSSL that TLS uses. OSError when there is none."""
    openssl_load()
    return openssl.OpenSSL_version(0).decode()
