"""What no backend can take is refused at once; what one of them might know is not."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.wire.errors import Fault, Refusal
from gateway.wire.requests import validate
from gateway.wire.shapes import judge

VALID: dict[str, Any] = {"model": "tiny", "input": "Hello", "background": True}
FUNCTION = {"type": "function", "name": "look", "parameters": {"type": "object"}}
ITEM = {"role": "user", "content": "Hello"}


@pytest.mark.parametrize(
    "body",
    [
        {"tools": None, "tool_choice": None, "text": None, "conversation": None},
        {"tools": [], "text": {}},
        {"text": {"format": None, "verbosity": None}},
        {"text": {"format": {"type": "json_schema", "name": "n", "schema": {}}}},
        {"text": {"format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {}}}}},
        {"tools": [FUNCTION, {"type": "function", "function": {"name": "nested"}}]},
        {
            "tools": [
                {"type": "of_another_year"},
                {"type": "web_search"},
                {"type": "mcp", "server_label": "s"},
            ]
        },
        {"tools": [{"type": "namespace", "name": "n", "tools": [FUNCTION]}]},
        {"tool_choice": "required"},
        {"tool_choice": {"type": "function", "name": "of_a_prompt"}},
        {"tool_choice": {"type": "web_search_preview_2025_03_11"}},
        {"tool_choice": {"type": "mcp", "server_label": "s"}},
        {"tool_choice": {"type": "allowed_tools", "mode": None, "tools": [{"type": "image_generation"}]}},
        {"tools": [{"type": "of_another_year"}], "tool_choice": {"type": "of_another_year"}},
        {"prompt": {"id": "p"}, "tool_choice": {"type": "of_another_year"}},
        {"input": [ITEM, {"type": "message", "role": "assistant", "content": None}]},
        {"input": [{"id": "msg_1"}, {"type": None, "id": "msg_1", "role": None}]},
        {"input": [{"type": "of_another_year", "odd": [1]}, {"type": "compaction_trigger"}]},
        {"input": [{"type": "message", "role": "of_a_vendor", "content": [{"type": "odd"}, {}]}]},
        {"input": [{"type": "additional_tools", "role": "developer", "tools": [FUNCTION]}]},
        {"input": [{"type": "tool_search_output", "call_id": "c", "tools": None}]},
        {"conversation": "conv_1"},
        {"conversation": {"id": "conv_1"}},
    ],
    ids=str,
)
def test_what_some_backend_may_know_passes(body: dict[str, Any]) -> None:
    validate({**VALID, **body}, accept_store_false=False)


MISSING, TYPE, VALUE = "missing_required_parameter", "invalid_type", "invalid_value"


@pytest.mark.parametrize(
    ("body", "param", "code"),
    [
        # a tool without a name
        ({"tools": [FUNCTION, {"type": "function"}]}, "tools.1.name", MISSING),
        ({"tools": [{"type": "function", "name": None, "parameters": {}}]}, "tools.0.name", MISSING),
        ({"tools": [{"type": "function", "name": ""}]}, "tools.0.name", VALUE),
        ({"tools": [{"type": "function", "name": 5}]}, "tools.0.name", TYPE),
        ({"tools": [{"type": "function", "function": {}}]}, "tools.0.function.name", MISSING),
        ({"tools": [{"type": "custom", "format": {"type": "text"}}]}, "tools.0.name", MISSING),
        ({"tools": [{"name": "look"}]}, "tools.0.type", MISSING),
        ({"tools": [{"type": ["function"]}]}, "tools.0.type", TYPE),
        ({"tools": [{"type": "namespace", "tools": []}]}, "tools.0.name", MISSING),
        ({"tools": [{"type": "namespace", "name": "n"}]}, "tools.0.tools", TYPE),
        (
            {"tools": [{"type": "namespace", "name": "n", "tools": [{"type": "function"}]}]},
            "tools.0.tools.0.name",
            MISSING,
        ),
        (
            {"input": [ITEM, {"type": "additional_tools", "tools": [{"type": "custom"}]}]},
            "input.1.tools.0.name",
            MISSING,
        ),
        # a choice that is none
        ({"tool_choice": "sometimes"}, "tool_choice", VALUE),
        ({"tool_choice": ""}, "tool_choice", VALUE),
        ({"tool_choice": {"type": "telepathy"}, "tools": [FUNCTION]}, "tool_choice", VALUE),
        ({"tool_choice": {}}, "tool_choice.type", MISSING),
        ({"tool_choice": {"type": 5}}, "tool_choice.type", TYPE),
        ({"tool_choice": {"type": "function"}}, "tool_choice.name", MISSING),
        ({"tool_choice": {"type": "custom", "name": []}}, "tool_choice.name", TYPE),
        ({"tool_choice": {"type": "allowed_tools"}}, "tool_choice.tools", TYPE),
        ({"tool_choice": {"type": "allowed_tools", "tools": ["look"]}}, "tool_choice.tools.0", TYPE),
        ({"tool_choice": {"type": "allowed_tools", "mode": "none", "tools": []}}, "tool_choice.mode", VALUE),
        # an item that is none
        ({"input": [ITEM, {}]}, "input.1", VALUE),
        ({"input": [{"content": "Hello"}]}, "input.0", VALUE),
        ({"input": [{"type": 5}]}, "input.0.type", TYPE),
        ({"input": [{"type": ""}]}, "input.0.type", VALUE),
        ({"input": [{"type": "message", "content": "Hello"}]}, "input.0.role", MISSING),
        ({"input": [{"role": 1, "content": "Hello"}]}, "input.0.role", TYPE),
        ({"input": [{"role": "user", "content": 5}]}, "input.0.content", TYPE),
        ({"input": [{"role": "user", "content": {"type": "input_text"}}]}, "input.0.content", TYPE),
        ({"input": [{"role": "user", "content": [{}, "Hello"]}]}, "input.0.content.1", TYPE),
        # a format that does not exist
        ({"text": {"format": {"type": "xml"}}}, "text.format.type", VALUE),
        ({"text": {"format": {"type": 5}}}, "text.format.type", TYPE),
        ({"text": {"format": {"name": "n"}}}, "text.format.type", MISSING),
        ({"text": {"format": "json_object"}}, "text.format", TYPE),
        ({"text": {"format": {"type": "json_schema", "name": "n"}}}, "text.format.schema", MISSING),
        ({"text": {"format": {"type": "json_schema", "schema": "{}"}}}, "text.format.schema", TYPE),
        ({"conversation": {"name": "conv_1"}}, "conversation.id", MISSING),
    ],
    ids=str,
)
def test_what_none_can_take_is_refused_with_its_place(body: dict[str, Any], param: str, code: str) -> None:
    request = {**VALID, **body}
    with pytest.raises(Refusal) as caught:
        validate(request, accept_store_false=False)
    assert (caught.value.fault, caught.value.param, caught.value.code) == (Fault.INVALID, param, code)
    assert f"'{param}'" in caught.value.message


def test_a_refusal_never_repeats_a_value() -> None:
    secret = "sk-secret"
    for body in (
        {"tool_choice": secret},
        {"tool_choice": {"type": secret}},
        {"text": {"format": {"type": secret}}},
        {"tools": [{"type": "function", "name": [secret]}]},
    ):
        with pytest.raises(Refusal) as caught:
            judge(body, None)
        assert secret not in caught.value.message
