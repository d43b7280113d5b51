"""Where things are in a chunk, or in a whole answer: the choice, its delta, its end, and what is beside."""

from __future__ import annotations

from typing import Any, NamedTuple

from gateway.wire.chat.citations import FIELDS as CITATIONS
from gateway.wire.chat.endings import Ending, ending_of
from gateway.wire.chat.fields import index_of, logprobs_of, object_of, objects_of
from gateway.wire.chat.known import SILENT, telling
from gateway.wire.chat.parts import sources
from gateway.wire.chat.pieces import Piece, unknown, unmapped
from gateway.wire.usage import Usage, usage_in

_TIERS = ("default", "flex", "scale", "priority", "fast", "ultrafast", "auto")
"""Some servers have tiers of their own, for which a response has no name."""

_CHOICES = ("delta", "message")

_DULL_CHUNK = SILENT["chunk"] - {"x_groq", "base_resp", "timings", "usage_metadata", "usageMetadata"}
_DULL_CHOICE = SILENT["choice"] - {"message", "text", "error", "usage", "native_finish_reason"}
_DULL_DELTA = frozenset({"role", "content"})


class Chunk(NamedTuple):
    """What a chunk has.

    Attributes:
        shown: The index of the choice that is shown: of several a response can show one, the first to come.
        about: Model and tier.
        beside: What does not stand in the delta or the message.
    """

    shown: int | None
    delta: dict[str, Any]
    message: dict[str, Any]
    logprobs: list[Any]
    ending: Ending | None
    usage: Usage
    about: dict[str, Any]
    error: Any
    beside: list[Piece]


def text_alone(sent: dict[str, Any], shown: int | None) -> str:
    """The text of a chunk that has nothing else to say, as nearly all have; of any other chunk, "".

    A shortcut past the tables: it must not see anything otherwise than they do.
    """
    choices = sent.get("choices")
    if not isinstance(choices, list) or len(choices) != 1 or not isinstance(choice := choices[0], dict):
        return ""
    delta = choice.get("delta")
    if not isinstance(delta, dict) or choice.get("index", 0) != shown or choice.get("finish_reason"):
        return ""
    text = delta.get("content")
    if not isinstance(text, str) or not _DULL_CHUNK.issuperset(sent) or not _DULL_CHOICE.issuperset(choice):
        return ""
    if choice.get("logprobs") or sent.get("usage") or sent.get("error"):
        return ""
    return text if all(name in _DULL_DELTA or not value for name, value in delta.items()) else ""


def chunk_of(sent: dict[str, Any], index: int | None) -> Chunk:
    """A chunk, read.

    Args:
        index: Of the choice that is shown, if that is known.
    """
    choices = _choices(sent)
    if index is None and choices:
        index = index_of(choices[0].get("index")) or 0
    shown: dict[str, Any] = {}
    beside = _beside(sent, "chunk")
    for each in choices:
        if not shown and (index_of(each.get("index")) or 0) == index:
            shown = each
            beside += _beside(each, "choice")
        else:
            beside += unknown([each.get(name) for name in ("delta", "message", "text")], "choices")
    delta, message = object_of(shown.get("delta")), object_of(shown.get("message"))
    if isinstance(text := shown.get("text"), str) and text:
        if not delta.get("content") and not message:
            delta = {**delta, "content": text}  # of the API before chat
        elif text not in (delta.get("content"), message.get("content")):
            beside += unmapped(text, "choice.text")  # Together: the same beside each delta
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
    if not choices and any(isinstance(sent.get(name), dict) for name in _CHOICES):
        # Ollama's own API, and what was made after it: the chunk is the choice.
        about = {name: sent.get(name) for name in _CHOICES}
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
    if error := choice.get("error"):  # OpenRouter
        return error
    if "base_resp" in sent and index_of((base := object_of(sent["base_resp"])).get("status_code")):  # MiniMax
        return {"message": base.get("status_msg")}
    return object_of(sent["x_groq"]).get("error") if "x_groq" in sent else None


def _beside(holder: dict[str, Any], where: str) -> list[Piece]:
    pieces: list[Piece] = []
    for name in telling(holder, where):
        if name in CITATIONS:
            pieces += sources(name, holder[name], f"{where}.{name}")
        elif not (name in _CHOICES and isinstance(holder[name], dict)):
            pieces += unknown(holder[name], f"{where}.{name}")
    return pieces
