"""What a chat backend is asked for, row by row; and what is refused, with the field's name."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.wire.chat.request import ChatOptions, chat_body
from gateway.wire.chat.tools import TOOLS_MAX, tools_of
from gateway.wire.chat.ways import System, ThoughtReplay, Ways
from gateway.wire.errors import Fault, Refusal
from gateway.wire.query_strings import INCLUDE
from gateway.wire.requests import validate

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


def refused(options: ChatOptions = PLAIN, *, input: Any = "Hello", **body: Any) -> Refusal:
    with pytest.raises(Refusal) as caught:
        asked(options, input=input, **body)
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
        ("user", "u"),
        ("metadata", {"a": "b"}),
        ("service_tier", "flex"),
        ("prompt_cache_key", "k"),
        ("prompt_cache_retention", "24h"),
        ("prompt_cache_options", {"mode": "implicit"}),
        ("safety_identifier", "s"),
        ("top_k", 3),
        ("chat_template_kwargs", {"enable_thinking": False}),
        ("stop", ["x"]),
        ("seed", 0),
    ],
)
def test_field_of_the_same_name_or_of_a_vendor_goes_along(name: str, value: Any) -> None:
    assert asked(**{name: value})[name] == value


ADVICE: dict[str, list[Any]] = {
    "truncation": ["auto", "disabled"],
    "include": [
        ["reasoning.encrypted_content"],
        ["web_search_call.results", "file_search_call.results", "message.input_image.image_url"],
        sorted(INCLUDE - {"message.output_text.logprobs"}),
    ],
    "reasoning": [
        {"summary": "auto"},
        {"summary": None, "generate_summary": "concise"},
        {"context": "all_turns", "mode": "pro"},
        {"invented": {"by": "a client"}},
    ],
    "context_management": [[], [{"type": "compaction", "compact_threshold": 9000}]],
    "max_tool_calls": [1, 25],
    "background_options": [{"completion_window": "2h"}],
    "access_programs": [{"cyber": "standard"}],
    "image": [{"context_compression": "auto"}],
    "client_metadata": [{"session": "s-1", "installation": "i-1"}],
    "stream_options": [{"include_obfuscation": False}],
    "store": [True, False],
}
"""What only permits or advises, and has no field in chat completions."""


@pytest.mark.parametrize(("name", "value"), [(name, value) for name in ADVICE for value in ADVICE[name]])
def test_advice_that_chat_cannot_take_is_left_out(name: str, value: Any) -> None:
    assert asked(**{name: value}) == asked()


KNOWN: dict[str, st.SearchStrategy[Any]] = {
    "prompt_cache_key": st.text(max_size=9),
    "prompt_cache_retention": st.sampled_from(["in_memory", "24h"]),
    "safety_identifier": st.text(max_size=9),
    "user": st.text(max_size=9),
    "service_tier": st.sampled_from(["auto", "default", "flex", "priority", "of-a-vendor"]),
    "metadata": st.dictionaries(st.text(max_size=3), st.text(max_size=3), max_size=2),
    "parallel_tool_calls": st.booleans(),
}
"""Advice that chat completions know as well."""


@given(
    advice=st.fixed_dictionaries(
        {},
        optional={name: st.none() | st.sampled_from(values) for name, values in ADVICE.items()}
        | {name: st.none() | values for name, values in KNOWN.items()}
        | {
            "text": st.fixed_dictionaries(
                {}, optional={"verbosity": st.sampled_from([None, "low", "high"]), "format": st.none()}
            )
        },
    ),
    has_tools=st.booleans(),
)
@settings(max_examples=300, deadline=None)
def test_any_advice_is_accepted_and_goes_on_only_under_names_that_chat_knows(
    advice: dict[str, Any], has_tools: bool
) -> None:
    body = {"model": "tiny", "input": "Hello", "background": True, **advice}
    body |= {"tools": [FUNCTION, {"type": "web_search"}], "tool_choice": "auto"} if has_tools else {}
    validate(body, accept_store_false=True)
    call = asked(**{name: value for name, value in body.items() if name not in ("model", "input")})
    said = {"model", "messages", "stream", "stream_options", "verbosity"} | KNOWN.keys()
    assert call.keys() <= said | ({"tools", "tool_choice"} if has_tools else set())
    for name in KNOWN.keys() - {"parallel_tool_calls"}:
        assert call.get(name) == advice.get(name), name
    assert None not in call.values()


def test_null_is_as_good_as_nothing() -> None:
    fields = ("temperature", "tools", "tool_choice", "text", "reasoning", "include", "conversation", "top_k")
    nulls: dict[str, Any] = dict.fromkeys([*fields, "max_output_tokens", "top_logprobs", "stream_options"])
    assert asked(**nulls) == asked()


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_limit_on_tokens_goes_under_the_backends_name(name: str) -> None:
    call = asked(ChatOptions(max_tokens_field=name), max_output_tokens=9)
    assert call == {**asked(), name: 9}


def test_whether_calls_may_be_parallel_is_said_where_there_is_something_to_call() -> None:
    assert asked(tools=[FUNCTION], parallel_tool_calls=False)["parallel_tool_calls"] is False
    assert asked(parallel_tool_calls=False) == asked()
    assert asked(tools=[{"type": "web_search"}], parallel_tool_calls=True) == asked()


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


def test_json_schema_may_be_given_as_chat_completions_have_it() -> None:
    nested = {"name": "p", "schema": {"type": "object"}}
    call = asked(text={"format": {"type": "json_schema", "json_schema": nested}})
    assert call["response_format"] == {"type": "json_schema", "json_schema": nested}


def test_json_object_and_text() -> None:
    assert asked(text={"format": {"type": "json_object"}})["response_format"] == {"type": "json_object"}
    for nothing in ({"type": "text"}, {}, None):
        assert asked(text={"format": nothing}) == asked()


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


GRAMMARS = [
    ({"type": "grammar", "syntax": "lark", "definition": 'start: "add " /[0-9]+/'}, "Lark grammar"),
    ({"type": "grammar", "syntax": "regex", "definition": "[a-f0-9]{8}"}, "regular expression"),
]


@pytest.mark.parametrize(("form", "words"), GRAMMARS)
@pytest.mark.parametrize("is_nested", [False, True])
def test_a_grammar_is_told_to_the_model(form: dict[str, str], words: str, is_nested: bool) -> None:
    given = (
        {"type": "grammar", "grammar": {k: form[k] for k in ("syntax", "definition")}} if is_nested else form
    )
    (made,) = asked(tools=[{"type": "custom", "name": "calc", "description": "Adds", "format": given}])[
        "tools"
    ]
    assert made["function"]["description"].startswith("Adds\n\n")
    assert words in made["function"]["description"]
    assert form["definition"] in made["function"]["description"]
    assert made["function"]["parameters"]["required"] == ["input"]
    assert made.keys() == {"type", "function"}


def test_tools_declared_as_chat_completions_have_them_are_taken_as_they_are() -> None:
    function = {"name": "look", "description": "Looks", "parameters": {"type": "object"}, "strict": True}
    assert asked(tools=[{"type": "function", "function": function}]) == asked(tools=[FUNCTION])
    call = asked(tools=[FUNCTION], tool_choice={"type": "function", "function": {"name": "look"}})
    assert call["tool_choice"] == {"type": "function", "function": {"name": "look"}}


def test_what_the_responses_api_alone_says_of_a_tool_is_left_out() -> None:
    more = {"defer_loading": True, "allowed_callers": ["direct", "programmatic"], "output_schema": {}}
    assert asked(tools=[{**FUNCTION, **more, "async": True}]) == asked(tools=[FUNCTION])


GROUP = {
    "type": "namespace",
    "name": "fleet_v1",
    "description": "Ships at sea.",
    "tools": [
        {"type": "function", "name": "launch", "description": "Launches", "parameters": {"type": "object"}},
        {"type": "custom", "name": "signal", "description": "Signals"},
    ],
}


def test_tools_of_a_namespace_become_functions_with_its_name_before_theirs() -> None:
    launch, signal = (tool["function"] for tool in asked(tools=[GROUP])["tools"])
    assert launch == {
        "name": "fleet_v1__launch",
        "description": "Launches\n\nAbout all tools of fleet_v1: Ships at sea.",
        "parameters": {"type": "object"},
    }
    assert (signal["name"], signal["description"]) == ("fleet_v1__signal", "Signals")
    tools = tools_of({"tools": [GROUP]})
    assert tools.item_of("fleet_v1__launch") == {
        "type": "function_call",
        "name": "launch",
        "namespace": "fleet_v1",
    }
    assert tools.item_of("fleet_v1__signal")["type"] == "custom_tool_call"


def test_an_item_may_bring_the_tools() -> None:
    items = [
        {"type": "additional_tools", "role": "developer", "tools": [GROUP, FUNCTION]},
        {"role": "user", "content": "Hello"},
    ]
    call = asked(input=items)
    assert call["messages"] == asked()["messages"]
    names = [tool["function"]["name"] for tool in call["tools"]]
    assert names == ["fleet_v1__launch", "fleet_v1__signal", "look"]
    assert tools_of({}, items).item_of("fleet_v1__launch")["namespace"] == "fleet_v1"


def test_a_tool_that_an_item_brings_anew_is_declared_once() -> None:
    newer = {**FUNCTION, "description": "Looks closer"}
    (tool,) = asked(input=[{"type": "additional_tools", "tools": [newer]}], tools=[FUNCTION])["tools"]
    assert tool["function"]["description"] == "Looks closer"


def test_a_refusal_names_the_place_of_an_item_after_one_that_brings_tools() -> None:
    items = [{"type": "additional_tools", "tools": []}, {"type": "message", "role": "robot", "content": ""}]
    assert refused(input=items).param == "input.1.role"


BUILT_IN = [
    {"type": "web_search", "external_web_access": False},
    {"type": "web_search_preview_2025_03_11"},
    {"type": "file_search", "vector_store_ids": ["vs_1"]},
    {"type": "code_interpreter", "container": {"type": "auto"}},
    {"type": "computer_use_preview", "display_width": 800},
    {"type": "image_generation"},
    {"type": "mcp", "server_label": "deep", "server_url": "https://mcp.example/"},
    {"type": "local_shell"},
    {"type": "shell"},
    {"type": "apply_patch"},
    {"type": "tool_search", "execution": "client"},
    {"type": "of_another_year", "name": "look"},
    {**FUNCTION, "name": "counted", "allowed_callers": ["programmatic"]},
]


@pytest.mark.parametrize("tool", BUILT_IN, ids=lambda tool: tool["type"])
def test_a_tool_that_no_function_can_stand_for_is_omitted(tool: dict[str, Any]) -> None:
    assert asked(tools=[tool, FUNCTION], tool_choice="auto") == asked(tools=[FUNCTION], tool_choice="auto")
    assert asked(tools=[tool], tool_choice="auto") == asked()
    tools = tools_of({"tools": [tool, FUNCTION]})
    assert [omitted.param for omitted in tools.omitted] == ["tools.0"]
    assert tools.shown == (FUNCTION,)
    assert tools.headers() == {"x-backburner-omitted-tools": tool["type"]}


@pytest.mark.parametrize("tool", BUILT_IN, ids=lambda tool: tool["type"])
def test_it_is_refused_where_the_settings_say_so(tool: dict[str, Any]) -> None:
    strict = ChatOptions(refuses_tools=True)
    assert asked(strict, tools=[FUNCTION]) == asked(tools=[FUNCTION])
    for param, body in (
        ("tools.1", {"tools": [FUNCTION, tool]}),
        ("input.0.tools.0", {"input": [{"type": "additional_tools", "tools": [tool]}]}),
    ):
        refusal = refused(strict, **body)
        assert (refusal.param, refusal.code) == (param, "unsupported_parameter")
        assert "unsupported_tools" in refusal.message


def test_there_is_an_end_to_the_tools_that_are_made_functions_of() -> None:
    many = [{"type": "function", "name": f"f{number}"} for number in range(TOOLS_MAX)]
    assert len(asked(tools=many)["tools"]) == TOOLS_MAX
    for param, body in (
        ("tools", {"tools": [*many, FUNCTION]}),
        ("tools", {"tools": many, "input": [{"type": "additional_tools", "tools": [FUNCTION]}]}),
        (
            "tool_choice.tools",
            {"tools": [FUNCTION], "tool_choice": {"type": "allowed_tools", "tools": [*many, FUNCTION]}},
        ),
    ):
        refusal = refused(**body)
        assert (refusal.param, refusal.code) == (param, "array_above_max_length")


def test_a_namespace_is_shown_without_what_was_omitted_of_it() -> None:
    mixed = {**GROUP, "tools": [*GROUP["tools"], {"type": "mcp"}]}
    empty = {**GROUP, "name": "empty", "tools": [{"type": "mcp"}]}
    tools = tools_of({"tools": [mixed, empty, FUNCTION]})
    assert tools.shown == (GROUP, FUNCTION)
    assert [tool.param for tool in tools.omitted] == ["tools.0.tools.2", "tools.1.tools.0"]


def test_a_header_has_room_for_types_of_tools_only() -> None:
    odd = [{"type": "evil\r\nset-cookie: a"}, {"type": "x" * 65}, {"type": "mcp"}, {"type": "mcp"}]
    assert tools_of({"tools": odd}).headers() == {"x-backburner-omitted-tools": "other, mcp"}
    many = [{"type": f"kind_{number}"} for number in range(1000)]
    assert len(tools_of({"tools": many}).headers()["x-backburner-omitted-tools"]) < 200


# -- choice among tools


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


@pytest.mark.parametrize(
    "choice",
    [
        {"type": "function", "name": "launch", "namespace": "fleet_v1"},
        {"type": "function", "name": "launch"},
        {"type": "function", "name": "fleet_v1__launch"},
    ],
)
def test_choice_of_a_tool_in_a_namespace(choice: dict[str, Any]) -> None:
    call = asked(tools=[GROUP, FUNCTION], tool_choice=choice)
    assert call["tool_choice"] == {"type": "function", "function": {"name": "fleet_v1__launch"}}
    assert len(call["tools"]) == 3


def test_choice_of_a_namespace_is_a_choice_among_its_tools() -> None:
    call = asked(tools=[GROUP, FUNCTION], tool_choice={"type": "namespace", "name": "fleet_v1"})
    names = [tool["function"]["name"] for tool in call["tools"]]
    assert (names, call["tool_choice"]) == (["fleet_v1__launch", "fleet_v1__signal"], "required")


@pytest.mark.parametrize("mode", ["auto", "required"])
def test_allowed_tools_are_the_only_ones_that_the_backend_is_told_of(mode: str) -> None:
    tools = [{"type": "function", "name": name} for name in ("look", "hear", "feel")]
    allowed = [{"type": "function", "name": "feel"}, {"type": "function", "name": "look"}]
    call = asked(tools=tools, tool_choice={"type": "allowed_tools", "mode": mode, "tools": allowed})
    assert [tool["function"]["name"] for tool in call["tools"]] == ["look", "feel"]
    assert call["tool_choice"] == mode


def test_allowed_tools_that_are_omitted_leave_the_others() -> None:
    tools = [FUNCTION, GROUP, {"type": "mcp", "server_label": "deep"}, {"type": "image_generation"}]
    allowed = [
        {"type": "image_generation"},
        {"type": "mcp", "server_label": "deep", "name": "search"},
        {"type": "namespace", "name": "fleet_v1"},
    ]
    call = asked(tools=tools, tool_choice={"type": "allowed_tools", "mode": "required", "tools": allowed})
    names = [tool["function"]["name"] for tool in call["tools"]]
    assert (names, call["tool_choice"]) == (["fleet_v1__launch", "fleet_v1__signal"], "required")
    only = {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "image_generation"}]}
    assert asked(tools=tools, tool_choice=only) == asked()


@pytest.mark.parametrize(
    ("tools", "choice"),
    [
        ([FUNCTION, {"type": "web_search"}], {"type": "web_search"}),
        ([FUNCTION, {"type": "web_search_preview"}], {"type": "web_search_preview"}),
        ([FUNCTION, {"type": "mcp", "server_label": "deep"}], {"type": "mcp", "server_label": "deep"}),
        ([FUNCTION, {"type": "of_another_year"}], {"type": "of_another_year"}),
        ([FUNCTION], {"type": "code_interpreter"}),
        ([{"type": "web_search"}], "required"),
        (
            [FUNCTION, {"type": "web_search"}],
            {"type": "allowed_tools", "mode": "required", "tools": [{"type": "web_search"}]},
        ),
        (
            [{**FUNCTION, "allowed_callers": ["programmatic"]}],
            {"type": "function", "name": "look"},
        ),
    ],
    ids=str,
)
def test_a_choice_that_demands_an_omitted_tool_is_refused(tools: list[Any], choice: Any) -> None:
    refusal = refused(tools=tools, tool_choice=choice)
    assert (refusal.param, refusal.code) == ("tool_choice", "unsupported_parameter")


@pytest.mark.parametrize(
    ("param", "choice"),
    [
        ("tool_choice", {"type": "function", "name": "other"}),
        ("tool_choice", {"type": "function", "name": "look", "namespace": "fleet_v1"}),
        ("tool_choice", {"type": "namespace", "name": "other"}),
        (
            "tool_choice.tools.0",
            {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "mcp", "server_label": "x"}]},
        ),
        (
            "tool_choice.tools.1",
            {"type": "allowed_tools", "tools": [{"name": "look"}, {"type": "custom", "name": "x"}]},
        ),
    ],
    ids=str,
)
def test_a_choice_of_a_tool_that_is_not_there_is_refused(param: str, choice: Any) -> None:
    refusal = refused(tools=[FUNCTION, GROUP], tool_choice=choice)
    assert (refusal.param, refusal.code) == (param, "invalid_value")


def test_a_call_cannot_be_demanded_where_there_is_nothing_to_call() -> None:
    assert refused(tool_choice="required").param == "tool_choice"
    assert refused(tools=[], tool_choice={"type": "function", "name": "look"}).param == "tool_choice"


# -- refusals


@pytest.mark.parametrize(
    ("param", "body"),
    [
        ("conversation", {"conversation": "conv_1"}),
        ("conversation", {"conversation": {"id": "conv_1"}}),
        ("prompt", {"prompt": {"id": "p"}}),
        ("previous_response_id", {"previous_response_id": "resp_foreign"}),
        ("messages", {"messages": []}),
        ("n", {"n": 2}),
        ("text.other", {"text": {"other": 1}}),
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
        ("text", {"text": "x"}),
        ("reasoning", {"reasoning": "x"}),
        ("include", {"include": "x"}),
        ("stream_options", {"stream_options": [1]}),
        ("tools.0", {"tools": ["x"]}),
    ],
)
def test_malformed_field_is_refused_with_its_place(param: str, body: dict[str, Any]) -> None:
    refusal = refused(**body)
    assert (refusal.param, refusal.code) == (param, "invalid_type")


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
WORDS += ["namespace", "additional_tools", "tool_search_output", "web_search", "mcp", "required", "direct"]
KEYS += ["namespace", "function", "custom", "allowed_callers", "syntax", "definition", "description"]

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
        refuses_tools=st.booleans(),
        ways=st.builds(
            Ways,
            has_developer_role=st.booleans(),
            system=st.sampled_from(System),
            alternates=st.booleans(),
            refuses_empty=st.booleans(),
            thoughts=st.sampled_from(ThoughtReplay),
            reasoning_field=st.sampled_from([None, "reasoning_content", "content"]),
            needs_signatures=st.booleans(),
            refused=st.sampled_from([frozenset(), frozenset({"name", "extra_content"})]),
        ),
    ),
)
@settings(max_examples=400, deadline=None)
def test_any_json_gives_a_request_or_a_refusal(
    input: Any, body: dict[str, Any], options: ChatOptions
) -> None:
    tools_of(body, input)
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
        assert isinstance(message["content"], str | list) or message.get("tool_calls")
