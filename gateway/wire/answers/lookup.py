"""Which item an event of a backend means: the rules by which it is found, in tables.

Servers leave out ids and indexes, give one id to all items, change ids from event to event, or are one index
too far. A rule says what is decided by; it stands beside the servers that need it. Nothing here makes an
event, and nothing is changed.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass
from typing import Any

from gateway.wire.answers import item_shapes
from gateway.wire.answers.output import CALLS, Item, Items, OutputItem, text_of

_TEXTS_TAKEN = {
    "reasoning": {"message"},
    "function_call": CALLS,
    "custom_tool_call": CALLS,
    "mcp_call": {"mcp_call", "function_call"},
}
"""Type of an item: by the events of which other types its text may be told. LocalAI tells thoughts by those
of an answer, OGX the arguments of an MCP call by those of a function's."""


@dataclass(frozen=True, slots=True)
class Reference:
    """The facts by which a backend says which item it means.

    Attributes:
        type: By what the item says, or by the event's name.
        item: The item itself, where the event has it.
        text: All of a text, where the event closes one.
    """

    type: str
    id: str | None = None
    index: int | None = None
    call_id: str | None = None
    item: Item | None = None
    text: str | None = None

    @classmethod
    def of_event(cls, event: dict[str, Any], item_type: str, text: Any = None) -> Reference:
        """The clues of an event about an item."""
        said = text if isinstance(text, str) and text else None
        return cls(item_type, name_of(event.get("item_id")), number_of(event.get("output_index")), text=said)

    @classmethod
    def of_item(cls, item: Item, event: dict[str, Any]) -> Reference:
        """The clues of an event with a whole item; with an empty event, of an item in the final output."""
        return cls(
            item_shapes.type_of(item),
            # vLLM with a tool server: a call without `id` has `item_id`
            name_of(item.get("id")) or name_of(item.get("item_id")) or name_of(event.get("item_id")),
            number_of(event.get("output_index")),
            name_of(item.get("call_id")),
            item,
            text_of(item) or None,
        )

    def may_mean(self, known: OutputItem) -> bool:
        """True if types allow it. An item is of the type that it said, whatever events tell its text; if no
        one has announced it, it is what its events are."""
        if known.is_guess and self.item is not None:
            return False
        if known.type == self.type:
            return True
        is_told = bool(known.first) or known.is_guess
        return self.item is None and is_told and takes_text(known.type, self.type)

    def says_what(self, known: OutputItem) -> bool:
        """True if the text is the whole of what an item said."""
        return self.text is not None and self.text == known.said()

    def has_another_call_id(self, known: OutputItem) -> bool:
        """True if both have a `call_id`, and it is not the same."""
        theirs = known.fields.get("call_id")
        return None not in (self.call_id, theirs) and self.call_id != theirs

    def is_another_call(self, known: OutputItem) -> bool:
        """True if both have an id and a `call_id`, and share neither."""
        has_another_id = None not in (self.id, known.given_id) and self.id != known.given_id
        return has_another_id and self.has_another_call_id(known)

    def goes_on_from(self, known: OutputItem) -> bool:
        """True if the text begins with what an item has said so far."""
        return self.text is not None and bool(said := known.said()) and self.text.startswith(said)


def name_of(value: Any) -> str | None:
    """An id, if it is one."""
    return value if isinstance(value, str) and value else None


def number_of(value: Any) -> int | None:
    """An index, if it is one."""
    return value if isinstance(value, int) and not isinstance(value, bool) else None


LookupRule = Callable[["Items", Reference], OutputItem | None]


def find(rules: Rules, items: Items, ref: Reference) -> OutputItem | None:
    """The result of the first rule that finds an item."""
    for rule, _ in rules:
        if (found := rule(items, ref)) is not None:
            return found
    return None


def _open(items: Items, ref: Reference) -> Iterator[OutputItem]:
    """The open items of the type, newest first."""
    for known in reversed(items.all()):
        if known.type == ref.type and not known.is_done and ref.may_mean(known):
            yield known


def by_id(items: Items, ref: Reference) -> OutputItem | None:
    """An id names an item, also one that is done. If several have it: one of the type, of the index, that is
    open. What comes under another index than that of an item that is done is about that item only if it says
    the same, and of a call under no other `call_id`."""
    named = [known for known in items.named(ref.id) if ref.may_mean(known)]
    named = [known for known in named if known.type == ref.type] or named
    at_index = [known for known in named if ref.index is not None and known.given_index == ref.index]
    candidates = at_index or named
    if not candidates:
        return None
    found = next((known for known in reversed(candidates) if not known.is_done), candidates[-1])
    is_elsewhere = not at_index and None not in (ref.index, found.given_index)
    is_again = ref.says_what(found) and not ref.has_another_call_id(found)
    return None if found.is_done and is_elsewhere and not is_again else found


def by_own_id(items: Items, ref: Reference) -> OutputItem | None:
    """An id that only one item of the type has."""
    named = [known for known in items.named(ref.id) if known.type == ref.type and ref.may_mean(known)]
    return named[0] if len(named) == 1 else None


def by_call_id(items: Items, ref: Reference) -> OutputItem | None:
    """A call is what a client answers to: one for each `call_id`."""
    return items.call(ref.type, ref.call_id)


def _twin_at(items: Items, known: OutputItem | None, index: int | None) -> OutputItem | None:
    """The call that was announced under the `call_id` of another, at this index."""
    if known is None or None in (index, known.given_index):
        return None
    return next((each for each in items.unshown if each.twin is known and each.given_index == index), None)


def by_call_id_again(items: Items, ref: Reference) -> OutputItem | None:
    """The same, but a call that is done is meant only by what says nothing else: two calls may be given one
    `call_id`."""
    known = by_call_id(items, ref)
    if (twin := _twin_at(items, known, ref.index)) is not None:
        return twin
    says_else = ref.text not in (None, "{}") and known is not None and not ref.says_what(known)
    return None if known is not None and known.is_done and says_else else known


def by_index(items: Items, ref: Reference) -> OutputItem | None:
    """An index names an item that is open. It names one that is done only to say again what that said: not a
    call that has neither its id nor its `call_id`."""
    numbered = [known for known in reversed(items.numbered(ref.index)) if ref.may_mean(known)]
    for known in numbered:
        if known.type == ref.type and not known.is_done:
            return known
    for known in numbered:
        is_again = known.is_done and ref.says_what(known) and not ref.is_another_call(known)
        if is_again or (ref.id is None and not known.is_done):
            return known
    return None


def newest(items: Items, ref: Reference) -> OutputItem | None:
    """The newest open item of the type. One that has another index, or another id and has begun, is not
    meant: ids that change after the opening of an item are given the benefit of the doubt once."""
    for known in _open(items, ref):
        if ref.index is not None and known.given_index is not None:
            if ref.index == known.given_index:
                return known
        elif ref.id is None or known.given_id in (None, ref.id) or not known.is_begun():
            return known
    return None


def by_text(items: Items, ref: Reference) -> OutputItem | None:
    """The open item of the type whose text so far is the beginning of what is said in the end."""
    return next((known for known in _open(items, ref) if ref.goes_on_from(known)), None)


def announced_before(items: Items, ref: Reference) -> OutputItem | None:
    """The item of this id, type and index."""
    for known in reversed(items.named(ref.id)):
        is_there = None in (ref.index, known.given_index) or ref.index == known.given_index
        if known.type == ref.type and ref.may_mean(known) and is_there:
            return known
    return None


def unannounced(items: Items, ref: Reference) -> OutputItem | None:
    """The open item that its events have made, of this index, or with the beginning of this text."""
    for known in _open(items, ref):
        if not known.first and (known.given_index == ref.index is not None or ref.goes_on_from(known)):
            return known
    return None


def guess(items: Items, ref: Reference) -> OutputItem | None:
    """The text that an item is given, told before any event said that there is an item (OGX)."""
    for known in items.unshown:
        if not known.is_guess:
            continue
        if ref.id is not None and known.given_id == ref.id:
            return known
        is_nameless = None in (ref.id, known.given_id)
        if is_nameless and known.given_index == ref.index and takes_text(ref.type, known.type):
            return known
    return None


def takes_text(item_type: str, told_as: str) -> bool:
    """True if the text of an item may have been told by the events of another type."""
    return item_type == told_as or told_as in _TEXTS_TAKEN.get(item_type, ())


def is_of_another(items: Items, ref: Reference) -> bool:
    """True if an id names an item whose text cannot be told by such events: what OGX tells by the events of a
    function call is the query of a search that it runs itself."""
    named = items.named(ref.id)
    return bool(named) and not any(ref.may_mean(known) for known in named)


# -- the rules in their order, and who needs them

Rules = tuple[tuple[LookupRule, str], ...]

EVENT: Rules = (
    (by_id, "all; LocalAI: the id is right where the index is that of another item"),
    (by_index, "vLLM, GitHub Copilot: ids that change from event to event"),
    (newest, "llama.cpp: neither ids nor indexes; Hugging Face's responses.js: none for MCP"),
    (by_text, "SGLang to 0.5.16, TensorRT-LLM: closing events are one index too far"),
)
"""Rules for an event about a part, a text, or the state of an item."""

ADDED: Rules = (
    (announced_before, "SGLang: one id for all items, told apart by their indexes"),
    (unannounced, "OGX: thoughts under the id of the message, then an item of their own"),
)
"""Rules for an announced item."""

DONE: Rules = (
    (by_id, "all; responses.js: done twice"),
    (by_call_id_again, "Microsoft's agent framework, GitHub Copilot: done under another id"),
    (by_index, "transformers, vLLM: without an id"),
    (newest, "llama.cpp: without id and index; GitHub Copilot: ids that change"),
    (by_text, "SGLang to 0.5.16: under another id and index; TensorRT-LLM: without an id"),
)
"""Rules for a finished item."""

FINAL: Rules = (
    (by_own_id, "all"),
    (by_call_id, "OpenRouter: the id of a call is its call_id"),
)
"""Rules for an item of the final output. Items that they do not find are matched by the keys below."""


def _content(kind: str, text: str | None, name: Any) -> Hashable:
    return (kind, text, str(name) if kind in CALLS else "") if text else None


def content_of_item(known: OutputItem) -> Hashable:
    """The text of an item; for a call, with its name."""
    return _content(known.type, known.said(), known.fields.get("name"))


def content_of_reference(ref: Reference) -> Hashable:
    """The same of an item of the final output."""
    return _content(ref.type, ref.text, (ref.item or {}).get("name"))


def place_of_item(known: OutputItem) -> Hashable:
    """The first item of a type is the first of that type in the final output. But two calls are not one
    because of their order: a call that says something is found by what it says, or is another one."""
    return None if known.type in CALLS and known.said() else known.type


FINAL_KEYS: tuple[tuple[Callable[[OutputItem], Hashable], Callable[[Reference], Hashable], str], ...] = (
    (content_of_item, content_of_reference, "SGLang, vLLM: the final output has ids of its own"),
    (place_of_item, lambda ref: ref.type, "vLLM with a tool server: other ids, and items without text"),
)


def match(items: Items, final: list[Item]) -> list[OutputItem | None]:
    """The item that each of the final output means; each is meant once."""
    refs = [Reference.of_item(item, {}) for item in final]
    found: list[OutputItem | None] = []
    for ref in refs:
        known = find(FINAL, items, ref)
        found.append(known if known not in found else None)
    for key_of_item, key_of_reference, _ in FINAL_KEYS:
        taken = set(found)
        left: defaultdict[Hashable, deque[OutputItem]] = defaultdict(deque)
        for known in items.all():
            if known not in taken and not known.is_guess:
                left[key_of_item(known)].append(known)
        for position, ref in enumerate(refs):
            key = key_of_reference(ref)
            if found[position] is None and key is not None and left[key]:
                found[position] = left[key].popleft()
    return found
