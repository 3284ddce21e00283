"""Endpoints by name, against a name server on this machine."""

import asyncio

import pytest
from fakes.nameserver import Nameserver

from turnout.control.registry.lookup import RETRY_S, TTL_MAX_S, TTL_MIN_S, Found, Lookup, Question


def ask(scenario):
    async def run():
        async with Nameserver() as server:
            return await scenario(server)

    return asyncio.run(run())


def lookup(server, name="orders.test", port=8000, patience=0.5):
    return Lookup(Question(name, port, server.address), patience)


def test_every_address_of_a_name_is_an_endpoint_and_the_shortest_ttl_counts():
    async def scenario(server):
        server.say("orders.test", "A", "10.0.0.2", "10.0.0.1", ttl=20)
        server.say("orders.test", "AAAA", "2001:db8::1", ttl=10)
        return await lookup(server).ask()

    answer = ask(scenario)
    assert [found.address for found in answer.found] == [
        "10.0.0.1:8000",
        "10.0.0.2:8000",
        "[2001:db8::1]:8000",
    ]
    assert answer.ttl == 10
    assert answer.failure is None


@pytest.mark.parametrize(("ttl", "kept"), [(0, TTL_MIN_S), (86400, TTL_MAX_S)])
def test_a_ttl_is_kept_within_bounds(ttl, kept):
    async def scenario(server):
        server.say("orders.test", "A", "10.0.0.1", ttl=ttl)
        return await lookup(server).ask()

    assert ask(scenario).ttl == kept


def test_srv_records_bring_ports_weights_and_priorities_that_count_from_zero():
    async def scenario(server):
        server.say("_o._tcp.test", "SRV", "10 5 8001 a.test.", "10 0 8002 b.test.", "70 1 8003 a.test.")
        server.say("a.test", "A", "10.0.0.1")
        server.say("b.test", "A", "10.0.0.2")
        return await lookup(server, "_o._tcp.test", None).ask()

    assert set(ask(scenario).found) == {
        Found("10.0.0.1:8001", 5, 0),
        Found("10.0.0.2:8002", 1, 0),
        Found("10.0.0.1:8003", 1, 1),
    }


def test_a_service_that_is_decidedly_not_there_has_no_endpoints():
    async def scenario(server):
        server.say("_o._tcp.test", "SRV", "0 0 0 .")
        return await lookup(server, "_o._tcp.test", None).ask()

    answer = ask(scenario)
    assert answer.found == ()
    assert answer.failure is None


def test_a_name_that_does_not_exist_is_an_empty_answer_and_no_failure():
    async def scenario(server):
        return await lookup(server).ask()

    answer = ask(scenario)
    assert (answer.found, answer.failure) == ((), None)


@pytest.mark.parametrize("way", ["SERVFAIL", "REFUSED", "silent"])
def test_a_failing_server_leaves_the_last_good_answer_and_is_asked_less_and_less_often(way):
    async def scenario(server):
        server.say("orders.test", "A", "10.0.0.1")
        server.say("orders.test", "AAAA")
        asked = lookup(server)
        good = await asked.ask()
        server.silent, server.rcode = way == "silent", None if way == "silent" else way
        return good, [await asked.ask() for _ in range(3)]

    good, failed = ask(scenario)
    assert [answer.found for answer in failed] == [good.found] * 3
    assert [answer.ttl for answer in failed] == [RETRY_S, 2 * RETRY_S, 4 * RETRY_S]
    assert all("orders.test" in answer.failure for answer in failed)


def test_a_family_that_fails_from_the_beginning_does_not_hold_up_the_other():
    async def scenario(server):
        server.failing = {"AAAA"}
        server.say("orders.test", "A", "10.0.0.1")
        asked = lookup(server)
        await asked.ask()
        server.say("orders.test", "A", "10.0.0.2")
        return await asked.ask()

    answer = ask(scenario)
    assert [found.address for found in answer.found] == ["10.0.0.2:8000"]
    assert "AAAA" in answer.failure
