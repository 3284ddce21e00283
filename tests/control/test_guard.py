"""Which requests a page in somebody's browser may have caused."""

import pytest
from multidict import CIMultiDict

from turnout.control import guard
from turnout.control.api.problems import ProblemError

NAMES = frozenset({"proxy7"})
JSON = {"Content-Type": "application/json"}


def refused(**headers: str) -> int:
    """The status of the refusal, 0 for none."""
    fields = CIMultiDict({name.replace("_", "-"): value for name, value in headers.items()})
    try:
        guard.check(fields, NAMES)
    except ProblemError as problem:
        return problem.status
    return 0


@pytest.mark.parametrize(
    "host", ["127.0.0.1:9900", "[::1]:9900", "localhost:9900", "10.1.2.3", "PROXY7:9900"]
)
def test_a_command_gets_through_by_address_or_own_name(host):
    assert refused(host=host, content_type="application/json; charset=utf-8") == 0


@pytest.mark.parametrize("host", ["evil.example:9900", "proxy7.evil.example", "", "localhost.evil.example"])
def test_a_foreign_name_that_points_here_is_refused(host):
    assert refused(host=host, content_type="application/json") == 403


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:8080", ""])
def test_a_page_of_another_origin_is_refused(origin):
    assert refused(host="127.0.0.1:9900", origin=origin, content_type="application/json") == 403


def test_a_page_of_the_listener_itself_gets_through():
    assert (
        refused(
            host="127.0.0.1:9900",
            origin="http://127.0.0.1:9900",
            sec_fetch_site="same-origin",
            content_type="application/json",
        )
        == 0
    )


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_what_a_browser_calls_cross_site_is_refused(site):
    assert refused(host="localhost", sec_fetch_site=site) == 403
