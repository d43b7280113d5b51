"""The OpenAPI document of the routes we own.

What a request may hold comes from the model that checks it, which keys a Response has from the function that
makes it: neither can drift from this page. The rest of the backend's routes are the backend's to document.
"""

from __future__ import annotations

from typing import Any

import orjson

from gateway.wire import queries, retries, schemas
from gateway.wire.dialects import Dialect
from gateway.wire.tools import OMITTED_HEADER

Json = dict[str, Any]

_ERRORS = {
    400: "The request is not valid. `error.param` names what is at fault, `error.code` the reason.",
    401: "The caller is not known here, or the backend does not accept its credential.",
    403: "The backend does not allow it with this credential. Nothing was accepted.",
    404: "No such response: unknown, expired, deleted or another caller's, which cannot be told apart.",
    408: "The request did not come in time.",
    413: "The body is larger than the gateway's settings allow.",
    415: "The body has a `Content-Encoding` that cannot be read; `Accept-Encoding` says which can.",
    417: "Something other than `100-continue` is expected.",
    422: "The `Idempotency-Key` was used for another request.",
    429: "Too many responses are waiting, or too many streams are open. Nothing was accepted.",
    431: "The request's head is too large.",
    501: "The method is unknown, the transfer coding is not `chunked`, or a WebSocket upgrade has a body.",
    502: "Plain request: the backend cannot be reached, or broke off before its answer.",
    503: "The gateway is shutting down, or cannot store at the moment; plain request: no backend is up.",
    504: "Plain request: the backend did not answer in time.",
    505: "The request is of an HTTP other than 1.0 and 1.1.",
}
_OF_ANY_REQUEST = (408, 417, 431, 501, 505)
_RETRIED = frozenset({429, 503})
"""With `Retry-After`: when to come back."""


def document(
    *,
    version: str,
    base_path: str,
    dialect: Dialect,
    accepts_store_false: bool,
    callers: str = "passthrough",
    callers_header: str | None = None,
) -> bytes:
    """The document as JSON, OpenAPI 3.1.

    Args:
        base_path: Under which the routes are served, e.g. `/v1`.
        accepts_store_false: Whether a background response may be created with `store: false`.
        callers: How they are told apart: the value of `tenants.mode`.
        callers_header: By which one, if it is by `trusted_header`.
    """
    schemes, security = _security(callers, callers_header)
    one = {"parameters": [_path_parameter()]}
    paths = {
        "/responses": {"post": _create(dialect)},
        "/responses/{response_id}": one | {"get": _retrieve(dialect), "delete": _delete()},
        "/responses/{response_id}/cancel": one | {"post": _cancel()},
        "/responses/{response_id}/input_items": one | {"get": _input_items()},
    }
    bodies = {
        "CreateBackgroundResponse": schemas.create_background(accepts_store_false=accepts_store_false),
        "CreatePlainResponse": schemas.CREATE_PLAIN,
        "Response": schemas.response(dialect),
        "PlainResponse": schemas.PLAIN,
        "Event": schemas.EVENT,
        "BackendEvent": schemas.BACKEND_EVENT,
        "BackendError": schemas.BACKEND_ERROR,
        "DeletedResponse": schemas.DELETED,
        "InputItems": schemas.INPUT_ITEMS,
        "Error": schemas.ERROR,
    }
    return orjson.dumps(
        {
            "openapi": "3.1.0",
            "info": {"title": "Backburner", "version": version, "description": _ABOUT},
            "servers": [{"url": base_path}],
            "security": security,
            "paths": paths,
            "components": {
                "schemas": bodies,
                "securitySchemes": schemes,
            },
        }
    )


def _security(mode: str, header: str | None) -> tuple[Json, list[Json]]:
    """The ways to say who is calling, and which of them will do."""
    match mode:
        case "jwt":
            names = ["bearer"]
        case "trusted_header":
            names = [str(header)]
        case _:
            names = ["bearer", "api-key", "x-api-key"]
    schemes = {
        name: {"type": "http", "scheme": "bearer"}
        if name == "bearer"
        else {"type": "apiKey", "in": "header", "name": name}
        for name in names
    }
    # The empty one, where callers without a credential share one space.
    nobody: list[Json] = [{}] if mode in ("passthrough", "none") else []
    return schemes, [*nobody, *({name: []} for name in names)]


# -- operations


def _create(dialect: Dialect) -> Json:
    schema = {"anyOf": [_ref("CreateBackgroundResponse"), _ref("CreatePlainResponse")]}
    key = {
        "name": "Idempotency-Key",
        "in": "header",
        "description": "Creates with one key are one create, for as long as its response can be seen.",
        "schema": {"type": "string", "pattern": retries.KEY_PATTERN},
    }
    stored, plain = _ref("Response"), _ref("PlainResponse")
    headers = _POLL_AFTER | _OMITTED
    answers = {"200": _ok(_STORED, {"anyOf": [stored, plain]}, headers)}
    if dialect.accepted_status == 202:
        answers["202"] = _ok(_STORED, stored, headers)
        streamed = "With `stream: true`, its events; plain request: the backend's answer."
        answers["200"] = _ok(streamed, plain, _OMITTED)
    answers["200"]["content"] |= {
        "text/event-stream": {"schema": {"anyOf": [_ref("Event"), _ref("BackendEvent")]}}
    }
    answers[str(dialect.accepted_status)]["links"] = _LINKS
    return {
        "operationId": "createResponse",
        "summary": "Create a response",
        "description": 'Ours with `"background": true`; any other request is passed on to the backend.',
        "parameters": [key],
        "requestBody": {"required": True, "content": {"application/json": {"schema": schema}}},
        "responses": {
            **answers,
            **_errors(passed_on=(400, 401, 403, 404, 413, 415, 422, 429, 502, 503, 504)),
            "default": {"description": "Plain request: the backend's answer, as it is."},
        },
    }


def _retrieve(dialect: Dialect) -> Json:
    answer = _ok("The response as it is now; with `stream=true`, its events.", _SHOWN, _POLL_AFTER)
    answer["content"] |= {"text/event-stream": {"schema": _ref("Event")}}
    cursor = {"type": "integer", "minimum": 0, "maximum": 10**queries.CURSOR_DIGITS_MAX - 1}
    return {
        "operationId": "retrieveResponse",
        "summary": "Poll a response, or follow its events",
        "parameters": [
            _query("stream", {"type": "boolean", "default": False}, _STREAM[dialect.streams_any]),
            _query("starting_after", cursor, "With `stream=true`: only events with a greater number."),
            _query("include_obfuscation", {"type": "boolean"}, "Accepted; stored events carry none."),
            *_INCLUDES,
        ],
        "responses": {"200": answer, **_errors(404, passed_on=(400, 401, 429, 503)), **_OF_BACKEND},
    }


def _delete() -> Json:
    return {
        "operationId": "deleteResponse",
        "summary": "Delete a response; a running one is stopped",
        "responses": {
            "200": _ok("It is gone, for every reader.", _ref("DeletedResponse")),
            **_errors(404, passed_on=(400, 401, 503)),
            **_OF_BACKEND,
        },
    }


def _cancel() -> Json:
    return {
        "operationId": "cancelResponse",
        "summary": "Cancel a response",
        "description": "Again: the same answer. One that ended otherwise cannot be cancelled: 400.",
        "responses": {
            "200": _ok("Cancelled; the output so far is kept.", _SHOWN, _POLL_AFTER),
            **_errors(404, passed_on=(400, 401, 503)),
            **_OF_BACKEND,
        },
    }


def _input_items() -> Json:
    limit = {"type": "integer", "minimum": 1, "maximum": queries.LIMIT_MAX, "default": queries.LIMIT_DEFAULT}
    order = {"type": "string", "enum": list(queries.ORDERS), "default": "desc"}
    item_id = {"type": "string"}
    return {
        "operationId": "listInputItems",
        "summary": "List what a response was asked with, earlier turns included",
        "parameters": [
            _query("limit", limit),
            _query("order", order),
            _query("after", item_id, "Id of the last item of the page before."),
            _query("before", item_id, "Id of an item: only those before it."),
            *_INCLUDES,
        ],
        "responses": {
            "200": _ok("One page.", _ref("InputItems")),
            **_errors(404, passed_on=(400, 401, 503)),
            **_OF_BACKEND,
        },
    }


# -- pieces of operations


def _ref(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}


def _path_parameter() -> Json:
    return {
        "name": "response_id",
        "in": "path",
        "required": True,
        # What a server might resolve as a path of its own is refused.
        "schema": {"type": "string", "pattern": r"^(?!\.{1,2}(;|$))[^\x00-\x1f\x7f/\\]+$"},
    }


def _query(name: str, schema: Json, description: str = "") -> Json:
    return {"name": name, "in": "query", "description": description, "schema": schema}


def _ok(description: str, schema: Json, headers: Json | None = None) -> Json:
    return {
        "description": description,
        "headers": _REQUEST_ID | (headers or {}),
        "content": {"application/json": {"schema": schema}},
    }


def _errors(*own: int, passed_on: tuple[int, ...]) -> Json:
    """Args: passed_on: Those that a backend's own answer may have as well; it is then passed on as it is."""
    return {
        str(status): {
            "description": _ERRORS[status],
            "headers": _REQUEST_ID | (_RETRY_AFTER if status in _RETRIED else {}),
            "content": _STRANGE_ERROR
            if status in passed_on
            else {"application/json": {"schema": _ref("Error")}},
        }
        for status in sorted((*own, *passed_on, *_OF_ANY_REQUEST))
    }


_REQUEST_ID = {
    "X-Request-Id": {
        "required": True,
        "description": "Of this request; the gateway's log has it.",
        "schema": {"type": "string", "format": "uuid"},
    }
}
_POLL_AFTER = {
    "openai-poll-after-ms": {
        "description": "While it is not finished: milliseconds after which to ask again.",
        "schema": {"type": "integer", "minimum": 1},
    }
}
_OMITTED = {
    OMITTED_HEADER: {
        "description": "Types of tools that the backend cannot run, and was not told of.",
        "schema": {"type": "string"},
    }
}
_RETRY_AFTER = {
    "Retry-After": {
        "description": "Seconds; a backend may name a date.",
        "schema": {"type": ["integer", "string"]},
    }
}
_SHOWN = {"anyOf": [_ref("Response"), _ref("PlainResponse")]}
_STRANGE_ERROR: Json = {
    "application/json": {"schema": {"anyOf": [_ref("Error"), _ref("BackendError")]}},
    "*/*": {},
}
_OF_BACKEND = {
    "default": {
        "description": "An id that is not the gateway's may be the backend's own: its answer, as it is."
    }
}
_INCLUDES = [
    _query(
        name,
        {"type": "array", "items": {"enum": sorted(queries.INCLUDE - {"reasoning.encrypted_content"})}},
        "Accepted: what is stored is shown in any case.",
    )
    for name in ("include", "include[]")
]
_STREAM = {
    True: "Follow the events, from the first or from a cursor.",
    False: "Follow the events, from the first or from a cursor; of a response created with `stream: true`.",
}
_STORED = "Stored, and going to run; with `stream: true`, its events. Plain request: the backend's answer."
_LINKS = {
    operation: {"operationId": operation, "parameters": {"response_id": "$response.body#/id"}}
    for operation in ("retrieveResponse", "cancelResponse", "deleteResponse", "listInputItems")
}
_ABOUT = (
    "Background mode of the Responses API in front of a server that has none. Only the routes that the "
    "gateway answers itself are here; all others are the backend's, which may have a document of its own."
)
