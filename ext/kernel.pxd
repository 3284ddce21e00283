"""What the engine asks of Linux."""

from libc.stdint cimport int32_t, uint32_t, uint64_t
from posix.types cimport off_t

cdef extern from "<errno.h>" nogil:
    int errno
    int EAGAIN, EINTR, EINPROGRESS, EMFILE, ENFILE, EADDRNOTAVAIL, EMSGSIZE, ENOBUFS, ENOMEM, ECONNABORTED, EINVAL, ENOSYS, EPERM

cdef extern from "<sys/epoll.h>" nogil:
    ctypedef union epoll_data_t:
        uint64_t u64
    struct epoll_event:
        uint32_t events
        epoll_data_t data
    int EPOLLIN, EPOLLOUT, EPOLLRDHUP, EPOLLHUP, EPOLLERR, EPOLLEXCLUSIVE
    uint32_t EPOLLET
    int EPOLL_CTL_ADD, EPOLL_CTL_MOD, EPOLL_CTL_DEL, EPOLL_CLOEXEC
    int epoll_create1(int)
    int epoll_ctl(int, int, int, epoll_event *)
    int epoll_wait(int, epoll_event *, int, int)

cdef extern from "<sys/socket.h>" nogil:
    """
    #ifndef _GNU_SOURCE
    #define _GNU_SOURCE
    #endif
    #include <sys/socket.h>
    #include <netinet/in.h>
    #include <netinet/tcp.h>
    #include <sys/un.h>
    #include <unistd.h>
    """
    struct sockaddr:
        unsigned short sa_family
    struct sockaddr_storage:
        pass
    ctypedef uint32_t socklen_t
    struct linger_t "linger":
        int l_onoff
        int l_linger
    int AF_INET, AF_INET6, AF_UNIX, SOCK_STREAM, SOCK_DGRAM, SOCK_NONBLOCK, SOCK_CLOEXEC
    int MSG_MORE, MSG_NOSIGNAL, MSG_PEEK, MSG_DONTWAIT, SHUT_WR, SOL_SOCKET, SO_ERROR, SO_LINGER
    int socket(int, int, int)
    int connect(int, const sockaddr *, socklen_t)
    int accept4(int, sockaddr *, socklen_t *, int)
    ssize_t recv(int, void *, size_t, int)
    ssize_t send(int, const void *, size_t, int)
    int shutdown(int, int)
    int setsockopt(int, int, int, const void *, socklen_t)
    int getsockopt(int, int, int, void *, socklen_t *)
    int getsockname(int, sockaddr *, socklen_t *)

cdef extern from "<netinet/in.h>" nogil:
    struct in_addr:
        uint32_t s_addr
    struct sockaddr_in:
        unsigned short sin_port
        in_addr sin_addr
    struct in6_addr:
        unsigned char s6_addr[16]
    struct sockaddr_in6:
        unsigned short sin6_port
        in6_addr sin6_addr
    int IPPROTO_TCP

cdef extern from "<netinet/tcp.h>" nogil:
    int TCP_NODELAY, TCP_DEFER_ACCEPT

cdef extern from "<arpa/inet.h>" nogil:
    unsigned short ntohs(unsigned short)

cdef extern from "<fcntl.h>" nogil:
    int O_NONBLOCK, O_CLOEXEC, F_SETPIPE_SZ
    unsigned int SPLICE_F_MOVE, SPLICE_F_NONBLOCK, SPLICE_F_MORE
    int fcntl(int, int, ...)
    int pipe2(int *, int)
    ssize_t splice(int, void *, int, void *, size_t, unsigned int)

cdef extern from "<unistd.h>" nogil:
    int close(int)
    ssize_t read(int, void *, size_t)
    ssize_t write(int, const void *, size_t)

cdef extern from "<time.h>" nogil:
    struct timespec:
        long tv_sec
        long tv_nsec
    struct itimerspec:
        timespec it_interval
        timespec it_value
    int CLOCK_MONOTONIC, CLOCK_REALTIME
    int clock_gettime(int, timespec *)

cdef extern from "<sys/timerfd.h>" nogil:
    int TFD_NONBLOCK, TFD_CLOEXEC, TFD_TIMER_ABSTIME
    int timerfd_create(int, int)
    int timerfd_settime(int, int, const itimerspec *, itimerspec *)

cdef extern from "<sys/random.h>" nogil:
    ssize_t getrandom(void *, size_t, unsigned int)

cdef inline uint64_t clock_us() noexcept nogil:
    """CLOCK_MONOTONIC in microseconds."""
    cdef timespec t
    clock_gettime(CLOCK_MONOTONIC, &t)
    return <uint64_t>t.tv_sec * 1000000 + <uint64_t>t.tv_nsec // 1000
