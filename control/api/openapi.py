"""The OpenAPI 3.1 document of a table of routes."""

from __future__ import annotations

from collections.abc import Iterable
from http import HTTPStatus
from typing import Any

from pydantic import TypeAdapter
from pydantic.json_schema import JsonSchemaMode

from turnout import __version__
from turnout.control.api import problems
from turnout.control.api.routes import JSON, Route

TEMPLATE = "#/components/schemas/{model}"
DESCRIPTION = """\
Services and endpoints, their health, weights and shares, the configuration and the process, at run time.

A change returns once every worker has it. Errors are problem details (RFC 9457). Over TCP a bearer token says
who calls; on the unix socket it is the user.
"""
PARAMETERS: dict[str, tuple[str, dict[str, Any]]] = {
    "service": ("Full name of a service: `orders`, or `trading:orders` in a namespace.", {"type": "string"}),
    "address": (
        "Address of an endpoint, percent-encoded: `10.0.0.1:8000`, `unix:%2Frun%2Fapp.sock`.",
        {"type": "string"},
    ),
    "version": ("Version of the configuration.", {"type": "integer", "minimum": 1}),
    "token": ("Id of a token.", {"type": "string"}),
}
"""In paths."""
IF_MATCH = {
    "name": "If-Match",
    "in": "header",
    "description": "Only if this is still the ETag (412 otherwise).",
    "schema": {"type": "string"},
}
IF_NONE_MATCH = {
    "name": "If-None-Match",
    "in": "header",
    "description": "Answer 304 if this is still the ETag.",
    "schema": {"type": "string"},
}
IDEMPOTENCY_KEY = {
    "name": "Idempotency-Key",
    "in": "header",
    "description": "A retry with the same key and content within 24 hours gets the first answer again and "
    "changes nothing; with other content 422.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[\\x21-\\x7e]+$"},
}


def document(routes: Iterable[Route]) -> dict[str, Any]:
    table = list(routes)
    schemas, definitions = _schemas(table)
    paths: dict[str, dict[str, Any]] = {}
    for route in table:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, schemas)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Turnout", "version": __version__, "description": DESCRIPTION},
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {
            "schemas": definitions,
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
        },
    }


Key = tuple[str, JsonSchemaMode]


def _schemas(table: list[Route]) -> tuple[dict[Key, Any], dict[str, Any]]:
    """By route and mode, and the definitions that they refer to."""
    inputs: list[tuple[str, JsonSchemaMode, TypeAdapter[Any]]] = [
        ("problem", "serialization", TypeAdapter(problems.Problem))
    ]
    for route in table:
        if route.output is not None:
            inputs.append((route.key, "serialization", route.adapter))
        if route.input is not None:
            inputs.append((route.key, "validation", TypeAdapter(route.input)))
    schemas, rest = TypeAdapter.json_schemas(inputs, ref_template=TEMPLATE)
    return {(str(key), mode): schema for (key, mode), schema in schemas.items()}, rest.get("$defs", {})


def _operation(route: Route, schemas: dict[Key, Any]) -> dict[str, Any]:
    out: dict[str, Any] = {
        "operationId": operation_id(route),
        "summary": route.summary,
        "tags": [route.tag or "process"],
        "responses": _responses(route, schemas),
    }
    if route.notes:
        out["description"] = route.notes
    parameters = [*_path_parameters(route), *_query_parameters(route), *_headers(route)]
    if parameters:
        out["parameters"] = parameters
    if route.takes_body:
        schema = schemas.get((route.key, "validation"), {"type": "string"})
        out["requestBody"] = {
            "required": not _may_be_empty(route),
            "content": {route.consumes: {"schema": schema}},
        }
    if route.action is not None:
        out["security"] = [{"bearer": []}]
        out["x-action"] = route.action
    if route.deprecated:
        out["deprecated"] = True
    return out


def operation_id(route: Route) -> str:
    """Like get_v1_services_service."""
    words = route.path.replace("{", "").replace("}", "").replace(".", "/").strip("/").split("/")
    return "_".join([route.method.lower(), *words])


def _may_be_empty(route: Route) -> bool:
    return route.input is not None and not any(f.is_required() for f in route.input.model_fields.values())


def _path_parameters(route: Route) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "in": "path",
            "required": True,
            "description": PARAMETERS[name][0],
            "schema": PARAMETERS[name][1],
        }
        for name in route.parameters
    ]


def _query_parameters(route: Route) -> list[dict[str, Any]]:
    out = []
    for name, schema in route.query.model_json_schema(by_alias=True).get("properties", {}).items():
        schema = {key: value for key, value in schema.items() if key != "title"}
        said = schema.pop("description", "")
        out.append({"name": name, "in": "query", "description": said, "schema": _without_null(schema)})
    return out


def _without_null(schema: dict[str, Any]) -> dict[str, Any]:
    """A parameter is there or not: it is never null."""
    kinds: list[dict[str, Any]] = [kind for kind in schema.get("anyOf", ()) if kind != {"type": "null"}]
    if len(kinds) != 1:
        return schema
    return {key: value for key, value in schema.items() if key not in {"anyOf", "default"}} | kinds[0]


def _headers(route: Route) -> list[dict[str, Any]]:
    out = []
    if route.conditional:
        out.append(IF_MATCH if route.changes else IF_NONE_MATCH)
    if route.idempotent_by_key:
        out.append(IDEMPOTENCY_KEY)
    return out


def _responses(route: Route, schemas: dict[Key, Any]) -> dict[str, Any]:
    good: dict[str, Any] = {"description": "Done" if route.changes else "OK"}
    if route.output is not None:
        good["content"] = {JSON: {"schema": schemas[route.key, "serialization"]}}
    if route.produces != JSON:
        good["content"] = good.get("content", {}) | {route.produces: {"schema": {"type": "string"}}}
    if route.conditional:
        good["headers"] = {"ETag": {"description": "The revision.", "schema": {"type": "string"}}}
    out = {str(status): good for status in (route.status, *route.also)}
    if route.conditional and not route.changes:
        out["304"] = {"description": "Unchanged"}
    problem = {problems.CONTENT_TYPE: {"schema": schemas["problem", "serialization"]}}
    for status in route.statuses():
        out[str(status)] = {"description": HTTPStatus(status).phrase, "content": problem}
    return out
