"""Texts of hosted tools that grow inside an item, without an event that every official client takes.

The Node client before version 7 ends a stream at these events: they are new in the specification (2026-08),
or not in it. So readers are told the item when it is done; what had come of it by then is in the final object
of an answer that was cut.
"""

from __future__ import annotations

from copy import deepcopy
from typing import Any

from gateway.wire.answers.output import Item

EVENTS = {
    **{f"response.shell_call_command.{verb}": "shell_call" for verb in ("added", "delta", "done")},
    **{f"response.shell_call_output_content.{verb}": "shell_call_output" for verb in ("delta", "done")},
    **{f"response.apply_patch_call_operation_diff.{verb}": "apply_patch_call" for verb in ("delta", "done")},
}
"""Each with the type of its item."""


def grown(fields: Item, event: dict[str, Any]) -> Item:
    """The fields of an item, with what an event says."""
    item = deepcopy(fields)
    match item["type"]:
        case "shell_call":
            _command(item["action"]["commands"], event)
        case "shell_call_output":
            _output(item["output"], event)
        case "apply_patch_call":
            _patch(item.setdefault("operation", {}), event)
    return item


def _command(commands: list[Any], event: dict[str, Any]) -> None:
    place = event.get("command_index", len(commands))
    if place == len(commands):
        commands.append("")
    if not (isinstance(place, int) and 0 <= place < len(commands)):
        return
    if isinstance(full := event.get("command"), str):
        commands[place] = full or commands[place]
    elif isinstance(delta := event.get("delta"), str):
        commands[place] += delta


def _output(contents: list[Any], event: dict[str, Any]) -> None:
    place = event.get("command_index", len(contents))
    if place == len(contents):
        contents.append({"stdout": "", "stderr": "", "outcome": {"type": "exit", "exit_code": 0}})
    if not (isinstance(place, int) and 0 <= place < len(contents)):
        return
    full, delta = event.get("output"), event.get("delta")
    if isinstance(full, list) and full and isinstance(full[0], dict):
        contents[place] = full[0]
    elif isinstance(delta, dict) and isinstance(contents[place], dict):
        for name in ("stdout", "stderr"):
            if isinstance(more := delta.get(name), str):
                contents[place][name] = str(contents[place].get(name) or "") + more


def _patch(operation: Any, event: dict[str, Any]) -> None:
    if not isinstance(operation, dict):
        return
    if isinstance(full := event.get("diff"), str):
        operation["diff"] = full or operation.get("diff", "")
    elif isinstance(delta := event.get("delta"), str):
        operation["diff"] = str(operation.get("diff") or "") + delta
