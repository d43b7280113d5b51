"""What a backend's refusal teaches about how it wants earlier turns.

One table for each API. A row says by which words a refusal is known, what to do otherwise from then on, and
who says so. The first row that changes the call is the lesson; a refusal that fits none teaches nothing, and
stands. A new quirk is a row here, and its words in `tests/wire/test_lessons.py`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

import orjson

from gateway.wire.chat.ways import VENDOR_DATA, System, Thoughts, Ways
from gateway.wire.replay import PLAIN, Forms, Ids, Item, type_of

_WORDS_CHARS_MAX = 20_000
"""Of a refusal. vLLM names each of a hundred types for each of the items that fit none."""

_DEPTH_MAX = 12

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Refusal:
    """A call that a backend would not take.

    Attributes:
        words: All that it said, path and codes included.
        found: What the pattern of the row found there.
        items: The messages, or the items, that it was sent.
        call: All of the call.
    """

    words: str
    found: re.Match[str]
    items: list[Item]
    call: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Row(Generic[T]):
    """One way of refusing.

    Attributes:
        name: For the log.
        words: How it is known, whatever the case of the letters.
        change: What to do otherwise; the same again where that is done already.
        source: Who says so.
        is_lasting: It is true of the backend, and not only of this conversation.
    """

    name: str
    words: str
    change: Callable[[T, Refusal], T]
    source: str
    is_lasting: bool = True


@dataclass(frozen=True, slots=True)
class Lesson(Generic[T]):
    """What to do otherwise, by which row."""

    name: str
    known: T
    is_lasting: bool


# -- chat completions


def _system_first(ways: Ways, refusal: Refusal) -> Ways:
    return replace(ways, system=System.FIRST) if ways.system is System.AUTO else ways


def _system_in_user(ways: Ways, refusal: Refusal) -> Ways:
    return ways if ways.system is System.IN_PLACE else replace(ways, system=System.USER)


def _system_nowhere_else(ways: Ways, refusal: Refusal) -> Ways:
    """Said of a late one, and also by those that know no such role: found out in two steps."""
    return (_system_first if ways.system is System.AUTO else _system_in_user)(ways, refusal)


def _take_turns(ways: Ways, refusal: Refusal) -> Ways:
    return replace(_system_first(ways, refusal), alternates=True)


def _bring_thoughts(ways: Ways, refusal: Refusal) -> Ways:
    if ways.thoughts is Thoughts.NEVER:
        return ways
    field = refusal.found["field"] or refusal.found["missing"]
    return replace(ways, thoughts=Thoughts.CALLS, reasoning_field=field.lower())


def _leave_fields(ways: Ways, refusal: Refusal) -> Ways:
    """Fields that it names, of those that it was sent beside what every server takes."""
    sent = {name for message in refusal.items for name in _names_in(message)} - _IN_EVERY_MESSAGE
    named = {name for name in sent if re.search(rf"""["'`.]{re.escape(name)}\b""", refusal.words)}
    field = "thinking" if ways.reasoning_field == "content" else ways.reasoning_field
    if field in named:
        return replace(ways, thoughts=Thoughts.NEVER)
    return replace(ways, refused=ways.refused | named)


_IN_EVERY_MESSAGE = frozenset(
    {"role", "content", "tool_calls", "tool_call_id", "id", "type", "function", "text", "image_url", "file"}
)


def _names_in(message: Item) -> Iterator[str]:
    yield from message
    for holder in ("tool_calls", "content"):
        for inner in _objects(message.get(holder)):
            yield from inner


_FIELD = "reasoning_content|reasoning_text|reasoning"

CHAT: tuple[Row[Ways], ...] = (
    Row(
        "system_first",
        r"system (?:message|prompt|role)s?\b[^.\n]{0,60}\b(?:beginning|start|first|single|only one)\b"
        r"|\b(?:only one|multiple|more than one|a single) system (?:message|prompt)"
        r"|unexpected role '?system'? after",
        _system_first,
        "Qwen 3.5 and later by vLLM, llama.cpp (500) and LM Studio; Mistral",
    ),
    Row(
        "system_in_user",
        r"system role (?:is )?not supported|does not support '?system|'system' is not one of"
        r"|invalid role:? '?system",
        _system_in_user,
        "Gemma 1 and 2; OpenAI's o1-mini",
    ),
    Row(
        "no_other_roles",
        r"only user(?:,| and) assistant[^.\n]{0,30} roles are supported",
        _system_nowhere_else,
        "Mistral's and older templates, of a system message where they look for none",
    ),
    Row(
        "no_developer",
        r"(?:unknown|unexpected|invalid|unsupported)[^\n]{0,60}\bdeveloper\b"
        r"|\bdeveloper\b[^\n]{0,30}\b(?:is not|not supported|unsupported)",
        lambda ways, refusal: replace(ways, has_developer_role=False),
        "DeepSeek, Moonshot, vLLM with older templates",
    ),
    Row(
        "take_turns",
        r"roles? must alternate|must alternate between|unexpected role '?\w+'? after role"
        r"|multiple \W{0,3}(?:user|assistant)\W{0,3} roles in a row",
        _take_turns,
        "Llama 2, Gemma, Mistral and their API, Bedrock",
    ),
    Row(
        "thoughts_of_calls",
        rf"(?P<field>{_FIELD})\b[^\n]{{0,80}}\b(?:must be (?:passed|provided|sent)|is missing|is required)"
        rf"|\bmissing\b[^\n]{{0,40}}\b(?P<missing>{_FIELD})\b",
        _bring_thoughts,
        "DeepSeek from V3.2 on, Kimi K2, SiliconFlow: of each message with calls, in whatever turn",
    ),
    Row(
        "signatures",
        r"missing an? \W{0,2}thought_?signature|thought_?signature\W{0,3} is (?:missing|required)",
        lambda ways, refusal: replace(ways, needs_signatures=True),
        "Gemini 3, of calls that another model made",
    ),
    Row(
        "broken_signatures",
        r"(?:invalid|corrupted) thought.?signature",
        lambda ways, refusal: replace(ways, needs_signatures=True, refused=ways.refused | {*VENDOR_DATA}),
        "Gemini, of signatures from another route or project",
        is_lasting=False,
    ),
    Row(
        "no_empty_text",
        r"must (?:not be|be non-)\W?empty|(?:can ?not|may not) be empty"
        r"|content\b[^\n]{0,60}\bis empty|non-empty content",
        lambda ways, refusal: replace(ways, refuses_empty=True),
        "Anthropic and Bedrock behind proxies, Moonshot",
    ),
    Row(
        "fields",
        r"unsupported|not (?:permitted|allowed|supported)|extra_forbidden|unrecogni[sz]ed"
        r"|(?:unknown|unexpected|invalid) (?:parameter|field|name|key|propert)|additional propert",
        _leave_fields,
        "Groq, Cerebras and Mistral, of reasoning_content; Mistral, of name; whoever does not know another's",
    ),
)


# -- the Responses API


def _ids_none(forms: Forms, refusal: Refusal) -> Forms:
    return replace(forms, ids=Ids.NONE)


def _ids_kept(forms: Forms, refusal: Refusal) -> Forms:
    return replace(forms, ids=Ids.KEPT) if forms.ids is Ids.AUTO else forms


def _no_include(forms: Forms, refusal: Refusal) -> Forms:
    return replace(forms, asks_ciphers=False) if refusal.call.get("include") else forms


def _blame(forms: Forms, refusal: Refusal) -> Forms:
    """Leave out what the refusal points at: the unknown field of an item, else items of its type."""
    blamed = _placed(refusal)
    if blamed is not None:
        item, name = blamed
        kind = type_of(item)
        if name in item and name not in _NEEDED and _UNKNOWN_FIELD.search(refusal.words):
            return replace(forms, without=forms.without | {(kind, name)})
        if kind not in PLAIN:
            return _without_types(forms, {kind}, refusal)
    named = {kind for kind in _special(refusal) if _is_named(kind, refusal.words)}
    return _without_types(forms, named, refusal)


def _guess(forms: Forms, refusal: Refusal) -> Forms:
    """Nothing is pointed at: it may be anything that not every server knows. Thoughts are the last to go."""
    special = _special(refusal)
    return _without_types(forms, (special - {"reasoning"}) or special, refusal)


def _without_types(forms: Forms, kinds: set[str], refusal: Refusal) -> Forms:
    """Calls and their outputs are known, or not, together."""
    calls = {kind.removesuffix("_output") for kind in kinds}
    family = {kind for kind in _special(refusal) if kind.removesuffix("_output") in calls}
    return replace(forms, refused=forms.refused | family)


_PLACE = re.compile(
    r"""\binput (?: (?:',\ *'[^']*)? ',\ * | (?:\.[^\s.'"\d][^\s.'"]*)? [.\[/] )
        (?P<number>\d+) \]? (?: \.(?P<name>\w+) )?""",
    re.VERBOSE,
)
"""`input[3].status`, `input.3.type`, `input.list[union[…]].3.id`, `('body', 'input', 'list[…]', 3, …)`."""

_UNKNOWN_FIELD = re.compile(
    r"(?:unknown|unexpected|unrecogni[sz]ed) (?:parameter|field|propert|key)|extra_forbidden|not permitted"
    r"|additional propert",
    re.IGNORECASE,
)
_NEEDED = frozenset({"type", "role", "content", "call_id", "name", "arguments", "output"})
_REST = re.compile(
    r"expected (?:one of|tags)|supported (?:values|types)|(?:must|should) be one of|allowed (?:values|types)",
    re.IGNORECASE,
)
"""From here on a refusal lists what there is, not what is wrong."""


def _placed(refusal: Refusal) -> tuple[Item, str | None] | None:
    for found in _PLACE.finditer(refusal.words):
        if (number := int(found["number"][:9])) < len(refusal.items):
            return refusal.items[number], found["name"]
    return None


def _is_named(kind: str, words: str) -> bool:
    kind, before = re.escape(kind), _REST.split(words, maxsplit=1)[0]
    near = r"\b(?:type|item|variant|tag|input)s?\b"
    return bool(re.search(rf"{near}[^\n]{{0,60}}\b{kind}\b|\b{kind}\b[^\n]{{0,40}}{near}", before, re.I))


def _special(refusal: Refusal) -> set[str]:
    return {type_of(item) for item in refusal.items} - PLAIN


ITEMS: tuple[Row[Forms], ...] = (
    Row(
        "include",
        r"encrypted content is not supported|\binclude[.\[]\d"
        r"|\binclude\b[^\n]{0,80}\b(?:unknown|unsupported|invalid|unexpected|not (?:supported|valid))\b"
        r"|\b(?:unknown|unsupported|invalid|unexpected|unrecogni[sz]ed)\b[^\n]{0,80}\binclude\b",
        _no_include,
        "OpenAI, of models that do not think; whoever does not know the word",
    ),
    Row(
        "ids_of_a_store",
        r"item_id did not match|provided without its required|items are not persisted"
        r"|item with id \S+ not found|duplicate item found|expected an id that begins with",
        _ids_none,
        "OpenAI and Azure with store: false; GitHub Copilot, whose ids change",
    ),
    Row(
        "ids_missing",
        r"missing (?:required )?(?:parameter|field)\W{1,3}(?:input\S{0,12}\.)?id\b"
        r"|reasoningitem\w*\W{1,4}id\b",
        _ids_kept,
        "servers that read items strictly by OpenAI's types, of sealed thoughts",
    ),
    Row(
        "no_sealed_thoughts",
        r"encrypted content is not supported",
        lambda forms, refusal: replace(forms, takes_ciphers=False),
        "vLLM",
    ),
    Row(
        "other_sealed_thoughts",
        r"invalid_encrypted_content|encrypted[_ ]content\W[^\n]{0,200}(?:could not|cannot|not issued|unable)"
        r"|(?:could not|can ?not|unable to) de(?:crypt|code)[^\n]{0,60}(?:encrypted_content|compaction blob)",
        lambda forms, refusal: replace(forms, takes_ciphers=False),
        "OpenAI, xAI, OpenCode: sealed for another key, account or region",
        is_lasting=False,
    ),
    Row(
        "whole_items",
        r"cannot determine type of 'item'|input\.status\b|untagged enum",
        lambda forms, refusal: replace(forms, is_whole=True),
        "llama.cpp, of short messages of the assistant; Volcengine; vLLM's agentic-api",
    ),
    Row(
        "items",
        r"\binput\b|\bitem|unknown variant",
        _blame,
        "Ollama, mistral.rs, OpenAI, vLLM and all that read by pydantic or zod",
    ),
    Row(
        "special_items",
        r"invalid_union|invalid (?:type|input|union)|did not match any variant|cannot determine type"
        r"|validation|deseriali[sz]|unprocessable|malformed|is not an array|item\['content'\]",
        _guess,
        "LM Studio, huggingface/responses.js, mistral.rs, llama.cpp: something in `input`, but not what",
    ),
)


def lessons(rows: tuple[Row[T], ...], known: T, said: bytes, sent: bytes) -> Iterator[Lesson[T]]:
    """What a refusal may teach that is not known yet, the likeliest first.

    Args:
        said: The backend's error, as it came.
        sent: The call that it refused.
    """
    words = _words_of(said)
    call: dict[str, Any] | None = None
    for row in rows:
        found = re.search(row.words, words, re.IGNORECASE)
        if found is None:
            continue
        call = orjson.loads(sent) if call is None else call
        items = _objects(call.get("messages", call.get("input")))
        changed = row.change(known, Refusal(words, found, items, call))
        if changed != known:
            yield Lesson(row.name, changed, row.is_lasting)


def _words_of(said: bytes) -> str:
    """All words of an error, one string of it a line. A path of keys and numbers is one string."""
    try:
        text = "\n".join(_strings(orjson.loads(said), _DEPTH_MAX))
    except orjson.JSONDecodeError:
        text = said.decode("utf-8", "replace")
    return text[:_WORDS_CHARS_MAX].replace("\\", "")


def _strings(value: Any, depth: int) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list) and value and all(isinstance(inner, str | int) for inner in value):
        yield ".".join(str(inner) for inner in value)
    elif isinstance(value, dict | list) and depth:
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _strings(inner, depth - 1)


def _objects(value: Any) -> list[Item]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []
