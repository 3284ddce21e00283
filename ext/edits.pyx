"""See edits.pxd."""

from libc.stdint cimport uint32_t, uint64_t
from turnout.ext.headers cimport H_OTHER, H_UPGRADE, field_t, head_t
from turnout.ext.snapshot cimport EDIT_SET, edit_t, edits_t
from turnout.ext.text cimport out_field, out_put, out_t


cdef const edit_t *edit_of(const edits_t *edits, const char *base, const field_t *f) noexcept nogil:
    """The edit that names this field, NULL when none does."""
    cdef uint32_t i, k
    cdef const edit_t *e
    cdef char ch
    for i in range(edits.n):
        e = &edits.items[i]
        if e.lower.n != f.name_len or (f.id != H_OTHER and e.id != f.id):
            continue
        for k in range(e.lower.n):
            ch = base[f.name + k]
            if c'A' <= ch <= c'Z':
                ch += 32
            if ch != e.lower.p[k]:
                break
        else:
            return e
    return NULL


cdef void put_fields(out_t *o, const head_t *h, const char *base, const edits_t *edits, uint64_t drop) noexcept nogil:
    cdef uint32_t i
    cdef const field_t *f
    for i in range(h.n_fields):
        f = &h.fields[i]
        if f.skip or (drop >> f.id) & 1 or (edits.n and edit_of(edits, base, f) != NULL):
            continue
        out_field(o, base + f.name, f.name_len, base + f.value, f.value_len)
    put_edits(o, edits)


cdef void put_edits(out_t *o, const edits_t *edits) noexcept nogil:
    cdef uint32_t i
    for i in range(edits.n):
        if edits.items[i].kind == EDIT_SET:
            out_field(o, edits.items[i].name.p, edits.items[i].name.n, edits.items[i].value.p, edits.items[i].value.n)


cdef void put_upgrade(out_t *o, const head_t *h, const char *base) noexcept nogil:
    cdef const field_t *f = &h.fields[h.first[<int>H_UPGRADE] - 1]
    out_put(o, b"Connection: upgrade\r\n", 21)
    out_field(o, b"Upgrade", 7, base + f.value, f.value_len)
