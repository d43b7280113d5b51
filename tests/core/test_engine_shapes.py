"""What engines and APIs really send in a Responses stream, and what clients are shown of it.

The shapes are rebuilt from the servers' sources and from reports (docs/backends.md says which). Each stream
must also be one that the strictest client reads.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson
import pytest

Event = dict[str, Any]
Show = Callable[..., Any]


@pytest.fixture
def show(ran: Callable[..., Any], check: Callable[..., None]) -> Show:
    """The run of a job whose backend sends these events; with an output, ended by `response.completed`."""

    def shown(*events: Event, output: Any = None, is_true: bool = True, ends: bool = True) -> Any:
        end = {"type": "response.completed", "response": {"status": "completed", "output": output}}
        body = b"".join(b"data: %b\n\n" % orjson.dumps(e) for e in [*events, *([end] if ends else [])])
        played = ran(body)
        check(played.events, is_true=is_true)
        return played

    return shown


def added(item: Event, index: int | None = 0) -> Event:
    return {"type": "response.output_item.added", "item": item} | place(index)


def done(item: Event, index: int | None = 0) -> Event:
    return {"type": "response.output_item.done", "item": item} | place(index)


def place(index: int | None) -> Event:
    return {} if index is None else {"output_index": index}


def about(kind: str, item_id: str | None, index: int | None = 0, **fields: Any) -> Event:
    named = {} if item_id is None else {"item_id": item_id}
    return {"type": f"response.{kind}", **named, **place(index), **fields}


def message(item_id: str, *parts: Any) -> Event:
    content = [text(part) if isinstance(part, str) else part for part in parts]
    status = "completed" if parts else "in_progress"
    return {"id": item_id, "type": "message", "role": "assistant", "status": status, "content": content}


def text(said: str, *annotations: Event, **fields: Any) -> Event:
    return {"type": "output_text", "text": said, "annotations": list(annotations), "logprobs": [], **fields}


def reasoning(item_id: str, *thoughts: str, **fields: Any) -> Event:
    content = [{"type": "reasoning_text", "text": thought} for thought in thoughts]
    return {"id": item_id, "type": "reasoning", "summary": [], "content": content, **fields}


def call(item_id: str, call_id: str, arguments: str = "", name: str = "look", **fields: Any) -> Event:
    status = "completed" if arguments else "in_progress"
    known = {"id": item_id, "type": "function_call", "call_id": call_id, "name": name, "status": status}
    return {**known, "arguments": arguments, **fields}


def shape(played: Any) -> list[tuple[str, str]]:
    """The items of the final object: type and all that they say."""
    return [(item["type"], said(item)) for item in played.final["output"]]


def said(item: Event) -> str:
    parts = [*(item.get("content") or []), *item.get("summary", [])]
    own = item.get("arguments") or item.get("input") or item.get("code") or ""
    return own + "".join(part.get("text", "") for part in parts)


def names(played: Any) -> list[str]:
    return [event["type"].removeprefix("response.") for event in played.events]


CITATION = {
    "type": "url_citation",
    "url": "https://example.org",
    "title": "T",
    "start_index": 0,
    "end_index": 2,
}

# -- which item an event is about


def test_ogx_thoughts_under_the_id_of_the_message_are_one_reasoning_item(show: Show) -> None:
    played = show(
        about("content_part.added", "msg_a", content_index=1, part={"type": "reasoning_text", "text": ""}),
        about("reasoning_text.delta", "msg_a", content_index=1, delta="High "),
        about("reasoning_text.delta", "msg_a", content_index=1, delta="tide."),
        added(message("msg_a")),
        about("content_part.added", "msg_a", content_index=0, part=text("")),
        about("output_text.delta", "msg_a", content_index=0, delta="Noon."),
        about("content_part.done", "msg_a", content_index=0, part=text("Noon.")),
        about("reasoning_text.done", "msg_a", content_index=1, text="High tide."),
        about("content_part.done", "msg_a", content_index=1, part=reasoning("", "High tide.")["content"][0]),
        done(message("msg_a", "Noon.")),
        added(reasoning("rs_a", "High tide.", status="in_progress")),
        done(reasoning("rs_a", "High tide.", status="completed")),
        output=[reasoning("rs_a", "High tide."), message("msg_a", "Noon.")],
    )
    assert shape(played) == [("reasoning", "High tide."), ("message", "Noon.")]
    assert played.final["output"][1]["id"] == "msg_a"


@pytest.mark.parametrize("kind", ["web_search_call", "file_search_call"])
def test_ogx_arguments_of_a_search_that_it_runs_itself_are_no_call(kind: str, show: Show) -> None:
    search = {"type": kind, "id": "fc_s", "status": "in_progress"}
    played = show(
        about("function_call_arguments.delta", "fc_s", delta='{"query":'),
        about("function_call_arguments.delta", "fc_s", delta='"tides"}'),
        about("function_call_arguments.done", "fc_s", arguments='{"query":"tides"}'),
        added(search),
        about(f"{kind}.searching", "fc_s"),
        about("function_call_arguments.done", "fc_s", arguments='{"query":"tides"}'),
        done({**search, "status": "completed"}),
        output=[{**search, "status": "completed"}],
    )
    assert shape(played) == [(kind, "")]
    assert "function_call_arguments.delta" not in names(played)


def test_ogx_arguments_of_an_mcp_call_told_before_it_are_its_own(show: Show) -> None:
    mcp = {"type": "mcp_call", "id": "fc_m", "name": "find", "server_label": "docs", "arguments": ""}
    played = show(
        about("mcp_call_arguments.delta", "fc_m", delta='{"q"'),
        about("function_call_arguments.delta", "fc_m", delta=":1}"),
        about("mcp_call_arguments.done", "fc_m", arguments='{"q":1}'),
        added(mcp),
        about("mcp_call.in_progress", "fc_m"),
        done({**mcp, "arguments": '{"q":1}', "output": "found"}),
        output=[{**mcp, "arguments": '{"q":1}', "output": "found"}],
    )
    assert shape(played) == [("mcp_call", '{"q":1}')]
    assert played.final["output"][0]["output"] == "found"
    assert names(played).count("mcp_call_arguments.delta") == 1


def test_arguments_that_no_item_ever_claims_are_dropped(show: Show) -> None:
    orphans = [about("function_call_arguments.delta", f"fc_{n}", n, delta="{}") for n in range(3)]
    played = show(*orphans, added(message("msg_a"), 3), done(message("msg_a", "Hi"), 3), output=[])
    assert shape(played) == [("message", "Hi")]


def test_arguments_wait_for_the_call_that_is_announced_after_them(show: Show) -> None:
    played = show(
        about("function_call_arguments.delta", "fc_1", delta='{"a"'),
        about("function_call_arguments.delta", "fc_1", delta=":1}"),
        added(call("fc_1", "c_1")),
        ends=False,
    )
    assert shape(played) == [("function_call", '{"a":1}')]


def test_call_is_shown_when_its_name_is_known(show: Show) -> None:
    nameless = call("fc_1", "c_1", name="")
    delta = about("function_call_arguments.delta", "fc_1", delta="{}")
    played = show(added(nameless), delta, ends=False)
    assert shape(played) == []
    closing = about("function_call_arguments.done", "fc_1", arguments="{}", name="look")
    played = show(added(nameless), delta, closing, output=[])
    assert [item["name"] for item in played.final["output"]] == ["look"]
    played = show(added(nameless), delta, done(call("fc_1", "c_1", "{}")), output=[])
    assert [item["name"] for item in played.final["output"]] == ["look"]


def test_sglang_with_gpt_oss_has_one_id_for_all_and_closes_one_index_too_far(show: Show) -> None:
    one = "item_1"
    search = {"type": "web_search_call", "id": one, "action": {"type": "search", "query": "q"}}
    played = show(
        added({"type": "reasoning", "id": one, "summary": [], "status": "in_progress"}, 1),
        about("content_part.added", one, 1, content_index=0, part=text("", logprobs=None)),
        about("reasoning_text.delta", one, 1, content_index=0, delta="Look."),
        about("reasoning_text.done", one, 2, content_index=0, text="Look."),
        done(reasoning("rs_x", "Look.", status="completed"), 2),
        added({**search, "status": "in_progress"}, 2),
        about("web_search_call.searching", one, 2),
        done({**search, "status": "completed"}, 2),
        added({"type": "reasoning", "id": one, "summary": [], "status": "in_progress"}, 3),
        about("content_part.added", one, 3, content_index=0, part=text("", logprobs=None)),
        about("reasoning_text.delta", one, 3, content_index=0, delta="So."),
        about("reasoning_text.done", one, 4, content_index=0, text="So."),
        done(reasoning("rs_y", "So.", status="completed"), 4),
        added(message(one), 4),
        about("output_text.delta", one, 4, content_index=0, delta="Four."),
        about("output_text.done", one, 5, content_index=0, text="Four."),
        done(message(one, "Four."), 5),
        output=[
            reasoning("rs_1", "Look.", status=None),
            {**search, "id": "ws_1", "status": "completed"},
            reasoning("rs_2", "So.", status=None),
            message("msg_1", "Four."),
        ],
    )
    assert shape(played) == [
        ("reasoning", "Look."),
        ("web_search_call", ""),
        ("reasoning", "So."),
        ("message", "Four."),
    ]


def test_tensorrt_llm_has_no_ids_at_all_and_closes_one_index_too_far(show: Show) -> None:
    played = show(
        added({"type": "reasoning", "id": "", "summary": [], "status": "in_progress"}, 0),
        about("content_part.added", "", 0, content_index=0, part={"type": "reasoning_text", "text": ""}),
        about("reasoning_text.delta", "", 0, content_index=0, delta="Two."),
        about("reasoning_text.done", "", 1, content_index=0, text="Two."),
        done(reasoning("", "Two.", status="completed"), 1),
        added(message(""), 1),
        about("output_text.delta", "", 1, content_index=0, delta="Four.", logprobs=[]),
        about("output_text.done", "", 2, content_index=0, text="Four.", logprobs=[]),
        about("content_part.done", "", 2, content_index=0, part=text("Four.", logprobs=None)),
        done(message("", "Four."), 2),
        output=[reasoning("rs_9", "Two."), message("msg_9", "Four."), call("fc_9", "c_9", "{}")],
    )
    assert shape(played) == [("reasoning", "Two."), ("message", "Four."), ("function_call", "{}")]


def test_localai_thoughts_under_the_events_of_an_answer_are_thoughts(show: Show) -> None:
    played = show(
        added({"type": "reasoning", "id": "reasoning_1", "status": "in_progress", "arguments": ""}, 1),
        about("content_part.added", "reasoning_1", 1, content_index=0, part=text("")),
        about("output_text.delta", "reasoning_1", 1, content_index=0, delta="Hm.", logprobs=[]),
        added(message("msg_1"), 2),
        about("output_text.delta", "msg_1", 2, content_index=0, delta="Four.", logprobs=[]),
        about("output_text.done", "reasoning_1", 2, content_index=0, text="Hm.", logprobs=[]),
        about("content_part.done", "reasoning_1", 2, content_index=0, part=text("Hm.")),
        done({"type": "reasoning", "id": "reasoning_1", "content": [text("Hm.")], "summary": []}, 2),
        about("output_text.done", "msg_1", 2, content_index=0, text="Four."),
        done(message("msg_1", "Four."), 2),
        output=[
            {"type": "reasoning", "id": "reasoning_1", "content": [text("Hm.")]},
            message("msg_1", "Four."),
        ],
    )
    assert shape(played) == [("reasoning", "Hm."), ("message", "Four.")]
    assert [part["type"] for part in played.final["output"][0]["content"]] == ["reasoning_text"]
    thoughts = [event for event in played.events if event.get("item_id") == "reasoning_1"]
    assert not [event["type"] for event in thoughts if "output_text" in event["type"]]


def test_thoughts_among_the_parts_of_an_answer_are_taken_out_of_it(show: Show) -> None:
    parts = [{"type": "thinking", "text": "Hm."}, text("Four.")]
    played = show(added(message("msg_1")), done(message("msg_1", *parts)), output=[message("msg_1", *parts)])
    assert sorted(shape(played)) == [("message", "Four."), ("reasoning", "Hm.")]


def test_copilot_ids_change_from_event_to_event(show: Show) -> None:
    played = show(
        added(call("a1", "c_1"), 0),
        added(call("b1", "c_2"), 1),
        about("function_call_arguments.delta", "b2", 1, delta="Zk9x"),
        about("function_call_arguments.delta", "a2", 0, delta="Aa7="),
        about("function_call_arguments.done", "a3", 0, arguments='{"a":1}'),
        about("function_call_arguments.done", "b3", 1, arguments='{"b":2}'),
        done(call("a4", "c_1", '{"a":1}'), 0),
        done(call("b4", "c_2", '{"b":2}'), 1),
        output=[call("a5", "c_1", '{"a":1}'), call("b5", "c_2", '{"b":2}')],
        is_true=False,
    )
    assert shape(played) == [("function_call", '{"a":1}'), ("function_call", '{"b":2}')]


@pytest.mark.parametrize("arguments", ["", "{}", '{"a":1}'])
@pytest.mark.parametrize("is_told_late", [False, True])
def test_call_that_is_told_again_is_one_call(arguments: str, is_told_late: bool, show: Show) -> None:
    whole, again = call("fc_1", "c_1", '{"a":1}'), call("fc_2", "c_1")
    first = [added(call("fc_1", "c_1")), done(whole)]
    second = [added(again, 1), done({**again, "arguments": arguments, "status": "completed"}, 1)]
    events = [*first, *second] if is_told_late else [first[0], second[0], first[1], second[1]]
    played = show(*events, output=[whole])
    assert [item["call_id"] for item in played.final["output"]] == ["c_1"]
    assert shape(played) == [("function_call", '{"a":1}')]


def test_other_call_under_the_same_call_id_is_another_call(show: Show) -> None:
    played = show(
        added(call("fc_1", "c"), 0),
        done(call("fc_1", "c", '{"a":1}'), 0),
        added(call("fc_2", "c"), 1),
        about("function_call_arguments.delta", "fc_2", 1, delta='{"b":2}'),
        done(call("fc_2", "c", '{"b":2}'), 1),
        output=[],
    )
    assert shape(played) == [("function_call", '{"a":1}'), ("function_call", '{"b":2}')]
    assert len({item["call_id"] for item in played.final["output"]}) == 2


def test_call_done_under_another_id_without_an_index_is_the_one_that_was_announced(show: Show) -> None:
    played = show(
        added(call("fc_1", "c_1"), None),
        about("function_call_arguments.delta", "fc_1", None, delta='{"a":1}'),
        done(call("fc_1_done", "c_1", '{"a":1}'), None),
        output=[],
    )
    assert [(item["id"], item["arguments"]) for item in played.final["output"]] == [("fc_1", '{"a":1}')]


def test_openrouter_call_whose_id_in_the_end_is_its_call_id(show: Show) -> None:
    blob = {"id": "rs_1", "type": "reasoning", "summary": [], "encrypted_content": "gAAA"}
    played = show(
        added({"id": "rs_1", "type": "reasoning", "summary": []}, 0),
        added(call("fc_tmp_1", "c_1"), 1),
        done(call("fc_tmp_1", "c_1", "{}"), 1),
        done({"id": "rs_1", "type": "reasoning", "summary": []}, 0),
        output=[blob, call("c_1", "c_1", "{}")],
    )
    assert shape(played) == [("reasoning", ""), ("function_call", "{}")]
    assert played.final["output"][0]["encrypted_content"] == "gAAA"


def test_sglang_router_has_an_empty_message_beside_a_call(show: Show) -> None:
    empty = {"id": "msg_1", "type": "message", "role": "assistant", "content": [{"type": "text", "text": ""}]}
    events = [
        added(call("fc_1", "c_1")),
        about("function_call_arguments.done", "fc_1", arguments='{"a":1}'),
    ]
    assert shape(show(*events, output=[empty])) == [("function_call", '{"a":1}')]
    assert shape(show(*events, done(empty, 1), output=[])) == [("function_call", '{"a":1}')]


def test_answer_that_is_nothing_but_an_empty_message_has_that(show: Show) -> None:
    assert shape(show(output=[message("msg_1", "")])) == [("message", "")]


def test_responses_js_announces_all_under_index_0_and_closes_twice(show: Show) -> None:
    mcp = {"type": "mcp_call", "id": "mcp_1", "name": "find", "server_label": "s", "arguments": ""}
    full = {**mcp, "arguments": "{}", "output": "found"}
    played = show(
        added({"type": "mcp_list_tools", "id": "mcpl_1", "server_label": "s", "tools": []}, 0),
        about("mcp_list_tools.completed", None, None),
        done({"type": "mcp_list_tools", "id": "mcpl_1", "server_label": "s", "tools": [{"name": "find"}]}, 0),
        added(reasoning("rs_1", status="in_progress"), 0),
        about("reasoning_text.delta", "rs_1", 1, content_index=0, delta="Hm."),
        done(reasoning("rs_1", "Hm.", status="completed"), 1),
        done(reasoning("rs_1", "Hm.", status="completed"), 1),
        added(mcp, 2),
        about("mcp_call_arguments.delta", "mcp_1", 2, delta="{}"),
        about("mcp_call.completed", None, None),
        done(full, 2),
        added(message("msg_1"), 0),
        about("output_text.delta", "msg_1", 3, content_index=0, delta="Four."),
        done(message("msg_1", "Four."), 3),
        output=[reasoning("rs_1", "Hm."), full, message("msg_1", "Four.")],
    )
    assert [item["id"] for item in played.final["output"]] == ["mcpl_1", "rs_1", "mcp_1", "msg_1"]
    assert played.final["output"][2]["status"] == "completed"


def test_llama_cpp_has_neither_indexes_nor_ids_in_its_events(show: Show) -> None:
    played = show(
        added(reasoning("rs_1"), None),
        about("reasoning_text.delta", None, None, delta="Hm."),
        done(reasoning("rs_1", "Hm."), None),
        added(message("msg_1"), None),
        about("output_text.delta", None, None, delta="Four."),
        done(message("msg_1", "Four."), None),
        added(call("fc_1", "c_1"), None),
        about("function_call_arguments.delta", None, None, delta="{}"),
        done(call("fc_1", "c_1", "{}"), None),
        output=[reasoning("rs_1", "Hm."), message("msg_1", "Four."), call("fc_1", "c_1", "{}")],
    )
    assert shape(played) == [("reasoning", "Hm."), ("message", "Four."), ("function_call", "{}")]


def test_perplexity_tells_results_only_when_done_and_its_text_without_an_item(show: Show) -> None:
    found = {"type": "search_results", "queries": ["q"], "results": [{"id": 1, "url": "https://example.org"}]}
    played = show(
        {"type": "response.reasoning.started", "thought": "I look."},
        {"type": "response.reasoning.search_results", "results": found["results"]},
        done(found, 0),
        about("output_text.delta", None, None, delta="Hi "),
        about("output_text.delta", None, None, delta="[1]"),
        done(message("msg_1", "Hi [1]"), 1),
        output=[found, message("msg_1", "Hi [1]")],
    )
    assert shape(played) == [("search_results", ""), ("message", "Hi [1]")]
    assert played.final["output"][0]["results"] == found["results"]


def test_event_about_an_item_that_is_done_makes_no_second_one(show: Show) -> None:
    late = [
        added(message("msg_1")),
        about("content_part.added", "msg_1", content_index=0, part=text("")),
        about("output_text.delta", "msg_1", content_index=0, delta="Hi"),
        about("output_text.done", "msg_1", content_index=0, text="Hi"),
        about("content_part.done", "msg_1", content_index=0, part=text("Hi")),
        done(message("msg_1", "Hi")),
    ]
    played = show(*late, *late, output=[message("msg_1", "Hi")])
    assert shape(played) == [("message", "Hi")]
    assert names(played).count("output_item.done") == 1


# -- told late or elsewhere


def test_citation_that_only_the_final_object_has_is_an_event_before_the_end(show: Show) -> None:
    played = show(
        added(message("msg_1")),
        about("output_text.delta", "msg_1", content_index=0, delta="Hi"),
        done(message("msg_1", "Hi")),
        output=[message("msg_1", text("Hi", CITATION))],
    )
    assert played.final["output"][0]["content"][0]["annotations"] == [CITATION]
    assert names(played)[-3:] == ["output_item.done", "output_text.annotation.added", "completed"]


@pytest.mark.parametrize("where", ["event", "part", "item", "late event"])
def test_citation_is_shown_once_wherever_it_is_told(where: str, show: Show) -> None:
    cited = text("Hi", CITATION)
    event = about("output_text.annotation.added", "msg_1", content_index=0, annotation=CITATION)
    played = show(
        added(message("msg_1")),
        about("output_text.delta", "msg_1", content_index=0, delta="Hi"),
        *([event] if where == "event" else []),
        about("output_text.done", "msg_1", content_index=0, text="Hi"),
        about("content_part.done", "msg_1", content_index=0, part=cited if where == "part" else text("Hi")),
        done(message("msg_1", cited if where == "item" else "Hi")),
        *([event] if where == "late event" else []),
        output=[message("msg_1", cited)],
    )
    assert played.final["output"][0]["content"][0]["annotations"] == [CITATION]
    assert names(played).count("output_text.annotation.added") == 1


def test_openrouter_citation_in_the_form_of_chat_completions_is_made_flat(show: Show) -> None:
    nested = {"type": "url_citation", "url_citation": {"url": "https://example.org", "title": "T"}}
    played = show(done(message("msg_1", text("Hi", nested))), output=[])
    (shown,) = played.final["output"][0]["content"][0]["annotations"]
    assert shown == {**CITATION, "end_index": 0}


def test_citation_of_an_unknown_kind_is_in_the_items_and_no_event(show: Show) -> None:
    odd = {"type": "map_citation", "place": "Oslo"}
    played = show(done(message("msg_1", text("Hi", odd))), output=[])
    assert played.final["output"][0]["content"][0]["annotations"] == [odd]
    assert "output_text.annotation.added" not in names(played)


def logprob(token: str, **fields: Any) -> Event:
    return {"token": token, "logprob": -0.5, "bytes": list(token.encode()), "top_logprobs": [], **fields}


def test_vllm_logprobs_of_all_tokens_are_in_the_items(show: Show) -> None:
    both = [logprob("Hi"), logprob("!")]
    bare = {"type": "output_text", "text": "Hi!", "annotations": []}
    played = show(
        added(message("msg_1")),
        about("content_part.added", "msg_1", content_index=0, part=text("", logprobs=both[:1])),
        about("output_text.delta", "msg_1", content_index=0, delta="Hi", logprobs=both[:1]),
        about("output_text.delta", "msg_1", content_index=0, delta="!", logprobs=both[1:]),
        about("output_text.done", "msg_1", content_index=0, text="Hi!", logprobs=both[1:]),
        about("content_part.done", "msg_1", content_index=0, part={**bare, "logprobs": None}),
        done(message("msg_1", bare)),
        output=[message("msg_2", {**bare, "logprobs": None})],
    )
    assert played.final["output"][0]["content"][0]["logprobs"] == both


def test_logprobs_have_all_that_clients_require(show: Show) -> None:
    thin = {"token": "é", "logprob": -1, "top_logprobs": [{"token": "e", "logprob": -2}, "x"]}
    delta = about("output_text.delta", "msg_1", content_index=0, delta="é", logprobs=[thin, None])
    played = show(added(message("msg_1")), delta, output=[])
    top = {"token": "e", "logprob": -2, "bytes": [101]}
    assert played.final["output"][0]["content"][0]["logprobs"] == [
        {"token": "é", "logprob": -1, "bytes": [195, 169], "top_logprobs": [top]}
    ]


@pytest.mark.parametrize(
    "part", [{"type": "output_audio", "data": "aGk="}, {"type": "output_image", "url": "u"}]
)
@pytest.mark.parametrize("where", ["part", "item", "end", "late"])
def test_parts_that_are_no_text_are_kept_wherever_they_are_told(where: str, part: Event, show: Show) -> None:
    events = [added(message("msg_1")), about("output_text.delta", "msg_1", content_index=0, delta="Hi")]
    opening = about("content_part.added", "msg_1", content_index=1, part={"type": part["type"]})
    closing = about("content_part.done", "msg_1", content_index=1, part=part)
    both = ["Hi", part]
    end = done(message("msg_1", *both if where == "item" else ["Hi"]))
    match where:
        case "part":
            events += [opening, closing, end]
        case "late":
            events += [end, opening, closing]
        case _:
            events.append(end)
    played = show(*events, output=[message("msg_1", *both if where == "end" else ["Hi"])])
    assert played.final["output"][0]["content"] == [text("Hi"), part]
    assert names(played).count("content_part.done") == 2


def test_summary_that_only_the_final_object_has_is_told(show: Show) -> None:
    summary = [{"type": "summary_text", "text": "So."}]
    played = show(done(reasoning("rs_1", "Hm.")), output=[{**reasoning("rs_1", "Hm."), "summary": summary}])
    assert played.final["output"][0]["summary"] == summary
    assert "reasoning_summary_text.done" in names(played)


def test_thought_that_the_end_calls_a_summary_is_not_told_twice(show: Show) -> None:
    summed = {"id": "rs_1", "type": "reasoning", "summary": [{"type": "summary_text", "text": "Hm."}]}
    played = show(
        added(reasoning("rs_1")), about("reasoning_text.delta", "rs_1", delta="Hm."), output=[summed]
    )
    assert shape(played) == [("reasoning", "Hm.")]


def test_items_that_only_the_final_object_has_are_streamed_then(show: Show) -> None:
    image = {"type": "image_generation_call", "id": "ig_1", "status": "completed", "result": "aGk="}
    played = show(done(message("msg_1", "Hi")), output=[image, message("msg_1", "Hi")])
    assert played.final["output"][1] == image


HOSTED: list[tuple[Event, list[Event], str, Any]] = [
    (
        {"type": "code_interpreter_call", "code": None, "container_id": "auto", "outputs": None},
        [{"type": "response.code_interpreter_call_code.delta", "delta": piece} for piece in ("1+", "1")],
        "code",
        "1+1",
    ),
    (
        {"type": "mcp_call", "name": "find", "server_label": "s", "arguments": ""},
        [{"type": "response.mcp_call_arguments.delta", "delta": piece} for piece in ('{"q"', ":1")],
        "arguments",
        '{"q":1',
    ),
    (
        {"type": "shell_call", "call_id": "c_1", "action": {"commands": []}},
        [
            {"type": "response.shell_call_command.added", "command_index": 0, "command": ""},
            {"type": "response.shell_call_command.delta", "command_index": 0, "delta": "ls "},
            {"type": "response.shell_call_command.delta", "command_index": 0, "delta": "-l"},
            {"type": "response.shell_call_command.done", "command_index": 0, "command": "ls -la"},
            {"type": "response.shell_call_command.added", "command_index": 1, "command": ""},
            {"type": "response.shell_call_command.delta", "command_index": 1, "delta": "pw"},
        ],
        "action",
        {"commands": ["ls -la", "pw"]},
    ),
    (
        {"type": "shell_call_output", "call_id": "c_1", "output": []},
        [
            {
                "type": "response.shell_call_output_content.delta",
                "command_index": 0,
                "delta": {"stdout": "a"},
            },
            {
                "type": "response.shell_call_output_content.delta",
                "command_index": 0,
                "delta": {"stderr": "b"},
            },
        ],
        "output",
        [{"stdout": "a", "stderr": "b", "outcome": {"type": "exit", "exit_code": 0}}],
    ),
    (
        {
            "type": "apply_patch_call",
            "call_id": "c_1",
            "operation": {"type": "create_file", "path": "a", "diff": ""},
        },
        [{"type": "response.apply_patch_call_operation_diff.delta", "delta": piece} for piece in ("+", "a")],
        "operation",
        {"type": "create_file", "path": "a", "diff": "+a"},
    ),
]


@pytest.mark.parametrize(("item", "events", "field", "value"), HOSTED, ids=[row[0]["type"] for row in HOSTED])
@pytest.mark.parametrize("ends", [False, True], ids=["cut", "without its end"])
def test_what_hosted_tools_were_told_in_pieces_is_kept(
    item: Event, events: list[Event], field: str, value: Any, ends: bool, show: Show
) -> None:
    opening = {**item, "id": "it_1", "status": "in_progress"}
    located = [{**event, "item_id": "it_1", "output_index": 0} for event in events]
    played = show(added(opening), *located, ends=ends, output=[])
    assert played.final["output"][0][field] == value
    assert played.final["status"] == ("completed" if ends else "failed")


def test_events_that_the_node_client_refuses_before_its_version_7_are_not_shown(show: Show) -> None:
    item, events, _, _ = HOSTED[2]
    located = [{**event, "item_id": "sh_1", "output_index": 0} for event in events]
    played = show(added({**item, "id": "sh_1", "status": "in_progress"}), *located, output=[])
    assert not [name for name in names(played) if name.startswith("shell_call")]


def test_tool_that_said_that_it_has_completed_is_so_in_a_cut_answer(show: Show) -> None:
    search = {"type": "web_search_call", "id": "ws_1", "status": "in_progress"}
    states = [about(f"web_search_call.{state}", "ws_1") for state in ("searching", "completed")]
    assert show(added(search), *states, ends=False).final["output"][0]["status"] == "completed"
    assert show(added(search), states[0], ends=False).final["output"][0]["status"] == "failed"


# -- what clients refuse


def test_openai_tool_search_is_announced_under_the_call_id_that_counts(show: Show) -> None:
    search = {"type": "tool_search_call", "id": "tsc_1", "execution": "client", "arguments": {}}
    end = {**search, "call_id": "c_after", "arguments": {"goal": "x"}, "status": "completed"}
    opening = {**search, "call_id": "c_before", "status": "in_progress"}
    played = show(added(opening), done(end), output=[end])
    assert played.final["output"] == [end]
    assert names(played).count("output_item.added") == 1
    assert show(added(opening), output=[]).final["output"][0]["call_id"] == "c_before"


def test_vllm_nulls_that_say_nothing_are_left_out(show: Show) -> None:
    thought = {**reasoning("rs_1", "Hm."), "encrypted_content": None, "status": None, "phase": None}
    played = show(
        added({**thought, "content": None}),
        about("reasoning_text.delta", "rs_1", content_index=0, delta="Hm.", phase=None),
        done(thought),
        added({**message("msg_1"), "phase": None}, 1),
        done({**message("msg_1", text("Hi", logprobs=None)), "phase": None}, 1),
        output=[thought, {**message("msg_1", text("Hi", logprobs=None)), "phase": None}],
    )
    assert played.final["output"] == [reasoning("rs_1", "Hm."), message("msg_1", "Hi")]
    assert b"phase" not in played.stored
    assert b'"logprobs":null' not in played.stored


def test_phase_that_says_something_is_kept(show: Show) -> None:
    item = {**message("msg_1", "Hi"), "phase": "commentary"}
    assert show(done(item), output=[item]).final["output"] == [item]


def test_vllm_with_a_tool_server_leaves_fields_of_the_event_in_the_item(show: Show) -> None:
    odd = {**call("", "c_1", "{}"), "item_id": "fc_1", "output_index": 0, "sequence_number": -1}
    del odd["id"]
    played = show(added(call("fc_1", "c_1")), done(odd), output=[])
    assert played.final["output"] == [call("fc_1", "c_1", "{}")]


@pytest.mark.parametrize("prefix", ["reasoning", "reasoning_content"])
def test_thoughts_by_other_event_names_are_thoughts(prefix: str, show: Show) -> None:
    played = show(
        added({"type": "reasoning", "id": "rs_1", "summary": []}),
        about(f"{prefix}.delta", "rs_1", delta={"text": "H"}),
        about(f"{prefix}.delta", "rs_1", delta="m."),
        about(f"{prefix}.done", "rs_1", text="Hm."),
        output=[],
    )
    assert shape(played) == [("reasoning", "Hm.")]


def test_text_that_is_only_told_in_the_end_is_told_in_pieces_too(show: Show) -> None:
    played = show(about("output_text.done", None, None, text="Hi"), output=[])
    assert names(played)[3:-1] == [
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
    ]


def test_empty_text_in_the_end_does_not_undo_what_was_streamed(show: Show) -> None:
    played = show(
        added(message("msg_1")),
        about("output_text.delta", "msg_1", delta="Hi"),
        about("output_text.done", "msg_1", text=""),
        done(message("msg_1", "")),
        added(call("fc_1", "c_1"), 1),
        about("function_call_arguments.delta", "fc_1", 1, delta='{"a":1}'),
        about("function_call_arguments.done", "fc_1", 1, arguments=""),
        output=[],
    )
    assert shape(played) == [("message", "Hi"), ("function_call", '{"a":1}')]


def test_item_that_is_announced_whole_and_never_told_again_is_whole(show: Show) -> None:
    items = [reasoning("rs_1", "Hm."), message("msg_1", "Hi"), call("fc_1", "c_1", '{"a":1}')]
    played = show(*(added(item, number) for number, item in enumerate(items)), output=None)
    assert shape(played) == [("reasoning", "Hm."), ("message", "Hi"), ("function_call", '{"a":1}')]


@pytest.mark.parametrize("arguments", [{"a": 1}, '{"a":1}'], ids=["object", "string"])
def test_arguments_as_an_object_are_its_json(arguments: Any, show: Show) -> None:
    played = show(done(call("fc_1", "c_1", arguments)), output=[])
    assert shape(played) == [("function_call", '{"a":1}')]


@pytest.mark.parametrize("item", [None, 5, "x", [], [{}]])
def test_item_that_is_none_does_no_harm(item: Any, show: Show) -> None:
    played = show(
        added(item), done(item), done(message("msg_1", "Hi")), output=[item, message("msg_1", "Hi"), None]
    )
    assert shape(played) == [("message", "Hi")]


def test_the_backends_id_of_the_response_is_in_no_event(show: Show) -> None:
    played = show(about("output_text.delta", "msg_1", delta="Hi", response_id="resp_theirs"), output=[])
    assert b"resp_theirs" not in played.stored


# -- characters cut in two


def test_character_cut_over_two_deltas_is_one(ran: Callable[..., Any], check: Callable[..., None]) -> None:
    at = rb'"item_id":"msg_1","output_index":0,"content_index":0'
    kind = rb'{"type":"response.output_text.delta",'
    body = b"".join(
        b"data: %b\n\n" % data
        for data in (
            kind + at + rb',"delta":"a\ud83d"}',
            kind + at + rb',"delta":"\ude00b"}',
            rb'{"type":"response.completed","response":{"status":"completed"}}',
        )
    )
    played = ran(body)
    check(played.events)
    assert shape(played) == [("message", "a😀b")]
    assert "\ufffd" not in played.stored.decode()


# -- endings


@pytest.mark.parametrize(
    ("event", "status", "expected"),
    [
        ("completed", "requires_action", "completed"),
        ("requires_action", "requires_action", "completed"),
        ("requires_action", None, "completed"),
        ("done", "completed", "completed"),
        ("done", None, "completed"),
        ("done", "incomplete", "incomplete"),
        ("done", "failed", "failed"),
        ("completed", "canceled", "failed"),
        ("completed", "never_heard_of", "incomplete"),
        ("completed", "in_progress", "completed"),
    ],
)
def test_word_of_the_end_means(event: str, status: str | None, expected: str, show: Show) -> None:
    end = {"type": f"response.{event}", "response": {"status": status, "output": [message("msg_1", "Hi")]}}
    played = show(end, ends=False)
    assert played.final["status"] == expected
    assert shape(played) == [("message", "Hi")]


def test_unknown_word_is_shown_beside_the_reason(show: Show) -> None:
    end = {"type": "response.completed", "response": {"status": "paused", "output": []}}
    details = show(end, ends=False).final["incomplete_details"]
    assert details == {"reason": "max_output_tokens", "status": "paused"}


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ({"reason": "length"}, {"reason": "max_output_tokens"}),
        ({"reason": "safety", "note": "x"}, {"reason": "content_filter", "note": "x"}),
        ({"reason": "max_iterations_exceeded"}, {"reason": "max_iterations_exceeded"}),
        ({"reason": None}, {"reason": "max_output_tokens"}),
        (None, {"reason": "max_output_tokens"}),
        ("length", {"reason": "max_output_tokens"}),
    ],
)
def test_reason_is_the_specifications(given: Any, shown: Event, show: Show) -> None:
    response = {"status": "incomplete", "incomplete_details": given}
    played = show({"type": "response.incomplete", "response": response}, ends=False)
    assert played.final["incomplete_details"] == shown


@pytest.mark.parametrize("arguments", ['{"city":"Os', "{", "no json"])
def test_call_whose_arguments_are_no_json_is_incomplete_and_so_is_the_response(
    arguments: str, show: Show
) -> None:
    cut = {**call("fc_1", "c_1", arguments), "status": "completed"}
    played = show(added(call("fc_1", "c_1")), done(cut), output=[cut])
    assert played.final["status"] == "incomplete"
    assert (played.final["output"][0]["status"], played.final["output"][0]["arguments"]) == (
        "incomplete",
        arguments,
    )


def test_call_without_arguments_has_an_empty_object(show: Show) -> None:
    played = show(added(call("fc_1", "c_1")), done({**call("fc_1", "c_1"), "status": "completed"}), output=[])
    assert (played.final["status"], shape(played)) == ("completed", [("function_call", "{}")])


def test_free_text_of_a_custom_tool_need_not_be_json(show: Show) -> None:
    item = {"type": "custom_tool_call", "id": "ctc_1", "call_id": "c_1", "name": "run", "input": "ls -l"}
    assert show(done(item), output=[]).final["status"] == "completed"


def test_output_of_a_failed_answer_is_kept(show: Show) -> None:
    error = {"code": "server_error", "message": "Oops"}
    response = {"status": "failed", "error": error, "output": [message("msg_1", "Hi")]}
    played = show(
        added(reasoning("rs_1")),
        about("reasoning_text.delta", "rs_1", delta="Hm."),
        {"type": "response.failed", "response": response},
        ends=False,
    )
    assert (played.final["status"], played.final["error"]) == ("failed", error)
    assert shape(played) == [("reasoning", "Hm."), ("message", "Hi")]
