"""What of a conversation goes back to a backend, and in which form.

What each backend is spared, whoever it is, is in `carried`; what one has refused is taken out by `accepted`,
which follows `Forms`. Items that only their maker knows are told in words that every backend has.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any

from gateway.wire.chat.fields import THOUGHT_FIELDS, VENDOR_FIELDS
from gateway.wire.chat.ways import System
from gateway.wire.conversation.portable_items import (
    CIPHER,
    CUSTOM,
    PORTABLE,
    Item,
    for_chat,
    portable,
    said,
    type_of,
)

_NOISE = {
    "phase": "vLLM",
    "status": "Open WebUI, vLLM: of reasoning",
    CIPHER: "vLLM, Codex",
    "content": "OpenAI's types for Python: of reasoning",
    "namespace": "vLLM",
    "created_by": "vLLM",
}
"""Fields that some have as null, and that others' schemas do not allow to be null, with who sends them so."""


class Ids(Enum):
    """The ids under which items go back."""

    AUTO = auto()
    """Not in a turn with empty thoughts: their maker would look the ids up in a store where there is nothing,
    and ask for the thought that belongs to the id of a call: all or none. Sealed thoughts keep theirs. Where
    the seal belongs to another one (GitHub Copilot has one for each event), the refusal teaches it."""
    KEPT = auto()
    NONE = auto()


@dataclass(frozen=True, slots=True)
class Forms:
    """The forms in which a backend accepts items, as its refusals have taught.

    Attributes:
        refused: Types of items that it does not take.
        without: Types of items, and fields of theirs, that it does not take.
        system: Where later system messages go.
        is_whole: Every item must have `type` and `status`, and every message its parts.
        takes_ciphers: It can read the sealed thoughts that it is given.
        asks_ciphers: Whether a call asks for thoughts to be sealed; None: if it asks for thinking.
    """

    refused: frozenset[str] = frozenset()
    without: frozenset[tuple[str, str]] = frozenset()
    system: System = System.AUTO
    is_whole: bool = False
    ids: Ids = Ids.AUTO
    takes_ciphers: bool = True
    asks_ciphers: bool | None = None

    @property
    def changes(self) -> bool:
        """True if there is anything in an input that must be looked for."""
        is_other = self.is_whole or not self.takes_ciphers or self.ids is Ids.NONE
        return bool(self.refused or self.without) or is_other or self.system is System.FIRST


@dataclass(frozen=True, slots=True)
class ReplayTarget:
    """The backend that earlier turns are sent to.

    Attributes:
        backend: Its name; empty: not known.
        is_chat: It knows chat completions only.
    """

    backend: str = ""
    is_chat: bool = False
    forms: Forms = field(default_factory=Forms)


def is_empty_thought(item: Item) -> bool:
    """True if a reasoning item says nothing outside of its maker's store. A summary alone is none of the
    thoughts: OpenAI looks for these by the id."""
    return type_of(item) == "reasoning" and not (item.get("content") or item.get(CIPHER))


def carried(items: list[Item], maker: str, to: ReplayTarget) -> list[Item]:
    """What of an earlier turn's items is told.

    Args:
        maker: Name of the backend that the turn was with. What only that one can read stays with it.
    """
    is_foreign = bool(maker and to.backend and maker != to.backend)
    thoughts = [item for item in items if type_of(item) == "reasoning"]
    needs_a_store = any(is_empty_thought(item) for item in thoughts)
    are_named = to.forms.ids is Ids.KEPT or not (is_foreign or needs_a_store)
    told: list[Item] = []
    for item in items:
        known = {k: v for k, v in item.items() if v is not None or k not in _NOISE}
        if is_foreign:
            known = _without(known, CIPHER, *VENDOR_FIELDS, *THOUGHT_FIELDS)
        if not are_named and type_of(item) != "item_reference":
            known = _without(known, "id")
        if to.is_chat:
            told += for_chat(known)
        elif is_foreign:
            told += _for_another(known)
        elif not is_empty_thought(known):
            told.append(known)
    return told


def accepted(items: list[Item], forms: Forms) -> list[Item]:
    """The items of a call in the forms that its backend has not refused."""
    made: list[Item] = []
    for item in items:
        known = item if forms.takes_ciphers else _without(item, CIPHER)
        if is_empty_thought(known) and (known is not item or forms.ids is Ids.NONE):
            continue  # without its seal, or its id, it says nothing
        made += portable(known) if type_of(known) in forms.refused else [known]
    return [_formed(item, forms) for item in made]


def system_first(instructions: Any, items: list[Item]) -> tuple[Any, list[Item]]:
    """Instructions and items with all system messages in the first of them; as they are, if one of these has
    more than text."""
    instructing = [item for item in items if item.get("role") in ("system", "developer")]
    texts = [_text_of(item.get("content")) for item in instructing]
    if not instructing or None in texts or not isinstance(instructions, str | None):
        return instructions, items
    text = "\n\n".join(filter(None, [instructions, *texts]))
    others = [item for item in items if item.get("role") not in ("system", "developer")]
    if instructions is not None:
        return text, others
    return None, [{**instructing[0], "content": text}, *others]


def _text_of(content: Any) -> str | None:
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    texts = [part["text"] for part in parts if isinstance(part, dict) and isinstance(part.get("text"), str)]
    return "\n".join(texts) if parts and len(texts) == len(parts) else None


# -- forms


def _formed(item: Item, forms: Forms) -> Item:
    kind = type_of(item)
    refused = {name for of, name in forms.without if of == kind}
    if forms.ids is Ids.NONE and kind != "item_reference":
        refused.add("id")
    if forms.is_whole:
        item = _whole(item)
    return _without(item, *refused) if refused else item


def _whole(item: Item) -> Item:
    """An item with what the API lets go without saying."""
    kind = type_of(item)
    if kind not in PORTABLE:
        return item
    item = {"type": kind, "status": "completed", **{k: v for k, v in item.items() if v is not None}}
    if isinstance(text := item.get("content"), str):
        is_own = item.get("role") == "assistant"
        part: Item = {"type": "output_text" if is_own else "input_text", "text": text}
        item["content"] = [{**part, "annotations": []} if is_own else part]
    return item


def _for_another(item: Item) -> list[Item]:
    """An item of another backend's, without what only that one put there: text is what each of them takes."""
    if type_of(item) not in PORTABLE | CUSTOM:
        return portable(item)
    parts = item.get("content")
    if item.get("role") != "assistant" or not isinstance(parts, list):
        return [item]
    texts = [part.get("text") for part in parts if isinstance(part, dict)]
    words = [text for text in texts if isinstance(text, str)]
    return [said("".join(words))] if len(words) == len(parts) else [item]


def _without(item: Item, *names: str) -> Item:
    return {name: value for name, value in item.items() if name not in names}
