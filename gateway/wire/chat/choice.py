"""Which tools a model may call, and which it must: `tool_choice` in the words of chat completions.

Those know no choice among some of the tools: the backend is told of these only. A choice that demands a tool
which is left out cannot be met, and is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway.wire.chat.message_parts import unsupported
from gateway.wire.chat.tools import Tools
from gateway.wire.errors import Refusal, invalid

Body = dict[str, Any]


def offer(tools: Tools, choice: Any) -> Body:
    """The fields of a call that say which tools there are, and which are to be called.

    Args:
        choice: As the client sent it, its form judged.

    Raises:
        Refusal: It names no tool of the request, or demands one that this backend cannot have.
    """
    functions, chosen = tools.functions, choice
    if isinstance(choice, dict):
        functions, chosen = _one_or_some(tools, choice)
    if chosen == "required" and not functions:
        raise _cannot_have(tools) if tools.omitted else _nothing_to_call()
    if not functions:  # some servers refuse any choice where there is nothing to choose from
        return {}
    offered = {"tools": list(functions.values())}
    return offered if chosen is None else {**offered, "tool_choice": chosen}


def _one_or_some(tools: Tools, choice: Body) -> tuple[Mapping[str, Body], Any]:
    match choice.get("type"):
        case "allowed_tools":
            names: set[str] = set()
            for position, tool in enumerate(choice["tools"]):
                names |= _meant(tools, tool, f"tool_choice.tools.{position}")
            return _only(tools, names), choice.get("mode") or "auto"
        case "namespace":
            return _only(tools, _meant(tools, choice, "tool_choice")), "required"
        case "function" | "custom":
            for name in _meant(tools, choice, "tool_choice"):
                return tools.functions, {"type": "function", "function": {"name": name}}
            raise _cannot_have(tools)
        case kind:
            raise unsupported("tool_choice", f"tools of type '{kind}' are")


def _only(tools: Tools, names: set[str]) -> Mapping[str, Body]:
    return {name: function for name, function in tools.functions.items() if name in names}


def _meant(tools: Tools, choice: Body, param: str) -> set[str]:
    """The functions that a choice names; none, if what it names was left out.

    Raises:
        Refusal: There is no such tool in the request.
    """
    kind, name = choice.get("type"), _name_of(choice)
    is_function = kind in ("function", "custom", None)
    if kind == "namespace":
        found = {flat for (group, _), flat in tools.names.items() if group and group == name}
    else:
        found = _named(tools, choice.get("namespace") or "", name) if is_function else set()
    if not found and not any(
        kind == tool.kind and (not is_function or name == tool.name) for tool in tools.omitted
    ):
        raise invalid(f"Invalid value for '{param}': there is no such tool in 'tools'.", param=param)
    return found


def _named(tools: Tools, namespace: Any, name: str) -> set[str]:
    if isinstance(namespace, str) and (namespace, name) in tools.names:
        return {tools.names[namespace, name]}
    if namespace:
        return set()
    if name in tools.functions:
        return {name}
    # Without its namespace a name is enough if only one tool has it.
    found = {flat for (_, own), flat in tools.names.items() if own == name}
    return found if len(found) == 1 else set()


def _name_of(choice: Body) -> str:
    inner = choice.get(str(choice.get("type")))  # as chat completions have it
    name = choice.get("name") or (inner.get("name") if isinstance(inner, dict) else None)
    return name if isinstance(name, str) else ""


def _cannot_have(tools: Tools) -> Refusal:
    kinds = ", ".join(sorted({f"'{tool.kind}'" for tool in tools.omitted}))
    return unsupported("tool_choice", f"a call is demanded, and tools of type {kinds} are")


def _nothing_to_call() -> Refusal:
    message = "Invalid value for 'tool_choice': a call is demanded, and there is no tool in 'tools'."
    return invalid(message, param="tool_choice")
