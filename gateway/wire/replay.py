"""What of a conversation goes back to a backend, and in which form.

What each backend is spared, whoever it is, is in `carried`; what one has refused is taken out by `accepted`,
which follows `Forms`. Items that only their maker knows are told in words that every backend has.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any

import orjson

from gateway.wire.chat.ways import THOUGHT_DATA, VENDOR_DATA

Item = dict[str, Any]

PLAIN = frozenset({"message", "function_call", "function_call_output"})
"""What every backend takes."""

_CUSTOM = frozenset({"custom_tool_call", "custom_tool_call_output"})

CIPHER = "encrypted_content"

HOSTED = frozenset(
    {
        *("web_search_call", "file_search_call", "code_interpreter_call", "image_generation_call"),
        *("computer_call", "computer_call_output", "mcp_call", "mcp_list_tools"),
        *("mcp_approval_request", "mcp_approval_response", "tool_search_call", "tool_search_output"),
        *("shell_call", "shell_call_output", "local_shell_call", "local_shell_call_output"),
        *("apply_patch_call", "apply_patch_call_output", "program", "program_output"),
        *("search_results", "fetch_url_results"),  # Perplexity
        *("x_search_call", "view_image_call", "view_x_video_call"),  # xAI
        "open_webui:code_interpreter",
    }
)
"""Items about tools that a backend ran itself, or that its API alone has."""

_SILENT = frozenset(
    {
        *("reasoning", "item_reference", "additional_tools", "tool_search_call", "tool_search_output"),
        *("mcp_list_tools", "mcp_approval_request", "mcp_approval_response"),
        *("compaction", "compaction_summary", "context_compaction", "compaction_trigger"),
    }
)
"""They tell a model nothing that it has not been told already, or nothing that anybody else can read."""

_NOT_TOLD = frozenset(
    {"id", "type", "status", "call_id", "created_by", "agent", CIPHER, "result", "name", "container_id"}
)
"""Fields for programs, and pictures (`result`)."""

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
    """Whether items go back under their ids."""

    AUTO = auto()
    """Not in a turn with sealed or empty thoughts. A maker of such looks ids up in a store where there is
    nothing, ties a seal to the id that it came with (GitHub Copilot has another one in each event), and asks
    for the thought that belongs to the id of a call: all or none."""
    KEPT = auto()
    NONE = auto()


@dataclass(frozen=True, slots=True)
class Forms:
    """In which forms a backend takes items, as far as its refusals have taught.

    Attributes:
        refused: Types of items that it does not take.
        without: Types of items, and fields of theirs, that it does not take.
        is_whole: Every item must have `type` and `status`, and every message its parts.
        takes_ciphers: It can read the sealed thoughts that it is given.
        asks_ciphers: Whether a call asks for thoughts to be sealed; None: if it asks for thinking.
    """

    refused: frozenset[str] = frozenset()
    without: frozenset[tuple[str, str]] = frozenset()
    is_whole: bool = False
    ids: Ids = Ids.AUTO
    takes_ciphers: bool = True
    asks_ciphers: bool | None = None

    @property
    def changes(self) -> bool:
        """Whether there is anything in an input that must be looked for."""
        is_plain = self.is_whole or not self.takes_ciphers or self.ids is Ids.NONE
        return bool(self.refused or self.without or is_plain)


@dataclass(frozen=True, slots=True)
class Receiver:
    """Whom earlier turns are told.

    Attributes:
        backend: Its name; empty: not known.
        is_chat: It knows chat completions only.
    """

    backend: str = ""
    is_chat: bool = False
    forms: Forms = field(default_factory=Forms)


def type_of(item: Item) -> str:
    """The type of an item; a message may go without."""
    return str(item.get("type") or "message")


def is_empty_thought(item: Item) -> bool:
    """Whether a reasoning item says nothing outside of its maker's store. A summary alone is none of the
    thoughts: OpenAI looks for these by the id."""
    return type_of(item) == "reasoning" and not (item.get("content") or item.get(CIPHER))


def carried(items: list[Item], maker: str, to: Receiver) -> list[Item]:
    """What of an earlier turn's items is told.

    Args:
        maker: Name of the backend that the turn was with. What only that one can read stays with it.
    """
    is_foreign = bool(maker and to.backend and maker != to.backend)
    thoughts = [item for item in items if type_of(item) == "reasoning"]
    is_sealed = any(is_empty_thought(item) or item.get(CIPHER) for item in thoughts)
    are_named = to.forms.ids is Ids.KEPT or not (is_foreign or is_sealed)
    told: list[Item] = []
    for item in items:
        known = {k: v for k, v in item.items() if v is not None or k not in _NOISE}
        if is_foreign:
            known = _without(known, CIPHER, *VENDOR_DATA, *THOUGHT_DATA)
        if not are_named and type_of(item) != "item_reference":
            known = _without(known, "id")
        if to.is_chat:
            told += _for_chat(known)
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
        made += in_plain_words(known) if type_of(known) in forms.refused else [known]
    return [_formed(item, forms) for item in made]


def in_plain_words(item: Item) -> list[Item]:
    """An item that a backend does not know, as items that it does: a call and its output as a function's, all
    else as something that the assistant has said; none where there is nothing to tell."""
    kind = type_of(item)
    call_id = item.get("call_id") or (item.get("id") if kind == "local_shell_call_output" else None)
    if kind in PLAIN:
        return [item]
    if kind in _SILENT:
        return []
    if isinstance(call_id, str) and call_id:
        if kind.endswith("_output"):
            output = {"type": "function_call_output", "call_id": call_id}
            return [{**output, "output": _output_of(item.get("output"))}]
        if kind.endswith("_call"):
            name = str(item.get("name") or kind.removesuffix("_call"))
            call = {"type": "function_call", "call_id": call_id, "name": name}
            return [{**call, "arguments": _arguments_of(item)}]
    fields = _told_fields(item)
    if not fields:
        return []
    name = f"{kind} {item['name']}" if isinstance(item.get("name"), str) else kind
    return [_said(f"[{name}] {orjson.dumps(fields).decode()}")]


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
    if kind not in PLAIN:
        return item
    item = {"type": kind, "status": "completed", **{k: v for k, v in item.items() if v is not None}}
    if isinstance(text := item.get("content"), str):
        is_own = item.get("role") == "assistant"
        part: Item = {"type": "output_text" if is_own else "input_text", "text": text}
        item["content"] = [{**part, "annotations": []} if is_own else part]
    return item


def _said(text: str) -> Item:
    """The shortest message of an assistant that every backend takes."""
    return {"type": "message", "role": "assistant", "content": text}


def _for_another(item: Item) -> list[Item]:
    """An item of another backend's, without what only that one put there: text is what each of them takes."""
    if type_of(item) not in PLAIN | _CUSTOM:
        return in_plain_words(item)
    parts = item.get("content")
    if item.get("role") != "assistant" or not isinstance(parts, list):
        return [item]
    texts = [part.get("text") for part in parts if isinstance(part, dict)]
    words = [text for text in texts if isinstance(text, str)]
    return [_said("".join(words))] if len(words) == len(parts) else [item]


def _without(item: Item, *names: str) -> Item:
    return {name: value for name, value in item.items() if name not in names}


# -- words


def _for_chat(item: Item) -> list[Item]:
    """An item of an earlier turn, with what chat completions cannot say told as text."""
    kind = type_of(item)
    if kind in ("message", "function_call_output", "custom_tool_call_output"):
        name = "content" if kind == "message" else "output"
        parts = item.get(name)
        return [{**item, name: [_sayable(part) for part in parts]} if isinstance(parts, list) else item]
    return [item] if kind in PLAIN | _CUSTOM | {"reasoning"} else in_plain_words(item)


_INLINE: Mapping[str, tuple[str, ...]] = {
    "input_image": ("image_url",),
    "input_file": ("file_data",),
    "input_audio": ("input_audio", "data"),
}
"""Parts whose data may lie with the backend that was given them, and the fields in which they come along."""


def _sayable(part: Any) -> Any:
    names = _INLINE.get(str(part.get("type"))) if isinstance(part, dict) else None
    if names is None or any(part.get(name) for name in names):
        return part
    name = part.get("filename") or part.get("file_url") or part.get("file_id")
    return {"type": "input_text", "text": f"[{part['type']}{f' {name}' if isinstance(name, str) else ''}]"}


def _told_fields(item: Item) -> Item:
    return {k: v for k, v in item.items() if k not in _NOT_TOLD and v not in (None, "", [], {})}


def _arguments_of(item: Item) -> str:
    for name in ("arguments", "input"):
        if isinstance(text := item.get(name), str):
            return text if name == "arguments" else orjson.dumps({name: text}).decode()
    fields = _told_fields(item)
    action = fields.get("action", fields.get("operation"))
    return orjson.dumps(action if len(fields) == 1 and isinstance(action, dict) else fields).decode()


def _output_of(output: Any) -> Any:
    if isinstance(output, str):
        return output
    if isinstance(output, dict) and isinstance(output.get("image_url"), str):  # of a computer
        return [{"type": "input_image", "image_url": output["image_url"]}]
    if isinstance(output, list) and all(_is_input(part) for part in output):
        return output
    return orjson.dumps(output).decode()


def _is_input(part: Any) -> bool:
    return isinstance(part, dict) and str(part.get("type")).startswith("input_")
