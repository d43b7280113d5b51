"""Input items as chat messages: order, shapes, and what goes back after a turn."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.wire.chat.messages import messages_of
from gateway.wire.errors import Refusal
from tests.wire.chat_play import call, chunk, run, stream

Item = dict[str, Any]

IMAGE = {"type": "input_image", "image_url": "data:image/png;base64,AA=="}


def messages(*items: Any, instructions: Any = None, developer: bool = False, field: str | None = None) -> Any:
    return messages_of(instructions, list(items), has_developer_role=developer, reasoning_field=field)


def said(role: str, content: Any, **fields: Any) -> Item:
    return {"role": role, "content": content, **fields}


def text(value: str, kind: str = "input_text") -> Item:
    return {"type": kind, "text": value}


def function_call(call_id: str, arguments: str = "{}") -> Item:
    return {"type": "function_call", "call_id": call_id, "name": "look", "arguments": arguments}


def function_output(call_id: str, output: Any = "seen") -> Item:
    return {"type": "function_call_output", "call_id": call_id, "output": output}


def reasoning(thought: str, holder: str = "content") -> Item:
    return {"type": "reasoning", "summary": [], holder: [{"type": "reasoning_text", "text": thought}]}


def made_call(call_id: str, arguments: str = "{}") -> Item:
    return {"id": call_id, "type": "function", "function": {"name": "look", "arguments": arguments}}


def made_output(call_id: str, content: Any = "seen") -> Item:
    return {"role": "tool", "tool_call_id": call_id, "content": content}


# -- messages


def test_instructions_are_the_first_system_message() -> None:
    assert messages(said("user", "Hi"), instructions="Be brief.") == [
        said("system", "Be brief."),
        said("user", "Hi"),
    ]


def test_empty_instructions_are_none() -> None:
    assert messages(said("user", "Hi"), instructions="") == [said("user", "Hi")]


def test_instructions_may_be_items() -> None:
    item = said("developer", [text("Be brief.")])
    assert messages(said("user", "Hi"), instructions=[item])[0] == said("system", "Be brief.")


def test_string_is_one_user_message() -> None:
    made = messages_of(None, "Hi", has_developer_role=False, reasoning_field=None)
    assert made == [said("user", "Hi")]


def test_roles_stay_and_type_may_be_left_out() -> None:
    items = [said("user", "A"), said("assistant", "B"), said("user", "C", type="message")]
    assert messages(*items) == [said("user", "A"), said("assistant", "B"), said("user", "C")]


def test_developer_is_system_where_the_backend_does_not_know_it() -> None:
    assert messages(said("developer", "A")) == [said("system", "A")]
    assert messages(said("developer", "A"), developer=True) == [said("developer", "A")]


def test_system_messages_that_follow_each_other_are_one() -> None:
    items = [said("developer", "B"), said("system", "C"), said("user", "Hi")]
    assert messages(*items, instructions="A") == [said("system", "A\n\nB\n\nC"), said("user", "Hi")]


def test_system_message_later_on_stays_where_it_is() -> None:
    roles = [m["role"] for m in messages(said("user", "A"), said("system", "B"), instructions="C")]
    assert roles == ["system", "user", "system"]


# -- parts


def test_texts_alone_are_a_string() -> None:
    assert messages(said("user", [text("A"), text("B")])) == [said("user", "A\nB")]
    assert messages(said("user", [])) == [said("user", "")]


def test_parts_of_every_kind_keep_their_order() -> None:
    audio = {"data": "AA==", "format": "wav"}
    parts = [
        text("See"),
        {**IMAGE, "detail": "original"},
        {**IMAGE, "detail": "low"},
        IMAGE,
        {"type": "input_file", "file_data": "data:x", "filename": "a.pdf", "file_url": None},
        {"type": "input_file", "file_id": "file_1"},
        {"type": "input_audio", "input_audio": audio},
        {"type": "input_audio", **audio},
    ]
    ((made),) = messages(said("user", parts))
    url = IMAGE["image_url"]
    assert made["content"] == [
        {"type": "text", "text": "See"},
        {"type": "image_url", "image_url": {"url": url, "detail": "high"}},
        {"type": "image_url", "image_url": {"url": url, "detail": "low"}},
        {"type": "image_url", "image_url": {"url": url}},
        {"type": "file", "file": {"file_data": "data:x", "filename": "a.pdf"}},
        {"type": "file", "file": {"file_id": "file_1"}},
        {"type": "input_audio", "input_audio": audio},
        {"type": "input_audio", "input_audio": audio},
    ]


def test_texts_of_an_assistant_are_joined_and_its_refusal_kept_apart() -> None:
    parts = [text("A", "output_text"), text("B", "output_text"), {"type": "refusal", "refusal": "No."}]
    assert messages(said("assistant", parts)) == [said("assistant", "AB", refusal="No.")]


def test_refusal_alone() -> None:
    made = messages(said("assistant", [{"type": "refusal", "refusal": "No."}]), said("assistant", "B"))
    assert made == [said("assistant", "", refusal="No."), said("assistant", "B")]


# -- calls


def test_calls_are_one_message_with_the_text_before_them() -> None:
    made = messages(
        said("user", "Hi"),
        said("assistant", "I look."),
        function_call("c1", '{"a":1}'),
        function_call("c2", ""),
        function_output("c1"),
        function_output("c2", [text("x"), text("y")]),
        said("assistant", "Seen."),
    )
    assert made == [
        said("user", "Hi"),
        said("assistant", "I look.", tool_calls=[made_call("c1", '{"a":1}'), made_call("c2")]),
        made_output("c1"),
        made_output("c2", "x\ny"),
        said("assistant", "Seen."),
    ]


def test_calls_after_an_output_are_a_new_message() -> None:
    made = messages(function_call("c1"), function_output("c1"), function_call("c2"), function_output("c2"))
    assert made == [
        said("assistant", "", tool_calls=[made_call("c1")]),
        made_output("c1"),
        said("assistant", "", tool_calls=[made_call("c2")]),
        made_output("c2"),
    ]


def test_text_between_a_call_and_its_output_joins_the_message_of_the_call() -> None:
    made = messages(
        said("assistant", "A"), function_call("c1"), said("assistant", "B"), function_output("c1")
    )
    assert made == [said("assistant", "A\nB", tool_calls=[made_call("c1")]), made_output("c1")]


def test_output_that_comes_late_goes_to_its_call() -> None:
    made = messages(
        function_call("c1"), function_call("c2"), said("user", "Wait"), *map(function_output, ("c1", "c2"))
    )
    assert [m.get("tool_call_id", m["role"]) for m in made] == ["assistant", "c1", "c2", "user"]


def test_output_without_its_call_stays_where_it_is() -> None:
    assert messages(said("user", "A"), function_output("c9")) == [said("user", "A"), made_output("c9")]


def test_of_two_calls_with_one_id_the_later_one_gets_the_later_output() -> None:
    made = messages(*[function_call("c"), function_output("c", "1"), said("user", "A")] * 2)
    assert [m["role"] for m in made] == ["assistant", "tool", "user"] * 2


def test_output_in_parts_with_an_image_stays_in_parts() -> None:
    (_, made) = messages(function_call("c"), function_output("c", [text("x"), IMAGE]))
    assert [part["type"] for part in made["content"]] == ["text", "image_url"]


def test_custom_call_is_a_call_of_the_function_that_the_backend_knows() -> None:
    items = [
        {"type": "custom_tool_call", "call_id": "c", "name": "look", "input": 'a "b"'},
        {"type": "custom_tool_call_output", "call_id": "c", "output": "seen"},
    ]
    assert messages(*items) == [
        said("assistant", "", tool_calls=[made_call("c", '{"input":"a \\"b\\""}')]),
        made_output("c"),
    ]


# -- reasoning


@pytest.mark.parametrize("holder", ["content", "summary"])
def test_reasoning_is_left_out_or_goes_with_the_next_assistant_message(holder: str) -> None:
    items = [reasoning("Hm.", holder), said("assistant", "A")]
    assert messages(*items) == [said("assistant", "A")]
    assert messages(*items, field="reasoning") == [said("assistant", "A", reasoning="Hm.")]


def test_reasoning_before_a_call_goes_with_the_call() -> None:
    made = messages(reasoning("A"), reasoning("B"), function_call("c"), field="reasoning_content")
    assert made == [said("assistant", "", reasoning_content="A\nB", tool_calls=[made_call("c")])]


def test_reasoning_after_a_call_stays_on_its_side_of_the_output() -> None:
    made = messages(
        function_call("c"), reasoning("A"), function_output("c"), said("assistant", "B"), field="r"
    )
    assert made == [
        said("assistant", "", r="A", tool_calls=[made_call("c")]),
        made_output("c"),
        said("assistant", "B"),
    ]


def test_reasoning_that_nothing_followed_does_not_move_to_a_later_turn() -> None:
    made = messages(reasoning("A"), said("user", "Go on"), said("assistant", "B"), field="reasoning")
    assert made == [said("assistant", "", reasoning="A"), said("user", "Go on"), said("assistant", "B")]


def test_reasoning_that_is_left_out_leaves_no_message_behind() -> None:
    assert messages(reasoning("A"), said("user", "Go on")) == [said("user", "Go on")]


# -- refusals


def refused(*items: Any) -> tuple[str | None, str | None]:
    with pytest.raises(Refusal) as caught:
        messages(*items)
    return caught.value.param, caught.value.code


@pytest.mark.parametrize(
    "item",
    [
        {"type": "item_reference", "id": "msg_1"},
        {"id": "msg_1"},
        {"type": "web_search_call", "id": "ws_1"},
        {"type": "mcp_call"},
        {"type": "compaction"},
        {"type": "no_such_type"},
    ],
)
def test_item_without_a_counterpart_is_refused(item: Item) -> None:
    assert refused(said("user", "Hi"), item) == ("input.1.type", "unsupported_parameter")


@pytest.mark.parametrize(
    "part",
    [
        {"type": "input_image", "file_id": "file_1"},
        {"type": "input_file", "file_url": "https://example.com/a.pdf"},
        {"type": "input_audio"},
        {"type": "input_video", "video_url": "x"},
        {"type": "image_url", "image_url": {"url": "x"}},
        {},
        {"type": ["x"]},
    ],
)
def test_part_without_a_counterpart_is_refused(part: Item) -> None:
    assert refused(said("user", [text("A"), part])) == ("input.0.content.1", "unsupported_parameter")
    assert refused(function_output("c", [part])) == ("input.0.output.0", "unsupported_parameter")
    assert refused(said("assistant", [part])) == ("input.0.content.0", "unsupported_parameter")


def test_calls_inside_a_message_are_refused() -> None:
    item = said("assistant", None, tool_calls=[made_call("c")])
    assert refused(item) == ("input.0.tool_calls", "unsupported_parameter")


@pytest.mark.parametrize(
    ("item", "param", "code"),
    [
        ("Hi", "input.0", "invalid_type"),
        (None, "input.0", "invalid_type"),
        ({"type": 5}, "input.0.type", "invalid_type"),
        (said("user", 5), "input.0.content", "invalid_type"),
        (said("user", None), "input.0.content", "invalid_type"),
        (said("user", ["x"]), "input.0.content.0", "invalid_type"),
        (said("user", [{"type": "input_text"}]), "input.0.content.0.text", "invalid_type"),
        (said("user", [{**IMAGE, "image_url": {"url": "x"}}]), "input.0.content.0.image_url", "invalid_type"),
        (said("user", [{**IMAGE, "detail": 5}]), "input.0.content.0.detail", "invalid_type"),
        (said("assistant", 5), "input.0.content", "invalid_type"),
        (said("assistant", [{"type": "refusal", "refusal": 5}]), "input.0.content.0.refusal", "invalid_type"),
        (said("tool", "x"), "input.0.role", "invalid_value"),
        ({"content": "x"}, "input.0.role", "invalid_value"),
        ({**function_call("c"), "arguments": {"a": 1}}, "input.0.arguments", "invalid_type"),
        (function_call(""), "input.0.call_id", "missing_required_parameter"),
        ({**function_call("c"), "name": None}, "input.0.name", "missing_required_parameter"),
        ({**function_call("c"), "name": 5}, "input.0.name", "invalid_type"),
        ({"type": "function_call_output"}, "input.0.call_id", "missing_required_parameter"),
        (function_output("c", None), "input.0.output", "invalid_type"),
        ({"type": "custom_tool_call", "input": 5}, "input.0.input", "invalid_type"),
        ({"type": "reasoning", "summary": "x"}, "input.0.summary", "invalid_type"),
        ({"type": "reasoning", "content": [5]}, "input.0.content.0", "invalid_type"),
    ],
)
def test_malformed_item_is_refused_with_its_place(item: Any, param: str, code: str) -> None:
    assert refused(item) == (param, code)


# -- there and back

pieces = {
    "R": chunk({"reasoning": "Hm."}),
    "T": chunk({"content": "Text."}),
    "N": chunk({"refusal": "No."}),
}


@given(
    told=st.lists(st.sampled_from([*pieces, "F", "C"]), min_size=1, max_size=6),
    outputs_at=st.sampled_from(["after their calls", "at the end", "backwards"]),
    field=st.sampled_from([None, "reasoning_content"]),
)
@settings(max_examples=150, deadline=None)
def test_turn_that_goes_back_with_its_outputs_is_one_that_templates_accept(
    told: list[str], outputs_at: str, field: str | None
) -> None:
    chunks = []
    for index, what in enumerate(told):
        name = {"F": "look", "C": "run"}.get(what)
        fragment = call(index, f"c{index}", name, '{"input":"x"}') if name else None
        chunks.append(chunk(fragment) if fragment else pieces[what])
    played = run(stream([*chunks, chunk(finish="stop")]), tools=[{"type": "custom", "name": "run"}])
    items: list[Item] = [said("user", "Hi")]
    outputs: list[Item] = []
    for item in played.final["output"]:
        items.append(item)
        if "call_id" in item:
            output = {"type": f"{item['type']}_output", "call_id": item["call_id"], "output": "seen"}
            (items if outputs_at == "after their calls" else outputs).append(output)
    items += outputs[::-1] if outputs_at == "backwards" else outputs
    made = messages(*items, said("user", "Go on"), field=field)

    assert (made[0], made[-1]) == (said("user", "Hi"), said("user", "Go on"))
    waiting: set[str] = set()
    for message in made:
        if message["role"] == "tool":
            waiting.remove(message["tool_call_id"])
            continue
        assert not waiting, "something stands between a call and its output"
        calls = message.get("tool_calls", [])
        waiting = {made["id"] for made in calls}
        assert len(waiting) == len(calls)
    assert not waiting
    assert "".join(m["content"] for m in made[1:-1] if m["role"] == "assistant").count("Text.") == told.count(
        "T"
    )
    thoughts = "".join(m.get("reasoning_content", "") for m in made)
    assert thoughts.count("Hm.") == (told.count("R") if field else 0)
