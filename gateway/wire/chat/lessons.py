"""Refusals of conversations by chat backends: their words, and what each backend wants instead."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

from gateway.wire.chat.fields import VENDOR_FIELDS
from gateway.wire.chat.ways import System, ThoughtReplay, Ways
from gateway.wire.conversation.lessons import LATE_SYSTEM, LessonRule, RefusedCall, objects_in, system_first
from gateway.wire.conversation.portable_items import Item


def _system_in_user(ways: Ways, refusal: RefusedCall) -> Ways:
    return ways if ways.system is System.IN_PLACE else replace(ways, system=System.USER)


def _system_nowhere_else(ways: Ways, refusal: RefusedCall) -> Ways:
    """Said of a late one, and also by those that know no such role: found out in two steps."""
    return (system_first if ways.system is System.AUTO else _system_in_user)(ways, refusal)


def _take_turns(ways: Ways, refusal: RefusedCall) -> Ways:
    return replace(system_first(ways, refusal), alternates=True)


def _bring_thoughts(ways: Ways, refusal: RefusedCall) -> Ways:
    if ways.thoughts is ThoughtReplay.NEVER:
        return ways
    field = refusal.found["field"] or refusal.found["missing"]
    return replace(ways, thoughts=ThoughtReplay.CALLS, reasoning_field=field.lower())


def _leave_fields(ways: Ways, refusal: RefusedCall) -> Ways:
    """Fields that it names, of those that it was sent beside what every server takes."""
    sent = {name for message in refusal.items for name in _names_in(message)} - _MESSAGE_FIELDS
    named = {name for name in sent if re.search(rf"""["'`.]{re.escape(name)}\b""", refusal.words)}
    field = "thinking" if ways.reasoning_field == "content" else ways.reasoning_field
    if field in named:
        return replace(ways, thoughts=ThoughtReplay.NEVER)
    return replace(ways, refused=ways.refused | named)


_MESSAGE_FIELDS = frozenset(
    {"role", "content", "tool_calls", "tool_call_id", "id", "type", "function", "text", "image_url", "file"}
)


def _names_in(message: Item) -> Iterator[str]:
    yield from message
    for holder in ("tool_calls", "content"):
        for inner in objects_in(message.get(holder)):
            yield from inner


_FIELD = "reasoning_content|reasoning_text|reasoning"

CHAT: tuple[LessonRule[Ways], ...] = (
    LessonRule(
        "system_first",
        LATE_SYSTEM,
        system_first,
        "Qwen 3.5 and later by vLLM, llama.cpp (500) and LM Studio; Mistral",
    ),
    LessonRule(
        "system_in_user",
        r"system role (?:is )?not supported|does not support '?system|'system' is not one of"
        r"|invalid role:? '?system",
        _system_in_user,
        "Gemma 1 and 2; OpenAI's o1-mini",
    ),
    LessonRule(
        "no_other_roles",
        r"only user(?:,| and) assistant[^.\n]{0,30} roles are supported",
        _system_nowhere_else,
        "Mistral's and older templates, of a system message where they look for none",
    ),
    LessonRule(
        "no_developer",
        r"(?:unknown|unexpected|invalid|unsupported)[^\n]{0,60}\bdeveloper\b"
        r"|\bdeveloper\b[^\n]{0,30}\b(?:is not|not supported|unsupported)",
        lambda ways, refusal: replace(ways, has_developer_role=False),
        "DeepSeek, Moonshot, vLLM with older templates",
    ),
    LessonRule(
        "take_turns",
        r"roles? must alternate|must alternate between|unexpected role '?\w+'? after role"
        r"|multiple \W{0,3}(?:user|assistant)\W{0,3} roles in a row",
        _take_turns,
        "Llama 2, Gemma, Mistral and their API, Bedrock",
    ),
    LessonRule(
        "thoughts_of_calls",
        rf"(?P<field>{_FIELD})\b[^\n]{{0,80}}\b(?:must be (?:passed|provided|sent)|is missing|is required)"
        rf"|\bmissing\b[^\n]{{0,40}}\b(?P<missing>{_FIELD})\b",
        _bring_thoughts,
        "DeepSeek from V3.2 on, Kimi K2, SiliconFlow: of each message with calls, in whatever turn",
    ),
    LessonRule(
        "signatures",
        r"missing an? \W{0,2}thought_?signature|thought_?signature\W{0,3} is (?:missing|required)",
        lambda ways, refusal: replace(ways, needs_signatures=True),
        "Gemini 3, of calls that another model made",
    ),
    LessonRule(
        "broken_signatures",
        r"(?:invalid|corrupted) thought.?signature",
        lambda ways, refusal: replace(ways, needs_signatures=True, refused=ways.refused | {*VENDOR_FIELDS}),
        "Gemini, of signatures from another route or project",
        is_lasting=False,
    ),
    LessonRule(
        "call_ids",
        r"tool.?call.?id\b[^\n]{0,80}\bmust be|length of 9|tool_use[^\n]{0,40}\bid\b[^\n]{0,60}pattern"
        r"|tool_calls?\[?\d*\]?\.id\b[^\n]{0,40}too long",
        lambda ways, refusal: replace(ways, has_short_ids=True),
        "Mistral (nine letters and digits), Anthropic and Bedrock (no dots), OpenAI (40 characters)",
    ),
    LessonRule(
        "no_empty_text",
        r"must (?:not be|be non-)\W?empty|(?:can ?not|may not) be empty"
        r"|content\b[^\n]{0,60}\bis empty|non-empty content",
        lambda ways, refusal: replace(ways, refuses_empty=True),
        "Anthropic and Bedrock behind proxies, Moonshot",
    ),
    LessonRule(
        "fields",
        r"unsupported|not (?:permitted|allowed|supported)|extra_forbidden|unrecogni[sz]ed"
        r"|(?:unknown|unexpected|invalid) (?:parameter|field|name|key|propert)|additional propert",
        _leave_fields,
        "Groq, Cerebras and Mistral, of reasoning_content; Mistral, of name; whoever does not know another's",
    ),
)
