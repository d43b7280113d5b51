"""Chat streams with all that servers put in them, as a client of the gateway gets them."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.job import Status
from gateway.wire.answers.readers import ChatReader, NotAnEvent
from gateway.wire.sse import Frame
from tests.core.conftest import Played
from tests.wire.chat_play import DONE, call, chunk, run, run_answer, shape, stream, validate

STOP = chunk(finish="stop")
LOOK = {"type": "custom", "name": "look"}


def play(*chunks: dict[str, Any], **request: Any) -> Played:
    """The run of a stream, which the official client's types accept."""
    played = run(stream(chunks), **request)
    validate(played)
    return played


def output(*chunks: dict[str, Any], **request: Any) -> list[Any]:
    """What the client is shown of a stream that ends well."""
    played = play(*chunks, **request)
    assert played.final["status"] == "completed"
    return shape(played.final["output"])


def types(played: Played) -> list[str]:
    return [event["type"].removeprefix("response.") for event in played.events[3:]]


# -- texts


def test_events_of_a_text_come_in_the_order_of_the_api() -> None:
    played = play(chunk({"role": "assistant", "content": ""}), chunk({"content": "Hi"}), STOP)
    assert types(played) == [
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "completed",
    ]


def test_item_opens_with_its_first_text_and_not_before() -> None:
    played = run(stream([chunk({"role": "assistant", "content": ""}), chunk({"content": None})]))
    assert types(played) == ["failed"]


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning"])
def test_reasoning_then_text_then_calls_are_three_items_each_closed_before_the_next(name: str) -> None:
    played = play(
        chunk({name: "Let me "}),
        chunk({name: "see."}),
        chunk({"content": "I look."}),
        chunk(call(0, "c1", "look", "{}")),
        chunk(finish="tool_calls"),
    )
    assert shape(played.final["output"]) == [
        ("reasoning", "Let me see."),
        ("message", "I look."),
        ("function_call", "look", "{}"),
    ]
    names = [name for name in types(played) if name.startswith("output_item")]
    assert names == ["output_item.added", "output_item.done"] * 3


def test_reasoning_under_both_names_in_one_chunk_is_said_once() -> None:
    both = {"reasoning_content": "Hm.", "reasoning": "Hm."}
    assert output(chunk(both), chunk({"content": "A"}), STOP) == [("reasoning", "Hm."), ("message", "A")]


def test_chunk_with_everything_in_it_gives_reasoning_text_and_call_in_this_order() -> None:
    delta = {"reasoning": "R", "content": "T", **call(0, "c", "look", "{}")}
    assert output(chunk(delta, "tool_calls")) == [
        ("reasoning", "R"),
        ("message", "T"),
        ("function_call", "look", "{}"),
    ]


def test_reasoning_after_text_is_a_new_item() -> None:
    chunks = [chunk({"content": "A"}), chunk({"reasoning": "B"}), chunk({"content": "C"}), STOP]
    assert output(*chunks) == [("message", "A"), ("reasoning", "B"), ("message", "C")]


def test_text_after_a_call_is_a_message_after_it() -> None:
    chunks = [chunk(call(0, "c", "look", "{}")), chunk({"content": "Done."}), chunk(finish="tool_calls")]
    assert output(*chunks) == [("function_call", "look", "{}"), ("message", "Done.")]


def test_text_between_the_fragments_of_a_call_does_not_end_it() -> None:
    chunks = [
        chunk(call(0, "c", "look", '{"a"')),
        chunk({"content": "Hm."}),
        chunk(call(0, arguments=":1}")),
        chunk(finish="tool_calls"),
    ]
    assert output(*chunks) == [("function_call", "look", '{"a":1}'), ("message", "Hm.")]


def test_refusal_after_text_is_the_second_part_of_the_message() -> None:
    chunks = [chunk({"content": "Well, "}), chunk({"refusal": "I "}), chunk({"refusal": "won't."}), STOP]
    assert output(*chunks) == [("message", "Well, ", "I won't.")]


def test_refusal_alone_is_the_only_part() -> None:
    played = play(chunk({"content": None, "refusal": "No."}), STOP)
    (item,) = played.final["output"]
    assert item["content"] == [{"type": "refusal", "refusal": "No."}]


def test_text_in_parts_is_their_text() -> None:
    parts = [{"type": "text", "text": "A"}, {"type": "text", "text": "B"}, None, {"type": "image"}]
    assert output(chunk({"content": parts}), STOP) == [("message", "AB")]


def test_empty_strings_open_nothing() -> None:
    empty: dict[str, Any] = {
        "content": "",
        "reasoning_content": "",
        "refusal": "",
        "tool_calls": [],
        "function_call": None,
    }
    assert output(chunk(empty), STOP) == []


# -- calls


def test_parallel_calls_keep_their_ids_and_order() -> None:
    played = play(
        chunk(call(0, "c1", "look", "")),
        chunk(call(0, arguments='{"a":1}')),
        chunk(call(1, "c2", "hear", '{"b"')),
        chunk(call(1, arguments=":2}")),
        chunk(finish="tool_calls"),
    )
    assert [item["call_id"] for item in played.final["output"]] == ["c1", "c2"]
    assert shape(played.final["output"]) == [
        ("function_call", "look", '{"a":1}'),
        ("function_call", "hear", '{"b":2}'),
    ]
    done = [event for event in played.events if event["type"] == "response.function_call_arguments.done"]
    assert [event["name"] for event in done] == ["look", "hear"]


def test_interleaved_calls_are_not_mixed() -> None:
    chunks = [chunk(call(0, "c1", "look", '{"a"')), chunk(call(1, "c2", "hear", '{"b"'))]
    chunks += [chunk(call(0, arguments=":1}")), chunk(call(1, arguments=":2}")), chunk(finish="tool_calls")]
    assert output(*chunks) == [("function_call", "look", '{"a":1}'), ("function_call", "hear", '{"b":2}')]


def test_several_calls_in_one_chunk_without_index() -> None:
    first, second = call(None, "c1", "look", "{}"), call(None, "c2", "hear", '{"b":1}')
    both = {"tool_calls": first["tool_calls"] + second["tool_calls"]}
    assert output(chunk(both, "tool_calls")) == [
        ("function_call", "look", "{}"),
        ("function_call", "hear", '{"b":1}'),
    ]


def test_fragments_without_index_are_told_apart_by_id() -> None:
    both = call(None, "c1", "look", '{"a"')["tool_calls"] + call(None, "c2", "hear", '{"b"')["tool_calls"]
    chunks = [chunk({"tool_calls": both}), chunk(call(None, "c2", None, ":2}"))]
    chunks += [chunk(call(None, "c1", None, ":1}")), chunk(finish="tool_calls")]
    assert output(*chunks) == [("function_call", "look", '{"a":1}'), ("function_call", "hear", '{"b":2}')]


def test_name_that_comes_late_opens_the_call_with_what_was_buffered() -> None:
    played = play(
        chunk(call(0, "c1", None, '{"a"')),
        chunk(call(0, name="look", arguments=":")),
        chunk(call(0, arguments="1}")),
        chunk(finish="tool_calls"),
    )
    assert shape(played.final["output"]) == [("function_call", "look", '{"a":1}')]
    deltas = [event["delta"] for event in played.events if event["type"].endswith("arguments.delta")]
    assert deltas == ['{"a":', "1}"]


def test_name_that_comes_late_for_the_first_of_two_calls_opens_it_second() -> None:
    chunks = [chunk(call(0, "c1", None, '{"a":1}')), chunk(call(1, "c2", "hear", "{}"))]
    chunks += [chunk(call(0, name="look")), chunk(finish="tool_calls")]
    assert output(*chunks) == [("function_call", "hear", "{}"), ("function_call", "look", '{"a":1}')]


def test_call_that_never_gets_a_name_is_none() -> None:
    nameless = chunk(call(0, "c1", None, '{"a":1}'))
    assert output(chunk({"content": "A"}), nameless, chunk(finish="tool_calls")) == [("message", "A")]
    final = play(nameless, chunk(finish="tool_calls")).final
    assert (final["status"], final["output"]) == ("failed", [])
    assert "tool_calls" in final["error"]["message"]


def test_fragment_that_says_nothing_is_no_call() -> None:
    assert output(chunk(call(0)), chunk({"content": "A"}), STOP) == [("message", "A")]


def test_calls_without_id_get_ids_of_their_own() -> None:
    played = play(
        chunk(call(0, None, "look", "{}")), chunk(call(1, "", "look", "{}")), chunk(finish="tool_calls")
    )
    ids = [item["call_id"] for item in played.final["output"]]
    assert len(set(ids)) == 2
    assert all(ids)


def test_calls_with_the_same_id_get_different_ones() -> None:
    chunks = [chunk(call(0, None, "taste", "{}")), chunk(call(1, "c", "look", "{}"))]
    chunks += [chunk(call(2, "c", "hear", "{}")), chunk(call(3, None, "feel", "{}"))]
    played = play(*chunks, chunk(finish="tool_calls"))
    assert len({item["call_id"] for item in played.final["output"]}) == 4


@pytest.mark.parametrize("index", [0, None])
@pytest.mark.parametrize("ids", [("c1", "c2"), (None, None), ("", "")], ids=["ids", "no ids", "empty ids"])
def test_whole_calls_that_all_have_the_same_index_or_none_are_different_calls(
    index: int | None, ids: tuple[str | None, str | None]
) -> None:
    chunks = [chunk(call(index, ids[0], "look", '{"a":1}')), chunk(call(index, ids[1], "look", '{"a":2}'))]
    assert output(*chunks, chunk(finish="tool_calls")) == [
        ("function_call", "look", '{"a":1}'),
        ("function_call", "look", '{"a":2}'),
    ]


def test_streamed_calls_that_all_have_index_0_are_different_calls() -> None:
    chunks = [chunk(call(0, "c1", "look")), chunk(call(0, None, None, '{"a":1}'))]
    chunks += [chunk(call(0, "c2", "look")), chunk(call(0, None, None, '{"a":2}'))]
    assert output(*chunks, chunk(finish="tool_calls")) == [
        ("function_call", "look", '{"a":1}'),
        ("function_call", "look", '{"a":2}'),
    ]


def test_id_and_name_in_each_fragment_are_still_one_call() -> None:
    chunks = [chunk(call(0, "c1", "look", '{"a"')), chunk(call(0, "c1", "look", ":1}"))]
    assert output(*chunks, chunk(finish="tool_calls")) == [("function_call", "look", '{"a":1}')]


def test_name_alone_in_each_fragment_is_still_one_call() -> None:
    chunks = [chunk(call(0, None, "look", '{"a"')), chunk(call(0, None, "look", ":1}"))]
    assert output(*chunks, chunk(finish="tool_calls")) == [("function_call", "look", '{"a":1}')]


def test_another_name_is_another_call_even_where_the_first_has_no_arguments() -> None:
    chunks = [chunk(call(0, None, "look")), chunk(call(0, None, "hear", '{"a":1}'))]
    assert output(*chunks, chunk(finish="tool_calls")) == [
        ("function_call", "look", "{}"),
        ("function_call", "hear", '{"a":1}'),
    ]


def test_another_id_in_each_fragment_of_a_call_is_still_one_call() -> None:
    chunks = [chunk(call(0, "c1", "look", '{"a"')), chunk(call(0, "c9", None, ":1}"))]
    assert output(*chunks, chunk(finish="tool_calls")) == [("function_call", "look", '{"a":1}')]


def test_arguments_that_are_an_object_become_their_json() -> None:
    assert output(chunk(call(0, "c", "look", {"a": 1}), "tool_calls")) == [
        ("function_call", "look", '{"a":1}')
    ]


def test_call_without_arguments_has_an_empty_object() -> None:
    assert output(chunk(call(0, "c", "look")), chunk(finish="tool_calls")) == [
        ("function_call", "look", "{}")
    ]


def test_function_call_of_the_first_api_is_a_call() -> None:
    chunks = [chunk({"function_call": {"name": "look", "arguments": ""}})]
    chunks += [chunk({"function_call": {"arguments": '{"a":1}'}}), chunk(finish="function_call")]
    assert output(*chunks) == [("function_call", "look", '{"a":1}')]


def test_call_of_a_custom_tool_comes_back_as_one_with_its_text() -> None:
    chunks = [chunk(call(0, "c", "look", '{"input":"a\\n')), chunk(call(0, None, None, 'b"}'))]
    played = play(*chunks, chunk(call(1, "d", "hear", "{}")), chunk(finish="tool_calls"), tools=[LOOK])
    assert shape(played.final["output"]) == [
        ("custom_tool_call", "look", "a\nb"),
        ("function_call", "hear", "{}"),
    ]
    deltas = [event["delta"] for event in played.events if event["type"].endswith("tool_call_input.delta")]
    assert deltas == ["a\nb"]


@pytest.mark.parametrize("arguments", ["raw text", '{"other":1}', '["a"]', '{"input":7}'])
def test_custom_call_that_is_not_as_it_was_asked_for_keeps_its_text(arguments: str) -> None:
    chunks = [chunk(call(0, "c", "look", arguments)), chunk(finish="tool_calls")]
    assert output(*chunks, tools=[LOOK]) == [("custom_tool_call", "look", arguments)]


# -- endings


@pytest.mark.parametrize("reason", ["stop", "tool_calls", "function_call", "eos_token"])
def test_finish_reasons_of_whole_answers(reason: str) -> None:
    assert play(chunk({"content": "A"}), chunk(finish=reason)).final["status"] == "completed"


@pytest.mark.parametrize(
    ("reason", "shown"), [("length", "max_output_tokens"), ("content_filter", "content_filter")]
)
def test_finish_reasons_of_answers_that_were_stopped(reason: str, shown: str) -> None:
    played = play(chunk({"content": "A"}), chunk(finish=reason))
    assert played.final["status"] == "incomplete"
    assert played.final["incomplete_details"] == {"reason": shown}
    assert played.final["output"][0]["status"] == "incomplete"


def test_of_calls_that_were_stopped_only_the_one_that_was_cut_is_incomplete() -> None:
    chunks = [chunk(call(0, "c1", "look", '{"a":1}')), chunk(call(1, "c2", "hear", '{"b"'))]
    played = play(*chunks, chunk(call(2, "c3", "feel")), chunk(finish="length"))
    assert [(item["status"], item["arguments"]) for item in played.final["output"]] == [
        ("completed", '{"a":1}'),
        ("incomplete", '{"b"'),
        ("incomplete", ""),
    ]


@pytest.mark.parametrize("reason", ["abort", "error"])
def test_finish_reasons_of_servers_that_gave_up_are_failures(reason: str) -> None:
    played = play(chunk({"content": "A"}), chunk(finish=reason))
    assert played.final["status"] == "failed"
    assert reason in played.final["error"]["message"]
    assert shape(played.final["output"]) == [("message", "A")]


def test_of_several_finish_reasons_the_last_one_counts() -> None:
    chunks = [chunk({"content": "A"}, "stop"), chunk({"content": "B"}, "length")]
    played = play(*chunks)
    assert shape(played.final["output"]) == [("message", "AB")]
    assert played.final["status"] == "incomplete"


def test_ending_waits_for_the_end_of_the_stream() -> None:
    reader = ChatReader("resp_1")
    kinds = [event["type"] for event in reader.read(Frame("", orjson.dumps(chunk({"content": "A"}, "stop"))))]
    assert not [kind for kind in kinds if kind in ("response.completed", "response.output_item.done")]
    assert reader.read(Frame("", b"[DONE]"))[-1]["type"] == "response.completed"
    assert reader.end() == []


def test_stream_without_done_ends_at_its_close() -> None:
    played = run(stream([chunk({"content": "A"}), STOP], is_done=False))
    assert played.outcomes[0].status is Status.COMPLETED


def test_done_without_finish_reason_is_an_end_after_some_output_and_none_before() -> None:
    played = play(chunk({"content": "A"}))
    assert (played.final["status"], shape(played.final["output"])) == ("completed", [("message", "A")])
    played = run(stream([chunk({"role": "assistant", "content": ""})]))
    assert played.outcomes[0].reason == "upstream_closed_early"


def test_call_that_was_cut_before_done_is_incomplete_and_so_is_the_response() -> None:
    played = play(chunk({"content": "A"}), chunk(call(0, "c", "look", '{"a"')))
    assert played.final["status"] == "incomplete"
    assert [item["status"] for item in played.final["output"]] == ["completed", "incomplete"]


def test_stream_that_ends_without_done_and_without_finish_reason_was_cut() -> None:
    played = run(stream([chunk({"content": "A"}), chunk(call(0, "c", "look", '{"a"'))], is_done=False))
    assert played.outcomes[0].reason == "upstream_closed_early"
    assert [item["status"] for item in played.final["output"]] == ["completed", "incomplete"]
    validate(played)


def test_what_comes_after_done_is_not_heard() -> None:
    body = stream([chunk({"content": "A"}), STOP]) + stream([chunk({"content": "B"}), STOP])
    assert shape(run(body).final["output"]) == [("message", "A")]


# -- usage and other fields

USAGE = {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}


@pytest.mark.parametrize(
    "chunks",
    [
        [STOP, {"choices": [], "usage": USAGE}],
        [STOP, {"usage": USAGE}],
        [chunk(finish="stop", usage=USAGE)],
        [chunk(finish="stop", choice={"usage": USAGE})],
        [chunk(usage={"prompt_tokens": 3, "completion_tokens": 1}), chunk(finish="stop", usage=USAGE)],
        [STOP, {"choices": [], "usage": USAGE}, {"choices": [], "usage": None}],
    ],
    ids=["own chunk", "no choices", "with finish", "in the choice", "growing", "then null"],
)
def test_usage_wherever_it_comes(chunks: list[dict[str, Any]]) -> None:
    usage = play(chunk({"content": "A"}, usage=None), *chunks).final["usage"]
    assert usage == {
        "input_tokens": 3,
        "output_tokens": 4,
        "total_tokens": 7,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens_details": {"reasoning_tokens": 0},
    }


def test_details_of_the_usage_are_mapped_and_its_total_made_up() -> None:
    usage = {
        "prompt_tokens": 10,
        "completion_tokens": 5,
        "prompt_tokens_details": {"cached_tokens": 8},
        "completion_tokens_details": {"reasoning_tokens": 2},
    }
    shown = play(STOP, {"choices": [], "usage": usage}).final["usage"]
    assert shown["input_tokens_details"]["cached_tokens"] == 8
    assert shown["output_tokens_details"] == {"reasoning_tokens": 2}
    assert shown["total_tokens"] == 15


@pytest.mark.parametrize(
    "usage",
    [{}, {"prompt_tokens": None, "prompt_tokens_details": []}, {"completion_tokens": "four"}, [], "7"],
)
def test_usage_that_is_none_does_no_harm(usage: Any) -> None:
    shown = play(STOP, {"choices": [], "usage": usage}).final["usage"]
    assert shown is None


def test_model_and_tier_are_those_that_the_backend_used() -> None:
    final = play(chunk({"content": "A"}, model="tiny-2", service_tier="flex"), STOP).final
    assert (final["model"], final["service_tier"]) == ("tiny-2", "flex")


def test_tier_that_the_api_does_not_have_is_not_shown() -> None:
    assert play(chunk({"content": "A"}, service_tier="on_demand"), STOP).final["service_tier"] == "auto"


def test_other_choices_than_the_first_are_not_shown() -> None:
    other = chunk({"content": "B"}, "length", choice={"index": 1})
    mixed = {"choices": [*other["choices"], *chunk({"content": "!"})["choices"]]}
    assert output(chunk({"content": "A"}), other, mixed, STOP) == [("message", "A!")]


# -- logprobs


def logprobs(*tokens: str) -> dict[str, Any]:
    entries = [
        {
            "token": token,
            "bytes": list(token.encode()),
            "logprob": -0.5,
            "top_logprobs": [{"token": token, "bytes": None, "logprob": -0.5}],
        }
        for token in tokens
    ]
    return {"logprobs": {"content": entries, "refusal": None}}


def tokens(logprobs: list[dict[str, Any]]) -> str:
    return "".join(entry["token"] for entry in logprobs)


def test_logprobs_are_on_the_deltas_the_done_event_and_the_part() -> None:
    played = play(
        chunk({"content": "A"}, choice=logprobs("A")),
        chunk({"content": "BC"}, choice=logprobs("B", "C")),
        STOP,
    )
    deltas = [event for event in played.events if event["type"] == "response.output_text.delta"]
    assert [tokens(event["logprobs"]) for event in deltas] == ["A", "BC"]
    (done,) = [event for event in played.events if event["type"] == "response.output_text.done"]
    ((part,),) = [item["content"] for item in played.final["output"]]
    assert tokens(done["logprobs"]) == tokens(part["logprobs"]) == "ABC"
    assert part["logprobs"][0] == {
        "token": "A",
        "bytes": [65],
        "logprob": -0.5,
        "top_logprobs": [{"token": "A", "bytes": [], "logprob": -0.5}],
    }


def test_logprobs_of_a_token_without_text_of_its_own_are_kept_in_the_part() -> None:
    chunks = [chunk({"content": "A"}, choice=logprobs("A")), chunk({"content": ""}, choice=logprobs("½"))]
    played = play(*chunks, chunk({"content": "😀"}, choice=logprobs("2")), STOP)
    ((part,),) = [item["content"] for item in played.final["output"]]
    assert (part["text"], tokens(part["logprobs"])) == ("A😀", "A½2")


def test_logprobs_before_a_refusal_stay_with_the_text() -> None:
    played = play(chunk({"content": "A"}, choice=logprobs("A")), chunk({"refusal": "No"}), STOP)
    ((text, refusal),) = [item["content"] for item in played.final["output"]]
    assert (text["text"], tokens(text["logprobs"])) == ("A", "A")
    assert refusal == {"type": "refusal", "refusal": "No"}


@pytest.mark.parametrize(
    "entry", [{}, {"token": 5, "bytes": "A", "logprob": None, "top_logprobs": 1}, {"bytes": [None, "x"]}]
)
def test_logprobs_of_the_wrong_types_do_no_harm(entry: dict[str, Any]) -> None:
    played = play(chunk({"content": "A"}, choice={"logprobs": {"content": [entry, None]}}), STOP)
    (shown,) = played.final["output"][0]["content"][0]["logprobs"]
    assert shown == {"token": "", "bytes": [], "logprob": 0.0, "top_logprobs": []}


def test_logprobs_of_a_second_message_are_its_own() -> None:
    first, second = (chunk({"content": t}, choice=logprobs(t)) for t in "AB")
    played = play(first, chunk({"reasoning": "Hm"}), second, STOP)
    parts = [item["content"][0] for item in played.final["output"] if item["type"] == "message"]
    assert [(part["text"], tokens(part["logprobs"])) for part in parts] == [("A", "A"), ("B", "B")]


# -- errors


@pytest.mark.parametrize(
    ("frame", "code", "message"),
    [
        (b'data: {"error":{"message":"Boom","type":"server_error","code":500}}', "server_error", "Boom"),
        (b'data: {"error":{"message":"Slow","code":429}}', "rate_limit_exceeded", "Slow"),
        (b'data: {"error":"Boom"}', "server_error", "Boom"),
        (b'event: error\ndata: {"message":"Boom"}', "server_error", "Boom"),
        (b'event: error\ndata: {"error":{"message":"Boom"}}', "server_error", "Boom"),
        (b'data: {"object":"error","message":"Too long","code":400}', "invalid_prompt", "Too long"),
    ],
)
@pytest.mark.parametrize("before", [[], [chunk({"content": "A"})], [chunk({"content": "A"}, "stop")]])
def test_error_in_the_stream_fails_the_response_with_its_message(
    frame: bytes, code: str, message: str, before: list[dict[str, Any]]
) -> None:
    played = run(stream(before, is_done=False) + frame + b"\n\n" + DONE)
    assert played.final["error"] == {"code": code, "message": message}
    assert shape(played.final["output"]) == [("message", "A")][: len(before)]
    validate(played)


@pytest.mark.parametrize("data", [b"oops", b"[1]", b"null", b'{"choices":'])
def test_data_that_is_no_object_fails_the_response(data: bytes) -> None:
    played = run(stream([chunk({"content": "A"})], is_done=False) + b"data: " + data + b"\n\n")
    assert played.outcomes[0].reason == "bad_event"
    assert shape(played.final["output"]) == [("message", "A")]


def answer(message: dict[str, Any], finish: str | None = "stop") -> bytes:
    return orjson.dumps({"choices": [{"index": 0, "message": message, "finish_reason": finish}]})


def test_answer_that_is_no_stream_says_everything_at_once() -> None:
    calls = [{"id": "c1", "function": {"name": "look", "arguments": "{}"}}]
    calls += [{"id": "c2", "function": {"name": "look", "arguments": '{"input":"x"}'}}]
    body = answer({"content": "T", "reasoning_content": "R", "tool_calls": calls}, "tool_calls")
    played = run_answer(body, tools=[LOOK])
    validate(played)
    assert shape(played.final["output"]) == [
        ("reasoning", "R"),
        ("message", "T"),
        ("custom_tool_call", "look", "{}"),
        ("custom_tool_call", "look", "x"),
    ]


def test_answer_without_finish_reason_is_whole() -> None:
    assert run_answer(answer({"content": "A"}, None)).final["status"] == "completed"


def test_answer_that_is_an_error_fails_with_its_message() -> None:
    played = run_answer(b'{"error":{"message":"Boom","code":400}}')
    assert played.final["error"] == {"code": "invalid_prompt", "message": "Boom"}


@pytest.mark.parametrize("body", [b"", b"null", b"[]", b"{}", b'{"choices":[]}', b'{"choices":3}', b"<html>"])
def test_answer_of_another_api_is_not_an_answer(body: bytes) -> None:
    with pytest.raises(NotAnEvent):
        ChatReader("resp_1").answer(body)
    assert run_answer(body).final["status"] == "failed"


# -- properties

texts = st.text(min_size=1, max_size=4)


def cut(text: str, data: st.DataObject) -> list[str]:
    """The text in pieces."""
    at = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=3)))
    return [text[a:b] for a, b in zip([0, *at], [*at, len(text)], strict=True)]


@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_text_reasoning_and_arguments_survive_any_interleaving(data: st.DataObject) -> None:
    said = {"content": data.draw(texts), "reasoning": data.draw(texts), "refusal": data.draw(st.text())}
    calls = data.draw(st.lists(st.dictionaries(texts, texts, max_size=2), max_size=3))
    queues = [[chunk({name: piece}) for piece in cut(text, data)] for name, text in said.items()]
    for index, arguments in enumerate(calls):
        pieces = cut(orjson.dumps(arguments).decode(), data)
        fragments = [chunk(call(index, arguments=piece)) for piece in pieces]
        named = data.draw(st.sampled_from(range(len(fragments))))
        function = fragments[named]["choices"][0]["delta"]["tool_calls"][0]["function"]
        function["name"] = f"look_{index}"
        queues.append(fragments)
    mixed = []
    while queues := [queue for queue in queues if queue]:
        mixed.append(data.draw(st.sampled_from(queues)).pop(0))
    body = stream([*mixed, chunk(finish="tool_calls"), {"choices": [], "usage": USAGE}])
    played = run(body, data.draw(st.sampled_from([1, 5, 4096])))
    validate(played)
    output = played.final["output"]
    heard = dict.fromkeys(said, "")
    for item in output:
        for part in item.get("content", ()):
            name = {"output_text": "content", "reasoning_text": "reasoning"}.get(part["type"], "refusal")
            heard[name] += part.get("text", part.get("refusal"))
    assert heard == said
    assert {item["name"]: orjson.loads(item["arguments"]) for item in output if "name" in item} == {
        f"look_{index}": arguments for index, arguments in enumerate(calls)
    }


@given(size=st.integers(1, 40))
@settings(max_examples=40, deadline=None)
def test_any_split_of_the_bytes_stores_the_same_events(size: int) -> None:
    chunks = [chunk({"reasoning": "Hmm…"}), chunk({"content": "Grüße 😀"}), chunk(call(0, "c", "look", "{}"))]
    body = stream([*chunks, chunk(finish="length"), {"choices": [], "usage": USAGE}]).replace(b"\n", b"\r\n")
    assert run(body, size).stored == run(body).stored


NAMES = ["content", "reasoning", "refusal", "tool_calls", "function_call", "function", "index", "id", "name"]
NAMES += ["arguments", "logprobs", "token", "usage", "prompt_tokens_details", "text"]
scalars = st.none() | st.booleans() | st.integers(-3, 3) | st.floats(-1, 1) | st.text(max_size=3)
json = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=3),
    max_leaves=6,
)


@given(
    deltas=st.lists(json, max_size=4),
    choice=st.dictionaries(st.sampled_from(["logprobs", "usage", "index", "finish_reason", "message"]), json),
    fields=st.dictionaries(st.sampled_from(["usage", "model", "choices", "service_tier"]), json),
)
@settings(max_examples=200, deadline=None)
def test_nonsense_never_raises_and_still_gives_a_stream_that_clients_accept(
    deltas: list[Any], choice: dict[str, Any], fields: dict[str, Any]
) -> None:
    chunks = []
    for delta in deltas:
        tool = {"tool_calls": [delta, {"index": 0, "function": delta}], "content": delta}
        chunks += [chunk(tool, choice=choice, **fields), chunk({}, choice={**choice, "delta": delta})]
    validate(run(stream([*chunks, STOP])))
