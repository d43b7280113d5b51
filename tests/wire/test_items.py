"""Input items: as a list with ids, page by page, and as context for a later turn."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.wire.conversation.items import Turn, context, listed, page
from gateway.wire.conversation.replay import ReplayTarget
from gateway.wire.errors import Fault, Refusal

MESSAGE = {"type": "message", "id": "msg_out", "role": "assistant", "status": "completed", "content": []}
ANYONE = ReplayTarget()
TURN = Turn("resp_1", b'"First"', orjson.dumps({"output": [MESSAGE]}))


def items_of(value: Any, turns: list[Turn] | None = None) -> list[dict[str, Any]]:
    return listed(turns or [], "resp_2", orjson.dumps(value))


def test_string_becomes_a_whole_user_message() -> None:
    (item,) = items_of("Hello")
    assert item.pop("id").startswith("msg_")
    assert item == {
        "type": "message",
        "status": "completed",
        "role": "user",
        "content": [{"type": "input_text", "text": "Hello"}],
    }


def test_assistant_text_becomes_output_text() -> None:
    (item,) = items_of([{"role": "assistant", "content": "Hi"}])
    assert item["content"] == [{"type": "output_text", "text": "Hi", "annotations": [], "logprobs": []}]


@pytest.mark.parametrize(
    ("kind", "prefix"),
    [
        ("reasoning", "rs_"),
        ("function_call", "fc_"),
        ("function_call_output", "fco_"),
        ("custom_tool_call", "ctc_"),
        ("custom_tool_call_output", "ctco_"),
        ("something_new", "item_"),
    ],
)
def test_item_keeps_what_it_has_and_gets_an_id_of_its_kind(kind: str, prefix: str) -> None:
    (item,) = items_of([{"type": kind, "vendor": {"a": 1}}])
    assert item.pop("id").startswith(prefix)
    assert item == {"type": kind, "vendor": {"a": 1}}


@pytest.mark.parametrize("given_id", [None, "", 5, []])
def test_what_is_no_id_is_replaced(given_id: Any) -> None:
    (item,) = items_of([{"type": "message", "id": given_id, "role": "user", "content": "x"}])
    assert isinstance(item["id"], str)
    assert item["id"].startswith("msg_")


def test_given_ids_stay_and_made_up_ones_are_the_same_each_time() -> None:
    value = [
        {"id": "msg_mine", "role": "user", "content": "a"},
        {"role": "user", "content": "a"},
        {"role": "user", "content": "a"},
    ]
    first, again = items_of(value), items_of(value)
    assert first == again
    assert first[0]["id"] == "msg_mine"
    assert len({item["id"] for item in first}) == 3


def test_made_up_ids_differ_between_responses() -> None:
    assert listed([], "resp_1", b'"x"')[0]["id"] != listed([], "resp_2", b'"x"')[0]["id"]


def test_list_has_the_whole_chain_oldest_first() -> None:
    texts = [item["content"] for item in items_of("Second", [TURN])]
    assert texts == [
        [{"type": "input_text", "text": "First"}],
        [],
        [{"type": "input_text", "text": "Second"}],
    ]


@pytest.mark.parametrize("value", [None, []])
def test_no_input_has_no_items(value: Any) -> None:
    assert items_of(value) == []


def test_item_sent_once_more_is_listed_once() -> None:
    assert [item["id"] for item in items_of([MESSAGE, MESSAGE], [TURN])].count("msg_out") == 1


def test_context_is_earlier_turns_and_then_the_new_input_unchanged() -> None:
    assert context([TURN], "Second", ANYONE) == [
        {"role": "user", "content": "First"},
        MESSAGE,
        {"role": "user", "content": "Second"},
    ]
    own = [{"type": "function_call_output", "call_id": "c", "output": "1"}]
    assert context([TURN], own, ANYONE)[-1:] == own
    assert context([TURN], None, ANYONE) == context([TURN], [], ANYONE)


LIST = [{"id": f"msg_{n}", "type": "message"} for n in range(5)]


def shown(**query: Any) -> dict[str, Any]:
    values = {"limit": 20, "order": "asc", "after": None, "before": None, **query}
    result: dict[str, Any] = orjson.loads(page(LIST, **values))
    return result


def ids(**query: Any) -> list[int]:
    return [int(item["id"].removeprefix("msg_")) for item in shown(**query)["data"]]


@pytest.mark.parametrize(
    ("query", "expected", "has_more"),
    [
        ({}, [0, 1, 2, 3, 4], False),
        ({"order": "desc"}, [4, 3, 2, 1, 0], False),
        ({"limit": 2}, [0, 1], True),
        ({"limit": 5}, [0, 1, 2, 3, 4], False),
        ({"limit": 2, "order": "desc"}, [4, 3], True),
        ({"after": "msg_1"}, [2, 3, 4], False),
        ({"after": "msg_1", "order": "desc"}, [0], False),
        ({"before": "msg_2"}, [0, 1], False),
        ({"before": "msg_2", "order": "desc"}, [4, 3], False),
        ({"after": "msg_0", "before": "msg_4", "limit": 2}, [1, 2], True),
        ({"after": "msg_0", "before": "msg_3", "limit": 2}, [1, 2], False),
        ({"after": "msg_3", "before": "msg_1"}, [], False),
        ({"after": "msg_4"}, [], False),
    ],
    ids=str,
)
def test_page(query: dict[str, Any], expected: list[int], has_more: bool) -> None:
    result = shown(**query)
    assert ids(**query) == expected
    assert result["has_more"] is has_more
    assert result["object"] == "list"
    ends = (f"msg_{expected[0]}", f"msg_{expected[-1]}") if expected else (None, None)
    assert (result["first_id"], result["last_id"]) == ends


@pytest.mark.parametrize("param", ["after", "before"])
def test_unknown_position_is_refused(param: str) -> None:
    with pytest.raises(Refusal) as caught:
        shown(**{param: "msg_other"})
    assert (caught.value.fault, caught.value.param) == (Fault.INVALID, param)


sent = st.lists(
    st.fixed_dictionaries(
        {"role": st.just("user"), "content": st.text(max_size=3)},
        optional={"id": st.sampled_from(["msg_a", "msg_b", "", None])},
    ),
    max_size=8,
)


@given(earlier=sent, value=sent, limit=st.integers(1, 4), order=st.sampled_from(["asc", "desc"]))
@settings(max_examples=100, deadline=None)
def test_pager_that_goes_on_from_the_last_id_sees_each_item_once(
    earlier: list[Any], value: list[Any], limit: int, order: str
) -> None:
    turn = Turn("resp_1", orjson.dumps(earlier), orjson.dumps({"output": [MESSAGE]}))
    everything = items_of(value, [turn])
    seen: list[dict[str, Any]] = []
    after = None
    for _ in range(len(everything) + 1):
        result = orjson.loads(page(everything, limit=limit, order=order, after=after, before=None))
        seen += result["data"]
        after = result["last_id"]
        if not result["has_more"]:
            break
    assert seen == (everything if order == "asc" else everything[::-1])
    assert len({item["id"] for item in seen}) == len(seen)
