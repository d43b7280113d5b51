"""JSON Schemas of what crosses the wire on the routes we own; `openapi` says on which.

Fields of a request come from the model that checks it, the keys of a Response from what makes it.
"""

from __future__ import annotations

from typing import Any

from gateway.wire import events, normalise, requests, responses, shapes, tools
from gateway.wire.dialects import Dialect

Json = dict[str, Any]

EVENT_TYPES = sorted(events.LIFECYCLE | events.ENDINGS | normalise.SHOWN)


def create_background(*, accepts_store_false: bool) -> Json:
    """What a background create request may hold: the fields of the model that checks it."""
    schema = requests.CreateRequest.model_json_schema()
    fields = {
        name: {k: v for k, v in field.items() if k != "title"} for name, field in schema["properties"].items()
    }
    for name, shape in _SHAPES.items():
        default = fields[name]["default"]
        fields[name] = {"anyOf": [*shape, _NULL], "default": default}
    fields["background"] = {"const": True}
    if not accepts_store_false:
        fields["store"] = {"enum": [True, None], "default": None}
    asks = [
        {"required": [name], "properties": {name: {"not": {"enum": [None, "", {}]}}}}
        for name in ("prompt", "previous_response_id", "conversation")
    ]
    return {
        "type": "object",
        "description": "Fields that are not listed go to the backend as they are.",
        "properties": fields,
        "required": ["background"],
        "examples": [{"model": "llama-3.3-70b", "input": "Tell me a long story.", "background": True}],
        "anyOf": [{"required": ["input"], "properties": {"input": {"not": {"type": "null"}}}}, *asks],
    }


_NULL: Json = {"type": "null"}
_WORD: Json = {"type": "string", "minLength": 1}


def _typed(kinds: Json, *required: str, **properties: Json) -> Json:
    properties["type"] = kinds
    return {"type": "object", "properties": properties, "required": ["type", *required]}


_NAMED = _typed({"enum": ["function", "custom"]}, "name", name=_WORD)
_BUILT_IN = _typed({**_WORD, "not": {"enum": ["function", "custom", "namespace"]}})
_TOOL = {
    "anyOf": [
        _NAMED,
        _BUILT_IN,
        _typed(
            {"const": "namespace"},
            *("name", "tools"),
            name=_WORD,
            tools={"type": "array", "items": {"anyOf": [_NAMED, _BUILT_IN]}},
        ),
    ]
}
_TOOLS = {"type": "array", "items": _TOOL}
_CHOICES: list[Json] = [
    {"enum": list(shapes.CHOICES)},
    _NAMED,
    _typed(
        {"const": "allowed_tools"},
        "tools",
        mode={"enum": ["auto", "required", None]},
        tools={"type": "array", "items": {"type": "object"}},
    ),
    _typed({"type": "string", "pattern": f"^({'|'.join(tools.BUILT_IN)})"}),
]
_FORMATS: list[Json] = [
    _typed({"enum": [name for name in shapes.FORMATS if name != "json_schema"]}),
    _typed({"const": "json_schema"}, "schema", schema={"type": "object"}),
]
_CONTENT = {"anyOf": [{"type": ["string", "null"]}, {"type": "array", "items": {"type": "object"}}]}
_MESSAGE: Json = {
    "type": "object",
    "properties": {"type": {"enum": ["message", None]}, "role": _WORD, "content": _CONTENT},
    "required": ["role"],
}
_REFERENCE: Json = {
    "type": "object",
    "properties": {"type": _NULL, "role": _NULL, "id": {"type": "string"}},
    "required": ["id"],
}
_HOLDER = _typed({"enum": sorted(tools.HOLDERS)}, tools={"anyOf": [_TOOLS, _NULL]})
_OTHER_ITEM = _typed({**_WORD, "not": {"enum": ["message", *sorted(tools.HOLDERS)]}})
_ITEMS = {"type": "array", "items": {"anyOf": [_MESSAGE, _REFERENCE, _HOLDER, _OTHER_ITEM]}}
_SHAPES: dict[str, list[Json]] = {
    "input": [{"type": "string"}, _ITEMS],
    "tools": [_TOOLS],
    "tool_choice": _CHOICES,
    "text": [{"type": "object", "properties": {"format": {"anyOf": [*_FORMATS, _NULL]}}}],
    "conversation": [
        {"type": "string"},
        {"type": "object", "properties": {"id": _WORD}, "required": ["id"]},
    ],
}
"""What `shapes` judges, as a schema."""

CREATE_PLAIN = {
    "type": "object",
    "description": "The backend's own API, which may want more than this, or less.",
    "properties": {
        "model": {"type": "string"},
        "input": {"type": ["string", "array"], "minLength": 1, "items": {"type": "object"}},
        "background": {"enum": [False, None]},
        "stream": {"type": ["boolean", "null"]},
    },
    "required": ["input"],
}


def response(dialect: Dialect) -> Json:
    """Which keys and types every Response has, and what holds in each of its states."""
    made = responses.accepted({}, response_id="", created_at=0)
    numbers = {"type": "number"}
    text_or_null = {"type": ["string", "null"]}
    fields = {
        "id": {"type": "string", "pattern": "^(resp|req)_" if dialect is Dialect.PHARIA else "^resp_"},
        "object": {"const": "response"},
        "created_at": {"type": "integer"},
        "completed_at": {"type": ["integer", "null"]},
        "background": {"type": "boolean"},
        "model": text_or_null,
        "output": {"type": "array", "items": {"type": "object"}},
        "metadata": {"type": "object", "additionalProperties": {"type": "string"}},
        "tools": {"type": "array", "items": {"type": "object"}},
        "parallel_tool_calls": {"type": "boolean"},
        "previous_response_id": text_or_null,
        "temperature": numbers,
        "top_p": numbers,
        "frequency_penalty": numbers,
        "presence_penalty": numbers,
        "store": {"type": "boolean"},
        "usage": {"type": ["object", "null"]},
        "error": {"type": ["object", "null"], "required": ["code", "message"]},
        "incomplete_details": {"type": ["object", "null"]},
        "status": {"type": "string"},
    }
    return {
        "type": "object",
        "properties": fields,
        "required": sorted(made),
        "oneOf": [
            {"title": status, "properties": {"status": {"const": status}, **so}}
            for status, so in _STATES.items()
        ],
    }


_OBJECT = {"type": "object"}
_UNFINISHED = {"completed_at": _NULL, "error": _NULL, "incomplete_details": _NULL}
_STATES: dict[str, Json] = {
    "queued": {**_UNFINISHED, "output": {"maxItems": 0}, "usage": _NULL},
    "in_progress": {**_UNFINISHED, "usage": _NULL},
    "completed": {"completed_at": {"type": "integer"}, "error": _NULL, "incomplete_details": _NULL},
    "incomplete": {"completed_at": _NULL, "error": _NULL, "incomplete_details": _OBJECT},
    "failed": {"completed_at": _NULL, "error": _OBJECT, "incomplete_details": _NULL},
    "cancelled": _UNFINISHED,
}
PLAIN = {
    "type": "object",
    "description": "What the backend answered to a plain request, as it is.",
    "properties": {"background": {"not": {"const": True}}},
}
_DATA = {
    "type": "object",
    "properties": {
        "type": {"enum": EVENT_TYPES},
        "sequence_number": {"type": "integer", "minimum": 0},
        "response": {"$ref": "#/components/schemas/Response"},
    },
    "required": ["type", "sequence_number"],
}
EVENT = {
    "type": "object",
    "description": "One event of a stream. Events are numbered from 0 without a gap; one terminal event "
    "(`response.completed`, `response.incomplete` or `response.failed`) ends the stream. Lines that begin "
    "with a colon are comments.",
    "properties": {
        "event": {"enum": EVENT_TYPES},
        "data": {"type": "string", "contentMediaType": "application/json", "contentSchema": _DATA},
    },
    "required": ["event", "data"],
    "additionalProperties": False,
}
BACKEND_EVENT = {
    "type": "object",
    "description": "One event of the backend's answer to a plain request, as it is.",
}
BACKEND_ERROR = {"description": "A backend's error, as it is."}
DELETED = {
    "type": "object",
    "properties": {
        "id": {"type": "string"},
        "object": {"const": "response"},
        "deleted": {"const": True},
    },
    "required": ["id", "object", "deleted"],
}
_ID_OR_NULL = {"type": ["string", "null"]}
INPUT_ITEMS = {
    "type": "object",
    "properties": {
        "object": {"const": "list"},
        "data": {
            "type": "array",
            "items": {"type": "object", "properties": {"id": {"type": "string"}}, "required": ["id", "type"]},
        },
        "first_id": _ID_OR_NULL,
        "last_id": _ID_OR_NULL,
        "has_more": {"type": "boolean"},
    },
    "required": ["object", "data", "first_id", "last_id", "has_more"],
}
_TEXT_OR_NULL = {"type": ["string", "null"]}
ERROR = {
    "type": "object",
    "properties": {
        "error": {
            "type": "object",
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": _TEXT_OR_NULL,
                "code": _TEXT_OR_NULL,
            },
            "required": ["message", "type", "param", "code"],
        }
    },
    "required": ["error"],
}
