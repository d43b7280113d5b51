"""A model server that takes a conversation only in its own form, and says so as real ones do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson

from tests.acceptance.replay import Answer, Call, ReplayServer, json_answer

Body = dict[str, Any]
Item = dict[str, Any]
Judge = Callable[[Body], Answer | str | None]
"""What is wrong with a call: the words of a 400, or a whole answer; None: it is answered."""

SEAL = "reasoning.encrypted_content"


def events(*sent: Body, done: bool = False) -> Answer:
    """A stream of these."""
    blocks = [
        b"event: %b\ndata: %b\n\n" % (str(event.get("type", "message")).encode(), orjson.dumps(event))
        for event in sent
    ]
    return Answer([*blocks, b"data: [DONE]\n\n"] if done else blocks)


def said(text: str) -> Item:
    part = {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
    return {"type": "message", "id": "msg_up", "role": "assistant", "status": "completed", "content": [part]}


def answered(*output: Item, stream: bool = True) -> Answer:
    """A whole Response with these items, streamed or not."""
    response = {"id": "resp_up", "object": "response", "created_at": 1, "model": "m", "output": list(output)}
    response |= {"status": "completed", "usage": {"input_tokens": 1, "output_tokens": 1, "total_tokens": 2}}
    if not stream:
        return json_answer(response)
    begun = {**response, "status": "in_progress", "output": []}
    items: list[Body] = [
        {"type": f"response.output_item.{verb}", "output_index": index, "item": item}
        for index, item in enumerate(output)
        for verb in ("added", "done")
    ]
    ends = {"type": "response.completed", "response": response}
    return events({"type": "response.created", "response": begun}, *items, ends)


def chunks(*deltas: Body, finish: str = "stop") -> Answer:
    """A chat stream."""
    made = [{"choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas]
    return events(*made, {"choices": [{"index": 0, "delta": {}, "finish_reason": finish}]}, done=True)


def calling(name: str, call_id: str, **fields: Any) -> Body:
    """The delta by which a model calls a function."""
    function = {"name": name, "arguments": "{}"}
    return {"tool_calls": [{"index": 0, "id": call_id, "type": "function", "function": function, **fields}]}


class StrictServer(ReplayServer):
    """Judges each call, and answers those that are good.

    Attributes:
        judge: What is wrong with a call.
        answer: What is said to a good one.
        refused: How many were not.
    """

    def __init__(self, judge: Judge, answer: Callable[[Body], Answer] | None = None) -> None:
        super().__init__()
        self.judge = judge
        self.answer = answer or self._default
        self.refused = 0

    def _answer_to(self, call: Call) -> Answer:
        if call.method != "POST":
            return super()._answer_to(call)
        body = call.json()
        wrong = self.judge(body)
        if wrong is None:
            return self.answer(body)
        self.refused += 1
        return wrong if isinstance(wrong, Answer) else refusal(wrong)

    @staticmethod
    def _default(body: Body) -> Answer:
        if "messages" in body:
            return chunks({"content": "Yes."})
        return answered(said("Yes."), stream=body.get("stream") is True)

    @property
    def last(self) -> Body:
        """The last call."""
        found: Body = self.creates[-1].json()
        return found


def refusal(message: str, status: int = 400, **fields: Any) -> Answer:
    """An error as OpenAI's API words it."""
    return json_answer({"error": {"message": message, "type": "invalid_request_error", **fields}}, status)
