"""The JSON of the smaller endpoints: chat completions in vLLM's shape, models, embeddings. Pure."""

from __future__ import annotations

import base64
import hashlib
import struct
from collections.abc import Iterator
from typing import Any

import orjson

from demo.asks import MODEL, Refused
from demo.shapes import JSON, Answer, Frame
from demo.words import Call

OWNER = "backburner-demo (a simulation)"
DONE = b"data: [DONE]\n\n"
_DIMENSIONS = 8


def completion(answer: Answer) -> JSON:
    message: JSON = {"role": "assistant", "content": answer.text, "refusal": None}
    if isinstance(answer.said, Call):
        message |= {"content": None, "tool_calls": [_tool_call(answer, answer.said)]}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": _finish_reason(answer)}
    return {**_head(answer, "chat.completion"), "choices": [choice], "usage": usage(answer)}


def frames(answer: Answer) -> Iterator[Frame]:
    """The stream of chunks; they have no `event:` line and no numbers, and [DONE] ends them."""
    head = _head(answer, "chat.completion.chunk")

    def chunk(delta: JSON, finish_reason: str | None = None, *, is_word: bool = False) -> Frame:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return Frame(_data({**head, "choices": [choice]}), is_word)

    yield chunk({"role": "assistant", "content": ""})
    if isinstance(answer.said, Call):
        opening = _tool_call(answer, answer.said)
        yield chunk({"tool_calls": [opening | {"index": 0, "function": {"name": answer.said.name}}]})
        for piece in answer.pieces:
            yield chunk({"tool_calls": [{"index": 0, "function": {"arguments": piece}}]}, is_word=True)
    else:
        for piece in answer.pieces:
            yield chunk({"content": piece}, is_word=True)
    yield chunk({}, _finish_reason(answer))
    options = answer.ask.body.get("stream_options")
    if isinstance(options, dict) and options.get("include_usage"):
        yield Frame(_data({**head, "choices": [], "usage": usage(answer)}))
    yield Frame(DONE)


def error_frame(_number: int) -> bytes:
    error = {"message": "The demo was asked to fail here.", "type": "InternalServerError"}
    return _data({"error": error | {"param": None, "code": 500}}) + DONE


def usage(answer: Answer) -> JSON:
    return {
        "prompt_tokens": answer.input_words,
        "total_tokens": answer.input_words + len(answer.pieces),
        "completion_tokens": len(answer.pieces),
        "prompt_tokens_details": {"cached_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0},
    }


def models(created_s: int) -> JSON:
    model = {"id": MODEL, "object": "model", "created": created_s, "owned_by": OWNER, "max_model_len": 32_768}
    return {"object": "list", "data": [model]}


def embeddings(body: JSON) -> JSON:
    """Small vectors made of a hash: equal texts lie together, and that is all they know."""
    given = body.get("input")
    texts = [given] if isinstance(given, str) else given
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
        raise Refused(400, "`input` must be a string or a list of strings", "BadRequestError", "input")
    is_base64 = body.get("encoding_format") == "base64"
    words = sum(len(text.split()) for text in texts)
    return {
        "object": "list",
        "data": [
            {"object": "embedding", "index": index, "embedding": _vector(text, is_base64=is_base64)}
            for index, text in enumerate(texts)
        ],
        "model": MODEL,
        "usage": {"prompt_tokens": words, "total_tokens": words},
    }


def _vector(text: str, *, is_base64: bool) -> list[float] | str:
    digest = hashlib.sha256(text.encode()).digest()[:_DIMENSIONS]
    vector = [byte / 127.5 - 1 for byte in digest]
    # The openai SDK asks for base64 of little-endian float32 unless told otherwise.
    return base64.b64encode(struct.pack(f"<{_DIMENSIONS}f", *vector)).decode() if is_base64 else vector


def _head(answer: Answer, kind: str) -> JSON:
    return {"id": f"chatcmpl-{answer.nonce}", "object": kind, "created": answer.created_s, "model": MODEL}


def _tool_call(answer: Answer, call: Call) -> JSON:
    function = {"name": call.name, "arguments": call.arguments}
    return {"id": f"chatcmpl-tool-{answer.nonce}", "type": "function", "function": function}


def _finish_reason(answer: Answer) -> str:
    if isinstance(answer.said, Call):
        return "tool_calls"
    return "length" if answer.is_cut else "stop"


def _data(payload: Any) -> bytes:
    return b"data: %b\n\n" % orjson.dumps(payload)
