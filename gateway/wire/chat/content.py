"""What a delta, or a whole message, says: each of its fields in all the names and shapes in use.

The table says which field means what, and who sends it. What no row knows comes out as a piece as well:
unmapped, with its place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from gateway.wire.chat.citations import FIELDS as CITATIONS
from gateway.wire.chat.fields import THOUGHT_FIELDS, kept, object_of, objects_of
from gateway.wire.chat.known import has_text, telling, texts_in
from gateway.wire.chat.parts import audio, content, image, sources, words
from gateway.wire.chat.pieces import Piece, PieceKind, unknown, unmapped

_FIELDS: dict[str, PieceKind] = {
    # Thoughts. Several of these in one delta say the same: the first counts.
    "reasoning_content": PieceKind.THOUGHT,  # DeepSeek, older vLLM, SGLang, llama.cpp, Qwen, GLM, LiteLLM
    "reasoning": PieceKind.THOUGHT,  # vLLM, OpenRouter, Groq, Ollama, Cerebras, LM Studio
    "reasoning_text": PieceKind.THOUGHT,  # GitHub Copilot
    "thinking": PieceKind.THOUGHT,  # Ollama's own API and what was made after it
    "thought": PieceKind.THOUGHT,
    "reasoning_details": PieceKind.THOUGHT,  # OpenRouter, MiniMax
    "thinking_blocks": PieceKind.THOUGHT,  # LiteLLM
    "content": PieceKind.TEXT,
    "refusal": PieceKind.REFUSAL,
    "images": PieceKind.IMAGE,  # OpenRouter, LiteLLM, Gemini-like
    "image": PieceKind.IMAGE,
    "audio": PieceKind.AUDIO,  # OpenAI
    **dict.fromkeys(CITATIONS, PieceKind.SOURCE),
    "extra_content": PieceKind.VENDOR,  # Gemini
    "tool_calls": PieceKind.CALL,
    "function_call": PieceKind.CALL,  # before there were several
}
_RANKS = {name: rank for rank, name in enumerate(_FIELDS)}


def pieces_of(holder: dict[str, Any], where: str) -> Iterator[Piece]:
    """What a delta or a message says.

    Args:
        where: `delta` or `message`.
    """
    names = telling(holder, "delta")
    if len(names) > 1:
        names.sort(key=lambda name: _RANKS.get(name, len(_RANKS)))
    thoughts: set[str] = set()
    for name in names:
        value, place = holder[name], f"{where}.{name}"
        match _FIELDS.get(name):
            case PieceKind.THOUGHT:
                yield from _thought(name, value, place, thoughts)
            case PieceKind.TEXT:
                is_marked = "extra_content" in holder and _is_thought(holder["extra_content"])
                yield from content(value, place, PieceKind.MARKED_TEXT if is_marked else PieceKind.TEXT)
            case PieceKind.CALL if name == "function_call" and holder.get("tool_calls"):
                yield from unmapped(value, place, texts_in(holder["tool_calls"]))  # the same, said as of old
            case None:
                yield from unknown(value, place)
            case kind:
                yield from _READINGS[kind](name, value, place)
    yield from _of_litellm(holder, where, "delta")


def beside_in(holder: dict[str, Any], place: str) -> Iterator[Piece]:
    """What stands in a chunk beside its choices, or in a choice beside its delta.

    Args:
        place: `chunk` or `choice`.
    """
    for name in telling(holder, place):
        if name in CITATIONS:
            yield from sources(name, holder[name], f"{place}.{name}")
        else:
            yield from unknown(holder[name], f"{place}.{name}")
    yield from _of_litellm(holder, place, place)


def _of_litellm(holder: dict[str, Any], where: str, place: str) -> Iterator[Piece]:
    """Fields that LiteLLM passes on unmapped, beside those that it maps."""
    if "provider_specific_fields" in holder:
        vendor = object_of(holder["provider_specific_fields"])
        for name in telling(vendor, place):
            if name not in _FIELDS:
                yield from unknown(vendor[name], f"{where}.provider_specific_fields.{name}")


def _thought(name: str, value: Any, place: str, thoughts: set[str]) -> Iterator[Piece]:
    """A thought, if it was not said under another name; and what belongs to it."""
    said = list(words(value))
    text = "".join(said)
    is_new = bool(text) and text.strip() not in thoughts
    if is_new:
        thoughts.add(text.strip())
        yield Piece(PieceKind.THOUGHT, text, name)
    if name in THOUGHT_FIELDS and isinstance(value, list):
        yield Piece(PieceKind.THOUGHT_DATA, text if is_new else "", name, value)
    else:
        yield from unmapped(value, place, said)


def _is_thought(extra: Any) -> bool:
    """Gemini marks a delta of thoughts; and a whole message, if there are thoughts in it."""
    return object_of(object_of(extra).get("google")).get("thought") is True


def _refusal(name: str, value: Any, place: str) -> Iterator[Piece]:
    said = list(words(value))
    yield from (Piece(PieceKind.REFUSAL, text, name) for text in said)
    yield from unmapped(value, place, said)


def _images(name: str, value: Any, place: str) -> Iterator[Piece]:
    for entry in value if isinstance(value, list) else [value]:
        yield from image(entry, place)


def _audio(name: str, value: Any, place: str) -> Iterator[Piece]:
    return audio(value, place)


def _vendor(name: str, value: Any, place: str) -> Iterator[Piece]:
    if isinstance(value, dict) and (fields := kept(value)):
        if has_text(fields):
            yield Piece(PieceKind.VENDOR, name=name, data=fields)
    else:
        yield from unmapped(value, place)


def _calls(name: str, value: Any, place: str) -> Iterator[Piece]:
    calls = objects_of(value)
    if calls:
        yield Piece(PieceKind.CALL, name=name, data=calls)
    yield from unmapped(
        [each for each in (value if isinstance(value, list) else [value]) if each not in calls], place
    )


_READINGS: dict[PieceKind, Callable[[str, Any, str], Iterator[Piece]]] = {
    PieceKind.REFUSAL: _refusal,
    PieceKind.IMAGE: _images,
    PieceKind.AUDIO: _audio,
    PieceKind.SOURCE: sources,
    PieceKind.VENDOR: _vendor,
    PieceKind.CALL: _calls,
}
