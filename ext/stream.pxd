"""One direction of an exchange: what a source sends becomes what a sink gets.

Bytes are decoded where they stand in the buffer they were read into, framed anew around the same place, and written
from there: one copy into user space, one out, none in between. Where there is nothing to decode or to frame and both
connections are plain, a stream that has proved to be large goes through a pipe of the kernel's and is not copied at all.
Memory is bounded by one buffer per direction: nothing is read while something waits to be written.
"""

from libc.stdint cimport uint32_t
from turnout.ext.buffers cimport buf_t
from turnout.ext.core cimport conn_t, core_t, stream_t
from turnout.ext.text cimport out_t

cdef enum pump_result:
    PUMP_SOURCE = 0           # waits for the source
    PUMP_SINK                 # waits for the sink
    PUMP_DONE                 # the message is complete and written
    PUMP_AGAIN                # had its share of this turn: put into the run queue
    PUMP_CUT                  # the source ended before its message did
    PUMP_SOURCE_BROKEN
    PUMP_SINK_BROKEN
    PUMP_MALFORMED
    PUMP_TOO_LARGE            # more than stream_t.most
    PUMP_MEMORY

cdef enum feed_result:
    FEED_OK = 0
    FEED_MALFORMED = -1
    FEED_MEMORY = -2
    FEED_TOO_LARGE = -3

cdef int stream_feed(core_t *core, stream_t *s, buf_t *b, buf_t **rest) noexcept nogil
"""Take the raw bytes of b (and b itself). What stands behind the message comes back in *rest, which the caller owns."""
cdef int stream_end(core_t *core, stream_t *s) noexcept nogil
"""The source of a BODY_CLOSE message has ended. FEED_OK or FEED_MEMORY."""
cdef int stream_flush(core_t *core, stream_t *s, conn_t *sink) noexcept nogil
"""Write what waits. 1: all written, 0: the sink is full, -1: the sink is broken."""
cdef int stream_pump(core_t *core, stream_t *s, conn_t *source, conn_t *sink, buf_t **rest) noexcept nogil
"""Move what can be moved; pump_result. *rest as in stream_feed, NULL when there is none."""
cdef bint last_chunk(out_t *o, const char *p, uint32_t n) noexcept nogil
"""Write the end of a chunked body whose trailer section stands at p[0:n], the section included; False: malformed."""
cdef void stream_append(stream_t *s, buf_t *b) noexcept nogil
cdef void stream_prepend(stream_t *s, buf_t *b) noexcept nogil
cdef void stream_clear(core_t *core, stream_t *s) noexcept nogil
"""Give all its buffers back."""
cdef bint stream_append_copy(core_t *core, stream_t *s, const char *p, unsigned int n) noexcept nogil
"""Queue a copy of n bytes, in as many buffers as it takes; False when memory is out."""
cdef buf_t *buf_copy(core_t *core, const char *p, unsigned int n) noexcept nogil
"""A buffer holding a copy of n bytes; NULL when memory is out or n is more than the largest buffer."""
