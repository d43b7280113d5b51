"""What a chat backend is asked for, row by row; and what is refused, with the field's name."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.wire.chat.request import ChatOptions, chat_body
from gateway.wire.chat.tools import tools_of
from gateway.wire.errors import Fault, Refusal

FUNCTION = {
    "type": "function",
    "name": "look",
    "description": "Looks",
    "parameters": {"type": "object"},
    "strict": True,
}


PLAIN = ChatOptions()


def asked(options: ChatOptions = PLAIN, *, input: Any = "Hello", **body: Any) -> dict[str, Any]:
    """The request that a backend gets."""
    request: dict[str, Any] = orjson.loads(chat_body({"model": "tiny", **body}, input=input, options=options))
    return request


def refused(*, input: Any = "Hello", **body: Any) -> Refusal:
    with pytest.raises(Refusal) as caught:
        asked(input=input, **body)
    assert caught.value.fault is Fault.INVALID
    assert caught.value.param is not None
    assert caught.value.param in caught.value.message
    return caught.value


def test_smallest_request() -> None:
    assert asked() == {
        "model": "tiny",
        "messages": [{"role": "user", "content": "Hello"}],
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def test_stream_and_usage_are_forced() -> None:
    call = asked(stream=False, stream_options={"include_obfuscation": True, "include_usage": False, "x": 1})
    assert call["stream"] is True
    assert call["stream_options"] == {"include_usage": True, "x": 1}


def test_what_is_the_gateways_own_does_not_go_along() -> None:
    own: dict[str, Any] = {"background": True, "store": True, "max_tool_calls": 3, "truncation": "disabled"}
    assert asked(**own) == asked()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", 0),
        ("top_p", 0.5),
        ("frequency_penalty", 1),
        ("presence_penalty", -1),
        ("parallel_tool_calls", False),
        ("user", "u"),
        ("metadata", {"a": "b"}),
        ("service_tier", "flex"),
        ("prompt_cache_key", "k"),
        ("safety_identifier", "s"),
        ("top_k", 3),
        ("chat_template_kwargs", {"enable_thinking": False}),
        ("stop", ["x"]),
        ("seed", 0),
    ],
)
def test_field_of_the_same_name_or_of_a_vendor_goes_along(name: str, value: Any) -> None:
    assert asked(**{name: value})[name] == value


def test_null_is_as_good_as_nothing() -> None:
    fields = ("temperature", "tools", "tool_choice", "text", "reasoning", "include", "conversation", "top_k")
    nulls: dict[str, Any] = dict.fromkeys([*fields, "max_output_tokens", "top_logprobs", "stream_options"])
    assert asked(**nulls) == asked()


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_limit_on_tokens_goes_under_the_backends_name(name: str) -> None:
    call = asked(ChatOptions(max_tokens_field=name), max_output_tokens=9)
    assert call == {**asked(), name: 9}


def test_effort_and_verbosity() -> None:
    call = asked(reasoning={"effort": "low", "summary": "auto"}, text={"verbosity": "high"})
    assert call == {**asked(), "reasoning_effort": "low", "verbosity": "high"}


def test_effort_none_is_said() -> None:
    assert asked(reasoning={"effort": "none"})["reasoning_effort"] == "none"


# -- formats and logprobs


def test_json_schema_is_nested_with_all_its_fields() -> None:
    schema = {"name": "p", "description": "A p", "schema": {"type": "object"}, "strict": True}
    call = asked(text={"format": {"type": "json_schema", **schema}})
    assert call["response_format"] == {"type": "json_schema", "json_schema": schema}


def test_json_object_and_text() -> None:
    assert asked(text={"format": {"type": "json_object"}})["response_format"] == {"type": "json_object"}
    assert asked(text={"format": {"type": "text"}}) == asked()


def test_logprobs_by_number_or_by_include() -> None:
    assert asked(top_logprobs=2) == {**asked(), "logprobs": True, "top_logprobs": 2}
    assert asked(include=["message.output_text.logprobs"]) == {**asked(), "logprobs": True}
    assert asked(top_logprobs=0) == asked()


# -- tools


def test_function_tool_is_nested() -> None:
    function = {name: value for name, value in FUNCTION.items() if name != "type"}
    assert asked(tools=[FUNCTION])["tools"] == [{"type": "function", "function": function}]


def test_function_tool_says_only_what_it_was_given_and_keeps_fields_of_vendors() -> None:
    tool = {"type": "function", "name": "look", "strict": None, "parameters": None, "cache_control": {"x": 1}}
    expected = {"type": "function", "cache_control": {"x": 1}, "function": {"name": "look"}}
    assert asked(tools=[tool])["tools"] == [expected]


def test_custom_tool_is_a_function_of_one_text() -> None:
    tool = {"type": "custom", "name": "run", "description": "Runs", "format": {"type": "text"}}
    (made,) = asked(tools=[tool])["tools"]
    parameters = {"type": "object", "properties": {"input": {"type": "string"}}, "required": ["input"]}
    function = {"name": "run", "description": "Runs", "parameters": parameters}
    assert made == {"type": "function", "function": function}
    assert tools_of({"tools": [tool, FUNCTION]}).item_of("run") == {"type": "custom_tool_call", "name": "run"}


@pytest.mark.parametrize("choice", ["auto", "none", "required"])
def test_choice_by_word(choice: str) -> None:
    assert asked(tools=[FUNCTION], tool_choice=choice)["tool_choice"] == choice


@pytest.mark.parametrize("choice", ["auto", "none"])
def test_choice_among_no_tools_is_not_said(choice: str) -> None:
    assert asked(tools=[], tool_choice=choice) == asked()


@pytest.mark.parametrize("kind", ["function", "custom"])
def test_choice_of_one_tool_is_nested(kind: str) -> None:
    call = asked(tools=[FUNCTION], tool_choice={"type": kind, "name": "look"})
    assert call["tool_choice"] == {"type": "function", "function": {"name": "look"}}


@pytest.mark.parametrize("mode", ["auto", "required"])
def test_allowed_tools_are_the_only_ones_that_the_backend_is_told_of(mode: str) -> None:
    tools = [{"type": "function", "name": name} for name in ("look", "hear", "feel")]
    allowed = [{"type": "function", "name": "feel"}, {"type": "function", "name": "look"}]
    call = asked(tools=tools, tool_choice={"type": "allowed_tools", "mode": mode, "tools": allowed})
    assert [tool["function"]["name"] for tool in call["tools"]] == ["look", "feel"]
    assert call["tool_choice"] == mode


# -- refusals


@pytest.mark.parametrize(
    ("param", "body"),
    [
        ("conversation", {"conversation": "conv_1"}),
        ("conversation", {"conversation": {"id": "conv_1"}}),
        ("prompt", {"prompt": {"id": "p"}}),
        ("context_management", {"context_management": []}),
        ("truncation", {"truncation": "auto"}),
        ("previous_response_id", {"previous_response_id": "resp_foreign"}),
        ("messages", {"messages": []}),
        ("n", {"n": 2}),
        ("reasoning.mode", {"reasoning": {"mode": "deep"}}),
        ("text.format", {"text": {"format": {"type": "grammar"}}}),
        ("text.other", {"text": {"other": 1}}),
        ("tools.1", {"tools": [FUNCTION, {"type": "web_search"}]}),
        ("tools.0", {"tools": [{"type": "mcp", "name": "m"}]}),
        ("tools.0", {"tools": [{"name": "look"}]}),
        ("tools.0.format", {"tools": [{"type": "custom", "name": "x", "format": {"type": "grammar"}}]}),
        ("tools.0.defer_loading", {"tools": [{**FUNCTION, "defer_loading": True}]}),
        ("tool_choice", {"tools": [FUNCTION], "tool_choice": {"type": "web_search"}}),
    ],
)
def test_what_chat_cannot_say_is_refused_with_its_name(param: str, body: dict[str, Any]) -> None:
    refusal = refused(**body)
    assert (refusal.param, refusal.code) == (param, "unsupported_parameter")


@pytest.mark.parametrize(
    ("param", "body"),
    [
        ("input", {"input": 5}),
        ("instructions", {"instructions": 5}),
        ("instructions.0", {"instructions": ["x"]}),
        ("tools", {"tools": {"a": 1}}),
        ("tools.0", {"tools": ["x"]}),
        ("tools.0.name", {"tools": [{"type": "function"}]}),
        ("tool_choice", {"tool_choice": 5}),
        ("tool_choice.name", {"tool_choice": {"type": "function"}}),
        ("tool_choice.tools", {"tool_choice": {"type": "allowed_tools"}}),
        ("tool_choice.tools.0", {"tool_choice": {"type": "allowed_tools", "tools": [1]}}),
        ("text", {"text": "x"}),
        ("text.format", {"text": {"format": "x"}}),
        ("reasoning", {"reasoning": "x"}),
        ("include", {"include": "x"}),
        ("stream_options", {"stream_options": [1]}),
    ],
)
def test_malformed_field_is_refused_with_its_place(param: str, body: dict[str, Any]) -> None:
    refusal = refused(**body)
    assert (refusal.param, refusal.code) == (param, "invalid_type")


@pytest.mark.parametrize(
    ("param", "choice"),
    [
        ("tool_choice.tools.0", {"mode": "auto", "tools": [{"type": "function", "name": "other"}]}),
        ("tool_choice.mode", {"mode": "none", "tools": []}),
    ],
)
def test_allowed_tools_that_are_none_are_refused(param: str, choice: dict[str, Any]) -> None:
    refusal = refused(tools=[FUNCTION], tool_choice={"type": "allowed_tools", **choice})
    assert (refusal.param, refusal.code) == (param, "invalid_value")


def test_request_that_is_nested_without_end_is_refused() -> None:
    nested: dict[str, Any] = {}
    for _ in range(300):
        nested = {"a": nested}
    with pytest.raises(Refusal):
        asked(tools=[{**FUNCTION, "parameters": nested}])


# -- anything at all

WORDS = ["message", "function_call", "function_call_output", "custom_tool_call", "custom_tool_call_output"]
WORDS += ["reasoning", "item_reference", "input_text", "output_text", "input_image", "input_file", "refusal"]
WORDS += ["input_audio", "function", "custom", "allowed_tools", "json_schema", "grammar", "user", "assistant"]
WORDS += ["system", "developer", "c1", ""]
KEYS = ["type", "role", "content", "text", "call_id", "name", "arguments", "input", "output", "summary", "id"]
KEYS += ["image_url", "detail", "file_data", "filename", "input_audio", "data", "refusal", "tools", "mode"]
KEYS += ["format", "schema", "effort", "verbosity", "parameters", "tool_calls"]

CODES = {"unsupported_parameter", "invalid_type", "invalid_value", "missing_required_parameter"}

leaves = st.none() | st.booleans() | st.integers(-9, 9) | st.floats(allow_nan=False) | st.sampled_from(WORDS)
anything = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=5),
    max_leaves=5,
)
item = st.builds(
    lambda kind, role, rest: {"type": kind, "role": role, **rest},
    st.sampled_from(WORDS),
    st.sampled_from(WORDS),
    st.dictionaries(st.sampled_from(KEYS), anything, max_size=5),
)
FIELDS = ["tools", "tool_choice", "text", "reasoning", "include", "stream_options", "instructions", "n"]
FIELDS += ["top_logprobs", "max_output_tokens", "truncation", "temperature", "x"]


@given(
    input=anything | st.lists(anything | item, max_size=4),
    body=st.dictionaries(st.sampled_from(FIELDS), anything | item | st.lists(item, max_size=2), max_size=3),
    options=st.builds(
        ChatOptions,
        has_developer_role=st.booleans(),
        reasoning_field=st.sampled_from([None, "reasoning_content"]),
    ),
)
@settings(max_examples=400, deadline=None)
def test_any_json_gives_a_request_or_a_refusal(
    input: Any, body: dict[str, Any], options: ChatOptions
) -> None:
    tools_of(body)
    call, problem = None, None
    try:
        call = asked(options, input=input, **body)
    except Refusal as refusal:
        problem = refusal
    if call is None:
        assert problem is not None
        assert (problem.fault, problem.code in CODES) == (Fault.INVALID, True)
        return
    for message in call["messages"]:
        assert message["role"] in ("system", "developer", "user", "assistant", "tool")
        assert isinstance(message["content"], str | list)
