"""Which fragments of a chat stream are one tool call.

By the API's own book the first fragment of a call has its id and name, and `index` says to which call the
next ones belong. Engines keep little of that. The rules below decide, the first that fits; each names who
does so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import orjson

from gateway.wire.chat.arguments import Arguments
from gateway.wire.chat.fields import VENDOR_FIELDS, index_of, kept, text_of
from gateway.wire.chat.known import unsaid
from gateway.wire.events import is_writable

_FUNCTIONS = ("function", "custom", "functionCall")
_ARGUMENTS = ("arguments", "parameters", "input", "args")
"""Nearly all; Llama's own words; custom tools, Anthropic-like parts; Gemini-like parts."""
_READ = frozenset({"index", "id", "type", *_FUNCTIONS, *VENDOR_FIELDS})

IsDeclared = Callable[[str], bool]
"""True if the request has a tool of this name."""


@dataclass(frozen=True, slots=True)
class Fragment:
    """A piece of a call.

    Attributes:
        position: Its place in its chunk.
        is_alone: It is the only one there.
    """

    index: int | None
    id: str
    name: str
    arguments: str
    position: int
    is_alone: bool
    vendor: dict[str, Any] = field(default_factory=dict)
    unmapped: tuple[str, ...] = ()

    @property
    def is_empty(self) -> bool:
        return not (self.id or self.name or self.arguments or self.vendor)


@dataclass(slots=True)
class ToolCall:
    """A call that is being streamed.

    Attributes:
        unsent: Of the arguments, what waits for the item to be announced.
        item_id: Of the item, once it was.
        is_over: Another call has begun in its place.
    """

    id: str = ""
    name: str = ""
    arguments: Arguments = field(default_factory=Arguments)
    vendor: dict[str, Any] = field(default_factory=dict)
    unsent: str = ""
    item_id: str | None = None
    is_custom: bool = False
    is_over: bool = False


@dataclass(frozen=True, slots=True)
class FragmentRule:
    """One rule: does a fragment continue the call in its place, or begin another?"""

    says: str
    who: str
    fits: Callable[[ToolCall, Fragment, IsDeclared], bool]
    is_same: bool


def _has_other_id(call: ToolCall, it: Fragment) -> bool:
    return bool(it.id and call.id and it.id != call.id)


RULES: tuple[FragmentRule, ...] = (
    FragmentRule(
        "Whoever has no id and no name brings more arguments.",
        "OpenAI, vLLM, llama.cpp, SGLang",
        lambda call, it, known: not it.id and not it.name,
        is_same=True,
    ),
    FragmentRule(
        "A call without a name still waits for it, but not once another id comes after whole arguments.",
        "gateways in front of MiniMax, old SGLang: the first fragment has arguments, the next one the name",
        lambda call, it, known: not call.name and not (_has_other_id(call, it) and call.arguments.is_whole()),
        is_same=True,
    ),
    FragmentRule(
        "Other arguments with a name, after whole ones, are another call, under the same id as well.",
        "servers that count ids anew in each step: `call_0`, `functions.look:0`",
        lambda call, it, known: (
            it.id == call.id != "" and bool(it.name) and call.arguments.are_followed_by(it.arguments)
        ),
        is_same=False,
    ),
    FragmentRule(
        "The same id is the same call; with another name, if no arguments came before it.",
        "Fireworks, DeepSeek, Qwen, LiteLLM, SGLang: id, often name, in each fragment",
        lambda call, it, known: it.id == call.id != "" and (it.name in ("", call.name) or not call.arguments),
        is_same=True,
    ),
    FragmentRule(
        "Another id in the middle of the arguments, and no name: the id is worth nothing.",
        "Poolside, and others that make a new id for each chunk",
        lambda call, it, known: _has_other_id(call, it) and not it.name and not call.arguments.is_whole(),
        is_same=True,
    ),
    FragmentRule(
        "Another id is another call.",
        "Ollama, Dynamo: index 0 for all; Gemini: no index at all",
        lambda call, it, known: _has_other_id(call, it),
        is_same=False,
    ),
    FragmentRule(
        "An id that comes late is the call's own.",
        "GLM and others: null first",
        lambda call, it, known: not it.name,
        is_same=True,
    ),
    FragmentRule(
        "The same name with arguments, after whole ones: the same tool once more.",
        "Ollama up to 0.5, llama-cpp-python: neither id nor index",
        lambda call, it, known: it.name == call.name and bool(it.arguments) and call.arguments.is_whole(),
        is_same=False,
    ),
    FragmentRule(
        "The same name again says nothing new.",
        "MiniMax on NVIDIA NIM: the name in each fragment, the id in the first",
        lambda call, it, known: it.name == call.name,
        is_same=True,
    ),
    FragmentRule(
        "Another name, after arguments have begun, is another call.",
        "engines without ids that end a call by the next one",
        lambda call, it, known: bool(call.arguments),
        is_same=False,
    ),
    FragmentRule(
        "The name of another tool is another call.",
        "the same, with tools that take nothing",
        lambda call, it, known: known(call.name) and known(it.name) and not known(call.name + it.name),
        is_same=False,
    ),
    FragmentRule(
        "The name so far and more of it is the whole name.",
        "servers that send what they have so far in each chunk",
        lambda call, it, known: it.name.startswith(call.name),
        is_same=True,
    ),
    FragmentRule(
        "Another name before any arguments is a further piece of the name.",
        "models behind Continue, OpenAI by its SDK's own helper: `edit_ex`, `isting_file`",
        lambda call, it, known: not it.arguments or bool(call.id and not it.id),
        is_same=True,
    ),
    FragmentRule(
        "Anything else is another call.",
        "engines without ids",
        lambda call, it, known: True,
        is_same=False,
    ),
)


class ToolCalls:
    """The calls of one answer, in the order in which they began."""

    def __init__(self, known: IsDeclared) -> None:
        self._known = known
        self._by_index: dict[int, ToolCall] = {}
        self._row: dict[int, ToolCall] = {}
        """The call at the same place in the last chunk that began several calls without an index."""
        self.all: list[ToolCall] = []

    def take(self, it: Fragment) -> tuple[ToolCall, bool]:
        """The call that a fragment belongs to, which has it now; and whether it begins with it."""
        call = self._place_of(it)
        is_new = call is None or not self._is_same(call, it)
        if is_new:
            if call is not None:
                call.is_over = True
            call = ToolCall()
            self.all.append(call)
            if it.index is not None:
                self._by_index[it.index] = call
            elif not it.is_alone:
                self._row[it.position] = call
        assert call is not None
        self._add(call, it)
        return call, is_new

    def has(self, it: Fragment) -> bool:
        """True if a whole call is known already: by its id, or by all that it says."""
        return any(
            call.id == it.id
            if it.id and call.id
            else call.name == it.name and call.arguments.are(it.arguments)
            for call in self.all
        )

    def _place_of(self, it: Fragment) -> ToolCall | None:
        """The call that stands where a fragment is: by index, else by id, else by its place in the chunk."""
        still = [call for call in self.all if not call.is_over]
        named = next((call for call in still if it.id and call.id == it.id), None)
        if it.index is not None:
            return self._by_index.get(it.index) or (named if not it.name else None)
        if named is not None:
            return named
        if not it.is_alone and (it.position in self._row or it.id or it.name):
            return self._row.get(it.position)
        return still[-1] if still else None

    def _is_same(self, call: ToolCall, it: Fragment) -> bool:
        return next(rule.is_same for rule in RULES if rule.fits(call, it, self._known))

    def _add(self, call: ToolCall, it: Fragment) -> None:
        is_early = not call.arguments and not it.arguments and call.item_id is None
        if it.id and not call.id:
            call.id = it.id
        elif is_early and not it.name and _has_other_id(call, it):
            call.id += it.id  # an id in pieces, as OpenAI's SDKs would put it together
        if not call.name or (not call.arguments and call.item_id is None):
            call.name = _name(call.name, it.name)
        call.vendor |= it.vendor


def _name(known: str, given: str) -> str:
    return given if given.startswith(known) else known if given in ("", known) else known + given


def fragments_of(value: Any, where: str) -> Iterator[Fragment]:
    """The fragments in `tool_calls`: a list, or the one object that TGI sends; in `function_call`, or in a
    part."""
    entries = [item for item in (value if isinstance(value, list) else [value]) if isinstance(item, dict)]
    for position, entry in enumerate(entries):
        inner = next((entry[name] for name in _FUNCTIONS if isinstance(entry.get(name), dict)), None)
        function = entry if inner is None else inner  # Cloudflare: name and arguments beside the id
        source = next((name for name in _ARGUMENTS if function.get(name) not in (None, "")), "arguments")
        arguments, is_lost = _json_of(function.get(source))
        vendor = kept({name: entry[name] for name in VENDOR_FIELDS if name in entry})
        vendor |= kept(
            {name: function[name] for name in VENDOR_FIELDS if name in function and name not in vendor}
        )
        rest = {name: item for name, item in entry.items() if name not in _READ}
        rest |= function if inner is not None else {}
        known = {"name", source, "arguments", *VENDOR_FIELDS}
        rest = {name: item for name, item in rest.items() if name not in known}
        yield Fragment(
            index=index_of(entry.get("index")),
            id=str(entry["id"]) if isinstance(entry.get("id"), int) else text_of(entry, "id"),
            name=text_of(function, "name"),
            arguments=arguments,
            position=position,
            is_alone=len(entries) == 1,
            vendor=vendor,
            unmapped=(*unsaid(rest, where), *([f"{where}.arguments"] if is_lost else [])),
        )


def _json_of(arguments: Any) -> tuple[str, bool]:
    """The arguments as a string; and whether there are some that cannot be written, being too deep."""
    if arguments is None or isinstance(arguments, str):
        return arguments or "", False
    if not is_writable(arguments):
        return "", True
    return orjson.dumps(arguments).decode(), False  # Ollama, Mistral, Cloudflare: an object
