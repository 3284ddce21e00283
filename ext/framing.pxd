"""Message bodies (RFC 9112 6, 7): where one ends, and the chunked coding in place.

`chunk_decode` turns the raw bytes of a chunked body into plain data without a second buffer: data moves left over
the framing it stood behind. `chunk_frame` does the reverse using free room before and after the data.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

cdef enum body_kind:
    BODY_NONE = 0
    BODY_LENGTH               # `left` bytes to come
    BODY_CHUNKED
    BODY_CLOSE                # response only: up to the end of the connection

cdef enum chunk_phase:
    CHUNK_SIZE = 0            # at the first hex digit
    CHUNK_SIZE_MORE           # inside the size
    CHUNK_EXT                 # inside an extension
    CHUNK_SIZE_LF             # after CR of the size line
    CHUNK_DATA
    CHUNK_DATA_CR
    CHUNK_DATA_LF
    CHUNK_TRAILERS            # the last chunk's line is consumed; trailers follow, parse_trailers reads them
    CHUNK_DONE

cdef struct body_t:
    uint64_t left             # BODY_LENGTH: bytes to come; BODY_CHUNKED: bytes left of the current chunk
    uint32_t overhead         # BODY_CHUNKED: framing bytes not yet paid for by data; bounded against abuse
    uint16_t extension        # BODY_CHUNKED: digits of the current chunk's size, then bytes of its extensions
    uint8_t kind              # body_kind
    uint8_t phase             # chunk_phase

cdef enum:
    FRAME_MALFORMED = -1
    FRAME_MORE = 0            # all bytes taken, body goes on
    FRAME_END = 1             # BODY_LENGTH: ended; BODY_CHUNKED: CHUNK_TRAILERS reached

cdef enum:
    CHUNK_ROOM_BEFORE = 12    # "ffffffff\r\n" and two spare
    CHUNK_ROOM_AFTER = 2      # CRLF
    CHUNK_LAST_LEN = 3        # "0\r\n", the trailer section comes after it

cdef int body_feed(body_t *b, char *p, uint32_t n, uint32_t *data, uint32_t *used) noexcept nogil
"""Take up to n raw bytes at p. On return p[0:*data] is plain body data, *used raw bytes were consumed (bytes behind
them belong to what follows: trailers or the next message). Returns FRAME_*. BODY_CLOSE takes all and never ends."""

cdef uint32_t size_line(uint32_t n, char *end) noexcept nogil
"""The size line of a chunk of n bytes, written so that it ends at `end` (CHUNK_ROOM_BEFORE bytes before it are needed);
returns its length."""

cdef uint32_t chunk_frame(char *data, uint32_t n) noexcept nogil
"""Frame n > 0 bytes at `data` as one chunk, in place: writes the size line before `data` (CHUNK_ROOM_BEFORE free bytes
needed) and CRLF behind (CHUNK_ROOM_AFTER). Returns how many bytes before `data` the chunk now starts."""
