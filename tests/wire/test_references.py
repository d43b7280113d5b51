"""Items that an input names: found in a body, found in turns, put in their places."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, TypeVar

import orjson
import pytest

from gateway.wire.bodies.classify import Chained, RequestKind, Standalone, classify, may_name_previous
from gateway.wire.conversation.items import Turn
from gateway.wire.conversation.references import found_in, may_be_in, named_in, not_found, put_in
from gateway.wire.conversation.thoughts import MARK
from gateway.wire.errors import Fault

T = TypeVar("T")


def run(look: Generator[None, None, T]) -> T:
    while True:
        try:
            next(look)
        except StopIteration as done:
            found: T = done.value
            return found


def body(item: bytes) -> bytes:
    return b'{"model": "m", "input": [{"role": "user", "content": "Hi"}, %b]}' % item


REFERENCES = [
    b'{"type": "item_reference", "id": "msg_1"}',
    b'{"id":"msg_1","type":"item_reference"}',
    rb'{"type": "item\u005freference", "id": "msg_1"}',
    b'{"id": "msg_1"}',
    b'{\n\t"id" :\r"msg_1" }',
    b'{"type": null, "id": "msg_1"}',
    b'{"id": "msg_1", "type": null}',
    rb'{"\u0069d": "msg_1"}',
    rb'{"id": "msg\u005f1"}',
    b'{"id": "another", "id": "msg_1"}',
    b'{"id": "%b"}' % (b"m" * 4000),
]


@pytest.mark.parametrize("item", REFERENCES)
@pytest.mark.parametrize("before", [0, 2**20 - 10, 2**20 + 32 * 2**10])
def test_a_reference_is_seen_however_it_is_written_and_wherever_it_lies(item: bytes, before: int) -> None:
    padded = body(b'{"role": "user", "content": "%b"}, %b' % (b"x" * before, item))
    assert run(may_be_in(padded))
    kind: RequestKind = run(classify(padded))
    assert isinstance(kind, Chained)
    assert kind.previous_id is None
    [name] = named_in(kind.body["input"])
    assert name in ("msg_1", "m" * 4000)


@pytest.mark.parametrize(
    "item",
    [
        b'{"id": "msg_1", "role": "user", "content": "Hi"}',
        b'{"type": "message", "id": "msg_1", "role": "user", "content": "Hi"}',
        b'{"type": "function_call_output", "call_id": "c", "output": "{\\"id\\": \\"msg_1\\"}"}',
        b'{"role": "user", "content": "What is an \\"item_reference\\"?"}',
        b'{"id": 5}',
        b'{"id": ""}',
        b"{}",
    ],
)
def test_an_item_that_is_said_is_no_reference(item: bytes) -> None:
    kind: RequestKind = run(classify(body(item)))
    assert isinstance(kind, Standalone) or named_in(kind.body["input"]) == []


def test_thoughts_that_were_sealed_here_are_seen() -> None:
    assert run(may_be_in(body(b'{"type": "reasoning", "encrypted_content": "%bk.AA"}' % MARK.encode())))
    assert not run(may_be_in(body(b'{"type": "reasoning", "encrypted_content": "gAAAAAB"}')))


def test_what_cannot_be_read_here_may_name_anything() -> None:
    unreadable = b"\xef\xbb\xbf" + body(b'{"id": "msg_1"}')  # some servers skip a byte order mark
    assert isinstance(run(classify(unreadable)), Standalone)
    assert run(may_name_previous(unreadable))
    assert not run(may_name_previous(body(b'{"role": "user", "content": "Hi"}')))


def test_an_object_with_an_id_elsewhere_names_nothing() -> None:
    kind: RequestKind = run(classify(b'{"model": "m", "input": "Hi", "prompt": {"id": "pmpt_1"}}'))
    assert isinstance(kind, Chained)
    assert named_in(kind.body["input"]) == []


@pytest.mark.parametrize("given", [None, "Hi", [], [5], {"type": "item_reference", "id": "x"}])
def test_only_items_of_a_list_are_references(given: Any) -> None:
    assert named_in(given) == []


def test_ids_are_named_once_and_in_order() -> None:
    items = [{"id": "b"}, {"id": "a"}, {"type": "item_reference", "id": "b"}, {"type": "item_reference"}]
    assert named_in(items) == ["b", "a"]


def turn(response_id: str, given: Any, output: list[Any] | None = None) -> Turn:
    final = b"" if output is None else orjson.dumps({"output": output})
    return Turn(response_id, orjson.dumps(given), final)


def test_of_several_items_with_one_id_the_newest_is_found() -> None:
    def said(text: str) -> dict[str, Any]:
        return {"type": "message", "id": "msg_1", "role": "assistant", "content": text}

    newer = turn("resp_b", [said("second"), said("third")], [said("fourth")])
    older = turn("resp_a", "Hi", [said("first")])
    assert found_in([newer, older], ["msg_1"]) == {"msg_1": said("fourth")}
    assert found_in([turn("resp_b", [said("second"), said("third")]), older], ["msg_1"]) == {
        "msg_1": said("third")
    }
    assert found_in([older], ["msg_1", "msg_2"]) == {"msg_1": said("first")}


def test_an_item_is_found_with_the_id_by_which_it_was_named() -> None:
    response_id = "resp_" + "5" * 48
    name = "msg_" + "5" * 40 + "80000000"
    assert found_in([turn(response_id, "Hi", [])], [name]) == {
        name: {"role": "user", "content": "Hi", "id": name}
    }


def test_a_reference_is_not_what_it_names() -> None:
    assert found_in([turn("resp_a", [{"type": "item_reference", "id": "msg_1"}])], ["msg_1"]) == {}


def test_items_stand_where_they_were_named_and_all_else_is_as_it_was() -> None:
    call = {"type": "function_call", "id": "fc_1", "call_id": "c", "name": "sky", "arguments": "{}"}
    output = {"type": "function_call_output", "call_id": "c", "output": "wet"}
    unknown = {"type": "item_reference", "id": "fc_2"}
    given = [{"role": "user", "content": "Hi"}, {"id": "fc_1"}, unknown, output]
    assert put_in(given, {"fc_1": call}) == [given[0], call, unknown, output]


def test_what_is_not_there_is_told_in_the_words_of_the_api() -> None:
    refusal = not_found("msg_1")
    assert (refusal.fault, refusal.param, refusal.code) == (Fault.NOT_FOUND, "input", None)
    assert refusal.message.startswith("Item with id 'msg_1' not found. Items are not persisted when `store`")
