"""Certificates from files: what is made of them, and what is said of those that cannot be used."""

import datetime
import json
import logging

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509 import ocsp
from fakes.certs import NOW, Authority, make_key

from turnout.ext.scoreboard import Scoreboard
from turnout.ext.snapshot import Snapshot
from turnout.proxy import certs, pem
from turnout.proxy.config import ConfigError, parse
from turnout.proxy.freeze import Freezer
from turnout.proxy.tickets import TURN_S, TicketKeys

CA = Authority()
SITE = CA.leaf("site.test", "*.wild.test", "10.0.0.1")
SITE_RSA = CA.leaf("SITE.test", kind="rsa")
OTHER = CA.leaf("other.test", "site.test")
REST = """
[services.app]
endpoints = ["10.0.0.1:80"]
[[routes]]
service = "app"
"""


@pytest.fixture
def board():
    out = Scoreboard.create(1, endpoints=8, groups=8, services=4, routes=8, listeners=4)
    yield out
    out.close()


@pytest.fixture
def freeze(board, tmp_path):
    """Freeze a configuration beside the files of `tmp_path`: the document."""
    file = str(tmp_path / "turnout.toml")
    freezer = Freezer(board, tmp_path, file=file)

    def freeze(text: str, rest: str = REST):
        raw = freezer.freeze(parse(text + rest, file), 1, files=True).whole
        Snapshot(raw)
        return json.loads(raw)

    freeze.freezer = freezer
    SITE.write(tmp_path)
    SITE_RSA.write(tmp_path, "rsa")
    OTHER.write(tmp_path, "other")
    (tmp_path / "ca.pem").write_text(CA.pem)
    return freeze


def listener(tls: str) -> str:
    return f'[listeners.web]\nbind = "127.0.0.1:8443"\ntls = {{ {tls} }}\n'


SITE_FILES = 'cert = "site.pem", key = "site.key"'


def problems(freeze, *text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        freeze(*text)
    return [f"{problem.where}: {problem.what}" for problem in caught.value.problems]


# ---- listeners


def test_files_beside_the_configuration_become_rows(freeze):
    document = freeze(listener(SITE_FILES))
    (row,) = document["listeners"]
    assert row["tls"]["certificates"] == [{"chain": SITE.chain, "key": SITE.key, "ocsp": ""}]
    assert row["tls"]["names"] == [["site.test", 0], ["*.wild.test", 0]]
    assert (row["tls"]["min"], row["tls"]["max"], row["tls"]["client"]) == ("1.2", "1.3", "off")
    assert row["hsts"] == ""
    assert [len(key) for key in document["ticket_keys"]] == [160]


def test_plain_configurations_carry_no_keys(freeze):
    document = freeze('[listeners.web]\nbind = "127.0.0.1:80"\n')
    assert (document["listeners"][0]["tls"], document["ticket_keys"]) == (None, [])


def test_certificates_for_one_name_serve_together_one_for_each_kind_of_key(freeze):
    more = ", ".join(f'{{ cert = "{name}.pem", key = "{name}.key" }}' for name in ("rsa", "other"))
    row = freeze(listener(f"{SITE_FILES}, certificates = [{more}]"))["listeners"][0]["tls"]
    assert row["contexts"] == [[0, 1], [0], [2]]
    assert row["names"] == [["site.test", 0], ["*.wild.test", 1], ["other.test", 2]]


def test_a_certificate_without_alternative_names_is_for_its_common_name():
    assert pem.names_of(CA.leaf(common="Plain.test").certificate) == ("plain.test",)
    assert pem.names_of(CA.leaf(common="Trader 7").certificate) == ()


def test_an_expired_certificate_is_served_with_a_warning(freeze, tmp_path, caplog):
    CA.leaf("site.test", ends=datetime.timedelta(days=-2)).write(tmp_path)
    with caplog.at_level(logging.WARNING):
        freeze(listener(SITE_FILES))
    assert "site.pem: the certificate expired on " in caplog.text


def test_client_certificates_need_their_authorities(freeze):
    text = f'{SITE_FILES}, client = {{ ca = "ca.pem", header = "X-Client" }}'
    row = freeze(listener(text))["listeners"][0]["tls"]
    assert (row["client"], row["client_ca"], row["client_header"]) == ("required", CA.pem, "X-Client")


@pytest.mark.parametrize(
    ("hsts", "policy"),
    [("true", "max-age=63072000"), ("false", ""), ('"max-age=60; includeSubDomains"',) * 2],
)
def test_hsts_is_a_policy_or_yes(freeze, hsts, policy):
    row = freeze(listener(f"{SITE_FILES}, hsts = {hsts}"))["listeners"][0]
    assert row["hsts"] == policy.strip('"')


def test_a_listener_redirects_all_but_its_own_routes_to_https(freeze):
    text = '[listeners.web]\nbind = "127.0.0.1:80"\nredirect_https = true\n'
    text += '[listeners.alt]\nbind = "127.0.0.1:81"\nredirect_https = 8443\n'
    own = '[[routes]]\nlistener = "web"\npath = "/.well-known/acme-challenge"\nrespond = { status = 404 }\n'
    routes = {row["name"]: row for row in freeze(text, REST + own)["routes"]}
    assert routes["*/"]["listeners"] == []
    assert routes["*/.well-known/acme-challenge"]["listeners"] == [0]
    assert routes["web: to HTTPS"]["location"] == "https://{host}{path}{query}"
    assert routes["alt: to HTTPS"]["location"] == "https://{host}:8443{path}{query}"
    assert {routes[f"{name}: to HTTPS"]["status"] for name in ("web", "alt")} == {308}


# ---- services


def service(endpoints: str, more: str = "") -> tuple[str, str]:
    rest = f'[services.app]\nendpoints = [{endpoints}]\n{more}\n[[routes]]\nservice = "app"\n'
    return '[listeners.web]\nbind = "127.0.0.1:80"\n', rest


def test_https_endpoints_are_verified_by_the_authorities_of_the_machine(freeze, tmp_path, monkeypatch):
    monkeypatch.setattr(certs, "system_authorities", lambda: str(tmp_path / "ca.pem"))
    endpoints = '"https://127.0.0.1:443", "http://127.0.0.2:80", { address = "127.0.0.3:80", tls = true }'
    document = freeze(*service(endpoints))
    assert [row["tls"] for row in document["members"]] == ["127.0.0.1", None, "127.0.0.3"]
    assert document["members"][0]["name"] == "127.0.0.1:443"
    assert document["services"][0]["tls"]["ca"] == CA.pem


def test_a_service_with_tls_has_endpoints_with_tls(freeze):
    more = 'tls = { ca = "ca.pem", name = "backend.test", cert = "site.pem", key = "site.key", min = "1.3" }'
    document = freeze(*service('"127.0.0.1:443", "unix:/run/app"', more))
    assert [row["tls"] for row in document["members"]] == ["backend.test"] * 2
    row = document["services"][0]["tls"]
    assert (row["verify"], row["chain"], row["key"], row["min"]) == (True, SITE.chain, SITE.key, "1.3")


def test_a_socket_without_a_name_cannot_be_verified():
    with pytest.raises(ConfigError, match="names no host to verify"):
        parse("".join(service('"unix:/run/app"', "tls = {}")), "turnout.toml")


# ---- what is wrong


@pytest.mark.parametrize(
    ("tls", "said"),
    [
        ('cert = "none.pem", key = "site.key"', '"none.pem" cannot be read: No such file or directory'),
        ('cert = "site.key", key = "site.key"', '"site.key" holds no certificate in PEM form'),
        ('cert = "site.pem", key = "other.key"', 'the key does not match the certificate "site.pem"'),
        ('cert = "site.pem", key = "site.pem"', "the key's file holds no private key in PEM form"),
        ('cert = "site.pem", key = "locked.key"', "the key is encrypted; give it without a passphrase"),
        ('cert = "turned.pem", key = "site.key"', "that is not the first; put it first"),
        (f'{SITE_FILES}, ocsp = "site.pem"', "is not a successful OCSP response in DER form"),
        (f'{SITE_FILES}, ocsp = "other.ocsp"', "is an OCSP response for another certificate"),
        (f'{SITE_FILES}, ciphers = "ROT13"', "names no cipher that OpenSSL knows"),
        (f'{SITE_FILES}, ciphersuites = "ROT13"', "is not a cipher suite of TLS 1.3"),
        (f'{SITE_FILES}, curves = "ellipse"', "is not a curve"),
        (f'{SITE_FILES}, client = {{ ca = "site.key" }}', '"site.key" holds no certificate in PEM form'),
    ],
)
def test_what_cannot_be_used_is_named(freeze, tmp_path, tls, said):
    locked = serialization.BestAvailableEncryption(b"secret")
    pem = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8)
    (tmp_path / "locked.key").write_bytes(make_key("ec").private_bytes(*pem, locked))
    (tmp_path / "turned.pem").write_text(CA.pem + SITE.chain)
    (tmp_path / "other.ocsp").write_bytes(response_for(OTHER))
    (found,) = problems(freeze, listener(tls))
    assert found.startswith("[listeners.web] tls")
    assert said in found


def test_a_good_ocsp_response_goes_with_its_certificate(freeze, tmp_path):
    response = response_for(SITE)
    (tmp_path / "site.ocsp").write_bytes(response)
    row = freeze(listener(f'{SITE_FILES}, ocsp = "site.ocsp"'))["listeners"][0]["tls"]
    assert bytes.fromhex(row["certificates"][0]["ocsp"]) == response


def response_for(leaf) -> bytes:
    built = ocsp.OCSPResponseBuilder().add_response(
        cert=leaf.certificate,
        issuer=CA.certificate,
        algorithm=hashes.SHA256(),
        cert_status=ocsp.OCSPCertStatus.GOOD,
        this_update=NOW,
        next_update=NOW + datetime.timedelta(days=1),
        revocation_time=None,
        revocation_reason=None,
    )
    named = built.responder_id(ocsp.OCSPResponderEncoding.NAME, CA.certificate)
    signed = named.sign(CA.key, hashes.SHA256())
    return signed.public_bytes(serialization.Encoding.DER)


def test_all_problems_are_told_at_once(freeze):
    text = listener('cert = "a.pem", key = "b.key", certificates = [{ cert = "c.pem", key = "site.key" }]')
    places = [found.partition(": ")[0] for found in problems(freeze, text)]
    assert places == [
        "[listeners.web] tls.cert",
        "[listeners.web] tls.key",
        "[listeners.web] tls.certificates[1].cert",
    ]


@pytest.mark.parametrize(
    ("tls", "said"),
    [
        ("", 'no certificate; write cert = "site.pem" and key = "site.key"'),
        ('cert = "site.pem"', "cert and key go together"),
        (f'{SITE_FILES}, min = "1.1"', '"1.1" is not one of 1.2, 1.3'),
        (f'{SITE_FILES}, min = "1.3", max = "1.2"', "is above max"),
        (f'{SITE_FILES}, client = {{ mode = "optional" }}', "client needs ca"),
        (f'{SITE_FILES}, client = {{ ca = "ca.pem", header = "Host" }}', "written by the proxy itself"),
        (f'{SITE_FILES}, hsts = "forever"', "is not a policy"),
        (f'{SITE_FILES}, sni = "strict"', "unknown key"),
    ],
)
def test_a_table_that_makes_no_sense_is_refused(tls, said):
    with pytest.raises(ConfigError) as caught:
        parse(listener(tls) + REST, "turnout.toml")
    assert said in str(caught.value)


RAW = (
    '[listeners.raw]\nbind = "127.0.0.1:9"\nprotocol = "tcp"\n[[routes]]\nlistener = "raw"\nservice = "app"\n'
)


def test_a_tcp_listener_ends_tls_and_starts_it(freeze):
    service = '[services.app]\nendpoints = ["https://127.0.0.1:443"]\ntls = { ca = "ca.pem" }\n'
    document = freeze(RAW.replace("[[routes]]", f"tls = {{ {SITE_FILES} }}\n[[routes]]") + service, "")
    assert document["listeners"][0]["tls"] is not None
    assert document["members"][0]["tls"] == "127.0.0.1"


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("hsts = true", "a field of HTTP answers"),
        ('client = { ca = "ca.pem", header = "X" }', "a field of HTTP"),
    ],
)
def test_what_only_http_has_is_refused_in_the_tls_of_a_tcp_listener(more, said):
    text = RAW.replace("[[routes]]", f"tls = {{ {SITE_FILES}, {more} }}\n[[routes]]")
    with pytest.raises(ConfigError, match=said):
        parse(text + '[services.app]\nendpoints = ["127.0.0.1:443"]\n', "turnout.toml")


def test_a_proxy_header_does_not_go_to_endpoints_over_tls():
    with pytest.raises(ConfigError, match="which is spoken to over TLS"):
        parse("".join(service('"https://127.0.0.1:443"', 'proxy_protocol = "v2"')), "turnout.toml")


def test_a_listener_cannot_both_speak_https_and_redirect_to_it():
    with pytest.raises(ConfigError, match="this one speaks HTTPS already"):
        parse(listener(SITE_FILES) + "redirect_https = true\n" + REST, "turnout.toml")


# ---- changes


def test_a_file_that_changes_is_seen(freeze, tmp_path):
    freeze(listener(SITE_FILES))
    files = freeze.freezer.files
    assert files.look() == files.seen
    CA.leaf("site.test").write(tmp_path)
    assert files.look() != files.seen
    freeze(listener(SITE_FILES))
    assert files.look() == files.seen
    (tmp_path / "site.pem").unlink()
    assert files.look() != files.seen


def test_ticket_keys_turn_and_the_last_three_stay():
    now = 0.0
    keys = TicketKeys(clock=lambda: now)
    first = keys.keys[0]
    assert not keys.due
    now = TURN_S
    assert keys.due
    keys.turn()
    assert not keys.due
    keys.turn()
    assert keys.keys[2] == first
    keys.turn()
    assert len(keys.keys) == 3
    assert first not in keys.keys
    assert TicketKeys(keys.keys).keys == keys.keys
