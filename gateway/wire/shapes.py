"""Requests that no backend can run, whatever its API: refused at once, naming the field.

Only what is wrong for each of them is judged here. A type of item or tool that is unknown to us may be known
to a backend, and tools may be declared as chat completions have them, since some servers take that.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from gateway.wire.errors import Refusal, invalid
from gateway.wire.tools import BUILT_IN, CALLED, HOLDERS, declared

CHOICES = ("none", "auto", "required")
FORMATS = ("text", "json_object", "json_schema")

_JSON_NAME = {
    bool: "a boolean",
    int: "an integer",
    float: "a number",
    str: "a string",
    list: "an array",
    dict: "an object",
}

_T = TypeVar("_T", dict[str, Any], list[Any], str)


def judge(request: Mapping[str, Any], input: Any) -> None:
    """Raises: Refusal, of a request that every backend would refuse, or fail at."""
    _items(input)
    judge_settings(request, input)


def judge_settings(request: Mapping[str, Any], input: Any) -> None:
    """The same of all but the items of its input, where these have been judged, or will be."""
    if isinstance(request.get("conversation"), dict):
        _word(request["conversation"], "id", "conversation")
    _tools(request.get("tools"), "tools")
    _choice(request, input)
    _format(request.get("text"))


def wrong_type(param: str, wanted: str, value: Any) -> Refusal:
    """The refusal of a value of another type. Never repeats the value: it may be long, or private."""
    got = _JSON_NAME.get(type(value), "null")
    message = f"Invalid type for '{param}': expected {wanted}, but got {got} instead."
    return invalid(message, param=param, code="invalid_type")


def _expect(kind: type[_T], value: Any, param: str) -> _T:
    if not isinstance(value, kind):
        raise wrong_type(param, _JSON_NAME[kind], value)
    return value


def _word(holder: Mapping[str, Any], key: str, param: str) -> str:
    """A text that must be there."""
    place = f"{param}.{key}"
    if holder.get(key) is None:
        message = f"Missing required parameter: '{place}'."
        raise invalid(message, param=place, code="missing_required_parameter")
    if not _expect(str, holder[key], place):
        raise invalid(f"Invalid value for '{place}': it is empty.", param=place)
    return str(holder[key])


# -- input


def _items(input: Any) -> None:
    for position, item in enumerate(input) if isinstance(input, list) else ():
        _item(_expect(dict, item, f"input.{position}"), f"input.{position}")


def _item(item: dict[str, Any], param: str) -> None:
    kind = item.get("type")
    if kind is not None:
        _word(item, "type", param)
    elif item.get("role") is None and item.get("id") is None:  # messages and references go without a type
        message = f"Invalid value for '{param}': an item has a 'type', or is a message with a 'role'."
        raise invalid(message, param=param)
    if kind == "message" or (kind is None and item.get("role") is not None):
        _word(item, "role", param)
        _content(item.get("content"), f"{param}.content")
    elif kind in HOLDERS:
        _tools(item.get("tools"), f"{param}.tools")


def _content(content: Any, param: str) -> None:
    if isinstance(content, list):
        for position, part in enumerate(content):
            _expect(dict, part, f"{param}.{position}")
    elif content is not None and not isinstance(content, str):
        raise wrong_type(param, "a string or an array", content)


# -- tools


def _tools(tools: Any, param: str, *, are_grouped: bool = False) -> None:
    if tools is None and not are_grouped:
        return
    for position, tool in enumerate(_expect(list, tools, param)):
        place = f"{param}.{position}"
        kind = _word(_expect(dict, tool, place), "type", place)
        if kind in CALLED:
            _name(tool, kind, place)
        elif kind == "namespace":
            _word(tool, "name", place)
            _tools(tool.get("tools"), f"{place}.tools", are_grouped=True)


def _name(tool: dict[str, Any], kind: str, param: str) -> None:
    inner = tool.get(kind)
    if isinstance(inner, dict) and tool.get("name") is None:
        _word(inner, "name", f"{param}.{kind}")
    else:
        _word(tool, "name", param)


def _choice(request: Mapping[str, Any], input: Any) -> None:
    choice = request.get("tool_choice")
    if choice is None:
        return
    if isinstance(choice, str):
        if choice not in CHOICES:
            raise _no_choice()
        return
    kind = _word(_expect(dict, choice, "tool_choice"), "type", "tool_choice")
    if kind in CALLED:
        _name(choice, kind, "tool_choice")
    elif kind == "allowed_tools":
        if choice.get("mode") not in (None, "auto", "required"):
            message = "Invalid value for 'tool_choice.mode'. Supported values are: 'auto' and 'required'."
            raise invalid(message, param="tool_choice.mode")
        for position, tool in enumerate(_expect(list, choice.get("tools"), "tool_choice.tools")):
            _expect(dict, tool, f"tool_choice.tools.{position}")
    elif not kind.startswith((*BUILT_IN, "namespace")) and not _is_declared(kind, request, input):
        raise _no_choice()


def _is_declared(kind: str, request: Mapping[str, Any], input: Any) -> bool:
    """True if there may be a tool of such a type, in the request or in a prompt that the backend has."""
    return bool(request.get("prompt")) or any(tool.kind == kind for tool in declared(request, input))


def _no_choice() -> Refusal:
    known = ", ".join(f"'{word}'" for word in CHOICES)
    message = (
        f"Invalid value for 'tool_choice'. Supported values are: {known}, and an object that names a tool."
    )
    return invalid(message, param="tool_choice")


# -- text


def _format(text: Any) -> None:
    given = None if text is None else _expect(dict, text, "text").get("format")
    if given is None or given == {}:
        return
    kind = _word(_expect(dict, given, "text.format"), "type", "text.format")
    if kind not in FORMATS:
        known = ", ".join(f"'{word}'" for word in FORMATS)
        message = f"Invalid value for 'text.format.type'. Supported values are: {known}."
        raise invalid(message, param="text.format.type")
    if kind == "json_schema" and not isinstance(
        given.get("json_schema"), dict
    ):  # as chat completions have it
        if given.get("schema") is None:
            message = "Missing required parameter: 'text.format.schema'."
            raise invalid(message, param="text.format.schema", code="missing_required_parameter")
        _expect(dict, given["schema"], "text.format.schema")
