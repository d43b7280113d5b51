"""Create requests: what is refused and how, and what goes to the backend."""

from __future__ import annotations

import contextlib
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.wire.chat.speech import ChatSpeech
from gateway.wire.errors import Fault, Refusal
from gateway.wire.query_strings import INCLUDE
from gateway.wire.requests import (
    backend_body,
    chained_body,
    is_rerunnable,
    validate,
    validate_depth,
)
from gateway.wire.speech import Api, Speech
from gateway.wire.speech_responses import ResponsesSpeech

VALID: dict[str, Any] = {"model": "tiny", "input": "Hello", "background": True}


def refusal(body: dict[str, Any], *, accept_store_false: bool = False) -> Refusal:
    with pytest.raises(Refusal) as caught:
        validate(body, accept_store_false=accept_store_false)
    return caught.value


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"input": None, "prompt": {"id": "pmpt_1"}},
        {"input": None, "previous_response_id": "resp_1"},
        {"input": None, "conversation": "conv_1"},
        {"input": []},
        {"input": [{"role": "user", "content": "Hello"}], "conversation": {"id": "conv_1"}},
        {"temperature": 0, "top_p": 1, "top_logprobs": 20, "max_output_tokens": 1},
        {"max_output_tokens": 16.0, "top_logprobs": 0.0, "max_tool_calls": 1e3},
        {"temperature": 2.0, "presence_penalty": -2, "frequency_penalty": 2},
        {"store": True, "stream": None, "truncation": "auto", "include": sorted(INCLUDE)},
        {"metadata": {f"{n}".zfill(64): "x" * 512 for n in range(16)}},
        {"vendor_field": {"any": ["thing"]}, "guided_json": {}, "min_p": 0.1},
        {"tools": [{"type": "mcp"}, {"type": "odd"}], "tool_choice": {"type": "mcp"}},
        {"model": None},
        {"safety_identifier": "x" * 64, "model": "m" * 1024},
        {"cache_salt": "Z3V0ZXMgU2Fseg==", "request_id": {"dropped": "later"}},
    ],
    ids=repr,
)
def test_is_valid(more: dict[str, Any]) -> None:
    validate({**VALID, **more}, accept_store_false=False)


@pytest.mark.parametrize(
    ("more", "param", "code", "words"),
    [
        ({"model": ""}, "model", "string_below_min_length", "at least this many characters: 1"),
        ({"model": "m" * 1025}, "model", "string_above_max_length", "1024"),
        ({"model": 5}, "model", "invalid_type", "expected a string, but got an integer"),
        ({"input": None}, "input", "missing_required_parameter", "'input'"),
        ({"input": 5}, "input", "invalid_type", "expected a string or an array, but got an integer"),
        ({"cache_salt": "a\x00b"}, "cache_salt", "invalid_value", "'cache_salt'"),
        ({"cache_salt": ""}, "cache_salt", "invalid_value", "'cache_salt'"),
        ({"cache_salt": "x" * 65}, "cache_salt", "invalid_value", "'cache_salt'"),
        ({"cache_salt": 5}, "cache_salt", "invalid_type", "expected a string"),
        ({"input": {"role": "user"}}, "input", "invalid_type", "a string or an array"),
        ({"input": [{}, "x"]}, "input.1", "invalid_type", "expected an object, but got a string"),
        ({"stream": "true"}, "stream", "invalid_type", "expected a boolean, but got a string"),
        ({"store": 0}, "store", "invalid_type", "expected a boolean, but got an integer"),
        ({"store": False}, "background", "unsupported_parameter", "'background' needs 'store'"),
        ({"instructions": 1.5}, "instructions", "invalid_type", "got a number"),
        ({"tools": {}}, "tools", "invalid_type", "expected an array, but got an object"),
        ({"tools": [1]}, "tools.0", "invalid_type", "expected an object"),
        ({"temperature": 2.1}, "temperature", "above_max_value", "at most 2"),
        ({"temperature": -1}, "temperature", "below_min_value", "at least 0"),
        ({"temperature": "hot"}, "temperature", "invalid_type", "expected a number"),
        ({"temperature": True}, "temperature", "invalid_type", "got a boolean"),
        ({"top_p": 1.5}, "top_p", "above_max_value", "1"),
        ({"top_logprobs": 21}, "top_logprobs", "above_max_value", "20"),
        ({"top_logprobs": 1.5}, "top_logprobs", "invalid_type", "expected an integer"),
        ({"max_output_tokens": 0}, "max_output_tokens", "below_min_value", "at least 1"),
        ({"max_tool_calls": "1"}, "max_tool_calls", "invalid_type", "expected an integer"),
        ({"truncation": "some"}, "truncation", "invalid_value", "'auto' or 'disabled'"),
        ({"user": "u" * 70_000}, "user", "string_above_max_length", "65536"),
        ({"safety_identifier": "x" * 65}, "safety_identifier", "string_above_max_length", "64"),
        ({"reasoning": "high"}, "reasoning", "invalid_type", "expected an object"),
        ({"text": []}, "text", "invalid_type", "got an array"),
        ({"metadata": []}, "metadata", "invalid_type", "expected an object"),
        ({"metadata": {"a": 1}}, "metadata.a", "invalid_type", "expected a string"),
        ({"metadata": {"k" * 65: "v"}}, "metadata", "string_above_max_length", "64"),
        ({"metadata": {"k": "v" * 513}}, "metadata.k", "string_above_max_length", "512"),
        ({"metadata": {str(n): "" for n in range(17)}}, "metadata", "object_above_max_properties", "17"),
        ({"include": ["nothing"]}, "include", "invalid_value", "Supported values are"),
        ({"include": "nothing"}, "include", "invalid_type", "expected an array"),
        (
            {"previous_response_id": "resp_1", "conversation": "conv_1"},
            "previous_response_id",
            "mutually_exclusive_parameters",
            "only one",
        ),
    ],
    ids=lambda value: str(value)[:40],
)
def test_is_refused(more: dict[str, Any], param: str, code: str, words: str) -> None:
    error = refusal({**VALID, **more})
    assert (error.fault, error.param, error.code) == (Fault.INVALID, param, code)
    assert words in error.message
    assert orjson.loads(error.body())["error"] == {
        "message": error.message,
        "type": "invalid_request_error",
        "param": param,
        "code": code,
    }


SPEECHES: dict[Api, type[Speech]] = {Api.RESPONSES: ResponsesSpeech, Api.CHAT: ChatSpeech}


def test_a_request_may_leave_the_model_to_the_backend() -> None:
    validate({"input": "Hello", "background": True}, accept_store_false=False)
    for api in Api:
        for model in ({}, {"model": None}):
            assert "model" not in orjson.loads(
                SPEECHES[api]().body({"input": "Hello", **model}, "Hello", b"")
            )


def test_refusal_never_repeats_a_value() -> None:
    for name in ("model", "stream", "tools", "temperature", "truncation", "metadata", "max_output_tokens"):
        assert "sk-secret" not in refusal({**VALID, name: ["sk-secret"]}).message


def test_store_false_is_taken_where_the_settings_say_so() -> None:
    validate({**VALID, "store": False}, accept_store_false=True)


@pytest.mark.parametrize("depth", [251, 300, 1000])
def test_nesting_that_could_not_be_written_is_refused(depth: int) -> None:
    deep = orjson.loads(b"[" * depth + b"]" * depth)
    with pytest.raises(Refusal) as caught:
        validate_depth({**VALID, "vendor": deep})
    assert caught.value.fault is Fault.INVALID


scalars = st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=3)
values = st.recursive(
    scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=3), inner), max_leaves=5
)
FIELDS = ["model", "input", "tools", "metadata", "temperature", "conversation", "include", "text"]


@given(more=st.dictionaries(st.sampled_from(FIELDS), values))
@settings(max_examples=80, deadline=None)
def test_any_body_is_either_valid_or_refused(more: dict[str, Any]) -> None:
    with contextlib.suppress(Refusal):
        validate({**VALID, **more}, accept_store_false=False)
        return
    error = refusal({**VALID, **more})
    assert (error.fault, bool(error.param), bool(error.code)) == (Fault.INVALID, True, True)


def test_backend_gets_the_vendor_fields_streamed_in_the_foreground_and_not_stored() -> None:
    body = {
        "model": "tiny",
        "background": True,
        "stream": False,
        "store": True,
        "guided_json": {"a": [1]},
        "n": None,
    }
    assert orjson.loads(backend_body(body, input=[{"role": "user", "content": "Hi"}])) == {
        "model": "tiny",
        "stream": True,
        "store": False,
        "guided_json": {"a": [1]},
        "n": None,
        "input": [{"role": "user", "content": "Hi"}],
    }


CHAT = ChatSpeech()


def called(speech: Speech, **request: Any) -> dict[str, Any]:
    """The call for a request as it is heard and judged."""
    heard = speech.heard({**VALID, **request})
    validate(heard, accept_store_false=False)
    call: dict[str, Any] = orjson.loads(speech.body(heard, heard["input"], b""))
    return call


@pytest.mark.parametrize("api", Api)
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("include", ["of.another.year"]),
        ("tool_choice", "sometimes"),
        ("tools", [{"type": "function"}]),
        ("text", {"format": {"type": "xml"}}),
        ("conversation", "conv_1"),
        ("prompt", {"id": "p"}),
        ("temperature", 3),
        ("client_metadata", {"session": "s-1"}),
    ],
)
def test_what_the_settings_drop_is_not_judged(api: Api, name: str, value: Any) -> None:
    dropping = SPEECHES[api](drop=frozenset({name}))
    assert called(dropping, **{name: value}) == called(SPEECHES[api]())


@pytest.mark.parametrize("api", Api)
def test_what_the_settings_set_is_said_whatever_the_client_said(api: Api) -> None:
    setting = SPEECHES[api](force={"temperature": 0.5, "top_k": 7})
    call = called(setting, temperature="hot", top_k={"odd": True})
    assert call == {**called(SPEECHES[api]()), "temperature": 0.5, "top_k": 7}


def test_what_means_something_to_the_gateway_is_heard_though_the_backend_is_not_sent_it() -> None:
    dropping = ResponsesSpeech(drop=frozenset({"metadata", "store", "service_tier", "user"}))
    said = {**VALID, "metadata": {"a": "b"}, "service_tier": "flex", "store": True, "user": "u"}
    assert dropping.heard(said) == {name: value for name, value in said.items() if name != "user"}
    assert called(dropping, **said) == {"model": "tiny", "input": "Hello", "stream": True}


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("max_output_tokens", 9, {"max_tokens": 9}),
        ("text", {"verbosity": "low"}, {"verbosity": "low"}),
        ("include", ["message.output_text.logprobs"], {"logprobs": True}),
        ("top_logprobs", 2, {"logprobs": True, "top_logprobs": 2}),
        ("reasoning", {"effort": "low"}, {"reasoning_effort": "low", "reasoning": {"effort": "low"}}),
        ("reasoning_effort", "low", {"reasoning_effort": "low"}),
        ("max_tokens", 9, {"max_tokens": 9}),
        ("client_metadata", {"a": "b"}, {"client_metadata": {"a": "b"}}),
        ("n", 2, {"n": 2}),
    ],
)
def test_what_the_settings_set_may_be_in_the_words_of_either_api(
    name: str, value: Any, said: dict[str, Any]
) -> None:
    assert called(ChatSpeech(force={name: value})) == {**called(CHAT), **said}


def test_tools_that_the_settings_set_are_those_of_the_request() -> None:
    tool = {"type": "function", "name": "look"}
    setting = ChatSpeech(force={"tools": [tool], "tool_choice": "required"})
    call = called(setting, tools=[{"type": "mcp"}], tool_choice={"type": "mcp"})
    assert call["tools"] == [{"type": "function", "function": {"name": "look"}}]
    assert call["tool_choice"] == "required"
    assert setting.tools({**VALID, "tools": [{"type": "mcp"}]}, "Hello").shown == (tool,)


@pytest.mark.parametrize("api", Api)
def test_callers_do_not_name_the_backends_calls(api: Api) -> None:
    request = {**VALID, "request_id": "resp_of_another", "top_k": 1}
    call = orjson.loads(SPEECHES[api]().body(request, "Hello", b""))
    assert "request_id" not in call
    assert call["top_k"] == 1


def test_backend_is_not_sent_the_nulls_of_known_fields() -> None:
    nulls = dict.fromkeys(["tools", "tool_choice", "text", "previous_response_id", "input", "top_k"])
    validate({**VALID, **nulls, "input": "Hi"}, accept_store_false=False)
    call = orjson.loads(backend_body({"model": "tiny", **nulls}, input="Hi"))
    assert call == {"model": "tiny", "input": "Hi", "top_k": None, "stream": True, "store": False}


def test_backends_own_previous_response_is_left_for_it_to_resolve() -> None:
    call = orjson.loads(backend_body({"model": "tiny", "previous_response_id": "resp_theirs"}, input="Hi"))
    assert call["previous_response_id"] == "resp_theirs"


def test_request_without_input_stays_without() -> None:
    assert "input" not in orjson.loads(backend_body({"prompt": {"id": "p"}}, input=None))


def test_backend_is_told_not_to_obfuscate_where_stream_options_are_given() -> None:
    options = {"include_obfuscation": True, "include_usage": True}
    call = orjson.loads(backend_body({"stream_options": options}, input="x"))
    assert call["stream_options"] == {"include_obfuscation": False, "include_usage": True}
    assert options["include_obfuscation"] is True, "the stored request was changed"


def test_chained_request_has_its_context_in_place_of_the_id() -> None:
    body = {"model": "tiny", "previous_response_id": "resp_1", "stream": False, "x": 1, "input": "Hi"}
    chained = orjson.loads(chained_body(body, input=[1]))
    assert chained == {"model": "tiny", "stream": False, "x": 1, "input": [1]}


@pytest.mark.parametrize(
    ("tools", "expected"),
    [
        (None, True),
        ([], True),
        ([{"type": "function", "name": "mcp"}], True),
        ([{"type": "custom"}, {"type": "file_search"}, {}], True),
        ([{"type": ["mcp"]}, {"type": None}, {"type": {}}], True),
        ([{"type": "function"}, {"type": "mcp"}], False),
        ([{"type": "code_interpreter"}], False),
        ([{"type": "web_search"}], False),
        ([{"type": "web_search_preview_2025_03_11"}], False),
        ([{"type": "web_search_2025_08_26"}], False),
        ([{"type": "local_shell"}], False),
        ([{"type": "shell"}], False),
        ([{"type": "computer_use_preview"}], False),
        ([{"type": "namespace", "name": "n", "tools": [{"type": "function", "name": "mcp"}]}], True),
        ([{"type": "namespace", "name": "n", "tools": [{"type": "mcp"}]}], False),
    ],
)
def test_request_with_a_tool_that_acts_is_not_run_twice(tools: Any, expected: bool) -> None:
    assert is_rerunnable({"tools": tools}) is expected
    assert is_rerunnable({"input": [{"type": "additional_tools", "tools": tools}]}) is expected
