"""Batches of datagrams: the kernel's vectors of messages, and the address at which a datagram came in.

A socket that is bound to every address is told (IP_PKTINFO) to which one a datagram was sent, and answers from there.
"""

from libc.stdint cimport int32_t, uint8_t, uint16_t, uint32_t

cdef extern from *:
    """
    #ifndef _GNU_SOURCE
    #define _GNU_SOURCE
    #endif
    #include <sys/socket.h>
    #include <netinet/in.h>
    #include <netinet/udp.h>
    #include <errno.h>
    #include <stdint.h>
    #include <string.h>

    #define TURNOUT_CONTROL 64   /* room for one in6_pktinfo and the size of segments */
    #define TURNOUT_SEGMENT 1452 /* larger datagrams may have to be sent in fragments, which segments cannot */
    #define TURNOUT_RUN 65000    /* bytes of one message, whatever the headers */
    #ifndef UDP_SEGMENT
    #define UDP_SEGMENT 103
    #endif

    typedef struct {
        struct mmsghdr *head;             /* [n] */
        struct iovec *data;
        struct sockaddr_in6 *peer;        /* also holds a sockaddr_in */
        char (*control)[TURNOUT_CONTROL];
        char *bytes;                      /* n times `size` */
        struct mmsghdr *run;              /* [n] what is sent: one entry, or several of one size to one peer */
        unsigned n, size;
    } turnout_batch;

    /* Entry i ready to receive; with_peer 0: from a connected socket. */
    static inline void turnout_batch_receive(turnout_batch *b, unsigned i, int with_peer, int with_control)
    {
        struct msghdr *h = &b->head[i].msg_hdr;
        b->data[i].iov_base = b->bytes + (size_t)i * b->size;
        b->data[i].iov_len = b->size;
        h->msg_iov = &b->data[i];
        h->msg_iovlen = 1;
        h->msg_name = with_peer ? &b->peer[i] : NULL;
        h->msg_namelen = with_peer ? sizeof(b->peer[i]) : 0;
        h->msg_control = with_control ? b->control[i] : NULL;
        h->msg_controllen = with_control ? TURNOUT_CONTROL : 0;
        h->msg_flags = 0;
    }

    /* Entry i, received, ready to be sent on over a connected socket. */
    static inline void turnout_batch_forward(turnout_batch *b, unsigned i)
    {
        struct msghdr *h = &b->head[i].msg_hdr;
        b->data[i].iov_len = b->head[i].msg_len;
        h->msg_name = NULL;
        h->msg_namelen = 0;
        h->msg_control = NULL;
        h->msg_controllen = 0;
        h->msg_flags = 0;
    }

    /* The local address of entry i in 16 bytes, IPv4 mapped; all zero when the kernel did not say. */
    static inline void turnout_batch_local(turnout_batch *b, unsigned i, unsigned char *out)
    {
        struct msghdr *h = &b->head[i].msg_hdr;
        struct cmsghdr *c;
        memset(out, 0, 16);
        if (h->msg_control == NULL || (h->msg_flags & MSG_CTRUNC))
            return;
        for (c = CMSG_FIRSTHDR(h); c != NULL; c = CMSG_NXTHDR(h, c)) {
            if (c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_PKTINFO) {
                struct in_pktinfo info;
                memcpy(&info, CMSG_DATA(c), sizeof(info));
                out[10] = out[11] = 0xff;
                memcpy(out + 12, &info.ipi_spec_dst, 4);   /* of a broadcast, where it came in */
            } else if (c->cmsg_level == IPPROTO_IPV6 && c->cmsg_type == IPV6_PKTINFO) {
                struct in6_pktinfo info6;
                memcpy(&info6, CMSG_DATA(c), sizeof(info6));
                memcpy(out, &info6.ipi6_addr, 16);
            }
        }
    }

    /* The interface that entry i came over when its sender's address is link-local, else 0. */
    static inline unsigned turnout_batch_scope(const turnout_batch *b, unsigned i)
    {
        return b->peer[i].sin6_family == AF_INET6 ? b->peer[i].sin6_scope_id : 0;
    }

    /* Entry i goes to a peer over an unconnected socket of this family, from `local` unless that is all zero. */
    static inline void turnout_batch_address(turnout_batch *b, unsigned i, int family, const unsigned char *address,
                                             unsigned scope, unsigned short port, const unsigned char *local, int with_local)
    {
        struct msghdr *h = &b->head[i].msg_hdr;
        b->data[i].iov_len = b->head[i].msg_len;
        memset(&b->peer[i], 0, sizeof(b->peer[i]));
        h->msg_name = &b->peer[i];
        h->msg_flags = 0;
        if (family == AF_INET) {
            struct sockaddr_in *v4 = (struct sockaddr_in *)&b->peer[i];
            v4->sin_family = AF_INET;
            v4->sin_port = htons(port);
            memcpy(&v4->sin_addr, address + 12, 4);
            h->msg_namelen = sizeof(*v4);
        } else {
            b->peer[i].sin6_family = AF_INET6;
            b->peer[i].sin6_port = htons(port);
            memcpy(&b->peer[i].sin6_addr, address, 16);
            b->peer[i].sin6_scope_id = scope;
            h->msg_namelen = sizeof(b->peer[i]);
        }
        h->msg_control = NULL;
        h->msg_controllen = 0;
        if (with_local) {
            struct cmsghdr *c;
            memset(b->control[i], 0, TURNOUT_CONTROL);
            h->msg_control = b->control[i];
            h->msg_controllen = TURNOUT_CONTROL;
            c = CMSG_FIRSTHDR(h);
            if (family == AF_INET) {
                struct in_pktinfo info;
                memset(&info, 0, sizeof(info));
                memcpy(&info.ipi_spec_dst, local + 12, 4);
                c->cmsg_level = IPPROTO_IP;
                c->cmsg_type = IP_PKTINFO;
                c->cmsg_len = CMSG_LEN(sizeof(info));
                memcpy(CMSG_DATA(c), &info, sizeof(info));
                h->msg_controllen = CMSG_SPACE(sizeof(info));
            } else {
                struct in6_pktinfo info6;
                memset(&info6, 0, sizeof(info6));
                memcpy(&info6.ipi6_addr, local, 16);
                c->cmsg_level = IPPROTO_IPV6;
                c->cmsg_type = IPV6_PKTINFO;
                c->cmsg_len = CMSG_LEN(sizeof(info6));
                memcpy(CMSG_DATA(c), &info6, sizeof(info6));
                h->msg_controllen = CMSG_SPACE(sizeof(info6));
            }
        }
    }

    /* Whether entry i goes where entry `first` goes, from the same address. */
    static inline int turnout_same_way(const turnout_batch *b, unsigned first, unsigned i)
    {
        const struct msghdr *f = &b->head[first].msg_hdr, *h = &b->head[i].msg_hdr;
        return h->msg_namelen == f->msg_namelen && h->msg_controllen == f->msg_controllen
            && (h->msg_namelen == 0 || memcmp(h->msg_name, f->msg_name, h->msg_namelen) == 0)
            && (h->msg_controllen == 0 || memcmp(h->msg_control, f->msg_control, h->msg_controllen) == 0);
    }

    /* How many entries from `at` on may leave as one message: of one size, the last one also smaller. */
    static inline unsigned turnout_run_length(const turnout_batch *b, unsigned at, unsigned stop)
    {
        size_t size = b->data[at].iov_len, all = size;
        unsigned i;
        if (size == 0 || size > TURNOUT_SEGMENT)
            return 1;
        for (i = at + 1; i < stop; i++) {
            size_t next = b->data[i].iov_len;
            if (next == 0 || next > size || b->data[i - 1].iov_len < size || (all += next) > TURNOUT_RUN
                || !turnout_same_way(b, at, i))
                break;
        }
        return i - at;
    }

    /* Message k: entries at..at+n, cut by the kernel where it has to be (UDP_SEGMENT). Their control is used up. */
    static inline void turnout_run_set(turnout_batch *b, unsigned k, unsigned at, unsigned n)
    {
        struct msghdr *h = &b->run[k].msg_hdr;
        uint16_t size = (uint16_t)b->data[at].iov_len;
        struct cmsghdr *c;
        *h = b->head[at].msg_hdr;
        h->msg_iov = &b->data[at];
        h->msg_iovlen = n;
        if (n == 1)
            return;
        h->msg_control = b->control[at];
        c = (struct cmsghdr *)(b->control[at] + h->msg_controllen);
        memset(c, 0, CMSG_SPACE(sizeof(size)));
        c->cmsg_level = IPPROTO_UDP;
        c->cmsg_type = UDP_SEGMENT;
        c->cmsg_len = CMSG_LEN(sizeof(size));
        memcpy(CMSG_DATA(c), &size, sizeof(size));
        h->msg_controllen += CMSG_SPACE(sizeof(size));
    }

    /* Send entries at..stop, in as few messages as there can be. How many entries the kernel took of those at the front;
     * -1: not even the first one, errno says why. */
    static inline int turnout_batch_send(turnout_batch *b, int fd, unsigned at, unsigned stop)
    {
        unsigned i, k, n, taken = 0;
        int put;
        if (stop - at == 1)
            return sendmsg(fd, &b->head[at].msg_hdr, MSG_DONTWAIT | MSG_NOSIGNAL) < 0 ? -1 : 1;
        for (i = at, k = 0; i < stop; i += n, k++) {
            n = turnout_run_length(b, i, stop);
            turnout_run_set(b, k, i, n);
        }
        put = sendmmsg(fd, b->run, k, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (put < 0 && b->run[0].msg_hdr.msg_iovlen > 1 && (errno == EINVAL || errno == EMSGSIZE || errno == EIO))
            /* The way there is narrower than a segment, or cannot have any. */
            return sendmsg(fd, &b->head[at].msg_hdr, MSG_DONTWAIT | MSG_NOSIGNAL) < 0 ? -1 : 1;
        for (i = 0; (int)i < put; i++)
            taken += b->run[i].msg_hdr.msg_iovlen;
        return put < 0 ? -1 : (int)taken;
    }

    /* Whether an error of a connected socket says that nobody is there; others are about one datagram, or this machine. */
    static inline int turnout_gone(int error)
    {
        return error == ECONNREFUSED || error == EHOSTUNREACH || error == ENETUNREACH || error == EHOSTDOWN
            || error == ENETDOWN || error == ENOPROTOOPT;
    }

    /* Whether both sockets are bound to the same address and port. */
    static inline int turnout_same_name(int fd, int other)
    {
        struct sockaddr_in6 a, b;
        socklen_t n = sizeof(a), m = sizeof(b);
        memset(&a, 0, sizeof(a));
        memset(&b, 0, sizeof(b));
        return getsockname(fd, (struct sockaddr *)&a, &n) == 0 && getsockname(other, (struct sockaddr *)&b, &m) == 0
            && memcmp(&a, &b, sizeof(a)) == 0;
    }

    /* Have the kernel tell the local address; 1 when the socket is bound to every address and needs it. */
    static inline int turnout_tell_local(int fd, int family)
    {
        struct sockaddr_in6 own;
        socklen_t n = sizeof(own);
        int one = 1;
        memset(&own, 0, sizeof(own));
        if (getsockname(fd, (struct sockaddr *)&own, &n) < 0)
            return 0;
        if (family == AF_INET) {
            if (((struct sockaddr_in *)&own)->sin_addr.s_addr != INADDR_ANY)
                return 0;
            return setsockopt(fd, IPPROTO_IP, IP_PKTINFO, &one, sizeof(one)) == 0;
        }
        if (memcmp(&own.sin6_addr, &in6addr_any, 16) != 0)
            return 0;
        return setsockopt(fd, IPPROTO_IPV6, IPV6_RECVPKTINFO, &one, sizeof(one)) == 0;
    }
    """
    struct sockaddr_in6:
        pass
    struct mmsghdr:
        unsigned int msg_len
    struct iovec:
        size_t iov_len
    ctypedef struct batch_t "turnout_batch":
        mmsghdr *head
        iovec *data
        sockaddr_in6 *peer
        void *control
        char *bytes
        mmsghdr *run
        unsigned int n
        unsigned int size
    enum:
        CONTROL_BYTES "TURNOUT_CONTROL"
    int recvmmsg(int, mmsghdr *, unsigned int, int, void *) noexcept nogil
    void batch_receive "turnout_batch_receive"(batch_t *, unsigned int, bint, bint) noexcept nogil
    void batch_forward "turnout_batch_forward"(batch_t *, unsigned int) noexcept nogil
    void batch_local "turnout_batch_local"(batch_t *, unsigned int, uint8_t *) noexcept nogil
    uint32_t batch_scope "turnout_batch_scope"(const batch_t *, unsigned int) noexcept nogil
    void batch_address "turnout_batch_address"(
        batch_t *, unsigned int, int, const uint8_t *, uint32_t, uint16_t, const uint8_t *, bint) noexcept nogil
    int batch_send "turnout_batch_send"(batch_t *, int, unsigned int, unsigned int) noexcept nogil
    bint endpoint_gone "turnout_gone"(int) noexcept nogil
    bint same_name "turnout_same_name"(int, int) noexcept nogil
    bint tell_local "turnout_tell_local"(int, int) noexcept nogil
