"""The scoreboard: shared memory of fixed layout, one writer per field.

One memfd, mapped by the supervisor and every worker. Groups of fields by who writes them:
  supervisor   sb_header_t, sb_endpoint_t, sb_group_t
  any worker   sb_breaker_t.word and sticky entries, by compare-and-swap
  worker w     its slab: sb_worker_t, inflight[], queued[], stats[], routes[], listeners[]
Readers add up slabs. A dead worker's slab is settled by the supervisor: in-flight to zero, totals kept.
When a slot is given to another owner the supervisor writes the sums so far into the base, which readers subtract.
All loads and stores of shared words are relaxed atomics unless a comment says otherwise.
"""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t

cdef enum:
    SB_MAGIC = 0x5455524E     # "TURN"
    SB_LAYOUT = 5             # raised with any change of layout; an upgrade across layouts starts a new scoreboard
    SB_WORKERS_MAX = 256
    HIST_SUB = 8              # linear steps per octave
    HIST_BUCKETS = 208        # microseconds: 0..7 exact, then 25 octaves of 8 steps, up to 2^28 us (268 s)

cdef enum sb_health:
    HEALTH_UP = 0
    HEALTH_DOWN = 1

cdef enum sb_admin:
    ADMIN_READY = 0
    ADMIN_DRAIN = 1           # bound sessions only
    ADMIN_MAINT = 2           # nothing

# What an attempt at an endpoint came to. Fed to totals, breaker and latency estimate by exactly one release per pick.
cdef enum outcome:
    OUT_1XX = 0               # 101 only: became a tunnel
    OUT_2XX
    OUT_3XX
    OUT_4XX
    OUT_5XX
    OUT_CONNECT               # connection refused, unreachable, connect timeout
    OUT_TIMEOUT               # response head or body too slow
    OUT_RESET                 # broken before the response was complete, or malformed
    OUT_STALE                 # reused connection closed before the first response byte: not the endpoint's failure
    OUT_CANCEL                # the client left, or the proxy gave up for its own reasons: says nothing of the endpoint
    OUT_N

# Who caused the answer that the client got.
cdef enum cause:
    CAUSE_NONE = 0            # the upstream answered
    CAUSE_CLIENT
    CAUSE_PROXY
    CAUSE_CONNECT
    CAUSE_UPSTREAM
    CAUSE_TIMEOUT
    CAUSE_N

cdef struct sb_header_t:
    uint32_t magic
    uint32_t layout
    uint32_t workers          # slabs
    uint32_t endpoints        # endpoint slots
    uint32_t groups           # version-group slots
    uint32_t services
    uint32_t routes
    uint32_t listeners
    uint32_t sticky           # sticky-by-source entries, a power of two
    uint32_t pad
    uint64_t bytes            # size of the mapping
    uint64_t started_ms       # wall clock, Unix epoch
    uint64_t snapshot         # version that workers should have
    uint64_t changes          # raised (sb_changed) after every change of an endpoint, a group or a breaker's state:
                              # whoever keeps something derived from them builds it anew when this has moved

# Written by the supervisor. One cache line.
cdef struct sb_endpoint_t:
    uint32_t generation       # raised when the slot is given to another endpoint; odd: in use
    uint32_t health           # sb_health
    uint32_t admin            # sb_admin
    uint32_t weight           # 0: no new sessions; at most 65535
    uint64_t slow_start_ms    # CLOCK_MONOTONIC when the ramp began; 0: none
    uint64_t pad[5]

cdef struct sb_group_t:
    uint32_t share            # of SHARE_UNIT; the groups of one service add up to it or all are 0
    uint32_t generation
    uint64_t pad[7]

cdef enum:
    SHARE_UNIT = 1000000

# One cache line; `word` is changed by compare-and-swap only, by breaker.pyx.
cdef struct sb_breaker_t:
    uint64_t word
    uint64_t trips            # atomic add
    uint64_t changed_ms       # CLOCK_MONOTONIC of the last change of state
    uint64_t pad[5]

cdef enum brk_state_t:
    BRK_CLOSED = 0
    BRK_OPEN
    BRK_HALF_OPEN
    BRK_STATES

# Word: state 2, failures 10, streak 4, probes 6, successes 6, epoch 4, deadline 32 bits, from the lowest.
cdef inline uint32_t brk_state(uint64_t word) noexcept nogil:
    return word & 3
cdef inline uint32_t brk_failures(uint64_t word) noexcept nogil:
    """In a row."""
    return (word >> 2) & 1023
cdef inline uint32_t brk_streak(uint64_t word) noexcept nogil:
    """Trips in a row; the open time doubles with each after the first."""
    return (word >> 12) & 15
cdef inline uint32_t brk_probes(uint64_t word) noexcept nogil:
    """Tokens taken."""
    return (word >> 16) & 63
cdef inline uint32_t brk_successes(uint64_t word) noexcept nogil:
    return (word >> 22) & 63
cdef inline uint32_t brk_epoch(uint64_t word) noexcept nogil:
    return (word >> 28) & 15
cdef inline uint32_t brk_deadline(uint64_t word) noexcept nogil:
    """OPEN: when probes may begin. HALF_OPEN: when the lease is over. CLOSED: until when a trip continues the streak."""
    return word >> 32

# One entry of the sticky-by-source table; free when expired. sticky.pyx has the protocol by which workers share it.
cdef struct sb_sticky_t:
    uint64_t key              # hash of service and source address, xor a check of the rest
    uint32_t endpoint         # slot
    uint32_t generation       # of the slot when bound
    uint64_t expires_ms       # CLOCK_MONOTONIC

# Counters of one worker for one endpoint.
cdef struct sb_epstat_t:
    uint64_t outcomes[OUT_N]
    uint64_t bytes_up         # to the endpoint
    uint64_t bytes_down
    uint64_t connects         # connections opened
    uint64_t reused           # requests that went over a pooled connection
    uint64_t connect_us_sum
    uint64_t first_us_sum
    uint64_t total_us_sum
    double ewma_us            # peak EWMA of time to first byte; 0: no sample
    uint64_t ewma_at_us       # CLOCK_MONOTONIC of the last sample
    uint32_t open             # open connections
    uint32_t idle
    uint64_t connect_us[HIST_BUCKETS]
    uint64_t first_us[HIST_BUCKETS]
    uint64_t total_us[HIST_BUCKETS]

# Counters of one worker for one listener or one route. status class: 0 none, 1..5.
cdef struct sb_reqstat_t:
    uint64_t requests[6][CAUSE_N]
    uint64_t bytes_in         # from clients
    uint64_t bytes_out
    uint64_t total_us_sum
    uint64_t total_us[HIST_BUCKETS]

# Counters of one worker for one service.
cdef struct sb_svcstat_t:
    uint64_t retries[8]       # by retry_reason
    uint64_t retries_denied   # by the budget
    uint64_t sticky_hits
    uint64_t sticky_new
    uint64_t sticky_broken
    uint64_t panics           # picks made in panic mode
    uint64_t no_endpoint      # picks that found nobody
    uint64_t queue_waits
    uint64_t queue_wait_us
    uint64_t queue_timeouts
    uint64_t queue_full
    double budget             # tokens left
    uint64_t queued           # waiting now

cdef enum retry_reason:
    RETRY_CONNECT = 0
    RETRY_STALE
    RETRY_RESET
    RETRY_TIMEOUT
    RETRY_STATUS
    RETRY_N

# Why a TLS handshake came to nothing.
cdef enum tls_failure:
    TLS_PROTOCOL = 0          # malformed, or anything else
    TLS_VERSION               # no version in common
    TLS_CIPHER                # no cipher in common
    TLS_NAME                  # a name that no certificate is for, where names are strict
    TLS_ALPN                  # no application protocol in common
    TLS_CERTIFICATE           # the peer's certificate is missing or does not verify
    TLS_REFUSED               # the peer refused us
    TLS_CLOSED                # the peer left
    TLS_TIMEOUT
    TLS_PLAIN                 # plain HTTP
    TLS_FAILURES

# TLS handshakes of one worker with clients, or with endpoints; by version: 1.2, 1.3.
cdef struct sb_tls_t:
    uint64_t full[2]
    uint64_t resumed[2]
    uint64_t failures[TLS_FAILURES]

# The head of a worker's slab.
cdef struct sb_worker_t:
    uint32_t pid              # 0: slab free
    uint32_t state            # 0 starting, 1 serving, 2 draining, 3 gone
    uint64_t snapshot         # version in force
    uint64_t turn_ms          # CLOCK_MONOTONIC of the last turn of the loop
    uint64_t accepted
    uint64_t turns
    uint64_t stale_events     # events for a descriptor that had already been closed
    uint32_t clients          # open client connections
    uint32_t clients_active   # with an exchange
    uint32_t upstreams        # open upstream connections
    uint32_t buffers_small    # in use
    uint32_t buffers_large
    uint32_t tunnels          # standing
    uint64_t proxy_us_sum     # time a request spent in the proxy itself
    uint64_t proxy_n
    uint64_t proxy_us[HIST_BUCKETS]
    uint64_t datagrams_in     # from clients
    uint64_t datagrams_out    # to clients
    uint64_t datagrams_dropped    # either way: no session could be made, or the kernel did not take them
    uint64_t log_dropped      # access-log records lost because the file could not take them
    sb_tls_t tls[2]           # with clients, with endpoints

# Where everything is, for one process. `mine` is NULL in the supervisor.
cdef struct sb_t:
    char *base
    uint64_t bytes
    uint32_t workers
    uint32_t endpoints
    uint32_t groups
    uint32_t services
    uint32_t routes
    uint32_t listeners
    uint32_t sticky
    uint32_t me               # this worker's index
    sb_header_t *header
    sb_endpoint_t *endpoint   # [endpoints]
    sb_group_t *group         # [groups]
    sb_breaker_t *breaker     # [endpoints]
    sb_sticky_t *sticky_table # [sticky]
    sb_worker_t *slab[SB_WORKERS_MAX]       # by worker
    int32_t *inflight[SB_WORKERS_MAX]       # by worker, then endpoint
    int32_t *queued[SB_WORKERS_MAX]
    sb_epstat_t *epstat[SB_WORKERS_MAX]
    sb_reqstat_t *routestat[SB_WORKERS_MAX]
    sb_reqstat_t *listenstat[SB_WORKERS_MAX]
    sb_svcstat_t *svcstat[SB_WORKERS_MAX]
    uint32_t *listen_open[SB_WORKERS_MAX]   # by worker, then listener: open client connections
    uint32_t *listen_tunnels[SB_WORKERS_MAX]    # by worker, then listener: tunnels that stand
    int32_t *groupflight[SB_WORKERS_MAX]    # by worker, then group: requests in flight
    sb_epstat_t *base_epstat  # written by the supervisor: what a slot's former owners counted
    sb_reqstat_t *base_routestat
    sb_reqstat_t *base_listenstat
    sb_svcstat_t *base_svcstat

cdef extern from *:
    """
    #define sb_clz(x) __builtin_clzll(x)
    #define sb_load(p) __atomic_load_n((p), __ATOMIC_RELAXED)
    #define sb_store(p, v) __atomic_store_n((p), (v), __ATOMIC_RELAXED)
    #define sb_add(p, v) __atomic_fetch_add((p), (v), __ATOMIC_RELAXED)
    #define sb_cas64(p, e, v) __atomic_compare_exchange_n((unsigned long long *)(p), (unsigned long long *)(e), (v), 0, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED)
    #define sb_fence() __atomic_thread_fence(__ATOMIC_SEQ_CST)
    """
    int sb_clz(uint64_t) noexcept nogil
    uint32_t sb_load "sb_load"(const uint32_t *) noexcept nogil
    uint64_t sb_load64 "sb_load"(const uint64_t *) noexcept nogil
    int32_t sb_loadi "sb_load"(const int32_t *) noexcept nogil
    void sb_store "sb_store"(uint32_t *, uint32_t) noexcept nogil
    void sb_store64 "sb_store"(uint64_t *, uint64_t) noexcept nogil
    void sb_storei "sb_store"(int32_t *, int32_t) noexcept nogil
    uint64_t sb_add "sb_add"(uint64_t *, uint64_t) noexcept nogil
    bint sb_cas64(uint64_t *, uint64_t *, uint64_t) noexcept nogil
    void sb_fence() noexcept nogil

cdef inline uint32_t hist_bucket(uint64_t us) noexcept nogil:
    """Bucket of a time in microseconds: exact below 8, then eight linear steps per power of two."""
    cdef uint32_t octave
    if us < HIST_SUB:
        return <uint32_t>us
    if us >= (<uint64_t>1 << 28):
        return HIST_BUCKETS - 1
    octave = 63 - <uint32_t>sb_clz(us)          # >= 3
    return (octave - 2) * HIST_SUB + <uint32_t>((us >> (octave - 3)) & (HIST_SUB - 1))

cdef int sb_map(sb_t *sb, int fd, uint32_t me) noexcept nogil
"""Map the scoreboard behind fd and fill in the pointers; -1 when it is not one of this layout. `me` >= workers: reader."""
cdef void sb_unmap(sb_t *sb) noexcept nogil

cdef inline int64_t sb_inflight(const sb_t *sb, uint32_t endpoint) noexcept nogil:
    """Requests in flight at an endpoint, over all workers."""
    cdef int64_t total = 0
    cdef uint32_t w
    for w in range(sb.workers):
        total += sb_loadi(&sb.inflight[w][endpoint])
    return total

cdef inline int64_t sb_groupflight(const sb_t *sb, uint32_t group) noexcept nogil:
    """Requests in flight in a version group, over all workers."""
    cdef int64_t total = 0
    cdef uint32_t w
    for w in range(sb.workers):
        total += sb_loadi(&sb.groupflight[w][group])
    return total

cdef inline void sb_changed(sb_t *sb) noexcept nogil:
    """Make what was stored before visible to everyone's next pick."""
    sb_fence()
    sb_add(&sb.header.changes, 1)
