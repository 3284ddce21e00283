"""The engine of one worker: one epoll set, one thread, no GIL while traffic flows.

`turn` is called by the event loop of the worker when the epoll descriptor is readable. It stays inside as long as traffic
keeps coming, so that under load a request costs no Python at all, and gives control back when a watched descriptor
is readable, when a signal arrives, when nothing has come for LINGER_MS, or after STAY_MS in any case.
"""

import os

from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memset
from turnout.ext.buffers cimport BUF_LARGE, BUF_PIPE, BUF_SMALL, pool_close, pool_init
from turnout.ext.conn cimport conn_close, conn_deadline, conn_edges, conn_new, conn_next_ready, conn_of_event
from turnout.ext.core cimport (
    CF_BLOCKED, CF_DATAGRAM, CF_DEAD, CF_PEER_SHUT, CF_READABLE, CF_WATCHED, CONN_CLIENT, CONN_LISTENER, CONN_TICK, CONN_UPSTREAM, CONN_WAKE,
    CS_EXCHANGE, CS_LINGER, CS_IDLE, SCRATCH_BYTES, SLAB_CONNS, conn_t, core_t, endpoint_t, exch_t, log_t, service_state_t,
)
from turnout.ext.datagram cimport datagram_deaf, datagram_event, datagram_flush, datagram_linger, datagram_listen, datagrams_free
from turnout.ext.endpoint cimport endpoint_close, endpoint_free, endpoints_adopt
from turnout.ext.exchange cimport client_cut, client_event, client_timeout
from turnout.ext.kernel cimport (
    CLOCK_MONOTONIC, CLOCK_REALTIME, EINTR, EPOLL_CLOEXEC, EPOLL_CTL_ADD, EPOLL_CTL_DEL, EPOLLERR, EPOLLHUP, EPOLLIN,
    EPOLLOUT, EPOLLRDHUP, IPPROTO_TCP, TCP_DEFER_ACCEPT, TCP_NODELAY, TFD_CLOEXEC, TFD_NONBLOCK, TFD_TIMER_ABSTIME, clock_gettime,
    clock_us, close, epoll_create1, epoll_ctl, epoll_event, epoll_wait, errno, getrandom, itimerspec, read, setsockopt,
    timerfd_create, timerfd_settime, timespec,
)
from turnout.ext.listener cimport listener_event, listener_full, listener_pause, listener_resume
from turnout.ext.logline cimport log_flush
from turnout.ext.scoreboard cimport sb_map, sb_store64, sb_unmap
from turnout.ext.select cimport select_adopt, selector_free, selector_new
from turnout.ext.snapshot cimport LISTEN_UDP, listener_t, Snapshot, snapshot_listener, snapshot_t
from turnout.ext.timers cimport TICK_MS, timer_node_t, wheel_advance, wheel_init
from turnout.ext.tunnel cimport tunnels_adopt, tunnels_retire
from turnout.ext.upstream cimport queue_wake, upstream_event, upstream_timeout

cdef enum:
    EVENTS = 512
    LINGER_MS = 4             # wait for more traffic before going back to Python
    STAY_MS = 50              # the longest stay away from Python's own timers
    LOG_BYTES = 65536
    LOG_FLUSH_MS = 1000
    DRAIN_IDLE_MS = 1000      # an idle connection is told nothing: it gets this long to use or close itself

cdef epoll_event events[EVENTS]
cdef conn_t shape               # only to know where the timer stands in a connection


cdef inline conn_t *conn_of(timer_node_t *node) noexcept nogil:
    return <conn_t *>(<char *>node - (<char *>&shape.timer - <char *>&shape))


# ---- one turn ---------------------------------------------------------------------------------------------------

cdef void read_clock(core_t *core) noexcept nogil:
    cdef timespec wall
    core.now_us = clock_us()
    core.now_ms = core.now_us // 1000
    clock_gettime(CLOCK_REALTIME, &wall)
    core.wall_ms = <uint64_t>wall.tv_sec * 1000 + <uint64_t>wall.tv_nsec // 1000000


cdef inline void note(core_t *core, const epoll_event *event) noexcept nogil:
    """Flags of all before anybody acts: a request must not go over a pooled connection whose own event, further down the
    list, says that bytes which nobody asked for wait in it."""
    cdef conn_t *c = conn_of_event(core, event.data.u64)
    if c != NULL and (c.kind == CONN_CLIENT or c.kind == CONN_UPSTREAM):
        conn_edges(c, event.events)


cdef void dispatch(core_t *core, epoll_event *event) noexcept nogil:
    cdef conn_t *c = conn_of_event(core, event.data.u64)
    if c == NULL:
        return
    if c.kind == CONN_CLIENT:
        client_event(core, c)
    elif c.kind == CONN_UPSTREAM:
        upstream_event(core, c)
    elif c.kind == CONN_LISTENER and c.flags & CF_DATAGRAM:
        datagram_event(core, c)
    elif c.kind == CONN_LISTENER:
        listener_event(core, c)
    elif c.kind == CONN_TICK:
        tick(core, c)
    else:
        core.attention = 1


cdef void run_ready(core_t *core) noexcept nogil:
    """Those that stand in the run queue now. Whoever comes in meanwhile waits until the descriptors were looked at."""
    cdef uint32_t left = core.n_ready
    cdef conn_t *c
    while left:
        c = conn_next_ready(core)
        if c == NULL:
            return
        left -= 1
        if c.kind == CONN_CLIENT:
            client_event(core, c)
        elif c.kind == CONN_UPSTREAM and c.x != NULL:
            upstream_event(core, c)


cdef void fire(void *context, timer_node_t *node) noexcept nogil:
    cdef core_t *core = <core_t *>context
    cdef conn_t *c = conn_of(node)
    if c.kind == CONN_CLIENT:
        client_timeout(core, c)
    elif c.kind == CONN_UPSTREAM:
        upstream_timeout(core, c)


cdef void tick(core_t *core, conn_t *c) noexcept nogil:
    """The timerfd has fired: the wheel turns after the events of this round."""
    cdef uint64_t times
    read(c.fd, &times, sizeof(times))
    core.tick_armed_ms = 0


cdef void poll_queues(core_t *core) noexcept nogil:
    """Room that another worker's release made is found by looking."""
    cdef uint32_t i
    for i in range(core.sb.services):
        if core.services[i].n_queued:
            queue_wake(core, i)


cdef bint any_queued(core_t *core) noexcept nogil:
    cdef uint32_t i
    for i in range(core.sb.services):
        if core.services[i].n_queued:
            return True
    return False


cdef void arm_tick(core_t *core) noexcept nogil:
    """Keep the timerfd running while anything waits for time to pass: every tick while requests queue, else coarser.
    What is left in the run queue makes the engine's descriptor readable at once."""
    cdef itimerspec when
    cdef uint64_t due = core.now_ms + (0 if core.ready != NULL else TICK_MS if any_queued(core) else 100)
    if core.tick_armed_ms and core.tick_armed_ms <= due:
        return
    if core.wheel.armed == 0 and core.log.n == 0 and not core.starved and core.ready == NULL:
        return
    memset(&when, 0, sizeof(when))
    when.it_value.tv_sec = <long>(due // 1000)
    when.it_value.tv_nsec = <long>(due % 1000 * 1000000)
    timerfd_settime(core.tickfd, TFD_TIMER_ABSTIME, &when, NULL)
    core.tick_armed_ms = due


cdef class Engine:
    cdef core_t core
    cdef uint32_t turns
    cdef uint64_t advanced_ms
    cdef uint64_t flushed_ms
    cdef bint opened
    cdef dict listeners          # fd -> conn index
    cdef dict wakes              # fd -> conn index
    cdef list snapshots          # Snapshot objects still in use, the current one last

    def __cinit__(self, int scoreboard_fd, int worker, *, uint64_t large_bytes=134217728):
        self.listeners = {}
        self.wakes = {}
        self.snapshots = []
        memset(&self.core, 0, sizeof(core_t))
        self.core.epfd = -1
        self.core.tickfd = -1
        self.core.log.fd = -1
        if sb_map(&self.core.sb, scoreboard_fd, <uint32_t>worker) < 0:
            raise ValueError(f"descriptor {scoreboard_fd} is not a scoreboard of this layout")
        if worker < 0 or <uint32_t>worker >= self.core.sb.workers:
            raise ValueError(f"worker {worker} has no slab in a scoreboard of {self.core.sb.workers}")
        self.opened = True
        pool_init(&self.core.buffers, large_bytes)
        read_clock(&self.core)
        wheel_init(&self.core.wheel, self.core.now_ms)
        self.advanced_ms = self.core.now_ms
        self._allocate()
        self._open_descriptors()

    cdef int _allocate(self) except -1:
        cdef core_t *core = &self.core
        getrandom(&core.random, sizeof(core.random), 0)
        core.selector = selector_new(&core.sb, core.random)
        core.endpoints = <endpoint_t **>calloc(core.sb.endpoints, sizeof(endpoint_t *))
        core.services = <service_state_t *>calloc(core.sb.services, sizeof(service_state_t))
        core.retired = <uint8_t *>calloc(core.sb.listeners, 1)
        core.scratch = <char *>malloc(SCRATCH_BYTES)
        core.log.data = <char *>malloc(LOG_BYTES)
        core.log.cap = LOG_BYTES
        if (core.selector == NULL or core.endpoints == NULL or core.services == NULL or core.retired == NULL
                or core.scratch == NULL or core.log.data == NULL):
            raise MemoryError
        return 0

    cdef int _open_descriptors(self) except -1:
        cdef core_t *core = &self.core
        core.epfd = epoll_create1(EPOLL_CLOEXEC)
        core.tickfd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC)
        if core.epfd < 0 or core.tickfd < 0:
            raise OSError(errno, "cannot open the engine's epoll set and timer")
        self._add(core.tickfd, CONN_TICK)
        return 0

    cdef conn_t *_at(self, index):
        cdef uint32_t i = index
        return &self.core.slab[i // SLAB_CONNS][i % SLAB_CONNS]

    cdef object _add(self, int fd, int kind):
        """Put a level-triggered descriptor into the set; its place in the slab."""
        cdef conn_t *c = conn_new(&self.core, fd, kind)
        if c == NULL:
            raise MemoryError
        if kind == CONN_LISTENER:
            listener_resume(&self.core, c)
        elif not self._watch_level(c):
            raise OSError(errno, f"cannot watch descriptor {fd}")
        return c.index

    cdef bint _watch_level(self, conn_t *c):
        cdef epoll_event event
        event.events = <uint32_t>EPOLLIN
        event.data.u64 = (<uint64_t>c.generation << 32) | c.index
        return epoll_ctl(self.core.epfd, EPOLL_CTL_ADD, c.fd, &event) == 0

    def fileno(self):
        return self.core.epfd

    def turn(self):
        with nogil:
            self._run()
        self._forget_snapshots()

    cdef void _run(self) noexcept nogil:
        cdef core_t *core = &self.core
        cdef int n, i, wait = 0
        cdef uint64_t start_ms
        read_clock(core)
        start_ms = core.now_ms
        core.attention = 0
        while True:
            n = epoll_wait(core.epfd, events, EVENTS, wait)
            if n < 0 and errno == EINTR:
                core.attention = 1
            read_clock(core)
            for i in range(n):
                note(core, &events[i])
            for i in range(n):
                dispatch(core, &events[i])
            run_ready(core)
            self._time()
            datagram_flush(core)
            if core.attention or n <= 0 or core.now_ms - start_ms >= STAY_MS:
                break
            wait = 0 if core.ready != NULL else LINGER_MS
        core.sb.slab[core.sb.me].turns += 1
        sb_store64(&core.sb.slab[core.sb.me].turn_ms, core.now_ms)
        arm_tick(core)

    cdef void _time(self) noexcept nogil:
        cdef core_t *core = &self.core
        if core.now_ms - self.advanced_ms < TICK_MS:
            return
        self.advanced_ms = core.now_ms
        wheel_advance(&core.wheel, core.now_ms, fire, core)
        poll_queues(core)
        core.sb.slab[core.sb.me].buffers_small = core.buffers.n_used[BUF_SMALL]
        core.sb.slab[core.sb.me].buffers_large = core.buffers.n_used[BUF_LARGE] + core.buffers.n_used[BUF_PIPE]
        if core.starved and not core.draining:
            resume_listeners(core)
        if core.log.n and core.now_ms - self.flushed_ms >= LOG_FLUSH_MS:
            self.flushed_ms = core.now_ms
            log_flush(core)
        run_ready(core)

    def watch(self, int fd):
        self.wakes[fd] = self._add(fd, CONN_WAKE)

    def unwatch(self, int fd):
        self._detach(self._at(self.wakes.pop(fd)))

    cdef int _detach(self, conn_t *c) except -1:
        """Forget a descriptor that stays the caller's."""
        epoll_ctl(self.core.epfd, EPOLL_CTL_DEL, c.fd, NULL)
        c.fd = -1
        conn_close(&self.core, c)
        return 0

    def listen(self, uint32_t slot, int fd):
        cdef conn_t *c
        cdef const listener_t *conf
        cdef int one = 1
        if self.core.snapshot == NULL:
            raise RuntimeError("listen before the first snapshot")
        if slot >= self.core.sb.listeners:
            raise IndexError(f"listener slot {slot}")
        if fd in self.listeners:
            raise ValueError(f"descriptor {fd} is open for listener {self._at(self.listeners[fd]).listener}")
        os.set_blocking(fd, False)
        # Inherited by what is accepted; a unix socket refuses it and needs none.
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one))
        self.listeners[fd] = self._add(fd, CONN_LISTENER)
        self.core.retired[slot] = 0
        c = self._at(self.listeners[fd])
        c.listener = <uint16_t>slot
        conf = snapshot_listener(self.core.snapshot, slot)
        self._await_hello(c)
        if conf != NULL and conf.protocol == LISTEN_UDP and datagram_listen(&self.core, c) < 0:
            self._unlisten(self._at(self.listeners.pop(fd)))
            raise MemoryError

    cdef void _await_hello(self, conn_t *l) noexcept:
        """A TLS client speaks first: the kernel hands a connection over with its first bytes, or after a second without
        any, which saves a wake-up for nothing. A unix socket knows nothing of it."""
        cdef const listener_t *conf = snapshot_listener(self.core.snapshot, l.listener)
        cdef int seconds = 1 if conf != NULL and conf.tls != NULL else 0
        setsockopt(l.fd, IPPROTO_TCP, TCP_DEFER_ACCEPT, &seconds, sizeof(seconds))

    def unlisten(self, uint32_t slot, int fd=-1, *, bint last=False):
        for own in [fd] if fd >= 0 else [f for f in self.listeners if self._at(self.listeners[f]).listener == slot]:
            self._unlisten(self._at(self.listeners.pop(own)), last)

    cdef int _unlisten_all(self) except -1:
        for fd in list(self.listeners):
            self._unlisten(self._at(self.listeners.pop(fd)))
        return 0

    cdef int _unlisten(self, conn_t *c, bint last=False) except -1:
        if c.flags & CF_DATAGRAM and last:
            datagram_linger(&self.core, c)
            return 0
        if c.flags & CF_DATAGRAM:
            datagram_deaf(&self.core, c)
            return 0
        if c.flags & CF_WATCHED:
            epoll_ctl(self.core.epfd, EPOLL_CTL_DEL, c.fd, NULL)
        conn_close(&self.core, c)
        return 0

    def retire(self, uint32_t slot):
        if slot >= self.core.sb.listeners:
            raise IndexError(f"listener slot {slot}")
        self.core.retired[slot] = 1
        read_clock(&self.core)
        drain_idle(&self.core, slot)
        tunnels_retire(&self.core, slot)
        arm_tick(&self.core)

    def load(self, Snapshot snapshot not None):
        cdef core_t *core = &self.core
        check_slots(core, snapshot.ptr)
        read_clock(core)
        if select_adopt(core.selector, snapshot.ptr, core.now_ms) < 0:
            raise MemoryError("no memory for the balancing state of this snapshot")
        core.snapshot = snapshot.ptr
        self.snapshots.append(snapshot)
        for index in self.listeners.values():
            self._await_hello(self._at(index))
        with nogil:
            endpoints_adopt(core, snapshot.ptr)
            tunnels_adopt(core, snapshot.ptr)
            poll_queues(core)
            run_ready(core)
            arm_tick(core)
        sb_store64(&core.sb.slab[core.sb.me].snapshot, snapshot.version)
        self._forget_snapshots()
        return snapshot.version

    cdef int _forget_snapshots(self) except -1:
        """Snapshots that no exchange holds any more, but for the current one."""
        if len(self.snapshots) > 1:
            self.snapshots = [s for s in self.snapshots if (<Snapshot>s).ptr.refs or (<Snapshot>s).ptr == self.core.snapshot]
        return 0

    def log_to(self, int fd):
        log_flush(&self.core)
        if self.core.log.fd >= 0:
            close(self.core.log.fd)
        self.core.log.fd = fd

    def flush(self):
        log_flush(&self.core)

    def drain(self):
        self._unlisten_all()
        self.core.draining = 1
        read_clock(&self.core)
        drain_idle(&self.core, -1)
        tunnels_retire(&self.core, -1)
        arm_tick(&self.core)

    def abort(self):
        cdef uint32_t cut = self.core.n_exchanges
        read_clock(&self.core)
        while self.core.clients != NULL:
            client_cut(&self.core, self.core.clients)
        log_flush(&self.core)
        return cut

    @property
    def open_clients(self):
        return self.core.n_clients

    @property
    def open_exchanges(self):
        return self.core.n_exchanges

    @property
    def held_snapshots(self):
        self._forget_snapshots()
        return len(self.snapshots)

    def close(self):
        """Free everything; says what was not given back."""
        if not self.opened:
            return
        self.abort()
        self._unlisten_all()
        for fd in list(self.wakes):
            self.unwatch(fd)
        leaks = self._leaks()
        self._free()
        assert not leaks, leaks

    cdef str _leaks(self):
        """Close idle upstream connections, then tell what is still held; empty when nothing is."""
        cdef core_t *core = &self.core
        cdef uint32_t i
        for i in range(core.sb.endpoints):
            while core.endpoints[i] != NULL and core.endpoints[i].idle != NULL:
                endpoint_close(core, core.endpoints[i].idle)
        held = {
            "exchanges": core.n_exchanges, "clients": core.n_clients, "upstreams": core.n_upstreams,
            "TLS connections": core.n_tls,
            "small buffers": core.buffers.n_used[BUF_SMALL], "large buffers": core.buffers.n_used[BUF_LARGE],
            "pipes": core.buffers.n_used[BUF_PIPE],
        }
        return ", ".join(f"{count} {name} not given back" for name, count in held.items() if count)

    cdef int _free(self) except -1:
        cdef core_t *core = &self.core
        cdef uint32_t i
        self.opened = False
        if core.log.fd >= 0:
            close(core.log.fd)
        self.snapshots.clear()
        free_exchanges(core)
        for i in range(core.n_slab):
            free(core.slab[i])
        free(core.slab)
        for i in range(core.sb.endpoints):
            if core.endpoints[i] != NULL:
                endpoint_free(core, core.endpoints[i])
        free(core.endpoints)
        free(core.services)
        free(core.retired)
        free(core.scratch)
        free(core.log.data)
        datagrams_free(core)
        if core.selector != NULL:
            selector_free(core.selector)
        pool_close(&core.buffers)
        if core.tickfd >= 0:
            close(core.tickfd)
        if core.epfd >= 0:
            close(core.epfd)
        sb_unmap(&core.sb)
        return 0

    def __dealloc__(self):
        if self.opened:
            self._free()


cdef int check_slots(core_t *core, const snapshot_t *s) except -1:
    """Everything indexed by slot is as large as the scoreboard."""
    if (s.listener_slots > core.sb.listeners or s.service_slots > core.sb.services or s.group_slots > core.sb.groups
            or s.endpoint_slots > core.sb.endpoints or s.route_slots > core.sb.routes):
        raise ValueError(f"snapshot {s.version} was made for a larger scoreboard")
    return 0


cdef void free_exchanges(core_t *core) noexcept nogil:
    cdef exch_t *x
    while core.free_exchanges != NULL:
        x = core.free_exchanges
        core.free_exchanges = x.next
        free(x)


cdef void resume_listeners(core_t *core) noexcept nogil:
    cdef uint32_t i, k
    cdef conn_t *c
    core.starved = 0
    for i in range(core.n_slab):
        for k in range(SLAB_CONNS):
            c = &core.slab[i][k]
            if c.kind == CONN_LISTENER and not c.flags & CF_WATCHED and c.state != CS_LINGER:
                if listener_full(core, c):
                    core.starved = 1
                else:
                    listener_resume(core, c)


cdef void drain_idle(core_t *core, int64_t listener) noexcept nogil:
    """Idle connections of a listener (-1: of all) go at moments spread over a second, so that clients do not all come back at once."""
    cdef conn_t *c = core.clients
    cdef uint64_t spread = 0
    while c != NULL:
        if c.state != CS_EXCHANGE and (listener < 0 or c.listener == listener):
            conn_deadline(core, c, DRAIN_IDLE_MS + spread % 1000)
            spread += 17
        c = c.next
