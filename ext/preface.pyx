"""See preface.pxd."""

from libc.stdint cimport uint8_t, uint16_t
from libc.string cimport memcmp, memcpy, memset
from turnout.ext.core cimport CF_PEER_SHUT, CF_PROXY, CF_RAW, CF_READABLE
from turnout.ext.kernel cimport (
    AF_INET, AF_INET6, AF_UNIX, EAGAIN, EINTR, MSG_PEEK, errno, getsockname, ntohs, recv, sockaddr, sockaddr_in,
    sockaddr_in6, sockaddr_storage, socklen_t,
)
from turnout.ext.proxyproto cimport (
    PROXY_BAD, PROXY_MAX, PROXY_MORE, proxied_t, proxy_likely, proxy_parse, proxy_write,
)
from turnout.ext.request cimport peer_trusted

# One thread runs an engine.
cdef char seen[PROXY_MAX]


cdef ssize_t look(conn_t *c) noexcept nogil:
    cdef ssize_t got
    while True:
        got = recv(c.fd, seen, PROXY_MAX, MSG_PEEK)
        if got >= 0 or errno != EINTR:
            return got


cdef void take_off(conn_t *c, int n) noexcept nogil:
    """n bytes that have been looked at. What is behind them may have been there as well."""
    if n:
        recv(c.fd, seen, <size_t>n, 0)
    c.flags &= ~<uint16_t>CF_PROXY
    c.flags |= CF_READABLE


cdef int preface_take(conn_t *c, const listener_t *listener) noexcept nogil:
    cdef bint insider = peer_trusted(listener, c.address)
    cdef ssize_t got = look(c)
    cdef int verdict
    cdef proxied_t who
    if got == 0 or (got < 0 and errno != EAGAIN):
        return PREFACE_GONE
    if insider:
        verdict = proxy_parse(seen, <unsigned int>got, &who) if got > 0 else PROXY_MORE
    else:
        verdict = proxy_likely(seen, <unsigned int>got) if got > 0 else PROXY_MORE
    if verdict == PROXY_MORE:
        if c.flags & CF_PEER_SHUT:
            return PREFACE_GONE
        c.flags &= ~<uint16_t>CF_READABLE
        return PREFACE_LATER if not insider and c.flags & CF_RAW and c.tls == NULL and not listener.names else PREFACE_WAIT
    if verdict == PROXY_BAD or (verdict > 0 and not insider):
        return PREFACE_REFUSED
    take_off(c, verdict)
    if insider and who.known:
        memcpy(c.address, who.source, 16)
        c.port = who.source_port
    return PREFACE_DONE


cdef const char *preface_reason(const conn_t *c, const listener_t *listener) noexcept nogil:
    if peer_trusted(listener, c.address):
        return b"the trusted peer did not start with a PROXY header that holds together"
    return b"a PROXY header came from a peer that is not trusted"


cdef unsigned int preface_write(const exch_t *x, char *out) noexcept nogil:
    cdef proxied_t who
    if x.service.proxy_version == 0:
        return 0
    memset(&who, 0, sizeof(who))
    memcpy(who.source, x.source, 16)
    if memcmp(x.source, x.client.address, 16) == 0:
        who.source_port = x.client.port
    who.known = own_address(x.client, &who)
    return proxy_write(x.service.proxy_version, &who, out)


cdef bint own_address(const conn_t *c, proxied_t *who) noexcept nogil:
    cdef sockaddr_storage own
    cdef socklen_t n = sizeof(own)
    cdef int family
    if getsockname(c.fd, <sockaddr *>&own, &n) < 0:
        return False
    family = (<sockaddr *>&own).sa_family
    if family == AF_INET:
        who.target[10] = 0xff
        who.target[11] = 0xff
        memcpy(&who.target[12], &(<sockaddr_in *>&own).sin_addr, 4)
        who.target_port = ntohs((<sockaddr_in *>&own).sin_port)
    elif family == AF_INET6:
        memcpy(who.target, &(<sockaddr_in6 *>&own).sin6_addr, 16)
        who.target_port = ntohs((<sockaddr_in6 *>&own).sin6_port)
    return family != AF_UNIX
