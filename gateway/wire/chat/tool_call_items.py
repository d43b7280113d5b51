"""The tool calls of a chat answer, as the events of a Responses backend.

A call is announced when its name is complete: when its arguments begin, or something else does. A call that
never gets a name is none: no client could run it.
"""

from __future__ import annotations

from typing import Any

import orjson

from gateway.wire.chat.arguments import is_json
from gateway.wire.chat.items import ChatItems
from gateway.wire.chat.tool_calls import Fragment, ToolCall, ToolCalls
from gateway.wire.chat.tools import CUSTOM_TOOL_ARGUMENT, Tools
from gateway.wire.events import Event


class ToolCallItems:
    """Announces and ends the calls of one answer.

    Attributes:
        are_broken: Some call has arguments that no program can read.
        has_nameless: Some call never got a name.
    """

    def __init__(self, items: ChatItems, tools: Tools) -> None:
        self._items = items
        self._tools = tools
        self._calls = ToolCalls(lambda name: name in tools.items)
        self._open: list[ToolCall] = []
        self.are_broken = False
        self.has_nameless = False

    def has(self, it: Fragment) -> bool:
        """True if a whole call was told already."""
        return self._calls.has(it)

    def take(self, it: Fragment) -> list[Event]:
        """The events of one fragment."""
        call, is_new = self._calls.take(it)
        events: list[Event] = []
        if is_new:
            events += self._items.close() + self.announce()
            for over in [each for each in self._open if each.is_over]:
                events += self._close(over, "completed")
            self._open.append(call)
        call.unsent += call.arguments.add(it.arguments)
        if call.name and call.arguments:
            events += self._announce(call)
        return events + self._send(call)

    def announce(self) -> list[Event]:
        """The calls whose names are complete since something else begins."""
        return [event for call in self._open if call.name for event in self._announce(call)]

    def end(self, status: str) -> list[Event]:
        """The last events.

        Args:
            status: Of a call that may have been cut.
        """
        return [event for call in list(self._open) for event in self._close(call, status)]

    def _announce(self, call: ToolCall) -> list[Event]:
        if call.item_id is not None:
            return []
        item = self._tools.item_of(call.name)
        call.is_custom = item["type"] == "custom_tool_call"
        if call.id:
            item["call_id"] = call.id
        call.item_id, added = self._items.open("ctc" if call.is_custom else "fc", {**item, **call.vendor})
        return [added]

    def _send(self, call: ToolCall) -> list[Event]:
        if call.item_id is None or call.is_custom or not call.unsent:
            return []
        event = {
            "type": "response.function_call_arguments.delta",
            "item_id": call.item_id,
            "delta": call.unsent,
        }
        call.unsent = ""
        return [event]

    def _close(self, call: ToolCall, status: str) -> list[Event]:
        self._open.remove(call)
        if not call.name:
            self.has_nameless = self.has_nameless or bool(call.id or call.arguments)
            return []
        events = self._announce(call)
        text, is_cut = _final(call, status)
        if is_cut:
            self.are_broken = self.are_broken or bool(text)
            status = "incomplete"
        elif text:
            status = "completed"  # whatever was cut, it was not this call
        item: dict[str, Any] = {"id": call.item_id, "status": status, **call.vendor}
        if call.is_custom:
            item |= {"type": "custom_tool_call", "input": text}
        else:
            item |= {"type": "function_call", "arguments": text}
        return [*events, {"type": "response.output_item.done", "item": item}]


def _final(call: ToolCall, status: str) -> tuple[str, bool]:
    """The text of a call in the end, and whether it was cut."""
    text = call.arguments.final()
    is_cut = status != "completed"
    if not text.strip():
        return ("" if is_cut or call.is_custom else "{}"), is_cut
    if not call.is_custom:
        return text, not is_json(text)
    if is_json(text):
        value = orjson.loads(text)
        inner = value.get(CUSTOM_TOOL_ARGUMENT) if isinstance(value, dict) else None
        return (inner if isinstance(inner, str) else text), False
    return text, is_cut or _begins_object(text)


def _begins_object(text: str) -> bool:
    """True if a text is the beginning of the object that a custom tool was declared with. A model that was
    asked for it may have written the text alone, which is as good."""
    brace, inner = text.lstrip()[:1], text.lstrip()[1:].lstrip()
    key = f'"{CUSTOM_TOOL_ARGUMENT}"'
    return brace == "{" and bool(inner) and (inner.startswith(key) or key.startswith(inner))
