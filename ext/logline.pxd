"""One access-log record as a line of JSON, written without Python."""

from libc.stdint cimport uint32_t
from turnout.ext.core cimport core_t, exch_t, log_t

cdef bint log_wanted(const core_t *core, const exch_t *x) noexcept nogil
"""Sampling of the route, errors, slowness."""
cdef void log_record(core_t *core, const exch_t *x) noexcept nogil
"""Append the record; writes the buffer out when it is full. A record is never split over two writes."""
cdef void log_flush(core_t *core) noexcept nogil
