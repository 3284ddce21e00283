"""See document.pxd."""

import json
import math

from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memcpy
from turnout.ext.arena cimport arena_t, arena_take
from turnout.ext.snapshot cimport text_t

cdef frozenset TOKEN = frozenset(b"!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")


cdef class Table:
    cdef str where(self):
        cdef str at
        if self.parent is None:
            return ""
        at = self.parent.where() + self.label
        return f"{at}." if self.index < 0 else f"{at}[{self.index}]."

    cdef int fail(self, str key, str message) except -1:
        raise ValueError(f"{self.where()}{key}: {message}")

    cdef object need(self, str key):
        try:
            value = self.values[key]
        except KeyError:
            self.fail(key, "is missing")
        self.taken.add(key)
        return value

    cdef uint64_t number(self, str key, uint64_t top) except? 77:
        value = self.need(key)
        if type(value) is not int or value < 0 or value > top:
            self.fail(key, f"{shown(value)} is not a whole number from 0 to {top}")
        return value

    cdef double real(self, str key) except? -1:
        value = self.need(key)
        if type(value) not in (int, float) or not 0 <= value <= 1e12 or not math.isfinite(value):
            self.fail(key, f"{shown(value)} is not a number from 0 to 1e12")
        return value

    cdef bint flag(self, str key) except? -1:
        value = self.need(key)
        if type(value) is not bool:
            self.fail(key, f"{shown(value)} is neither true nor false")
        return value

    cdef uint32_t choice(self, str key, tuple names) except? 77:
        value = self.need(key)
        if type(value) is not str or value not in names:
            self.fail(key, f"{shown(value)} is none of {', '.join(names)}")
        return names.index(value)

    cdef uint32_t bits(self, str key, dict names) except? 77:
        cdef uint32_t out = 0
        for value in self.items(key):
            if type(value) is not str or value not in names:
                self.fail(key, f"{shown(value)} is none of {', '.join(names)}")
            out |= <uint32_t>names[value]
        return out

    cdef list items(self, str key):
        value = self.need(key)
        if type(value) is not list:
            self.fail(key, f"{shown(value)} is not a list")
        return value

    cdef list tables(self, str key):
        return [table_of(self, key, i, value) for i, value in enumerate(self.items(key))]

    cdef Table table(self, str key):
        return table_of(self, key, -1, self.need(key))

    cdef str string(self, str key):
        value = self.need(key)
        if type(value) is not str:
            self.fail(key, f"{shown(value)} is not text")
        return value

    cdef bint none(self, str key) except? -1:
        """Whether the key is null; it counts as taken only then."""
        if self.values.get(key, 0) is not None:
            return False
        self.taken.add(key)
        return True

    cdef int text(self, str key, arena_t *arena, int rule, text_t *out) except -1:
        cdef bytes raw = encoded(self, key, self.string(key))
        cdef str problem = text_problem(raw, rule)
        if problem is not None:
            self.fail(key, problem)
        return text_copy(arena, raw, out)

    cdef uint32_t indices(self, str key, arena_t *arena, uint32_t top, uint32_t **out) except? 77:
        """Numbers below top, each at most once."""
        cdef list values = self.items(key)
        cdef uint32_t i = 0
        out[0] = <uint32_t *>arena_take(arena, len(values) * sizeof(uint32_t))
        if out[0] == NULL:
            raise MemoryError
        for value in values:
            if type(value) is not int or value < 0 or value >= top:
                self.fail(key, f"{shown(value)} is not an index below {top}")
            out[0][i] = value
            i += 1
        if len(set(values)) != len(values):
            self.fail(key, "the same index stands twice")
        return i

    cdef int done(self) except -1:
        if len(self.taken) != len(self.values):
            unknown = sorted(set(self.values) - self.taken)
            self.fail(unknown[0], "is not known here")
        return 0


cdef str shown(object value):
    """A value for a message, short whatever it is."""
    text = repr(value) if type(value) in (int, float, str, bool, type(None)) else type(value).__name__
    return text if len(text) <= 60 else text[:57] + "..."


cdef bytes encoded(Table table, str key, str value):
    try:
        return value.encode()
    except UnicodeEncodeError:
        table.fail(key, "is not valid text")


cdef Table table_of(Table parent, str label, Py_ssize_t index, object value):
    cdef Table t = Table.__new__(Table)
    t.parent = parent
    t.label = label
    t.index = index
    t.taken = set()
    if type(value) is not dict:
        place = label if index < 0 else f"{label}[{index}]"
        raise ValueError(f"{parent.where() if parent is not None else ''}{place}: {shown(value)} is not a table")
    t.values = value
    return t


cdef Table table_open(object document):
    if isinstance(document, (bytes, bytearray, memoryview)):
        try:
            document = json.loads(bytes(document))
        except (ValueError, RecursionError) as error:
            raise ValueError(f"document: is not JSON ({error})") from None
    return table_of(None, "document", -1, document)


cdef int text_copy(arena_t *arena, bytes raw, text_t *out) except -1:
    cdef const char *p = raw
    cdef char *copy = <char *>arena_take(arena, len(raw) + 1)
    if copy == NULL:
        raise MemoryError
    if len(raw) > 0xFFFFFFFF:
        raise ValueError("document: text of more than 4 GiB")
    memcpy(copy, p, len(raw))
    out.p = copy
    out.n = <uint32_t>len(raw)
    return 0


cdef str text_problem(bytes raw, int rule):
    if rule == TEXT_TOKEN:
        if not TOKEN.issuperset(raw):
            return f"{shown(raw.decode(errors='replace'))} holds what a token must not hold"
    elif rule == TEXT_LINE:
        if any((c < 32 and c != 9) or c == 127 for c in raw):
            return "holds a control character"
    elif 0 in raw:
        return "holds a zero byte"
    return None
