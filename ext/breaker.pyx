"""See breaker.pxd."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memset
from turnout.ext.scoreboard cimport (
    OUT_5XX, OUT_CONNECT, OUT_RESET, OUT_TIMEOUT, brk_epoch, brk_failures, brk_streak, brk_successes, sb_add,
    sb_breaker_t, sb_cas64, sb_changed, sb_load64, sb_map, sb_store64, sb_unmap,
)
from turnout.ext.snapshot cimport BRK_ON_5XX, BRK_ON_CONNECT, BRK_ON_RESET, BRK_ON_TIMEOUT

cdef extern from "<sched.h>" nogil:
    int sched_yield()

cdef enum:
    STREAK_MAX = 15           # what the word can hold

# A request that is closed after the state has moved on says nothing about the new state: late ordinary requests are
# kept out of OPEN and HALF_OPEN, and probes that outlive their HALF_OPEN count as ordinary ones once it is CLOSED.
cdef uint8_t brk_table[BRK_STATES][BRK_EVENTS]
brk_table[0][:] = [  # CLOSED
    # ASK_EARLY, ASK_DUE,   SUCCESS,   FAILURE,   NEUTRAL,  PROBE_SUCCESS, PROBE_FAILURE, PROBE_NEUTRAL
    BRK_KEEP,    BRK_KEEP,  BRK_CLEAR, BRK_COUNT, BRK_KEEP, BRK_CLEAR,     BRK_COUNT,     BRK_KEEP,
]
brk_table[1][:] = [  # OPEN
    BRK_KEEP,    BRK_FIRST, BRK_KEEP,  BRK_KEEP,  BRK_KEEP, BRK_KEEP,      BRK_KEEP,      BRK_KEEP,
]
brk_table[2][:] = [  # HALF_OPEN
    BRK_TAKE,    BRK_RENEW, BRK_KEEP,  BRK_KEEP,  BRK_KEEP, BRK_PASS,      BRK_REOPEN,    BRK_RETURN,
]

# The word taken apart, so that a transition reads as assignments.
cdef struct fields_t:
    uint32_t state
    uint32_t failures
    uint32_t streak
    uint32_t probes
    uint32_t successes
    uint32_t epoch
    uint32_t deadline


cdef inline fields_t unpack(uint64_t word) noexcept nogil:
    cdef fields_t f
    f.state = brk_state(word)
    f.failures = brk_failures(word)
    f.streak = brk_streak(word)
    f.probes = brk_probes(word)
    f.successes = brk_successes(word)
    f.epoch = brk_epoch(word)
    f.deadline = brk_deadline(word)
    return f


cdef inline uint64_t pack(const fields_t *f) noexcept nogil:
    return (<uint64_t>f.state | <uint64_t>f.failures << 2 | <uint64_t>f.streak << 12 | <uint64_t>f.probes << 16
            | <uint64_t>f.successes << 22 | <uint64_t>f.epoch << 28 | <uint64_t>f.deadline << 32)


cdef inline uint32_t ticks_after(uint64_t now_ms, uint64_t span_ms) noexcept nogil:
    """The first tick that is at least span_ms away."""
    return <uint32_t>((now_ms + span_ms + BRK_TICK_MS - 1) // BRK_TICK_MS)


cdef inline uint32_t at_most(uint32_t value, uint32_t bound) noexcept nogil:
    return bound if value > bound else value


cdef uint64_t open_time(const breaker_conf_t *conf, uint32_t streak) noexcept nogil:
    """Milliseconds that the trip number `streak` (from 1) of a row shuts out, before jitter."""
    cdef uint64_t cap = conf.open_max_ms if conf.open_max_ms > conf.open_ms else conf.open_ms
    cdef uint64_t span = <uint64_t>conf.open_ms << (streak - 1 if streak else 0)
    return cap if span > cap else span


cdef void trip(fields_t *f, const breaker_conf_t *conf, uint64_t now_ms, uint32_t random) noexcept nogil:
    cdef uint64_t span
    f.streak = at_most(f.streak + 1, STREAK_MAX)
    span = open_time(conf, f.streak)
    # random is a fraction of 2^32. Both factors are below 2^32.
    span += ((span * at_most(conf.jitter_pct, 100) // 100) * random) >> 32
    f.state = BRK_OPEN
    f.probes = 0
    f.successes = 0
    f.deadline = ticks_after(now_ms, span)


cdef inline void forget(fields_t *f, bint due) noexcept nogil:
    """CLOSED and well for long enough: the next trip is the first of its row. Without this the deadline, of which there
    are 32 bits, would come again."""
    if due:
        f.streak = 0
        f.deadline = 0


cdef void count(fields_t *f, const breaker_conf_t *conf, bint due, uint64_t now_ms, uint32_t random,
                bint may_trip) noexcept nogil:
    forget(f, due)
    f.failures = at_most(f.failures + 1, BRK_FAILURES_MAX)
    if may_trip and f.failures >= at_most(conf.failures, BRK_FAILURES_MAX):
        trip(f, conf, now_ms, random)


cdef void new_epoch(fields_t *f, uint32_t lease_ms, uint64_t now_ms) noexcept nogil:
    f.state = BRK_HALF_OPEN
    f.epoch = (f.epoch + 1) & 15
    f.probes = 1
    f.successes = 0
    f.deadline = ticks_after(now_ms, lease_ms)


cdef void take(fields_t *f, const breaker_conf_t *conf, bint due, uint32_t lease_ms, uint64_t now_ms) noexcept nogil:
    if f.probes < at_most(conf.probes, BRK_PROBES_MAX):
        f.probes += 1
        f.deadline = ticks_after(now_ms, lease_ms)
    elif due:
        new_epoch(f, lease_ms, now_ms)


cdef void passed(fields_t *f, const breaker_conf_t *conf, uint64_t now_ms) noexcept nogil:
    f.probes -= 1 if f.probes else 0
    f.successes = at_most(f.successes + 1, BRK_SUCCESSES_MAX)
    if f.successes >= at_most(conf.successes, BRK_SUCCESSES_MAX):
        f.state = BRK_CLOSED
        f.failures = 0
        f.probes = 0
        f.successes = 0
        f.deadline = ticks_after(now_ms, open_time(conf, f.streak))


cdef uint64_t brk_next(uint64_t word, int event, const breaker_conf_t *conf, uint32_t lease_ms, uint64_t now_ms,
                       uint32_t random, bint may_trip) noexcept nogil:
    cdef fields_t f
    cdef uint8_t action
    if conf.failures == 0 or brk_state(word) >= BRK_STATES:
        return word
    action = brk_table[brk_state(word)][event]
    if action == BRK_KEEP:
        return word
    f = unpack(word)
    if action == BRK_CLEAR:
        forget(&f, brk_due(word, now_ms))
        f.failures = 0
    elif action == BRK_COUNT:
        count(&f, conf, brk_due(word, now_ms), now_ms, random, may_trip)
    elif action == BRK_FIRST:
        new_epoch(&f, lease_ms, now_ms)
    elif action == BRK_TAKE:
        take(&f, conf, False, lease_ms, now_ms)
    elif action == BRK_RENEW:
        take(&f, conf, True, lease_ms, now_ms)
    elif action == BRK_PASS:
        passed(&f, conf, now_ms)
    elif action == BRK_REOPEN:
        trip(&f, conf, now_ms, random)
    elif action == BRK_RETURN:
        f.probes -= 1 if f.probes else 0
    return pack(&f)


cdef void note_change(sb_t *sb, uint32_t slot, uint64_t old, uint64_t new, uint64_t now_ms) noexcept nogil:
    """After the word has been swapped: tell everyone, if the state is another one."""
    cdef sb_breaker_t *b = &sb.breaker[slot]
    if brk_state(old) == brk_state(new):
        return
    sb_store64(&b.changed_ms, now_ms)
    if brk_state(new) == BRK_OPEN:
        sb_add(&b.trips, 1)                 # never taken back: whoever reads the counter expects it to grow
    sb_changed(sb)


cdef int brk_admit(sb_t *sb, uint32_t slot, const breaker_conf_t *conf, uint32_t lease_ms, uint64_t now_ms,
                   uint32_t *epoch) noexcept nogil:
    cdef uint64_t *at = &sb.breaker[slot].word
    cdef uint64_t old = sb_load64(at)
    cdef uint64_t new
    if conf.failures == 0:
        return 1
    while brk_state(old) != BRK_CLOSED:
        new = brk_next(old, BRK_ASK_DUE if brk_due(old, now_ms) else BRK_ASK_EARLY, conf, lease_ms, now_ms, 0, False)
        if new == old:
            return 0
        if sb_cas64(at, &old, new):         # else `old` is what is there now
            epoch[0] = brk_epoch(new)
            note_change(sb, slot, old, new, now_ms)
            return 2
    return 1


cdef uint64_t brk_report(sb_t *sb, uint32_t slot, const breaker_conf_t *conf, int event, uint32_t epoch, uint64_t now_ms,
                         uint32_t random, bint may_trip) noexcept nogil:
    cdef uint64_t *at = &sb.breaker[slot].word
    cdef uint64_t old = sb_load64(at)
    cdef uint64_t new
    while True:
        if event >= BRK_PROBE_SUCCESS and brk_epoch(old) != epoch:
            return 0
        new = brk_next(old, event, conf, 0, now_ms, random, may_trip)
        if new == old:
            return 0
        if sb_cas64(at, &old, new):
            note_change(sb, slot, old, new, now_ms)
            return new if brk_state(old) == BRK_CLOSED and brk_state(new) == BRK_OPEN else 0
    return 0


cdef void brk_untrip(sb_t *sb, uint32_t slot, uint64_t tripped, uint64_t now_ms) noexcept nogil:
    cdef fields_t f = unpack(tripped)
    cdef uint64_t old = tripped
    f.state = BRK_CLOSED
    f.streak -= 1 if f.streak else 0
    if sb_cas64(&sb.breaker[slot].word, &old, pack(&f)):
        note_change(sb, slot, tripped, pack(&f), now_ms)


cdef bint brk_is_failure(const breaker_conf_t *conf, int outcome, int status) noexcept nogil:
    cdef uint32_t bit
    if outcome == OUT_CONNECT:
        return conf.on & BRK_ON_CONNECT != 0
    if outcome == OUT_TIMEOUT:
        return conf.on & BRK_ON_TIMEOUT != 0
    if outcome == OUT_RESET:
        return conf.on & BRK_ON_RESET != 0
    if outcome > OUT_5XX:
        return False
    if outcome == OUT_5XX and conf.on & BRK_ON_5XX:
        return True
    bit = <uint32_t>status - 100
    return bit < 512 and (conf.statuses[bit >> 6] >> (bit & 63)) & 1


# ---- test access --------------------------------------------------------------------------------------------------

_STATES = ("closed", "open", "half_open")
_EVENTS = (
    "ask_early", "ask_due", "success", "failure", "neutral", "probe_success", "probe_failure", "probe_neutral",
)
_ACTIONS = ("keep", "clear", "count", "first", "take", "renew", "pass", "reopen", "return")


cdef int read_conf(breaker_conf_t *c, dict conf) except -1:
    memset(c, 0, sizeof(breaker_conf_t))
    c.failures = conf.get("failures", 5)
    c.open_ms = conf.get("open_ms", 60_000)
    c.open_max_ms = conf.get("open_max_ms", 600_000)
    c.jitter_pct = conf.get("jitter_pct", 0)
    c.probes = conf.get("probes", 1)
    c.successes = conf.get("successes", 1)
    c.on = conf.get("on", 0)
    for status in conf.get("statuses", ()):
        c.statuses[(status - 100) // 64] |= <uint64_t>1 << <uint32_t>((status - 100) % 64)
    return 0


def _table():
    return {
        state: {event: _ACTIONS[brk_table[i][j]] for j, event in enumerate(_EVENTS)} for i, state in enumerate(_STATES)
    }


def _pack(**fields):
    cdef fields_t f
    memset(&f, 0, sizeof(f))
    f.state = _STATES.index(fields.get("state", "closed"))
    f.failures = fields.get("failures", 0)
    f.streak = fields.get("streak", 0)
    f.probes = fields.get("probes", 0)
    f.successes = fields.get("successes", 0)
    f.epoch = fields.get("epoch", 0)
    f.deadline = fields.get("deadline", 0)
    return pack(&f)


def _unpack(uint64_t word):
    cdef fields_t f = unpack(word)
    return {**f, "state": _STATES[f.state]}


def _next(uint64_t word, str event, uint64_t now_ms, *, uint32_t lease_ms=1000, uint32_t random=0, bint may_trip=True,
          **conf):
    cdef breaker_conf_t c
    read_conf(&c, conf)
    return brk_next(word, _EVENTS.index(event), &c, lease_ms, now_ms, random, may_trip)


def _open_to(uint64_t word, uint64_t now_ms, **conf):
    cdef breaker_conf_t c
    read_conf(&c, conf)
    return bool(brk_open_to(word, &c, now_ms))


def _is_failure(int outcome, int status, **conf):
    cdef breaker_conf_t c
    read_conf(&c, conf)
    return bool(brk_is_failure(&c, outcome, status))


cdef class _Breaker:
    cdef sb_t sb
    cdef uint32_t slot
    cdef breaker_conf_t conf

    def __cinit__(self, int fd, uint32_t slot, **conf):
        memset(&self.sb, 0, sizeof(sb_t))
        read_conf(&self.conf, conf)
        if sb_map(&self.sb, fd, 0xFFFFFFFF) != 0 or slot >= self.sb.endpoints:
            raise ValueError(f"descriptor {fd} is not a scoreboard with an endpoint slot {slot}")
        self.slot = slot

    def __dealloc__(self):
        sb_unmap(&self.sb)

    @property
    def word(self):
        return sb_load64(&self.sb.breaker[self.slot].word)

    def admit(self, uint64_t now_ms, *, uint32_t lease_ms=1000):
        cdef uint32_t epoch = 0
        cdef int verdict = brk_admit(&self.sb, self.slot, &self.conf, lease_ms, now_ms, &epoch)
        return verdict, epoch

    def report(self, str event, uint64_t now_ms, *, uint32_t epoch=0, uint32_t random=0, bint may_trip=True):
        return brk_report(&self.sb, self.slot, &self.conf, _EVENTS.index(event), epoch, now_ms, random, may_trip)

    def untrip(self, uint64_t word, uint64_t now_ms):
        brk_untrip(&self.sb, self.slot, word, now_ms)

    def meet(self, uint64_t parties):
        """Wait until so many have come."""
        cdef uint64_t *come = &self.sb.breaker[self.slot].pad[0]
        with nogil:
            sb_add(come, 1)
            while sb_load64(come) < parties:
                sched_yield()

    def hammer_probes(self, uint64_t now_ms, uint32_t times):
        """Ask until so many probes were got, or it is OPEN, and give each back; (probes got, most of them in flight at
        once over all processes)."""
        cdef uint64_t *flying = &self.sb.breaker[self.slot].pad[1]
        cdef uint64_t n, most = 0
        cdef uint32_t epoch = 0, got = 0
        with nogil:
            while got < times:
                if brk_admit(&self.sb, self.slot, &self.conf, 1000, now_ms, &epoch) == 2:
                    got += 1
                    n = sb_add(flying, 1) + 1
                    most = n if n > most else most
                    sb_add(flying, ~<uint64_t>0)
                    brk_report(&self.sb, self.slot, &self.conf, BRK_PROBE_NEUTRAL, epoch, now_ms, 0, True)
                elif brk_state(sb_load64(&self.sb.breaker[self.slot].word)) == BRK_OPEN:
                    break
                else:
                    sched_yield()
        return got, most

    def hammer_failures(self, uint64_t now_ms, uint32_t times):
        """Report so many failures; how many of them tripped it."""
        cdef uint32_t i, tripped = 0
        with nogil:
            for i in range(times):
                if brk_report(&self.sb, self.slot, &self.conf, BRK_FAILURE, 0, now_ms, 0, True):
                    tripped += 1
        return tripped
