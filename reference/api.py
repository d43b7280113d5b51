"""docs/api.md: the routes that the gateway answers itself, from the document that it serves at /openapi.json."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from gateway import __version__
from gateway.wire.dialects import Dialect
from gateway.wire.openapi import document
from reference.tables import WRITTEN, table

Json = dict[str, Any]

INTRO = """
What the gateway answers itself. Every other path is the model server's, and [passes through](requests.md#pass-through).
A running gateway serves this as OpenAPI 3.1 at `/openapi.json` on both ports, for the dialect and the settings in force;
statuses that are not listed (`default`) are a backend's, passed on. The admin port has an API of its own: [the page](page.md#the-api-under-it).

How to call it: [quickstart](quickstart.md#use-it). What holds beyond the form of requests and answers: [behaviour](behaviour.md).
What each error code means: [error codes](error-codes.md)."""


class _Document:
    """The document, with what it refers to."""

    def __init__(self) -> None:
        raw = document(
            version=__version__, base_path="/v1", dialect=Dialect.OPENAI, accepts_store_false=False
        )
        self.page: Json = json.loads(raw)

    def resolved(self, part: Json) -> Json:
        while "$ref" in part:
            found: Any = self.page
            for name in part["$ref"].removeprefix("#/").split("/"):
                found = found[name]
            part = found
        return part

    def kind(self, schema: Json) -> str:
        """A schema in a word or two."""
        if "$ref" in schema:
            return str(schema["$ref"].rpartition("/")[2])
        if any_of := schema.get("anyOf"):
            words = [self.kind(one) for one in any_of]
            return " or ".join(dict.fromkeys(word for word in words if word))
        if "enum" in schema:
            return ", ".join(f"`{json.dumps(one)}`" for one in schema["enum"])
        if "const" in schema:
            return f"`{json.dumps(schema['const'])}`"
        kinds = schema.get("type", "anything")
        return " or ".join(kinds) if isinstance(kinds, list) else str(kinds)


Row = tuple[str, str, str]


def _statuses(the: _Document, operation: Json) -> list[Row]:
    """The least first; `default` last."""
    rows = [
        (
            status,
            " ".join(the.resolved(answer).get("description", "").split()),
            ", ".join(_headers(the, answer)),
        )
        for status, answer in operation["responses"].items()
    ]
    return sorted(rows)


def _operation(
    the: _Document, path: str, method: str, operation: Json, shared: list[Json], common: list[Row]
) -> Iterator[str]:
    yield f"## {operation['summary']}"
    yield f"`{method.upper()} /v1{path}`"
    if about := operation.get("description"):
        yield about
    parameters = [the.resolved(one) for one in [*shared, *operation.get("parameters", [])]]
    if parameters:
        rows = [
            (
                f"`{one['name']}`",
                one["in"],
                the.kind(one["schema"]),
                " ".join(one.get("description", "").split()),
            )
            for one in parameters
        ]
        yield table(("parameter", "in", "type", "meaning"), rows)
    if body := operation.get("requestBody"):
        media = the.resolved(body)["content"]
        kinds = dict.fromkeys(the.kind(one["schema"]) for one in media.values() if "schema" in one)
        yield f"Body: {' or '.join(kinds)}."
    own = [row for row in _statuses(the, operation) if row not in common]
    yield table(("status", "when", "headers"), own)


def _headers(the: _Document, answer: Json) -> list[str]:
    return [f"`{name}`" for name in the.resolved(answer).get("headers", {})]


def _fields(the: _Document, name: str) -> Iterator[str]:
    schema = the.page["components"]["schemas"][name]
    yield f"### {name}"
    if about := schema.get("description"):
        yield " ".join(about.split())
    properties: Json = schema.get("properties", {})
    required = set(schema.get("required", ()))
    rows = [(f"`{key}`", the.kind(one), "yes" if key in required else "") for key, one in properties.items()]
    if rows:
        yield table(("field", "type", "always there"), rows)


def page() -> str:
    the = _Document()
    parts = ["# API", WRITTEN, INTRO.strip()]
    operations = [
        (path, method, operation, item.get("parameters", []))
        for path, item in the.page["paths"].items()
        for method, operation in item.items()
        if method in ("get", "post", "delete")
    ]
    rows = [
        (f"`{method.upper()} /v1{path}`", operation["summary"]) for path, method, operation, _ in operations
    ]
    parts.append(table(("route", "what it does"), rows))
    each = [_statuses(the, operation) for _, _, operation, _ in operations]
    common = [row for row in each[0] if all(row in rows for rows in each)]
    parts += ["Any of them may also answer:", table(("status", "when", "headers"), common)]
    for path, method, operation, shared in operations:
        parts += _operation(the, path, method, operation, shared, common)
    parts.append("## Objects")
    for name in the.page["components"]["schemas"]:
        parts += _fields(the, name)
    return "\n\n".join(parts) + "\n"
