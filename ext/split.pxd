"""The split between version groups.

R. Tijdeman, The chairman assignment problem (1980): with k groups, give request n to the one whose deadline is first
among those that are owed at least 1/(2k-2) of a request. For fixed shares each group then has been given what it was
owed, to within 1 - 1/(2k-2) of a request, at every n; no method can promise less. (Largest deficit alone promises that
for two groups only.) `lag` is what a group is owed, exactly, in millionths; it adds up to 0 over the groups.
"""

from turnout.ext.balance cimport balancer_t, part_t, state_t

cdef part_t *choose_part(const balancer_t *s, const state_t *st) noexcept nogil
"""Whose turn it is among the groups that have a share and are not barred; NULL when there are none. Changes nothing."""
cdef void give_part(balancer_t *s, const state_t *st, const part_t *chosen) noexcept nogil
"""Count one request for a group, under the same bars under which it was chosen."""
