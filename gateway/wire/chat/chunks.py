"""Where things are in a chunk, or in a whole answer: the choice, its delta, its end, and what is beside."""

from __future__ import annotations

from typing import Any, NamedTuple

from gateway.wire.chat.content import beside_in
from gateway.wire.chat.endings import ChatEnding, ending_of
from gateway.wire.chat.fields import index_of, logprobs_of, object_of, objects_of
from gateway.wire.chat.known import SILENT
from gateway.wire.chat.pieces import Piece, PieceKind, unknown, unmapped
from gateway.wire.usage import Usage, usage_in

_TIERS = ("default", "flex", "scale", "priority", "fast", "ultrafast", "auto")
"""Some servers have tiers of their own, for which a response has no name."""

_CHOICES = ("delta", "message")

_READ = frozenset(
    {"delta", "message", "text", "usage", "error", "provider_specific_fields", "x_groq", "base_resp"}
)
_READ |= {"timings", "usage_metadata", "usageMetadata", "finish_reason", "native_finish_reason", "logprobs"}
_DULL_CHUNK = SILENT["chunk"] - _READ
_DULL_CHOICE = (SILENT["choice"] - _READ) | {"delta"}
"""Fields that a chunk or a choice may have beside its one telling field."""

_NAMES = frozenset({"id", "object", "created", "model", "system_fingerprint", "choices"})
_PLACES = frozenset({"index", "delta"})
"""Fields of every chunk or choice."""

TEXT_FIELDS = {
    "content": PieceKind.TEXT,
    "reasoning_content": PieceKind.THOUGHT,
    "reasoning": PieceKind.THOUGHT,
}


class Choice(NamedTuple):
    """One choice of a chunk."""

    delta: dict[str, Any]
    message: dict[str, Any]
    logprobs: list[Any]
    ending: ChatEnding | None


class Chunk(NamedTuple):
    """What a chunk has.

    Attributes:
        shown: The index of the choices that are shown: of several answers a response can show one, the first.
        choices: Those with this index. Copilot puts text and calls of one answer into one each.
        about: Model and tier.
        beside: What does not stand in a delta or a message.
    """

    shown: int | None
    choices: list[Choice]
    usage: Usage
    about: dict[str, Any]
    error: Any
    beside: list[Piece]


def pieces_alone(sent: dict[str, Any], shown: int | None) -> tuple[Piece, ...] | None:
    """The text or the thought of a chunk that has nothing else to say, as nearly all have; nothing, if it
    says nothing, as those that keep a connection alive; None of any other.

    A shortcut past the tables: it must not see anything otherwise than they do.
    """
    choices = sent.get("choices")
    if not choices and shown is not None and _says_no_more_than(_NAMES, sent):
        return ()
    if not isinstance(choices, list) or len(choices) != 1 or not isinstance(choice := choices[0], dict):
        return None
    if not isinstance(delta := choice.get("delta", {}), dict) or choice.get("index", 0) != shown:
        return None
    for name, value in sent.items():
        if value and name not in _DULL_CHUNK:
            return None
    for name, value in choice.items():
        if value and name not in _DULL_CHOICE:
            return None
    said = [(name, value) for name, value in delta.items() if value and name != "role"]
    if not said and _says_no_more_than(_NAMES, sent) and _says_no_more_than(_PLACES, choice):
        return ()
    if len(said) != 1 or (kind := TEXT_FIELDS.get(said[0][0])) is None or not isinstance(said[0][1], str):
        return None
    return (Piece(kind, said[0][1], said[0][0]),)


def _says_no_more_than(names: frozenset[str], sent: dict[str, Any]) -> bool:
    return all(name in names for name, value in sent.items() if value)


def chunk_of(sent: dict[str, Any], shown: int | None) -> Chunk:
    """A chunk, read.

    Args:
        shown: The index of the choices that are shown, if that is known.
    """
    beside = list(beside_in(sent, "chunk"))
    found: list[dict[str, Any]] = []
    for each in _choices(sent, beside):
        index = index_of(each.get("index")) or 0
        shown = index if shown is None else shown
        if index == shown:
            found.append(each)
        else:
            beside += unknown([each.get(name) for name in ("delta", "message", "text")], "choices")
    choices = [_choice(each, beside) for each in found]
    usage = usage_in(sent, *found, *(each.delta for each in choices), *(each.message for each in choices))
    return Chunk(shown, choices, usage, _about(sent), _error(sent, found), beside)


def _choices(sent: dict[str, Any], beside: list[Piece]) -> list[dict[str, Any]]:
    given = sent.get("choices")
    if isinstance(given, list):
        beside += unmapped([each for each in given if isinstance(each, str)], "choices")
    choices = objects_of(given)
    if not choices and any(isinstance(sent.get(name), dict) for name in _CHOICES):
        # Ollama's own API, and what was made after it: the chunk is the choice.
        about = {name: sent.get(name) for name in _CHOICES}
        return [{**about, "finish_reason": sent.get("finish_reason") or sent.get("done_reason")}]
    for name in _CHOICES:
        beside += unknown(sent.get(name), f"chunk.{name}")
    return choices


def _choice(sent: dict[str, Any], beside: list[Piece]) -> Choice:
    beside += beside_in(sent, "choice")
    delta, message = (_spoken(sent.get(name), f"choice.{name}", beside) for name in _CHOICES)
    if isinstance(text := sent.get("text"), str) and text:
        if not delta.get("content") and not message:
            delta = {**delta, "content": text}  # of the API before chat
        elif text not in (delta.get("content"), message.get("content")):
            beside += unmapped(text, "choice.text")  # Together: the same beside each delta
    reason = sent.get("finish_reason") or sent.get("finish_details")
    word = (
        reason.get("type") if isinstance(reason, dict) else reason
    )  # as OpenAI's first model with eyes had it
    return Choice(delta, message, logprobs_of(sent), ending_of(word, sent.get("native_finish_reason")))


def _spoken(value: Any, place: str, beside: list[Piece]) -> dict[str, Any]:
    """A delta or a message; a plain text in place of one is its content."""
    if isinstance(value, dict):
        return value
    if isinstance(value, str):
        return {"content": value}
    beside += unknown(value, place)
    return {}


def _about(sent: dict[str, Any]) -> dict[str, Any]:
    about = {}
    if (model := sent.get("model")) and isinstance(model, str):  # Azure's first chunk has an empty one
        about["model"] = model
    if sent.get("service_tier") in _TIERS:
        about["service_tier"] = sent["service_tier"]
    return about


def _error(sent: dict[str, Any], choices: list[dict[str, Any]]) -> Any:
    """An error that stands somewhere within a chunk; one of the chunk itself was seen before."""
    if error := next((each["error"] for each in choices if each.get("error")), None):  # OpenRouter
        return error
    if "base_resp" in sent and index_of((base := object_of(sent["base_resp"])).get("status_code")):  # MiniMax
        return {"message": base.get("status_msg")}
    return object_of(sent["x_groq"]).get("error") if "x_groq" in sent else None
