"""Items that only their maker knows, in words that every backend has.

A call that a client answered becomes a function's call, with its output; what a backend ran itself becomes
something that the assistant has said; what tells a model nothing is left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

Item = dict[str, Any]

PORTABLE = frozenset({"message", "function_call", "function_call_output"})
"""Items that every backend accepts."""

CUSTOM = frozenset({"custom_tool_call", "custom_tool_call_output"})

CIPHER = "encrypted_content"
"""Thoughts that their maker alone can read."""

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

_UNTOLD_FIELDS = frozenset(
    {"id", "type", "status", "call_id", "created_by", "agent", CIPHER, "result", "name", "container_id"}
)
"""Fields for programs, and pictures (`result`)."""


def type_of(item: Item) -> str:
    """The type of an item; a message may go without."""
    return str(item.get("type") or "message")


def portable(item: Item) -> list[Item]:
    """An item that a backend does not know, as items that it does: a call and its output as a function's, all
    else as something that the assistant has said; none where there is nothing to tell."""
    kind = type_of(item)
    call_id = item.get("call_id") or (item.get("id") if kind == "local_shell_call_output" else None)
    if kind in PORTABLE:
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
    return [said(f"[{name}] {orjson.dumps(fields).decode()}")]


def said(text: str) -> Item:
    """The shortest message of an assistant that every backend takes."""
    return {"type": "message", "role": "assistant", "content": text}


def for_chat(item: Item) -> list[Item]:
    """An item of an earlier turn, with what chat completions cannot say told as text."""
    kind = type_of(item)
    if kind in ("message", "function_call_output", "custom_tool_call_output"):
        name = "content" if kind == "message" else "output"
        parts = item.get(name)
        return [{**item, name: [_sayable(part) for part in parts]} if isinstance(parts, list) else item]
    return [item] if kind in PORTABLE | CUSTOM | {"reasoning"} else portable(item)


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
    return {k: v for k, v in item.items() if k not in _UNTOLD_FIELDS and v not in (None, "", [], {})}


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
