"""Typed parts of a message's content, and the same shapes elsewhere in a message."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from gateway.wire.chat.citations import FIELDS as CITATIONS
from gateway.wire.chat.citations import sources_of
from gateway.wire.chat.fields import kept, object_of
from gateway.wire.chat.images import image_of
from gateway.wire.chat.pieces import Piece, PieceKind, unmapped

_PARTS: dict[str, PieceKind] = {
    "text": PieceKind.TEXT,  # OpenAI, Mistral, Databricks
    "output_text": PieceKind.TEXT,
    "text_delta": PieceKind.TEXT,  # Anthropic-like
    "reference": PieceKind.TEXT,  # Mistral: words with their sources
    "thinking": PieceKind.THOUGHT,  # Mistral, Anthropic-like
    "thinking_delta": PieceKind.THOUGHT,
    "redacted_thinking": PieceKind.THOUGHT,
    "reasoning": PieceKind.THOUGHT,  # Databricks, Cohere-like
    "reasoning_text": PieceKind.THOUGHT,
    "reasoning_content": PieceKind.THOUGHT,
    "summary_text": PieceKind.THOUGHT,
    "reasoning.text": PieceKind.THOUGHT,  # OpenRouter
    "reasoning.summary": PieceKind.THOUGHT,
    "refusal": PieceKind.REFUSAL,
    "image_url": PieceKind.IMAGE,
    "image": PieceKind.IMAGE,  # Anthropic-like
    "output_image": PieceKind.IMAGE,
    "input_image": PieceKind.IMAGE,
    "audio": PieceKind.AUDIO,
    "output_audio": PieceKind.AUDIO,
    "input_audio": PieceKind.AUDIO,
    "tool_use": PieceKind.CALL,  # Anthropic-like
    "tool_call": PieceKind.CALL,
    "function_call": PieceKind.CALL,
}
"""Meaning of a part of `content`, by its type."""

_UNTYPED: dict[str, PieceKind] = {
    "functionCall": PieceKind.CALL,  # Gemini-like
    "function_call": PieceKind.CALL,
    "inlineData": PieceKind.IMAGE,
    "inline_data": PieceKind.IMAGE,
    "image_url": PieceKind.IMAGE,
    "input_audio": PieceKind.AUDIO,
    "audio": PieceKind.AUDIO,
    "thinking": PieceKind.THOUGHT,
    "reasoning": PieceKind.THOUGHT,
    "refusal": PieceKind.REFUSAL,
    "text": PieceKind.TEXT,
}
"""Meaning of a part without a type, by its field."""

_WORDS = (
    "text",
    "value",
    "thinking",
    "reasoning",
    "reasoning_text",
    "refusal",
    "content",
    "summary",
    "parts",
)
"""Where an object has its words. The first of these that has any."""

_CALLS = ("functionCall", "function_call", "tool_call")
_SOUNDS = ("audio", "input_audio")
"""Objects with the call, or the audio, in them; else the part itself is it."""

_DEPTH_MAX = 12


def content(value: Any, place: str, kind: PieceKind) -> Iterator[Piece]:
    """What `content` says: a text, a list of typed parts, or one of these alone.

    Args:
        kind: What a plain text is.
    """
    if isinstance(value, str):
        yield Piece(kind, value)
        return
    if isinstance(value, dict) and isinstance(value.get("parts"), list):  # Gemini-like
        value = value["parts"]
    for part in value if isinstance(value, list) else [value]:
        if isinstance(part, str):
            yield Piece(kind, part)
        elif isinstance(part, dict):
            yield from _part(part, place)


def words(value: Any, depth: int = _DEPTH_MAX) -> Iterator[str]:
    """The texts in a value that is one, or a list of parts, or an object that has one under a usual name."""
    if isinstance(value, str):
        if value:
            yield value
    elif isinstance(value, list) and depth:
        for item in value:
            yield from words(item, depth - 1)
    elif isinstance(value, dict) and depth:
        for name in _WORDS:
            if found := list(words(value.get(name), depth - 1)):
                yield from found
                return


def image(entry: Any, place: str) -> Iterator[Piece]:
    """An image, as a part or as an entry of a list of images."""
    found = image_of(entry)
    if found is not None:
        yield Piece(PieceKind.IMAGE, data=found)
    yield from unmapped(entry, place, [found.given] if found is not None else [])


def audio(value: Any, place: str) -> Iterator[Piece]:
    """A piece of speech."""
    fields = kept(object_of(value))
    if fields:
        yield Piece(PieceKind.AUDIO, data=fields)
    else:
        yield from unmapped(value, place)


def sources(name: str, value: Any, place: str) -> Iterator[Piece]:
    """The sources in a field of `CITATIONS`, whether it stands in a part, a delta, a choice or a chunk."""
    found, rest = sources_of(name, value)
    yield from (Piece(PieceKind.SOURCE, data=source) for source in found)
    yield from unmapped(rest, place)


def _part(part: dict[str, Any], place: str) -> Iterator[Piece]:
    named = part.get("type")
    kind = _PARTS.get(named) if isinstance(named, str) else _untyped(part)
    place = f"{place}.{named}" if isinstance(named, str) else place
    match kind:
        case PieceKind.TEXT | PieceKind.THOUGHT | PieceKind.REFUSAL:
            yield from _said(part, kind, place)
        case PieceKind.IMAGE:
            yield from image(part, place)
        case PieceKind.AUDIO:
            yield from audio(next((part[name] for name in _SOUNDS if part.get(name)), part), place)
        case PieceKind.CALL:
            yield Piece(PieceKind.CALL, data=next((part[name] for name in _CALLS if name in part), part))
        case _:
            yield from unmapped(part, place)


def _untyped(part: dict[str, Any]) -> PieceKind | None:
    kind = next((kind for name, kind in _UNTYPED.items() if part.get(name)), None)
    return PieceKind.THOUGHT if kind is PieceKind.TEXT and part.get("thought") is True else kind


def _said(part: dict[str, Any], kind: PieceKind, place: str) -> Iterator[Piece]:
    said = list(words(part))
    yield from (Piece(kind, text, "content") for text in said)
    rest = {name: item for name, item in part.items() if name not in CITATIONS}
    if kind is PieceKind.THOUGHT and (part.get("signature") or part.get("data")):
        yield Piece(
            PieceKind.THOUGHT_DATA, name="thinking_blocks", data=[part]
        )  # Anthropic-like: for the next turn
    else:
        yield from unmapped(rest, place, said)
    for name in [name for name in part if name in CITATIONS]:
        yield from sources(name, part[name], f"{place}.{name}")
