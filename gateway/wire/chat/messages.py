"""Input items as chat messages, in the order and the shapes that chat templates need.

A template sees one assistant turn as one message, its text and all its tool calls together, and the outputs
of those calls right after it. System messages that follow each other become one. What another backend ran
itself is told in words; an item that has no counterpart at all is refused with its place.
"""

from __future__ import annotations

from typing import Any

import orjson

from gateway.wire.chat.fields import THOUGHT_FIELDS, VENDOR_FIELDS
from gateway.wire.chat.message_parts import (
    Content,
    content_of,
    expect,
    joined,
    parts_of,
    required,
    spoken,
    thoughts_of,
    unsupported,
)
from gateway.wire.chat.order import ordered
from gateway.wire.chat.spoken import Message, Spoken, Thought
from gateway.wire.chat.tools import CUSTOM_TOOL_ARGUMENT, Tools
from gateway.wire.chat.ways import Ways
from gateway.wire.conversation.portable_items import HOSTED, portable
from gateway.wire.errors import invalid

__all__ = ["expect", "messages_of", "unsupported"]

_ROLES = {
    "user": "user",
    "system": "system",
    "developer": "developer",
    "critic": "user",  # these three are in the API's list, and in no chat template
    "discriminator": "user",
    "unknown": "user",
}


def messages_of(
    instructions: Any, input: Any, *, tools: Tools | None = None, ways: Ways | None = None
) -> list[Message]:
    """The messages for a request's instructions and input.

    Args:
        tools: Those of the request, for the names of their functions.
        ways: How the backend wants them.

    Raises:
        Refusal: An item or a part is malformed or has no counterpart, with its place.
    """
    ways = ways or Ways()
    conversation = _Conversation(tools or Tools(), ways)
    if isinstance(instructions, str):
        conversation.take([{"role": "system", "content": instructions}] if instructions else [], "")
    elif instructions is not None:
        conversation.take(expect(list, instructions, "instructions"), "instructions")
    if isinstance(input, str):
        conversation.take([{"role": "user", "content": input}], "")
    elif input is not None:
        conversation.take(expect(list, input, "input"), "input")
    return ordered(conversation.messages(), ways)


class _Conversation:
    def __init__(self, tools: Tools, ways: Ways) -> None:
        self._tools = tools
        self._ways = ways
        self._spoken: list[Spoken] = []
        self._thoughts: list[Thought] = []

    def messages(self) -> list[Message]:
        users = [at for at, one in enumerate(self._spoken) if one.role == "user"]
        for one in self._spoken[users[-1] + 1 if users else 0 :]:
            one.is_open_turn = True
        return [message for one in self._spoken for message in one.messages(self._ways)]

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
                data = {name: item[name] for name in THOUGHT_FIELDS if isinstance(item.get(name), list)}
                thought = Thought("\n".join(thoughts_of(item)), data)
                self._thoughts += [thought] if thought.text or data else []
            case kind if kind in HOSTED:
                for plain in portable(item):
                    self._item(plain, param)
            case kind:
                raise unsupported(f"{param}.type", f"items of type '{kind}' are")

    # -- messages

    def _message(self, item: Message, param: str) -> None:
        for name in ("tool_calls", "function_call"):
            if item.get(name):
                raise unsupported(
                    f"{param}.{name}", "calls inside a message, in place of items of their own, are"
                )
        place = f"{param}.content"
        fields = _vendor_data(item)
        if isinstance(item.get("name"), str) and item["name"]:
            fields["name"] = item["name"]
        if item.get("role") == "assistant":
            self._assistant(item.get("content"), fields, place)
            return
        role = _ROLES.get(str(item.get("role")))
        if role is None:
            raise invalid(f"Invalid value for '{param}.role'.", param=f"{param}.role")
        if role == "developer" and not self._ways.has_developer_role:
            role = "system"
        self._settle_thoughts()
        self._say(role, content_of(item.get("content"), place), fields)

    def _say(self, role: str, content: Content, fields: Message) -> None:
        last = self._spoken[-1] if self._spoken else None
        if last is not None and role == last.role == "system" and fields == last.fields:
            last.content = joined(last.content, content)
        else:
            self._spoken.append(Spoken(role, content, fields))

    def _assistant(self, content: Any, fields: Message, param: str) -> None:
        texts, refusals = [], []
        if isinstance(content, str):
            texts.append(content)
        elif content is not None:
            for position, part in enumerate(parts_of(content, param)):
                place = f"{param}.{position}"
                if part.get("type") == "refusal":
                    refusals.append(expect(str, part.get("refusal") or "", f"{place}.refusal"))
                else:
                    texts.append(spoken(part, place))
        turn = self._turn(is_new_text=True)
        turn.say("".join(texts))
        turn.fields |= fields
        if refusals:
            turn.fields["refusal"] = turn.fields.get("refusal", "") + "".join(refusals)

    def _turn(self, *, is_new_text: bool) -> Spoken:
        """The assistant's turn to write to: the last one, if it is the same.

        A text begins a new message, unless calls of the last one wait for their outputs: nothing may stand
        between those. With the outputs a turn is over.
        """
        last = self._spoken[-1] if self._spoken else None
        if last is None or last.role != "assistant" or last.outputs or (is_new_text and last.is_whole):
            last = Spoken("assistant")
            self._spoken.append(last)
        last.thoughts += self._thoughts
        self._thoughts = []
        return last

    def _settle_thoughts(self) -> None:
        """Thoughts that nothing followed, as in a turn that was cut: a message of their own."""
        if self._thoughts:
            self._turn(is_new_text=False)

    # -- calls

    def _call(self, item: Message, arguments: str, param: str) -> None:
        call_id = required(item, "call_id", param)
        required(item, "name", param)
        function = {"name": self._tools.flat_of(item), "arguments": arguments}
        call: Message = {"id": call_id, "type": "function", "function": function}
        self._turn(is_new_text=False).calls.append(call | _vendor_data(item))

    def _call_output(self, item: Message, param: str) -> None:
        """An output goes to its call. Of several the last one stands: who says it again knows more by now."""
        call_id = required(item, "call_id", param)
        output = content_of(item.get("output"), f"{param}.output")
        at = self._place_of_call(call_id)
        if at is None:
            self._settle_thoughts()
            # OpenAI, DeepSeek and Mistral refuse an output without its call; said by the user it is not lost.
            self._spoken.append(
                Spoken("user", joined(f"Output of an earlier tool call ({call_id}):", output))
            )
            return
        caller = self._spoken[at]
        is_first = call_id not in caller.outputs
        caller.outputs[call_id] = output
        caller.thoughts += self._thoughts
        self._thoughts = []
        if is_first and not any(later.role == "assistant" for later in self._spoken[at:][1:]):
            # What was said while the tool ran was said before the model goes on: the output is the last word.
            self._spoken.append(self._spoken.pop(at))

    def _place_of_call(self, call_id: str) -> int | None:
        places = range(len(self._spoken) - 1, -1, -1)
        return next((at for at in places if self._spoken[at].has_call(call_id)), None)


def _vendor_data(item: Message) -> Message:
    return {name: item[name] for name in VENDOR_FIELDS if item.get(name)}


def _kind_of(item: Message, param: str) -> str:
    kind = item.get("type")
    if kind is not None:
        return expect(str, kind, f"{param}.type")
    # `{"id": …}` alone is a reference: its type may be left out.
    return "item_reference" if "id" in item and not {"role", "content"} & item.keys() else "message"
