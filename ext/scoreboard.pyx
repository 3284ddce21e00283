"""The scoreboard: where everything is, and what Python may read and write of it."""

from libc.stdint cimport int32_t, uint32_t, uint64_t
from libc.string cimport memset

import os
import time

cdef extern from "sys/mman.h" nogil:
    void *mmap(void *addr, size_t length, int prot, int flags, int fd, long offset)
    int munmap(void *addr, size_t length)
    int PROT_READ, PROT_WRITE, MAP_SHARED
    void *MAP_FAILED

cdef extern from "sys/stat.h" nogil:
    struct stat:
        long st_size
    int fstat(int fd, stat *buf)

# Runtime names of the TypedDicts in the .pyi.
EndpointInfo = EndpointTotals = GroupInfo = RequestTotals = ListenerTotals = ServiceTotals = dict
WorkerInfo = BreakerInfo = TlsTotals = dict
Health = Admin = WorkerState = str

SHARE = SHARE_UNIT
OUTCOMES = ("1xx", "2xx", "3xx", "4xx", "5xx", "connect", "timeout", "reset", "stale", "cancel")
CAUSES = ("none", "client", "proxy", "connect", "upstream", "timeout")
RETRY_REASONS = ("connect", "stale", "reset", "timeout", "status")
HEALTH = ("up", "down")
ADMIN = ("ready", "drain", "maint")
BREAKER = ("closed", "open", "half_open")
TLS_FAILURE_NAMES = (
    "protocol", "version", "cipher", "name", "alpn", "certificate", "refused", "closed", "timeout", "plain",
)
WORKER_STATES = ("starting", "serving", "draining", "gone")

cdef enum:
    EP_WORDS = OUT_N + 7               # leading counters of sb_epstat_t
    HIST_WORDS = 3 * HIST_BUCKETS      # and its histograms
    REQ_WORDS = sizeof(sb_reqstat_t) // 8
    SVC_WORDS = 18                     # counters of sb_svcstat_t, before the budget


cdef inline char *_place(char **at, uint64_t size, uint64_t align) noexcept nogil:
    """The next section: its start, aligned; `at` moves past it."""
    cdef uint64_t start = (<uint64_t>at[0] + align - 1) & ~(align - 1)
    at[0] = <char *>(start + size)
    return <char *>start


cdef void _place_slab(sb_t *sb, char **at, uint32_t w) noexcept nogil:
    cdef uint32_t n = sb.endpoints
    sb.slab[w] = <sb_worker_t *>_place(at, sizeof(sb_worker_t), 4096)
    sb.inflight[w] = <int32_t *>_place(at, <uint64_t>n * sizeof(int32_t), 64)
    sb.queued[w] = <int32_t *>_place(at, <uint64_t>n * sizeof(int32_t), 64)
    sb.groupflight[w] = <int32_t *>_place(at, <uint64_t>sb.groups * sizeof(int32_t), 64)
    sb.listen_open[w] = <uint32_t *>_place(at, <uint64_t>sb.listeners * sizeof(uint32_t), 64)
    sb.listen_tunnels[w] = <uint32_t *>_place(at, <uint64_t>sb.listeners * sizeof(uint32_t), 64)
    _place_stats(sb, at, &sb.epstat[w], &sb.routestat[w], &sb.listenstat[w], &sb.svcstat[w])


cdef void _place_stats(sb_t *sb, char **at, sb_epstat_t **ep, sb_reqstat_t **route, sb_reqstat_t **listen,
                       sb_svcstat_t **svc) noexcept nogil:
    ep[0] = <sb_epstat_t *>_place(at, sb.endpoints * sizeof(sb_epstat_t), 64)
    route[0] = <sb_reqstat_t *>_place(at, sb.routes * sizeof(sb_reqstat_t), 64)
    listen[0] = <sb_reqstat_t *>_place(at, sb.listeners * sizeof(sb_reqstat_t), 64)
    svc[0] = <sb_svcstat_t *>_place(at, sb.services * sizeof(sb_svcstat_t), 64)


cdef uint64_t _place_all(sb_t *sb) noexcept nogil:
    """Fill in the pointers from the counts and `base`; returns the bytes of the whole."""
    cdef char *at = sb.base
    cdef uint32_t w
    sb.header = <sb_header_t *>_place(&at, sizeof(sb_header_t), 4096)
    sb.endpoint = <sb_endpoint_t *>_place(&at, sb.endpoints * sizeof(sb_endpoint_t), 4096)
    sb.group = <sb_group_t *>_place(&at, sb.groups * sizeof(sb_group_t), 64)
    sb.breaker = <sb_breaker_t *>_place(&at, sb.endpoints * sizeof(sb_breaker_t), 64)
    sb.sticky_table = <sb_sticky_t *>_place(&at, sb.sticky * sizeof(sb_sticky_t), 64)
    _place_stats(sb, &at, &sb.base_epstat, &sb.base_routestat, &sb.base_listenstat, &sb.base_svcstat)
    for w in range(sb.workers):
        _place_slab(sb, &at, w)
    _place(&at, 0, 4096)
    return <uint64_t>(at - sb.base)


cdef void _counts(sb_t *sb, const sb_header_t *h) noexcept nogil:
    sb.workers = h.workers
    sb.endpoints = h.endpoints
    sb.groups = h.groups
    sb.services = h.services
    sb.routes = h.routes
    sb.listeners = h.listeners
    sb.sticky = h.sticky


cdef int sb_map(sb_t *sb, int fd, uint32_t me) noexcept nogil:
    cdef stat st
    cdef void *p
    cdef sb_header_t *h
    memset(sb, 0, sizeof(sb_t))
    if fstat(fd, &st) != 0 or st.st_size < <long>sizeof(sb_header_t):
        return -1
    p = mmap(NULL, <size_t>st.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0)
    if p == MAP_FAILED:
        return -1
    h = <sb_header_t *>p
    sb.base = <char *>p
    sb.bytes = <uint64_t>st.st_size
    sb.me = me
    if h.magic == SB_MAGIC and h.layout == SB_LAYOUT and h.workers <= SB_WORKERS_MAX:
        _counts(sb, h)
        if _place_all(sb) == sb.bytes and h.bytes == sb.bytes:
            return 0
    sb_unmap(sb)
    return -1


cdef void sb_unmap(sb_t *sb) noexcept nogil:
    if sb.base != NULL:
        munmap(sb.base, sb.bytes)
    memset(sb, 0, sizeof(sb_t))


cdef void _add(uint64_t *to, const uint64_t *words, uint32_t n) noexcept nogil:
    cdef uint32_t i
    for i in range(n):
        to[i] += sb_load64(&words[i])


cdef void _sub(uint64_t *to, const uint64_t *words, uint32_t n) noexcept nogil:
    cdef uint32_t i
    for i in range(n):
        to[i] -= words[i]


cdef void _sum_endpoint(const sb_t *sb, uint32_t slot, sb_epstat_t *out) noexcept nogil:
    """Sums since the beginning, former owners included."""
    cdef uint32_t w
    cdef sb_epstat_t *s
    memset(out, 0, sizeof(sb_epstat_t))
    for w in range(sb.workers):
        s = &sb.epstat[w][slot]
        _add(&out.outcomes[0], &s.outcomes[0], EP_WORDS)
        _add(&out.connect_us[0], &s.connect_us[0], HIST_WORDS)
        out.open += sb_load(&s.open)
        out.idle += sb_load(&s.idle)


cdef void _sum_request(const sb_t *sb, sb_reqstat_t *const *slabs, uint32_t slot, sb_reqstat_t *out) noexcept nogil:
    cdef uint32_t w
    memset(out, 0, sizeof(sb_reqstat_t))
    for w in range(sb.workers):
        _add(<uint64_t *>out, <const uint64_t *>&slabs[w][slot], REQ_WORDS)


cdef void _sum_service(const sb_t *sb, uint32_t slot, sb_svcstat_t *out) noexcept nogil:
    cdef uint32_t w
    memset(out, 0, sizeof(sb_svcstat_t))
    for w in range(sb.workers):
        _add(<uint64_t *>out, <const uint64_t *>&sb.svcstat[w][slot], SVC_WORDS)
        out.budget += sb.svcstat[w][slot].budget


cdef list _histogram(const uint64_t *buckets):
    return [buckets[i] for i in range(HIST_BUCKETS)]


cdef dict _named(tuple names, const uint64_t *values):
    return {name: values[i] for i, name in enumerate(names)}


cdef dict _request_totals(const sb_reqstat_t *s):
    return {
        "requests": [_named(CAUSES, &s.requests[status][0]) for status in range(6)],
        "bytes_in": s.bytes_in,
        "bytes_out": s.bytes_out,
        "total_us_sum": s.total_us_sum,
        "total_us": _histogram(&s.total_us[0]),
    }


def hist_bounds() -> list:
    cdef uint32_t i
    bounds = [float(i + 1) for i in range(HIST_SUB)]
    for i in range(HIST_SUB, HIST_BUCKETS):
        bounds.append(float((HIST_SUB + i % HIST_SUB + 1) << (i // HIST_SUB - 1)))
    bounds[HIST_BUCKETS - 1] = float("inf")
    return bounds


def _hist_bucket(us: int) -> int:
    return hist_bucket(us)


def _now_ms() -> int:
    return time.monotonic_ns() // 1_000_000


cdef void _sum_words(sb_tls_t *total, sb_tls_t *one) noexcept nogil:
    cdef uint64_t *to = <uint64_t *>total
    cdef uint64_t *words = <uint64_t *>one
    cdef uint32_t i
    for i in range(sizeof(sb_tls_t) // 8):
        to[i] += sb_load64(&words[i])


cdef class Scoreboard:
    cdef sb_t sb
    cdef readonly int fd

    def __cinit__(self):
        self.fd = -1
        memset(&self.sb, 0, sizeof(sb_t))

    def __dealloc__(self):
        sb_unmap(&self.sb)

    @staticmethod
    def create(int workers, *, int endpoints=1024, int groups=512, int services=256, int routes=512, int listeners=32,
               int sticky=65536):
        cdef sb_t plan
        cdef sb_header_t h
        if not 1 <= workers <= SB_WORKERS_MAX:
            raise ValueError(f"workers = {workers}: must be 1 to {SB_WORKERS_MAX}")
        if min(endpoints, groups, services, routes, listeners) < 1:
            raise ValueError("a scoreboard needs at least one slot of each kind")
        if sticky < 8 or sticky & (sticky - 1):
            raise ValueError(f"sticky = {sticky}: must be a power of two, 8 or more")
        memset(&h, 0, sizeof(h))
        h.magic, h.layout = SB_MAGIC, SB_LAYOUT
        h.workers, h.endpoints, h.groups, h.services = workers, endpoints, groups, services
        h.routes, h.listeners, h.sticky = routes, listeners, sticky
        h.started_ms = time.time_ns() // 1_000_000
        memset(&plan, 0, sizeof(plan))
        _counts(&plan, &h)
        plan.base = <char *>4096
        h.bytes = _place_all(&plan)
        fd = os.memfd_create("turnout-scoreboard", os.MFD_CLOEXEC)
        try:
            os.ftruncate(fd, h.bytes)
            os.pwrite(fd, (<char *>&h)[:sizeof(h)], 0)
            return Scoreboard.open(fd)
        except BaseException:
            os.close(fd)
            raise

    @staticmethod
    def open(int fd, int worker=-1):
        cdef Scoreboard board = Scoreboard.__new__(Scoreboard)
        if sb_map(&board.sb, fd, <uint32_t>worker) != 0:
            raise ValueError(f"descriptor {fd} is not a scoreboard of layout {SB_LAYOUT}")
        board.fd = fd
        return board

    def close(self):
        sb_unmap(&self.sb)
        if self.fd >= 0:
            os.close(self.fd)
        self.fd = -1

    # Capacities

    @property
    def workers(self): return self.sb.workers
    @property
    def endpoints(self): return self.sb.endpoints
    @property
    def groups(self): return self.sb.groups
    @property
    def services(self): return self.sb.services
    @property
    def routes(self): return self.sb.routes
    @property
    def listeners(self): return self.sb.listeners
    @property
    def sticky(self): return self.sb.sticky
    @property
    def size(self): return self.sb.bytes

    cdef uint32_t _slot(self, object slot, uint32_t n, str kind) except? 0xFFFFFFFF:
        if self.sb.base == NULL:
            raise ValueError("the scoreboard is closed")
        if not 0 <= slot < n:
            raise IndexError(f"{kind} {slot}: the scoreboard has {n} ({kind} 0 to {n - 1})")
        return slot

    cdef sb_endpoint_t *_endpoint(self, object slot) except NULL:
        return &self.sb.endpoint[self._slot(slot, self.sb.endpoints, "endpoint slot")]

    cdef sb_header_t *_header(self) except NULL:
        if self.sb.base == NULL:
            raise ValueError("the scoreboard is closed")
        return self.sb.header

    # Header

    @property
    def started_ms(self): return self._header().started_ms
    @property
    def snapshot(self): return sb_load64(&self._header().snapshot)
    @property
    def changes(self): return sb_load64(&self._header().changes)

    def set_snapshot(self, uint64_t version):
        sb_store64(&self._header().snapshot, version)

    # Endpoints

    def use_endpoint(self, slot, *, weight=1, health="up", admin="ready", slow_start=True):
        cdef sb_endpoint_t *e = self._endpoint(slot)
        cdef sb_breaker_t *b = &self.sb.breaker[<uint32_t>slot]
        if e.generation & 1:
            raise ValueError(f"endpoint slot {slot} is in use")
        _check_weight(weight)
        health_index = _index(HEALTH, health, "health")
        admin_index = _index(ADMIN, admin, "admin state")
        _sum_endpoint(&self.sb, slot, &self.sb.base_epstat[<uint32_t>slot])
        sb_store64(&b.word, 0)
        sb_store64(&b.trips, 0)
        sb_store64(&b.changed_ms, 0)
        sb_store(&e.health, health_index)
        sb_store(&e.admin, admin_index)
        sb_store(&e.weight, weight)
        sb_store64(&e.slow_start_ms, _now_ms() if slow_start else 0)
        sb_store(&e.generation, e.generation + 1)
        sb_changed(&self.sb)
        return e.generation

    def claim_endpoint(self, *, weight=1, health="up", admin="ready", slow_start=True):
        slot = self._free_slot()
        return slot, self.use_endpoint(slot, weight=weight, health=health, admin=admin, slow_start=slow_start)

    cdef int _free_slot(self) except -1:
        """The unused slot that was given away least often, without requests in flight if there is one."""
        cdef uint32_t i
        cdef int best = -1
        cdef uint32_t generation
        cdef int busy = -1
        self._header()
        for i in range(self.sb.endpoints):
            generation = self.sb.endpoint[i].generation
            if generation & 1:
                continue
            if sb_inflight(&self.sb, i) > 0:
                busy = <int>i
            elif best < 0 or generation < self.sb.endpoint[best].generation:
                best = <int>i
                if generation == 0:
                    break
        if best < 0:
            best = busy
        if best < 0:
            raise ValueError(f"all {self.sb.endpoints} endpoint slots are in use")
        return best

    def release_endpoint(self, slot):
        cdef sb_endpoint_t *e = self._endpoint(slot)
        if not e.generation & 1:
            raise ValueError(f"endpoint slot {slot} is not in use")
        sb_store(&e.generation, e.generation + 1)
        sb_changed(&self.sb)

    def set_health(self, slot, str health, *, bint slow_start=False):
        cdef sb_endpoint_t *e = self._endpoint(slot)
        health_index = _index(HEALTH, health, "health")
        if slow_start:
            sb_store64(&e.slow_start_ms, _now_ms())
        sb_store(&e.health, health_index)
        sb_changed(&self.sb)

    def set_admin(self, slot, str admin):
        cdef sb_endpoint_t *e = self._endpoint(slot)
        sb_store(&e.admin, _index(ADMIN, admin, "admin state"))
        sb_changed(&self.sb)

    def set_weight(self, slot, weight):
        cdef sb_endpoint_t *e = self._endpoint(slot)
        _check_weight(weight)
        sb_store(&e.weight, weight)
        sb_changed(&self.sb)

    def set_slow_start(self, slot, since_ms=None):
        cdef sb_endpoint_t *e = self._endpoint(slot)
        sb_store64(&e.slow_start_ms, _now_ms() if since_ms is None else since_ms)
        sb_changed(&self.sb)

    def endpoint(self, slot):
        cdef sb_endpoint_t *e = self._endpoint(slot)
        generation = sb_load(&e.generation)
        return {
            "slot": int(slot),
            "generation": generation,
            "in_use": bool(generation & 1),
            "health": HEALTH[sb_load(&e.health)],
            "admin": ADMIN[sb_load(&e.admin)],
            "weight": sb_load(&e.weight),
            "slow_start_ms": sb_load64(&e.slow_start_ms),
            "inflight": sb_inflight(&self.sb, slot),
        }

    def endpoint_totals(self, slot):
        cdef sb_epstat_t s
        cdef uint32_t i = self._slot(slot, self.sb.endpoints, "endpoint slot")
        _sum_endpoint(&self.sb, i, &s)
        _sub(&s.outcomes[0], &self.sb.base_epstat[i].outcomes[0], EP_WORDS)
        _sub(&s.connect_us[0], &self.sb.base_epstat[i].connect_us[0], HIST_WORDS)
        estimates = [self.sb.epstat[w][i].ewma_us for w in range(self.sb.workers)]
        sampled = [us for us in estimates if us > 0]
        return {
            "outcomes": _named(OUTCOMES, &s.outcomes[0]),
            "bytes_up": s.bytes_up,
            "bytes_down": s.bytes_down,
            "connects": s.connects,
            "reused": s.reused,
            "connect_us_sum": s.connect_us_sum,
            "first_us_sum": s.first_us_sum,
            "total_us_sum": s.total_us_sum,
            "open": s.open,
            "idle": s.idle,
            "inflight": sb_inflight(&self.sb, i),
            "queued": sum([sb_loadi(&self.sb.queued[w][i]) for w in range(self.sb.workers)]),
            "ewma_us": sum(sampled) / len(sampled) if sampled else 0.0,
            "connect_us": _histogram(&s.connect_us[0]),
            "first_us": _histogram(&s.first_us[0]),
            "total_us": _histogram(&s.total_us[0]),
        }

    # Groups

    def use_group(self, slot, share=0):
        cdef sb_group_t *g = &self.sb.group[self._slot(slot, self.sb.groups, "group slot")]
        if g.generation & 1:
            raise ValueError(f"group slot {slot} is in use")
        sb_store(&g.share, _check_share(share))
        sb_store(&g.generation, g.generation + 1)
        sb_changed(&self.sb)
        return g.generation

    def release_group(self, slot):
        cdef sb_group_t *g = &self.sb.group[self._slot(slot, self.sb.groups, "group slot")]
        if not g.generation & 1:
            raise ValueError(f"group slot {slot} is not in use")
        sb_store(&g.generation, g.generation + 1)
        sb_changed(&self.sb)

    def set_shares(self, shares):
        if sum(shares.values()) not in (0, SHARE_UNIT):
            raise ValueError(f"shares add up to {sum(shares.values())}: must be {SHARE_UNIT} or all 0")
        for slot, share in shares.items():
            self._slot(slot, self.sb.groups, "group slot")
            _check_share(share)
        for slot, share in shares.items():
            sb_store(&self.sb.group[<uint32_t>slot].share, share)
        sb_changed(&self.sb)

    def group(self, slot):
        cdef sb_group_t *g = &self.sb.group[self._slot(slot, self.sb.groups, "group slot")]
        generation = sb_load(&g.generation)
        return {
            "slot": int(slot),
            "generation": generation,
            "in_use": bool(generation & 1),
            "share": sb_load(&g.share),
            "inflight": sb_groupflight(&self.sb, slot),
        }

    # Routes, listeners, services

    def route_totals(self, slot):
        cdef sb_reqstat_t s
        cdef uint32_t i = self._slot(slot, self.sb.routes, "route slot")
        _sum_request(&self.sb, self.sb.routestat, i, &s)
        _sub(<uint64_t *>&s, <uint64_t *>&self.sb.base_routestat[i], REQ_WORDS)
        return _request_totals(&s)

    def listener_totals(self, slot):
        cdef sb_reqstat_t s
        cdef uint32_t i = self._slot(slot, self.sb.listeners, "listener slot")
        _sum_request(&self.sb, self.sb.listenstat, i, &s)
        _sub(<uint64_t *>&s, <uint64_t *>&self.sb.base_listenstat[i], REQ_WORDS)
        totals = _request_totals(&s)
        totals["open"] = sum([sb_load(&self.sb.listen_open[w][i]) for w in range(self.sb.workers)])
        totals["tunnels"] = sum([sb_load(&self.sb.listen_tunnels[w][i]) for w in range(self.sb.workers)])
        return totals

    def service_totals(self, slot):
        cdef sb_svcstat_t s
        cdef uint32_t i = self._slot(slot, self.sb.services, "service slot")
        _sum_service(&self.sb, i, &s)
        _sub(<uint64_t *>&s, <uint64_t *>&self.sb.base_svcstat[i], SVC_WORDS)
        return {
            "retries": _named(RETRY_REASONS, &s.retries[0]),
            "retries_denied": s.retries_denied,
            "sticky_hits": s.sticky_hits,
            "sticky_new": s.sticky_new,
            "sticky_broken": s.sticky_broken,
            "panics": s.panics,
            "no_endpoint": s.no_endpoint,
            "queue_waits": s.queue_waits,
            "queue_wait_us": s.queue_wait_us,
            "queue_timeouts": s.queue_timeouts,
            "queue_full": s.queue_full,
            "queued": sum([self.sb.svcstat[w][i].queued for w in range(self.sb.workers)]),
            "budget": s.budget,
        }

    def renew_route(self, slot):
        cdef uint32_t i = self._slot(slot, self.sb.routes, "route slot")
        _sum_request(&self.sb, self.sb.routestat, i, &self.sb.base_routestat[i])

    def renew_listener(self, slot):
        cdef uint32_t i = self._slot(slot, self.sb.listeners, "listener slot")
        _sum_request(&self.sb, self.sb.listenstat, i, &self.sb.base_listenstat[i])

    def renew_service(self, slot):
        cdef uint32_t i = self._slot(slot, self.sb.services, "service slot")
        _sum_service(&self.sb, i, &self.sb.base_svcstat[i])

    # Workers

    def attach(self, worker, uint32_t pid):
        cdef sb_worker_t *s = self.sb.slab[self._slot(worker, self.sb.workers, "worker")]
        sb_store(&s.state, 0)
        sb_store64(&s.snapshot, 0)
        sb_store(&s.pid, pid)

    def set_worker_state(self, worker, str state):
        cdef sb_worker_t *s = self.sb.slab[self._slot(worker, self.sb.workers, "worker")]
        sb_store(&s.state, _index(WORKER_STATES, state, "worker state"))

    def settle(self, worker):
        cdef uint32_t w = self._slot(worker, self.sb.workers, "worker")
        cdef sb_worker_t *s = self.sb.slab[w]
        cdef uint32_t i
        memset(self.sb.inflight[w], 0, self.sb.endpoints * sizeof(int32_t))
        memset(self.sb.queued[w], 0, self.sb.endpoints * sizeof(int32_t))
        memset(self.sb.groupflight[w], 0, self.sb.groups * sizeof(int32_t))
        memset(self.sb.listen_open[w], 0, self.sb.listeners * sizeof(uint32_t))
        memset(self.sb.listen_tunnels[w], 0, self.sb.listeners * sizeof(uint32_t))
        for i in range(self.sb.endpoints):
            if self.sb.endpoint[i].generation != 0:
                self.sb.epstat[w][i].open = 0
                self.sb.epstat[w][i].idle = 0
        for i in range(self.sb.services):
            if self.sb.svcstat[w][i].queued:
                self.sb.svcstat[w][i].queued = 0
        s.clients = s.clients_active = s.upstreams = s.tunnels = s.buffers_small = s.buffers_large = 0
        sb_store(&s.state, 3)
        sb_store(&s.pid, 0)

    def worker(self, worker):
        cdef sb_worker_t *s = self.sb.slab[self._slot(worker, self.sb.workers, "worker")]
        return {
            "worker": int(worker),
            "pid": sb_load(&s.pid),
            "state": WORKER_STATES[sb_load(&s.state)],
            "snapshot": sb_load64(&s.snapshot),
            "turn_ms": sb_load64(&s.turn_ms),
            "accepted": sb_load64(&s.accepted),
            "turns": sb_load64(&s.turns),
            "stale_events": sb_load64(&s.stale_events),
            "clients": sb_load(&s.clients),
            "clients_active": sb_load(&s.clients_active),
            "upstreams": sb_load(&s.upstreams),
            "tunnels": sb_load(&s.tunnels),
            "buffers_small": sb_load(&s.buffers_small),
            "buffers_large": sb_load(&s.buffers_large),
            "proxy_us_sum": sb_load64(&s.proxy_us_sum),
            "proxy_n": sb_load64(&s.proxy_n),
            "proxy_us": _histogram(&s.proxy_us[0]),
            "datagrams_in": sb_load64(&s.datagrams_in), "datagrams_out": sb_load64(&s.datagrams_out),
            "datagrams_dropped": sb_load64(&s.datagrams_dropped),
            "log_dropped": sb_load64(&s.log_dropped),
        }

    def tls_totals(self):
        return {"client": self._tls(0), "endpoint": self._tls(1)}

    cdef object _tls(self, int side):
        cdef sb_tls_t sum_
        cdef uint32_t w
        memset(&sum_, 0, sizeof(sum_))
        self._header()
        for w in range(self.sb.workers):
            _sum_words(&sum_, &self.sb.slab[w].tls[side])
        return {
            "full": {"1.2": sum_.full[0], "1.3": sum_.full[1]},
            "resumed": {"1.2": sum_.resumed[0], "1.3": sum_.resumed[1]},
            "failures": {name: sum_.failures[i] for i, name in enumerate(TLS_FAILURE_NAMES)},
        }

    # Breakers

    def breaker(self, slot):
        cdef sb_breaker_t *b = &self.sb.breaker[self._slot(slot, self.sb.endpoints, "endpoint slot")]
        cdef uint64_t word = sb_load64(&b.word)
        return {
            "state": BREAKER[brk_state(word)],
            "failures": brk_failures(word),
            "streak": brk_streak(word),
            "probes": brk_probes(word),
            "successes": brk_successes(word),
            "trips": sb_load64(&b.trips),
            "changed_ms": sb_load64(&b.changed_ms),
        }


def _index(names, name, kind):
    if name not in names:
        raise ValueError(f"{kind} {name!r}: must be one of {', '.join(names)}")
    return names.index(name)


def _check_weight(weight):
    if not 0 <= weight <= 65535:
        raise ValueError(f"weight = {weight}: must be 0 to 65535")


def _check_share(share):
    if not 0 <= share <= SHARE_UNIT:
        raise ValueError(f"share = {share}: must be 0 to {SHARE_UNIT} (millionths)")
    return share
