"""The API reference: a plain page made from the OpenAPI document, which loads nothing from other servers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from html import escape
from typing import Any

_EXAMPLES = {
    "/v1/predict": "curl -F images=@cat.jpg -F images=@dog.png {origin}/v1/predict\n"
    "curl --json '[[0, 255], [255, 0]]' {origin}/v1/predict\n"
    "curl -H 'Content-Type: text/csv' --data-binary @sales.csv {origin}/v1/predict\n"
    "curl -F series=@shop1.csv -F series=@shop2.csv {origin}/v1/predict",
}


def page(schema: Mapping[str, Any]) -> str:
    """Returns the page for an OpenAPI document made by FastAPI."""
    info = schema["info"]
    body = [
        f"<h1>{escape(info['title'])}</h1>",
        f'<p>{escape(info["description"])} The same as an OpenAPI document: <a href="openapi.json">openapi.json</a>. '
        '<a href=".">Try the server</a>.</p>',
    ]
    for path, methods in schema["paths"].items():
        body += [_operation(path, method, operation) for method, operation in methods.items()]
    body.append("<h2>Schemas</h2>")
    body += [
        _schema(name, content) for name, content in schema.get("components", {}).get("schemas", {}).items()
    ]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(info['title'])}: API</title>"
        '<link rel="icon" href="icon.svg"><link rel="stylesheet" href="page.css"></head>'
        f'<body class="reference"><main>{"".join(body)}</main></body></html>'
    )


def _operation(path: str, method: str, operation: Mapping[str, Any]) -> str:
    parts = [
        f"<h2><code>{method.upper()} {escape(path)}</code></h2><p>{escape(operation.get('description', ''))}</p>"
    ]
    if "security" in operation:
        parts.append("<p>Requires the key, if the server has one.</p>")
    if example := _EXAMPLES.get(path):
        parts.append(f"<pre>{escape(example.format(origin='http://127.0.0.1:8000'))}</pre>")
    for kind, content in operation.get("requestBody", {}).get("content", {}).items():
        shown = json.dumps(content["schema"], indent=2, ensure_ascii=False)
        parts.append(
            f"<details><summary>Body as <code>{escape(kind)}</code></summary><pre>{escape(shown)}</pre></details>"
        )
    rows = "".join(
        f"<tr><th>{status}</th><td>{escape(response['description'])}</td><td>{_content(response)}</td></tr>"
        for status, response in operation["responses"].items()
    )
    return f"<section>{''.join(parts)}<table>{rows}</table></section>"


def _content(response: Mapping[str, Any]) -> str:
    return ", ".join(
        _type(content.get("schema", {})) or f"<code>{escape(kind)}</code>"
        for kind, content in response.get("content", {}).items()
    )


def _schema(name: str, schema: Mapping[str, Any]) -> str:
    rows = "".join(
        f"<tr><th><code>{escape(key)}</code></th><td>{_type(value)}</td></tr>"
        for key, value in schema.get("properties", {}).items()
    )
    about = escape(schema.get("description", ""))
    return (
        f'<section id="{escape(name)}"><h3>{escape(name)}</h3><p>{about}</p><table>{rows}</table></section>'
    )


def _type(schema: Mapping[str, Any]) -> str:
    if "$ref" in schema:
        name = escape(schema["$ref"].rpartition("/")[2])
        return f'<a href="#{name}">{name}</a>'
    if "anyOf" in schema:
        return " or ".join(_type(one) for one in schema["anyOf"])
    if schema.get("type") == "array":
        return f"list of {_type(schema['items'])}" if "items" in schema else "list"
    return escape(schema.get("type", ""))
