"""Requests and responses look the same over TLS: the tests of test_http_messages.py once more."""

import ssl

import pytest
from e2e.test_http_messages import *  # noqa: F403
from fakes import documents
from fakes.certs import Authority

# What forwarded fields say of the scheme is another thing here: test_tls_clients.py.
del test_what_an_untrusted_client_says_about_itself_is_overwritten  # noqa: F821
del test_what_a_trusted_proxy_says_is_kept_and_extended  # noqa: F821

CA = Authority()
SITE = CA.leaf("site.test")


@pytest.fixture(scope="module")
def engine_options():
    context = ssl.create_default_context(cadata=CA.pem)
    tls = {"tls": documents.server_tls(SITE)}
    return {"listener": tls, "client": {"tls": context, "name": "site.test"}}
