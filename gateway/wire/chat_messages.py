"""Input items as chat messages, in the order and the shapes that chat templates need.

A template sees one assistant turn as one message: its text and all its tool calls together. System messages
are only safe at the beginning, as one.
"""

from __future__ import annotations

from typing import Any

import orjson

from gateway.wire.errors import Refusal, invalid

Message = dict[str, Any]

_TEXT_PARTS = frozenset({"input_text", "output_text", "text", "summary_text", "reasoning_text"})


def messages_of(
    instructions: Any, input: Any, *, has_developer_role: bool, reasoning_field: str | None
) -> list[Message]:
    """The messages for a request's instructions and input.

    Args:
        reasoning_field: Where the reasoning of an assistant turn goes; None: it is left out, as chat
            templates do with the thoughts of earlier turns.

    Raises:
        Refusal: An item or a part has no counterpart, with its place.
    """
    conversation = _Conversation(has_developer_role, reasoning_field)
    if isinstance(instructions, str):
        conversation.say("system", instructions)
    elif instructions:
        conversation.take(instructions, "instructions")
    conversation.take(
        [{"role": "user", "content": input}] if isinstance(input, str) else input or [], "input"
    )
    return conversation.messages


class _Conversation:
    def __init__(self, has_developer_role: bool, reasoning_field: str | None) -> None:
        self.messages: list[Message] = []
        self._has_developer_role = has_developer_role
        self._reasoning_field = reasoning_field
        self._thoughts: list[str] = []

    def take(self, items: list[Any], param: str) -> None:
        for position, item in enumerate(items):
            self._item(item, f"{param}.{position}")

    def say(self, role: str, content: Any) -> None:
        last = self.messages[-1] if self.messages else None
        if role == "system" and last and last["role"] == "system" and isinstance(content, str):
            last["content"] = f"{last['content']}\n\n{content}"
            return
        self.messages.append({"role": role, "content": content})

    def _item(self, item: Message, param: str) -> None:
        match item.get("type") or "message":
            case "message":
                self._message(item, param)
            case "function_call":
                self._call(item, item.get("arguments") or "{}")
            case "custom_tool_call":
                self._call(item, orjson.dumps({"input": item.get("input") or ""}).decode())
            case "function_call_output" | "custom_tool_call_output":
                self._call_output(item, param)
            case "reasoning":
                self._thoughts += [
                    part.get("text") or "" for part in item.get("content") or item.get("summary") or []
                ]
            case kind:
                raise _unsupported(f"{param}.type", f"items of type '{kind}' are")

    def _message(self, item: Message, param: str) -> None:
        role = item.get("role")
        if role == "developer" and not self._has_developer_role:
            role = "system"
        if role == "assistant":
            self._assistant(item, param)
        elif role in ("user", "system", "developer"):
            self.say(role, _content(item.get("content"), f"{param}.content"))
        else:
            raise invalid(f"Invalid value for '{param}.role'.", param=f"{param}.role")

    def _assistant(self, item: Message, param: str) -> None:
        content = item.get("content")
        parts = [{"type": "output_text", "text": content}] if isinstance(content, str) else content or []
        message = self._assistant_message(is_new=True)
        refusals = [part.get("refusal") or "" for part in parts if part.get("type") == "refusal"]
        texts = [part for part in parts if part.get("type") != "refusal"]
        for position, part in enumerate(texts):
            if part.get("type") not in _TEXT_PARTS:
                raise _unsupported(f"{param}.content.{position}", "such parts of an assistant message are")
        message["content"] = "".join(part.get("text") or "" for part in texts)
        if refusals:
            message["refusal"] = "".join(refusals)

    def _call(self, item: Message, arguments: str) -> None:
        function = {"name": item.get("name"), "arguments": arguments}
        call = {"id": item.get("call_id"), "type": "function", "function": function}
        self._assistant_message(is_new=False).setdefault("tool_calls", []).append(call)

    def _assistant_message(self, *, is_new: bool) -> Message:
        """The assistant message to write to: the last one, if it is the same turn."""
        last = self.messages[-1] if self.messages else None
        if (
            last is None
            or last["role"] != "assistant"
            or (is_new and (last["content"] or "tool_calls" in last))
        ):
            last = {"role": "assistant", "content": ""}
            self.messages.append(last)
        if self._thoughts and self._reasoning_field:
            last[self._reasoning_field] = "\n".join(
                [*filter(None, [last.get(self._reasoning_field)]), *self._thoughts]
            )
        self._thoughts = []
        return last

    def _call_output(self, item: Message, param: str) -> None:
        output = item.get("output")
        content = output if isinstance(output, str) else _content(output, f"{param}.output")
        self.messages.append({"role": "tool", "tool_call_id": item.get("call_id"), "content": content})


def _content(content: Any, param: str) -> Any:
    """A string where there is only text (templates without images know nothing else), else parts."""
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    if all(part.get("type") in _TEXT_PARTS for part in parts):
        return "\n".join(part.get("text") or "" for part in parts)
    return [_part(part, f"{param}.{position}") for position, part in enumerate(parts)]


def _part(part: Message, param: str) -> Message:
    kind = part.get("type")
    if kind in _TEXT_PARTS:
        return {"type": "text", "text": part.get("text") or ""}
    if kind == "input_image" and isinstance(part.get("image_url"), str):
        image: Message = {"url": part["image_url"]}
        if part.get("detail"):
            image["detail"] = "high" if part["detail"] == "original" else part["detail"]
        return {"type": "image_url", "image_url": image}
    if kind == "input_file" and (part.get("file_data") or part.get("file_id")):
        fields = ("file_data", "file_id", "filename")
        return {"type": "file", "file": {name: part[name] for name in fields if part.get(name)}}
    if kind == "input_audio":
        audio = part.get("input_audio") or {name: part[name] for name in ("data", "format") if name in part}
        return {"type": "input_audio", "input_audio": audio}
    raise _unsupported(param, f"parts of type '{kind}' without inline data are")


def _unsupported(param: str, what: str) -> Refusal:
    return invalid(
        f"Invalid value for '{param}': {what} not supported by a chat-completions backend.",
        param=param,
        code="unsupported_parameter",
    )
