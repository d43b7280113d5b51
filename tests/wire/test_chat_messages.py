"""Input items as chat messages: order, shapes, and what goes back after a turn."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.wire.chat.messages import messages_of
from gateway.wire.chat.spoken import BLANK_THOUGHT, NO_OUTPUT, NO_SIGNATURE
from gateway.wire.chat.tools import Tools
from gateway.wire.chat.ways import System, ThoughtReplay, Ways
from gateway.wire.errors import Refusal
from tests.wire.chat_play import call, chunk, run, stream

Item = dict[str, Any]

IMAGE = {"type": "input_image", "image_url": "data:image/png;base64,AA=="}


def messages(
    *items: Any,
    instructions: Any = None,
    developer: bool = False,
    field: str | None = None,
    thoughts: ThoughtReplay = ThoughtReplay.ALL,
    **ways: Any,
) -> Any:
    told = Ways(has_developer_role=developer, reasoning_field=field, thoughts=thoughts, **ways)
    return messages_of(instructions, list(items), ways=told)


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
    assert messages_of(None, "Hi") == [said("user", "Hi")]


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


def test_what_was_said_between_calls_and_their_outputs_was_said_before() -> None:
    made = messages(
        function_call("c1"), function_call("c2"), said("user", "Wait"), *map(function_output, ("c1", "c2"))
    )
    assert [m.get("tool_call_id", m["role"]) for m in made] == ["user", "assistant", "c1", "c2"]


def test_question_asked_again_with_each_output_is_not_the_last_word() -> None:
    asked, first, second = said("user", "Weather?"), function_output("c1"), function_output("c2", "dry")
    made = messages(
        *(asked, function_call("c1")),
        *(asked, first, function_call("c2")),
        *(asked, second, first),  # as Semantic Kernel sends it, the outputs of earlier rounds once more
    )
    order = [m.get("tool_call_id", m["role"]) for m in made]
    assert order == ["user", "user", "assistant", "c1", "user", "assistant", "c2"]


def test_output_goes_to_a_call_that_the_conversation_has_left_behind() -> None:
    made = messages(
        function_call("c1"), said("user", "Wait"), said("assistant", "I wait."), function_output("c1")
    )
    assert [m.get("tool_call_id", m["role"]) for m in made] == ["assistant", "c1", "user", "assistant"]


def test_of_two_outputs_of_one_call_the_last_one_stands() -> None:
    made = messages(function_call("c"), function_output("c", "running"), function_output("c", "done"))
    assert made[1:] == [made_output("c", "done")]


def test_outputs_stand_in_the_order_of_their_calls() -> None:
    made = messages(function_call("c1"), function_call("c2"), *map(function_output, ("c2", "c1")))
    assert [m["tool_call_id"] for m in made[1:]] == ["c1", "c2"]


def test_call_without_an_output_gets_one_that_says_so() -> None:
    made = messages(function_call("c1"), function_call("c2"), function_output("c2"), said("user", "Go on"))
    assert made[1:] == [made_output("c1", NO_OUTPUT), made_output("c2"), said("user", "Go on")]


def test_output_without_its_call_is_told_by_the_user() -> None:
    told = "Output of an earlier tool call (c9):\n\nseen"
    assert messages(said("user", "A"), function_output("c9")) == [said("user", "A"), said("user", told)]
    (_, made) = messages(said("user", "A"), function_output("c9", [text("x"), IMAGE]))
    assert [part["type"] for part in made["content"]] == ["text", "text", "image_url"]


def test_of_two_calls_with_one_id_the_later_one_gets_the_later_output() -> None:
    made = messages(*[function_call("c"), function_output("c", "1"), said("user", "A")] * 2)
    assert [m["role"] for m in made] == ["assistant", "tool", "user"] * 2


def test_images_of_outputs_follow_all_of_them_in_a_user_message() -> None:
    made = messages(
        function_call("c1"),
        function_call("c2"),
        function_output("c1", [text("x"), IMAGE]),
        function_output("c2"),
    )
    assert [m["role"] for m in made] == ["assistant", "tool", "tool", "user"]
    assert (made[1]["content"], made[2]["content"]) == ("x", "seen")
    assert [part["type"] for part in made[3]["content"]] == ["text", "image_url"]
    assert made[3]["content"][0]["text"] == "Output of look:"


def test_output_that_is_an_image_alone_has_a_text_too() -> None:
    (_, output, _) = messages(function_call("c"), function_output("c", [IMAGE]))
    assert output["content"]


def test_vendor_data_of_a_call_and_of_a_message_go_back_with_them() -> None:
    signature = {"google": {"thought_signature": "c2ln"}}
    made = messages(
        said("user", "Hi"),
        {**function_call("c1"), "extra_content": signature, "thought_signature": "c2ln", "status": None},
        function_call("c2"),
        said("assistant", "Hm.", extra_content=signature),
        function_output("c1"),
    )
    calls = made[1]["tool_calls"]
    signed = {**made_call("c1"), "extra_content": signature, "thought_signature": "c2ln"}
    assert calls == [signed, made_call("c2")]
    assert made[1]["extra_content"] == signature


def test_calls_go_back_under_the_names_that_the_backend_has_for_them() -> None:
    class Flat(Tools):
        def flat_of(self, item: Item) -> str:
            return f"{item['namespace']}__{item['name']}"

    made = messages_of(None, [{**function_call("c"), "namespace": "eyes"}], tools=Flat())
    assert made[0]["tool_calls"][0]["function"]["name"] == "eyes__look"


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
    assert made[0] == said("assistant", "", reasoning_content="A\nB", tool_calls=[made_call("c")])


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


@pytest.mark.parametrize(
    "kept",
    [
        {"content": [{"type": "output_text", "text": "Hm."}], "summary": None, "status": None},  # Open WebUI
        {"content": "Hm."},
        {"summary": ["Hm."]},
        {"summary": "Hm.", "content": None},
        {"content": [], "summary": [{"type": "summary_text", "text": "Hm."}, 5, {"type": "x"}]},
        {"content": [{"type": "vendor", "text": "Hm."}, None]},
    ],
)
def test_thoughts_are_read_in_whatever_form_a_client_kept_them(kept: Item) -> None:
    item = {"type": "reasoning", "id": "r", **kept}
    assert messages(item, said("assistant", "A"), field="r") == [said("assistant", "A", r="Hm.")]
    assert messages(item, said("assistant", "A")) == [said("assistant", "A")]


@pytest.mark.parametrize("sealed", [{"encrypted_content": "x"}, {"summary": []}, {"content": {"a": 1}}, {}])
def test_thoughts_that_cannot_be_read_are_none(sealed: Item) -> None:
    assert messages({"type": "reasoning", **sealed}, said("assistant", "A"), field="r") == [
        said("assistant", "A")
    ]


ROUNDS = [
    said("user", "One"),
    *(
        reasoning("old"),
        function_call("c1"),
        function_output("c1"),
        reasoning("older"),
        said("assistant", "A"),
    ),
    said("user", "Two"),
    *(reasoning("new"), function_call("c2"), function_output("c2")),
    *(function_call("c3"), function_output("c3")),
]


@pytest.mark.parametrize(
    ("thoughts", "field", "expected"),
    [
        (ThoughtReplay.OPEN_TURN, None, [None] * 4),
        (ThoughtReplay.OPEN_TURN, "reasoning", [None, None, "new", None]),
        (ThoughtReplay.NEVER, "reasoning", [None] * 4),
        (ThoughtReplay.CALLS, "reasoning", ["old", None, "new", BLANK_THOUGHT]),
        (ThoughtReplay.ALL, "reasoning", ["old", "older", "new", None]),
    ],
)
def test_which_thoughts_go_back(
    thoughts: ThoughtReplay, field: str | None, expected: list[str | None]
) -> None:
    made = messages(*ROUNDS, thoughts=thoughts, field=field)
    assert [m.get("reasoning") for m in made if m["role"] == "assistant"] == expected


def test_what_belongs_to_thoughts_goes_back_with_them_as_it_was() -> None:
    details = [{"type": "reasoning.encrypted", "data": "x"}]
    signed = {**reasoning("Hm."), "reasoning_details": details}
    sealed = {"type": "reasoning", "summary": [], "reasoning_details": details}
    turn = [said("user", "A"), signed, sealed, function_call("c"), function_output("c")]
    told = messages(*turn, thoughts=ThoughtReplay.OPEN_TURN)[1]
    assert told == said("assistant", "", reasoning_details=[*details, *details], tool_calls=[made_call("c")])
    told = messages(*turn, thoughts=ThoughtReplay.OPEN_TURN, field="reasoning")[1]
    assert (told["reasoning"], len(told["reasoning_details"])) == ("Hm.", 2)
    # where the words came in the details, they go back there and nowhere else
    told = messages(*turn, thoughts=ThoughtReplay.OPEN_TURN, field="reasoning_details")[1]
    assert told["reasoning_details"] == [*details, *details]
    old = messages(*turn, said("user", "B"), thoughts=ThoughtReplay.OPEN_TURN, field="reasoning")[1]
    assert old == said("assistant", "", tool_calls=[made_call("c")])


def test_item_that_says_nothing_leaves_no_trace() -> None:
    nothing = {"type": "reasoning", "summary": []}
    assert messages(said("system", "A"), nothing, said("system", "B")) == [said("system", "A\n\nB")]


def test_thoughts_as_parts_of_the_content_stand_before_its_text() -> None:
    made = messages(reasoning("Hm."), said("assistant", "A"), field="content")
    thinking = {"type": "thinking", "thinking": [{"type": "text", "text": "Hm."}]}
    assert made == [said("assistant", [thinking, {"type": "text", "text": "A"}])]


# -- strict templates and servers


def test_later_system_messages_go_into_the_first_one() -> None:
    late = [said("user", "A"), said("developer", [text("Now you may write.")]), said("user", "B")]
    for system in (System.AUTO, System.IN_PLACE):
        assert [m["role"] for m in messages(*late, instructions="C", system=system)][1:3] == [
            "user",
            "system",
        ]
    assert messages(*late, instructions="You code.", system=System.FIRST) == [
        said("system", "You code.\n\nNow you may write."),
        said("user", "A"),
        said("user", "B"),
    ]
    made = messages(*late, system=System.FIRST, developer=True, instructions="You code.")
    assert [m["role"] for m in made] == ["system", "user", "user"]
    assert messages(said("user", "A"), system=System.FIRST) == [said("user", "A")]


def test_where_no_system_message_is_known_the_first_user_says_it() -> None:
    made = messages(said("user", "A"), said("system", "B"), instructions="C", system=System.USER)
    assert made == [said("user", "C\n\nB\n\nA")]
    assert messages(said("user", [text("A"), IMAGE]), instructions="C", system=System.USER)[0]["content"][
        0
    ] == {
        "type": "text",
        "text": "C",
    }
    assert messages(instructions="C", system=System.USER) == [said("user", "C")]


def test_parties_take_turns_where_they_must() -> None:
    made = messages(
        *(said("assistant", "Welcome."), said("user", "A"), said("user", [text("B"), IMAGE])),
        *(said("assistant", "C"), said("assistant", "D"), function_call("c"), function_output("c")),
        said("user", "E"),
        alternates=True,
    )
    assert [m["role"] for m in made] == [
        *("user", "assistant", "user"),
        *("assistant", "tool"),
        *("assistant", "user"),
    ]
    assert [part["type"] for part in made[2]["content"]] == ["text", "text", "image_url"]
    assert (made[3]["content"], len(made[3]["tool_calls"])) == ("C\n\nD", 1)


def test_no_text_is_empty_where_it_must_not_be() -> None:
    made = messages(
        *(said("user", "A"), function_call("c"), function_output("c", "")),
        *(said("assistant", ""), reasoning("cut"), said("user", "B")),
        refuses_empty=True,
        field="r",
    )
    assert [m["role"] for m in made] == ["user", "assistant", "tool", "user"]
    assert made[1]["content"] is None
    assert made[2]["content"]


def test_first_call_of_a_message_has_a_signature_where_it_must() -> None:
    own = {"google": {"thought_signature": "c2ln"}}
    made = messages(
        *(function_call("c1"), function_call("c2"), function_output("c1"), function_output("c2")),
        *({**function_call("c3"), "extra_content": own}, function_output("c3")),
        needs_signatures=True,
    )
    signed = [call.get("extra_content") for m in made for call in m.get("tool_calls", [])]
    assert signed == [NO_SIGNATURE, None, own]


def test_ids_of_calls_are_short_where_they_must_be_and_their_outputs_find_them() -> None:
    odd = "functions.look:0"
    made = messages(function_call(odd), function_output(odd), has_short_ids=True)
    short = made[0]["tool_calls"][0]["id"]
    assert (len(short), short.isalnum()) == (9, True)
    assert made[1]["tool_call_id"] == short
    again = messages(function_call("functions.look:0"), function_call("b"), has_short_ids=True)
    assert [call["id"] == short for call in again[0]["tool_calls"]] == [True, False]


def test_fields_that_a_backend_refuses_are_left_out() -> None:
    items = [said("user", "A", name="ann"), {**function_call("c"), "extra_content": {"a": 1}}]
    made = messages(*items)
    assert (made[0]["name"], made[1]["tool_calls"][0]["extra_content"]) == ("ann", {"a": 1})
    made = messages(*items, refused=frozenset({"name", "extra_content"}))
    assert (made[0], made[1]["tool_calls"]) == (said("user", "A"), [made_call("c")])


@pytest.mark.parametrize("role", ["critic", "discriminator", "unknown"])
def test_roles_that_no_template_has_speak_as_users(role: str) -> None:
    assert messages(said(role, "A")) == [said("user", "A")]


# -- what other backends ran themselves


def test_tools_that_ran_elsewhere_are_told_in_words() -> None:
    made = messages(
        said("user", "Tides?"),
        {"type": "web_search_call", "id": "ws_1", "status": "completed", "action": {"query": "tides"}},
        {"type": "mcp_list_tools", "id": "l_1", "tools": []},
        {"type": "mcp_call", "id": "m_1", "name": "ask", "arguments": "{}", "output": "High at nine."},
        said("assistant", "At nine."),
    )
    assert [m["role"] for m in made] == ["user", *["assistant"] * 3]
    assert made[1]["content"] == '[web_search_call] {"action":{"query":"tides"}}'
    assert "High at nine." in made[2]["content"]
    assert "m_1" not in made[2]["content"]


def test_commands_that_ran_elsewhere_are_calls_with_their_outputs() -> None:
    made = messages(
        {"type": "shell_call", "id": "sh_1", "call_id": "s", "action": {"commands": ["date"]}},
        {"type": "shell_call_output", "call_id": "s", "output": [{"stdout": "Monday"}]},
    )
    assert made[0]["tool_calls"][0]["function"] == {"name": "shell", "arguments": '{"commands":["date"]}'}
    assert made[1] == made_output("s", '[{"stdout":"Monday"}]')


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
        {"type": "compaction", "encrypted_content": "x"},
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


@pytest.mark.parametrize(
    ("part", "words"),
    [
        ({"type": "output_image", "image_url": "data:image/png;base64,AA=="}, "[output_image]"),
        ({"type": "output_audio", "data": "AA==", "transcript": "Hello."}, "Hello."),
        ({"type": "vendor_note", "text": "Noted."}, "Noted."),
        ({"type": "thinking", "thinking": "Hm."}, ""),
    ],
)
def test_part_of_an_assistant_that_is_no_text_is_told_as_far_as_it_can_be(part: Item, words: str) -> None:
    assert messages(said("assistant", [text("A", "output_text"), part])) == [said("assistant", f"A{words}")]


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
        (said("assistant", [{}]), "input.0.content.0.type", "invalid_type"),
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
