"""See account.pxd."""

from libc.stdint cimport uint32_t, uint64_t
from turnout.ext.core cimport XF_ANSWERED, XF_FROM_POOL, XF_PICKED, XF_SAMPLED, core_t, exch_t
from turnout.ext.logline cimport log_record, log_wanted
from turnout.ext.scoreboard cimport (
    OUT_CANCEL, hist_bucket, sb_epstat_t, sb_reqstat_t, sb_worker_t,
)
from turnout.ext.select cimport select_release, select_settle


cdef void account_attempt(core_t *core, exch_t *x, int outcome) noexcept nogil:
    cdef sb_epstat_t *s
    cdef uint64_t first_us = 0, total_us
    if not x.flags & XF_PICKED:
        return
    x.flags &= ~<uint32_t>XF_PICKED
    s = &core.sb.epstat[core.sb.me][x.pick.slot]
    s.outcomes[outcome] += 1
    s.bytes_up += x.up.wire
    s.bytes_down += x.down.bytes
    if x.flags & XF_FROM_POOL:
        s.reused += 1
    elif x.connected_us:
        count_connect(s, x.connected_us - x.pick_us)
    if x.first_us:
        first_us = x.first_us - x.pick_us
        s.first_us_sum += first_us
        s.first_us[hist_bucket(first_us)] += 1
        total_us = (x.settled_us if x.settled_us else core.now_us) - x.pick_us
        s.total_us_sum += total_us
        s.total_us[hist_bucket(total_us)] += 1
    select_release(core.selector, x.service, &x.pick, outcome, x.status, first_us, core.now_us)


cdef void account_settled(core_t *core, exch_t *x, int outcome) noexcept nogil:
    x.settled_us = core.now_us
    count_tunnels(core, x, 1)
    select_settle(core.selector, x.service, &x.pick, outcome, x.status, x.first_us - x.pick_us, core.now_us)


cdef void count_tunnels(core_t *core, const exch_t *x, int by) noexcept nogil:
    core.n_tunnels += by
    core.sb.slab[core.sb.me].tunnels = core.n_tunnels
    core.sb.listen_tunnels[core.sb.me][x.listener.slot] += by


cdef void count_connect(sb_epstat_t *s, uint64_t us) noexcept nogil:
    s.connects += 1
    s.connect_us_sum += us
    s.connect_us[hist_bucket(us)] += 1


cdef void count_request(sb_reqstat_t *s, const exch_t *x) noexcept nogil:
    cdef uint32_t klass = x.status // 100
    cdef uint64_t us = (x.settled_us if x.settled_us else x.done_us) - x.start_us
    s.requests[klass if klass < 6 else 0][x.cause] += 1
    s.bytes_in += x.bytes_in
    s.bytes_out += x.bytes_out
    s.total_us_sum += us
    s.total_us[hist_bucket(us)] += 1


cdef void account_exchange(core_t *core, exch_t *x) noexcept nogil:
    cdef sb_worker_t *w = core.sb.slab[core.sb.me]
    x.bytes_in += x.up.bytes
    if x.settled_us:
        count_tunnels(core, x, -1)
    count_request(&core.sb.listenstat[core.sb.me][x.listener.slot], x)
    if x.route != NULL:
        count_request(&core.sb.routestat[core.sb.me][x.route.slot], x)
    if x.flags & XF_SAMPLED and x.flags & XF_ANSWERED:
        w.proxy_n += 1
        w.proxy_us_sum += x.proxy_us
        w.proxy_us[hist_bucket(x.proxy_us)] += 1
    if core.log.fd >= 0 and log_wanted(core, x):
        log_record(core, x)
