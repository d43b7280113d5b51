"""Tools under the names that a chat backend knows them by, and back.

Chat completions have functions only. A custom tool goes there as a function with one string; what a backend
calls comes back as the kind of call that the client declared.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from gateway.wire.chat.fields import objects_of

CUSTOM_TOOL_ARGUMENT = "input"
"""A custom tool takes one text; as a function it takes an object with this one string."""


@dataclass(frozen=True, slots=True)
class Tools:
    """The tools of one request.

    Attributes:
        items: For each name that the backend was given, the fields of the item that a call of it becomes:
            `type` and `name`, and whatever else tells the client which of its tools is meant.
    """

    items: Mapping[str, dict[str, Any]] = field(default_factory=dict)

    def item_of(self, name: str) -> dict[str, Any]:
        """The fields of a call of this function; of a name that was not declared, a function call."""
        return dict(self.items.get(name) or {"type": "function_call", "name": name})

    def flat_of(self, item: dict[str, Any]) -> str:
        """The function's name for the call that an earlier item is."""
        return str(item["name"])


def tools_of(request: dict[str, Any]) -> Tools:
    """The tools of a Responses request."""
    items = {}
    for tool in objects_of(request.get("tools")):
        if tool.get("type") == "custom":
            name = str(tool.get("name"))
            items[name] = {"type": "custom_tool_call", "name": name}
    return Tools(items)
