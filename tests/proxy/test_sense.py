"""Configuration where no HTTP is spoken."""

import pytest

from turnout.proxy.config import ConfigError, parse

LISTENERS = """
[listeners.web]
bind = "127.0.0.1:8080"
[listeners.fix]
bind = "127.0.0.1:9001"
protocol = "tcp"
"""
SERVICE = """
[services.gate]
endpoints = ["10.0.0.1:9001"]
"""
ROUTE = """
[[routes]]
listener = "fix"
service = "gate"
"""
WEB = """
[[routes]]
service = "gate"
"""


def problems(text):
    with pytest.raises(ConfigError) as error:
        parse(text, "t.toml")
    return [(problem.where, problem.what) for problem in error.value.problems]


def test_a_tcp_listener_with_a_route_of_its_own_is_fine():
    config = parse(LISTENERS + SERVICE + ROUTE + WEB, "t.toml")
    assert config.listeners["fix"].protocol == "tcp"


def test_a_tcp_route_may_name_a_server_name_and_how_it_is_logged():
    parse(LISTENERS + SERVICE + ROUTE + 'host = "*.example.com"\nname = "fix"\nlog = { sample = 0.5 }\n', "t")


@pytest.mark.parametrize(
    ("line", "key"),
    [
        ('path = "/x"', "path"),
        ('methods = ["GET"]', "methods"),
        ('headers = { a = "b" }', "headers"),
        ("strip_prefix = true", "strip_prefix"),
        ('rewrite = "/x"', "rewrite"),
        ('upgrade = ["websocket"]', "upgrade"),
        ('request_headers = { set = { a = "b" } }', "request_headers"),
        ('response_headers = { set = { a = "b" } }', "response_headers"),
    ],
)
def test_what_only_requests_have_is_refused_in_a_tcp_route(line, key):
    ((where, what),) = problems(LISTENERS + SERVICE + ROUTE + line + "\n")
    assert where == f"[[routes]] 1 {key}"
    assert 'listener "fix" speaks no HTTP' in what


def test_an_answer_of_the_proxys_own_is_refused_in_a_tcp_route():
    text = (
        LISTENERS + SERVICE + ROUTE + '[[routes]]\nlistener = "fix"\nhost = "a"\nrespond = { status = 200 }\n'
    )
    ((where, what),) = problems(text)
    assert where == "[[routes]] 2 respond"
    assert "host, listener, log, name, service" in what


def test_two_tcp_routes_for_the_same_server_name_are_refused():
    ((where, what),) = problems(LISTENERS + SERVICE + (ROUTE + 'host = "a.b"\n') * 2)
    assert (where, what) == ("[[routes]] 2", "matches exactly what route 1 matches")


def test_a_tcp_listener_to_which_no_route_belongs_is_refused():
    ((where, what),) = problems(LISTENERS + SERVICE + WEB)
    assert where == "[listeners.fix]"
    assert 'listener = "fix"' in what


def test_a_route_without_listener_needs_an_http_listener():
    only = LISTENERS[LISTENERS.index("[listeners.fix]") :]
    ((where, what),) = problems(only + SERVICE + ROUTE + WEB)
    assert where == "[[routes]] 2 listener"
    assert "say fix" in what


@pytest.mark.parametrize(
    ("line", "key"),
    [
        ('forwarded = ["forwarded"]', "forwarded"),
        ('timeouts = { body = "1s" }', "timeouts.body"),
        ('limits = { line = "1kB" }', "limits.line"),
    ],
)
def test_what_only_http_listeners_have_is_refused(line, key):
    ((where, what),) = problems(LISTENERS + line + "\n" + SERVICE + ROUTE + WEB)
    assert (where, what) == (f"[listeners.fix] {key}", "means nothing to a TCP listener")


@pytest.mark.parametrize(
    ("line", "key"),
    [
        ('sticky = { cookie = "c" }', "sticky.cookie"),
        ('balance = "consistent_hash"\nhash = { key = "header:x" }', "hash.key"),
        ('balance = "consistent_hash"\nhash = { key = "path" }', "hash.key"),
        ('host = "endpoint"', "host"),
    ],
)
def test_what_only_requests_have_is_refused_in_a_service_for_connections(line, key):
    ((where, _),) = problems(LISTENERS + SERVICE + line + "\n" + ROUTE + respond())
    assert where == f"[services.gate] {key}"
    parse(LISTENERS + SERVICE + line + "\n" + ROUTE + WEB, "t.toml")


def respond():
    return "[[routes]]\nrespond = { status = 200 }\n"


def test_sticky_by_source_is_for_connections_too():
    text = SERVICE + 'sticky = { source = true }\nbalance = "consistent_hash"\n'
    parse(LISTENERS + text + ROUTE + respond(), "t.toml")


def test_a_proxy_header_is_taken_from_somebody():
    text = LISTENERS + "proxy_protocol = true\n" + SERVICE + ROUTE + WEB
    ((where, what),) = problems(text)
    assert where == "[listeners.fix] proxy_protocol"
    assert "trusted" in what
    parse(text.replace("proxy_protocol = true", 'proxy_protocol = true\ntrusted = ["10.0.0.0/8"]'), "t.toml")


def test_an_endpoint_gets_a_proxy_header_of_a_known_version():
    parse(LISTENERS + SERVICE + 'proxy_protocol = "v2"\n' + ROUTE + WEB, "t.toml")
    ((where, what),) = problems(LISTENERS + SERVICE + 'proxy_protocol = "v3"\n' + ROUTE + WEB)
    assert where == "[services.gate] proxy_protocol"
    assert "v1, v2" in what


@pytest.mark.parametrize("name", ["h2c", "H2C", "h2", "", "web socket"])
def test_a_protocol_to_upgrade_to_is_a_name_and_not_http_2(name):
    ((where, what),) = problems(LISTENERS + SERVICE + ROUTE + WEB + f'upgrade = ["{name}"]\n')
    assert where == "[[routes]] 2 upgrade"
    assert "websocket" in what


# ---- datagrams ---------------------------------------------------------------------------------------------

UDP = """
[listeners.feed]
bind = "127.0.0.1:5300"
protocol = "udp"
LISTENER
[services.quotes]
endpoints = ["10.0.0.1:5300"]
SERVICE
[[routes]]
listener = "feed"
service = "quotes"
ROUTE
"""


def datagrams(**lines):
    text = UDP
    for place in ("listener", "service", "route"):
        text = text.replace(place.upper(), lines.get(place, ""))
    return text


def test_a_udp_listener_says_how_it_takes_datagrams_and_how_many_sessions_it_has():
    parse(
        datagrams(
            listener="udp = { sessions = true, responses = 1 }\nlimits = { connections = 10 }",
            service='timeouts = { session = "5s", tunnel_drain = "1s" }\nsticky = { source = true }',
            route='name = "quotes"\nlog = { sample = 0.5 }',
        ),
        "t.toml",
    )


@pytest.mark.parametrize(
    ("place", "line", "where", "what"),
    [
        ("listener", "backlog = 10", "[listeners.feed] backlog", "means nothing to a UDP listener"),
        (
            "listener",
            'trusted = ["10.0.0.0/8"]',
            "[listeners.feed] trusted",
            "means nothing to a UDP listener",
        ),
        ("listener", 'forwarded = ["forwarded"]', "[listeners.feed] forwarded", "means nothing to a UDP"),
        (
            "listener",
            'timeouts = { header = "1s" }',
            "[listeners.feed] timeouts.header",
            "means nothing to a UDP",
        ),
        ("listener", 'limits = { line = "1kB" }', "[listeners.feed] limits.line", "means nothing to a UDP"),
        ("listener", "limits = { connections = -1 }", "[listeners.feed] limits.connections", ""),
        ("listener", "udp = { responses = -1 }", "[listeners.feed] udp.responses", ""),
        ("listener", 'udp = { sessions = "no" }', "[listeners.feed] udp.sessions", ""),
        ("listener", "udp = { session = true }", "[listeners.feed] udp.session", "sessions"),
        ("service", 'host = "endpoint"', "[services.quotes] host", "none comes to this service"),
        ("service", 'sticky = { cookie = "c" }', "[services.quotes] sticky.cookie", "source = true"),
        ("service", 'proxy_protocol = "v2"', "[services.quotes] proxy_protocol", "UDP has none"),
        ("service", 'timeouts = { session = "soon" }', "[services.quotes] timeouts.session", "soon"),
        ("route", 'path = "/x"', "[[routes]] 1 path", "routes take listener, log, name, service"),
        ("route", 'host = "a.b"', "[[routes]] 1 host", "routes take listener, log, name, service"),
        ("route", 'methods = ["GET"]', "[[routes]] 1 methods", "speaks no HTTP"),
    ],
)
def test_what_means_nothing_to_datagrams_is_refused_where_it_stands(place, line, where, what):
    found = dict(problems(datagrams(**{place: line})))
    assert what in found[where]
    assert all(where.startswith(other) for other in found)


@pytest.mark.parametrize(
    ("old", "new", "where", "what"),
    [
        ('"127.0.0.1:5300"', '"unix:/run/feed"', "[listeners.feed] bind", "UDP needs an address"),
        ('"10.0.0.1:5300"', '"unix:/run/x"', "[services.quotes] endpoints[1]", "datagrams go to host:port"),
        ('"10.0.0.1:5300"', '"https://10.0.0.1:5300"', "[services.quotes]", "cannot be put into TLS"),
        ('protocol = "udp"', 'protocol = "dup"', "[listeners.feed] protocol", "udp"),
        ('listener = "feed"', "", "[[routes]] 1 listener", "say feed"),
    ],
)
def test_datagrams_that_could_not_go_where_they_are_sent_are_refused(old, new, where, what):
    found = dict(problems(datagrams().replace(old, new)))
    assert what in found[where]


def test_a_service_takes_datagrams_or_connections():
    text = datagrams() + LISTENERS + '[[routes]]\nlistener = "fix"\nservice = "quotes"\n' + WEB + SERVICE
    assert (
        "[services.quotes]",
        "takes datagrams and connections; give each kind a service of its own",
    ) in problems(text)


def test_what_only_datagrams_have_is_refused_elsewhere():
    for name in ("web", "fix"):
        text = LISTENERS.replace(f"[listeners.{name}]", f"[listeners.{name}]\nudp = {{ responses = 1 }}")
        ((where, _),) = problems(text + SERVICE + ROUTE + WEB)
        assert where == f"[listeners.{name}] udp"


def test_tcp_and_udp_may_have_the_same_address_and_two_of_a_kind_may_not():
    other = """
    [listeners.other]
    bind = "127.0.0.1:5300"
    protocol = "{}"
    [[routes]]
    listener = "other"
    service = "{}"
    """
    parse(datagrams() + other.format("tcp", "gate") + SERVICE, "t.toml")
    found = dict(problems(datagrams() + other.format("udp", "quotes")))
    assert "[listeners.other] bind" in found
