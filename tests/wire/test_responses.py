"""The Response in every state: all keys, ours kept, the backend's word where it knows better."""

from __future__ import annotations

import copy
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.types.responses import Response

from gateway.wire import responses
from gateway.wire.failures import failure
from gateway.wire.usage import usage_of

OPEN_RESPONSES = """
    id object created_at completed_at status incomplete_details model previous_response_id
    instructions output error tools tool_choice truncation parallel_tool_calls text top_p
    presence_penalty frequency_penalty top_logprobs temperature reasoning user usage
    max_output_tokens max_tool_calls store background service_tier metadata safety_identifier
    prompt_cache_key
""".split()  # noqa: SIM905  a list of words reads as one
RECORDED_QUEUED = """
    id object created_at status background completed_at error frequency_penalty incomplete_details
    instructions max_output_tokens max_tool_calls model output parallel_tool_calls presence_penalty
    previous_response_id prompt_cache_key prompt_cache_retention reasoning safety_identifier
    service_tier store temperature text tool_choice tools top_logprobs top_p truncation usage user
    metadata
""".split()  # noqa: SIM905  a list of words reads as one
KEYS = {*OPEN_RESPONSES, *RECORDED_QUEUED}

ID = "resp_" + "0" * 48
REQUESTS: list[dict[str, Any]] = [
    {"model": "tiny", "input": "Hello"},
    {"model": "tiny", "input": "Hello", **dict.fromkeys(KEYS - {"model", "id", "object", "status"})},
    {
        "model": "tiny",
        "temperature": 0.0,
        "store": False,
        "metadata": {"a": "b"},
        "instructions": "Be brief.",
        "reasoning": {"effort": "low"},
        "text": {"format": {"type": "json_object"}, "verbosity": None},
        "tools": [{"type": "function", "name": "look"}, {"type": "web_search"}],
        "tool_choice": "required",
        "conversation": "conv_1",
        "prompt": {"id": "pmpt_1"},
    },
]


def queued(request: dict[str, Any] | None = None) -> dict[str, Any]:
    return responses.accepted(request or REQUESTS[0], response_id=ID, created_at=1_770_000_000)


def ended(status: str, answer: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    values = {"status": status, "output": [], "now_s": 1_770_000_009, "answer": answer, **more}
    return responses.ended(more.pop("response", None) or queued(), **values)


def test_the_lists_of_keys_are_what_the_sources_say() -> None:
    assert len(OPEN_RESPONSES) == 32
    assert len(RECORDED_QUEUED) == 33


@pytest.mark.parametrize("request_body", REQUESTS)
@pytest.mark.parametrize(
    "status", ["queued", "in_progress", "completed", "incomplete", "failed", "cancelled"]
)
def test_every_state_has_every_key(request_body: dict[str, Any], status: str) -> None:
    response = queued(request_body)
    if status == "in_progress":
        response = orjson.loads(responses.unfinished(orjson.dumps(response), status))
    elif status != "queued":
        error = failure("Broken.") if status == "failed" else None
        response = responses.ended(response, status=status, output=[], now_s=5, error=error)
    assert set(response) >= KEYS
    assert response["status"] == status
    assert response["output"] == []
    assert response["id"] == ID
    assert response["background"] is True
    assert Response.model_validate(response).status == status


def test_defaults_are_those_of_a_recorded_queued_body() -> None:
    assert queued() == {
        "id": ID,
        "object": "response",
        "created_at": 1_770_000_000,
        "status": "queued",
        "background": True,
        "completed_at": None,
        "error": None,
        "frequency_penalty": 0.0,
        "incomplete_details": None,
        "instructions": None,
        "max_output_tokens": None,
        "max_tool_calls": None,
        "model": "tiny",
        "output": [],
        "parallel_tool_calls": True,
        "presence_penalty": 0.0,
        "previous_response_id": None,
        "prompt_cache_key": None,
        "prompt_cache_retention": None,
        "reasoning": {"effort": None, "summary": None},
        "safety_identifier": None,
        "service_tier": "auto",
        "store": True,
        "temperature": 1.0,
        "text": {"format": {"type": "text"}, "verbosity": "medium"},
        "tool_choice": "auto",
        "tools": [],
        "top_logprobs": 0,
        "top_p": 1.0,
        "truncation": "disabled",
        "usage": None,
        "user": None,
        "metadata": {},
    }


def test_what_was_asked_for_is_echoed() -> None:
    response = queued(REQUESTS[2])
    assert (response["temperature"], response["store"], response["metadata"]) == (0.0, False, {"a": "b"})
    assert response["reasoning"] == {"effort": "low", "summary": None}
    assert response["text"] == {"format": {"type": "json_object"}, "verbosity": "medium"}
    assert response["conversation"] == {"id": "conv_1"}
    assert response["prompt"] == {"id": "pmpt_1"}
    function, search = response["tools"]
    assert function == {
        "type": "function",
        "name": "look",
        "description": None,
        "parameters": None,
        "strict": None,
    }
    assert search == {"type": "web_search"}


@pytest.mark.parametrize("name", ["input", "include", "stream", "stream_options", "guided_json"])
def test_is_not_echoed(name: str) -> None:
    assert name not in queued({"model": "tiny", name: ["x"]})


def test_accepting_changes_nothing_of_the_request() -> None:
    request = copy.deepcopy(REQUESTS[2])
    queued(request)
    assert request == REQUESTS[2]


def test_running_shows_output_only_where_it_is_given() -> None:
    stored = orjson.dumps(queued())
    assert orjson.loads(responses.unfinished(stored, "in_progress"))["output"] == []
    assert orjson.loads(responses.unfinished(stored, "in_progress", [{"id": "a"}]))["output"] == [{"id": "a"}]


def test_only_a_completed_response_has_a_time_of_completion() -> None:
    assert ended("completed")["completed_at"] == 1_770_000_009
    for status in ("incomplete", "failed", "cancelled"):
        assert ended(status)["completed_at"] is None


def test_backend_says_what_was_really_used() -> None:
    answer = {"model": "tiny-2026", "temperature": 0.6, "top_p": 0.9, "service_tier": "default"}
    final = ended("completed", answer)
    assert {name: final[name] for name in answer} == answer


def test_backends_nulls_do_not_hide_what_was_asked_for() -> None:
    final = ended("completed", {"model": None, "temperature": None, "text": None, "tools": None})
    assert final == ended("completed")


def test_ours_is_never_the_backends() -> None:
    theirs = {
        "id": "resp_theirs",
        "object": "x",
        "created_at": 1.5,
        "completed_at": 1,
        "status": "queued",
        "background": False,
        "output": [1],
        "error": {"code": "x"},
        "store": False,
        "metadata": {"x": "y"},
        "previous_response_id": "resp_x",
        "tools": [1],
        "instructions": "x",
        "user": "x",
        "truncation": "auto",
    }
    assert ended("completed", theirs) == ended("completed")


def test_vendor_fields_survive() -> None:
    final = ended(
        "completed", {"billing": {"payer": "developer"}, "timings": [1], "kv_transfer_params": None}
    )
    assert (final["billing"], final["timings"]) == ({"payer": "developer"}, [1])


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ({}, "max_output_tokens"),
        ({"incomplete_details": None}, "max_output_tokens"),
        ({"incomplete_details": {"reason": "content_filter"}}, "content_filter"),
    ],
)
def test_incomplete_always_has_a_reason(answer: dict[str, Any], reason: str) -> None:
    assert ended("incomplete", answer)["incomplete_details"] == {"reason": reason}


@pytest.mark.parametrize("status", ["completed", "failed", "cancelled"])
def test_only_incomplete_has_a_reason(status: str) -> None:
    assert ended(status, {"incomplete_details": {"reason": "x"}})["incomplete_details"] is None


FULL_USAGE = {
    "input_tokens": 5,
    "input_tokens_details": {"cached_tokens": 2, "cache_write_tokens": 0},
    "output_tokens": 7,
    "output_tokens_details": {"reasoning_tokens": 3},
    "total_tokens": 12,
}


@pytest.mark.parametrize(
    ("given_usage", "expected"),
    [
        (None, None),
        ([], None),
        ("x", None),
        (FULL_USAGE, FULL_USAGE),
        (
            {"input_tokens": 5, "output_tokens": 7},
            {
                **FULL_USAGE,
                "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
                "output_tokens_details": {"reasoning_tokens": 0},
            },
        ),
        (
            {
                "input_tokens": 5,
                "output_tokens": 7,
                "total_tokens": None,
                "input_tokens_details": {"cached_tokens": 2, "cache_write_tokens": None},
                "output_tokens_details": {"reasoning_tokens": 3},
            },
            FULL_USAGE,
        ),
        ({**FULL_USAGE, "cost": 0.1}, {**FULL_USAGE, "cost": 0.1}),
        (
            {"input_tokens": "5", "output_tokens": [7], "input_tokens_details": 3},
            {
                "input_tokens": 5,
                "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
                "output_tokens": 0,
                "output_tokens_details": {"reasoning_tokens": 0},
                "total_tokens": 5,
            },
        ),
    ],
    ids=str,
)
def test_usage_has_every_key_or_is_null(given_usage: Any, expected: Any) -> None:
    assert usage_of(given_usage) == expected
    assert ended("completed", {"usage": given_usage})["usage"] == expected


json = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@given(answer=st.dictionaries(st.sampled_from([*sorted(KEYS), "vendor"]), json))
@settings(max_examples=100, deadline=None)
def test_no_answer_of_a_backend_breaks_the_ending(answer: dict[str, Any]) -> None:
    final = ended("incomplete", answer)
    assert set(final) >= KEYS
    assert (final["id"], final["output"], final["status"]) == (ID, [], "incomplete")


def test_deleted() -> None:
    assert orjson.loads(responses.deleted("resp_1")) == {
        "id": "resp_1",
        "object": "response",
        "deleted": True,
    }
