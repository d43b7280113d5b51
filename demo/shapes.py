"""The JSON of POST /v1/responses, in the shape recorded from a real vLLM (unusual keys included).

`events` tells a whole stream in order; which of its events cost time is for the server to know. Pure:
ids and the time are arguments.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import orjson

from demo.asks import MODEL, Ask
from demo.words import Call, compose, count_words, pieces

JSON = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer about to be given: what, in which pieces, and under which ids."""

    ask: Ask
    said: str | Call
    pieces: tuple[str, ...]
    is_cut: bool
    """The caller's token limit ended it. A call is never cut: half of its arguments would be no JSON."""
    nonce: str
    created_s: int

    @property
    def text(self) -> str:
        return "".join(self.pieces)

    @property
    def input_words(self) -> int:
        return count_words(self.ask.turns)


@dataclass(frozen=True, slots=True)
class Frame:
    """One SSE event as bytes; `is_word` marks those that carry a generated piece."""

    data: bytes
    is_word: bool = False


def answer(ask: Ask, *, nonce: str, created_s: int) -> Answer:
    said = compose(ask.turns, ask.tools, ask.tool_choice)
    whole = pieces(said)
    limit = None if isinstance(said, Call) else ask.tokens_max
    kept = whole[:limit]
    return Answer(ask, said, tuple(kept), len(kept) < len(whole), nonce, created_s)


def response(answer: Answer, *, is_over: bool) -> JSON:
    """The response object: as it looks in the first events, or (`is_over`) as the final answer."""
    body = answer.ask.body
    status = ("incomplete" if answer.is_cut else "completed") if is_over else "in_progress"
    return {
        "id": f"resp_{answer.nonce}",
        "created_at": answer.created_s,
        "incomplete_details": {"reason": "max_output_tokens"} if is_over and answer.is_cut else None,
        "instructions": body.get("instructions"),
        "metadata": body.get("metadata"),
        "model": MODEL,
        "object": "response",
        "output": [item(answer, is_over=True)] if is_over else [],
        "parallel_tool_calls": body.get("parallel_tool_calls", True),
        "temperature": body.get("temperature", 1.0),
        "tool_choice": body.get("tool_choice") or ("auto" if answer.ask.tools else "none"),
        "tools": body.get("tools") or [],
        "top_p": body.get("top_p", 1.0),
        "background": False,
        "max_output_tokens": body.get("max_output_tokens"),
        "max_tool_calls": body.get("max_tool_calls"),
        "previous_response_id": None,
        "prompt": None,
        "reasoning": body.get("reasoning"),
        "service_tier": "auto",
        "status": status,
        "text": body.get("text"),
        "top_logprobs": None,
        "truncation": "disabled",
        "usage": usage(answer) if is_over else None,
        "user": body.get("user"),
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        "kv_transfer_params": None,
        "ec_transfer_params": None,
        "input_messages": None,
        "output_messages": None,
    }


def item(answer: Answer, *, is_over: bool) -> JSON:
    status = "completed" if is_over else "in_progress"
    if isinstance(answer.said, Call):
        return {
            "arguments": answer.said.arguments if is_over else "",
            "call_id": f"chatcmpl-tool-{answer.nonce}",
            "name": answer.said.name,
            "type": "function_call",
            "id": f"fc_{answer.nonce}",
            "namespace": None,
            "status": status,
        }
    return {
        "id": f"msg_{answer.nonce}",
        "content": [_part(answer)] if is_over else [],
        "role": "assistant",
        "status": status,
        "type": "message",
        "phase": None,
    }


def usage(answer: Answer) -> JSON:
    """Count words, for the simulation has no other tokens."""
    return {
        "input_tokens": answer.input_words,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": len(answer.pieces),
        "output_tokens_details": {"reasoning_tokens": 0, "tool_output_tokens": 0},
        "total_tokens": answer.input_words + len(answer.pieces),
    }


def frames(answer: Answer) -> Iterator[Frame]:
    """The stream, numbered from 0; like vLLM's it ends with response.completed whatever the status."""
    for number, event in enumerate(_events(answer)):
        event["sequence_number"] = number
        yield Frame(sse(event), is_word=event["type"].endswith(".delta"))


def error_frame(number: int) -> bytes:
    """What a server that breaks down in the middle of its answer still manages to say."""
    error = {"message": "The demo was asked to fail here.", "type": "InternalServerError"}
    return sse({"type": "error", "error": error | {"param": None, "code": 500}, "sequence_number": number})


def sse(event: JSON) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (event["type"].encode(), orjson.dumps(event))


def _events(answer: Answer) -> Iterator[JSON]:
    yield {"response": response(answer, is_over=False), "type": "response.created"}
    yield {"response": response(answer, is_over=False), "type": "response.in_progress"}
    at = {"output_index": 0}
    yield {"item": item(answer, is_over=False), **at, "type": "response.output_item.added"}
    if isinstance(answer.said, Call):
        yield from _call_events(answer, answer.said)
    else:
        yield from _text_events(answer)
    yield {"item": item(answer, is_over=True), **at, "type": "response.output_item.done"}
    yield {"response": response(answer, is_over=True), "type": "response.completed"}


def _text_events(answer: Answer) -> Iterator[JSON]:
    at: JSON = {"content_index": 0, "item_id": f"msg_{answer.nonce}", "output_index": 0}
    empty = {"annotations": [], "text": "", "type": "output_text", "logprobs": []}
    yield {**at, "part": empty, "type": "response.content_part.added"}
    for piece in answer.pieces:
        yield {**at, "delta": piece, "logprobs": [], "type": "response.output_text.delta"}
    yield {**at, "logprobs": [], "text": answer.text, "type": "response.output_text.done"}
    yield {**at, "part": _part(answer), "type": "response.content_part.done"}


def _call_events(answer: Answer, call: Call) -> Iterator[JSON]:
    at: JSON = {"item_id": f"fc_{answer.nonce}", "output_index": 0}
    for piece in answer.pieces:
        yield {"delta": piece, **at, "type": "response.function_call_arguments.delta"}
    done = {"arguments": call.arguments, **at, "name": call.name}
    yield done | {"type": "response.function_call_arguments.done"}


def _part(answer: Answer) -> JSON:
    return {"annotations": [], "text": answer.text, "type": "output_text", "logprobs": None}
