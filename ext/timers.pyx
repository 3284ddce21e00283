"""See timers.pxd."""

from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport calloc, free


cdef inline uint32_t to_tick(uint64_t ms) noexcept nogil:
    return <uint32_t>(ms // TICK_MS)


cdef inline void list_init(timer_node_t *head) noexcept nogil:
    head.next = head
    head.prev = head


cdef inline void unlink(timer_wheel_t *w, timer_node_t *node) noexcept nogil:
    node.prev.next = node.next
    node.next.prev = node.prev
    node.next = NULL
    node.prev = NULL
    w.armed -= 1


cdef void link(timer_wheel_t *w, timer_node_t *node) noexcept nogil:
    """Put the node where its deadline is looked at: exactly when near, in time to be moved when far."""
    cdef uint32_t due = node.deadline, away
    cdef timer_node_t *head
    if <int>(due - w.tick) < 1:
        due = w.tick + 1
    away = due - w.tick
    if away < WHEEL_SLOTS:
        head = &w.near[due % WHEEL_SLOTS]
    else:
        if away >= WHEEL_SLOTS * (WHEEL_SLOTS - 1):
            due = w.tick + WHEEL_SLOTS * (WHEEL_SLOTS - 1) - 1
        due -= due % WHEEL_SLOTS
        head = &w.far[due // WHEEL_SLOTS % WHEEL_SLOTS]
    node.slot = due
    node.prev = head.prev
    node.next = head
    head.prev.next = node
    head.prev = node
    w.armed += 1


cdef void wheel_init(timer_wheel_t *w, uint64_t now_ms) noexcept nogil:
    cdef uint32_t i
    for i in range(WHEEL_SLOTS):
        list_init(&w.near[i])
        list_init(&w.far[i])
    w.tick = to_tick(now_ms)
    w.armed = 0


cdef void wheel_arm(timer_wheel_t *w, timer_node_t *node, uint64_t deadline_ms) noexcept nogil:
    cdef uint32_t due = to_tick(deadline_ms) + 1
    node.deadline = due if due else 1
    if node.next != NULL:
        if <int>(node.slot - due) <= 0:
            return
        unlink(w, node)
    link(w, node)


cdef void wheel_drop(timer_wheel_t *w, timer_node_t *node) noexcept nogil:
    node.deadline = 0
    if node.next != NULL:
        unlink(w, node)


cdef void take(timer_node_t *head, timer_node_t *into) noexcept nogil:
    """Move a whole list, so that what is armed meanwhile cannot join it."""
    list_init(into)
    if head.next == head:
        return
    into.next = head.next
    into.prev = head.prev
    into.next.prev = into
    into.prev.next = into
    list_init(head)


cdef void cascade(timer_wheel_t *w) noexcept nogil:
    cdef timer_node_t moved
    cdef timer_node_t *node
    take(&w.far[w.tick // WHEEL_SLOTS % WHEEL_SLOTS], &moved)
    while moved.next != &moved:
        node = moved.next
        unlink(w, node)
        if node.deadline:
            link_now(w, node)


cdef void link_now(timer_wheel_t *w, timer_node_t *node) noexcept nogil:
    """As link, but a node due at this very tick still fires in it: the near slot has not been looked at yet."""
    if <int>(node.deadline - w.tick) > 0:
        link(w, node)
        return
    node.slot = w.tick
    node.prev = w.near[w.tick % WHEEL_SLOTS].prev
    node.next = &w.near[w.tick % WHEEL_SLOTS]
    node.prev.next = node
    node.next.prev = node
    w.armed += 1


cdef void wheel_advance(timer_wheel_t *w, uint64_t now_ms, timer_fire_t fire, void *context) noexcept nogil:
    cdef uint32_t target = to_tick(now_ms)
    cdef timer_node_t due
    cdef timer_node_t *node
    if w.armed == 0 and <int>(target - w.tick) > 0:
        w.tick = target
    while <int>(target - w.tick) > 0:
        w.tick += 1
        if w.tick % WHEEL_SLOTS == 0:
            cascade(w)
        take(&w.near[w.tick % WHEEL_SLOTS], &due)
        while due.next != &due:
            node = due.next
            unlink(w, node)
            if node.deadline == 0:
                continue
            if <int>(node.deadline - w.tick) > 0:
                link(w, node)
                continue
            node.deadline = 0
            fire(context, node)


# ---- for tests --------------------------------------------------------------------------------------------------

cdef class _Wheel:
    """Test access: a wheel and some nodes, numbered from 0."""

    cdef timer_wheel_t wheel
    cdef timer_node_t *nodes
    cdef uint32_t count
    cdef object fired

    def __cinit__(self, uint64_t now_ms, uint32_t count):
        self.count = count
        self.nodes = <timer_node_t *>calloc(count, sizeof(timer_node_t))
        if self.nodes == NULL:
            raise MemoryError
        wheel_init(&self.wheel, now_ms)

    def __dealloc__(self):
        free(self.nodes)

    def arm(self, uint32_t i, uint64_t deadline_ms):
        wheel_arm(&self.wheel, &self.nodes[i], deadline_ms)

    def disarm(self, uint32_t i):
        wheel_disarm(&self.nodes[i])

    def drop(self, uint32_t i):
        wheel_drop(&self.wheel, &self.nodes[i])

    def advance(self, uint64_t now_ms, fired):
        """Call fired(i) for each node that is due; it may call the other methods."""
        self.fired = fired
        wheel_advance(&self.wheel, now_ms, note_fired, <void *>self)

    @property
    def linked(self):
        """(the wheel's own count, the nodes that stand in it)"""
        return self.wheel.armed, sum(self.nodes[i].next != NULL for i in range(self.count))


cdef void note_fired(void *context, timer_node_t *node) noexcept with gil:
    cdef _Wheel wheel = <_Wheel>context
    wheel.fired(<uint32_t>(node - wheel.nodes))
