"""Where things are in a chunk, or in a whole answer: the choice, its delta, its end, and what stands beside
them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from gateway.wire.chat.citations import FIELDS as CITATIONS
from gateway.wire.chat.content import Piece, sources_in, unmapped
from gateway.wire.chat.endings import Ending, ending_of
from gateway.wire.chat.fields import index_of, logprobs_of, object_of, objects_of
from gateway.wire.chat.known import is_silent
from gateway.wire.usage import Usage, usage_in

_TIERS = ("default", "flex", "scale", "priority", "fast", "ultrafast", "auto")
"""Some servers have tiers of their own, for which a response has no name."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """What a chunk has.

    Attributes:
        index: Of the choice that is shown: of several a response can show one, the first that says anything.
        about: Model and tier.
        beside: What does not stand in the delta or the message.
    """

    index: int | None
    delta: dict[str, Any]
    message: dict[str, Any]
    logprobs: list[Any]
    ending: Ending | None
    usage: Usage
    about: dict[str, Any]
    error: Any
    beside: list[Piece]


def chunk_of(sent: dict[str, Any], index: int | None) -> Chunk:
    """A chunk, read.

    Args:
        index: Of the choice that is shown, if that is known.
    """
    choices = _choices(sent)
    if index is None and choices:
        index = index_of(choices[0].get("index")) or 0
    shown = next((each for each in choices if (index_of(each.get("index")) or 0) == index), {})
    delta, message = object_of(shown.get("delta")), object_of(shown.get("message"))
    beside = list(_beside(sent, "chunk"))
    for other in choices:
        if other is shown:
            beside += _beside(other, "choice")
        else:
            beside += unmapped([other.get(name) for name in ("delta", "message", "text")], "choices")
    if isinstance(text := shown.get("text"), str) and text:
        if not delta.get("content") and not message:
            delta = {**delta, "content": text}  # of the API before chat
        elif text not in (
            delta.get("content"),
            message.get("content"),
        ):  # Together: beside each delta, the same
            beside += unmapped(text, "choice.text")
    return Chunk(
        index,
        delta,
        message,
        logprobs_of(shown),
        ending_of(shown.get("finish_reason"), shown.get("native_finish_reason")),
        usage_in(sent, shown, delta, message),
        _about(sent),
        _error(sent, shown),
        beside,
    )


def _choices(sent: dict[str, Any]) -> list[dict[str, Any]]:
    choices = objects_of(sent.get("choices"))
    if not choices and any(isinstance(sent.get(name), dict) for name in ("delta", "message")):
        # Ollama's own API, and what was made after it: the chunk is the choice.
        about = {name: sent.get(name) for name in ("delta", "message")}
        return [{**about, "finish_reason": sent.get("finish_reason") or sent.get("done_reason")}]
    return choices


def _about(sent: dict[str, Any]) -> dict[str, Any]:
    about = {}
    if (model := sent.get("model")) and isinstance(model, str):  # Azure's first chunk has an empty one
        about["model"] = model
    if sent.get("service_tier") in _TIERS:
        about["service_tier"] = sent["service_tier"]
    return about


def _error(sent: dict[str, Any], choice: dict[str, Any]) -> Any:
    """An error that stands somewhere within a chunk; one of the chunk itself was seen before."""
    base = object_of(sent.get("base_resp"))
    if index_of(base.get("status_code")):  # MiniMax
        return {"message": base.get("status_msg")}
    # OpenRouter; Groq
    return next(
        (each for each in (choice.get("error"), object_of(sent.get("x_groq")).get("error")) if each), None
    )


def _beside(holder: dict[str, Any], where: str) -> Iterator[Piece]:
    for name, value in holder.items():
        if not value or is_silent(name, where) or name in ("delta", "message"):
            continue
        if name in CITATIONS:
            yield from sources_in(name, value, f"{where}.{name}")
        else:
            yield from unmapped(value, f"{where}.{name}")
