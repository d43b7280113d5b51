"""Refusals of items by Responses backends: their words, and the form that each backend accepts."""

from __future__ import annotations

import re
from dataclasses import replace

from gateway.wire.conversation.lessons import LATE_SYSTEM, LessonRule, RefusedCall, system_first
from gateway.wire.conversation.portable_items import PORTABLE, Item, type_of
from gateway.wire.conversation.replay import Forms, Ids


def _ids_none(forms: Forms, refusal: RefusedCall) -> Forms:
    return replace(forms, ids=Ids.NONE)


def _ids_kept(forms: Forms, refusal: RefusedCall) -> Forms:
    return replace(forms, ids=Ids.KEPT) if forms.ids is Ids.AUTO else forms


def _no_include(forms: Forms, refusal: RefusedCall) -> Forms:
    return replace(forms, asks_ciphers=False) if refusal.call.get("include") else forms


def _blame(forms: Forms, refusal: RefusedCall) -> Forms:
    """Leave out what the refusal points at: the unknown field of an item, else items of its type."""
    blamed = _placed(refusal)
    if blamed is not None:
        item, name = blamed
        kind = type_of(item)
        if name in item and name not in _NEEDED and _UNKNOWN_FIELD.search(refusal.words):
            return replace(forms, without=forms.without | {(kind, name)})
        if kind not in PORTABLE:
            return _without_types(forms, {kind}, refusal)
    named = {kind for kind in _special(refusal) if _is_named(kind, refusal.words)}
    return _without_types(forms, named, refusal)


def _guess(forms: Forms, refusal: RefusedCall) -> Forms:
    """Nothing is pointed at: it may be anything that not every server knows. Thoughts are the last to go."""
    special = _special(refusal)
    return _without_types(forms, (special - {"reasoning"}) or special, refusal)


def _without_types(forms: Forms, kinds: set[str], refusal: RefusedCall) -> Forms:
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


def _placed(refusal: RefusedCall) -> tuple[Item, str | None] | None:
    for found in _PLACE.finditer(refusal.words):
        if (number := int(found["number"][:9])) < len(refusal.items):
            return refusal.items[number], found["name"]
    return None


def _is_named(kind: str, words: str) -> bool:
    kind, before = re.escape(kind), _REST.split(words, maxsplit=1)[0]
    near = r"\b(?:type|item|variant|tag|input)s?\b"
    return bool(re.search(rf"{near}[^\n]{{0,60}}\b{kind}\b|\b{kind}\b[^\n]{{0,40}}{near}", before, re.I))


def _special(refusal: RefusedCall) -> set[str]:
    return {type_of(item) for item in refusal.items} - PORTABLE


ITEMS: tuple[LessonRule[Forms], ...] = (
    LessonRule("system_first", LATE_SYSTEM, system_first, "the same models by vLLM and llama.cpp"),
    LessonRule(
        "include",
        r"encrypted content is not supported|\binclude[.\[]\d"
        r"|\binclude\b[^\n]{0,80}\b(?:unknown|unsupported|invalid|unexpected|not (?:supported|valid))\b"
        r"|\b(?:unknown|unsupported|invalid|unexpected|unrecogni[sz]ed)\b[^\n]{0,80}\binclude\b",
        _no_include,
        "OpenAI, of models that do not think; whoever does not know the word",
    ),
    LessonRule(
        "ids_of_a_store",
        r"item_id did not match|provided without its required|items are not persisted"
        r"|item with id \S+ not found|duplicate item found|expected an id that begins with",
        _ids_none,
        "OpenAI and Azure with store: false; GitHub Copilot, whose ids change",
    ),
    LessonRule(
        "ids_missing",
        r"missing (?:required )?(?:parameter|field)\W{1,3}(?:input\S{0,12}\.)?id\b"
        r"|reasoningitem\w*\W{1,4}id\b",
        _ids_kept,
        "servers that read items strictly by OpenAI's types, of sealed thoughts",
    ),
    LessonRule(
        "no_sealed_thoughts",
        r"encrypted content is not supported",
        lambda forms, refusal: replace(forms, takes_ciphers=False),
        "vLLM",
    ),
    LessonRule(
        "other_sealed_thoughts",
        r"invalid_encrypted_content|encrypted[_ ]content\W[^\n]{0,200}(?:could not|cannot|not issued|unable)"
        r"|(?:could not|can ?not|unable to) de(?:crypt|code)[^\n]{0,60}(?:encrypted_content|compaction blob)",
        lambda forms, refusal: replace(forms, takes_ciphers=False),
        "OpenAI, xAI, OpenCode: sealed for another key, account or region",
        is_lasting=False,
    ),
    LessonRule(
        "whole_items",
        r"cannot determine type of 'item'|input\.status\b|untagged enum",
        lambda forms, refusal: replace(forms, is_whole=True),
        "llama.cpp, of short messages of the assistant; Volcengine; vLLM's agentic-api",
    ),
    LessonRule(
        "items",
        r"\binput\b|\bitem|unknown variant",
        _blame,
        "Ollama, mistral.rs, OpenAI, vLLM and all that read by pydantic or zod",
    ),
    LessonRule(
        "special_items",
        r"invalid_union|invalid (?:type|input|union)|did not match any variant|cannot determine type"
        r"|validation|deseriali[sz]|unprocessable|malformed|is not an array|item\['content'\]",
        _guess,
        "LM Studio, huggingface/responses.js, mistral.rs, llama.cpp: something in `input`, but not what",
    ),
)
