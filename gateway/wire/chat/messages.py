"""Input items as chat messages, in the order and the shapes that chat templates need.

A template sees one assistant turn as one message, its text and all its tool calls together, and the outputs
of those calls right after it. System messages that follow each other become one. An item that has no
counterpart is refused with its place; none is left out without a word.
"""

from __future__ import annotations

from typing import Any, TypeVar

import orjson

from gateway.wire.chat.tools import CUSTOM_TOOL_ARGUMENT
from gateway.wire.errors import Refusal, invalid

Message = dict[str, Any]

_TEXT_PARTS = frozenset({"input_text", "output_text", "text", "summary_text", "reasoning_text"})
_NAMES = {dict: "an object", list: "an array", str: "a string", bool: "a boolean"}

_T = TypeVar("_T", dict[str, Any], list[Any], str)


def expect(kind: type[_T], value: Any, param: str) -> _T:
    """The value, if it has this type. Raises: Refusal."""
    if not isinstance(value, kind):
        message = f"Invalid type for '{param}': expected {_NAMES[kind]}."
        raise invalid(message, param=param, code="invalid_type")
    return value


def unsupported(param: str, what: str) -> Refusal:
    """A refusal of what chat completions cannot say."""
    return invalid(
        f"Invalid value for '{param}': {what} not supported, since this model is served by a "
        "chat-completions backend.",
        param=param,
        code="unsupported_parameter",
    )


def messages_of(
    instructions: Any, input: Any, *, has_developer_role: bool, reasoning_field: str | None
) -> list[Message]:
    """The messages for a request's instructions and input.

    Args:
        reasoning_field: Where the reasoning of an assistant turn goes; None: it is left out, as chat
            templates do with the thoughts of earlier turns.

    Raises:
        Refusal: An item or a part is malformed or has no counterpart, with its place.
    """
    conversation = _Conversation(has_developer_role, reasoning_field)
    if isinstance(instructions, str):
        conversation.take([{"role": "system", "content": instructions}] if instructions else [], "")
    elif instructions is not None:
        conversation.take(expect(list, instructions, "instructions"), "instructions")
    if isinstance(input, str):
        conversation.take([{"role": "user", "content": input}], "")
    elif input is not None:
        conversation.take(expect(list, input, "input"), "input")
    return conversation.messages


class _Conversation:
    def __init__(self, has_developer_role: bool, reasoning_field: str | None) -> None:
        self.messages: list[Message] = []
        self._has_developer_role = has_developer_role
        self._reasoning_field = reasoning_field
        self._thoughts: list[str] = []

    def take(self, items: list[Any], param: str) -> None:
        for position, item in enumerate(items):
            place = f"{param}.{position}"
            self._item(expect(dict, item, place), place)
        self._settle_thoughts()

    def _item(self, item: Message, param: str) -> None:
        match _kind_of(item, param):
            case "message":
                self._message(item, param)
            case "function_call":
                self._call(item, expect(str, item.get("arguments") or "{}", f"{param}.arguments"), param)
            case "custom_tool_call":
                text = expect(str, item.get("input") or "", f"{param}.input")
                self._call(item, orjson.dumps({CUSTOM_TOOL_ARGUMENT: text}).decode(), param)
            case "function_call_output" | "custom_tool_call_output":
                self._call_output(item, param)
            case "reasoning":
                holder = "content" if item.get("content") else "summary"
                parts = _parts(item.get(holder) or [], f"{param}.{holder}")
                self._thoughts += [
                    _text(part, f"{param}.{holder}.{position}") for position, part in enumerate(parts)
                ]
            case kind:
                raise unsupported(f"{param}.type", f"items of type '{kind}' are")

    # -- messages

    def _message(self, item: Message, param: str) -> None:
        for name in ("tool_calls", "function_call"):
            if item.get(name):
                raise unsupported(
                    f"{param}.{name}", "calls inside a message, in place of items of their own, are"
                )
        role = item.get("role")
        if role == "developer" and not self._has_developer_role:
            role = "system"
        place = f"{param}.content"
        if role == "assistant":
            self._assistant(item.get("content"), place)
        elif role in ("user", "system", "developer"):
            self._settle_thoughts()
            self._say(role, _content(item.get("content"), place))
        else:
            raise invalid(f"Invalid value for '{param}.role'.", param=f"{param}.role")

    def _say(self, role: str, content: Any) -> None:
        last = self.messages[-1] if self.messages else None
        are_texts = last is not None and isinstance(last["content"], str) and isinstance(content, str)
        if last is not None and role == last["role"] == "system" and are_texts:
            last["content"] = f"{last['content']}\n\n{content}"
        else:
            self.messages.append({"role": role, "content": content})

    def _assistant(self, content: Any, param: str) -> None:
        texts, refusals = [], []
        if isinstance(content, str):
            texts.append(content)
        elif content is not None:
            for position, part in enumerate(_parts(content, param)):
                place = f"{param}.{position}"
                if part.get("type") == "refusal":
                    refusals.append(expect(str, part.get("refusal") or "", f"{place}.refusal"))
                else:
                    texts.append(_text(part, place))
        message = self._turn(is_new_text=True)
        message["content"] = "\n".join(filter(None, [message["content"], "".join(texts)]))
        if refusals:
            message["refusal"] = message.get("refusal", "") + "".join(refusals)

    def _turn(self, *, is_new_text: bool) -> Message:
        """The assistant message to write to: the last one, if it is the same turn.

        A text begins a new message, unless calls of the last one wait for their outputs: nothing may stand
        between those.
        """
        last = self.messages[-1] if self.messages else None
        if last is None or last["role"] != "assistant" or (is_new_text and _is_complete(last)):
            last = {"role": "assistant", "content": ""}
            self.messages.append(last)
        if self._thoughts and self._reasoning_field:
            earlier = last.get(self._reasoning_field)
            last[self._reasoning_field] = "\n".join([*filter(None, [earlier]), *self._thoughts])
        self._thoughts = []
        return last

    def _settle_thoughts(self) -> None:
        """Thoughts that nothing followed, as in a turn that was cut: a message of their own."""
        if any(self._thoughts) and self._reasoning_field:
            self._turn(is_new_text=False)
        self._thoughts = []

    # -- calls

    def _call(self, item: Message, arguments: str, param: str) -> None:
        call_id, name = (_required(item, key, param) for key in ("call_id", "name"))
        call = {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}
        self._turn(is_new_text=False).setdefault("tool_calls", []).append(call)

    def _call_output(self, item: Message, param: str) -> None:
        call_id = _required(item, "call_id", param)
        message = {
            "role": "tool",
            "tool_call_id": call_id,
            "content": _content(item.get("output"), f"{param}.output"),
        }
        self._settle_thoughts()
        self.messages.insert(self._place_of_output(call_id), message)

    def _place_of_output(self, call_id: str) -> int:
        """After the call and the outputs that follow it, even if something was said since."""
        for at in range(len(self.messages) - 1, -1, -1):
            if any(call["id"] == call_id for call in self.messages[at].get("tool_calls", ())):
                at += 1
                while at < len(self.messages) and self.messages[at]["role"] == "tool":
                    at += 1
                return at
        return len(self.messages)


def _is_complete(message: Message) -> bool:
    return not message.get("tool_calls") and bool(message["content"] or message.get("refusal"))


def _kind_of(item: Message, param: str) -> str:
    kind = item.get("type")
    if kind is not None:
        return expect(str, kind, f"{param}.type")
    # `{"id": …}` alone is a reference: its type may be left out.
    return "item_reference" if "id" in item and not {"role", "content"} & item.keys() else "message"


def _required(item: Message, name: str, param: str) -> str:
    place = f"{param}.{name}"
    if item.get(name) in (None, ""):
        message = f"Missing required parameter: '{place}'."
        raise invalid(message, param=place, code="missing_required_parameter")
    return expect(str, item[name], place)


def _parts(content: Any, param: str) -> list[Message]:
    if not isinstance(content, list):
        message = f"Invalid type for '{param}': expected a string or an array."
        raise invalid(message, param=param, code="invalid_type")
    return [expect(dict, part, f"{param}.{position}") for position, part in enumerate(content)]


def _content(content: Any, param: str) -> Any:
    """A string where there is only text (templates without images know nothing else), else parts."""
    if isinstance(content, str):
        return content
    parts = _parts(content, param)
    if all(_is_text(part) for part in parts):
        return "\n".join(_text(part, f"{param}.{position}") for position, part in enumerate(parts))
    return [_part(part, f"{param}.{position}") for position, part in enumerate(parts)]


def _is_text(part: Message) -> bool:
    return isinstance(part.get("type"), str) and part["type"] in _TEXT_PARTS


def _text(part: Message, param: str) -> str:
    if not _is_text(part):
        raise unsupported(param, "parts other than text are, in this place,")
    return expect(str, part.get("text"), f"{param}.text")


def _part(part: Message, param: str) -> Message:
    match part.get("type"):
        case kind if _is_text(part):
            return {"type": "text", "text": _text(part, param)}
        case "input_image" if part.get("image_url"):
            image: Message = {"url": expect(str, part["image_url"], f"{param}.image_url")}
            if part.get("detail"):
                image["detail"] = (
                    "high" if part["detail"] == "original" else expect(str, part["detail"], f"{param}.detail")
                )
            return {"type": "image_url", "image_url": image}
        case "input_file" if part.get("file_data") or part.get("file_id"):
            names = [name for name in ("file_data", "file_id", "filename") if part.get(name)]
            file = {name: expect(str, part[name], f"{param}.{name}") for name in names}
            return {"type": "file", "file": file}
        case "input_audio" if part.get("input_audio") or part.get("data"):
            given = part.get("input_audio") or {n: part[n] for n in ("data", "format") if n in part}
            return {"type": "input_audio", "input_audio": expect(dict, given, f"{param}.input_audio")}
        case kind:
            raise unsupported(param, f"parts of type '{kind}' without inline data are")
