"""/openapi.json and /docs: what the table of routes says, for programs and for people."""

from __future__ import annotations

from functools import cache
from html import escape
from typing import Any

from pydantic_core import to_json

from turnout.control.api import openapi
from turnout.control.api.call import Call, Reply
from turnout.control.api.routes import JSON, Route

POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; frame-ancestors 'none'"
HEADERS = {
    "Content-Type": "text/html; charset=utf-8",
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
}
STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
code, pre { font: 13px/1.4 ui-monospace, monospace; }
details { border: 1px solid #8884; border-radius: 6px; margin: .4rem 0; padding: .4rem .8rem; }
summary { cursor: pointer; display: flex; gap: .8rem; flex-wrap: wrap; align-items: baseline; }
summary b { min-width: 4.2rem; } summary span { opacity: .75; }
table { border-collapse: collapse; margin: .5rem 0; width: 100%; }
th, td { text-align: left; vertical-align: top; padding: .2rem .8rem .2rem 0; }
td { border-bottom: 1px solid #8883; }
pre { background: #8881; padding: .6rem; overflow: auto; max-height: 24rem; border-radius: 4px; }
.old { text-decoration: line-through; }
"""


async def openapi_json(call: Call) -> Reply:
    return Reply(_document(call.api.routes), headers={"Content-Type": JSON})


async def docs(call: Call) -> Reply:
    return Reply(_page(call.api.routes), headers=HEADERS)


@cache
def _document(routes: tuple[Route, ...]) -> bytes:
    return to_json(openapi.document(routes))


@cache
def _page(routes: tuple[Route, ...]) -> bytes:
    return page(openapi.document(routes)).encode()


def page(document: dict[str, Any]) -> str:
    """An OpenAPI document as one page of HTML without scripts and without anything from elsewhere."""
    by_tag: dict[str, list[str]] = {}
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            by_tag.setdefault(operation["tags"][0], []).append(_operation(method, path, operation))
    info = document["info"]
    said = "".join(f"<p>{escape(text)}</p>" for text in info["description"].split("\n\n"))
    parts = [
        "<!doctype html><html lang=en><meta charset=utf-8>",
        "<meta name=viewport content='width=device-width'>",
        f"<title>{escape(info['title'])} API</title><style>{STYLE}</style>",
        f"<h1>{escape(info['title'])} API <small>{escape(info['version'])}</small></h1>{said}",
        "<p>For programs: <a href=/openapi.json>openapi.json</a></p>",
    ]
    for tag, operations in by_tag.items():
        parts += [f"<h2>{escape(tag)}</h2>", *operations]
    parts += ["<h2>Schemas</h2>", *map(_schema, document["components"]["schemas"].items())]
    return "\n".join(parts)


def _operation(method: str, path: str, operation: dict[str, Any]) -> str:
    old = " class=old" if operation.get("deprecated") else ""
    rows = [f"<p>{escape(operation['description'])}</p>"] if "description" in operation else []
    if "x-action" in operation:
        rows.append(f"<p>Needs the right <code>{escape(operation['x-action'])}</code>.</p>")
    if "parameters" in operation:
        rows.append(_table(("parameter", "in", ""), map(_parameter, operation["parameters"])))
    if "requestBody" in operation:
        kind, content = next(iter(operation["requestBody"]["content"].items()))
        rows.append(f"<p>Body <code>{kind}</code>: {_kind(content['schema'])}</p>")
    rows.append(_table(("status", "", "answer"), map(_response, operation["responses"].items())))
    head = (
        f"<b>{method.upper()}</b><code{old}>{escape(path)}</code><span>{escape(operation['summary'])}</span>"
    )
    return f"<details id='{operation['operationId']}'><summary>{head}</summary>{''.join(rows)}</details>"


def _parameter(parameter: dict[str, Any]) -> tuple[str, str, str]:
    said = escape(parameter.get("description", ""))
    return (
        f"<code>{escape(parameter['name'])}</code>",
        parameter["in"],
        f"{said} {_kind(parameter['schema'])}",
    )


def _response(item: tuple[str, dict[str, Any]]) -> tuple[str, str, str]:
    status, response = item
    kinds = [
        f"{_kind(content['schema'])} <code>{escape(kind)}</code>"
        for kind, content in response.get("content", {}).items()
    ]
    return status, escape(response["description"]), ", ".join(kinds)


def _kind(schema: dict[str, Any]) -> str:
    """A schema in a few words."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"<a href='#schema-{escape(name)}'>{escape(name)}</a>"
    return f"<code>{escape(to_json(schema).decode())}</code>" if schema else ""


def _table(heads: tuple[str, ...], rows: Any) -> str:
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table><tr>{''.join(f'<th>{head}</th>' for head in heads)}</tr>{body}</table>"


def _schema(item: tuple[str, dict[str, Any]]) -> str:
    name, schema = item
    text = to_json(schema, indent=2).decode()
    return (
        f"<details id='schema-{escape(name)}'><summary><code>{escape(name)}</code></summary>"
        f"<pre>{escape(text)}</pre></details>"
    )


ROUTES = (
    Route(
        "GET",
        "/openapi.json",
        "This API as an OpenAPI document",
        openapi_json,
        None,
        produces="application/json",
    ),
    Route("GET", "/docs", "This API as a page to read", docs, None, produces="text/html"),
)
