"""Which items of earlier turns go to a backend, and in which form."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.wire.chat.ways import System
from gateway.wire.conversation.portable_items import portable
from gateway.wire.conversation.replay import Forms, Ids, ReplayTarget, accepted, carried, system_first

Item = dict[str, Any]

HERE = ReplayTarget("here")
CHAT = ReplayTarget("here", is_chat=True)


def said(text: str, **fields: Any) -> Item:
    part = {"type": "output_text", "text": text, "annotations": []}
    item = {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content": [part]}
    return {**item, **fields}


def called(**fields: Any) -> Item:
    return {
        "type": "function_call",
        "id": "fc_1",
        "call_id": "c",
        "name": "look",
        "arguments": "{}",
        **fields,
    }


def thought(**fields: Any) -> Item:
    return {"type": "reasoning", "id": "rs_1", "summary": [], **fields}


PLAIN = thought(content=[{"type": "reasoning_text", "text": "Hm."}])
SEALED = thought(encrypted_content="seal-of-rs_1")
SEARCH = {"type": "web_search_call", "id": "ws_1", "status": "completed", "action": {"query": "tides"}}
SHELL = {"type": "shell_call", "id": "sh_1", "call_id": "s", "action": {"commands": ["date"]}}
SHELL_OUTPUT = {"type": "shell_call_output", "id": "so_1", "call_id": "s", "output": [{"stdout": "Monday"}]}


def without(item: Item, *names: str) -> Item:
    return {name: value for name, value in item.items() if name not in names}


# -- back to its maker


def test_items_go_back_to_their_maker_as_they_are() -> None:
    items = [
        PLAIN,
        SEARCH,
        said("Nine."),
        called(),
        SHELL,
        SHELL_OUTPUT,
        {"role": "user", "content": "Go on"},
    ]
    assert carried(items, "here", HERE) == items


def test_fields_that_others_would_not_have_null_are_left_out() -> None:
    items = [said("A", phase=None), {**PLAIN, "status": None, "encrypted_content": None}, called(vendor=None)]
    assert carried(items, "here", HERE) == [said("A"), PLAIN, called(vendor=None)]


@pytest.mark.parametrize(
    "empty",
    [thought(), thought(content=None), thought(summary=[{"type": "summary_text", "text": "Digest."}])],
)
def test_thoughts_that_only_a_store_knows_stay_behind_with_the_ids_that_belong_to_them(empty: Item) -> None:
    assert carried([empty, said("A"), called()], "here", HERE) == [
        without(said("A"), "id"),
        without(called(), "id"),
    ]


def test_sealed_thoughts_go_back_with_the_ids_of_their_turn() -> None:
    items = [SEALED, called(), {"type": "item_reference", "id": "msg_0"}]
    assert carried(items, "here", HERE) == items
    assert carried(items, "here", ReplayTarget("here", forms=Forms(ids=Ids.KEPT))) == items


# -- to another backend


@pytest.mark.parametrize("to", ["", "here"])
@pytest.mark.parametrize("maker", ["", "here"])
def test_a_turn_whose_backend_is_not_known_counts_as_the_same_one(maker: str, to: str) -> None:
    assert carried([PLAIN, said("A")], maker, ReplayTarget(to)) == [PLAIN, said("A")]


def test_another_backend_gets_what_was_said_without_ids_seals_and_thoughts() -> None:
    items = [
        *(SEALED, PLAIN, thought(), SEARCH, said("At "), called(extra_content={"google": {}})),
        {"type": "function_call_output", "id": "fco_1", "call_id": "c", "output": "seen"},
        {"type": "compaction", "id": "cmp_1", "encrypted_content": "x"},
        {"type": "custom_tool_call", "id": "ctc_1", "call_id": "d", "name": "run", "input": "x"},
        {"role": "user", "content": [{"type": "input_text", "text": "Go on"}]},
    ]
    assert carried(items, "there", HERE) == [
        {"type": "message", "role": "assistant", "content": '[web_search_call] {"action":{"query":"tides"}}'},
        {"type": "message", "role": "assistant", "content": "At "},
        without(called(), "id"),
        {"type": "function_call_output", "call_id": "c", "output": "seen"},
        {"type": "custom_tool_call", "call_id": "d", "name": "run", "input": "x"},
        items[-1],
    ]


def test_parts_of_another_backends_message_that_are_no_text_stay() -> None:
    message = said("A")
    message["content"] = [{"type": "refusal", "refusal": "No."}]
    assert carried([message], "there", HERE) == [without(message, "id")]


# -- to a chat backend


def test_a_chat_backend_gets_what_chat_can_say() -> None:
    picture = {"type": "input_image", "file_id": "file_1"}
    report = {"type": "input_file", "file_url": "https://example.com/a.pdf", "filename": "a.pdf"}
    inline = {"type": "input_image", "image_url": "data:image/png;base64,AA=="}
    items: list[Item] = [
        {"role": "user", "content": [picture, report, inline]},
        {"type": "never_heard_of", "id": "n_1", "found": ["x"]},
        {"type": "compaction", "encrypted_content": "x"},
        SHELL,
        PLAIN,
        {"type": "function_call_output", "call_id": "c", "output": [picture]},
    ]
    told = carried(items, "there", CHAT)
    assert told[0]["content"] == [
        {"type": "input_text", "text": "[input_image file_1]"},
        {"type": "input_text", "text": "[input_file a.pdf]"},
        inline,
    ]
    assert [item["type"] for item in told[1:]] == [
        "message",
        "function_call",
        "reasoning",
        "function_call_output",
    ]
    assert told[1]["content"] == '[never_heard_of] {"found":["x"]}'
    assert told[4]["output"][0]["type"] == "input_text"


# -- in plain words


@pytest.mark.parametrize(
    ("item", "plain"),
    [
        (SHELL, {"call_id": "s", "name": "shell", "arguments": '{"commands":["date"]}'}),
        (SHELL_OUTPUT, {"call_id": "s", "output": '[{"stdout":"Monday"}]'}),
        (
            {"type": "custom_tool_call", "call_id": "c", "name": "run", "input": 'a "b"'},
            {"call_id": "c", "name": "run", "arguments": '{"input":"a \\"b\\""}'},
        ),
        ({"type": "custom_tool_call_output", "call_id": "c", "output": "x"}, {"call_id": "c", "output": "x"}),
        ({"type": "local_shell_call_output", "id": "c", "output": "x"}, {"call_id": "c", "output": "x"}),
        (
            {"type": "apply_patch_call", "call_id": "c", "operation": {"type": "create_file", "path": "a"}},
            {"call_id": "c", "name": "apply_patch", "arguments": '{"type":"create_file","path":"a"}'},
        ),
        (
            {"type": "computer_call_output", "call_id": "c", "output": {"image_url": "data:x"}},
            {"call_id": "c", "output": [{"type": "input_image", "image_url": "data:x"}]},
        ),
    ],
)
def test_calls_that_a_client_answers_are_function_calls(item: Item, plain: Item) -> None:
    (made,) = portable(item)
    kind = "function_call_output" if "output" in plain else "function_call"
    assert made == {"type": kind, **plain}


@pytest.mark.parametrize(
    ("item", "words"),
    [
        (SEARCH, '[web_search_call] {"action":{"query":"tides"}}'),
        (
            {"type": "mcp_call", "id": "m", "name": "ask", "server_label": "s", "output": "x", "error": None},
            '[mcp_call ask] {"server_label":"s","output":"x"}',
        ),
        (
            {"type": "code_interpreter_call", "id": "c", "container_id": "k", "code": "1", "outputs": []},
            '[code_interpreter_call] {"code":"1"}',
        ),
        (
            {"type": "image_generation_call", "id": "i", "result": "AAAA", "revised_prompt": "A cat"},
            '[image_generation_call] {"revised_prompt":"A cat"}',
        ),
        ({"type": "search_results", "queries": ["tides"]}, '[search_results] {"queries":["tides"]}'),
    ],
)
def test_what_ran_elsewhere_is_told_by_the_assistant(item: Item, words: str) -> None:
    assert portable(item) == [{"type": "message", "role": "assistant", "content": words}]


@pytest.mark.parametrize(
    "item",
    [
        *(SEALED, PLAIN, {"type": "item_reference", "id": "x"}, {"type": "mcp_list_tools", "tools": [1]}),
        *({"type": "compaction", "encrypted_content": "x"}, {"type": "web_search_call", "id": "ws_1"}),
    ],
)
def test_what_tells_nothing_is_left_out(item: Item) -> None:
    assert portable(item) == []


# -- in the forms that were not refused


def test_forms_that_are_not_known_to_be_refused_stay() -> None:
    items = [SEALED, PLAIN, SEARCH, said("A"), called()]
    assert accepted(items, Forms()) == items
    assert not Forms().changes
    assert not Forms(ids=Ids.KEPT, asks_ciphers=False, system=System.IN_PLACE).changes
    assert Forms(system=System.FIRST).changes


def test_refused_types_are_told_otherwise_or_left_out() -> None:
    forms = Forms(refused=frozenset({"reasoning", "shell_call", "shell_call_output"}))
    assert forms.changes
    kinds = [item["type"] for item in accepted([PLAIN, SHELL, SHELL_OUTPUT, said("A")], forms)]
    assert kinds == ["function_call", "function_call_output", "message"]


def test_refused_fields_are_left_out_of_items_of_their_type() -> None:
    forms = Forms(without=frozenset({("reasoning", "status"), ("message", "phase")}))
    items = [thought(content=["x"], status="completed"), said("A", phase="final"), called(status="completed")]
    assert accepted(items, forms) == [thought(content=["x"]), said("A"), called(status="completed")]


def test_without_ids_nothing_has_one_and_empty_thoughts_are_gone() -> None:
    forms = Forms(ids=Ids.NONE)
    reference = {"type": "item_reference", "id": "x"}
    assert accepted([thought(), SEALED, said("A"), reference], forms) == [
        without(SEALED, "id"),
        without(said("A"), "id"),
        reference,
    ]


def test_seals_that_cannot_be_opened_are_left_out() -> None:
    both = thought(encrypted_content="x", content=[{"type": "reasoning_text", "text": "Hm."}])
    assert accepted([SEALED, both, said("A")], Forms(takes_ciphers=False)) == [PLAIN, said("A")]


def test_whole_items_say_what_may_go_without_saying() -> None:
    items = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Yes?"},
        PLAIN,
        called(status=None),
    ]
    assert accepted(items, Forms(is_whole=True)) == [
        {
            "type": "message",
            "status": "completed",
            "role": "user",
            "content": [{"type": "input_text", "text": "Hi"}],
        },
        {
            "type": "message",
            "status": "completed",
            "role": "assistant",
            "content": [{"type": "output_text", "text": "Yes?", "annotations": []}],
        },
        PLAIN,
        called(status="completed"),
    ]


USER: Item = {"role": "user", "content": "Hi"}
LATE: Item = {"role": "developer", "content": [{"type": "input_text", "text": "Now write."}]}


def test_system_messages_go_into_the_instructions_or_into_the_first_of_them() -> None:
    begun: Item = {"type": "message", "role": "system", "content": "Be brief."}
    assert system_first("You code.", [begun, USER, LATE]) == ("You code.\n\nBe brief.\n\nNow write.", [USER])
    both = {**begun, "content": "Be brief.\n\nNow write."}
    assert system_first(None, [USER, begun, LATE]) == (None, [both, USER])
    assert system_first("You code.", [USER]) == ("You code.", [USER])


@pytest.mark.parametrize("content", [None, [{"type": "input_image", "image_url": "data:x"}], []])
def test_system_messages_with_more_than_text_stay(content: Any) -> None:
    items = [USER, {"role": "system", "content": content}]
    assert system_first("You code.", items) == ("You code.", items)
