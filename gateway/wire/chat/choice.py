"""Which tools a model may call, and which it must: `tool_choice` in the words of chat completions.

Those know no choice among some of the tools: the backend is told of these only. A choice that demands a tool
which is left out cannot be met, and is refused.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping
from typing import Any

from gateway.wire.chat.message_parts import unsupported
from gateway.wire.chat.tools import TOOLS_MAX, Tools, too_many_tools
from gateway.wire.errors import Refusal, invalid
from gateway.wire.tools import CALLED, in_header, name_of

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
    names = _Names(tools)
    match choice.get("type"):
        case "allowed_tools":
            if len(choice["tools"]) > TOOLS_MAX:
                raise too_many_tools("tool_choice.tools")
            allowed: set[str] = set()
            for position, tool in enumerate(choice["tools"]):
                allowed |= names.meant(tool, f"tool_choice.tools.{position}")
            return _only(tools, allowed), choice.get("mode") or "auto"
        case "namespace":
            return _only(tools, names.meant(choice, "tool_choice")), "required"
        case "function" | "custom":
            for name in names.meant(choice, "tool_choice"):
                return tools.functions, {"type": "function", "function": {"name": name}}
            raise _cannot_have(tools)
        case kind:
            raise unsupported("tool_choice", f"tools of type '{kind}' are")


def _only(tools: Tools, names: Collection[str]) -> Mapping[str, Body]:
    return {name: function for name, function in tools.functions.items() if name in names}


class _Names:
    """Names by which the tools of a choice may be called."""

    def __init__(self, tools: Tools) -> None:
        self._tools = tools
        self._in_group: dict[str, set[str]] = defaultdict(set)
        self._by_own: dict[str, set[str]] = defaultdict(set)
        for (group, own), flat in tools.names.items():
            self._in_group[group].add(flat)
            self._by_own[own].add(flat)
        self._omitted = {(tool.kind, tool.name if tool.kind in CALLED else "") for tool in tools.omitted}

    def meant(self, choice: Body, param: str) -> set[str]:
        """The functions that a choice names; none, if what it names was omitted.

        Raises:
            Refusal: There is no such tool in the request.
        """
        kind, name = str(choice.get("type") or "function"), name_of(choice)
        if kind == "namespace":
            found = self._in_group.get(name, set()) if name else set()
        else:
            found = self._named(choice.get("namespace") or "", name) if kind in CALLED else set()
        if not found and (kind, name if kind in CALLED else "") not in self._omitted:
            raise invalid(f"Invalid value for '{param}': there is no such tool in 'tools'.", param=param)
        return found

    def _named(self, namespace: Any, name: str) -> set[str]:
        flat = self._tools.names.get((namespace, name)) if isinstance(namespace, str) else None
        if flat is not None or namespace:
            return {flat} if flat is not None else set()
        if name in self._tools.functions:
            return {name}
        # Without its namespace a name is enough if only one tool has it.
        found = self._by_own.get(name, set())
        return found if len(found) == 1 else set()


def _cannot_have(tools: Tools) -> Refusal:
    kinds = in_header(tools.omitted)
    return unsupported("tool_choice", f"a call is demanded, and what there is to call ({kinds}) is")


def _nothing_to_call() -> Refusal:
    message = "Invalid value for 'tool_choice': a call is demanded, and there is no tool in 'tools'."
    return invalid(message, param="tool_choice")
