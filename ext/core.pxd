"""The memory of one worker: what a connection, an exchange, an endpoint and the worker itself hold.

Declarations only; each module works on these structs through plain functions. Everything here is touched by one
thread. Who owns what:
  core_t       the pools, the wheel, the scoreboard mapping, the current snapshot
  conn_t       its descriptor, and its input buffer while bytes wait in it; idle connections own no buffer
  exch_t       one request with its response: the buffers in flight both ways, a reference to its snapshot,
               its upstream connection until that goes back to the pool, its open pick
  endpoint_t   its idle connections
A conn_t is 128 bytes and the whole cost of an idle connection.
"""

from libc.stdint cimport int32_t, uint8_t, uint16_t, uint32_t, uint64_t
from turnout.ext.buffers cimport buf_pool_t, buf_t
from turnout.ext.framing cimport body_t
from turnout.ext.headers cimport head_t
from turnout.ext.openssl cimport SSL, SSL_CTX, SSL_SESSION
from turnout.ext.scoreboard cimport sb_t
from turnout.ext.select cimport TRIED_MAX, pick_t, selector_t
from turnout.ext.snapshot cimport listener_t, member_t, route_t, service_t, snapshot_t
from turnout.ext.timers cimport timer_node_t, timer_wheel_t

cdef enum conn_kind:
    CONN_FREE = 0
    CONN_LISTENER
    CONN_CLIENT
    CONN_UPSTREAM
    CONN_WAKE                 # a descriptor of the Python side: readable means give control back
    CONN_TICK                 # the timerfd of the wheel

# Client: IDLE -> HEAD -> EXCHANGE -> IDLE ... -> LINGER -> freed.   Upstream: CONNECTING -> BUSY -> POOLED -> BUSY ...
cdef enum conn_state:
    CS_IDLE = 0               # between requests, no byte of the next one yet
    CS_HEAD                   # part of a head is in
    CS_EXCHANGE               # x is set
    CS_LINGER                 # answered and shut for writing; reads and drops until the client is done
    CS_CONNECTING
    CS_BUSY                   # x is set
    CS_POOLED                 # in its endpoint's idle list

cdef enum conn_flag:
    CF_READABLE = 1           # edge seen and not yet drained
    CF_BLOCKED = 2            # the kernel took no more; an EPOLLOUT edge will come
    CF_OUT_ARMED = 4          # EPOLLOUT is in the interest set
    CF_PEER_SHUT = 8          # peer sent FIN (EPOLLRDHUP)
    CF_DEAD = 16              # EPOLLHUP or EPOLLERR
    CF_REUSED = 32            # upstream: has served a request before this one
    CF_CLOSE = 64             # client: asked for the connection to end with this exchange
    CF_READY = 128            # in the run queue
    CF_WATCHED = 256          # in the epoll set
    CF_RAW = 512              # client of a TCP listener: no HTTP is spoken
    CF_PROXY = 1024           # client whose first bytes have not been looked at for a PROXY header
    CF_DEAF = 4096            # EPOLLIN is out of the interest set
    CF_DATAGRAM = 2048        # UDP: a listening socket, one to an endpoint, or a client, which has no descriptor (see datagram.pxd)
    CF_ALONE = 4096           # UDP client that is no session: there for one datagram

cdef struct conn_t:
    int32_t fd
    uint32_t generation       # raised on every close; stale events carry an older one
    uint32_t index            # in the slab
    uint16_t flags            # conn_flag
    uint8_t kind              # conn_kind
    uint8_t state             # conn_state
    timer_node_t timer
    conn_t *next              # free list, or idle list of the endpoint, or list of clients, or of UDP listeners
    conn_t *prev
    conn_t *ready_next        # run queue
    exch_t *x
    buf_t *inb                # bytes read and not yet taken by an exchange; NULL while idle
    endpoint_t *endpoint      # upstream; the client of a UDP session keeps its listener's conn_t here
    tls_t *tls                # NULL: plain
    uint16_t listener         # client: scoreboard slot of its listener
    uint16_t port             # client: peer's port
    uint32_t served           # exchanges finished
    uint32_t owner            # upstream: generation of its endpoint when it was opened; client of a UDP session: scope of its address
    uint8_t address[16]       # client: peer, IPv4 mapped into IPv6; upstream for datagrams: see endpoint_since_ms

cdef enum tls_flag:
    TF_DONE = 1               # the handshake is complete
    TF_FAILED = 2             # broken for good
    TF_ENDED = 4              # close_notify is sent
    TF_DRAINED = 8            # nothing in the socket since the last edge
    TF_MORE = 16              # more follows at once what is being written
    TF_SEND_NEEDS_IN = 32     # sending goes on after the next EPOLLIN
    TF_READ_NEEDS_OUT = 64    # reading goes on after the next EPOLLOUT
    TF_LATE = 128             # its deadline has passed
    TF_LIVE = 256             # the kernel has taken something: the TCP connection exists
    TF_USED = 1024            # something was sent through it
    TF_TICKET = 512           # a session ticket goes out before the first answer

# TLS of one connection.
cdef struct tls_t:
    SSL *ssl
    core_t *core
    conn_t *c
    char *subject             # of the verified client certificate; NULL: none. Owned
    const char *reason        # what was wrong; static storage
    uint16_t flags            # tls_flag

cdef enum stream_flag:
    SF_ENDED = 1              # the source's message is complete
    SF_SOURCE_EOF = 2
    SF_FLUSHED = 4            # ... and all of it is written
    SF_READ = 16              # something was read from the source
    SF_FULL = 8               # the last read filled its buffer: larger ones pay
    SF_COPY = 32              # the source's bytes cannot be spliced

# One direction of an exchange: bytes from a source connection through their framing to a sink.
cdef struct stream_t:
    body_t body               # framing of the source
    uint8_t out               # body_kind written to the sink
    uint8_t flags             # stream_flag
    buf_t *raw                # bytes of the source not yet decoded (trailers in pieces)
    buf_t *first              # chain waiting to be written
    buf_t *last
    uint64_t bytes            # body bytes relayed
    uint64_t most             # of them; past it FEED_TOO_LARGE. 0: no bound
    uint64_t wire             # bytes written to the sink, heads and framing included

cdef enum exch_state:
    XS_START = 0              # head parsed
    XS_QUEUED                 # waits for a slot at an endpoint
    XS_CONNECTING
    XS_WAITING                # request head sent; body may still flow; no final response head yet
    XS_RESPONDING             # response head sent on
    XS_LOCAL                  # the proxy answers itself
    XS_TUNNEL                 # bytes pass both ways as they come: upgraded, or of a TCP listener
    XS_DONE

cdef enum exch_flag:
    XF_REPLAYABLE = 1         # nothing of the request has left head_buf for good: another attempt can be made
    XF_SENT = 2               # request bytes reached the kernel on a live connection
    XF_ANSWERED = 4           # final response head went to the client
    XF_CLOSE = 8              # close the client connection afterwards
    XF_EXPECT = 16            # client waits for 100
    XF_HEAD_ONLY = 32         # request was HEAD
    XF_CLIENT_10 = 64         # HTTP/1.0 client
    XF_FROM_POOL = 128        # current attempt goes over a reused connection
    XF_STICKY_ISSUE = 256     # the response must carry a sticky cookie
    XF_TRUSTED = 512          # the peer is a trusted proxy
    XF_LOG = 1024             # chosen for the access log
    XF_PICKED = 2048          # pick is open
    XF_FRESH = 4096           # next attempt must not use a pooled connection
    XF_UP_KEEP = 8192         # the upstream connection may be pooled afterwards
    XF_SAMPLED = 16384        # one of those whose time in the proxy is measured
    XF_UP_DEAF = 32768        # upstream takes no more of the request; only its answer is awaited
    XF_UPGRADE = 65536        # asks for an upgrade that its route passes on
    XF_RAW = 131072           # of a TCP listener: there is no head and no answer of the proxy's own
    XF_SLIM = 262144          # a standing tunnel's: the struct ends at req.fields, what the log needs of the head is behind it

cdef struct exch_t:
    exch_t *next              # free list or service queue
    exch_t *prev
    conn_t *client
    conn_t *upstream          # NULL between attempts
    snapshot_t *snapshot      # counted reference
    const listener_t *listener
    const route_t *route
    const service_t *service
    buf_t *head_buf           # holds the request head; pinned to the end
    const char *head          # the head's first byte
    buf_t *rest               # what the client sent behind this request's streamed body; its next request
    uint32_t body_off         # body bytes that came with the head, decoded in place: where they stand in head_buf ...
    uint32_t body_n           # ... and how many
    uint32_t trailer_off      # trailer section in head_buf, when the whole chunked body came with the head
    uint32_t trailer_n
    uint16_t status           # of the response, 0 none
    uint8_t state             # exch_state
    uint8_t cause             # scoreboard cause
    uint32_t flags            # exch_flag
    uint8_t tries
    uint8_t stale_tries
    uint8_t interim           # 1xx responses forwarded
    uint8_t id_len
    char request_id[64]
    pick_t pick
    const member_t *last      # who was picked last
    uint32_t n_tried
    uint32_t tried[TRIED_MAX]
    uint8_t source[16]        # the client's address: the peer's, or what a trusted proxy says it is
    uint64_t key              # hash of what the strategy balances by
    uint64_t bound            # sticky binding the client showed
    uint64_t bound_until_s    # Unix time its cookie ends
    uint64_t start_us         # all CLOCK_MONOTONIC; 0: did not happen
    uint64_t queued_us
    uint64_t pick_us          # this attempt
    uint64_t connected_us
    uint64_t sent_us          # request head written, this attempt
    uint64_t first_us         # first byte of the final response head, this attempt
    uint64_t done_us
    uint64_t settled_us       # tunnel: since when it stands; what came before is its latency, what comes after is not
    uint8_t local[16]         # UDP: the address that the client sent to; all zero: the listener's own
    uint64_t until_ms         # tunnel: closed at this time whatever passes; 0: open end
    uint64_t proxy_us         # time in the proxy before the head went upstream plus after the answer came
    uint64_t body_base_ms     # the request body's rate counts from here; moves on while the upstream holds it up
    uint64_t paused_ms        # since when the upstream holds it up; 0: it does not
    uint64_t bytes_in         # read from the client: head and body
    uint64_t bytes_out        # written to the client
    const char *reason        # short phrase for a proxy-made answer; static storage
    stream_t up               # client to upstream
    stream_t down             # upstream to client
    head_t req

# A worker's side of one endpoint, by scoreboard slot. Lives as long as the slot's generation.
cdef struct endpoint_t:
    uint32_t slot
    uint32_t generation
    conn_t *idle              # most recently used first
    conn_t *idle_last
    SSL_CTX *ctx              # what its TLS connections are made with, NULL: plain; a counted reference
    SSL_SESSION *session      # of the last connection, for resumption; owned
    uint32_t n_idle
    uint32_t n_open
    uint8_t address[110]      # struct sockaddr; the fields before it keep it aligned
    uint16_t address_len
    uint8_t gone              # 1: not in the snapshot any more; connections close when they finish

# A worker's side of one service, by scoreboard slot.
cdef struct service_state_t:
    exch_t *queue             # first to come first
    exch_t *queue_last
    uint32_t n_queued
    uint64_t earned_us        # when budget_earn was last called

# The access log of one worker: records collect here and are written when full or once a second.
cdef struct log_t:
    int32_t fd                # -1: off
    uint32_t n
    uint32_t cap
    char *data

cdef struct core_t:
    int epfd
    int tickfd
    uint64_t now_us           # CLOCK_MONOTONIC, read once per turn
    uint64_t now_ms
    uint64_t wall_ms          # Unix epoch, same moment
    uint64_t random           # xorshift state
    sb_t sb
    selector_t *selector
    snapshot_t *snapshot
    buf_pool_t buffers
    timer_wheel_t wheel
    uint64_t tick_armed_ms    # when tickfd fires; 0: not armed
    conn_t **slab             # chunks of SLAB_CONNS
    uint32_t n_slab
    conn_t *free_conns
    exch_t *free_exchanges
    endpoint_t **endpoints    # by slot, NULL until used
    service_state_t *services # by slot
    uint8_t *retired          # by listener slot; 1: it goes, keep-alive of its connections ends
    conn_t *ready             # run queue, first in first out
    conn_t *ready_last
    uint32_t n_ready
    conn_t *clients           # all client connections, for drain
    uint32_t n_clients
    uint32_t n_exchanges
    uint32_t n_tunnels
    uint32_t n_upstreams
    uint32_t n_tls            # tls_t
    char *scratch             # SCRATCH_BYTES, for heads on their way out
    log_t log
    void *datagrams           # datagrams_t of datagram.pyx, NULL without UDP listeners
    uint8_t draining          # 1: no accepts, keep-alive ends
    uint8_t attention         # 1: the Python side has something to do
    uint8_t starved           # 1: accept ran out of descriptors; retried on the next tick

cdef enum:
    SLAB_CONNS = 1024
    SCRATCH_BYTES = 655360    # a head in front of the largest body that can come with one
