"""What one party said, and the chat messages that it becomes.

An assistant's turn is its text, its thoughts and all its calls together, with the outputs of those calls
directly after it: so chat templates want it, and strict servers refuse anything else.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from gateway.wire.chat.message_parts import Content, Part, joined, split
from gateway.wire.chat.ways import Thoughts, Ways

Message = dict[str, Any]

NO_OUTPUT = "(No output of this call is known.)"
"""OpenAI, DeepSeek, Qwen and Mistral refuse a call that nothing answers: «must be followed by tool messages
responding to each tool_call_id»."""

BLANK_THOUGHT = " "
"""DeepSeek and Kimi look whether there is a thought, not what it is. Proxies take an empty one for none."""

NO_SIGNATURE = {"google": {"thought_signature": "skip_thought_signature_validator"}}
"""Gemini's own word for a call that another model made, or whose signature was lost."""


@dataclass(slots=True)
class Spoken:
    """A message that is being put together.

    Attributes:
        fields: Others of the message: `name`, `refusal`, a vendor's own.
        calls, outputs: Of an assistant's message; outputs by the id of their call.
        is_running: It belongs to the turn that is under way: no user has spoken since.
    """

    role: str
    content: Content = ""
    fields: Message = field(default_factory=dict)
    thoughts: list[str] = field(default_factory=list)
    calls: list[Message] = field(default_factory=list)
    outputs: dict[str, Content] = field(default_factory=dict)
    is_running: bool = False

    @property
    def is_whole(self) -> bool:
        """Whether a text that follows begins another message."""
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
        if thought := self._thought(ways):
            _think(message, thought, str(ways.reasoning_field))
        if self.calls:
            message["tool_calls"] = self._calls(ways)
        if ways.refuses_empty and not message["content"]:
            message["content"] = None
        if not (self.content or self.calls or self.fields) and (not thought or ways.refuses_empty):
            return []
        return [message, *self._output_messages(ways)]

    def _thought(self, ways: Ways) -> str:
        if ways.reasoning_field is None:
            return ""
        goes = {
            Thoughts.NEVER: False,
            Thoughts.RUNNING: self.is_running,
            Thoughts.CALLS: self.is_running or bool(self.calls),
            Thoughts.ALL: True,
        }[ways.thoughts]
        is_blank = ways.thoughts is Thoughts.CALLS and bool(self.calls)
        return "\n".join(self.thoughts) or (BLANK_THOUGHT if is_blank else "") if goes else ""

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


def _think(message: Message, thought: str, field: str) -> None:
    if field != "content":
        message[field] = thought
        return
    # Mistral: thoughts are parts of the content, before its text.
    parts: list[Part] = [{"type": "thinking", "thinking": [{"type": "text", "text": thought}]}]
    message["content"] = joined(parts, message["content"])
