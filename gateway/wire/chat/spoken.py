"""One party's words, and the chat messages that they become.

An assistant's turn is its text, its thoughts and all its calls together, with the outputs of those calls
directly after it: so chat templates want it, and strict servers refuse anything else.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from gateway.wire.chat.fields import THOUGHT_FIELDS
from gateway.wire.chat.message_parts import Content, Part, joined, split
from gateway.wire.chat.ways import ThoughtReplay, Ways

Message = dict[str, Any]

NO_OUTPUT = "(No output of this call is known.)"
"""OpenAI, DeepSeek, Qwen and Mistral refuse a call that nothing answers: «must be followed by tool messages
responding to each tool_call_id»."""

BLANK_THOUGHT = " "
"""DeepSeek and Kimi look whether there is a thought, not what it is. Proxies take an empty one for none."""

NO_SIGNATURE = {"google": {"thought_signature": "skip_thought_signature_validator"}}
"""Gemini's own word for a call that another model made, or whose signature was lost."""


@dataclass(frozen=True, slots=True)
class Thought:
    """What one reasoning item holds.

    Attributes:
        text: Its words; empty if there are none to read.
        data: What its maker put beside them, or has in place of them, under the maker's own names.
    """

    text: str
    data: dict[str, list[Any]]


@dataclass(slots=True)
class Spoken:
    """A message that is being put together.

    Attributes:
        fields: Others of the message: `name`, `refusal`, a vendor's own.
        calls, outputs: Of an assistant's message; outputs by the id of their call.
        is_open_turn: It belongs to the turn that is under way: no user has spoken since.
    """

    role: str
    content: Content = ""
    fields: Message = field(default_factory=dict)
    thoughts: list[Thought] = field(default_factory=list)
    calls: list[Message] = field(default_factory=list)
    outputs: dict[str, Content] = field(default_factory=dict)
    is_open_turn: bool = False

    @property
    def is_whole(self) -> bool:
        """True if a text that follows begins another message."""
        return not self.calls and bool(self.content or self.fields.get("refusal"))

    def has_call(self, call_id: str) -> bool:
        return any(call["id"] == call_id for call in self.calls)

    def say(self, text: str) -> None:
        """More text of the same party."""
        self.content = joined(self.content, text, "\n")

    def messages(self, ways: Ways) -> list[Message]:
        """As the backend wants them; none if all there was are thoughts, and they stay behind."""
        if self.role != "assistant":
            return [{"role": self.role, "content": self.content, **self.fields}]
        message: Message = {"role": "assistant", "content": self.content, **self.fields}
        has_thoughts = self._goes(ways) and self._think(message, ways)
        if self.calls:
            message["tool_calls"] = self._calls(ways)
        if ways.refuses_empty and not message["content"]:
            message["content"] = None
        if not (self.content or self.calls or self.fields) and (not has_thoughts or ways.refuses_empty):
            return []
        return [message, *self._output_messages(ways)]

    def _goes(self, ways: Ways) -> bool:
        return {
            ThoughtReplay.NEVER: False,
            ThoughtReplay.OPEN_TURN: self.is_open_turn,
            ThoughtReplay.CALLS: self.is_open_turn or bool(self.calls),
            ThoughtReplay.ALL: True,
        }[ways.thoughts]

    def _think(self, message: Message, ways: Ways) -> bool:
        """Add the thoughts, in whatever fields they have. Whether there were any."""
        name = ways.reasoning_field
        has_some = False
        for thought in self.thoughts:
            for key, entries in thought.data.items():
                message[key] = [*message.get(key, []), *entries]
                has_some = True
        text = "\n".join(thought.text for thought in self.thoughts if thought.text)
        if not text and self.calls and ways.thoughts is ThoughtReplay.CALLS:
            text = BLANK_THOUGHT
        if not text or name is None or name in THOUGHT_FIELDS:
            return has_some
        if name == "content":  # Mistral: thoughts are parts of it, before its text
            parts: list[Part] = [{"type": "thinking", "thinking": [{"type": "text", "text": text}]}]
            message["content"] = joined(parts, message["content"])
        else:
            message[name] = text
        return True

    def _calls(self, ways: Ways) -> list[Message]:
        calls = [{k: v for k, v in call.items() if k not in ways.refused} for call in self.calls]
        if ways.needs_signatures:
            calls[0] = {"extra_content": NO_SIGNATURE, **calls[0]}
        return calls

    def _output_messages(self, ways: Ways) -> list[Message]:
        """The outputs in the order of their calls. What is not text goes into a user message after them all:
        OpenAI, DeepSeek and SGLang take images from users only, and every model that sees does."""
        made: list[Message] = []
        seen: list[Part] = []
        for call in self.calls:
            text, others = split(self.outputs.get(call["id"], NO_OUTPUT))
            if others:
                text = text or "(The output follows.)"
                seen += [{"type": "text", "text": f"Output of {call['function']['name']}:"}, *others]
            if not text and ways.refuses_empty:
                text = "(The output is empty.)"
            made.append({"role": "tool", "tool_call_id": call["id"], "content": text})
        return [*made, {"role": "user", "content": seen}] if seen else made
