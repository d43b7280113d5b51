"""A job whose backend speaks chat completions: what a client gets for what the backend sends."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Any, get_args

import orjson
from openai.types.responses import Response, ResponseStreamEvent

from gateway.core.machine import Started
from gateway.core.upstream import UpstreamAnswer, UpstreamClosed, UpstreamFrames
from gateway.wire.answers.readers import ChatReader
from gateway.wire.chat.tools import tools_of
from gateway.wire.sse import SseDecoder
from tests.core.conftest import TRANSCRIPTS, Played, StrictReader, accepted

SERVERS = ("vllm", "llama-slow", "transformers", "llamacpp-python")
DONE = b"data: [DONE]\n\n"

_CLASSES = {
    name: kind
    for kind in get_args(get_args(ResponseStreamEvent)[0])
    for name in get_args(kind.model_fields["type"].annotation)
}


@cache
def recordings() -> dict[str, tuple[int, bytes, bytes]]:
    """Status, headers and body of each recorded chat answer, by server and probe."""
    found = {}
    for server in SERVERS:
        for path in sorted((TRANSCRIPTS / server).glob("chat-*.txt")):
            head, _, body = path.read_bytes().partition(b"\n\n< ")[2].partition(b"\n\n")
            found[f"{server}/{path.stem}"] = (int(head[:3]), head, body)
    assert len(found) > 30, "the transcripts are gone"
    return found


def streams() -> dict[str, bytes]:
    """The recorded streams that are whole."""
    return {
        name: body
        for name, (status, head, body) in recordings().items()
        if status == 200 and b"text/event-stream" in head
    }


def answers() -> dict[str, bytes]:
    """The recorded answers that are no streams."""
    return {
        name: body
        for name, (status, head, body) in recordings().items()
        if status == 200 and b"application/json" in head
    }


def begin(**request: Any) -> Played:
    """A job that was accepted and claimed."""
    body = {"model": "tiny", "input": "Hello", "background": True, "stream": True, **request}
    played = accepted(body, reader=lambda name, asked: ChatReader(name, tools_of(asked, asked.get("input"))))
    played.receive(Started())
    return played


def run(body: bytes, size: int = 2**16, **request: Any) -> Played:
    """The run of a job whose backend streams these bytes, read in pieces of a size; strictly checked."""
    played = begin(**request)
    decoder = SseDecoder(2**20)
    for at in range(0, len(body), size):
        if frames := decoder.feed(body[at : at + size]):
            played.receive(UpstreamFrames(frames))
    if frames := decoder.close():
        played.receive(UpstreamFrames(frames))
    played.receive(UpstreamClosed())
    StrictReader(True).read(played.events)
    return played


def run_answer(body: bytes, **request: Any) -> Played:
    """The run of a job whose backend gives one answer; strictly checked."""
    played = begin(**request)
    played.receive(UpstreamAnswer(body))
    StrictReader(True).read(played.events)
    return played


def validate(played: Played) -> None:
    """Fails where the official client's own types do."""
    for event in played.events:
        _CLASSES[event["type"]].model_validate(event)
    Response.model_validate(played.final)


def chunk(delta: dict[str, Any] | None = None, finish: str | None = None, **fields: Any) -> dict[str, Any]:
    """A chunk as servers send it; fields of the choice beside `delta` go under `choice`."""
    choice = {"index": 0, "delta": delta or {}, "finish_reason": finish, **fields.pop("choice", {})}
    return {"id": "chatcmpl-1", "object": "chat.completion.chunk", "choices": [choice], **fields}


def call(index: int | None = 0, id: str | None = None, name: str | None = None, arguments: Any = None) -> Any:
    """A delta with one fragment of one call."""
    function = {k: v for k, v in (("name", name), ("arguments", arguments)) if v is not None}
    fragment = {"index": index, "id": id, "function": function}
    return {"tool_calls": [{k: v for k, v in fragment.items() if v is not None}]}


def stream(chunks: Iterable[dict[str, Any]], *, is_done: bool = True) -> bytes:
    """The chunks on the wire."""
    sent = b"".join(b"data: %b\n\n" % orjson.dumps(each) for each in chunks)
    return sent + DONE if is_done else sent


def shape(output: list[dict[str, Any]]) -> list[Any]:
    """What items say: the type, and the text of each part, or the name and the text of a call."""
    shapes: list[Any] = []
    for item in output:
        if item["type"] in ("function_call", "custom_tool_call"):
            shapes.append((item["type"], item["name"], item.get("arguments", item.get("input"))))
        else:
            parts = item.get("content") or []
            shapes.append((item["type"], *(part.get("text", part.get("refusal")) for part in parts)))
    return shapes
