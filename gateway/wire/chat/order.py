"""The order of messages that strict chat templates and servers insist on.

Each is for a backend that has refused the plain order, or whose settings say so. Who insists on it stands
with the rows of `gateway.wire.conversation.lessons`.
"""

from __future__ import annotations

import hashlib

from gateway.wire.chat.message_parts import Content, joined
from gateway.wire.chat.spoken import Message
from gateway.wire.chat.ways import System, Ways

_INSTRUCTING = ("system", "developer")
_BRIDGE = "Understood."
"""Message between a tool's output and a user's next turn: Mistral requires an assistant there."""

_OPENING = "(The conversation begins.)"


def ordered(messages: list[Message], ways: Ways) -> list[Message]:
    """The messages in the order that the backend accepts."""
    if ways.system in (System.FIRST, System.USER):
        messages = _system_first(messages)
    if ways.system is System.USER:
        messages = _system_in_user(messages)
    if ways.alternates:
        messages = _alternating(messages)
    if ways.has_short_ids:
        messages = [_with_short_ids(message) for message in messages]
    if ways.refused:
        messages = [{k: v for k, v in message.items() if k not in ways.refused} for message in messages]
    return messages


def _with_short_ids(message: Message) -> Message:
    if "tool_call_id" in message:
        return {**message, "tool_call_id": _short(message["tool_call_id"])}
    if calls := message.get("tool_calls"):
        return {**message, "tool_calls": [{**call, "id": _short(call["id"])} for call in calls]}
    return message


def _short(call_id: str) -> str:
    """The same for the same id, in every turn."""
    return hashlib.sha256(call_id.encode()).hexdigest()[:9]


def _system_first(messages: list[Message]) -> list[Message]:
    """One system message, at the front, with what the later ones say after what the first one does."""
    instructing = [message for message in messages if message["role"] in _INSTRUCTING]
    if not instructing:
        return messages
    content: Content = ""
    for message in instructing:
        content = joined(content, message["content"])
    others = [message for message in messages if message["role"] not in _INSTRUCTING]
    return [{**instructing[0], "content": content}, *others]


def _system_in_user(messages: list[Message]) -> list[Message]:
    if not messages or messages[0]["role"] not in _INSTRUCTING:
        return messages
    system, *others = messages
    for at, message in enumerate(others):
        if message["role"] == "user":
            told = {**message, "content": joined(system["content"], message["content"])}
            return [*others[:at], told, *others[at + 1 :]]
    return [{**system, "role": "user"}, *others]


def _alternating(messages: list[Message]) -> list[Message]:
    """Neighbours of one party are one message; calls and their outputs stand outside of the turns."""
    made: list[Message] = []
    for message in messages:
        role, last = message["role"], made[-1] if made else None
        if role == "assistant" and (last is None or last["role"] in _INSTRUCTING):
            made.append({"role": "user", "content": _OPENING})
        elif role == "user" and last is not None and last["role"] == "tool":
            made.append({"role": "assistant", "content": _BRIDGE})
        elif last is not None and role == last["role"] != "tool" and not last.get("tool_calls"):
            content = joined(last["content"] or "", message["content"] or "")
            made[-1] = {**last, **message, "content": content}
            continue
        made.append(message)
    return made
