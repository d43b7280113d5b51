"""Tools under the names that a chat backend knows them by, and back.

Chat completions have functions only, in one list. A custom tool goes there as a function with one string, a
tool of a namespace under a longer name; what a backend calls comes back as the kind of call that the client
declared. What no function can stand for is left out.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import count, islice
from typing import Any, Final

from gateway.wire.errors import Refusal, invalid
from gateway.wire.tools import OMITTED_HEADER, Declared, declared, in_header

Body = dict[str, Any]
Key = tuple[str, str]
"""The name of a tool's namespace, empty outside of any, and its own name."""

CUSTOM_TOOL_ARGUMENT = "input"
"""A custom tool takes one text; as a function it takes an object with this one string."""

TOOLS_MAX: Final = 2000
"""Tools of one request: more than a model can use. Translating them blocks the event loop for 10 ms."""

_ITEM_TYPES = {"function": "function_call", "custom": "custom_tool_call"}
"""Type of the call item, by the type of the tool. A server runs all other types, or the model knows them."""

_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_FOREIGN_TO_A_NAME = re.compile(r"[^a-zA-Z0-9_-]")

_TOP_LEVEL = "functions"
"""Some models, and Codex, call the place of the tools outside of any namespace so."""

_EXCLUDED_FIELDS = frozenset(
    {
        *("type", "name", "description", "parameters", "strict", "format"),  # they stand in `function`
        *("allowed_callers", "async", "output_schema"),  # of the Responses API alone
        "defer_loading",  # there is no search that could load it later: it is declared at once
    }
)
"""Fields of a tool that do not stand beside `function`; all others do, as vendors have them."""


@dataclass(frozen=True, slots=True)
class Tools:
    """The tools of one request.

    Attributes:
        names: The function's name that the backend is given, by the tool's own.
        items: For each of these functions, the fields of the item that a call of it becomes: `type`, `name`,
            and `namespace` where it stands in one.
        functions: As chat completions declare them, by their names.
        omitted: What the backend is not told of, since it could not be run there.
        shown: Of the request's `tools`, as the client declared them, those that the backend is told of.
    """

    names: Mapping[Key, str] = field(default_factory=dict)
    items: Mapping[str, Body] = field(default_factory=dict)
    functions: Mapping[str, Body] = field(default_factory=dict)
    omitted: tuple[Declared, ...] = ()
    shown: tuple[Body, ...] = ()

    def headers(self) -> dict[str, str]:
        """Headers about the tools in the answer to a create."""
        return {OMITTED_HEADER: in_header(self.omitted)} if self.omitted else {}

    def item_of(self, name: str) -> Body:
        """The fields of a call of this function; of a name that was not declared, a function call."""
        return dict(self.items.get(name) or {"type": "function_call", "name": name})

    def flat_of(self, item: Body) -> str:
        """The function's name for the call that an earlier item is, declared in this request or not."""
        namespace, name = _text(item, "namespace"), _text(item, "name")
        known = self.names.get((namespace, name))
        if known is None and namespace == _TOP_LEVEL:
            known = self.names.get(("", name))
        return known or _flat(namespace, name, self.functions)


def tools_of(request: Body, input: Any = None) -> Tools:
    """The tools of a request and of the items of its input, up to `TOOLS_MAX`; others are passed over."""
    found: dict[Key, Declared] = {}
    omitted = []
    for tool in islice(declared(request, input), TOOLS_MAX):
        if tool.kind not in _ITEM_TYPES or not _is_callable(tool):
            omitted.append(tool)
        elif tool.name:
            found[tool.namespace, tool.name] = tool  # an item may bring a tool anew: the later one counts
    names = _names(found)
    return Tools(
        names,
        {names[key]: _item(tool) for key, tool in found.items()},
        _functions(found, names),
        tuple(omitted),
        tuple(_shown(request.get("tools"), {tool.param for tool in omitted})),
    )


def too_many_tools(param: str) -> Refusal:
    """The refusal of more than `TOOLS_MAX`."""
    message = f"Too many tools in '{param}': at most {TOOLS_MAX}, with those of all items."
    return invalid(message, param=param, code="array_above_max_length")


def _names(found: Collection[Key]) -> dict[Key, str]:
    """A name for each; those outside of any namespace keep their own."""
    names = {key: key[1] for key in found if not key[0]}
    taken = set(names.values())
    for namespace, name in found:
        if namespace:
            names[namespace, name] = _flat(namespace, name, taken)
            taken.add(names[namespace, name])
    return names


def _functions(found: Mapping[Key, Declared], names: Mapping[Key, str]) -> dict[str, Body]:
    functions, told = {}, set()
    for key, tool in found.items():
        # What is said of a group is said once, of the first of its tools.
        group = "" if tool.namespace in told else tool.group
        told.add(tool.namespace)
        functions[names[key]] = _function(tool, names[key], group)
    return functions


def _shown(tools: Any, omitted: Collection[str], param: str = "tools") -> Iterator[Body]:
    for position, tool in enumerate(tools) if isinstance(tools, list) else ():
        place = f"{param}.{position}"
        if place in omitted or not isinstance(tool, dict):
            continue
        if tool.get("type") == "namespace":
            inner = list(_shown(tool.get("tools"), omitted, f"{place}.tools"))
            if inner:
                yield {**tool, "tools": inner}
        else:
            yield tool


def _is_callable(tool: Declared) -> bool:
    """True if the model may call it itself, and not only a program that the model writes."""
    callers = tool.tool.get("allowed_callers")
    return not isinstance(callers, list) or not callers or "direct" in callers


def _text(holder: Body, name: str) -> str:
    value = holder.get(name)
    return value if isinstance(value, str) else ""


def _flat(namespace: str, name: str, taken: Collection[str]) -> str:
    """`namespace__name`, as Codex and other gateways write it; with a digest where that is no name for a
    function, or another tool's. The same names in the same order give the same result, in every turn."""
    if not namespace:
        return name
    plain = f"{namespace}__{name}"
    if _NAME.fullmatch(plain) and plain not in taken:
        return plain
    start = _FOREIGN_TO_A_NAME.sub("_", plain)[:55]
    for number in count():
        digest = hashlib.sha256(f"{namespace}\0{name}\0{number}".encode()).hexdigest()[:8]
        if f"{start}_{digest}" not in taken:
            return f"{start}_{digest}"
    raise AssertionError("count() has no end")


def _item(tool: Declared) -> Body:
    item = {"type": _ITEM_TYPES[tool.kind], "name": tool.name}
    return {**item, "namespace": tool.namespace} if tool.namespace else item


def _function(tool: Declared, name: str, group: str) -> Body:
    """The declaration of a tool; fields of vendors stand beside it, as in theirs."""
    inner = tool.tool.get(tool.kind)
    # Some clients declare it as chat completions have it.
    given = inner if isinstance(inner, dict) and tool.tool.get("name") is None else tool.tool
    function: Body = {"name": name}
    about = [_text(given, "description"), _grammar(given.get("format")) if tool.kind == "custom" else ""]
    if group:
        about.append(f"About all tools of {tool.namespace}: {group}")
    if any(about):
        function["description"] = "\n\n".join(filter(None, about))
    if tool.kind == "custom":
        argument = {CUSTOM_TOOL_ARGUMENT: {"type": "string"}}
        function["parameters"] = {
            "type": "object",
            "properties": argument,
            "required": [CUSTOM_TOOL_ARGUMENT],
        }
    else:
        function |= {part: given[part] for part in ("parameters", "strict") if given.get(part) is not None}
    extra = {
        part: value
        for part, value in tool.tool.items()
        if value is not None and part not in _EXCLUDED_FIELDS and part != tool.kind
    }
    return {**extra, "type": "function", "function": function}


_SYNTAXES = {"lark": "this Lark grammar", "regex": "this regular expression"}


def _grammar(form: Any) -> str:
    """Description of a grammar for the model, since no server enforces it."""
    if not isinstance(form, dict) or form.get("type") != "grammar":
        return ""
    inner = form.get("grammar")  # as chat completions have it
    rules = inner if isinstance(inner, dict) else form
    syntax = _SYNTAXES.get(_text(rules, "syntax"), "this grammar")
    return f"`{CUSTOM_TOOL_ARGUMENT}` is plain text that follows {syntax}:\n{_text(rules, 'definition')}"
