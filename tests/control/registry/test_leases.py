"""Leases: who goes, and that a break on the way to here does not empty a pool."""

from turnout.control.registry.entries import EndpointEntry, Lease
from turnout.control.registry.leases import Leases, Verdict
from turnout.proxy.model import Endpoint


def pool(*expires: float, ttl: float = 10, service: str = "app") -> list[EndpointEntry]:
    return [
        EndpointEntry(service, Endpoint(address=f"10.0.0.{n}:80"), "api", lease=Lease(ttl, when))
        for n, when in enumerate(expires, 1)
    ]


def said(verdict: Verdict) -> tuple[list[str], list[str]]:
    return [entry.address for entry in verdict.expired], [entry.address for entry in verdict.held]


def test_a_lease_that_has_ended_is_out():
    assert said(Leases().judge(pool(99, 100, 101, 102), 100)) == (["10.0.0.1:80", "10.0.0.2:80"], [])


def test_more_than_half_of_a_pool_at_once_is_held_once():
    leases, entries = Leases(), pool(99, 100, 101)
    assert said(leases.judge(entries, 100)) == ([], ["10.0.0.1:80", "10.0.0.2:80"])
    for entry in entries[:2]:
        entry.lease.expires = 110
    entries[2].lease.expires = 200
    assert said(leases.judge(entries, 109)) == ([], [])
    assert said(leases.judge(entries, 110)) == (["10.0.0.1:80", "10.0.0.2:80"], [])


def test_a_pool_that_dwindles_within_the_time_of_a_lease_is_guarded_as_if_it_went_at_once():
    leases, entries = Leases(), pool(100, 102, 104, 106)
    assert said(leases.judge(entries, 100)) == (["10.0.0.1:80"], [])
    assert said(leases.judge(entries[1:], 102)) == (["10.0.0.2:80"], [])
    assert said(leases.judge(entries[2:], 104)) == ([], ["10.0.0.3:80"])


def test_small_pools_are_not_guarded():
    assert said(Leases().judge(pool(99, 100), 100)) == (["10.0.0.1:80", "10.0.0.2:80"], [])


def test_a_renewed_lease_may_be_held_again():
    leases, entries = Leases(), pool(99, 99, 99)
    assert len(leases.judge(entries, 100).held) == 3
    leases.renewed(entries[0].key)
    assert said(leases.judge(entries, 100)) == (["10.0.0.2:80", "10.0.0.3:80"], ["10.0.0.1:80"])


def test_pools_do_not_count_for_each_other():
    entries = pool(99, 200, 200) + pool(99, 99, 99, service="other")
    verdict = Leases().judge(entries, 100)
    assert [entry.service for entry in verdict.expired] == ["app"]
    assert [entry.service for entry in verdict.held] == ["other"] * 3
