"""The merge: which source says what, and that what has not changed is not made anew."""

from dataclasses import replace

from turnout.control.registry.entries import EndpointEntry, Override, SplitSet
from turnout.control.registry.table import Merger, Registered
from turnout.proxy.config import parse
from turnout.proxy.model import Config, Endpoint, Service

TEXT = """
[listeners.web]
bind = "127.0.0.1:8080"

[services.app]
split = { v1 = 1, v2 = 1 }
endpoints = [{ address = "10.0.0.1:80", weight = 3 }, { address = "10.0.0.2:80", version = "v2" }]

[services.empty]

[[routes]]
service = "app"
"""


def file(text: str = TEXT) -> Config:
    return parse(text, "turnout.toml")


def entry(address: str, source: str = "api", service: str = "app", **fields) -> EndpointEntry:
    return EndpointEntry(service, Endpoint(address=address, **fields), source)


def some(*entries: EndpointEntry) -> dict[str, EndpointEntry]:
    return {one.address: one for one in entries}


def merge(text: str = TEXT, **registered: Registered):
    return Merger().merge(file(text), registered)


def addresses(service: Service) -> list[str]:
    return [endpoint.address for endpoint in service.endpoints]


def test_without_anything_registered_the_file_is_in_force():
    table = merge()
    assert table.config == file()
    assert [one.source for one in table.services.values()] == ["file", "file"]
    assert [one.source for one in table.services["app"].endpoints.values()] == ["file", "file"]


def test_endpoints_of_all_sources_stand_behind_each_other_in_their_order():
    sources = {"api": some(entry("10.0.0.3:80")), "dns": some(entry("10.0.0.4:80", "dns"))}
    table = merge(app=Registered(sources=sources), empty=Registered(sources=sources))
    assert addresses(table.config.services["app"]) == [f"10.0.0.{n}:80" for n in (1, 2, 3, 4)]
    assert addresses(table.config.services["empty"]) == ["10.0.0.3:80", "10.0.0.4:80"]


def test_of_two_sources_with_the_same_address_the_file_counts_before_the_api_and_that_before_dns():
    sources = {
        "api": some(entry("10.0.0.1:80", weight=7), entry("10.0.0.5:80", weight=7)),
        "dns": some(entry("10.0.0.5:80", "dns", weight=9), entry("10.0.0.1:80", "dns", weight=9)),
    }
    table = merge(app=Registered(sources=sources))
    entries = table.services["app"].endpoints
    assert (entries["10.0.0.1:80"].source, entries["10.0.0.1:80"].weight) == ("file", 3)
    assert (entries["10.0.0.5:80"].source, entries["10.0.0.5:80"].weight) == ("api", 7)
    assert len(table.config.services["app"].endpoints) == 3


def test_a_service_of_the_api_stands_beside_those_of_the_file_and_never_in_their_place():
    table = merge(
        app=Registered(settings=Service(balance="random")), new=Registered(settings=Service(balance="random"))
    )
    assert table.config.services["app"].balance == "round_robin"
    assert table.config.services["new"].balance == "random"
    assert (table.services["app"].source, table.services["new"].source) == ("file", "api")


def test_endpoints_of_a_service_that_nobody_has_are_not_in_force():
    assert "gone" not in merge(gone=Registered(sources={"api": some(entry("10.0.0.1:80"))})).config.services


def test_a_weight_set_at_run_time_counts_until_the_source_says_another():
    registered = Registered(overrides={"10.0.0.1:80": Override(weight=9, weight_said=3)})
    table = merge(app=registered)
    assert table.config.services["app"].endpoints[0].weight == 9
    assert table.services["app"].endpoints["10.0.0.1:80"].endpoint.weight == 3
    assert table.stale == ()
    table = merge(TEXT.replace("weight = 3", "weight = 4"), app=registered)
    assert table.config.services["app"].endpoints[0].weight == 4
    assert table.stale == (("app", "10.0.0.1:80"),)


def test_a_split_set_at_run_time_counts_until_the_source_says_another():
    registered = Registered(split=SplitSet({"v2": 1}, {"v1": 1, "v2": 1}))
    table = merge(app=registered)
    assert table.config.services["app"].split == {"v1": 0, "v2": 1}
    assert table.stale_splits == ()
    table = merge(TEXT.replace("v2 = 1 }", "v2 = 3 }"), app=registered)
    assert table.config.services["app"].split == {"v1": 1, "v2": 3}
    assert table.stale_splits == ("app",)


def test_the_state_of_an_endpoint_is_in_its_entry():
    table = merge(app=Registered(overrides={"10.0.0.2:80": Override(admin="drain", reason="x", by="me")}))
    one = table.services["app"].endpoints["10.0.0.2:80"]
    assert (one.admin, one.admin_reason, one.admin_by) == ("drain", "x", "me")


def test_what_does_not_fit_its_service_any_more_is_left_out_with_the_reason():
    sources = {"api": some(entry("unix:/run/a.sock"), entry("10.0.0.3:80"))}
    text = TEXT.replace("[services.empty]", '[services.empty]\nhost = "endpoint"')
    table = merge(text, empty=Registered(sources=sources))
    assert addresses(table.config.services["empty"]) == ["10.0.0.3:80"]
    assert "names no host" in table.services["empty"].endpoints["unix:/run/a.sock"].unfit


def test_what_a_udp_listener_leads_to_takes_no_unix_socket():
    text = TEXT + '[listeners.dns]\nbind = "127.0.0.1:53"\nprotocol = "udp"\n'
    text += '[[routes]]\nlistener = "dns"\nservice = "empty"\n'
    table = merge(text, empty=Registered(sources={"api": some(entry("unix:/a"), entry("1.2.3.4:53"))}))
    assert addresses(table.config.services["empty"]) == ["1.2.3.4:53"]
    assert "datagrams go to host:port" in table.services["empty"].endpoints["unix:/a"].unfit


def test_what_has_not_changed_is_the_same_object():
    merger, said = Merger(), file()
    registered = {
        "app": Registered(sources={"api": some(entry("10.0.0.3:80"))}),
        "empty": Registered(sources={"api": some(entry("10.0.0.4:80"))}),
    }
    before = merger.merge(said, registered)
    assert merger.merge(said, registered) is before
    more = some(*registered["app"].sources["api"].values(), entry("10.0.0.9:80"))
    after = merger.merge(said, {**registered, "app": replace(registered["app"], sources={"api": more})})
    assert after.config.services["empty"] is before.config.services["empty"]
    assert after.config.services["app"] is not before.config.services["app"]
    assert after.config.services["app"].endpoints[2] is before.config.services["app"].endpoints[2]
    assert after.services["app"].endpoints["10.0.0.1:80"] is before.services["app"].endpoints["10.0.0.1:80"]
