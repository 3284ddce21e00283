"""The OpenAPI document and the page: made of the table of routes, and true of a running server."""

import json
import re
from html.parser import HTMLParser

import hypothesis
import pytest
import schemathesis
from openapi_spec_validator import OpenAPIV31SpecValidator
from schemathesis import GenerationMode, checks

from turnout.control.access.roles import ACTIONS
from turnout.control.api.openapi import document
from turnout.control.api.table import ROUTES

checks.load_all_checks()
CHECKS = [
    checks.CHECKS.get_one(name)
    for name in (
        "not_a_server_error",
        "status_code_conformance",
        "content_type_conformance",
        "response_schema_conformance",
        "response_headers_conformance",
    )
]
REJECTED = checks.CHECKS.get_one("negative_data_rejection")
UNSUITED = {"/v1/stop", "/v1/upgrade", "/metrics"}
"""They end the server or are of another format."""
EXAMPLES = 12


def test_the_document_is_valid_openapi():
    OpenAPIV31SpecValidator(document(ROUTES)).validate()


def test_every_action_is_one_of_the_table_of_roles():
    assert {route.action for route in ROUTES} - {None} <= ACTIONS.keys()


def test_names_of_operations_are_unique():
    operations = [one["operationId"] for path in document(ROUTES)["paths"].values() for one in path.values()]

    assert len(set(operations)) == len(operations) == len(ROUTES)


def test_the_document_is_served_to_everybody(served):
    answer = served.get("/openapi.json", Host="proxy.example")

    assert (answer.status, answer.headers["Content-Type"]) == (200, "application/json")
    assert answer.body == json.loads(json.dumps(document(ROUTES)))


class Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))


def test_the_page_names_every_route_and_loads_nothing(served):
    answer = served.get("/docs")
    page = Page()
    page.feed(answer.raw.decode())

    assert answer.headers["Content-Security-Policy"].startswith("default-src 'none'")
    assert not {tag for tag, _ in page.tags} & {"script", "link", "img", "iframe"}
    assert not any("src" in attributes for _, attributes in page.tags)
    for route in ROUTES:
        assert re.search(
            rf"<b>{route.method}</b><code[^>]*>{re.escape(route.path)}</code>", answer.raw.decode()
        )


def operations():
    """Without the need for a token, which has tests of its own: what else is wrong would not be seen."""
    open_to_all = document(ROUTES)
    for path in open_to_all["paths"].values():
        for operation in path.values():
            operation.pop("security", None)
    schema = schemathesis.openapi.from_dict(open_to_all)
    refusing = {route.key for route in ROUTES if route.has_query or route.takes_body}
    return [
        pytest.param(found.ok(), mode, id=f"{found.ok().label} {mode.value}")
        for found in schema.get_all_operations()
        for mode in GenerationMode
        if found.ok().path not in UNSUITED
        and (mode is GenerationMode.POSITIVE or found.ok().label in refusing)
    ]


@schemathesis.serializer("application/toml")
def as_text(_context, value):
    return value if isinstance(value, bytes) else str(value).encode(errors="surrogatepass")


def is_refused(context, response, case):
    """412 refuses as well: If-Match is looked at first where only the registry knows what is right."""
    return True if response.status_code == 412 else REJECTED(context, response, case)


@pytest.mark.parametrize(("operation", "mode"), operations())
def test_whatever_is_sent_is_answered_as_documented(served, operation, mode):
    """What is valid by the document, and what is not: that is refused."""
    wanted = CHECKS if mode is GenerationMode.POSITIVE else [*CHECKS, is_refused]

    @hypothesis.seed(1)
    @hypothesis.settings(
        max_examples=EXAMPLES,
        database=None,
        suppress_health_check=list(hypothesis.HealthCheck),
        phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate],
    )
    @hypothesis.given(case=operation.as_strategy(generation_mode=mode))
    def answered(case):
        if operation.path == "/v1/events" and mode is GenerationMode.POSITIVE:
            case.query = {**(case.query or {}), "follow": "false"}
        case.call_and_validate(base_url=served.url, checks=wanted, timeout=10)

    answered()
