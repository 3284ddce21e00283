"""What is said of a file that cannot be used: place, value, and what would be right."""

from pathlib import Path

import pytest

from turnout.proxy.config import ConfigError, load, parse
from turnout.proxy.model import Config

WEB = '[listeners.web]\nbind = "127.0.0.1:8080"\n'
APP = '[services.app]\nendpoints = ["10.0.0.1:80"]\n'
ROUTE = '[[routes]]\npath = "/"\nservice = "app"\n'
GOOD = WEB + APP + ROUTE


def said(text: str) -> list[str]:
    """Everything that is said of a file, without its name."""
    with pytest.raises(ConfigError) as error:
        parse(text, "f.toml")
    return [str(problem).removeprefix("f.toml:").removeprefix(" ") for problem in error.value.problems]


def listener(more: str) -> str:
    return WEB + more + "\n" + APP + ROUTE


def service(more: str) -> str:
    return WEB + APP + more + "\n" + ROUTE


def route(more: str) -> str:
    return GOOD + more + "\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        # kinds of values
        (
            "[proxy]\nworkers = true\n" + GOOD,
            '2: [proxy] workers: true: workers is "auto" (one per CPU) or a',
        ),
        ('[proxy]\nworkers = "8"\n' + GOOD, '2: [proxy] workers: "8": workers is "auto" (one per CPU) or a'),
        (
            "[proxy]\nstate = 7\n" + GOOD,
            '2: [proxy] state: 7 is not a string; write it in quotes, like "text"',
        ),
        (
            "[proxy]\ngrace = 30\n" + GOOD,
            '2: [proxy] grace: 30: a duration is a string with a unit, like "500ms"',
        ),
        (
            '[proxy]\nbuffers = "x"\n' + GOOD,
            '2: [proxy] buffers: "x": a size is a string with a unit, like "512B"',
        ),
        ('[proxy]\nbuffers = "1kB"\n' + GOOD, '2: [proxy] buffers: "1kB" must be at least 1MB'),
        (
            "[proxy]\naccess_log = {errors = 1}\n" + GOOD,
            "2: [proxy] access_log.errors: 1 is not true or false",
        ),
        ("[proxy]\naccess_log = {sample = 2}\n" + GOOD, "2: [proxy] access_log.sample: 2 must be at most 1"),
        (listener('trusted = "::1"'), '3: [listeners.web] trusted: "::1" is not a list; write [ ... ]'),
        (
            listener('timeouts = "1s"'),
            '3: [listeners.web] timeouts: "1s" is not a table; write { key = value }',
        ),
        (
            service("limits = { connections = 1.5 }"),
            "5: [services.app] limits.connections: 1.5 is not a whole number",
        ),
        (service("limits = { queue = -1 }"), "5: [services.app] limits.queue: -1 must be at least 0"),
        (service('split = { v1 = "1" }'), '5: [services.app] split.v1: "1" is not a number'),
        (service("split = { v1 = nan }"), "5: [services.app] split.v1: nan is not a finite number"),
        (service('balance = "least_conn"'), 'consistent_hash; did you mean "least_connections"?'),
        (
            WEB + APP + '[routes]\npath = "/"\n',
            "5: [[routes]]: is not a list of tables; write [[routes]], in double",
        ),
        ("listeners = 3\n" + APP + ROUTE, "1: [listeners]: 3 is not a table; write { key = value }"),
        # unknown keys
        (
            listener('limts = { head = "1kB" }'),
            '3: [listeners.web] limts: unknown key; did you mean "limits"?',
        ),
        (
            listener('limits = { hed = "1kB" }'),
            '3: [listeners.web] limits.hed: unknown key; did you mean "head"?',
        ),
        (
            route("request_headers = { add = {} }"),
            "8: [[routes]] 1 request_headers.add: unknown key; known here: remove, set",
        ),
        (GOOD + "[servces.x]\na = 1\n", '8: [servces]: unknown key; did you mean "services"?'),
        (
            listener('tls = { cert = "a" }'),
            "3: [listeners.web] tls: cert and key go together",
        ),
        # health checks
        (
            service('health = { path = "health" }'),
            '5: [services.app] health.path: "health": a path starts with "/"',
        ),
        (
            service('health = { interval = "2" }'),
            '5: [services.app] health.interval: "2": a duration is a string with a unit',
        ),
        (
            service('health = { interval = "1ms" }'),
            '5: [services.app] health.interval: "1ms": times of a health check are from 10ms',
        ),
        (
            service('health = { timeout = "3s" }'),
            "5: [services.app] health: timeout must not be longer than interval",
        ),
        (
            service('health = { status = ["20"] }'),
            '5: [services.app] health.status: "20" is not a status like "204", a range like',
        ),
        (service('health = { status = ["299-200"] }'), '"299-200" is a range that ends before it begins'),
        (
            service('health = { path = "/", send = "x" }'),
            "5: [services.app] health: send means nothing to a check of type http",
        ),
        (
            service('health = { type = "tcp", path = "/" }'),
            "health: path means nothing to a check of type tcp",
        ),
        (
            service('health = { type = "http", tls = {} }'),
            "health: tls means nothing to a check of type http",
        ),
        (
            service('health = { type = "udp" }'),
            "health: a check of type udp needs send, the datagram to be answered",
        ),
        (service('health = { type = "exec" }'), "health: a check of type exec needs exec = ["),
        (service('health = { type = "ttl" }'), 'health: a check of type ttl needs ttl = "15s"'),
        (service('health = { ttl = "5s", fall = 2 }'), "health: fall means nothing to a check of type ttl"),
        (service('health = { type = "htp" }'), 'did you mean "http"?'),
        (service('health = { pattern = "a(" }'), '"a(" is not a regular expression'),
        (
            service("health = { values = { status = 1 } }"),
            '"status" is not a JSON pointer; write it like "/status"',
        ),
        (service('health = { send = "hex:0" }'), "has no bytes in it; write two hex digits for each"),
        (
            service('health = { headers = { Host = "a" } }'),
            '"Host" is written by the check itself; say host = "NAME"',
        ),
        (service("health = { rise = 0 }"), "5: [services.app] health.rise: 0 must be at least 1"),
        (
            service('health = { path = "/", intervall = "2s" }'),
            'health.intervall: unknown key; did you mean "interval"?',
        ),
        # addresses and names
        (
            GOOD.replace("127.0.0.1:8080", "0.0.0.0"),
            '2: [listeners.web] bind: "0.0.0.0" is not an address to listen on',
        ),
        (
            GOOD.replace("10.0.0.1:80", "10.0.1:80"),
            '4: [services.app] endpoints[1]: "10.0.1:80" has no valid IP',
        ),
        (
            GOOD.replace("10.0.0.1:80", "[1::2::3]:80"),
            '4: [services.app] endpoints[1]: "[1::2::3]:80" has no valid IP',
        ),
        (
            GOOD.replace('"10.0.0.1:80"', "80"),
            '4: [services.app] endpoints[1]: 80: an endpoint is "host:port" or a table',
        ),
        (
            GOOD.replace('"10.0.0.1:80"', '"a:1", "a:1"'),
            '3: [services.app]: the endpoint "a:1" stands there twice',
        ),
        (
            GOOD.replace("services.app", 'services."a/b"'),
            '3: [services."a/b"]: "a/b" is not a name for a service; use up to 64',
        ),
        (
            GOOD.replace("services.app", 'services."default:app"'),
            'is in the namespace that needs no name; write "app"',
        ),
        (
            GOOD.replace("services.app", 'services."a:b:c"'),
            '3: [services."a:b:c"]: "a:b:c" is not a name for a service',
        ),
        (
            GOOD.replace("[services.app]", '[services.app]\ndiscover = { dns = "a:1", srv = "_x._tcp.y" }'),
            'services.app] discover: say dns = "host:port" or srv =',
        ),
        (
            GOOD.replace("[services.app]", '[services.app]\ndiscover = { srv = "y" }'),
            'discover.srv: "y" is no name of SRV records',
        ),
        (
            '[control]\nstate = "mysql://x"\n' + GOOD,
            '2: [control] state: "mysql://x" is no place for state; write "sqlite"',
        ),
        (
            '[control]\nlisten = "0.0.0.0:9900"\nauth = "none"\n' + GOOD,
            '1: [control]: auth = "none" with listen = "0.0.0.0:9900": whoever reaches it',
        ),
        (
            "[control]\nallow_remote = true\n" + GOOD,
            '2: [control] allow_remote: is gone: listen may be any address, because auth = "tokens"',
        ),
        (
            '[control]\nsocket = "/run/a.sock"\n' + GOOD,
            '2: [control] socket: "/run/a.sock" is no place for a unix socket; write "auto",',
        ),
        (
            '[control]\nlisten = "unix:/run/a.sock"\nsocket = "unix:/run/a.sock"\n' + GOOD,
            '1: [control]: socket and listen are both "unix:/run/a.sock"',
        ),
        (
            '[control]\nlisten = "unix:/run/a.sock"\ntls = { cert = "a", key = "a" }\n' + GOOD,
            "1: [control]: tls is for TCP",
        ),
        (
            '[control]\n[control.clients.ci]\nrole = "viewer"\n' + GOOD,
            "1: [control]: clients are known by certificates; tls needs client_ca",
        ),
        (
            '[control.clients.ci]\nrole = "root"\n' + GOOD,
            '2: [control] clients.ci.role: "root" is not one of viewer, operator, deployer, admin',
        ),
        (
            '[control.clients.ci]\nrole = "viewer"\nnamespaces = ["a b"]\n' + GOOD,
            '3: [control] clients.ci.namespaces: "a b" is no namespace',
        ),
        (
            '[control]\nsocket = "unix:/run/a.sock"\n[listeners.web]\nbind = "unix:/run/a.sock"\n'
            + APP
            + ROUTE,
            '4: [listeners.web] bind: "unix:/run/a.sock" is bound by [control] socket',
        ),
        (
            listener('trusted = ["10.0.0.0/33"]'),
            '3: [listeners.web] trusted: "10.0.0.0/33" is not a network; write an',
        ),
        # services
        (service('split = { "a b" = 1 }'), '3: [services.app]: "a b" is not a version; use up to 64'),
        (
            service("split = { v1 = 0 }"),
            "3: [services.app]: the shares of split add up to 0; one of them must be above",
        ),
        (
            service('sticky = { cookie = "a", source = true }'),
            '5: [services.app] sticky: say cookie = "NAME" or source',
        ),
        (
            service('sticky = { cookie = "a", same_site = "None" }'),
            "is accepted by browsers only with secure = true",
        ),
        (
            service('sticky = { cookie = "a", ttl = "0s" }'),
            'sticky.ttl: "0s": a time of 0 leaves none; write "off" for no',
        ),
        (
            service('hash = { key = "cookie:" }'),
            '5: [services.app] hash.key: "cookie:": key is "source", "path", "header:NAME"',
        ),
        (
            service('breaker = { on = ["5x"] }'),
            '5: [services.app] breaker.on: "5x" is not one of connect, timeout, reset, a',
        ),
        (
            service('retries = { methods = ["get"] }'),
            '5: [services.app] retries.methods: "get" is not one of GET, HEAD, POST',
        ),
        # routes
        (
            GOOD.replace('"app"', '"ap"'),
            '7: [[routes]] 1 service: no service is named "ap"; did you mean "app"?',
        ),
        (
            route('listener = "web2"'),
            '8: [[routes]] 1 listener: no listener is named "web2"; did you mean "web"?',
        ),
        (
            route("respond = {}"),
            "5: [[routes]] 1: a route needs exactly one of service, respond, redirect; this one has",
        ),
        (
            GOOD.replace('path = "/"', 'path = "/a?b"'),
            '6: [[routes]] 1 path: "/a?b": a path starts with "/" and has neither',
        ),
        (
            route('host = "a.com:80"'),
            '8: [[routes]] 1 host: "a.com:80": a host is a name without port, like "api.example',
        ),
        (route('name = "a\\nb"'), r'8: [[routes]] 1 name: "a\nb": a route'),
        (
            route('headers = { X = "a\\u0000" }'),
            '8: [[routes]] 1 headers: the value of "X" has a character that may not',
        ),
        (
            route('request_headers = { set = { Host = "a" } }'),
            '"Host" is written by the proxy itself and cannot be edited',
        ),
        (
            route('[[routes]]\nredirect = { to = "/{x}" }'),
            '9: [[routes]] 2 redirect.to: "/{x}": "{x}" is unknown; use',
        ),
        (route('[[routes]]\nservice = "app"'), "8: [[routes]] 2: matches exactly what route 1 matches"),
        (route('[[routes]]\npath = "/%2fa"\nservice = "app"'), "9: [[routes]] 2 path:"),
        # the whole
        ("", '[listeners]: no listener; write a table [listeners.web] with bind = "0.0.0.0:8080"'),
        ("a = [\n", "is not TOML:"),
        ("a = 1\na = 2\n", "2: is not TOML: Cannot overwrite a value"),
        (
            WEB + WEB.replace("web", "web2") + APP + ROUTE,
            '4: [listeners.web2] bind: "127.0.0.1:8080" is bound by',
        ),
    ],
)
def test_a_mistake_is_named_with_its_line_and_what_would_be_right(text, message):
    assert any(message in line for line in said(text)), said(text)


def test_all_mistakes_are_named_at_once_in_the_order_of_the_file():
    text = GOOD.replace("bind", "bnd").replace('["10', '[5, "10').replace('service = "app"', 'service = "ap"')

    assert [line.split(":")[0] for line in said(text)] == ["1", "2", "4", "7"]


def test_a_long_value_is_cut_short_in_the_message():
    assert all(len(line) < 300 for line in said(route(f'name = "{"a" * 5000}"')))


@pytest.mark.parametrize(
    "listen", ["127.0.0.1:9900", "[::1]:9900", "localhost:9900", "unix:/run/turnout.sock"]
)
def test_the_control_listener_may_be_where_only_this_machine_reaches_it(listen):
    assert parse(f'[control]\nlisten = "{listen}"\n{GOOD}', "f").control.listen == listen


@pytest.mark.parametrize("listen", ["0.0.0.0:9900", ":9900", "[::]:9900", "10.0.0.1:9900", "proxy7:9900"])
def test_anywhere_else_it_asks_who_you_are(listen):
    with pytest.raises(ConfigError, match='auth = "tokens"'):
        parse(f'[control]\nlisten = "{listen}"\nauth = "none"\n{GOOD}', "f")

    assert parse(f'[control]\nlisten = "{listen}"\n{GOOD}', "f").control.auth == "tokens"


@pytest.mark.parametrize(
    ("content", "message"), [(b"\xff", "is not UTF-8 at byte 0"), (None, "cannot be read: No such")]
)
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, content, message):
    file = tmp_path / "f.toml"
    if content is not None:
        file.write_bytes(content)

    with pytest.raises(ConfigError, match=f"{file}: {message}"):
        load(file)


def test_a_configuration_as_json_is_read_back_as_the_same():
    config = load(Path(__file__).parent / "whole.toml")

    assert Config.model_validate_json(config.model_dump_json()) == config
