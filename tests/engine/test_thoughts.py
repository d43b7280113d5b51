"""Thoughts of a chat backend, sealed for their client and opened when it sends them back."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from gateway.engine.thoughts import Thoughts
from gateway.wire.answers.readers import ChatReader
from gateway.wire.conversation import thoughts as wire
from gateway.wire.errors import Refusal
from gateway.wire.events import Event
from gateway.wire.speech import Api
from gateway.wire.sse import Frame

PEPPER = b"p" * 32
TENANT, OTHER = b"t" * 32, b"o" * 32
ASKING = {"include": [wire.INCLUDE]}
RESPONSE = "resp_" + "a" * 48


def chunk(finish: str | None = None, **delta: Any) -> Frame:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return Frame("", orjson.dumps({"choices": [choice]}))


def reasoning(events: list[Event]) -> list[dict[str, Any]]:
    return [
        event["item"]
        for event in events
        if event["type"] == "response.output_item.done" and event["item"]["type"] == "reasoning"
    ]


def played(thoughts: Thoughts, request: dict[str, Any], *frames: Frame, api: Api = Api.CHAT) -> list[Any]:
    reader = thoughts.sealing(ChatReader(RESPONSE), request, api, TENANT)
    return reasoning([event for frame in frames for event in reader.read(frame)] + reader.end())


SPOKEN = (
    chunk(reasoning_content="Let me"),
    chunk(reasoning_content=" look."),
    chunk(content="Rain."),
    chunk(reasoning_content="Sure?"),
    chunk(content="Yes."),
    chunk("stop"),
)


def sent_back(item: dict[str, Any]) -> dict[str, Any]:
    """As clients that store nothing send it: without its content."""
    return {"type": "reasoning", "id": item["id"], "summary": [], wire.FIELD: item[wire.FIELD]}


def test_each_thought_comes_back_whole() -> None:
    thoughts = Thoughts({}, PEPPER)
    items = played(thoughts, ASKING, *SPOKEN)
    assert len(items) == 2
    assert b"look" not in orjson.dumps(items)
    user = {"role": "user", "content": "Hi"}
    back = Thoughts({}, PEPPER).opened([user, *map(sent_back, items)], TENANT)
    assert back[0] == user
    texts = [[part["text"] for part in item["content"]] for item in back[1:]]
    assert texts == [["Let me look."], ["Sure?"]]
    assert not any(wire.FIELD in item for item in back)


@pytest.mark.parametrize("request_", [{}, {"include": None}, {"include": ["message.output_text.logprobs"]}])
def test_nothing_is_sealed_that_nobody_asked_for(request_: dict[str, Any]) -> None:
    items = played(Thoughts({}, PEPPER), request_, *SPOKEN)
    assert len(items) == 2
    assert not any(wire.FIELD in item for item in items)


def test_a_backend_that_speaks_the_responses_api_seals_for_itself() -> None:
    assert not any(
        wire.FIELD in item for item in played(Thoughts({}, PEPPER), ASKING, *SPOKEN, api=Api.RESPONSES)
    )


def test_a_whole_answer_is_sealed_like_a_stream() -> None:
    thoughts = Thoughts({}, PEPPER)
    reader = thoughts.sealing(ChatReader(RESPONSE), ASKING, Api.CHAT, TENANT)
    message = {"role": "assistant", "content": "Rain.", "reasoning_content": "Ask."}
    answer = {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}
    [item] = reasoning(reader.answer(orjson.dumps(answer)))
    [back] = thoughts.opened([sent_back(item)], TENANT)
    assert back["content"] == [{"type": "reasoning_text", "text": "Ask."}]


def test_the_first_key_of_the_settings_seals_and_all_of_them_open() -> None:
    without = Thoughts({}, PEPPER)
    old = Thoughts({"old": b"1" * 32}, PEPPER)
    both = Thoughts({"new": b"2" * 32, "old": b"1" * 32}, PEPPER)
    for sealing in (without, old, both):
        [item] = played(sealing, ASKING, *SPOKEN[:3])
        [back] = both.opened([sent_back(item)], TENANT)
        assert back["content"][0]["text"] == "Let me look."
    [item] = played(both, ASKING, *SPOKEN[:3])
    with pytest.raises(Refusal):
        old.opened([sent_back(item)], TENANT)


def test_what_was_changed_or_sealed_for_another_is_refused_with_its_place() -> None:
    thoughts = Thoughts({}, PEPPER)
    [item] = played(thoughts, ASKING, *SPOKEN[:3])
    text = item[wire.FIELD]
    bad = [text[:-4], text + "AAAA", wire.MARK, f"{wire.MARK}gone.{text.rpartition('.')[2]}"]
    for place in range(len(wire.MARK) + 1, len(text) - 2, 7):
        other = "A" if text[place] != "A" else "B"
        bad.append(text[:place] + other + text[place + 1 :])
    cases = [(changed, TENANT, thoughts) for changed in bad]
    cases += [(text, OTHER, thoughts), (text, TENANT, Thoughts({}, b"q" * 32))]
    for changed, tenant, opener in cases:
        with pytest.raises(Refusal) as caught:
            opener.opened([{"role": "user"}, {**sent_back(item), wire.FIELD: changed}], tenant)
        assert caught.value.code == "invalid_encrypted_content"
        assert caught.value.param == "input.1.encrypted_content"


def test_a_thought_that_comes_back_in_clear_needs_no_opening() -> None:
    content = [{"type": "reasoning_text", "text": "Mine."}]
    item = {
        "type": "reasoning",
        "id": "rs_1",
        "summary": [],
        "content": content,
        wire.FIELD: f"{wire.MARK}x.AA",
    }
    [back] = Thoughts({}, PEPPER).opened([item], TENANT)
    assert back == {"type": "reasoning", "id": "rs_1", "summary": [], "content": content}


@pytest.mark.parametrize("given", ["Hi", None, [], [{"type": "reasoning", wire.FIELD: "gAAAAA", "id": "rs"}]])
def test_an_input_without_any_is_the_same_object(given: Any) -> None:
    assert Thoughts({}, PEPPER).opened(given, TENANT) is given
