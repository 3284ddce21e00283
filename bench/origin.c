/* The origin behind every peer: one thread, one epoll set, answers made beforehand.
 *
 * It shares a core with the load generator, so it does as little as HTTP/1.1 with keep-alive allows.
 *   GET /N      200 with a body of N bytes (N up to MAX_BODY)
 *   GET /head   200 with the request head it received as the body: what the proxy really sent
 *   GET /stats  200 with "connections requests" counted so far
 * Anything that is not a whole GET head in READ_BYTES closes the connection. Prints its port and serves until killed.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

enum { READ_BYTES = 16384, MAX_BODY = 8 << 20, EVENTS = 256, ANSWERS = 16, MAX_FD = 65536 };

struct answer {
    size_t body;
    size_t n;
    char *bytes;
};

struct conn {
    char *in;             /* a head that came in pieces; NULL otherwise */
    size_t in_n;
    char *own;            /* an answer made for this request only, freed when written */
    const char *out;      /* what is left to write */
    size_t out_n;
};

static struct answer answers[ANSWERS];
static int n_answers;
static struct conn conns[MAX_FD];
static unsigned long accepted, requests;
static int epfd;

static size_t put_head(char *to, size_t body)
{
    return (size_t)sprintf(to, "HTTP/1.1 200 OK\r\nServer: origin\r\nContent-Type: text/plain\r\n"
                               "Content-Length: %zu\r\n\r\n", body);
}

static struct answer *answer_for(size_t body)
{
    struct answer *a;
    for (int i = 0; i < n_answers; i++)
        if (answers[i].body == body)
            return &answers[i];
    if (body > MAX_BODY || n_answers == ANSWERS)
        return NULL;
    a = &answers[n_answers++];
    a->body = body;
    a->bytes = malloc(256 + body);
    a->n = put_head(a->bytes, body);
    memset(a->bytes + a->n, 'x', body);
    a->n += body;
    return a;
}

static void drop(int fd)
{
    free(conns[fd].in);
    free(conns[fd].own);
    memset(&conns[fd], 0, sizeof conns[fd]);
    close(fd);
}

static void want(int fd, unsigned events)
{
    struct epoll_event e = {.events = events, .data.fd = fd};
    epoll_ctl(epfd, EPOLL_CTL_MOD, fd, &e);
}

/* False when the connection is gone. */
static int flush(int fd)
{
    struct conn *c = &conns[fd];
    ssize_t put = send(fd, c->out, c->out_n, MSG_NOSIGNAL);
    if (put < 0) {
        if (errno != EAGAIN) {
            drop(fd);
            return 0;
        }
        put = 0;
    }
    c->out += put;
    c->out_n -= (size_t)put;
    if (!c->out_n) {
        free(c->own);
        c->own = NULL;
        c->out = NULL;
    }
    return 1;
}

static void answer_text(struct conn *c, const char *text, size_t n)
{
    c->own = malloc(256 + n);
    c->out = c->own;
    c->out_n = put_head(c->own, n);
    memcpy(c->own + c->out_n, text, n);
    c->out_n += n;
}

/* Set what is to be written for the head p[0:n]; False when it cannot be served. */
static int serve(struct conn *c, const char *p, size_t n)
{
    char text[64];
    struct answer *a;
    if (n < 16 || memcmp(p, "GET /", 5))
        return 0;
    requests++;
    if (!memcmp(p, "GET /head ", 10)) {
        answer_text(c, p, n);
    } else if (!memcmp(p, "GET /stats ", 11)) {
        answer_text(c, text, (size_t)sprintf(text, "%lu %lu", accepted, requests));
    } else {
        a = answer_for(strtoul(p + 5, NULL, 10));
        if (!a)
            return 0;
        c->out = a->bytes;
        c->out_n = a->n;
    }
    return 1;
}

static void on_readable(int fd)
{
    static char shared[READ_BYTES];
    struct conn *c = &conns[fd];
    char *p = c->in ? c->in : shared;
    ssize_t got = recv(fd, p + c->in_n, READ_BYTES - c->in_n, 0);
    size_t n;
    if (got < 0 && errno == EAGAIN)
        return;
    if (got <= 0) {
        drop(fd);
        return;
    }
    n = c->in_n + (size_t)got;
    if (n < 4 || memcmp(p + n - 4, "\r\n\r\n", 4)) {   /* proxies do not pipeline: the head ends the bytes */
        if (n == READ_BYTES) {
            drop(fd);
            return;
        }
        if (!c->in) {
            c->in = malloc(READ_BYTES);
            memcpy(c->in, shared, n);
        }
        c->in_n = n;
        return;
    }
    if (!serve(c, p, n)) {
        drop(fd);
        return;
    }
    c->in_n = 0;
    if (flush(fd) && c->out_n)
        want(fd, EPOLLOUT);
}

static void on_connection(int listener)
{
    int one = 1, fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    struct epoll_event e = {.events = EPOLLIN, .data.fd = fd};
    if (fd < 0)
        return;
    if (fd >= MAX_FD) {
        close(fd);
        return;
    }
    accepted++;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    epoll_ctl(epfd, EPOLL_CTL_ADD, fd, &e);
}

static int open_listener(void)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof at;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&at, sizeof at) || listen(fd, 4096))
        return -1;
    getsockname(fd, (struct sockaddr *)&at, &n);
    printf("%d\n", ntohs(at.sin_port));
    fflush(stdout);
    return fd;
}

int main(void)
{
    static struct epoll_event events[EVENTS];
    struct epoll_event e;
    int listener, n, fd;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    epfd = epoll_create1(EPOLL_CLOEXEC);
    listener = open_listener();
    if (epfd < 0 || listener < 0) {
        perror("origin");
        return 1;
    }
    e.events = EPOLLIN;
    e.data.fd = listener;
    epoll_ctl(epfd, EPOLL_CTL_ADD, listener, &e);
    for (;;) {
        n = epoll_wait(epfd, events, EVENTS, -1);
        for (int i = 0; i < n; i++) {
            fd = events[i].data.fd;
            if (fd == listener)
                on_connection(fd);
            else if (events[i].events & EPOLLOUT) {
                if (flush(fd) && !conns[fd].out_n)
                    want(fd, EPOLLIN);
            } else
                on_readable(fd);
        }
    }
}
