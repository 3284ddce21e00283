"""A snapshot: configuration and endpoint table, frozen into C structs that name things by index.

Built by `Snapshot`, the owner, from the document that proxy/freeze.py writes, or from another snapshot and what has
changed since (snapshot.pyi has the shape of both). It is put together from a Frame (listeners, routes, ticket keys) and one
Block for each service with its endpoints. What has not changed is shared with the snapshot before: the same service_t at
the same address says that nothing of the service has changed. Everything is freed when the last Python object that holds
it dies. The engine therefore keeps the Snapshot for as long as it is in force or `refs` is above 0. `refs` counts exchanges
that still use it and is the only field that changes after it is built; only the worker's own thread touches it.
Everything that must survive a change of snapshot (credits, rings, pools, queues) is kept elsewhere under the slot
numbers of the scoreboard, which stay with their endpoint, group, service, route and listener for as long as it lives.
"""

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from turnout.ext.arena cimport arena_t
from turnout.ext.openssl cimport SSL_CTX

cdef struct text_t:
    const char *p
    uint32_t n

cdef enum edit_kind:
    EDIT_SET = 0              # replace or add
    EDIT_REMOVE

cdef struct edit_t:
    text_t name               # as configured
    text_t lower              # the same in lower case
    text_t value
    uint8_t kind              # edit_kind
    uint8_t id                # header_id of the name

cdef struct edits_t:
    edit_t *items
    uint32_t n

cdef struct cidr_t:
    uint8_t address[16]       # IPv4 as ::ffff:a.b.c.d
    uint32_t bits             # of the 128

cdef enum:
    NEVER_MS = 0xffffffff

cdef enum listener_protocol:
    LISTEN_HTTP = 0
    LISTEN_TCP
    LISTEN_UDP

cdef enum forwarded_mode:
    FWD_X = 1                 # X-Forwarded-For, -Proto, -Host
    FWD_RFC7239 = 2           # Forwarded

cdef struct tls_name_t:
    text_t name               # lower case; ".example.com" for *.example.com
    uint64_t hash
    SSL_CTX *ctx              # NULL: a free place

cdef struct listener_tls_t:
    SSL_CTX *ctx              # of the first certificate
    tls_name_t *names         # open addressing over mask + 1 places, one at least free
    uint32_t mask
    uint8_t strict            # 1: a handshake without a known name is refused
    text_t client_header      # the request field that carries the client certificate's subject; empty: none

cdef enum:
    TICKET_KEYS = 3           # the current one and two before it

cdef struct ticket_key_t:
    uint8_t name[16]
    uint8_t mac[32]
    uint8_t cipher[32]

cdef struct tickets_t:
    uint32_t n
    ticket_key_t keys[TICKET_KEYS]

cdef struct listener_t:
    uint32_t slot             # in the scoreboard
    text_t name
    uint32_t header_ms        # whole request head, from its first byte or from accept
    uint32_t body_idle_ms
    uint32_t body_rate        # bytes/s a request body must keep up with on average; 0: none
    uint32_t keepalive_ms
    uint32_t keepalive_requests   # per connection; 0: no bound
    uint32_t half_close_ms    # a client that shut its writing side and has no answer yet is kept this long;
                              # 0: cancelled at once, NEVER_MS: kept
    uint32_t line_max
    uint32_t head_max
    uint32_t fields_max
    uint64_t body_max         # bytes; 0: no bound. Past it 413
    uint32_t connections      # over all workers; 0: no bound
    uint8_t forwarded         # forwarded_mode bits
    uint8_t protocol          # listener_protocol
    uint8_t proxied           # trusted peers start with a PROXY header
    uint8_t sessions          # UDP: datagrams of one client stay together; 0: each is on its own
    uint32_t responses        # UDP: a session ends after so many answers; 0: no bound
    uint8_t names             # TCP: some of its routes name hosts, so the server name has to be read
    uint16_t port             # of the listening socket, for redirects
    listener_tls_t *tls       # NULL: plain
    text_t hsts               # value of Strict-Transport-Security; empty: none
    cidr_t *trusted           # whose X-Forwarded-* and Forwarded are kept
    uint32_t n_trusted

cdef enum strategy:
    BAL_ROUND_ROBIN = 0
    BAL_LEAST_CONNECTIONS
    BAL_WEIGHTED_ROUND_ROBIN
    BAL_IP_HASH
    BAL_RANDOM
    BAL_LEAST_RESPONSE_TIME
    BAL_CONSISTENT_HASH
    BAL_N

cdef enum key_source:
    KEY_SOURCE_IP = 0
    KEY_HEADER
    KEY_COOKIE
    KEY_QUERY                 # one parameter
    KEY_PATH

cdef enum breaker_counts:     # which outcomes are failures
    BRK_ON_CONNECT = 1
    BRK_ON_TIMEOUT = 2
    BRK_ON_RESET = 4
    BRK_ON_5XX = 8            # any 5xx; else see statuses

cdef struct breaker_conf_t:
    uint32_t failures         # consecutive; 0: no breaker
    uint32_t open_ms
    uint32_t open_max_ms      # cap of the growth with repeated trips
    uint32_t jitter_pct       # of the open time, added at random
    uint32_t probes           # half-open requests at a time, over all workers
    uint32_t successes        # that close it
    uint32_t on               # breaker_counts bits
    uint64_t statuses[8]      # bit s of the 512 (status - 100): counts as failure
    uint8_t last              # 1: may trip the last eligible endpoint

cdef struct sticky_conf_t:
    uint8_t kind              # 0 none, 1 cookie, 2 source address
    uint8_t sliding           # 1: every answer renews the ttl
    uint8_t secure
    uint8_t http_only
    uint8_t same_site         # 0 unset, 1 Lax, 2 Strict, 3 None
    text_t name               # cookie's name
    text_t path
    text_t domain
    uint32_t ttl_s
    uint64_t key[2]           # signing key

cdef enum retry_on:
    RETRY_ON_CONNECT = 1      # nothing was sent
    RETRY_ON_STALE = 2        # reused connection closed before the first response byte
    RETRY_ON_RESET = 4
    RETRY_ON_TIMEOUT = 8
    RETRY_ON_STATUS = 16      # see statuses

cdef struct retry_conf_t:
    uint32_t attempts         # further tries after the first
    uint32_t on               # retry_on bits
    uint32_t methods          # bit method_id: may be repeated after bytes may have been processed
    double budget             # tokens earned per request
    double floor_per_s        # tokens earned per second whatever the load
    uint64_t statuses[8]      # as breaker_conf_t.statuses

cdef enum host_mode:
    HOST_PRESERVE = 0
    HOST_ENDPOINT             # the endpoint's address
    HOST_LITERAL

cdef struct member_t:
    uint32_t slot             # endpoint slot in the scoreboard
    uint32_t generation
    uint32_t weight           # as configured; the scoreboard's weight is the one in force
    uint32_t priority
    uint64_t identity         # MurmurHash3 of "service/address": stable over restarts; ring points and sticky use it
    uint32_t service          # slot
    uint32_t group            # index inside the service
    text_t name               # "10.0.0.1:8000"
    text_t version
    const void *address       # struct sockaddr
    uint32_t address_len
    uint8_t tls               # 1: over TLS
    SSL_CTX *ctx              # NULL: plain
    text_t tls_name           # what it is asked for and must prove to be; NUL-terminated
    uint8_t tls_ip            # 1: tls_name is an address

cdef struct group_t:
    uint32_t slot
    text_t version
    uint32_t share            # as configured, of SHARE_UNIT; the scoreboard's is the one in force
    uint32_t n
    uint32_t *members         # places in service_t.members, in the order of the file

cdef struct service_t:
    uint32_t slot
    text_t name
    uint8_t strategy
    uint8_t key_source
    uint8_t host_mode
    uint8_t split             # 1: shares decide between groups; 0: one group with all endpoints
    uint8_t proxy_version     # of the PROXY header that its endpoints get; 0: none
    text_t key_name           # header (lower case), cookie or query parameter
    text_t host               # HOST_LITERAL
    uint32_t load_pct         # bounded load, per cent of the mean (125 = 1.25); 0: off
    uint32_t slow_start_ms    # 0: off
    uint32_t panic_pct        # fewer eligible than this share: ignore health and breakers; 0: never
    uint32_t connections      # in flight per endpoint, over all workers; 0: no bound
    uint32_t queue            # waiting per service and worker; 0: none
    uint32_t queue_ms         # longest wait
    uint32_t connect_ms
    uint32_t response_ms      # until the response head is there
    uint32_t idle_ms          # between bytes of the response
    uint32_t tunnel_ms        # between bytes of a tunnel, either way
    uint32_t session_ms       # between datagrams of a UDP session, either way
    uint32_t tunnel_drain_ms  # a tunnel that has to go is closed at a moment within this
    uint32_t pool_idle_ms     # keep-alive of an idle upstream connection
    uint32_t pool_max         # idle connections per endpoint and worker
    uint32_t pool_requests    # per upstream connection; 0: no bound
    breaker_conf_t breaker
    sticky_conf_t sticky
    retry_conf_t retry
    uint32_t n_groups
    group_t *groups           # a group may be empty
    uint32_t n_members        # may be 0
    member_t *members         # all of them, in the order of the file

cdef enum route_action:
    ROUTE_SERVICE = 0
    ROUTE_RESPOND
    ROUTE_REDIRECT

cdef struct route_t:
    uint32_t slot
    text_t name
    uint8_t action
    uint8_t rewrite           # 1: the matched prefix is replaced by prefix_to
    uint16_t status           # RESPOND, REDIRECT
    uint32_t service          # ROUTE_SERVICE: index into snapshot_t.services
    text_t prefix             # path prefix in its canonical form: percent-decoded; cut it with router.pxd's route_cut
    text_t prefix_to
    text_t body               # RESPOND
    text_t content_type
    text_t location           # REDIRECT: template with {scheme} {host} {path} {query}
    text_t upgrades           # protocols that may be upgraded to, lower case, a comma before and behind each
    edits_t request
    edits_t response
    uint32_t log_per_million  # share of ordinary requests that are logged
    uint32_t slow_ms          # always logged past it; 0: never for slowness
    uint8_t log_errors

cdef struct snapshot_t:
    uint64_t version
    uint32_t refs
    uint32_t n_listeners
    uint32_t n_services
    uint32_t n_routes
    uint32_t listener_slots   # highest scoreboard slot used, plus one; likewise below
    uint32_t service_slots
    uint32_t group_slots
    uint32_t endpoint_slots
    uint32_t route_slots
    listener_t *listeners
    const service_t **services
    route_t *routes
    tickets_t tickets
    void *router              # router_t of router.pyx

cdef class Frame:
    """Listeners, routes and ticket keys: what services have no part in."""
    cdef snapshot_t part      # these fields alone
    cdef uint32_t needs       # services that routes lead to: the highest index, plus one
    cdef arena_t arena
    cdef list contexts        # Context objects whose SSL_CTX stand in it

cdef class Block:
    """A service with its endpoints."""
    cdef service_t *ptr
    cdef arena_t arena
    cdef object context       # Context of its endpoints; None: plain

cdef class Snapshot:
    cdef snapshot_t *ptr
    cdef readonly uint64_t version
    cdef Frame frame
    cdef dict blocks          # slot -> Block, in the order of the file

cdef inline const service_t *route_service(const snapshot_t *s, const route_t *r) noexcept nogil:
    """NULL: the route does not lead to one."""
    return s.services[r.service] if r.action == ROUTE_SERVICE else NULL

cdef inline listener_t *snapshot_listener(snapshot_t *s, uint32_t slot) noexcept nogil:
    """The listener with this scoreboard slot; NULL when the snapshot has none."""
    cdef uint32_t i
    for i in range(s.n_listeners):
        if s.listeners[i].slot == slot:
            return &s.listeners[i]
    return NULL
