"""What a delta, or a whole message, says: its fields in all the names and shapes in use, as pieces in their
order.

The tables say which field and which type of part means what, and who sends it. What no row knows comes out as
a piece as well: unmapped, with its place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from enum import Enum, auto
from typing import Any, NamedTuple

from gateway.wire.chat.citations import FIELDS as CITATIONS
from gateway.wire.chat.citations import sources_of
from gateway.wire.chat.fields import has_content, kept, object_of
from gateway.wire.chat.images import image_of
from gateway.wire.chat.known import telling, unsaid


class Kind(Enum):
    """What a piece is, in the order in which the pieces of one delta are told."""

    THOUGHT = auto()
    THOUGHT_DATA = auto()
    """What belongs to a thought and is for the next turn: signatures, ciphertext. Its text, if that stands
    nowhere else."""
    TEXT = auto()
    MARKED_TEXT = auto()
    """Text of which the delta says that it is thought, at least in part."""
    REFUSAL = auto()
    IMAGE = auto()
    AUDIO = auto()
    SOURCE = auto()
    VENDOR = auto()
    """A vendor's own data, for the next turn."""
    CALL = auto()
    UNMAPPED = auto()


class Piece(NamedTuple):
    """One thing that was said.

    Attributes:
        name: Of an unmapped piece its place; of others, the field.
        data: What is no text: an image, a source, a call as chat completions have it.
    """

    kind: Kind
    text: str = ""
    name: str = ""
    data: Any = None


_FIELDS: dict[str, Kind] = {
    # Thoughts. Several of these in one delta say the same: the first counts.
    "reasoning_content": Kind.THOUGHT,  # DeepSeek, older vLLM, SGLang, llama.cpp, Qwen, GLM, LiteLLM
    "reasoning": Kind.THOUGHT,  # vLLM, OpenRouter, Groq, Ollama, Cerebras, LM Studio
    "reasoning_text": Kind.THOUGHT,  # GitHub Copilot
    "thinking": Kind.THOUGHT,  # Ollama's own API and what was made after it
    "thought": Kind.THOUGHT,
    "reasoning_details": Kind.THOUGHT,  # OpenRouter, MiniMax
    "thinking_blocks": Kind.THOUGHT,  # LiteLLM
    "content": Kind.TEXT,
    "refusal": Kind.REFUSAL,
    "images": Kind.IMAGE,  # OpenRouter, LiteLLM, Gemini-like
    "image": Kind.IMAGE,
    "audio": Kind.AUDIO,  # OpenAI
    **dict.fromkeys(CITATIONS, Kind.SOURCE),
    "extra_content": Kind.VENDOR,  # Gemini
    "tool_calls": Kind.CALL,
    "function_call": Kind.CALL,  # before there were several
}
_RANKS = {name: rank for rank, name in enumerate(_FIELDS)}

_PARTS: dict[str, Kind] = {
    "text": Kind.TEXT,  # OpenAI, Mistral, Databricks
    "output_text": Kind.TEXT,
    "text_delta": Kind.TEXT,  # Anthropic-like
    "reference": Kind.TEXT,  # Mistral: words with their sources
    "thinking": Kind.THOUGHT,  # Mistral, Anthropic-like
    "thinking_delta": Kind.THOUGHT,
    "reasoning": Kind.THOUGHT,  # Databricks, Cohere-like
    "reasoning_text": Kind.THOUGHT,
    "reasoning_content": Kind.THOUGHT,
    "summary_text": Kind.THOUGHT,
    "reasoning.text": Kind.THOUGHT,  # OpenRouter
    "reasoning.summary": Kind.THOUGHT,
    "refusal": Kind.REFUSAL,
    "image_url": Kind.IMAGE,
    "image": Kind.IMAGE,  # Anthropic-like
    "output_image": Kind.IMAGE,
    "input_image": Kind.IMAGE,
    "audio": Kind.AUDIO,
    "output_audio": Kind.AUDIO,
    "input_audio": Kind.AUDIO,
    "tool_use": Kind.CALL,  # Anthropic-like
    "tool_call": Kind.CALL,
    "function_call": Kind.CALL,
}
"""By the type of a part of `content`."""

_UNTYPED: dict[str, Kind] = {
    "functionCall": Kind.CALL,  # Gemini-like
    "function_call": Kind.CALL,
    "inlineData": Kind.IMAGE,
    "inline_data": Kind.IMAGE,
    "image_url": Kind.IMAGE,
    "input_audio": Kind.AUDIO,
    "audio": Kind.AUDIO,
    "thinking": Kind.THOUGHT,
    "reasoning": Kind.THOUGHT,
    "refusal": Kind.REFUSAL,
    "text": Kind.TEXT,
}
"""By what a part without a type has."""

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

_KEPT = ("reasoning_details", "thinking_blocks")
"""Thoughts with what belongs to them, which some backends want back as it was."""

_DEPTH_MAX = 12


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
            case Kind.THOUGHT:
                said = list(_words(value))
                text = "".join(said)
                is_new = bool(text) and text.strip() not in thoughts
                if is_new:
                    thoughts.add(text.strip())
                    yield Piece(Kind.THOUGHT, text, name)
                if name in _KEPT and isinstance(value, list):
                    yield Piece(Kind.THOUGHT_DATA, text if is_new else "", name, value)
                else:
                    yield from unmapped(value, place, said)
            case Kind.TEXT:
                is_marked = "extra_content" in holder and _is_thought(holder["extra_content"])
                yield from _content(value, place, Kind.MARKED_TEXT if is_marked else Kind.TEXT)
            case None:
                yield from unmapped(value, place)
            case kind:
                yield from _READINGS[kind](name, value, place)
    if "provider_specific_fields" in holder:
        vendor = object_of(holder["provider_specific_fields"])
        for name in telling(vendor, "delta"):
            if name not in _FIELDS:
                yield from unmapped(vendor[name], f"{where}.provider_specific_fields.{name}")


def unmapped(value: Any, place: str, said: list[str] | tuple[str, ...] = ()) -> Iterator[Piece]:
    """What of a value has content, and is not among what was said of it."""
    for found in unsaid(value, place, said):
        yield Piece(Kind.UNMAPPED, name=found)


# -- fields


def _refusal(name: str, value: Any, place: str) -> Iterator[Piece]:
    said = list(_words(value))
    yield from (Piece(Kind.REFUSAL, text, name) for text in said)
    yield from unmapped(value, place, said)


def _images(name: str, value: Any, place: str) -> Iterator[Piece]:
    for entry in value if isinstance(value, list) else [value]:
        yield from _image(entry, place)


def _audio(name: str, value: Any, place: str) -> Iterator[Piece]:
    fields = kept(object_of(value))
    if not fields:
        yield from unmapped(value, place)
    elif has_content([fields.get("data"), fields.get("transcript")]) or len(fields) > 1:
        yield Piece(Kind.AUDIO, name=name, data=fields)


def sources_in(name: str, value: Any, place: str) -> Iterator[Piece]:
    """The sources in a field, of a chunk or a choice as well."""
    found = sources_of(name, value)
    yield from (Piece(Kind.SOURCE, name=name, data=source) for source in found)
    if not found:
        yield from unmapped(value, place)
    elif isinstance(value, dict):
        inner = CITATIONS[name]
        yield from unmapped(
            {key: item for key, item in value.items() if key != inner} if inner else {}, place
        )


def _vendor(name: str, value: Any, place: str) -> Iterator[Piece]:
    if isinstance(value, dict) and (fields := kept(value)):
        if has_content(fields):
            yield Piece(Kind.VENDOR, name=name, data=fields)
    else:
        yield from unmapped(value, place)


def _calls(name: str, value: Any, place: str) -> Iterator[Piece]:
    if isinstance(value, list | dict):
        yield Piece(Kind.CALL, name=name, data=value)
    else:
        yield from unmapped(value, place)


_READINGS: dict[Kind, Callable[[str, Any, str], Iterator[Piece]]] = {
    Kind.REFUSAL: _refusal,
    Kind.IMAGE: _images,
    Kind.AUDIO: _audio,
    Kind.SOURCE: sources_in,
    Kind.VENDOR: _vendor,
    Kind.CALL: _calls,
}


def _is_thought(extra: Any) -> bool:
    """Gemini marks a delta of thoughts; and a whole message, if there are thoughts in it."""
    return object_of(object_of(extra).get("google")).get("thought") is True


# -- parts of content


def _content(value: Any, place: str, kind: Kind) -> Iterator[Piece]:
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


def _part(part: dict[str, Any], place: str) -> Iterator[Piece]:
    named = part.get("type")
    kind = _PARTS.get(named) if isinstance(named, str) else _untyped(part)
    place = f"{place}.{named}" if isinstance(named, str) else place
    match kind:
        case Kind.TEXT | Kind.THOUGHT | Kind.REFUSAL:
            said = list(_words(part))
            yield from (Piece(kind, text, "content") for text in said)
            rest = part
            for name in CITATIONS.keys() & part.keys():
                yield from sources_in(name, part[name], f"{place}.{name}")
                rest = {key: item for key, item in rest.items() if key != name}
            yield from unmapped(rest, place, said)
        case Kind.IMAGE:
            yield from _image(part, place)
        case Kind.AUDIO:
            inner = next((part[name] for name in ("audio", "input_audio") if part.get(name)), part)
            yield from _audio("audio", inner, place)
        case Kind.CALL:
            inner = next(
                (part[name] for name in ("functionCall", "function_call", "tool_call") if name in part), part
            )
            yield Piece(Kind.CALL, name="content", data=inner)
        case _:
            yield from unmapped(part, place)


def _untyped(part: dict[str, Any]) -> Kind | None:
    kind = next((kind for name, kind in _UNTYPED.items() if part.get(name)), None)
    return Kind.THOUGHT if kind is Kind.TEXT and part.get("thought") is True else kind


def _image(entry: Any, place: str) -> Iterator[Piece]:
    image = image_of(entry)
    if image is not None:
        yield Piece(Kind.IMAGE, data=image)
    yield from unmapped(entry, place, [image.given] if image is not None else [])


def _words(value: Any, depth: int = _DEPTH_MAX) -> Iterator[str]:
    """The texts in a value that is one, or a list of parts, or an object that has one under a usual name."""
    if isinstance(value, str):
        if value:
            yield value
    elif isinstance(value, list) and depth:
        for item in value:
            yield from _words(item, depth - 1)
    elif isinstance(value, dict) and depth:
        for name in _WORDS:
            if found := list(_words(value.get(name), depth - 1)):
                yield from found
                return
