"""Query strings: how to retrieve a response, and which of its items to list."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from gateway.wire.errors import invalid

INCLUDE = frozenset(
    {
        "code_interpreter_call.outputs",
        "computer_call_output.output.image_url",
        "file_search_call.results",
        "message.input_image.image_url",
        "message.output_text.logprobs",
        "reasoning.encrypted_content",
        "web_search_call.action.sources",
        "web_search_call.results",
    }
)


LIMIT_DEFAULT = 20
LIMIT_MAX = 100
ORDERS = ("asc", "desc")
CURSOR_DIGITS_MAX = 18
"""Digits of `starting_after`: any such number fits a 64-bit integer."""


def check_include(value: str) -> None:
    """Refuse an `include` value that the API does not have."""
    if value not in INCLUDE:
        known = ", ".join(sorted(INCLUDE))
        raise invalid(f"Invalid value for 'include'. Supported values are: {known}.", param="include")


@dataclass(frozen=True, slots=True)
class Retrieve:
    """A validated GET of one response. `after` is the last sequence number the reader has, or -1."""

    is_stream: bool
    after: int


def parse_retrieve(query: Mapping[str, list[str]]) -> Retrieve:
    """The query of `GET /responses/{id}`.

    Raises:
        Refusal: A malformed or unsupported parameter; nothing is silently ignored.
    """
    is_stream = _boolean(query, "stream")
    _boolean(query, "include_obfuscation")  # accepted; stored events carry no obfuscation
    _includes(query)
    raw = _single(query, "starting_after")
    if raw is None:
        return Retrieve(is_stream, -1)
    if not re.fullmatch(rf"[0-9]{{1,{CURSOR_DIGITS_MAX}}}", raw):
        raise invalid(
            "Invalid value for 'starting_after': expected a non-negative integer.",
            param="starting_after",
            code="invalid_type",
        )
    if not is_stream:
        raise invalid(
            "'starting_after' can only be used with 'stream=true'.",
            param="starting_after",
            code="unsupported_parameter",
        )
    return Retrieve(is_stream, int(raw))


@dataclass(frozen=True, slots=True)
class ListItems:
    """A validated GET of a response's input items."""

    limit: int
    order: str
    after: str | None
    before: str | None


def parse_list_items(query: Mapping[str, list[str]]) -> ListItems:
    """The query of `GET /responses/{id}/input_items`."""
    _includes(query)
    raw = _single(query, "limit")
    limit = LIMIT_DEFAULT if raw is None else int(raw) if re.fullmatch(r"[0-9]{1,4}", raw) else 0
    if not 1 <= limit <= LIMIT_MAX:
        raise invalid(f"Invalid value for 'limit': expected an integer from 1 to {LIMIT_MAX}.", param="limit")
    order = _single(query, "order")
    if order is None:
        order = "desc"
    elif order not in ORDERS:
        raise invalid("Invalid value for 'order': expected 'asc' or 'desc'.", param="order")
    return ListItems(limit, order, _single(query, "after") or None, _single(query, "before") or None)


def _includes(query: Mapping[str, list[str]]) -> None:
    for name in ("include", "include[]"):  # both SDKs send the second form
        for value in query.get(name, []):
            check_include(value)
            if value == "reasoning.encrypted_content":
                raise invalid(
                    "Encrypted content cannot be requested for persisted responses.", param="include"
                )


def _single(query: Mapping[str, list[str]], name: str) -> str | None:
    values = query.get(name, [])
    if len(values) > 1:
        raise invalid(f"'{name}' was given more than once.", param=name)
    return values[0] if values else None


def _boolean(query: Mapping[str, list[str]], name: str) -> bool:
    raw = _single(query, name)
    if raw is None or raw.lower() in ("false", "0"):
        return False
    if raw.lower() in ("true", "1"):
        return True
    raise invalid(f"Invalid value for '{name}': expected 'true' or 'false'.", param=name, code="invalid_type")
