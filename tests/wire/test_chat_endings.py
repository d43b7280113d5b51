"""How a chat answer ended, in every word that is in use, and in none."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.wire.answers.notices import Notable
from gateway.wire.chat.endings import Meaning, ending_of
from tests.core.conftest import Played
from tests.wire.chat_play import call, chunk, run, shape, stream, validate

WHOLE = """
    stop tool_calls function_call eos eos_token stop_sequence end_turn tool_use COMPLETE TOOL_CALL
    STOP_SEQUENCE STOP FINISH_REASON_STOP end FINISH endoftext stop_words end_id normal completed
    generated-image
"""
LIMIT = """
    length max_tokens MAX_TOKENS model_length model_context_window_exceeded LENGTH token_limit
    max_output ERROR_LIMIT
"""
FILTER = """
    content_filter SAFETY RECITATION BLOCKLIST PROHIBITED_CONTENT SPII LANGUAGE IMAGE_SAFETY
    MODEL_ARMOR refusal guardrail_intervened content_filtered sensitive ERROR_TOXIC
"""
CUT = "repetition pause_turn OTHER time_limit"
BROKEN = """
    abort error ERROR insufficient_system_resource network_error cancelled canceled USER_CANCEL
    timeout load unload MALFORMED_FUNCTION_CALL UNEXPECTED_TOOL_CALL MALFORMED_RESPONSE
    malformed_model_output malformed_tool_use
"""


def ended(word: Any, *chunks: dict[str, Any], **choice: Any) -> Played:
    played = run(
        stream([*(chunks or [chunk({"content": "A"})]), chunk(choice={**choice, "finish_reason": word})])
    )
    validate(played)
    return played


@pytest.mark.parametrize("word", WHOLE.split())
def test_words_of_a_whole_answer(word: str) -> None:
    assert ended(word).final["status"] == "completed"


@pytest.mark.parametrize("word", LIMIT.split())
def test_words_of_a_limit(word: str) -> None:
    final = ended(word).final
    assert (final["status"], final["incomplete_details"]) == ("incomplete", {"reason": "max_output_tokens"})
    assert final["output"][0]["status"] == "incomplete"


@pytest.mark.parametrize("word", FILTER.split())
def test_words_of_a_filter(word: str) -> None:
    final = ended(word).final
    assert (final["status"], final["incomplete_details"]) == ("incomplete", {"reason": "content_filter"})


@pytest.mark.parametrize("word", CUT.split())
def test_words_of_what_was_cut_by_something_else_are_shown_beside_the_nearest_reason(word: str) -> None:
    final = ended(word).final
    assert final["status"] == "incomplete"
    assert final["incomplete_details"] == {"reason": "max_output_tokens", "finish_reason": word}


@pytest.mark.parametrize("word", BROKEN.split())
def test_words_of_servers_that_gave_up_are_failures_that_keep_what_there_was(word: str) -> None:
    used = {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 4}}
    played = run(stream([chunk({"content": "A"}, model="tiny-2"), chunk(finish=word), used]))
    validate(played)
    final = played.final
    assert (final["status"], final["error"]["code"]) == ("failed", "server_error")
    assert word in final["error"]["message"]
    assert shape(final["output"]) == [("message", "A")]
    assert (final["model"], final["usage"]["output_tokens"]) == ("tiny-2", 4)


@pytest.mark.parametrize(
    ("word", "meaning"),
    [
        ("function_call_filter: MALFORMED_FUNCTION_CALL", Meaning.BROKEN),
        ("function_call_filter: SOMETHING_NEW", Meaning.BROKEN),
        ("content_filter: PROHIBITED_CONTENT", Meaning.FILTER),
        ("content_filter: SOMETHING_NEW", Meaning.FILTER),
        ("FinishReason.MAX_TOKENS", Meaning.LIMIT),
        ("Max-Tokens", Meaning.LIMIT),
        (" stop ", Meaning.WHOLE),
    ],
)
def test_words_in_other_spellings(word: str, meaning: Meaning) -> None:
    ending = ending_of(word)
    assert ending is not None
    assert ending.meaning is meaning


@pytest.mark.parametrize("word", [None, "", " ", "null", "None", 0, [], "FINISH_REASON_UNSPECIFIED"])
def test_what_is_no_reason_leaves_the_last_one(word: Any) -> None:
    played = run(stream([chunk({"content": "A"}, "length"), chunk(choice={"finish_reason": word})]))
    assert played.final["status"] == "incomplete"


@pytest.mark.parametrize(
    "choice",
    [{"finish_reason": {"type": "length"}}, {"finish_details": {"type": "max_tokens", "stop": "</s>"}}],
)
def test_reason_that_is_an_object_is_read(choice: dict[str, Any]) -> None:
    played = run(stream([chunk({"content": "A"}), {"choices": [{"delta": {}, **choice}]}]))
    assert played.final["incomplete_details"] == {"reason": "max_output_tokens"}


def test_unknown_word_is_an_answer_that_was_cut_and_is_told() -> None:
    played = ended("lunch_break")
    assert played.final["status"] == "incomplete"
    assert played.final["incomplete_details"]["finish_reason"] == "lunch_break"
    assert shape(played.final["output"]) == [("message", "A")]
    assert [(notice.what, notice.name) for notice in played.machine.notices] == [
        (Notable.UNKNOWN_FINISH_REASON, "lunch_break")
    ]


def test_unknown_word_without_any_output_is_a_failure() -> None:
    final = ended("lunch_break", chunk({"content": ""})).final
    assert (final["status"], final["output"]) == ("failed", [])
    assert "lunch_break" in final["error"]["message"]


def test_endless_word_is_shown_in_part() -> None:
    assert len(ended("x" * 5000).final["incomplete_details"]["finish_reason"]) == 64


@pytest.mark.parametrize("word", [*LIMIT.split()[:2], *FILTER.split()[:2]])
def test_limit_or_filter_before_any_output_is_incomplete_all_the_same(word: str) -> None:
    final = ended(word, chunk({"content": ""})).final
    assert (final["status"], final["output"]) == ("incomplete", [])


# -- routers


@pytest.mark.parametrize(
    ("word", "native", "status"),
    [
        ("stop", "STOP", "completed"),
        ("stop", "MAX_TOKENS", "incomplete"),
        ("stop", "MALFORMED_FUNCTION_CALL", "failed"),
        ("stop", "something_new", "completed"),
        ("length", "stop", "incomplete"),
        (None, "end_turn", "completed"),
        (None, "something_new", "failed"),
    ],
)
def test_word_of_the_server_behind_a_router_counts_where_it_says_more(
    word: str | None, native: str, status: str
) -> None:
    played = run(
        stream(
            [chunk({"content": "A"}), chunk(finish=word, choice={"native_finish_reason": native})],
            is_done=False,
        )
    )
    assert played.final["status"] == status


@pytest.mark.parametrize(
    "sent",
    [
        chunk(finish="error", choice={"error": {"message": "Boom", "code": 502}}),
        chunk(x_groq={"error": "Boom"}),
        chunk(base_resp={"status_code": 1008, "status_msg": "Boom"}),
    ],
    ids=["OpenRouter", "Groq", "MiniMax"],
)
def test_error_within_a_chunk_fails_with_its_message(sent: dict[str, Any]) -> None:
    played = run(stream([chunk({"content": "A"}, base_resp={"status_code": 0}), sent]))
    assert (played.final["status"], played.final["error"]["message"]) == ("failed", "Boom")
    assert shape(played.final["output"]) == [("message", "A")]


# -- calls whose arguments are no JSON


@pytest.mark.parametrize("word", ["tool_calls", "stop", "length", "repetition", "content_filter"])
@pytest.mark.parametrize("arguments", ['{"path": "a.md", "te', '{"a":1}</tool_call>', "{'a': 1}", "["])
def test_call_that_no_program_can_read_is_incomplete_in_an_incomplete_response(
    word: str, arguments: str
) -> None:
    final = ended(word, chunk(call(0, "c", "look", arguments))).final
    assert final["status"] == "incomplete"
    (item,) = final["output"]
    assert (item["status"], item["arguments"]) == ("incomplete", arguments)


def test_whole_calls_beside_a_broken_one_are_completed() -> None:
    final = ended(
        "tool_calls", chunk(call(0, "c", "look", '{"a":1}')), chunk(call(1, "d", "hear", '{"b'))
    ).final
    assert [item["status"] for item in final["output"]] == ["completed", "incomplete"]
    assert final["incomplete_details"] == {"reason": "max_output_tokens", "finish_reason": "tool_calls"}


@pytest.mark.parametrize("arguments", ["[1]", "7", '"seven"', '{"a":{}}', " {} "])
def test_any_json_is_whole(arguments: str) -> None:
    assert ended("tool_calls", chunk(call(0, "c", "look", arguments))).final["status"] == "completed"


@pytest.mark.parametrize(
    ("arguments", "word", "status", "text"),
    [
        ("any text", "tool_calls", "completed", "any text"),
        ("{ not the object", "tool_calls", "completed", "{ not the object"),
        ('{"input": "cut he', "tool_calls", "incomplete", '{"input": "cut he'),
        ('{"in', "tool_calls", "incomplete", '{"in'),
        ("any te", "length", "incomplete", "any te"),
        ('{"input":"whole"}', "length", "completed", "whole"),
        ("", "tool_calls", "completed", ""),
    ],
)
def test_text_of_a_custom_tool_is_cut_where_its_object_is(
    arguments: str, word: str, status: str, text: str
) -> None:
    sent = [chunk(call(0, "c", "look", arguments)), chunk(finish=word)]
    played = run(stream(sent), tools=[{"type": "custom", "name": "look"}])
    validate(played)
    (item,) = played.final["output"]
    assert (item["status"], item["input"]) == (status, text)


# -- the end without a word


def test_done_after_output_is_completed_and_told() -> None:
    played = run(stream([chunk({"content": "A"})]))
    assert played.final["status"] == "completed"
    assert [notice.what for notice in played.machine.notices] == [Notable.NO_FINISH_REASON]


def test_done_after_whole_calls_is_completed() -> None:
    played = run(stream([chunk(call(0, "c", "look", "{}"))]))
    assert (played.final["status"], played.final["output"][0]["status"]) == ("completed", "completed")


def test_close_without_done_keeps_what_there_was_and_fails() -> None:
    played = run(stream([chunk({"content": "A"}), chunk(call(0, "c", "look"))], is_done=False))
    assert played.outcomes[0].reason == "upstream_closed_early"
    assert shape(played.final["output"]) == [("message", "A"), ("function_call", "look", "")]
    assert not played.machine.notices
