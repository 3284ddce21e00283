/* Both ends of the TCP, WebSocket and UDP measurements: one thread, one epoll set each.
 *
 *   streams serve                              prints its port and serves until killed. What a connection starts with says
 *                                              what it is: "GET " is answered with 101 and then echoed, "B" gets bytes
 *                                              without end, everything else is echoed. Datagrams to the same port too
 *   streams drive PORT MODE CONNECTIONS SECONDS   MODE: echo, ws, bulk, udp, or udp-burst: BURST datagrams at a time in
 *                                              flight of each session. After one second to warm up it prints
 *                                              "start", then after SECONDS a line of JSON: how many messages there and back
 *                                              (or bytes), microseconds, median and 99th percentile of a message's time, and
 *                                              how many were not answered within LOST_US and asked again (udp)
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { EVENTS = 256, MAX_FD = 65536, CHUNK = 1 << 18, MESSAGE = 64, SLOW_US = 1 << 16, BATCH = 64,
       LOST_US = 200000, BURST = 16 };
enum kind { NEW, ECHO, SOURCE };

static const char ask[] =
    "GET /chat HTTP/1.1\r\nHost: bench\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
static const char grant[] =
    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
static char chunk[CHUNK];
static uint8_t kinds[MAX_FD];
static uint64_t sent_us[MAX_FD];
static unsigned in_flight[MAX_FD]; /* datagrams; of those that were lost nothing is expected any more */
static uint32_t slower[SLOW_US];

static void die(const char *what) {
    perror(what);
    exit(1);
}

static uint64_t now_us(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

static void watch(int ep, int fd, uint32_t events) {
    struct epoll_event e = {.events = events, .data.fd = fd};
    if (epoll_ctl(ep, EPOLL_CTL_ADD, fd, &e) < 0)
        die("epoll_ctl");
}

/* 0: goes on, -1: closed. */
static int served(int fd) {
    ssize_t n;
    if (kinds[fd] == SOURCE) {
        while ((n = send(fd, chunk, CHUNK, MSG_NOSIGNAL | MSG_DONTWAIT)) > 0)
            ;
        return errno == EAGAIN ? 0 : -1;
    }
    n = recv(fd, chunk, CHUNK, MSG_DONTWAIT);
    if (n <= 0)
        return n < 0 && errno == EAGAIN ? 0 : -1;
    if (kinds[fd] == NEW && chunk[0] == 'B') {
        kinds[fd] = SOURCE;
        return served(fd);
    }
    if (kinds[fd] == NEW && n >= 4 && memcmp(chunk, "GET ", 4) == 0) {
        kinds[fd] = ECHO;
        return send(fd, grant, sizeof grant - 1, MSG_NOSIGNAL) > 0 ? 0 : -1;
    }
    kinds[fd] = ECHO;
    return send(fd, chunk, (size_t)n, MSG_NOSIGNAL) == n ? 0 : -1;
}

static void echo_datagrams(int fd) {
    static char bytes[BATCH][2048];
    static struct sockaddr_in peers[BATCH];
    static struct iovec data[BATCH];
    static struct mmsghdr heads[BATCH];
    int i, n;
    for (i = 0; i < BATCH; i++) {
        data[i] = (struct iovec){bytes[i], sizeof bytes[i]};
        heads[i].msg_hdr = (struct msghdr){&peers[i], sizeof peers[i], &data[i], 1, NULL, 0, 0};
    }
    n = recvmmsg(fd, heads, BATCH, MSG_DONTWAIT, NULL);
    for (i = 0; i < n; i++)
        data[i].iov_len = heads[i].msg_len;
    if (n > 0)
        sendmmsg(fd, heads, (unsigned)n, 0);
}

static int roomy(int fd) {
    int bytes = 4 << 20;
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof bytes);
    return fd;
}

static int serve(void) {
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct epoll_event events[EVENTS];
    socklen_t size = sizeof a;
    int one = 1, ep = epoll_create1(0), l = socket(AF_INET, SOCK_STREAM, 0), d = roomy(socket(AF_INET, SOCK_DGRAM, 0));
    if (bind(l, (struct sockaddr *)&a, sizeof a) < 0 || listen(l, 4096) < 0)
        die("listen");
    getsockname(l, (struct sockaddr *)&a, &size);
    if (bind(d, (struct sockaddr *)&a, sizeof a) < 0)
        die("bind");
    printf("%d\n", ntohs(a.sin_port));
    fflush(stdout);
    watch(ep, l, EPOLLIN);
    watch(ep, d, EPOLLIN);
    for (;;) {
        int n = epoll_wait(ep, events, EVENTS, -1);
        for (int i = 0; i < n; i++) {
            int fd = events[i].data.fd;
            if (fd == d) {
                echo_datagrams(d);
            } else if (fd == l) {
                int c = accept(l, NULL, NULL);
                if (c < 0 || c >= MAX_FD)
                    die("accept");
                setsockopt(c, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
                kinds[c] = NEW;
                watch(ep, c, EPOLLIN | EPOLLOUT | EPOLLET | EPOLLRDHUP);
            } else if (served(fd) < 0 || events[i].events & EPOLLHUP) {
                close(fd);
            }
        }
    }
}

static void exactly(int fd, size_t n) {
    while (n) {
        ssize_t got = recv(fd, chunk, n < CHUNK ? n : CHUNK, 0);
        if (got <= 0)
            die("the answer to an upgrade");
        n -= (size_t)got;
    }
}

static void upgrade(int fd) {
    size_t n = 0;
    if (send(fd, ask, sizeof ask - 1, MSG_NOSIGNAL) < 0)
        die("send");
    while (n < 4 || memcmp(chunk + n - 4, "\r\n\r\n", 4) != 0) {
        if (recv(fd, chunk + n, 1, 0) != 1)
            die("the answer to an upgrade");
        n++;
    }
    if (n < 12 || memcmp(chunk + 9, "101", 3) != 0) {
        fprintf(stderr, "not upgraded: %.*s\n", (int)n, chunk);
        exit(1);
    }
}

static int dial(int port, const char *mode) {
    struct sockaddr_in a = {
        .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK), .sin_port = htons((uint16_t)port)};
    int one = 1, fd = mode[0] == 'u' ? roomy(socket(AF_INET, SOCK_DGRAM, 0)) : socket(AF_INET, SOCK_STREAM, 0);
    if (connect(fd, (struct sockaddr *)&a, sizeof a) < 0)
        die("connect");
    if (mode[0] != 'u')
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (mode[0] == 'w')
        upgrade(fd);
    return fd;
}

static uint32_t percentile(uint64_t count, double share) {
    uint64_t below = 0, at = (uint64_t)((double)count * share);
    for (uint32_t us = 0; us < SLOW_US; us++)
        if ((below += slower[us]) > at)
            return us;
    return SLOW_US;
}

static void say(int fd, uint64_t at) {
    sent_us[fd] = at;
    if (send(fd, chunk, MESSAGE, MSG_NOSIGNAL) != MESSAGE)
        die("send");
}

static void say_burst(int fd, unsigned n, uint64_t at) {
    static struct iovec data = {chunk, MESSAGE};
    static struct mmsghdr heads[BURST];
    sent_us[fd] = at;
    in_flight[fd] += n;
    for (unsigned i = 0; i < n; i++)
        heads[i].msg_hdr = (struct msghdr){NULL, 0, &data, 1, NULL, 0, 0};
    if (sendmmsg(fd, heads, n, 0) != (int)n)
        die("sendmmsg");
}

/* How many answers there are, up to a burst. */
static unsigned answers(int fd) {
    static char bytes[BURST][MESSAGE];
    static struct iovec data[BURST];
    static struct mmsghdr heads[BURST];
    for (int i = 0; i < BURST; i++) {
        data[i] = (struct iovec){bytes[i], MESSAGE};
        heads[i].msg_hdr = (struct msghdr){NULL, 0, &data[i], 1, NULL, 0, 0};
    }
    int n = recvmmsg(fd, heads, BURST, MSG_DONTWAIT, NULL);
    if (n <= 0)
        return 0;
    in_flight[fd] -= (unsigned)n < in_flight[fd] ? (unsigned)n : in_flight[fd];
    return (unsigned)n;
}

/* Ask again where answers are overdue; how many there were. */
static uint64_t ask_again(const int *fds, int n, unsigned window, uint64_t at) {
    uint64_t lost = 0;
    for (int i = 0; i < n; i++)
        if (at - sent_us[fds[i]] > LOST_US) {
            lost += in_flight[fds[i]];
            in_flight[fds[i]] = 0;
            say_burst(fds[i], window, at);
        }
    return lost;
}

static int drive(int port, const char *mode, int connections, double seconds) {
    struct epoll_event events[EVENTS];
    static int fds[MAX_FD];
    int ep = epoll_create1(0), bulk = mode[0] == 'b', udp = mode[0] == 'u', warm = 1;
    unsigned window = strcmp(mode, "udp-burst") == 0 ? BURST : 1;
    uint64_t start, at, looked, done = 0, spare = 0, lost = 0;
    memset(chunk, 'x', CHUNK);
    for (int i = 0; i < connections; i++) {
        int fd = dial(port, mode);
        if (fd >= MAX_FD)
            die("too many connections");
        fds[i] = fd;
        watch(ep, fd, EPOLLIN);
        if (bulk && send(fd, "B", 1, MSG_NOSIGNAL) != 1)
            die("send");
        if (udp)
            say_burst(fd, window, now_us());
        else if (!bulk)
            say(fd, now_us());
    }
    start = at = looked = now_us();
    while (at - start < (uint64_t)((warm ? 1.0 : seconds) * 1e6) || warm) {
        if (warm && at - start >= 1000000) {
            warm = 0;
            done = lost = 0;
            memset(slower, 0, sizeof slower);
            printf("start\n");
            fflush(stdout);
            start = now_us();
        }
        int n = epoll_wait(ep, events, EVENTS, udp ? LOST_US / 2000 : 1000);
        at = now_us();
        if (udp && at - looked > LOST_US / 2) {
            looked = at;
            lost += ask_again(fds, connections, window, at);
        }
        for (int i = 0; i < n; i++) {
            int fd = events[i].data.fd;
            if (bulk) {
                ssize_t got = recv(fd, chunk, CHUNK, MSG_DONTWAIT);
                if (got == 0 || (got < 0 && errno != EAGAIN))
                    die("a connection ended");
                done += got > 0 ? (uint64_t)got : 0;
                continue;
            }
            uint64_t us = at - sent_us[fd];
            unsigned n = 1;
            if (udp && (n = answers(fd)) == 0)
                continue;
            if (!udp)
                exactly(fd, MESSAGE);
            slower[us < SLOW_US ? us : SLOW_US - 1] += n;
            done += n;
            if (!udp)
                say(fd, at);
            else if (in_flight[fd] < window)
                say_burst(fd, window - in_flight[fd], at);
        }
        spare += n == 0 && !udp;
    }
    printf("{\"done\": %llu, \"us\": %llu, \"p50\": %u, \"p99\": %u, \"lost\": %llu}\n",
           (unsigned long long)done, (unsigned long long)(at - start), bulk ? 0 : percentile(done, 0.5),
           bulk ? 0 : percentile(done, 0.99), (unsigned long long)lost);
    return spare > 1;
}

int main(int argc, char **argv) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (argc == 2 && strcmp(argv[1], "serve") == 0)
        return serve();
    if (argc == 6 && strcmp(argv[1], "drive") == 0)
        return drive(atoi(argv[2]), argv[3], atoi(argv[4]), atof(argv[5]));
    fprintf(stderr, "usage: streams serve | drive PORT echo|ws|bulk|udp|udp-burst CONNECTIONS SECONDS\n");
    return 2;
}
