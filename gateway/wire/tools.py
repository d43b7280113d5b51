"""The tools that a request declares, wherever they stand: in `tools`, in a namespace, in an item of `input`.

Whatever is no tool is passed over here; what is wrong with it is said in `shapes`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

SIDE_EFFECTS = ("mcp", "code_interpreter", "web_search", "shell", "local_shell", "computer")
"""How the types begin of tools that a backend runs itself with effects outside (some end in a date): a call
with one is never made twice."""

BUILT_IN = (
    *SIDE_EFFECTS,
    *("file_search", "image_generation", "apply_patch", "tool_search", "programmatic_tool_calling"),
    *("x_search", "code_execution", "collections_search"),  # xAI
)
"""How the types begin of tools that some server runs itself, or that some model knows by itself."""

CALLED = ("function", "custom")
"""Types of tools that the client runs, whatever they do."""

OMITTED_HEADER = "x-backburner-omitted-tools"
"""Header of the answer to a create: the types of omitted tools."""

HOLDERS = frozenset({"additional_tools", "tool_search_output"})
"""Items of `input` that bring tools along: Codex with some models sends none in `tools`."""


@dataclass(frozen=True, slots=True)
class Declared:
    """A tool of a request.

    Attributes:
        tool: As the client declared it.
        kind: Its type.
        name: Its name, as a function or a custom tool; also if it was declared as chat completions have it.
        param: Its place in the request.
        namespace: The name of the group that it stands in; empty outside of any.
        group: What the client says of that group.
    """

    tool: dict[str, Any]
    kind: str
    name: str
    param: str
    namespace: str
    group: str

    @property
    def family(self) -> str:
        """A word for its type out of a closed set, for metrics and log lines."""
        return next((known for known in (*BUILT_IN, *CALLED) if self.kind.startswith(known)), "other")


def declared(request: Mapping[str, Any], input: Any) -> Iterator[Declared]:
    """All tools of a request, those of a namespace one by one."""
    yield from _each(request.get("tools"), "tools")
    for position, item in enumerate(input) if isinstance(input, list) else ():
        if isinstance(item, dict) and str(item.get("type")) in HOLDERS:
            yield from _each(item.get("tools"), f"input.{position}.tools")


def name_of(tool: Mapping[str, Any]) -> str:
    """The name of a tool, or of a choice of one."""
    name = tool.get("name")
    if name is None:
        inner = tool.get(str(tool.get("type")))  # as chat completions have it
        name = inner.get("name") if isinstance(inner, dict) else None
    return name if isinstance(name, str) else ""


def _each(tools: Any, param: str, namespace: str = "", group: str = "") -> Iterator[Declared]:
    for position, tool in enumerate(tools) if isinstance(tools, list) else ():
        if not isinstance(tool, dict):
            continue
        kind = tool.get("type")
        if kind == "namespace" and not namespace:
            words = (str(tool.get(name) or "") for name in ("name", "description"))
            yield from _each(tool.get("tools"), f"{param}.{position}.tools", *words)
        else:
            kind = kind if isinstance(kind, str) else ""
            yield Declared(tool, kind, name_of(tool), f"{param}.{position}", namespace, group)


def in_header(tools: Iterable[Declared]) -> str:
    """The types of some tools as the value of a header, which has no room for whatever a client may write."""
    kinds = dict.fromkeys(tool.kind if _WORD.fullmatch(tool.kind) else "other" for tool in tools)
    return ", ".join([*kinds][:_KINDS_MAX])


_WORD = re.compile(r"[A-Za-z0-9_.:-]{1,64}")
_KINDS_MAX = 16
