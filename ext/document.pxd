"""Reading the document of a snapshot: every access names what it expects, and what is wrong is said with its place.

Python objects; used while a snapshot is built, never by a request.
"""

from libc.stdint cimport uint32_t, uint64_t
from turnout.ext.arena cimport arena_t
from turnout.ext.snapshot cimport text_t

cdef enum text_rule:
    TEXT_ANY = 0              # no NUL
    TEXT_LINE                 # no control character but tab: may stand in a head
    TEXT_TOKEN                # RFC 9110 5.6.2, or empty

cdef class Table:
    """One JSON object. Each key is taken once; `done` tells of keys that nobody took. All errors are ValueError."""
    cdef dict values
    cdef set taken
    cdef Table parent
    cdef str label            # the parent's key that holds this table
    cdef Py_ssize_t index     # its place in a list there, -1: none

    cdef str where(self)
    cdef int fail(self, str key, str message) except -1
    cdef object need(self, str key)
    cdef uint64_t number(self, str key, uint64_t top) except? 77
    cdef double real(self, str key) except? -1
    cdef bint flag(self, str key) except? -1
    cdef uint32_t choice(self, str key, tuple names) except? 77
    cdef uint32_t bits(self, str key, dict names) except? 77
    cdef list items(self, str key)
    cdef list tables(self, str key)
    cdef Table table(self, str key)
    cdef str string(self, str key)
    cdef bint none(self, str key) except? -1
    cdef int text(self, str key, arena_t *arena, int rule, text_t *out) except -1
    cdef uint32_t indices(self, str key, arena_t *arena, uint32_t top, uint32_t **out) except? 77
    cdef int done(self) except -1

cdef Table table_open(object document)
cdef Table table_of(Table parent, str label, Py_ssize_t index, object value)
"""A value that has to be a table, at parent.label, or at parent.label[index] with an index from 0."""
cdef int text_copy(arena_t *arena, bytes raw, text_t *out) except -1
"""A copy in the arena, followed by a zero byte that n does not count."""
cdef str text_problem(bytes raw, int rule)
"""What makes raw unfit for a rule (text_rule); None when nothing does."""
