"""A chat answer with all that one may hold: thoughts, sources, an image, speech, a call, and a riddle."""

from __future__ import annotations

from typing import Any

import orjson

from tests.acceptance.replay import Answer

PNG = "iVBORw0KGgo="
TYPES = ["reasoning", "message", "image_generation_call", "message", "function_call"]
TEXTS = ["The tide is high [1].", "Ahoy!"]
UNMAPPED = "delta.sea_chart"

_SIGNED = {"google": {"thought_signature": "c2ln"}}
_CALL = {"index": 0, "id": "c-1", "type": "function", "extra_content": _SIGNED}
_DELTAS: list[dict[str, Any]] = [
    {"role": "assistant", "content": "", "reasoning": "Hm."},
    {"reasoning_details": [{"type": "reasoning.text", "text": "", "signature": "c2ln", "index": 0}]},
    {"content": [{"type": "text", "text": "The tide "}]},
    {"content": "is high [1].", "sea_chart": {"depth": "four fathoms"}},
    {"content": "", "images": [{"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}}]},
    {"audio": {"id": "a-1", "transcript": "Ah", "data": "AAA="}},
    {"audio": {"transcript": "oy!", "data": "AQI="}},
    {"tool_calls": {**_CALL, "function": {"name": "sail", "arguments": ""}}},
    {"tool_calls": [{"index": 0, "function": {"name": "sail", "arguments": '{"to":"sea"}'}}]},
]


def full_answer() -> Answer:
    """The stream, as a server sends it."""
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "tiny"}
    source = {"citations": ["https://tides.example/1"]}
    chunks: list[dict[str, Any]] = [
        {**head, **source, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]}
        for delta in _DELTAS
    ]
    chunks.append({**head, "choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]})
    chunks.append({**head, "choices": [], "usage": {"prompt_tokens": "7", "completion_tokens": 3.0}})
    return Answer([b"data: %b\n\n" % orjson.dumps(each) for each in chunks] + [b"data: [DONE]\n\n"])
